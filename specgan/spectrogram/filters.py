"""Mel filters."""

import warnings
from typing import TYPE_CHECKING

from torch import Tensor

if TYPE_CHECKING:  # they are checked with these filters
    from specgan.spectrogram.params import SpectrogramParams

_BANDS = 16  # whose filters are applied together


def mel_filters(params: "SpectrogramParams", *, n_mels: int | None = None) -> Tensor:
    """Returns the filter bank (n_mels, n_fft // 2 + 1), >= 0, of torchaudio's (and librosa's) definition."""
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
