"""NSynth: 305,979 notes of 1,006 instruments, four seconds each, 16 kHz.

Source: Engel et al., "Neural Audio Synthesis of Musical Notes with WaveNet Autoencoders", 2017, arXiv:1704.01279.
"""

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from specgan.sets.archives import Archive, fetch, find_marker
from specgan.sets.recording import SetRecording

PARTS = {"train": "train", "valid": "val", "test": "test"}  # by the names of the folders
LABELS = ("family", "source", "pitch")

_NAME = re.compile(r"(?P<family>.+)_(?P<source>[a-z]+)_(?P<number>\d{3})-(?P<pitch>\d{3})-\d{3}")
_SIZES = {"train": "about 24 GB", "valid": "about 1.1 GB", "test": "about 350 MB"}


def fetch_nsynth(audio_dir: str | Path, *, parts: Sequence[str] = tuple(PARTS)) -> None:
    """Fetches those parts of the data set that are not in the folder.

    Args:
        audio_dir: folder of the data set.
        parts: "train", "valid", "test".
    Raises:
        ValueError: an unknown part; and as `archives.fetch`.
        MissingSetError: as `archives.fetch`.
    """
    unknown = set(parts) - set(PARTS)
    if unknown or not parts:
        raise ValueError(f"data.make_audio.parts is {list(parts)}; some of {', '.join(PARTS)}")
    archives = [
        Archive(
            f"http://download.magenta.tensorflow.org/datasets/nsynth/nsynth-{part}.jsonwav.tar.gz",
            _SIZES[part],
            folder=f"nsynth-{part}.jsonwav",
            marker=f"nsynth-{part}/audio",
        )
        for part in parts
    ]
    fetch("NSynth", archives, audio_dir, licence="CC BY 4.0")


def list_nsynth(audio_dir: Path, *, label: str = "family") -> Iterator[SetRecording]:
    """Yields each note of the parts that are there; its instrument is its group.

    Args:
        audio_dir: folder with `nsynth-train`, `nsynth-valid`, `nsynth-test`, or some of them, or one above it.
        label: "family" (bass, flute, ...), "source" (acoustic, electronic, synthetic) or "pitch" (MIDI, 021 to 108).
    Raises:
        FileNotFoundError: none is there.
        ValueError: an unknown `label`.
    """
    if label not in LABELS:
        raise ValueError(f"data.listing.label is {label!r}; one of {', '.join(LABELS)}")
    n_found = 0
    for part, split in PARTS.items():
        root = find_marker(audio_dir, f"nsynth-{part}/audio")
        for path in sorted((root / f"nsynth-{part}" / "audio").glob("*.wav")) if root else ():
            note = _NAME.fullmatch(path.stem)
            if note is not None:
                n_found += 1
                yield SetRecording(path, note[label], group=path.stem.partition("-")[0], split=split)
    if not n_found:
        raise FileNotFoundError(f"{audio_dir}: there are no notes in nsynth-<part>/audio; check data.audio_dir")
