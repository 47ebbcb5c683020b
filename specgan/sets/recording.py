"""A recording of a data set whose layout is known."""

from pathlib import Path
from typing import NamedTuple


class SetRecording(NamedTuple):
    """A file, its label, and what the data set publishes about it.

    Args:
        path: of the file.
        label: of its class.
        group: of recordings that are never in different splits (of one speaker, of one take); "": none.
        split: "train", "val" or "test"; "": none.
    """

    path: Path
    label: str
    group: str = ""
    split: str = ""
