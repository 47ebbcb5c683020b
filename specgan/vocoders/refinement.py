"""Mel power -> waveform by a network that predicts short-time levels, and searches that need no training.

A spectrogram has one level for each band and hop, from windows of 40 ms and more: where in them an attack lies, it only
implies. A network infers it from a few neighbouring frames and says how loud each band is every millisecond or two.
Phases it need not know: these come from the first guess of Griffin-Lim, and are corrected by a few steps that can be
differentiated, so that the network learns through them. The rest is Griffin-Lim, which starts from that sound.
"""

import math
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from specgan.spectrogram import SpectrogramParams, mel_filters, squared_magnitude
from specgan.vocoders.first_phase import steady_turns
from specgan.vocoders.frames import Frames
from specgan.vocoders.griffin_lim import search_on
from specgan.vocoders.mel_inversion import MelInversion
from specgan.vocoders.vocoder import faded_frames

SHORT_S = 0.0058  # the short windows, in seconds; the next power of two in samples
_OVERLAP = 4.5  # short windows that cover a sample, about
LOWEST = 1e-8  # power re the loudest value of a spectrogram, below which all is silence
LEAST = 1e-10  # power that is added where powers are compared
_N_INVERSION_ITER = 20  # of the mel inversion, whose rest the search makes up for
DB_PER_LOG = 10 / math.log(10)  # of power, natural logarithm


