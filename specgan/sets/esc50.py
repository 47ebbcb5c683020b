"""ESC-50: 2,000 environmental sounds of 50 classes, five seconds each, 44.1 kHz.

Source: Piczak, "ESC: Dataset for Environmental Sound Classification", 2015.
"""

import csv
from collections.abc import Iterator
from pathlib import Path

from specgan.sets.archives import Archive, fetch, require_marker
from specgan.sets.recording import SetRecording

_SPLITS = {"4": "val", "5": "test"}  # by fold; the others are for training
_ARCHIVE = Archive(
    "https://github.com/karoldvl/ESC-50/archive/master.zip",
    "about 600 MB",
    folder="ESC-50",
    marker="meta/esc50.csv",
)


def fetch_esc50(audio_dir: str | Path) -> None:
    """Fetches the data set if it is not in the folder. Raises: as `archives.fetch`."""
    fetch("ESC-50", [_ARCHIVE], audio_dir, licence="CC BY-NC 3.0, not for commercial use")


def list_esc50(audio_dir: Path) -> Iterator[SetRecording]:
    """Yields each recording; fold 4 is for validation, 5 for test. Clips of one source, a group, share a fold.

    Args:
        audio_dir: folder with `audio` and `meta`, or one above it.
    Raises:
        FileNotFoundError: it is not there.
    """
    root = require_marker(audio_dir, _ARCHIVE.marker, "ESC-50")
    with (root / _ARCHIVE.marker).open(newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            split = _SPLITS.get(row["fold"], "train")
            yield SetRecording(root / "audio" / row["filename"], row["category"], group=row["src_file"], split=split)
