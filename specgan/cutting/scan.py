"""What is known of a recording before it is cut: its levels and onsets, read block by block."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from torch import Tensor

from specgan.audio import open_audio

INAUDIBLE_DB = -80.0  # re full scale: what stays below is silence, however quiet the rest is

_LEVEL_S = 0.01  # of which a level is measured
_BLOCK_FRAMES = 2**18  # samples of a channel that are decoded at a time
_WINDOW_S = 0.023  # about, for onsets
_LEAST_WINDOW = 256
_HOPS = 8  # in a window
_N_MELS = 48
_FLOOR_DB = -80.0  # of a mel band re a full-scale sine: what changes below is no onset


@dataclass(frozen=True)
class Scan:
    """What a recording holds.

    Args:
        sample_rate: Hz.
        n_channels: of the file.
        n_samples: of each channel.
        peak: largest absolute sample, full scale 1.0.
        levels: (n,) RMS of each stretch of `hop` samples, of its loudest channel, dB re 1.0; -inf: digital silence.
        hop: samples.
        onsets: ascending samples at which sounds begin, within a few ms; empty if they were not asked for.
    """

    sample_rate: int
    n_channels: int
    n_samples: int
    peak: float
    levels: np.ndarray
    hop: int
    onsets: list[int]


def scan(path: str | Path, *, sensitivity: float | None = None) -> Scan:
    """Reads a recording once, in blocks, so that its length takes next to no memory.

    Args:
        path: any audio file.
        sensitivity: to onsets, see `CutSettings`; None: they are not looked for.
    Raises: as `open_audio`, for the whole file.
    """
    with open_audio(path, mono=False, block_frames=_BLOCK_FRAMES) as stream:
        levels = _Levels(max(1, round(_LEVEL_S * stream.sample_rate)))
        strength = None if sensitivity is None else _OnsetStrength(stream.sample_rate)
        for block in _no_longer(stream.blocks):
            samples = block.numpy()
            levels.add(samples)
            if strength is not None:
                strength.add(samples)
        onsets = [] if strength is None else strength.onsets(sensitivity, levels.n_samples)
        return Scan(
            sample_rate=stream.sample_rate,
            n_channels=stream.n_channels,
            n_samples=levels.n_samples,
            peak=levels.peak,
            levels=levels.in_db(),
            hop=levels.hop,
            onsets=onsets,
        )


def _no_longer(blocks: Iterable[Tensor]) -> Iterator[Tensor]:
    """Cuts blocks that a decoder made longer: what is computed of a block takes many times its memory."""
    for block in blocks:
        yield from block.split(_BLOCK_FRAMES, dim=1)


class _Levels:
    """RMS of stretches of a sound that comes in blocks."""

    def __init__(self, hop: int) -> None:
        self.hop, self.n_samples, self.peak = hop, 0, 0.0
        self._power: list[np.ndarray] = []  # of each stretch, the loudest channel's
        self._rest: np.ndarray | None = None

    def add(self, samples: np.ndarray) -> None:
        """Takes (channels, n)."""
        self.n_samples += samples.shape[1]
        self.peak = max(self.peak, float(np.abs(samples).max(initial=0.0)))
        if self._rest is not None:
            samples = np.concatenate([self._rest, samples], axis=1)
        n_whole = samples.shape[1] // self.hop * self.hop
        self._rest = samples[:, n_whole:].copy()
        if n_whole:
            self._power.append(self._of(samples[:, :n_whole]))

    def _of(self, samples: np.ndarray) -> np.ndarray:
        stretches = samples.reshape(len(samples), -1, self.hop)
        return np.square(stretches, dtype=np.float64).mean(-1).max(0)

    def in_db(self) -> np.ndarray:
        parts = list(self._power)
        if self._rest is not None and self._rest.shape[1]:
            parts.append(np.square(self._rest, dtype=np.float64).mean(-1).max(0, keepdims=True))
        with np.errstate(divide="ignore"):
            return 10 * np.log10(np.concatenate(parts)).astype(np.float32)


class _OnsetStrength:
    """librosa's onset strength of a sound that comes in blocks: the rise of the mel spectrogram in dB."""

    def __init__(self, sample_rate: int) -> None:
        self.sample_rate = sample_rate
        self.n_fft = max(_LEAST_WINDOW, 2 ** round(np.log2(sample_rate * _WINDOW_S)))
        self.hop = self.n_fft // _HOPS
        self._left: np.ndarray | None = None  # samples whose frames are not whole yet
        self._before = np.full((_N_MELS, 1), _FLOOR_DB, dtype=np.float32)  # the last frame
        self._strength: list[np.ndarray] = []

    def add(self, samples: np.ndarray) -> None:
        """Takes (channels, n)."""
        import librosa  # slow to import

        # Silence before the first sample, so that a sound that begins there has an onset.
        left = np.zeros((len(samples), self.n_fft), samples.dtype) if self._left is None else self._left
        samples = np.concatenate([left, samples], axis=1)
        n_frames = 1 + (samples.shape[1] - self.n_fft) // self.hop
        self._left = samples[:, n_frames * self.hop :].copy()
        power = librosa.feature.melspectrogram(
            y=samples[:, : (n_frames - 1) * self.hop + self.n_fft],
            sr=self.sample_rate,
            n_fft=self.n_fft,
            hop_length=self.hop,
            n_mels=_N_MELS,
            center=False,
        ).mean(0)  # of the channels' power, because their samples may cancel
        full_scale_db = 20 * np.log10(self.n_fft / 4)  # of a sine under a Hann window
        level = librosa.power_to_db(power, ref=1.0, amin=1e-20, top_db=None) - full_scale_db
        level = np.concatenate([self._before, np.maximum(level, _FLOOR_DB).astype(np.float32)], axis=1)
        self._before = level[:, -1:]
        self._strength.append(librosa.onset.onset_strength(S=level, sr=self.sample_rate, center=False)[1:])

    def onsets(self, sensitivity: float, n_samples: int) -> list[int]:
        """Returns where sounds begin. A rise starts in the frame whose end is the first to reach the sound."""
        import librosa

        # At least one frame before the first: the peak of a sound that begins at once has a rise to go back to.
        strength = np.concatenate([np.zeros(_HOPS), *self._strength])
        frames = librosa.onset.onset_detect(
            onset_envelope=strength,
            sr=self.sample_rate,
            hop_length=self.hop,
            delta=sensitivity,
        )
        if not len(frames):
            return []
        frames = librosa.onset.onset_backtrack(frames, strength)  # from the peak to where the rise starts
        samples = (frames - _HOPS) * self.hop  # the window's length of silence before the first sample is its end too
        return sorted({int(sample) for sample in samples.clip(0, n_samples - 1)})
