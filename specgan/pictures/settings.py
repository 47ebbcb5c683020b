"""How sound becomes pictures: the settings of `render`, of the tasks render and frames, and of the service."""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from specgan.audio import DOWNMIXES
from specgan.pictures.figures import colormap, to_png
from specgan.pictures.scale import LOWEST_DB, Scale, to_db
from specgan.spectrogram import SpectrogramParams, mel_filters

FREQUENCY_AXES = ("mel", "log", "linear")


@dataclass(frozen=True, kw_only=True)
class PictureSettings:
    """How sound becomes a picture.

    Args:
        sample_rate: Hz to resample to; None: the file's own.
        downmix: how several channels become one: "mean", "left" or "max_energy"; see `open_audio`.
        n_fft: samples in an FFT.
        win_length: samples in the Hann window, at most n_fft; None: n_fft.
        hop_length: samples from frame to frame; None: a quarter of win_length.
        n_mels: bands of the frequency axis "mel".
        f_min: Hz at the lower edge; 0 on the axis "log" means the first FFT bin.
        f_max: Hz at the upper edge; None: half the sample rate.
        frequency_axis: "mel", "log" or "linear".
        top_db: dB below the loudest value that are shown, > 0.
        noise_percentile: 0..100; values below this percentile of all values get the darkest colour. None: no value.
        cmap: any matplotlib colormap, in upper or lower case.
        width_px: of the picture; fewer frames are enlarged bilinearly, of more frames the mean power is shown.
        height_px: of the picture.
    Raises:
        ValueError: an impossible setting; the message names it.
    """

    sample_rate: int | None = None
    downmix: str = "mean"
    n_fft: int = 2048
    win_length: int | None = None
    hop_length: int | None = None
    n_mels: int = 128
    f_min: float = 0.0
    f_max: float | None = None
    frequency_axis: str = "mel"
    top_db: float = 80.0
    noise_percentile: float | None = None
    cmap: str = "magma"
    width_px: int = 1024
    height_px: int = 256

    def __post_init__(self) -> None:
        for name in ("sample_rate", "n_fft", "win_length", "hop_length", "n_mels", "width_px", "height_px"):
            value, least = getattr(self, name), 2 if name == "n_fft" else 1
            if value is not None and value < least:
                raise ValueError(f"{name} is {value}; at least {least}")
        if self.window > self.n_fft:
            raise ValueError(f"win_length is {self.win_length}; at most n_fft ({self.n_fft})")
        if self.downmix not in DOWNMIXES:
            raise ValueError(f"downmix is {self.downmix!r}; one of {', '.join(DOWNMIXES)}")
        if self.frequency_axis not in FREQUENCY_AXES:
            raise ValueError(f"frequency_axis is {self.frequency_axis!r}; one of {', '.join(FREQUENCY_AXES)}")
        if self.top_db <= 0:
            raise ValueError(f"top_db is {self.top_db}; above 0")
        if self.noise_percentile is not None and not 0 <= self.noise_percentile <= 100:
            raise ValueError(f"noise_percentile is {self.noise_percentile}; in 0..100, or null")
        colormap(self.cmap)

    @property
    def window(self) -> int:
        """Samples in the window."""
        return self.n_fft if self.win_length is None else self.win_length

    @property
    def hop(self) -> int:
        """Samples from frame to frame."""
        return max(1, self.window // 4) if self.hop_length is None else self.hop_length

    def edges(self, rate: int) -> tuple[float, float]:
        """Returns the lower and the upper edge of the picture in Hz, at a sample rate in Hz.

        Raises:
            ValueError: `f_min` or `f_max` is impossible at that rate.
        """
        f_min, f_max = self.f_min, rate / 2 if self.f_max is None else self.f_max
        if not 0 <= f_min < f_max <= rate / 2:
            raise ValueError(
                f"f_min is {f_min:g} and f_max {f_max:g}; 0 <= f_min < f_max <= {rate / 2:g} Hz, half the sample rate"
            )
        if self.frequency_axis == "log" and f_min == 0:
            f_min = rate / self.n_fft
            if f_min >= f_max:
                raise ValueError(f"f_max is {f_max:g}; above the first FFT bin ({f_min:g} Hz), or a larger n_fft")
        return f_min, f_max

    def rows(self, rate: int) -> Tensor:
        """Returns what makes rows of FFT bins: (n_rows <= height_px, n_fft // 2 + 1), weights >= 0.

        Raises: as `edges`.
        """
        f_min, f_max = self.edges(rate)
        if self.frequency_axis == "mel":
            n_fft = self.n_fft
            weights = mel_filters(SpectrogramParams(rate, n_fft, n_fft, n_fft, self.n_mels, None, f_min, f_max))
        else:
            weights = _row_weights(rate, self.n_fft, f_min, f_max, self.frequency_axis, self.height_px)
        return F.adaptive_avg_pool2d(weights[None], (min(self.height_px, len(weights)), weights.shape[1]))[0]

    def level(self, power: Tensor, scale: Scale) -> Tensor:
        """Maps (n_rows, n_columns) power to the (height_px, width_px) level: dB below the loudest, -top_db..0."""
        level = to_db(power)
        if self.noise_percentile is not None:
            level = torch.where(level < scale.percentile(self.noise_percentile), LOWEST_DB, level)
        loudest = max(scale.loudest, LOWEST_DB + self.top_db)  # so that silence is the darkest
        level = (level - loudest).clamp(-self.top_db, 0)
        return F.interpolate(level[None, None].float(), (self.height_px, self.width_px), mode="bilinear")[0, 0]

    def png(self, level: Tensor) -> bytes:
        """Encodes a level as `level` returns it."""
        return to_png(1 + 2 * level / self.top_db, cmap=self.cmap)


def _row_weights(rate: int, n_fft: int, f_min: float, f_max: float, axis: str, n_rows: int) -> Tensor:
    """(n_rows, n_fft // 2 + 1): the mean over rows evenly spaced on the axis, of power interpolated between bins."""
    bin_hz, n_bins = rate / n_fft, n_fft // 2 + 1
    widest_hz = (f_max - f_min) / n_rows if axis == "linear" else f_max * (1 - (f_min / f_max) ** (1 / n_rows))
    n_points = 2 + math.ceil(widest_hz / bin_hz)  # in a row, so that none skips a bin
    place = (torch.arange(n_rows * n_points) + 0.5) / (n_rows * n_points)
    frequency = f_min + place * (f_max - f_min) if axis == "linear" else f_min * (f_max / f_min) ** place
    below = (frequency / bin_hz).floor().long().clamp_max(n_bins - 2)
    share = (frequency / bin_hz - below).clamp_max(1)
    row = torch.arange(n_rows).repeat_interleave(n_points)
    weights = torch.zeros(n_rows, n_bins)
    weights.index_put_((row, below), (1 - share) / n_points, accumulate=True)
    return weights.index_put_((row, below + 1), share / n_points, accumulate=True)
