"""What a task has done so far, kept on disk so that a killed run goes on where it was."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from specgan.files import atomic_path

JOURNAL_NAME = ".journal.jsonl"


class Journal:
    """A file of one JSON object a line: a unit's key with its entry when it is done, or keys that were begun.

    Lines are appended; a last line that a killed run left half-written counts for nothing.

    Args:
        folder: of the outputs; the journal is the hidden file JOURNAL_NAME in it.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / JOURNAL_NAME
        self.file = None
        self.entries: dict[str, dict[str, Any]] = {}
        self.begun: set[str] = set()  # and neither done nor given up, when the run ended
        lines = self.path.read_text().splitlines() if self.path.exists() else []
        for line in lines:
            try:
                content = json.loads(line)
            except json.JSONDecodeError:
                continue
            if "begun" in content:
                self.begun |= set(content["begun"])
            else:
                self.entries[content.pop("key")] = content
        self.begun -= set(self.entries)

    def begin(self, keys: Iterable[str]) -> None:
        """Forgets what the keys' entries say, if there are any, and notes that work on them begins."""
        keys = list(keys)
        for key in keys:
            self.entries.pop(key, None)
        self.write([*self.begun, *keys])
        self.file = self.path.open("a", buffering=1)  # a line at a time

    def add(self, key: str, entry: dict[str, Any]) -> None:
        """Notes that a unit is done. The entry is of JSON's types."""
        self.entries[key] = entry
        self.file.write(json.dumps({"key": key, **entry}) + "\n")

    def write(self, begun: Iterable[str] = ()) -> None:
        """Writes the file anew, in the order of the keys: it does not show in which order units were done."""
        if self.file is not None:
            self.file.close()
            self.file = None
        with atomic_path(self.path) as temporary, temporary.open("w") as file:
            if begun := sorted(begun):
                file.write(json.dumps({"begun": begun}) + "\n")
            for key in sorted(self.entries):
                file.write(json.dumps({"key": key, **self.entries[key]}) + "\n")
