"""Sound -> pictures in blocks, so that its length takes no memory: what the tasks render and frames share."""

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from specgan.audio import DOWNMIXES, AudioError, open_audio
from specgan.pictures.figures import colormap, to_png
from specgan.spectrogram import SpectrogramParams, mel_filters, power_blocks

KEPT_SAMPLES = 2**24  # 64 MiB, six minutes at 44.1 kHz: longer sounds are decoded again for every pass
SILENCE_SAMPLES = 2**20  # in a block
LOWEST_DB, HIGHEST_DB, STEP_DB = -370, 386, 0.01  # what float32 power can hold; silence is LOWEST_DB


@dataclass(frozen=True)
class PictureSettings:
    """How sound becomes pictures; `render` says what each field means."""

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
        if self.frequency_axis not in ("mel", "log", "linear"):
            raise ValueError(f"frequency_axis is {self.frequency_axis!r}; mel, log or linear")
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
        """Returns the lower and the upper edge of the picture in Hz."""
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
        """Returns what makes rows of FFT bins: (n_rows <= height_px, n_fft // 2 + 1), weights >= 0."""
        f_min, f_max = self.edges(rate)
        if self.frequency_axis == "mel":
            n_fft = self.n_fft
            weights = mel_filters(SpectrogramParams(rate, n_fft, n_fft, n_fft, self.n_mels, None, f_min, f_max))
        else:
            weights = _row_weights(rate, self.n_fft, f_min, f_max, self.frequency_axis, self.height_px)
        return F.adaptive_avg_pool2d(weights[None], (min(self.height_px, len(weights)), weights.shape[1]))[0]

    def level(self, power: Tensor, scale: "Scale") -> Tensor:
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


class Sound:
    """An audio file that is read several times, in blocks.

    Raises: as `open_audio`, for the whole file.
    """

    def __init__(self, path: str | Path, settings: PictureSettings) -> None:
        self.path = path
        self._open = partial(open_audio, path, sample_rate=settings.sample_rate, downmix=settings.downmix)
        self._kept: list[Tensor] = []
        self.n_samples = 0
        with self._open() as stream:
            self.sample_rate = stream.sample_rate
            settings.rows(self.sample_rate)  # refuse impossible ones before the work
            for block in stream.blocks:
                self.n_samples += block.shape[1]
                self._kept = [*self._kept, block] if self.n_samples <= KEPT_SAMPLES else []

    def blocks(self, n_samples: int) -> Iterator[Tensor]:
        """Yields blocks (1, any length), followed by silence up to `n_samples` in all."""
        if self._kept:
            yield from self._kept
        else:
            with self._open(warn=False) as stream:
                yield from stream.blocks
        for start in range(self.n_samples, n_samples, SILENCE_SAMPLES):
            yield torch.zeros(1, min(SILENCE_SAMPLES, n_samples - start))


def mean_power(
    sound: Sound, settings: PictureSettings, spans: Iterable[tuple[int, int]], n_columns: int
) -> Iterator[Tensor]:
    """Yields the power of stretches of a sound, each as a picture shows it.

    Args:
        sound: what is read once, in blocks.
        settings: of the pictures.
        spans: the first STFT column of each stretch and the one behind its last, in the order of time; two stretches
            may share one column where that is all they have.
        n_columns: the STFT columns of all of them.
    Yields:
        (n_rows, n_columns <= width_px) double, >= 0. Where a stretch has more columns than pixels, a pixel is the mean
        of those it touches (adaptive average pooling): of their power, because the mean of dB would hide a tone.
    """
    weights = settings.rows(sound.sample_rate)
    samples = sound.blocks((n_columns - 1) * settings.hop + 1)
    sizes = {"n_fft": settings.n_fft, "win_length": settings.window, "hop_length": settings.hop}
    blocks = (weights @ power[0] for power in power_blocks(samples, **sizes))
    block, n_before = next(blocks), 0
    for first, end in spans:
        n, width = end - first, min(end - first, settings.width_px)
        sums = torch.zeros(len(weights), width, dtype=torch.float64)
        at = first
        while at < end:
            while at >= n_before + block.shape[1]:
                n_before, block = n_before + block.shape[1], next(blocks)
            piece = block[:, at - n_before : end - n_before].double()
            column = torch.arange(at - first, at - first + piece.shape[1])
            left, right = column * width // n, ((column + 1) * width - 1) // n  # the pixels that it touches, 1 or 2
            sums.index_add_(1, left, piece)
            sums.index_add_(1, right[right > left], piece[:, right > left])
            at += piece.shape[1]
        if not sums.isfinite().all():
            raise AudioError(
                f"{sound.path}: samples so far beyond full scale that their power overflows; make it again"
            )
        pixel = torch.arange(width)
        yield sums / (((pixel + 1) * n + width - 1) // width - pixel * n // width)


class Scale:
    """The loudest level, and any percentile of the levels, of power that comes bit by bit."""

    def __init__(self, power: Tensor | None = None) -> None:
        self.loudest = float(LOWEST_DB)
        self._counts = torch.zeros(round((HIGHEST_DB - LOWEST_DB) / STEP_DB) + 1, dtype=torch.int64)
        if power is not None:
            self.add(power)

    def add(self, power: Tensor) -> None:
        level = to_db(power)
        self.loudest = max(self.loudest, float(level.max()))
        step = ((level - LOWEST_DB) / STEP_DB).long()
        self._counts += torch.bincount(step.flatten(), minlength=len(self._counts))

    def percentile(self, percent: float) -> float:
        """Returns numpy's percentile in dB, at most STEP_DB below it, so that a level which is it stays above."""
        n_up_to = self._counts.cumsum(0)
        rank = (int(n_up_to[-1]) - 1) * percent / 100
        ranks = torch.tensor([math.floor(rank), math.ceil(rank)])
        low, high = (LOWEST_DB + STEP_DB * torch.searchsorted(n_up_to, ranks, right=True)).tolist()
        return low + (rank - math.floor(rank)) * (high - low)


def to_db(power: Tensor) -> Tensor:
    """Maps power to dB, from LOWEST_DB: the floor comes before the logarithm."""
    return 10 * power.clamp_min(10 ** (LOWEST_DB / 10)).log10()