class Block(nn.Module):
    """ConvNeXt block for sequences (B, T, width). Source: Liu et al., "A ConvNet for the 2020s", 2022, as in Vocos."""

    def __init__(self, width: int, *, kernel_size: int = 7, expansion: int = 3) -> None:
        super().__init__()
        self.mix = nn.Conv1d(width, width, kernel_size, padding=kernel_size // 2, groups=width)
        self.norm = nn.LayerNorm(width)
        self.widen = nn.Linear(width, expansion * width)
        self.narrow = nn.Linear(expansion * width, width)
        self.scale = nn.Parameter(torch.full((width,), 0.3))

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm(self.mix(x.transpose(-1, -2)).transpose(-1, -2))  # (B, T, width) -> (B, width, T) and back
        return x + self.scale * self.narrow(F.relu(self.widen(y)))


class Refiner(nn.Module):
    """Turns power of mel bands, or of FFT bins, into waveforms; all but the last search can be differentiated.

    Args:
        params: of the spectrograms.
        width: channels of the network.
        n_blocks: ConvNeXt blocks.
        n_bands: of the short-time levels.
        n_steps: corrections of the short-time levels, each followed by one of the spectrogram.
        n_last: corrections of the spectrogram that follow the last one of the short-time levels.
        n_iter: iterations of Griffin-Lim from there on, in which nothing is learned; 0: none.
    Raises:
        ValueError: `hop_length` has no divisor that suits as the step of short windows, or a size is below 1, or
            `n_iter` below 0.

    Attributes:
        settings: the arguments that rebuild it, besides `params`.
    """

    def __init__(
        self,
        params: SpectrogramParams,
        *,
        width: int = 160,
        n_blocks: int = 3,
        n_bands: int = 32,
        n_steps: int = 2,
        n_last: int = 2,
        n_iter: int = 0,
    ) -> None:
        super().__init__()
        self.settings: dict[str, Any] = {"width": width, "n_blocks": n_blocks, "n_bands": n_bands}
        self.settings |= {"n_steps": n_steps, "n_last": n_last, "n_iter": n_iter}
        for name, value in self.settings.items():
            least = 0 if name == "n_iter" else 1
            if not isinstance(value, int) or value < least:
                raise ValueError(f"{name} is {value!r}; a whole number, at least {least}")
        self.params, self.n_steps, self.n_last, self.n_iter = params, n_steps, n_last, n_iter
        self.n_short = 2 ** round(math.log2(SHORT_S * params.sample_rate))
        self.short_hop = _short_hop(params.hop_length, self.n_short)
        self.per_frame = params.hop_length // self.short_hop
        bands = _bands(self.n_short // 2 + 1, n_bands)  # (n_bands, short bins), sums to 1 at each bin
        self.register_buffer("bands", bands, persistent=False)
        n_inner = width
        self.enter = nn.Conv1d(params.n_bins, n_inner, 5, padding=2)
        self.blocks = nn.Sequential(*(Block(n_inner) for _ in range(n_blocks)))
        self.norm = nn.LayerNorm(n_inner)
        self.to_short = nn.Linear(n_inner, self.per_frame * len(bands))
        self.skip = nn.Linear(params.n_bins, len(bands))
        self.inversion = MelInversion(params, n_iter=_N_INVERSION_ITER) if params.kind == "mel" else None
        self._initialise()

    @torch.no_grad()
    def _initialise(self) -> None:
        self.to_short.weight.mul_(0.1)
        self.to_short.bias.zero_()
        # The short-time level of a band is about that of its mel bands: power of a window is as its sum of squares.
        p = self.params
        shares = mel_filters(p) if p.kind == "mel" else torch.eye(p.n_fft // 2 + 1)[p.fft_bins]
        places = torch.linspace(0, self.bands.shape[1] - 1, p.n_fft // 2 + 1)
        short = torch.stack([_interpolated(band, places) for band in self.bands])  # (n_bands, bins)
        overlap = short @ (shares / shares.sum(1, keepdim=True).clamp_min(1e-8)).T
        self.skip.weight.copy_(overlap / overlap.sum(1, keepdim=True).clamp_min(1e-8))
        self.skip.bias.fill_(10 * math.log10(self.n_short / p.win_length))

    def contents(self) -> dict[str, Any]:
        """What a file holds of it, plain values: `params`, `settings` and `weights`; see `vocoders.weights`."""
        weights = {name: weight.detach().cpu().clone() for name, weight in self.state_dict().items()}
        return {"params": asdict(self.params), "settings": dict(self.settings), "weights": weights}

    def forward(self, power: Tensor, seeds: Sequence[int]) -> Tensor:
        """Maps power (B, n_bins, n_frames) >= 0 to waveforms (B, n_frames * hop_length), from the seeds' phases."""
        loudest = power.amax((1, 2)).clamp_min(1e-30)
        power = (power / loudest[:, None, None]).transpose(-1, -2).contiguous()  # (B, n_frames, n_bins)
        waveform = self.synthesise(power, self.predict(power), seeds)
        if self.n_iter:
            waveform = search_on(waveform, power, self.params, inversion=self.inversion, n_iter=self.n_iter)
        return waveform * loudest.sqrt().unsqueeze(1)

    def predict(self, power: Tensor) -> Tensor:
        """Maps relative power (B, n_frames, n_bins) to short-time levels.

        Returns:
            (B, n_frames * steps in a hop, n_bands), power of the short windows in dB.
        """
        level = DB_PER_LOG * torch.log(power + LOWEST)
        hidden = self.norm(self.blocks(self.enter(level.transpose(-1, -2) / 20 + 2).transpose(-1, -2)))
        residual = self.to_short(hidden).unflatten(-1, (self.per_frame, -1))
        return (10 * residual + self.skip(level).unsqueeze(2)).flatten(1, 2)

    def short_levels(self, waveform: Tensor) -> Tensor:
        """What `predict` should say of waveforms (B, n_frames * hop_length) whose spectrogram reaches up to 1."""
        return DB_PER_LOG * torch.log(self._short_power(self.short_frames(waveform), waveform)[1] + LOWEST)

    def synthesise(self, power: Tensor, short: Tensor, seeds: Sequence[int]) -> Tensor:
        """Finds waveforms (B, n_frames * hop_length) with these powers, in turns for short and for long windows."""
        frames = faded_frames(power.shape[1], self.params, power)
        waveform = _sound(frames, F.pad(self._first_guess(power.detach(), seeds), (0, 0, 0, 1)))
        short_frames, wanted = self.short_frames(waveform), torch.exp(short / DB_PER_LOG)
        for step in range(1, self.n_steps + 1):
            spectrum, found = self._short_power(short_frames, waveform)
            gain = torch.log((wanted + LOWEST) / (found + LOWEST)).clamp(-8, 8)  # 35 dB
            waveform = _sound(short_frames, spectrum * _padded(torch.exp(0.5 * gain @ self.bands)))
            for _ in range(self.n_last if step == self.n_steps else 1):
                spectrum = frames.analyse(frames.surround(waveform))
                gain = self._lack(power, squared_magnitude(spectrum[:, :-1]))
                waveform = _sound(frames, spectrum * _padded(gain.clamp(1e-8, 1e4).sqrt()))
        return waveform

    @torch.no_grad()
    def _first_guess(self, power: Tensor, seeds: Sequence[int]) -> Tensor:
        """A spectrum (B, n_frames, n_fft // 2 + 1) with the power wanted and the first phases of Griffin-Lim."""
        p = self.params
        if self.inversion is None:
            bins = F.pad(power, (p.fft_bins.start, p.n_fft // 2 + 1 - p.fft_bins.stop))
        else:
            bins = self.inversion(power.transpose(-1, -2)).transpose(-1, -2)
        n_channels = len(power) // len(seeds)
        mean = bins if n_channels == 1 else bins.unflatten(0, (-1, n_channels)).mean(1)
        turns = steady_turns(mean, p, seeds)
        turns = turns if n_channels == 1 else turns.repeat_interleave(n_channels, 0)
        return torch.polar(bins.sqrt(), 2 * torch.pi * turns)

    def _lack(self, power: Tensor, found: Tensor) -> Tensor:
        """What bins must be multiplied by, so that what they give in a spectrogram comes near to `power`."""
        if self.inversion is not None:  # an update of MelInversion
            lack = (power + LEAST) / (found @ self.inversion.filters.T + LEAST)
            return (lack @ self.inversion.filters) / self.inversion.of_bin
        bins = self.params.fft_bins
        lack = (power + LEAST) / (found[..., bins] + LEAST)
        return F.pad(lack, (bins.start, found.shape[-1] - bins.stop))

    def short_frames(self, waveform: Tensor) -> Frames:
        return Frames(waveform.shape[1] // self.short_hop, self.n_short, self.short_hop, self.n_short, waveform)

    def _short_power(self, frames: Frames, waveform: Tensor) -> tuple[Tensor, Tensor]:
        spectrum = frames.analyse(frames.surround(waveform))
        return spectrum, squared_magnitude(spectrum[:, :-1]) @ self.bands.T


def _padded(gain: Tensor) -> Tensor:
    """The frame behind the end, which no spectrogram shows, stays as it is."""
    return F.pad(gain, (0, 0, 0, 1), value=1.0)


def _sound(frames: Frames, spectrum: Tensor) -> Tensor:
    return frames.synthesise(spectrum)[:, frames.start : frames.stop]


def _short_hop(hop_length: int, n_short: int) -> int:
    divisors = [d for d in range(1, n_short // 2 + 1) if hop_length % d == 0]
    best = min(divisors, key=lambda d: abs(math.log(d * _OVERLAP / n_short)))
    if best * 16 < n_short:
        raise ValueError(
            f"hop_length is {hop_length}, which has no divisor near {round(n_short / _OVERLAP)}, the step of the short "
            f"windows of this vocoder; take one, such as {round(hop_length / 12) * 12}, or vocoder=griffin_lim"
        )
    return best


def _bands(n_bins: int, n_bands: int) -> Tensor:
    """Overlapping triangles (n_bands or fewer, n_bins), finer at low frequencies, which sum to 1 at each bin."""
    spread = torch.linspace(0, 1, n_bands) ** 2 * (n_bins - 1)
    centres = [0]
    for wanted in spread[1:].tolist():
        centres.append(min(max(centres[-1] + 1, round(wanted)), n_bins - 1))
    centres = sorted(set(centres) | {n_bins - 1})
    bins = torch.arange(n_bins, dtype=torch.float32)
    unit = torch.eye(len(centres))
    return torch.stack([_interpolated(row, bins, torch.tensor(centres, dtype=torch.float32)) for row in unit])


def _interpolated(values: Tensor, places: Tensor, knots: Tensor | None = None) -> Tensor:
    """The values at `knots` (0, 1, ... by default), linearly interpolated at `places`."""
    knots = torch.arange(len(values), dtype=torch.float32) if knots is None else knots
    right = torch.searchsorted(knots, places.contiguous()).clamp(1, len(knots) - 1)
    share = (places - knots[right - 1]) / (knots[right] - knots[right - 1])
    return values[right - 1] + share.clamp(0, 1) * (values[right] - values[right - 1])
