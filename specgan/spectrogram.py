"""Waveform <-> normalised spectrogram. Torch only, no files.

    waveform --STFT--> power --mel filters--> mel power --level mapping--> level --level range--> spectrogram in [-1, 1]

Each arrow has its way back, except the first two, which are the vocoder's work.
"""

import math
from collections.abc import Generator, Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import chain, pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

MOST_FRAMES = 4096  # transformed at a time, which bounds the memory
CACHED_SAMPLES = 2**17  # transformed at a time on a CPU, so that they stay in its cache
_BANDS = 16  # mel bands whose filters are applied together


@dataclass(frozen=True)
class SpectrogramParams:
    """Everything that decides what a spectrogram's numbers mean. Two are the same only if all fields are equal.

    Frame t is centred on sample t * hop_length and the clip is surrounded by silence, so a clip of n_samples has
    ceil(n_samples / hop_length) frames, and n_frames frames cover exactly n_frames * hop_length samples.

    Args:
        sample_rate: Hz.
        n_fft: samples in an FFT.
        win_length: samples in the Hann window, at most n_fft.
        hop_length: samples from frame to frame, 1..win_length.
        n_mels: mel bands. Unused by kind "linear".
        n_frames: frames of a training example; None keeps the whole length of each clip.
        f_min: Hz, lower edge of the lowest band.
        f_max: Hz, upper edge of the highest band; None: half the sample rate.
        mel_scale: "htk" or "slaney".
        norm: None (every triangle peaks at 1) or "slaney" (every triangle has unit area, so levels are far lower and
            floor_db must be too).
        level: "db": decibels re a full-scale sine, floor added before the logarithm, loudness survives and the
            inverse is exact. "log1p": the classic recipe, log(1 + power), each example scaled to [-1, 1] by its own
            extremes: **its loudness is lost**, and the inverse gives it the mean loudness of the training clips.
        floor_db: dB re a full-scale sine, < 0: the level of silence with level "db". Unused by "log1p".
        kind: "mel": n_mels bands. "linear": the FFT bins from f_min to f_max, both included; mel_scale and norm are
            unused.

    Raises:
        ValueError: an impossible or lossy combination; the message names argument, value and fix.
    """

    sample_rate: int = 16000
    n_fft: int = 1024
    win_length: int = 1024
    hop_length: int = 256
    n_mels: int = 64
    n_frames: int | None = 64
    f_min: float = 0.0
    f_max: float | None = None
    mel_scale: str = "htk"
    norm: str | None = None
    level: str = "db"
    floor_db: float = -80.0
    kind: str = "mel"

    def __post_init__(self) -> None:
        for name in ("sample_rate", "n_fft", "win_length", "hop_length", "n_mels", "n_frames"):
            value = getattr(self, name)
            if value is not None and (not isinstance(value, int) or value < 1):
                raise ValueError(f"{name} is {value!r}; it must be an integer of at least 1")
        _require(self.win_length <= self.n_fft, f"win_length is {self.win_length}; at most n_fft ({self.n_fft})")
        _require(
            self.hop_length <= self.win_length,
            f"hop_length is {self.hop_length}: samples between two windows would be lost; "
            f"it must be in 1..win_length ({self.win_length})",
        )
        nyquist = self.sample_rate / 2
        _require(
            self.f_max is None or self.f_max <= nyquist,
            f"f_max is {self.f_max} Hz, above the Nyquist frequency of sample_rate {self.sample_rate}; "
            f"at most {nyquist:g}, or null",
        )
        _require(
            0 <= self.f_min < self.upper_hz,
            f"f_min is {self.f_min} Hz; it must be at least 0 and below f_max ({self.upper_hz:g})",
        )
        _require(self.mel_scale in ("htk", "slaney"), f"mel_scale is {self.mel_scale!r}; htk or slaney")
        _require(self.norm in (None, "slaney"), f"norm is {self.norm!r}; null or slaney")
        _require(self.level in ("db", "log1p"), f"level is {self.level!r}; db or log1p")
        _require(self.floor_db < 0, f"floor_db is {self.floor_db}; it must be below 0 dB, e.g. -80")
        _require(self.kind in ("mel", "linear"), f"kind is {self.kind!r}; mel or linear")
        if self.kind == "mel":
            _require_no_empty_filter(self)
        else:
            _require(
                self.n_bins > 0,
                f"f_min is {self.f_min} Hz and f_max {self.upper_hz:g}: no FFT bin of n_fft {self.n_fft} lies between; "
                f"a range of {self.sample_rate / self.n_fft:g} Hz or more",
            )

    @property
    def n_bins(self) -> int:
        """Rows of a spectrogram: n_mels, or the FFT bins of kind "linear"."""
        return self.n_mels if self.kind == "mel" else len(range(self.n_fft)[self.fft_bins])

    @property
    def fft_bins(self) -> slice:
        """The FFT bins from f_min to f_max, both included."""
        hz = self.sample_rate / self.n_fft
        return slice(math.ceil(self.f_min / hz - 1e-6), math.floor(self.upper_hz / hz + 1e-6) + 1)

    @property
    def upper_hz(self) -> float:
        """The upper edge of the highest band in Hz, with None filled in."""
        return self.sample_rate / 2 if self.f_max is None else self.f_max

    @property
    def n_samples(self) -> int | None:
        """Samples of a training example."""
        return None if self.n_frames is None else self.n_frames * self.hop_length

    @property
    def silence(self) -> float:
        """The level of digital silence."""
        return self.floor_db if self.level == "db" else 0.0


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise ValueError(message)


