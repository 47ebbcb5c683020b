"""What a task has done so far, kept on disk so that a killed run goes on where it stopped."""

import json
import re
from collections import defaultdict
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Generic, Protocol, TextIO, TypeVar

from specgan.batch.failures import FAILURES_NAME, Failure, Unit, is_table_of_failures, write_failures
from specgan.files import atomic_path, remove_files, require_free

JOURNAL_NAME = ".journal.jsonl"

State = list[str | int]  # of a file: path, bytes and time of change in ns
E = TypeVar("E", bound=Mapping[str, object])  # an entry: `made_from`, `outputs`, and what the task wants to keep


class Journal(Generic[E]):
    """A file of one JSON object per line: first the settings, then keys of units begun, and the entries of units done.

    Lines are appended; a last line that a killed run left half-written is ignored.

    Args:
        folder: of the outputs; the journal is a hidden file in it.
        settings: what the outputs are made with, by name; values of JSON's types. Outputs of other settings are stale.
        name: of the file. Tasks that may share a folder have journals of different names.
        endings: regular expression for what follows a unit's key in the paths of its outputs. Files of this form that a
            killed run left are removed. None: nothing is searched for.
        tables: files that the task writes beside the outputs. They are its own once there is a journal.
        stays_removed: outputs that were removed or moved since are not made again, unless their unit is.
    """

    def __init__(
        self,
        folder: Path,
        settings: Mapping[str, object] | None = None,
        *,
        name: str = JOURNAL_NAME,
        endings: str | None = None,
        tables: Sequence[str] = (),
        stays_removed: bool = False,
    ) -> None:
        self.endings = None if endings is None else re.compile(endings)
        self.folder, self.path, self.tables = folder, folder / name, tables
        self.stays_removed = stays_removed
        self.settings = json.loads(json.dumps(settings or {}))  # as they will be read again: tuples are lists
        self.file: TextIO | None = None
        self.entries: dict[str, E] = {}
        self.begun: set[str] = set()  # and neither done nor given up, when the run ended
        self.is_outdated = False  # made with other settings
        if self.path.exists():
            with self.path.open(
                encoding="utf-8", errors="replace"
            ) as lines:  # one at a time: of a million clips they are long
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
        """Removes what is stale, notes that work begins, and returns the keys of the units that are to be made.

        Args:
            sources: the files that each unit is made from, by key. An entry needs `made_from`, see the function of that
                name, and `outputs`, paths in the folder; a path of several units stays as long as one of them does.
            final: a file that says that the folder is complete: it is removed before anything else.
        Raises:
            ValueError: as `require_free`.
        """
        self.require_free(sources)
        exists = cache(lambda path: (self.folder / path).exists())  # of many units one output may be the same
        stale = [key for key, files in sources.items() if self.is_outdated or not self._is_fresh(key, files, exists)]
        if not stale and set(sources) == set(self.entries) and not self.begun:
            return []
        if final is not None:
            final.unlink(missing_ok=True)
        fresh = set(sources) - set(stale)
        gone = {*self.entries, *self.begun} - fresh
        kept = {path for key in fresh for path in outputs_of(self.entries[key])}  # `a_0001` may be a unit, and a slice
        remove_files(set(self._outputs(gone)) - kept, self.folder)
        for key in gone:
            self.entries.pop(key, None)
        self.begun.clear()
        self.begin(stale)
        return stale

    def require_free(self, keys: Iterable[str]) -> None:
        """Checks the places of the units' outputs, and those of the tables.

        Raises:
            ValueError: a file is in the way that no earlier run wrote.
        """
        new = set(keys) - self.entries.keys() - self.begun
        paths = [*self._fitting(new), *(() if self.path.exists() else self.tables)]
        if not is_table_of_failures(self.folder / FAILURES_NAME):
            paths.append(FAILURES_NAME)
        require_free(self.folder, paths, ours=set(self._outputs({*self.entries, *self.begun})) if paths else ())

    def begin(self, keys: Iterable[str]) -> None:
        """Forgets the entries of the keys, if any, and notes that work on them begins."""
        keys = list(keys)
        for key in keys:
            self.entries.pop(key, None)
        self.write([*self.begun, *keys])
        self.file = self.path.open("a", buffering=1, encoding="utf-8")  # a line at a time

    def add(self, key: str, entry: E) -> None:
        """Notes that a unit is done. The entry is of JSON's types."""
        self.entries[key] = entry
        self.file.write(json.dumps({"key": key, **entry}) + "\n")

    def write(self, begun: Iterable[str] = ()) -> None:
        """Writes the file anew, in the order of the keys: it does not show in which order units were done."""
        if self.file is not None:
            self.file.close()
            self.file = None
        with atomic_path(self.path) as temporary, temporary.open("w", encoding="utf-8") as file:
            file.write(json.dumps({"settings": self.settings}) + "\n")
            if begun := sorted(begun):
                file.write(json.dumps({"begun": begun}) + "\n")
            for key in sorted(self.entries):
                file.write(json.dumps({"key": key, **self.entries[key]}) + "\n")

    def _is_fresh(self, key: str, sources: Sequence[Path], exists: Callable[[str], bool]) -> bool:
        """Whether the unit's outputs exist, or may be missing, and were made from its sources as they are now."""
        entry = self.entries.get(key)
        try:
            if entry is None or entry["made_from"] != made_from(sources):
                return False
        except OSError:
            return False
        return self.stays_removed or all(exists(path) for path in outputs_of(entry))

    def _outputs(self, keys: Iterable[str]) -> Iterator[str]:
        """The files of units, also of those that a killed run was working on."""
        unfinished = []
        for key in keys:
            if key in self.entries:
                yield from outputs_of(self.entries[key])
            else:
                unfinished.append(key)
        yield from self._fitting(unfinished)
        for folder in {key.rpartition("/")[0] for key in unfinished}:
            yield f"{folder}/.partial".lstrip("/")  # no such file: so that half-written files are removed there

    def _fitting(self, keys: Iterable[str]) -> Iterator[str]:
        """The files in the folder that have the form of outputs of the units."""
        by_folder: dict[str, set[str]] = defaultdict(set)
        for key in keys if self.endings else ():
            folder, _, name = key.rpartition("/")
            by_folder[folder].add(name)
        for folder, names in by_folder.items():
            for path in (self.folder / folder).glob("*"):
                cuts = range(1, len(path.name))  # `a_0001.png` may be of the unit a, or of a_0001
                if any(path.name[:cut] in names and self.endings.fullmatch(path.name, cut) for cut in cuts):
                    yield f"{folder}/{path.name}".lstrip("/")


