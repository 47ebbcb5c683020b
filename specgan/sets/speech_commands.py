"""Speech Commands: 105,829 recordings of 35 English words, one second each, 16 kHz.

Source: Warden, "Speech Commands: A Dataset for Limited-Vocabulary Speech Recognition", 2018, arXiv:1804.03209.
"""

from collections.abc import Iterator
from pathlib import Path

from specgan.sets.archives import Archive, fetch, require_marker
from specgan.sets.recording import SetRecording

_LISTS = {"testing_list.txt": "test", "validation_list.txt": "val"}
_ARCHIVE = Archive(
    "http://download.tensorflow.org/data/speech_commands_v0.02.tar.gz",
    "2.4 GB",
    folder="speech_commands_v0.02",
    marker="testing_list.txt",
    sha256="af14739ee7dc311471de98f5f9d2c9191b18aedfe957f4a6ff791c709868ff58",
)


def fetch_speech_commands(audio_dir: str | Path) -> None:
    """Fetches the data set, version 0.02, if it is not in the folder. Raises: as `archives.fetch`."""
    fetch("Speech Commands", [_ARCHIVE], audio_dir, licence="CC BY 4.0")


def list_speech_commands(audio_dir: Path) -> Iterator[SetRecording]:
    """Yields each recording, with its word as label, its speaker as group, and the published split.

    Args:
        audio_dir: folder with the words' folders, or one above it.
    Raises:
        FileNotFoundError: it is not there.
    """
    root = require_marker(audio_dir, _ARCHIVE.marker, "Speech Commands")
    split_of = {
        line.strip(): split for name, split in _LISTS.items() for line in (root / name).read_text().splitlines()
    }
    for word in sorted(path for path in root.iterdir() if path.is_dir() and not path.name.startswith(("_", "."))):
        for path in sorted(word.glob("*.wav")):
            speaker = path.name.partition("_nohash_")[0]
            split = split_of.get(f"{word.name}/{path.name}", "train")
            yield SetRecording(path, word.name, group=speaker, split=split)
