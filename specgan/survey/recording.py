"""One recording in figures: format, levels, silence, clipping, where its sound ends, and what tells copies of it."""

import hashlib
import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import chain, islice, pairwise
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from specgan.audio import open_audio
from specgan.spectrogram import power_blocks
from specgan.survey.spectrum import Band, band_of, fft_size, shares_of_bands

SILENCE_DB = -60.0  # below the peak: what is quieter, at either end, is silence
FULL_SCALE = 32767 / 32768 - 1e-6  # the largest sample of 16 bits, or beyond
LEAST_CLIPPED = 4  # samples in a row at full scale
LEAST_CLIPPED_S = 0.00012  # how long they last at least: the top of a bass note that just reaches full scale is shorter

_CHUNK_S = 0.002  # silence is found to this precision
_FADE_S = 0.003  # at both ends, before the spectrum: a sound that is cut off has a click, which reaches every frequency
_LEAST_RATIO = 1e-12  # of powers: channels that cancel each other have no level at all
_N_PARTS = 32  # of a sound, whose shares of the energy tell copies at another level


@dataclass(frozen=True)
class Measures:
    """What was measured of a recording. Levels and frequencies of digital silence are None.

    Args:
        sample_rate: of the file, Hz.
        n_channels: of the file.
        duration_s: of the file.
        start_silence_s: up to where a sample is first within 60 dB of the peak.
        end_silence_s: after the last such sample.
        peak_dbfs: the largest sample of any channel, dB re 1.0.
        rms_dbfs: root mean square between the two silences, over all channels, dB re 1.0; a full-scale sine has -3.
        band_hz, audible_hz, cut_hz: where its sound ends, see `Band`.
        clipped_share: of the samples, those in runs of four and more that stay at full scale or beyond.
        downmix_db: level of the mean of the channels, dB re the channels: far below 0 they cancel each other.
        digest: of all samples as decoded; equal for exact copies.
        shape: (64,) of unit length: square roots of the shares of the energy of 32 stretches of time and 32 bands of
            frequency; nearly equal for copies at another level. Empty for silence.
    """

    sample_rate: int
    n_channels: int
    duration_s: float
    start_silence_s: float
    end_silence_s: float
    peak_dbfs: float | None
    rms_dbfs: float | None
    band_hz: float | None
    audible_hz: float | None
    cut_hz: float | None
    clipped_share: float
    downmix_db: float | None
    digest: str
    shape: list[float]

    @property
    def is_silent(self) -> bool:
        return self.peak_dbfs is None

    @property
    def sound_s(self) -> float:
        """Seconds between the silence at both ends."""
        return self.duration_s - self.start_silence_s - self.end_silence_s


def measure(path: str | Path) -> Measures:
    """Measures a recording, block by block, so that its length takes little memory.

    Raises: as `open_audio`.
    """
    with open_audio(path, mono=False) as stream:
        meter = _Meter(stream.sample_rate, stream.n_channels)
        power = _mean_power(meter.noted(stream.blocks), stream.sample_rate)
    return meter.measures(power)


def measure_band(path: str | Path, *, most_s: float) -> Band | None:
    """Measures where the sound of a recording ends, on its first `most_s` seconds; None: they are silent.

    Raises: as `open_audio`.
    """
    with open_audio(path, mono=False, warn=False, block_frames=2**17) as stream:
        n_blocks = max(1, math.ceil(most_s * stream.sample_rate / 2**17))
        power = _mean_power(islice(stream.blocks, n_blocks), stream.sample_rate)
    return band_of(power, stream.sample_rate)


