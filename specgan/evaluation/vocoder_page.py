"""What vocoders make of spectrograms, as one page to read, look at and listen to."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from specgan.audio import encode_flac
from specgan.evaluation.fidelity import ATTACK_S, onsets
from specgan.pictures.attack import draw_attack
from specgan.pictures.pages import data_uri, write_page

# Of the figures: a heading, and what it means.
FIGURES = {
    "attack_error_db": ("attack error, dB", "of the envelope in the 60 ms after the onset, against the recording"),
    "log_spectral_distance_db": ("log-spectral distance, dB", "against the recording, in windows of three lengths"),
    "spectrogram_error": ("spectrogram error", "of the magnitude of all bands, re that of what was asked for"),
    "spectrogram_error_db": ("spectrogram error, dB", "of all bands, against what was asked for"),
    "envelope_error_db": ("envelope error, dB", "of the level of frames, against what was asked for"),
    "ms_per_s": ("time, ms", "for a second of sound, one sound at a time"),
    "n": ("sounds", "that were measured"),
}

_TEMPLATE = Path(__file__).parent / "templates" / "vocoder.html"

Rows = Mapping[str, Mapping[str, float]]  # figures, keys of `FIGURES`, by vocoder


@dataclass(frozen=True)
class Compared:
    """One sound as several vocoders make it, to hear and see.

    Args:
        name: what tells it from the others, e.g. "snare, the largest error".
        sounds: (T,) or (channels, T) by what made it; all of one length, sample by sample at the same place.
        captions: a text for some of them.
    """

    name: str
    sounds: Mapping[str, Tensor]
    captions: Mapping[str, str]


@dataclass(frozen=True)
class Tried:
    """What vocoders make of some spectrograms: their figures, and some of the sounds."""

    rows: Rows
    shown: Sequence[Compared]


@dataclass(frozen=True)
class _Player:
    caption: str
    picture: str
    audio: str


def write_vocoders(path: str | Path, tried: Mapping[str, Tried], *, checkpoint: str, sample_rate: int) -> None:
    """Writes one HTML file that holds its sounds and pictures and needs nothing else.

    The sounds of a row have the same axes and colours, so that what one of them smears is seen.

    Args:
        path: the page; its folder is created.
        tried: by heading.
        checkpoint: that holds the vocoder.
        sample_rate: of all sounds, Hz.
    """
    sections = [
        (
            heading,
            [(name, FIGURES[name]) for name in next(iter(of.rows.values()))],
            {
                made: [f"{value:.0f}" if name == "n" else f"{value:.2f}" for name, value in row.items()]
                for made, row in of.rows.items()
            },
            [(compared.name, _players(compared, sample_rate)) for compared in of.shown],
        )
        for heading, of in tried.items()
    ]
    write_page(path, _TEMPLATE, checkpoint=checkpoint, sections=sections, duration_ms=round(1000 * ATTACK_S))


def _players(compared: Compared, sample_rate: int) -> list[_Player]:
    first = {made: sound.reshape(-1, sound.shape[-1])[0] for made, sound in compared.sounds.items()}
    reference = next(iter(first.values()))
    onset = int(onsets(reference.unsqueeze(0), sample_rate=sample_rate))
    peak = max(float(sound.abs().max()) for sound in first.values()) or 1.0
    return [
        _Player(
            ", ".join(text for text in (made, compared.captions.get(made)) if text),
            data_uri(
                "image/png",
                draw_attack(sound, sample_rate=sample_rate, onset=onset, duration_s=ATTACK_S, peak=peak),
            ),
            data_uri("audio/flac", encode_flac(compared.sounds[made], sample_rate)),
        )
        for made, sound in first.items()
    ]
