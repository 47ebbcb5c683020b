"""A recording, and what the journal keeps of it."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import NotRequired, TypedDict

from torch import Tensor

from specgan.batch.journal import State
from specgan.spectrogram import SpectrogramParams


@dataclass(frozen=True)
class Clip:
    """A recording.

    Args:
        source: its file.
        label: of its class.
        recording: its place in the dataset folder, `<label>/<name>` without suffix.
        group: recordings of one group are never in different splits; "": it is on its own.
        split: that its data set publishes for it; "": none.
    """

    source: Path
    label: str
    recording: str
    group: str = ""
    split: str = ""

    @property
    def key(self) -> str:
        return self.recording

    @property
    def sources(self) -> list[Path]:
        return [self.source]


class Place(TypedDict):
    """Where a spectrogram is in the dataset folder; in a shard, from which frame on."""

    path: str
    first_frame: NotRequired[int]


class Row(Place):
    """A spectrogram in the manifest.

    `peak_level`, its highest, is for the statistics alone, `recorded_rate`, of its recording in Hz, for `keep_sounds`.
    """

    start_s: float
    n_frames: int
    peak_level: float
    duration_s: float
    recorded_rate: NotRequired[int]  # not in the journals of older versions


class ClipEntry(TypedDict):
    """A recording in the journal. `n_channels`, of its file, is known of those that were made into two channels."""

    made_from: list[State]
    outputs: list[str]
    rows: list[Row]
    n_channels: NotRequired[int]


@dataclass(frozen=True)
class Piece:
    """A spectrogram of a recording: the whole of it, or one slice."""

    number: int  # of the slice
    n_frames: int
    peak_level: float

    @classmethod
    def of(cls, number: int, level: Tensor) -> "Piece":
        return cls(number, level.shape[-1], float(level.max()))


def rows_of(
    pieces: Iterable[tuple[Place, Piece]], n_samples: int, params: SpectrogramParams, *, recorded_rate: int
) -> list[Row]:
    """The rows of a recording of `n_samples` at the spectrograms' rate, whose pieces are at these places."""
    duration_s = n_samples / params.sample_rate
    slice_s = duration_s if params.n_frames is None else params.n_samples / params.sample_rate
    rows: list[Row] = []
    for place, piece in pieces:
        start_s = piece.number * slice_s
        rows.append(
            {
                **place,
                "start_s": round(start_s, 6),
                "n_frames": piece.n_frames,
                "peak_level": piece.peak_level,
                "duration_s": round(min(slice_s, duration_s - start_s), 6),
                "recorded_rate": recorded_rate,
            }
        )
    return rows
