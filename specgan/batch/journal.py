"""What a task has done so far, kept on disk so that a killed run goes on where it was."""

import json
import re
from collections import defaultdict
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from functools import cache
from pathlib import Path
from typing import Any, TextIO

from specgan.batch.runner import FAILURES_NAME, Failure, check_on_error, write_failures
from specgan.files import atomic_path, remove_files

JOURNAL_NAME = ".journal.jsonl"


class Journal:
    """A file of one JSON object a line: the settings, and a unit's key with its entry when it is done, or keys begun.

    Lines are appended; a last line that a killed run left half-written counts for nothing.

    Args:
        folder: of the outputs; the journal is a hidden file in it.
        settings: what the outputs are made with, by name; values of JSON's types. Outputs of other settings are stale.
        name: of the file. Tasks that may share a folder have journals of different names.
        endings: regular expression for what follows a unit's key in the paths of its outputs. Files of this form that a
            killed run left are cleared away, so it must fit no other files. None: nothing is looked for, because
            outputs appear whole and will be replaced.
    """

    def __init__(
        self,
        folder: Path,
        settings: Mapping[str, Any] | None = None,
        *,
        name: str = JOURNAL_NAME,
        endings: str | None = None,
    ) -> None:
        self.endings = None if endings is None else re.compile(endings)
        self.folder, self.path = folder, folder / name
        self.settings = json.loads(json.dumps(settings or {}))  # as they will be read again: tuples are lists
        self.file: TextIO | None = None
        self.entries: dict[str, dict[str, Any]] = {}
        self.begun: set[str] = set()  # and neither done nor given up, when the run ended
        self.is_outdated = False  # made with other settings
        if self.path.exists():
            with self.path.open(errors="replace") as lines:  # one at a time: of a million clips they are long
                for line in lines:
                    self._read(line)
        self.begun -= set(self.entries)

    def _read(self, line: str) -> None:
        try:
            content = json.loads(line)
        except (ValueError, RecursionError):
            return
        match content:  # anything else was damaged, or written by somebody else
            case {"settings": settings}:
                self.is_outdated = settings != self.settings
            case {"begun": [*keys]} if all(isinstance(key, str) for key in keys):
                self.begun.update(keys)
            case {"key": str(key), "outputs": [*paths]} if all(isinstance(path, str) for path in paths):
                del content["key"]
                self.entries[key] = content

    def start(self, sources: Mapping[str, Sequence[Path]], *, final: Path | None = None) -> list[str]:
        """Clears away what is stale, notes that work begins, and gives the keys of the units that are to be made.

        Args:
            sources: the files that each unit is made from, by key. An entry needs `made_from`, see the function of that
                name, and `outputs`, paths in the folder; a path that is of several units stays while one of them does.
            final: a file that says that the folder is complete: it goes before anything else does.
        """
        is_there = cache(lambda path: (self.folder / path).exists())  # of many units one output may be the same
        stale = [key for key, files in sources.items() if self.is_outdated or not self._is_fresh(key, files, is_there)]
        if not stale and set(sources) == set(self.entries) and not self.begun:
            return []
        if final is not None:
            final.unlink(missing_ok=True)
        fresh = set(sources) - set(stale)
        gone = {*self.entries, *self.begun} - fresh
        kept = {path for key in fresh for path in self.entries[key]["outputs"]}  # `a_0001` may be a unit, and a slice
        remove_files(set(self._outputs(gone)) - kept, self.folder)
        for key in gone:
            self.entries.pop(key, None)
        self.begun.clear()
        self.begin(stale)
        return stale

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
            file.write(json.dumps({"settings": self.settings}) + "\n")
            if begun := sorted(begun):
                file.write(json.dumps({"begun": begun}) + "\n")
            for key in sorted(self.entries):
                file.write(json.dumps({"key": key, **self.entries[key]}) + "\n")

    def _is_fresh(self, key: str, sources: Sequence[Path], is_there: Callable[[str], bool]) -> bool:
        """Whether the unit's outputs are there, and were made from its sources as they are now."""
        entry = self.entries.get(key)
        try:
            if entry is None or entry["made_from"] != made_from(sources):
                return False
        except OSError:
            return False
        return all(is_there(path) for path in entry["outputs"])

    def _outputs(self, keys: Iterable[str]) -> Iterator[str]:
        """The files that were made of units, also of those at which a killed run was at work."""
        unfinished: dict[str, set[str]] = defaultdict(set)
        for key in keys:
            if key in self.entries:
                yield from self.entries[key]["outputs"]
            else:
                folder, _, name = key.rpartition("/")
                unfinished[folder].add(name)
        for folder, names in unfinished.items():
            for path in (self.folder / folder).glob("*") if self.endings else ():
                cuts = range(1, len(path.name))  # `a_0001.png` may be of the unit a, or of a_0001
                if any(path.name[:cut] in names and self.endings.fullmatch(path.name, cut) for cut in cuts):
                    yield f"{folder}/{path.name}".lstrip("/")
            yield f"{folder}/.partial".lstrip("/")  # none of that name: so that half-written files are looked for there


def run_missing(
    journal: Journal,
    units: Sequence[Any],
    run: Callable[..., Generator[tuple[Any, Any]]],
    *,
    final: Path | None = None,
    failures: Sequence[Failure] = (),
    on_error: str,
    **settings: Any,
) -> tuple[dict[str, dict[str, Any]], list[Failure], int]:
    """Does a task's work on the units whose outputs are missing or stale, notes what is done, writes failures.csv.

    Args:
        journal: of the task.
        units: each has a `key`, and `sources`, the files that it is made from.
        run: `run_units` with its `work`. What it makes of a unit is the entry for the journal. An entry may have
            `failures`, of parts of the unit: then it is not noted, and the next run makes it again.
        final: see Journal.start.
        failures: of what did not even make a unit.
        on_error, settings: for `run`.
    Returns:
        the entries of what was made now, by key; all failures, sorted by key; how many units were there already.
    Raises:
        ValueError: nothing could be made, or an unknown `on_error`.
        UnitError: with on_error "raise", the first failure.
    """
    check_on_error(on_error)
    by_key = {unit.key: unit for unit in units}
    todo = journal.start({key: unit.sources for key, unit in by_key.items()}, final=final)
    n_skipped = len(units) - len(todo)
    made: dict[str, dict[str, Any]] = {}
    failed: dict[str, list[Failure]] = {}
    outcomes = run([by_key[key] for key in todo], on_error=on_error, n_skipped=n_skipped, **settings)
    with closing(outcomes):  # so that an error ends the workers at once
        for unit, outcome in outcomes:
            if isinstance(outcome, Failure):
                failed[unit.key] = [outcome]
                continue
            made[unit.key] = outcome
            if parts := outcome.pop("failures", []):
                failed[unit.key] = parts
            else:
                journal.add(unit.key, outcome)
    if journal.file is not None:
        journal.write()
    failures = [*failures, *(failure for key in sorted(failed) for failure in failed[key])]
    write_failures(failures, journal.folder)
    if len(failed) == len(units) and failures and not any(entry["outputs"] for entry in made.values()):
        table = journal.folder / FAILURES_NAME
        raise ValueError(
            f"nothing could be made; {table} lists {len(failures)} failures, the first: {failures[0].error}"
        )
    return made, failures, n_skipped


def made_from(sources: Iterable[Path]) -> list[list]:
    """Which state of its sources a unit is made from: path, bytes and time of change in ns of each.

    Raises:
        OSError: one of them is not there.
    """
    states = []
    for source in sources:
        status = source.stat()
        states.append([str(source), status.st_size, status.st_mtime_ns])
    return states
