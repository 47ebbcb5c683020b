"""Which recording a clip was cut from: written into its file, so that it is known wherever the file goes.

Clips of one recording are alike, so a test clip that was cut from a recording of the training split measures nothing.
"""

import hashlib
import os
import re
from pathlib import Path

_NOTE = re.compile(rb"specgan recording ([0-9a-f]{16})")
_SUFFIXES = (".wav", ".flac")  # that clips are written as
_NOTE_BYTES = 4096  # from the start (FLAC) or the end (WAV) of a file, in which its note stands
_DIGEST_BYTES = 2**20  # of a recording, by which it is known


def origin_note(recording: str, source: str | Path, start_s: float) -> str:
    """Returns the text that a clip carries, for people and for `origin_of`.

    Args:
        recording: from `recording_id`.
        source: file of the recording.
        start_s: seconds at which the clip begins in it.
    """
    name = os.path.basename(source).encode(errors="replace").decode()
    return f"specgan recording {recording}: cut from {name} at {start_s:.3f} s"


def origin_of(path: str | Path) -> str | None:
    """Returns the recording that a clip was cut from, 16 hex digits; None: its file does not say, or cannot be read."""
    if os.path.splitext(path)[1].lower() not in _SUFFIXES or not os.path.isfile(path):
        return None
    try:
        with open(path, "rb", buffering=0) as file:
            note = _NOTE.search(file.read(_NOTE_BYTES))
            if note is None:
                file.seek(max(0, file.seek(0, os.SEEK_END) - _NOTE_BYTES))
                note = _NOTE.search(file.read(_NOTE_BYTES))
    except OSError:
        return None
    return note[1].decode() if note else None


def recording_id(path: str | Path) -> str:
    """Returns 16 hex digits for a recording, the same wherever it lies; of a clip those of its recording.

    Two recordings that begin with the same MiB and have the same length count as one: their clips stay together.

    Raises:
        OSError: the file cannot be read.
    """
    origin = origin_of(path)
    if origin is not None:
        return origin
    with open(path, "rb") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(0)
        return hashlib.sha256(f"{size}\0".encode() + file.read(_DIGEST_BYTES)).hexdigest()[:16]
