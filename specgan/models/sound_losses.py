"""Distances of waveforms (B, T) that a vocoder learns by: in spectra of several window lengths, and in envelope."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor
from torchaudio.functional import melscale_fbanks

_FLOOR = 1e-7  # power re the loudest of a sound, below which differences do not count
_ATTACK_S = 0.06


def spectral_loss(found: Tensor, wanted: Tensor, *, n_ffts: tuple[int, ...]) -> Tensor:
    """Mean absolute difference of levels in bels, and of magnitudes re their norm, over all windows; a scalar.

    Args:
        found: (B, T).
        wanted: (B, T), not silent.
        n_ffts: samples in each window.
    Source: Yamamoto, Song, Kim, "Parallel WaveGAN", 2020, the multi-resolution STFT loss.
    """
    return torch.stack([_spectral_loss(found, wanted, n_fft) for n_fft in n_ffts]).mean()


def _spectral_loss(found: Tensor, wanted: Tensor, n_fft: int) -> Tensor:
    window = torch.hann_window(n_fft, device=found.device)
    both = torch.stft(torch.cat([found, wanted]), n_fft, n_fft // 4, window=window, return_complex=True)
    power = torch.view_as_real(both).square().sum(-1)
    found, wanted = power.chunk(2)
    floor = _FLOOR * wanted.amax((1, 2), keepdim=True) + 1e-20
    levels = F.l1_loss(torch.log10(found + floor), torch.log10(wanted + floor))
    found, wanted = (found + floor).sqrt(), (wanted + floor).sqrt()
    convergence = (found - wanted).flatten(1).norm(dim=1) / wanted.flatten(1).norm(dim=1)
    return levels + 0.5 * convergence.mean()


def mel_loss(found: Tensor, wanted: Tensor, *, sample_rate: int) -> Tensor:
    """Mean absolute difference of the levels of 40 mel bands in bels, in windows of 50 and 12 ms; a scalar."""
    losses = []
    for duration_s in (0.05, 0.0125):
        n_fft = 2 ** round(math.log2(duration_s * sample_rate))
        filters = melscale_fbanks(n_fft // 2 + 1, 0.0, sample_rate / 2, _bands_for(n_fft), sample_rate)
        window = torch.hann_window(n_fft, device=found.device)
        both = torch.stft(torch.cat([found, wanted]), n_fft, n_fft // 4, window=window, return_complex=True)
        power = torch.view_as_real(both).square().sum(-1).mT @ filters.to(found)
        levels = torch.log10(power + _FLOOR * power.chunk(2)[1].amax((1, 2)).repeat(2)[:, None, None] + 1e-20)
        losses.append(F.l1_loss(*levels.chunk(2)))
    return torch.stack(losses).mean()


def _bands_for(n_fft: int) -> int:
    return 40 if n_fft >= 1024 else 20  # no filter may be empty


def envelope_loss(found: Tensor, wanted: Tensor, *, sample_rate: int) -> Tensor:
    """Mean absolute difference of the envelopes in bels, of each millisecond or so, most of it after the onset.

    The envelope is the root mean square of the sound and of its steps, which for a steady tone is even.

    Args:
        found: (B, T).
        wanted: (B, T), not silent.
        sample_rate: Hz.
    """
    window = max(4, round(0.001 * sample_rate))
    loudest = _envelope(wanted, window).amax(1, keepdim=True)
    levels = [torch.log10(_envelope(waveform, window) + 1e-5 * loudest + 1e-20) for waveform in (found, wanted)]
    onset = (levels[1] > torch.log10(loudest + 1e-20) - 2).int().argmax(1, keepdim=True)
    after = torch.arange(levels[0].shape[1], device=found.device) - onset
    weight = 0.2 + ((after >= -4) & (after < _ATTACK_S * sample_rate / (window // 2)))
    return (weight * (levels[0] - levels[1]).abs()).sum() / weight.sum()


def _envelope(waveform: Tensor, window: int) -> Tensor:
    """(B, T) -> (B, steps), power."""
    return F.avg_pool1d(waveform.square().unsqueeze(1), 2 * window, window // 2).squeeze(1)
