"""The settings that decide what a spectrogram's numbers mean."""

import math
from dataclasses import dataclass, replace

from specgan.spectrogram.filters import mel_filters


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
