"""What all vocoders share: the settings, the check of the seeds, the way back to power, the fade at both ends."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from specgan.spectrogram import LevelRange, Spectrogram, SpectrogramParams, denormalise
from specgan.vocoders.frames import Frames

CACHED_VALUES = 2**18  # of a spectrum, worked on at a time on a CPU, so that they stay in its cache
FADE_IN_S, FADE_OUT_S = 0.0005, 0.005  # no clicks where a sound is cut, and the attack of a drum stays


class Vocoder(nn.Module, ABC):
    """Turns normalised spectrograms into sound.

    Args:
        params: settings of the spectrograms.
        level_range: the levels of their -1 and 1.
    """

    def __init__(self, params: SpectrogramParams, level_range: LevelRange) -> None:
        super().__init__()
        self.params = params
        self.level_range = level_range
        self.transform = Spectrogram(params)

    @torch.no_grad()
    def forward(self, spectrogram: Tensor, *, seeds: Sequence[int]) -> Tensor:
        """Returns the sound of each spectrogram.

        Args:
            spectrogram: (B, channels, n_bins, n_frames) in [-1, 1].
            seeds: B seeds of all that is random; a sound depends on its own seed and spectrogram alone.
        Returns:
            waveform (B, n_frames * hop_length), or (B, channels, n_frames * hop_length) of several channels, faded at
            both ends. It may exceed [-1, 1]; `save_wav` scales it.
        Raises:
            ValueError: not one seed for each spectrogram.
        """
        if len(seeds) != len(spectrogram):
            raise ValueError(f"{len(seeds)} seeds for {len(spectrogram)} spectrograms; give one seed for each")
        power = self.transform.to_power(denormalise(spectrogram.float(), self.level_range))
        return self.waveform(power.squeeze(1), seeds) if power.shape[1] == 1 else self.channels(power, seeds)

    def channels(self, power: Tensor, seeds: Sequence[int]) -> Tensor:
        """Maps power (B, channels, n_bins, n_frames) >= 0 to waveforms (B, channels, n_frames * hop_length).

        Here channel by channel, all of a sound from its one seed.
        """
        n_channels = power.shape[1]
        of_channels = [seed for seed in seeds for _ in range(n_channels)]
        return self.waveform(power.flatten(0, 1), of_channels).unflatten(0, (-1, n_channels))

    @abstractmethod
    def waveform(self, power: Tensor, seeds: Sequence[int]) -> Tensor:
        """Maps power (B, n_bins, n_frames) >= 0 to waveforms (B, n_frames * hop_length)."""


def in_parts(
    make: Callable[[Tensor, Sequence[int]], Tensor], power: Tensor, seeds: Sequence[int], params: SpectrogramParams
) -> Tensor:
    """Makes the sounds of a batch, on a CPU as many at a time as its cache holds.

    Args:
        make: maps power (b * channels, n_bins, n_frames) and b seeds to waveforms (b * channels, n_samples).
        power: (B, channels, n_bins, n_frames).
        seeds: B of them.
        params: of the spectrograms.
    Returns:
        waveforms (B, channels, n_frames * hop_length).
    """
    n_at_once, n_channels = max(1, len(power)), power.shape[1]
    if power.device.type == "cpu":
        n_at_once = max(1, CACHED_VALUES // (params.n_fft // 2 * power.shape[-1] * n_channels))
    starts = range(0, len(power), n_at_once)
    parts = [make(power[i : i + n_at_once].flatten(0, 1), seeds[i : i + n_at_once]) for i in starts]
    n_samples = power.shape[-1] * params.hop_length
    return (torch.cat(parts) if parts else power.new_zeros(0, n_samples)).unflatten(0, (len(power), n_channels))


def faded_frames(n_frames: int, params: SpectrogramParams, like: Tensor) -> Frames:
    """The frames of a search for sounds that fade at both ends.

    Within the search, which makes up for what a fade takes away: the mel error of drums is half of that without.
    """
    frames = Frames(n_frames, params.n_fft, params.hop_length, params.win_length, like)
    frames.scale[:, frames.start : frames.stop] *= edge_fade(frames.stop - frames.start, params.sample_rate).to(like)
    return frames


def edge_fade(n_samples: int, sample_rate: int) -> Tensor:
    """Returns gains (n_samples,) that fade a sound in and out, because a step at an end is a click."""
    gain = torch.ones(n_samples)
    n_in, n_out = (min(round(seconds * sample_rate), n_samples // 4) for seconds in (FADE_IN_S, FADE_OUT_S))
    gain[:n_in] = torch.sin(torch.pi / 2 * torch.arange(n_in) / max(n_in, 1)).square()
    gain[n_samples - n_out :] = torch.cos(torch.pi / 2 * torch.arange(1, n_out + 1) / max(n_out, 1)).square()
    return gain
