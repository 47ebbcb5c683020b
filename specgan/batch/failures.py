"""What could not be done: while it is under way, in the log, and in failures.csv."""

import csv
import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from specgan.files import atomic_path

log = logging.getLogger(__name__)

FAILURES_NAME = "failures.csv"

_COLUMNS = ("path", "stage", "error")


class Unit(Protocol):
    """One piece of work; `source` is the file that messages name."""

    @property
    def source(self) -> Path: ...


class UnitError(Exception):
    """What went wrong with one file, and at which stage."""

    def __init__(self, stage: str, message: str) -> None:
        super().__init__(stage, message)
        self.stage, self.message = stage, message

    def __str__(self) -> str:
        return f"{self.stage}: {self.message}"


@contextmanager
def stage(name: str) -> Iterator[None]:
    """Turns any exception of the block into a UnitError that names the stage; a UnitError keeps its own stage."""
    try:
        yield
    except UnitError:
        raise
    except Exception as err:
        raise UnitError(name, str(err) or type(err).__name__) from err


@dataclass(frozen=True)
class Failure:
    """One row of failures.csv."""

    path: str
    stage: str
    error: str


def failure_of(unit: Unit, err: UnitError, on_error: str) -> Failure:
    """Logs a bad unit and gives its row of failures.csv; with on_error "raise" raises the error instead."""
    if on_error == "raise":
        raise err
    log.warning("skipped: %s", err.message)
    return Failure(str(unit.source), err.stage, err.message)


def check_on_error(on_error: str) -> None:
    """Raises ValueError for an unknown `on_error`."""
    if on_error not in ("skip", "raise"):
        raise ValueError(f"on_error is {on_error!r}; skip or raise")


def is_table_of_failures(path: Path) -> bool:
    """Whether a file is one that `write_failures` wrote; several tasks may share a folder, and its failures.csv."""
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return file.readline(100).strip() == ",".join(_COLUMNS).encode()


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
        writer.writerow(_COLUMNS)
        writer.writerows((failure.path, failure.stage, failure.error) for failure in failures)
