"""A sound file of any kind -> spectrograms as a generator draws them: of its length, at its level, starting as it does.

A recording may begin long before its attack, or be quieter than all clips that the generator learned. Where its own
sounds begin and how loud they are is measured on some of them; a recording outside of that is moved there.
"""

import logging
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from specgan.audio import open_audio
from specgan.models.trained import TrainedGenerator
from specgan.spectrogram import Spectrogram, denormalise, normalise_channels

log = logging.getLogger(__name__)

MOST_S = 60.0  # seconds of a file that are looked at
ONSET_DB = 30.0  # below its loudest frame a sound has begun
_SILENCE = 1e-4  # of full scale, -80 dB: what peaks lower is silent

_MEASURED = 64  # sounds of all classes that typical ones are measured on


@dataclass(frozen=True)
class Typical:
    """Where the sounds of a generator begin and how loud they get, from the lowest to the highest usual value.

    Args:
        onset: frames.
        level: the highest value of a spectrogram, -1 to 1.
    """

    onset: tuple[int, int]
    level: tuple[float, float]

    @classmethod
    def of(cls, trained: TrainedGenerator) -> "Typical":
        """Measures some sounds of all classes."""
        labels = [i % len(trained.class_names) for i in range(_MEASURED)]
        spectrograms = trained.sample_indices(labels, range(_MEASURED))
        onsets = torch.tensor([float(onset_frame(each, _span_db(trained))) for each in spectrograms])
        levels = spectrograms.flatten(1).amax(dim=1)
        share = torch.tensor([0.05, 0.95])
        first, last = onsets.quantile(share, interpolation="nearest").int().tolist()
        quietest, loudest = levels.quantile(share).tolist()
        return cls((first, last), (quietest, loudest))


@dataclass(frozen=True)
class Recording:
    """A sound file, as the generator could have drawn it.

    Args:
        name: of the file.
        spectrograms: (n, channels, n_mels, n_frames) in [-1, 1]; several begin a part of a frame earlier or later.
        starts_s: where in the file each begins, in seconds; below 0: silence was put before it.
        duration_s: of the file, or of as much as was read; see MOST_S.
        gain_db: that it was made louder by, to be as loud as the generator's sounds.
    """

    name: str
    spectrograms: Tensor
    starts_s: list[float]
    duration_s: float
    gain_db: float


def read_recording(path: str | Path, trained: TrainedGenerator, typical: Typical) -> Recording:
    """Reads a sound file; see the module for what is made of it.

    Args:
        path: any format, rate, length and number of channels, see `audio.open_audio`.
        trained: whose spectrograms they should be like.
        typical: of its sounds.
    Raises:
        FileNotFoundError, AudioError: no such file, or nothing that can be read as sound.
        ValueError: it is silent.
    """
    p, channels = trained.params, trained.channels
    blocks, n_read = [], 0
    with open_audio(path, sample_rate=p.sample_rate, channels=channels) as stream:
        for block in stream.blocks:
            blocks.append(block)
            n_read += block.shape[1]
            if n_read > MOST_S * p.sample_rate:
                break
    waveform = torch.cat(blocks, dim=1)[:, : round(MOST_S * p.sample_rate)]
    is_cut = n_read > waveform.shape[1]
    if float(waveform.abs().max()) < _SILENCE:
        where = f"the first {MOST_S:g} s are silent, and more is not read" if is_cut else "is silent"
        raise ValueError(f"{path}: {where}; give a recording that begins with what should be heard")
    if is_cut:
        log.warning("%s: is longer than %g s; what follows is not looked at", path, MOST_S)
    to_level = Spectrogram(p)
    level = to_level(waveform)
    onset, (first, last) = onset_frame(_normalised(level, trained), _span_db(trained)), typical.onset
    shift = 0 if first <= onset <= last else onset - (first + last) // 2  # frames
    starts = [0]
    if shift:
        # A window shows an attack up to half its length before it is there, so it may begin a little later, and also
        # between two frames.
        last_step = 2 + p.win_length // p.hop_length
        starts = [(2 * shift + step) * p.hop_length // 2 for step in range(-1, last_step)]
    gain_db = 0.0
    if p.level == "db":
        loudest_db = float(level[..., max(0, shift) :][..., : p.n_frames].max())
        least_db, most_db = (float(denormalise(torch.tensor(each), trained.level_range)) for each in typical.level)
        gain_db = min(max(loudest_db, least_db), most_db) - loudest_db
    waveform = waveform * 10 ** (gain_db / 20)
    pieces = torch.stack([_from(waveform, start, p.n_samples + p.n_fft) for start in starts])
    levels = to_level(pieces.flatten(0, 1))[..., : p.n_frames].unflatten(0, (len(starts), channels))
    return Recording(
        name=Path(path).name,
        spectrograms=_normalised(levels, trained),
        starts_s=[start / p.sample_rate for start in starts],
        duration_s=waveform.shape[1] / p.sample_rate,
        gain_db=gain_db,
    )


def onset_frame(spectrogram: Tensor, span_db: float) -> int:
    """The first frame of a spectrogram (channels, n_mels, n_frames) in [-1, 1] that is nearly as loud as its loudest.

    Args:
        spectrogram: of a sound.
        span_db: decibels from -1 to 1.
    """
    levels = spectrogram.amax(dim=(0, 1))
    return int((levels >= levels.max() - 2 * ONSET_DB / span_db).int().argmax())


def _span_db(trained: TrainedGenerator) -> float:
    # With level "log1p" there are no decibels: a quarter of the whole range is taken instead.
    return trained.level_range.high - trained.level_range.low if trained.params.level == "db" else 4 * ONSET_DB


def _normalised(level: Tensor, trained: TrainedGenerator) -> Tensor:
    return normalise_channels(level, trained.params, trained.level_range)


def _from(waveform: Tensor, start: int, n_samples: int) -> Tensor:
    """(channels, n_samples) of a waveform from `start` on, which may be below 0; around it is silence."""
    piece = F.pad(waveform, (max(0, -start), 0))[:, max(0, start) :][:, :n_samples]
    return F.pad(piece, (0, n_samples - piece.shape[1]))
