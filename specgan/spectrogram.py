"""Waveform <-> normalised spectrogram. Torch only, no files.

    waveform --STFT--> power --mel filters--> mel power --level mapping--> level --level range--> spectrogram in [-1, 1]

Each arrow has its way back, except the first two, which are the vocoder's work.
"""

import math
from collections.abc import Generator, Iterable, Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

MOST_FRAMES = 4096  # that are transformed at a time, which bounds the memory
CACHED_SAMPLES = 2**17  # the same in samples, on a CPU: what is worked on stays in its cache
_BANDS = 16  # mel bands whose filters are applied together, to the FFT bins that they use


@dataclass(frozen=True)
class SpectrogramParams:
    """Everything that decides what a spectrogram's numbers mean. Two are the same only if all fields are equal.

    Frame t is centred on sample t * hop_length and the clip is surrounded by silence, so a clip of n_samples has
    ceil(n_samples / hop_length) frames and n_frames frames stand for exactly n_frames * hop_length samples.

    Args:
        sample_rate: Hz.
        n_fft: samples in an FFT.
        win_length: samples in the Hann window, at most n_fft.
        hop_length: samples from frame to frame, 1..win_length.
        n_mels: mel bands. Unused by kind "linear".
        n_frames: frames of a training example; None: clips keep their whole length.
        f_min: Hz, lower edge of the lowest band.
        f_max: Hz, upper edge of the highest band; None: half the sample rate.
        mel_scale: "htk" or "slaney".
        norm: None (every triangle peaks at 1) or "slaney" (every triangle has unit area, so levels are far lower and
            floor_db must be too).
        level: "db": decibels re a full-scale sine, floor added before the logarithm, loudness survives and the
            inverse is exact. "log1p": the classic recipe, log(1 + power), each example scaled to [-1, 1] by itself:
            **how loud an example was is lost**, and the inverse gives it the mean loudness of the training clips.
        floor_db: dB re a full-scale sine, < 0: what silence becomes with level "db". Unused by "log1p".
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
            f"hop_length is {self.hop_length}: samples between the windows would be lost; "
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
    def n_empty(n_mels: int) -> int:
        return int((mel_filters(params, n_mels=n_mels).amax(dim=1) == 0).sum())

    if n_empty(params.n_mels):
        most = next((n for n in range(params.n_mels - 1, 0, -1) if not n_empty(n)), None)
        fix = f"at most {most}" if most else "a wider range from f_min to f_max"
        raise ValueError(
            f"n_mels is {params.n_mels}: {n_empty(params.n_mels)} mel filters would be narrower than an FFT bin and "
            f"stay empty at n_fft {params.n_fft}; {fix}, or a larger n_fft"
        )


def mel_filters(params: SpectrogramParams, *, n_mels: int | None = None) -> Tensor:
    """Returns the filter bank (n_mels, n_fft // 2 + 1), >= 0, of torchaudio's (and librosa's) definition."""
    import warnings

    from torchaudio.functional import melscale_fbanks

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # empty filters, which are an error of ours with a better text
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


def _used_bins(filters: Tensor) -> slice:
    """From the first to the last FFT bin that any of the filters (n, bins) takes anything from."""
    used = filters.amax(dim=0).nonzero()
    return slice(int(used[0]), int(used[-1]) + 1)


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
        Same shape. With level "db" by the range of the data set, cut at both ends; with "log1p" each item by its own
        extremes (an item of one single level becomes -1).
    """
    if params.level == "log1p":
        low, high = level.amin((-2, -1), keepdim=True), level.amax((-2, -1), keepdim=True)
        return 2 * (level - low) / (high - low).clamp_min(1e-8) - 1
    span = level_range.high - level_range.low
    return (level - level_range.low).mul_(2 / span).sub_(1).clamp_(-1, 1)  # in place: a level may be an hour long


def denormalise(spectrogram: Tensor, level_range: LevelRange) -> Tensor:
    """Maps [-1, 1] to levels; the inverse of `normalise`, where the level was not lost (see SpectrogramParams)."""
    return level_range.low + (spectrogram + 1) / 2 * (level_range.high - level_range.low)


class Spectrogram(nn.Module):
    """The transform between waveform, power and level, with the window and the filters computed once."""

    def __init__(self, params: SpectrogramParams) -> None:
        super().__init__()
        self.params = params
        window = torch.hann_window(params.win_length)
        self.register_buffer("window", window, persistent=False)
        filters = mel_filters(params) if params.kind == "mel" else None
        self.register_buffer("filters", filters, persistent=False)
        self.used_bins = [] if filters is None else [_used_bins(some) for some in filters.split(_BANDS)]
        # The power of the bin that a sine of amplitude 1 falls on: 0 dB.
        self.full_scale = float(window.sum() / 2) ** 2
        self.floor = 10 ** (params.floor_db / 10)

    def forward(self, waveform: Tensor) -> Tensor:
        """Maps (B, T) waveforms to (B, n_bins, ceil(T / hop_length)) levels."""
        return self.to_level(self.power(waveform))

    def power(self, waveform: Tensor) -> Tensor:
        """Maps (B, T) waveforms to (B, n_bins, ceil(T / hop_length)) power, >= 0.

        Source: torchaudio.transforms.MelSpectrogram (or Spectrogram) with power=2, center=True, pad_mode="constant",
        less the frame that is centred behind the last sample.
        """
        return torch.cat(list(self.power_blocks([waveform])), dim=-1)

    def power_blocks(self, blocks: Iterable[Tensor]) -> Generator[Tensor]:
        """Maps blocks (B, any length) of waveforms to blocks (B, n_bins, some frames) of their power."""
        p = self.params
        for power in _power_blocks(blocks, p.n_fft, p.win_length, p.hop_length, self.window):
            if self.filters is None:
                yield power[..., p.fft_bins].mT.contiguous()
            else:  # neighbouring bands use few bins: a quarter of the work of all bands on all bins
                filters = zip(self.filters.split(_BANDS), self.used_bins, strict=True)
                yield torch.cat([some[:, bins] @ power[..., bins].mT for some, bins in filters], dim=-2)

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
    """Maps waveforms that come in blocks to their power that goes in blocks: memory does not grow with the length.

    Args:
        blocks: (B, any length), surrounded by silence; frame t is centred on sample t * hop_length. What comes out
            does not depend on where the blocks end.
        n_fft: samples in an FFT.
        win_length: samples in the Hann window, at most n_fft.
        hop_length: samples from frame to frame; it may exceed n_fft.
    Yields:
        (B, n_fft // 2 + 1, some frames), >= 0, ceil(length / hop_length) frames in all.
    """
    for power in _power_blocks(blocks, n_fft, win_length, hop_length, torch.hann_window(win_length)):
        yield power.mT


def _power_blocks(
    blocks: Iterable[Tensor], n_fft: int, win_length: int, hop_length: int, window: Tensor
) -> Iterator[Tensor]:
    """As `power_blocks`, but (B, frames, bins), which is how an FFT leaves them in memory."""
    if win_length < n_fft:
        left = (n_fft - win_length) // 2
        window = F.pad(window, (left, n_fft - win_length - left))
    waiting, n_skip = None, 0  # samples from the start of the next frame on; how far that lies behind what has come
    n_samples = n_frames = 0
    blocks = iter(blocks)
    block = next(blocks)
    while block is not None:
        following = next(blocks, None)
        n_samples += block.shape[-1]
        n_before = n_fft // 2  # of silence
        if waiting is not None:
            block, n_skip = torch.cat([waiting, block[..., n_skip:]], dim=-1), max(0, n_skip - block.shape[-1])
            n_before = 0
        n_waiting = n_before + block.shape[-1]
        if following is None:
            n_ready = math.ceil(n_samples / hop_length) - n_frames
            n_after = max(0, (n_ready - 1) * hop_length + n_fft - n_waiting)
        else:
            n_ready, n_after = max(0, (n_waiting - n_fft) // hop_length + 1), 0
        waiting = F.pad(block, (n_before, n_after))
        most = MOST_FRAMES
        if waiting.device.type == "cpu":
            most = min(most, max(16, CACHED_SAMPLES // (n_fft * math.prod(waiting.shape[:-1]))))
        for start in range(0, n_ready, most):
            n = min(most, n_ready - start)
            piece = waiting[..., start * hop_length : (start + n - 1) * hop_length + n_fft]
            yield _power(piece.unfold(-1, n_fft, hop_length) * window)
        n_frames += n_ready
        n_skip += max(0, n_ready * hop_length - waiting.shape[-1])
        waiting, block = waiting[..., n_ready * hop_length :], following
    if n_frames == 0:
        yield torch.zeros(*waiting.shape[:-1], 0, n_fft // 2 + 1, device=waiting.device)


def _power(frames: Tensor) -> Tensor:
    """(..., n_fft) -> (..., bins). Real squared plus imaginary squared: abs() takes a root that is squared again."""
    parts = torch.view_as_real(torch.fft.rfft(frames)).square_()
    return parts[..., 0] + parts[..., 1]


def mel_spectrogram_db(waveform: Tensor, params: SpectrogramParams) -> Tensor:
    """Maps waveforms (T,) or (B, T) to mel levels (..., n_mels, ceil(T / hop_length)) in dB re a full-scale sine.

    For many waveforms, make one Spectrogram and call it: it keeps window and filters.

    Raises:
        ValueError: params.level is not "db", or params.kind is not "mel".
    """
    _require(params.level == "db", f"level is {params.level!r}; mel_spectrogram_db wants params with level db")
    _require(params.kind == "mel", f"kind is {params.kind!r}; mel_spectrogram_db wants params of kind mel")
    levels = Spectrogram(params)(torch.atleast_2d(waveform))
    return levels if waveform.ndim > 1 else levels[0]