def _mean_power(blocks: Iterable[Tensor], rate: int) -> np.ndarray:
    """Blocks (n_channels, n) -> (bins,): the power spectrum, summed over time and channels."""
    n_fft = fft_size(rate)
    parts = power_blocks(_faded(blocks, round(_FADE_S * rate)), n_fft=n_fft, win_length=n_fft, hop_length=n_fft // 2)
    return sum(part.sum(dim=(0, 2), dtype=torch.float64) for part in parts).numpy()


def _faded(blocks: Iterable[Tensor], n: int) -> Iterator[Tensor]:
    """Fades the first and the last n samples, where the blocks are long enough."""
    rise = torch.hann_window(2 * n)[:n] if n else torch.ones(0)
    is_first = True
    for block, following in pairwise(chain(blocks, [None])):
        if 0 < 2 * n <= block.shape[-1]:
            block = block.clone()
            if is_first:
                block[:, :n] *= rise
            if following is None:
                block[:, -n:] *= rise.flip(0)
        is_first = False
        yield block


class _Meter:
    """Notes what blocks of samples hold as they pass."""

    def __init__(self, rate: int, n_channels: int) -> None:
        self.rate, self.n_channels, self.n_samples = rate, n_channels, 0
        self.chunk = max(1, round(_CHUNK_S * rate))
        self.starts: list[np.ndarray] = []  # of stretches of at most `chunk` samples, by block
        self.peaks: list[np.ndarray] = []  # of each, over all channels
        self.energies: list[np.ndarray] = []
        self.mix_energy = 0.0
        least = max(LEAST_CLIPPED, math.ceil(LEAST_CLIPPED_S * rate))
        self.runs = [_Runs(least) for _ in range(n_channels)]
        self.digest = hashlib.sha256(f"{rate} {n_channels}".encode())

    def noted(self, blocks: Iterable[Tensor]) -> Iterator[Tensor]:
        for block in blocks:
            self._note(block.numpy())
            yield block

    def _note(self, block: np.ndarray) -> None:
        """(n_channels, n)"""
        self.digest.update(np.ascontiguousarray(block.T))  # sample by sample: the same however long the blocks are
        starts = np.arange(0, block.shape[1], self.chunk)
        squares = np.square(block, dtype=np.float64).sum(axis=0)
        loudest = np.abs(block).max(axis=0)
        self.starts.append(starts + self.n_samples)
        self.peaks.append(np.maximum.reduceat(loudest, starts))
        self.energies.append(np.add.reduceat(squares, starts))
        mix = block[0] if self.n_channels == 1 else block.mean(axis=0)
        self.mix_energy += float(np.square(mix, dtype=np.float64).sum())
        if loudest.max() >= FULL_SCALE:
            for runs, samples in zip(self.runs, block, strict=True):
                runs.add(np.abs(samples) >= FULL_SCALE)
        self.n_samples += block.shape[1]

    def measures(self, power: np.ndarray) -> Measures:
        """What was noted, and `power`, the spectrum of the whole."""
        starts = np.append(np.concatenate(self.starts), self.n_samples)
        peaks, energies = np.concatenate(self.peaks), np.concatenate(self.energies)
        peak, total = float(peaks.max()), float(energies.sum())
        band = band_of(power, self.rate) if peak > 0 else None
        first, end = 0, len(peaks)
        if peak > 0:
            loud = np.flatnonzero(peaks >= peak * 10 ** (SILENCE_DB / 20))
            first, end = int(loud[0]), int(loud[-1]) + 1
        n_sound = (starts[end] - starts[first]) * self.n_channels
        n_clipped = sum(runs.n_clipped for runs in self.runs)
        return Measures(
            sample_rate=self.rate,
            n_channels=self.n_channels,
            duration_s=self.n_samples / self.rate,
            start_silence_s=float(starts[first]) / self.rate,
            end_silence_s=float(self.n_samples - starts[end]) / self.rate,
            peak_dbfs=_db(peak**2),
            rms_dbfs=_db(float(energies[first:end].sum()) / n_sound),
            band_hz=band.band_hz if band else None,
            audible_hz=band.audible_hz if band else None,
            cut_hz=band.cut_hz if band else None,
            clipped_share=n_clipped / (self.n_samples * self.n_channels),
            downmix_db=_db(max(self.mix_energy * self.n_channels / total, _LEAST_RATIO)) if total > 0 else None,
            digest=self.digest.hexdigest()[:32],
            shape=_shape(energies[first:end], starts[first : end + 1], power, self.rate) if band else [],
        )


class _Runs:
    """Counts the samples of a channel that are in runs of true ones, of at least `least`."""

    def __init__(self, least: int) -> None:
        self.least, self.n_clipped = least, 0

    def add(self, is_full: np.ndarray) -> None:
        edges = np.flatnonzero(np.diff(is_full, prepend=False, append=False))
        lengths = edges[1::2] - edges[::2]
        self.n_clipped += int(lengths[lengths >= self.least].sum())


def _shape(energies: np.ndarray, starts: np.ndarray, power: np.ndarray, rate: int) -> list[float]:
    """See `Measures`. `starts` (n + 1,) are the places between the stretches that have the energies (n,)."""
    passed = np.concatenate([[0.0], np.cumsum(energies)])
    places = np.linspace(starts[0], starts[-1], _N_PARTS + 1)
    in_time = np.diff(np.interp(places, starts, passed)) / passed[-1]
    shares = np.concatenate([in_time, shares_of_bands(power, rate)])
    return np.sqrt(shares.clip(0) / 2).round(5).tolist()


def _db(ratio: float) -> float | None:
    return 10 * math.log10(ratio) if ratio > 0 else None
