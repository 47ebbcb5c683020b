"""The phase that Griffin-Lim starts from, read from the power of a spectrogram. Torch only, no files.

Phases are in turns, and those of frames that start half an FFT before their centre. Power is (B, n_frames, bins).
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from specgan.spectrogram import SpectrogramParams

_HANN_SPREAD = 0.25645  # of the Gaussian window nearest to a Hann window, times the square of its length
_TONE, _NOISE = 0.2, 0.5  # mean power around a bin, as a share of the highest, of a single tone and of noise
_ONSET = 1.0  # rise of the log magnitude from frame to frame, from which a sound begins: 9 dB


def steady_turns(power: Tensor, params: SpectrogramParams, seeds: Sequence[int]) -> Tensor:
    """Phases of steady tones, random in noise, by a seed for each spectrogram. Each bin is on its own."""
    return steady_turns_from(_random(power, seeds), power, params)


def steady_turns_from(random: Tensor, power: Tensor, params: SpectrogramParams) -> Tensor:
    """As `steady_turns`, from uniform noise in [0, 1) of the shape of `power`, which is overwritten."""
    random[:, 1:] = (random[:, 1:] - 0.5) * _noisy(power, params)[:, 1:]
    frame, bin_ = (torch.arange(n, device=power.device) for n in power.shape[1:])
    # whole numbers, for the turns of an hour are too many for a float's digits
    of_bin = torch.outer(frame * params.hop_length, bin_) % params.n_fft
    beside = _beside(_log_magnitude(power), params)
    return random.cumsum_(1).add_((beside * params.hop_length).cumsum_(1).add_(of_bin).div_(params.n_fft))


def gradient_turns(power: Tensor, params: SpectrogramParams, seeds: Sequence[int]) -> Tensor:
    """Phases from the gradients of the log magnitude in time and in frequency, random in noise, by a seed for each.

    A window's gradients say how the phase goes on: in frequency, where it falls beside a tone; in time, where it rises
    towards an onset, which is then in its place in the frame. Bins follow the highest bin near them, and that bin its
    own phase a frame before; where a sound begins, all bins follow from the onset.

    Source: Průša, Balazs, Søndergaard, "A noniterative method for reconstruction of phase from STFT magnitude",
    IEEE/ACM TASLP 2017. They go from bin to bin by falling magnitude, with a heap; peaks and what is around them, frame
    by frame, are from Laroche, Dolson, "Improved phase vocoder time-scale modification of audio", IEEE TSAP 1999, and
    take a fifth of the time.
    """
    log = _log_magnitude(power)
    peak = _peaks(log)
    across = _across(log, params)
    is_new = (log - F.pad(log, (0, 0, 1, -1), value=-torch.inf) > _ONSET).gather(2, peak)
    jitter = (_random(power, seeds) - 0.5) * _noisy(power, params)
    # From its peak to a bin, or where a sound begins from the first bin; and to the peak from a frame before
    step = torch.where(is_new, across, across - across.gather(2, peak)) + jitter
    of_bin = torch.arange(power.shape[-1], device=power.device) * params.hop_length % params.n_fft
    along = (_beside(log, params) * params.hop_length + of_bin) / params.n_fft
    step += torch.where(is_new, 0, along.gather(2, peak))
    turns = [step[:, 0]]
    for t in range(1, power.shape[1]):
        before = turns[-1] - turns[-1].round()  # a float keeps more of a fraction of a turn
        turns.append(step[:, t] + torch.where(is_new[:, t], 0, before.gather(1, peak[:, t])))
    return torch.stack(turns, 1)


def _random(power: Tensor, seeds: Sequence[int]) -> Tensor:
    random = [torch.rand(power.shape[1:], generator=torch.Generator().manual_seed(seed)) for seed in seeds]
    return torch.stack(random).to(power)


def _noisy(power: Tensor, params: SpectrogramParams) -> Tensor:
    """From 0, a tone, to 1, noise.

    Around a tone, power falls steeply to both sides; where it is even, or the bands too wide to tell, it is noise.
    There steady phases would repeat after n_fft samples, which is heard as a pitch.
    """
    reach = 4 * params.n_fft // params.win_length
    highest = F.max_pool1d(power, 2 * reach + 1, 1, reach)
    mean = F.avg_pool1d(power, 2 * reach + 1, 1, reach, count_include_pad=False)
    return ((mean / highest.clamp_min(1e-30) - _TONE) / (_NOISE - _TONE)).clamp_(0, 1)


def _log_magnitude(power: Tensor) -> Tensor:
    return power.add(1e-10 * power.amax((1, 2), keepdim=True) + 1e-30).log_().div_(2)


def _beside(log: Tensor, params: SpectrogramParams) -> Tensor:
    """Bins from each to the tone that it is a part of, from the frame before to each; 0 in the first frame.

    A tone beside a bin shows in how the logarithm of the magnitude rises towards it; exact for a Gaussian window.
    """
    rise = F.pad(log[..., 2:] - log[..., :-2], (1, 1)) / 2  # by bin
    beside = rise * (params.n_fft / params.win_length) ** 2 / (2 * torch.pi * _HANN_SPREAD)
    beside[:, 1:] = (beside[:, 1:] + beside[:, :-1]) / 2
    beside[:, 0] = 0
    return beside


def _across(log: Tensor, params: SpectrogramParams) -> Tensor:
    """Turns from the first bin to each, if frames hold parts of impulses; exact for a Gaussian window.

    An impulse in a frame shows in how the log magnitude rises from the one before to the next.
    """
    rise = log.diff(dim=1) / params.hop_length  # by sample
    delay = rise * _HANN_SPREAD * params.win_length**2 / (2 * torch.pi)  # samples, from the middle between two frames
    if log.shape[1] == 1:
        delay = torch.zeros_like(log)
    else:
        half = params.hop_length / 2
        delay = torch.cat([delay[:, :1] + half, (delay[:, 1:] + delay[:, :-1]) / 2, delay[:, -1:] - half], 1)
    delay = delay.clamp_(-params.win_length / 2, params.win_length / 2)
    return (-0.5 - delay / params.n_fft).cumsum_(2)


def _peaks(log: Tensor) -> Tensor:
    """The index (B, n_frames, bins) of the local maximum that is reached uphill from each bin."""
    n_bins = log.shape[-1]
    rises = log.diff(dim=-1) > 0
    rises_to, rises_from = F.pad(rises, (1, 0), value=True), F.pad(rises, (0, 1))
    is_peak = rises_to & ~rises_from
    bins = torch.arange(n_bins, device=log.device)
    before = torch.where(is_peak, bins, 0).cummax(2).values
    behind = torch.where(is_peak, bins, n_bins - 1).flip(2).cummin(2).values.flip(2)
    return torch.where(rises_from, behind, before)
