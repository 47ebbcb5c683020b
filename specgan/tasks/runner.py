"""Runs a batch of work units: progress, failures, counts."""

import csv
import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from specgan.files import atomic_path

log = logging.getLogger(__name__)

FAILURES_NAME = "failures.csv"


class UnitError(Exception):
    """What went wrong with one file, and at which stage."""

    def __init__(self, stage: str, message: str) -> None:
        super().__init__(stage, message)
        self.stage, self.message = stage, message

    def __str__(self) -> str:
        return f"{self.stage}: {self.message}"


@contextmanager
def stage(name: str) -> Iterator[None]:
    """Turns any exception of the block into a UnitError that names the stage."""
    try:
        yield
    except Exception as err:
        raise UnitError(name, str(err) or type(err).__name__) from err


@dataclass(frozen=True)
class Failure:
    """One row of failures.csv."""

    path: str
    stage: str
    error: str


@dataclass
class Report:
    """What a task did.

    Args:
        n_done: files made in this run.
        n_skipped: files that were there already, made from the same source with the same settings.
        failures: files that could not be made.
        message: a line for people about what was made and where.
    """

    n_done: int = 0
    n_skipped: int = 0
    failures: list[Failure] = field(default_factory=list)
    message: str = ""

    def __str__(self) -> str:
        counts = f"{self.n_done} made, {self.n_skipped} already there, {len(self.failures)} failed"
        return f"{self.message} ({counts})"


class Unit(Protocol):
    """One piece of work; `source` is the file that messages name."""

    source: Path


def run_units(
    units: Sequence[Unit], work: Callable[[Unit], None], *, on_error: str, description: str
) -> Iterator[tuple[Unit, Failure | None]]:
    """Runs `work` on each unit and goes on past a bad one.

    Args:
        units: what `work` is called with, one by one.
        work: raises UnitError (see `stage`) for a unit that cannot be done.
        on_error: "skip" goes on past a bad unit, "raise" stops at the first.
        description: of the progress bar.
    Yields:
        Each unit with its Failure, or None.
    """
    check_on_error(on_error)
    if not units:
        return
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    with Progress(*columns, TimeElapsedColumn(), TimeRemainingColumn()) as progress:
        for unit in progress.track(units, description=description):
            try:
                work(unit)
            except UnitError as err:
                if on_error == "raise":
                    raise
                log.warning("skipped: %s", err.message)
                yield unit, Failure(str(unit.source), err.stage, err.message)
            else:
                yield unit, None


def check_on_error(on_error: str) -> None:
    """Raises ValueError for an unknown `on_error`; for tasks that write before their first unit."""
    if on_error not in ("skip", "raise"):
        raise ValueError(f"on_error is {on_error!r}; skip or raise")


def write_failures(failures: Sequence[Failure], folder: Path) -> None:
    """Writes `<folder>/failures.csv`, or removes an old one when nothing failed."""
    path = folder / FAILURES_NAME
    if not failures:
        path.unlink(missing_ok=True)
        return
    # surrogateescape: a file name need not be UTF-8
    with (
        atomic_path(path) as temporary,
        temporary.open("w", newline="", encoding="utf-8", errors="surrogateescape") as file,
    ):
        writer = csv.writer(file)
        writer.writerow(("path", "stage", "error"))
        writer.writerows((failure.path, failure.stage, failure.error) for failure in failures)
