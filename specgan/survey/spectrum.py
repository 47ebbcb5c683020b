"""Where the sound of a recording ends, by its long-term power spectrum."""

from dataclasses import dataclass

import numpy as np

BAND_DB = -60.0  # below the strongest frequency: up to where the spectrum reaches
AUDIBLE_SHARE = 0.999  # of the energy as the ear weights it: what is above is 30 dB quieter than the sound
N_BANDS = 32  # of `shares_of_bands`

_FFT_S = 0.046  # a window, about 20 Hz fine
_SMOOTH_HZ = 100.0
_LEAST_CUT_HZ = 3000.0  # no filter of a file format or a rate cuts lower, but many sounds end there by themselves
_EDGE_DB = 15.0  # a spectrum that falls by more than this within a tenth of its end was cut
_TOP_HZ = 24000.0


@dataclass(frozen=True)
class Band:
    """Where a sound ends.

    Args:
        band_hz: the highest frequency whose power, averaged over 100 Hz and the whole recording, is within 60 dB of
            the strongest: what the file holds, however high its sample rate is.
        audible_hz: below it are 99.9 % of the energy, weighted as the ear hears it (A): without what is above, the
            sound has lost a part that is 30 dB quieter than it.
        cut_hz: `band_hz`, if it is above 3 kHz and the spectrum stops there at once, as a filter or a lower sample
            rate before leaves it; None: it fades out.
    """

    band_hz: float
    audible_hz: float
    cut_hz: float | None


def fft_size(rate: int) -> int:
    """Samples in a window at a sample rate in Hz: a power of 2, at least 64."""
    return max(64, 2 ** round(np.log2(_FFT_S * rate)))


def band_of(power: np.ndarray, rate: int) -> Band | None:
    """Finds where a sound ends; None: it has no power.

    Args:
        power: (n_fft // 2 + 1,), of the whole recording.
        rate: of its samples, Hz.
    Raises:
        ValueError: it is infinite.
    """
    if not np.isfinite(power).all():
        raise ValueError("samples so far beyond full scale that their power overflows; scale them down")
    hz = np.linspace(0, rate / 2, len(power))
    passed = np.cumsum(power * _a_weighting(hz))
    if passed[-1] <= 0:
        return None
    n = max(1, round(_SMOOTH_HZ / hz[1])) | 1
    smooth = np.convolve(np.pad(power, n // 2, mode="edge"), np.full(n, 1 / n), mode="valid")
    level = 10 * np.log10(np.maximum(smooth / smooth.max(), 1e-20))
    band_hz = float(hz[np.flatnonzero(level >= BAND_DB)[-1]])
    audible_hz = float(hz[np.searchsorted(passed, AUDIBLE_SHARE * passed[-1])])
    return Band(band_hz, audible_hz, band_hz if _is_cut(hz, level, band_hz) else None)


def _is_cut(hz: np.ndarray, level: np.ndarray, band_hz: float) -> bool:
    below = level[(hz >= 0.9 * band_hz) & (hz <= 0.97 * band_hz)]
    above = level[(hz >= 1.03 * band_hz) & (hz <= 1.1 * band_hz)]
    if band_hz < _LEAST_CUT_HZ or not len(below):
        return False
    return bool(below.mean() - (above.mean() if len(above) else BAND_DB) > _EDGE_DB)


def _a_weighting(hz: np.ndarray) -> np.ndarray:
    """Of power, by frequency: IEC 61672, without its constant factor."""
    f2 = np.square(hz)
    lows = (f2 + 20.6**2) * np.sqrt((f2 + 107.7**2) * (f2 + 737.9**2))
    return np.square(12194**2 * f2**2 / (lows * (f2 + 12194**2)))


def mel(hz: float | np.ndarray) -> float | np.ndarray:
    """Pitch by frequency (HTK): steps of it sound alike."""
    return 2595 * np.log10(1 + np.asarray(hz) / 700)


def shares_of_bands(power: np.ndarray, rate: int) -> np.ndarray:
    """The share of the power in each of N_BANDS bands of equal width in mel, up to 24 kHz: (N_BANDS,)."""
    edges = 700 * (10 ** (np.linspace(0, mel(_TOP_HZ), N_BANDS + 1) / 2595) - 1)
    passed = np.concatenate([[0.0], np.cumsum(power)])
    step = rate / 2 / (len(power) - 1)
    places = (np.arange(len(passed)) - 0.5) * step  # between the bins
    edges[-1] = max(edges[-1], places[-1])
    return np.diff(np.interp(edges, places, passed)) / passed[-1]
