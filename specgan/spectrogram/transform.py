"""Waveform -> power -> level, and back to power."""

from collections.abc import Generator, Iterable

import torch
from torch import Tensor, nn

from specgan.spectrogram.filters import band_groups, mel_filters
from specgan.spectrogram.params import SpectrogramParams
from specgan.spectrogram.power import frame_power


class Spectrogram(nn.Module):
    """Waveform -> power -> level, and level -> power, with the window and the filters computed once."""

    def __init__(self, params: SpectrogramParams) -> None:
        super().__init__()
        self.params = params
        window = torch.hann_window(params.win_length)
        self.register_buffer("window", window, persistent=False)
        filters = mel_filters(params) if params.kind == "mel" else None
        self.register_buffer("filters", filters, persistent=False)
        self.groups = [] if filters is None else band_groups(filters)
        # The power of the bin that a sine of amplitude 1 falls on: 0 dB.
        self.full_scale = float(window.sum() / 2) ** 2
        self.floor = 10 ** (params.floor_db / 10)

    def forward(self, waveform: Tensor) -> Tensor:
        """Maps (B, T) waveforms to (B, n_bins, ceil(T / hop_length)) levels."""
        return self.to_level(self.power(waveform))

    def power(self, waveform: Tensor) -> Tensor:
        """Maps (B, T) waveforms to (B, n_bins, ceil(T / hop_length)) power, >= 0.

        Source: torchaudio.transforms.MelSpectrogram (or Spectrogram) with power=2, center=True, pad_mode="constant",
        without the frame that is centred behind the last sample.
        """
        return torch.cat(list(self.power_blocks([waveform])), dim=-1)

    def power_blocks(self, blocks: Iterable[Tensor]) -> Generator[Tensor]:
        """Maps the blocks (B, any length) of a waveform to blocks (B, n_bins, any number of frames) of its power."""
        p = self.params
        for power in frame_power(blocks, p.n_fft, p.hop_length, self.window):
            if self.filters is None:
                yield power[..., p.fft_bins].mT.contiguous()
            else:
                parts = [self.filters[bands, bins] @ power[..., bins].mT for bands, bins in self.groups]
                yield torch.cat(parts, dim=-2)

    def to_level(self, power: Tensor) -> Tensor:
        """Maps power to level, as SpectrogramParams.level says."""
        if self.params.level == "log1p":
            return torch.log1p(power)
        return (power / self.full_scale).add_(self.floor).log10_().mul_(10)

    def to_power(self, level: Tensor) -> Tensor:
        """Maps level to power: the inverse of `to_level`. Levels below silence give 0."""
        if self.params.level == "log1p":
            return torch.expm1(level).clamp_min(0)
        return self.full_scale * (10 ** (level / 10) - self.floor).clamp_min(0)


def mel_spectrogram_db(waveform: Tensor, params: SpectrogramParams) -> Tensor:
    """Maps waveforms (T,) or (B, T) to mel levels (..., n_mels, ceil(T / hop_length)) in dB re a full-scale sine.

    For many waveforms, call one Spectrogram: it keeps window and filters.

    Raises:
        ValueError: params.level is not "db", or params.kind is not "mel".
    """
    for name, value, needed in (("level", params.level, "db"), ("kind", params.kind, "mel")):
        if value != needed:
            raise ValueError(f"{name} is {value!r}; mel_spectrogram_db needs params of {name} {needed}")
    levels = Spectrogram(params)(torch.atleast_2d(waveform))
    return levels if waveform.ndim > 1 else levels[0]