class Resumable(Unit, Protocol):
    """A unit with a key of its own, and the files that it is made from."""

    @property
    def key(self) -> str: ...
    @property
    def sources(self) -> Sequence[Path]: ...


U = TypeVar("U", bound=Resumable)
E_co = TypeVar("E_co", bound=Mapping[str, object], covariant=True)


@dataclass(frozen=True)
class Partly(Generic[E_co]):
    """What was made of a unit some parts of which failed: it counts as unfinished, and the next run makes it again."""

    entry: E_co
    failures: Sequence[Failure]


class Run(Protocol[U, E_co]):
    """`Batch.run` with its `work`, or what does the same elsewhere."""

    def __call__(self, units: Sequence[U], *, n_skipped: int) -> Generator[tuple[U, E_co | Partly[E_co] | Failure]]: ...


def run_missing(
    journal: Journal[E],
    units: Sequence[U],
    run: Run[U, E],
    *,
    final: Path | None = None,
    failures: Sequence[Failure] = (),
) -> tuple[dict[str, E], list[Failure], int]:
    """Does a task's work on the units whose outputs are missing or stale, notes what is done, writes failures.csv.

    Args:
        journal: of the task.
        units: each with a key that no other has.
        run: does units; the result of each is its entry for the journal.
        final: see Journal.start.
        failures: of files that did not become units.
    Returns:
        the entries of what was made in this run, by key; all failures, sorted by key; how many units were skipped.
    Raises:
        ValueError: nothing could be made; or a file is in the way that no earlier run wrote, and nothing was done.
        UnitError: the first failure, where `run` raises it.
    """
    by_key = {unit.key: unit for unit in units}
    todo = journal.start({key: unit.sources for key, unit in by_key.items()}, final=final)
    n_skipped = len(units) - len(todo)
    made: dict[str, E] = {}
    failed: dict[str, Sequence[Failure]] = {}
    unfinished: list[str] = []
    outcomes = run([by_key[key] for key in todo], n_skipped=n_skipped)
    with closing(outcomes):  # so that an error ends the workers at once
        for unit, outcome in outcomes:
            if isinstance(outcome, Failure):
                failed[unit.key] = [outcome]
            elif isinstance(outcome, Partly):
                made[unit.key], failed[unit.key] = outcome.entry, outcome.failures
                unfinished.append(unit.key)
            else:
                made[unit.key] = outcome
                journal.add(unit.key, outcome)
    if journal.file is not None:
        journal.write(begun=unfinished)
    failures = [*failures, *(failure for key in sorted(failed) for failure in failed[key])]
    write_failures(failures, journal.folder)
    if len(failed) == len(units) and failures and not any(outputs_of(entry) for entry in made.values()):
        table = journal.folder / FAILURES_NAME
        raise ValueError(
            f"nothing could be made; {table} lists {len(failures)} failures, the first: {failures[0].error}"
        )
    return made, failures, n_skipped


def outputs_of(entry: Mapping[str, object]) -> list[str]:
    """The paths of a unit's outputs in the folder."""
    outputs = entry["outputs"]
    assert isinstance(outputs, list)  # as the tasks make them, and as Journal reads them
    return outputs


def made_from(sources: Iterable[Path]) -> list[State]:
    """The state of its sources that a unit is made from: path, bytes and time of change in ns of each.

    Raises:
        OSError: one of them does not exist.
    """
    states: list[State] = []
    for source in sources:
        status = source.stat()
        states.append([str(source), status.st_size, status.st_mtime_ns])
    return states