def _require_no_empty_filter(params: SpectrogramParams) -> None:
    def count_empty(n_mels: int) -> int:
        return int((mel_filters(params, n_mels=n_mels).amax(dim=1) == 0).sum())

    if n_empty := count_empty(params.n_mels):
        most = next((n for n in range(params.n_mels - 1, 0, -1) if not count_empty(n)), None)
        fix = f"at most {most}" if most else "a wider range from f_min to f_max"
        raise ValueError(
            f"n_mels is {params.n_mels}: {n_empty} mel filters would be narrower than an FFT bin and "
            f"stay empty at n_fft {params.n_fft}; {fix}, or a larger n_fft"
        )


def mel_filters(params: SpectrogramParams, *, n_mels: int | None = None) -> Tensor:
    """Returns the filter bank (n_mels, n_fft // 2 + 1), >= 0, of torchaudio's (and librosa's) definition."""
    import warnings

    from torchaudio.functional import melscale_fbanks

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # about empty filters: SpectrogramParams refuses them
        filters = melscale_fbanks(
            n_freqs=params.n_fft // 2 + 1,
            f_min=params.f_min,
            f_max=params.upper_hz,
            n_mels=params.n_mels if n_mels is None else n_mels,
            sample_rate=params.sample_rate,
            norm=params.norm,
            mel_scale=params.mel_scale,
        )
    return filters.T.contiguous()


def band_groups(filters: Tensor) -> list[tuple[slice, slice]]:
    """Groups neighbouring bands of a filter bank (n_mels, bins), each group with the FFT bins that its filters use.

    Applied group by group, the filters take a quarter of the work of all bands on all bins.
    """
    groups = []
    for first in range(0, len(filters), _BANDS):
        bands = slice(first, first + _BANDS)
        used = filters[bands].amax(dim=0).nonzero()
        groups.append((bands, slice(int(used[0]), int(used[-1]) + 1)))
    return groups


def params_at(params: SpectrogramParams, sample_rate: int) -> SpectrogramParams:
    """The same windows and steps, in seconds, at another rate in Hz, from `f_min` up to half of it."""
    if sample_rate == params.sample_rate:
        return params
    lengths = (params.n_fft, params.win_length, params.hop_length)
    n_fft, win_length, hop_length = (max(1, round(n * sample_rate / params.sample_rate)) for n in lengths)
    return replace(
        params,
        sample_rate=sample_rate,
        n_fft=2 ** (n_fft - 1).bit_length(),
        win_length=win_length,
        hop_length=hop_length,
        f_max=None,
    )


@dataclass(frozen=True)
class LevelRange:
    """The levels that -1 and 1 stand for, taken from the training split.

    Args:
        low: level of silence.
        high: the loudest level of the training clips; with level "log1p" the mean of their loudest levels.
    """

    low: float
    high: float

    def __post_init__(self) -> None:
        _require(
            self.low < self.high,
            f"the training clips reach level {self.high:g}, silence is {self.low:g}: they are all silent; "
            "check the recordings, or lower floor_db",
        )


def normalise(level: Tensor, params: SpectrogramParams, level_range: LevelRange) -> Tensor:
    """Maps levels to [-1, 1].

    Args:
        level: (..., n_mels, n_frames).
    Returns:
        Same shape. With level "db" scaled by `level_range` and cut at both ends; with "log1p" each item is scaled by
        its own extremes (an item of a single level becomes -1).
    """
    if params.level == "log1p":
        low, high = level.amin((-2, -1), keepdim=True), level.amax((-2, -1), keepdim=True)
        return 2 * (level - low) / (high - low).clamp_min(1e-8) - 1
    span = level_range.high - level_range.low
    return (
        (level - level_range.low).mul_(2 / span).sub_(1).clamp_(-1, 1)
    )  # in place, because a level may be an hour long


def normalise_channels(level: Tensor, params: SpectrogramParams, level_range: LevelRange) -> Tensor:
    """As `normalise`, of sounds (..., channels, n_mels, n_frames), whose channels share one scale with "log1p"."""
    return normalise(level.flatten(-3, -2), params, level_range).view_as(level)


