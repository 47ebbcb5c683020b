"""Waveform <-> normalised spectrogram, with torch alone.

    waveform --STFT--> power --mel filters--> mel power --level mapping--> level --level range--> spectrogram in [-1, 1]

Each arrow has its way back, except the first two, which are the vocoder's work.

May import: nothing of ours but files.
"""

from specgan.spectrogram.filters import band_groups, mel_filters
from specgan.spectrogram.levels import LevelRange, denormalise, normalise, normalise_channels
from specgan.spectrogram.params import SpectrogramParams, params_at
from specgan.spectrogram.power import power_blocks, squared_magnitude
from specgan.spectrogram.transform import Spectrogram, mel_spectrogram_db

__all__ = [
    "LevelRange",
    "Spectrogram",
    "SpectrogramParams",
    "band_groups",
    "denormalise",
    "mel_filters",
    "mel_spectrogram_db",
    "normalise",
    "normalise_channels",
    "params_at",
    "power_blocks",
    "squared_magnitude",
]
