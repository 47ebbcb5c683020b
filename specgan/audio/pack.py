"""A folder of sounds that others can use without specgan: a table of them, and one file that holds them all."""

import csv
import io
import logging
import os
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple
from zipfile import ZIP_STORED, ZipFile, ZipInfo

from specgan.audio.wav import WavFacts
from specgan.files import atomic_path, write_bytes

log = logging.getLogger(__name__)

MANIFEST_NAME = "manifest.csv"

_FIRST_YEAR = (1980, 1, 1, 0, 0, 0)  # of the format
_MODE = 0o644 << 16


class PackedSound(NamedTuple):
    """A row of the table; `path` is relative to the folder, `seed` and `checkpoint` are what the sound came from.

    `origin` says in words what that does not: "variation of my_snare.wav, distance 0.3, seed 4".
    """

    path: str
    label: str
    seed: int
    duration_s: float
    sample_rate: int
    channels: int
    peak: float
    checkpoint: str
    origin: str = ""

    @classmethod
    def of(
        cls, path: str, label: str, seed: int, facts: WavFacts, checkpoint: str, *, origin: str = ""
    ) -> "PackedSound":
        """A row with what the WAV is known to hold."""
        return cls(path, label, seed, *facts, checkpoint, origin)


def write_manifest(folder: str | Path, sounds: Iterable[PackedSound]) -> None:
    """Writes `<folder>/manifest.csv` with these sounds and those of its earlier rows whose files still exist.

    Rows are sorted by label and seed. The file appears whole or not at all.
    """
    path = Path(folder, MANIFEST_NAME)
    rows = {row.path: row for row in _read(path) if os.path.isfile(os.path.join(folder, row.path))}
    rows |= {sound.path: sound for sound in sounds}
    write_bytes(path, _table(rows.values()))


def write_zip(path: str | Path, folder: str | Path, sounds: Iterable[PackedSound]) -> None:
    """Writes a ZIP of the sounds' files, by their paths in `folder`, and of a manifest.csv of them alone.

    The same sounds give the same bytes: nothing is compressed, because WAVs hardly shrink and compressors differ, and
    no time is kept. The file appears whole or not at all.
    """
    sounds = sorted(sounds)
    with atomic_path(path) as temporary, ZipFile(temporary, "w", ZIP_STORED) as file:
        file.writestr(_entry(MANIFEST_NAME), _table(sounds))
        for sound in sounds:
            file.writestr(_entry(sound.path), Path(folder, sound.path).read_bytes())


def _entry(name: str) -> ZipInfo:
    entry = ZipInfo(name, _FIRST_YEAR)
    entry.create_system, entry.external_attr = 3, _MODE  # the same on all systems
    return entry


def _read(path: Path) -> list[PackedSound]:
    """The rows of a table; none if there is no file, or another program changed what its columns hold."""
    if not path.is_file():
        return []
    try:
        with path.open(newline="", encoding="utf-8") as file:
            kinds = PackedSound.__annotations__
            return [
                PackedSound(**{name: kinds[name](value) for name, value in row.items()}) for row in csv.DictReader(file)
            ]
    except (KeyError, TypeError, ValueError, csv.Error) as err:
        log.warning("%s: was changed (%r), so it now lists the new sounds alone", path, err)
        return []


def _table(sounds: Iterable[PackedSound]) -> bytes:
    buffer = io.StringIO(newline="")
    # Text is quoted, as in other manifests: the csv module leaves a carriage return in a name bare, which ends the row.
    table = csv.writer(buffer, quoting=csv.QUOTE_NONNUMERIC, lineterminator="\n")
    rows = sorted(sounds, key=lambda sound: (sound.label, sound.seed, sound.path))
    n_columns = len(PackedSound._fields) - (not any(sound.origin for sound in rows))  # `origin` where it says anything
    table.writerows(row[:n_columns] for row in [PackedSound._fields, *rows])
    # UTF-8, which others read; a label may be the name of a folder that is not.
    return buffer.getvalue().encode(errors="replace")