def denormalise(spectrogram: Tensor, level_range: LevelRange) -> Tensor:
    """Maps [-1, 1] to levels: the inverse of `normalise`, unless the level was lost (see SpectrogramParams)."""
    return level_range.low + (spectrogram + 1) / 2 * (level_range.high - level_range.low)


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
        for power in _frame_power(blocks, p.n_fft, p.hop_length, self.window):
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


def power_blocks(blocks: Iterable[Tensor], *, n_fft: int, win_length: int, hop_length: int) -> Iterator[Tensor]:
    """Maps the blocks of a waveform to blocks of its power, so that memory does not grow with the length.

    Args:
        blocks: (B, any length), at least one. Frame t is centred on sample t * hop_length, and silence surrounds the
            waveform. The power does not depend on where a block ends.
        n_fft: samples in an FFT.
        win_length: samples in the Hann window, at most n_fft.
        hop_length: samples from frame to frame; it may exceed n_fft.
    Yields:
        (B, n_fft // 2 + 1, any number of frames), >= 0; ceil(length / hop_length) frames in all.
    """
    for power in _frame_power(blocks, n_fft, hop_length, torch.hann_window(win_length)):
        yield power.mT


def _frame_power(blocks: Iterable[Tensor], n_fft: int, hop_length: int, window: Tensor) -> Iterator[Tensor]:
    """As `power_blocks`, but (B, frames, bins), which is how an FFT leaves them in memory."""
    n_left = (n_fft - len(window)) // 2
    window = F.pad(window, (n_left, n_fft - len(window) - n_left))
    for frames in _frames(blocks, n_fft, hop_length):
        if frames.shape[-2] == 0:  # MKL refuses it
            yield frames[..., : n_fft // 2 + 1]
            return
        for some in frames.split(_frames_at_once(frames), dim=-2):
            yield squared_magnitude(torch.fft.rfft(some * window), overwrite=True)


def _frames(blocks: Iterable[Tensor], n_fft: int, hop_length: int) -> Iterator[Tensor]:
    """Views (B, frames, n_fft) of the frames that end in each block; without any frame, a single one of 0 frames."""
    span = max(n_fft, hop_length)  # samples that a frame needs: its own, and those before the next frame
    rest, n_done = None, 0  # rest: the samples from the start of the next frame on
    for block in _surround(blocks, n_fft // 2, span, hop_length):
        samples = block if rest is None else torch.cat([rest, block], dim=-1)
        n_frames = max(0, (samples.shape[-1] - span) // hop_length + 1)
        if n_frames:
            yield samples.unfold(-1, n_fft, hop_length)[..., :n_frames, :]
        rest, n_done = samples[..., n_frames * hop_length :], n_done + n_frames
    if n_done == 0:
        yield rest.new_zeros(*rest.shape[:-1], 0, n_fft)


def _surround(blocks: Iterable[Tensor], n_before: int, span: int, hop_length: int) -> Iterator[Tensor]:
    """Adds the silence around a waveform: `n_before` samples before it, and behind it what the last frame lacks."""
    n_samples, n_left, n_right = 0, n_before, 0
    for block, following in pairwise(chain(blocks, [None])):
        n_samples += block.shape[-1]
        if following is None:
            last_start = (math.ceil(n_samples / hop_length) - 1) * hop_length
            n_right = max(0, last_start + span - n_before - n_samples)
        yield F.pad(block, (n_left, n_right)) if n_left or n_right else block
        n_left = 0


def _frames_at_once(frames: Tensor) -> int:
    """How many of the frames (B, frames, n_fft) are transformed at a time."""
    if frames.device.type != "cpu":
        return MOST_FRAMES
    values = frames.shape[-1] * math.prod(frames.shape[:-2])
    return min(MOST_FRAMES, max(16, CACHED_SAMPLES // values))


def squared_magnitude(spectrum: Tensor, *, overwrite: bool = False) -> Tensor:
    """Returns |spectrum| ** 2, from real and imaginary part: abs() takes a root that would be squared again.

    Args:
        spectrum: complex, of any shape.
        overwrite: work in its memory, which is a little faster; its values are lost.
    """
    parts = torch.view_as_real(spectrum)
    squares = parts.square_() if overwrite else parts.square()
    return squares[..., 0] + squares[..., 1]


def mel_spectrogram_db(waveform: Tensor, params: SpectrogramParams) -> Tensor:
    """Maps waveforms (T,) or (B, T) to mel levels (..., n_mels, ceil(T / hop_length)) in dB re a full-scale sine.

    For many waveforms, call one Spectrogram: it keeps window and filters.

    Raises:
        ValueError: params.level is not "db", or params.kind is not "mel".
    """
    _require(params.level == "db", f"level is {params.level!r}; mel_spectrogram_db needs params with level db")
    _require(params.kind == "mel", f"kind is {params.kind!r}; mel_spectrogram_db needs params of kind mel")
    levels = Spectrogram(params)(torch.atleast_2d(waveform))
    return levels if waveform.ndim > 1 else levels[0]
