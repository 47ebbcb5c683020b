"""A sound as it goes into a song: it ends where it falls silent, with the rate, level and sample format of choice."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from specgan.audio.encoding import WAV_SUBTYPES, save_wav, scale_to_peak
from specgan.audio.resampling import resample

LOWEST_RATE, HIGHEST_RATE = 8000, 192000  # Hz
SHORTEST_S = 0.05  # that trimming leaves of a sound

_BLOCK_S = 0.01  # whose levels are compared


class WavFacts(NamedTuple):
    """What a WAV holds; `peak` is its largest absolute sample, full scale 1.0."""

    duration_s: float
    sample_rate: int
    channels: int
    peak: float


@dataclass(frozen=True, kw_only=True)
class WavSettings:
    """What becomes of a sound before it is written.

    Args:
        trim_db: dB, below 0: what follows the last 10 ms within this of the loudest 10 ms is cut off; None: nothing is.
        fade_ms: milliseconds behind that point that are kept and faded out, >= 0.
        sample_rate: Hz to resample to, 8000..192000; None: stays as it is.
        subtype: "PCM_16", "PCM_24" or "FLOAT", see `save_wav`.
        peak: above 0, at most 1: the largest absolute sample that each sound is scaled to; None: its loudness is kept.
    Raises:
        ValueError: an impossible setting; the message names it.
    """

    trim_db: float | None = -50.0
    fade_ms: float = 20.0
    sample_rate: int | None = None
    subtype: str = "PCM_16"
    peak: float | None = None

    def __post_init__(self) -> None:
        if self.trim_db is not None and not (_is_number(self.trim_db) and self.trim_db < 0):
            raise ValueError(f"trim_db is {self.trim_db}; dB below the loudest part, e.g. -50, or null")
        if not (_is_number(self.fade_ms) and 0 <= self.fade_ms < math.inf):
            raise ValueError(f"fade_ms is {self.fade_ms}; milliseconds, at least 0")
        rate = self.sample_rate
        if rate is not None and not (type(rate) is int and LOWEST_RATE <= rate <= HIGHEST_RATE):
            raise ValueError(f"sample_rate is {rate}; whole Hz in {LOWEST_RATE}..{HIGHEST_RATE}, or null")
        if self.subtype not in WAV_SUBTYPES:
            raise ValueError(f"subtype is {self.subtype!r}; one of {', '.join(WAV_SUBTYPES)}")
        if self.peak is not None and not (_is_number(self.peak) and 0 < self.peak <= 1):
            raise ValueError(f"peak is {self.peak}; above 0 and at most 1, which is full scale, or null")

    def applied(self, waveform: Tensor, sample_rate: int) -> tuple[Tensor, int]:
        """Returns the sound with all but the sample format as these settings say, and its rate in Hz.

        Args:
            waveform: (n_samples,) or (channels, n_samples), float, on the CPU. All channels end together and get one
                gain.
            sample_rate: Hz.
        """
        if self.trim_db is not None:
            waveform = trimmed(waveform, sample_rate, trim_db=self.trim_db, fade_ms=self.fade_ms)
        rate = sample_rate if self.sample_rate is None else self.sample_rate
        waveform = resample(torch.atleast_2d(waveform), sample_rate, rate).reshape(*waveform.shape[:-1], -1)
        return waveform if self.peak is None else scale_to_peak(waveform, self.peak), rate

    def write(
        self, path: str | Path, waveform: Tensor, sample_rate: int, *, info: Mapping[str, str] | None = None
    ) -> WavFacts:
        """Writes a sound as these settings say; the arguments are those of `save_wav`, and so are its errors."""
        waveform, rate = self.applied(waveform, sample_rate)
        save_wav(path, waveform, rate, subtype=self.subtype, info=info)
        loudest = float(waveform.abs().max())
        return WavFacts(
            duration_s=round(waveform.shape[-1] / rate, 6),
            sample_rate=rate,
            channels=1 if waveform.ndim == 1 else len(waveform),
            peak=round(loudest if self.subtype == "FLOAT" else min(loudest, 1.0), 6),
        )


def trimmed(waveform: Tensor, sample_rate: int, *, trim_db: float, fade_ms: float) -> Tensor:
    """Cuts off what follows the end of a sound.

    The end is that of the last 10 ms whose power, in any channel, is within `trim_db` of the loudest 10 ms. Power,
    because a single sample of the noise floor that sticks out is not heard. `fade_ms` behind the end are kept and faded
    out, so that all before it stays bit for bit; SHORTEST_S are kept in any case. Digital silence has no end and stays
    whole, as does a sound that lasts to the last sample.

    Args:
        waveform: (n_samples,) or (channels, n_samples), at least one sample.
        sample_rate: Hz.
        trim_db: dB, below 0.
        fade_ms: milliseconds, >= 0.
    Returns:
        (n_kept,) or (channels, n_kept).
    """
    n_samples, n_block = waveform.shape[-1], max(1, round(_BLOCK_S * sample_rate))
    blocks = F.pad(waveform, (0, -n_samples % n_block)).unflatten(-1, (-1, n_block))
    power = torch.atleast_2d(blocks.square().mean(-1)).amax(0)
    if power.max() == 0:
        return waveform
    end = (int((power >= power.max() * 10 ** (trim_db / 10)).nonzero()[-1]) + 1) * n_block
    n_fade = round(fade_ms / 1000 * sample_rate)
    n_kept = max(end + n_fade, round(SHORTEST_S * sample_rate))
    if n_kept >= n_samples:
        return waveform
    kept = waveform[..., :n_kept].clone()
    if n_fade:
        kept[..., n_kept - n_fade :] *= torch.cos(torch.pi / 2 * torch.arange(1, n_fade + 1) / n_fade).square()
    return kept


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)
