"""How many beats a minute a recording has, if it has a beat at all."""

import math

import numpy as np
from torch import Tensor

LOWEST_BPM, HIGHEST_BPM = 70.0, 180.0

_SAMPLE_RATE = (
    22050  # Hz, for which librosa's beat tracker was tuned; another rate would change the length of its frames
)
_HOP_LENGTH = 512  # samples: 23 ms
_MIN_BEATS = 4
_MIN_CONTRAST = 0.2
_NOISE_CONTRAST = 4.5


def find_tempo(
    waveform: np.ndarray | Tensor, sample_rate: int, *, lowest: float = LOWEST_BPM, highest: float = HIGHEST_BPM
) -> float | None:
    """Returns the beats a minute of a whole recording; a slice of it has too few beats for an exact tempo.

    librosa's beat tracker finds the beats, but its own tempo is one of a few lags between onsets: 117.5 or 123 near
    120. The slope of a line through the times of all beats is about ten times as exact.

    A recording has a tempo only if onsets repeat after one beat: the autocorrelation of the onset strength at that lag
    must reach 0.2, and 4.5 / sqrt(n_frames), which noise reaches by chance in short sounds. The residual of the line
    cannot decide it: the tracker finds evenly spaced beats in noise too, and people play less evenly.

    Args:
        waveform: (n_samples,), full scale 1.0.
        sample_rate: Hz.
        lowest: beats a minute, > 0. A lower tempo is doubled, because a tempo and its half cannot be told apart.
        highest: beats a minute, at least 2 * `lowest`; a tempo of `highest` or above is halved.
    Returns:
        A tempo in [lowest, highest), within about 0.1 % for a steady beat over 20 s or more, except for factors of 2;
        None for silence, for sounds without a beat, and for sounds with fewer than four beats.
    Raises:
        ValueError: the waveform is not one-dimensional, or `sample_rate`, `lowest` or `highest` is out of range.
    Source: D. Ellis, "Beat Tracking by Dynamic Programming", 2007, as `librosa.beat.beat_track`.
    """
    if isinstance(waveform, Tensor):
        waveform = waveform.numpy(force=True)
    waveform = np.asarray(waveform, dtype=np.float32)
    _check(waveform, sample_rate, lowest, highest)
    period_s = _beat_period(waveform, sample_rate)
    if period_s is None:
        return None
    tempo = 60.0 / period_s
    while tempo < lowest:
        tempo *= 2
    while tempo >= highest:
        tempo /= 2
    return tempo


def _check(waveform: np.ndarray, sample_rate: int, lowest: float, highest: float) -> None:
    if waveform.ndim != 1:
        raise ValueError(f"waveform has shape {waveform.shape}; pass one channel, (n_samples,)")
    if sample_rate <= 0:
        raise ValueError(f"sample_rate={sample_rate} Hz is not possible; give the rate of the waveform")
    if not 0 < lowest < math.inf:
        raise ValueError(f"lowest={lowest} beats a minute is not possible; use a number above 0, e.g. 70")
    if not 2 * lowest <= highest < math.inf:
        raise ValueError(
            f"highest={highest} is less than twice lowest={lowest} beats a minute, so that doubling and halving can"
            f" miss the range between them; use {2 * lowest:g} or more"
        )


def _beat_period(waveform: np.ndarray, sample_rate: int) -> float | None:
    """Seconds from beat to beat, or a multiple of it as the tracker chose; None without a beat."""
    import librosa

    if len(waveform) < sample_rate or not waveform.any():  # from the first to the fourth beat at 180 a minute: 1 s
        return None
    if sample_rate != _SAMPLE_RATE:
        waveform = librosa.resample(waveform, orig_sr=sample_rate, target_sr=_SAMPLE_RATE)
    # the median over bands, as in beat_track, responds to onsets in many bands at once
    strength = librosa.onset.onset_strength(y=waveform, sr=_SAMPLE_RATE, hop_length=_HOP_LENGTH, aggregate=np.median)
    _, frames = librosa.beat.beat_track(onset_envelope=strength, sr=_SAMPLE_RATE, hop_length=_HOP_LENGTH)
    if len(frames) < _MIN_BEATS:
        return None
    period = _slope(frames.astype(np.float64))
    needed = max(_MIN_CONTRAST, _NOISE_CONTRAST / math.sqrt(len(strength)))
    if _autocorrelation(strength, lag=period) < needed:
        return None
    return period * _HOP_LENGTH / _SAMPLE_RATE


def _slope(beats: np.ndarray) -> float:
    """Frames from beat to beat, from (n_beats,) ascending frames; some beats may be missing or misplaced."""
    gaps = np.diff(beats)
    numbers = np.concatenate([[0.0], np.cumsum(np.maximum(1.0, np.round(gaps / np.median(gaps))))])
    # the median of the slopes from each beat to the one half a recording later: misplaced beats do not move it
    half = len(beats) // 2
    slope = np.median((beats[half:] - beats[:-half]) / (numbers[half:] - numbers[:-half]))
    residual = beats - slope * numbers
    residual = np.abs(residual - np.median(residual))
    # rounding to whole frames alone is up to 0.5 off, so up to a frame and a half is near
    near = residual <= max(1.5, 2 * np.median(residual))
    return float(np.polyfit(numbers[near], beats[near], 1)[0])


def _autocorrelation(strength: np.ndarray, *, lag: float) -> float:
    """Of (n_frames,), 1 at lag 0; the largest within a frame of `lag`, as if the shorter overlap were full."""
    strength = strength - strength.mean()
    energy = np.mean(np.square(strength))
    lags = range(max(1, round(lag) - 1), min(len(strength) - 1, round(lag) + 1) + 1)
    return max(float(np.mean(strength[k:] * strength[:-k]) / energy) for k in lags)
