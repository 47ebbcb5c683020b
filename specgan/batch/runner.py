"""Runs a batch of work units: progress, failures, counts."""

import csv
import logging
import math
import os
import pickle
import secrets
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, BrokenExecutor, Executor, Future, wait
from contextlib import AbstractContextManager, closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.text import Text

from specgan.files import atomic_path

log = logging.getLogger(__name__)

FAILURES_NAME = "failures.csv"
_MOST_UNITS = 32  # sent to a worker at a time
_MOST_DEATHS = 5  # of workers in a row, before the fault is sought elsewhere than in the units
_NOT_SENT = (pickle.PicklingError, TypeError, AttributeError)  # by pickle: `work` or its outcomes cannot go to a worker

_token = secrets.token_hex(8)  # dask's workers may have this process's id, on another machine


class UnitError(Exception):
    """What went wrong with one file, and at which stage."""

    def __init__(self, stage: str, message: str) -> None:
        super().__init__(stage, message)
        self.stage, self.message = stage, message

    def __str__(self) -> str:
        return f"{self.stage}: {self.message}"


@contextmanager
def stage(name: str) -> Iterator[None]:
    """Turns any exception of the block into a UnitError that names the stage; one that has a stage keeps it."""
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

    @property
    def source(self) -> Path: ...


def run_units(
    units: Sequence[Unit],
    work: Callable[[Sequence[Unit]], Iterable[Any]],
    *,
    executor: Callable[[], AbstractContextManager[Executor]],
    on_error: str,
    description: str,
    n_skipped: int = 0,
    chunk: int | None = None,
) -> Generator[tuple[Any, Any]]:
    """Runs `work` on each unit, on the workers of an executor, and goes on past a bad one.

    A unit that kills its worker (a decoder that crashes, memory that runs out) is found and fails alone: the units that
    were under way are tried again one by one, on a new executor.

    Args:
        units: what is to be done; the order of the results is the executor's.
        work: does a few units, and gives for each of them, in their order, what it made or the UnitError (see `stage`)
            of one that cannot be done. It is sent to the workers: a function of a module, or a functools.partial.
        executor: opens the executor, see tasks.executors.
        on_error: "skip" goes on past a bad unit, "raise" stops at the first.
        description: of the progress bar.
        n_skipped: units that were done before, for the progress bar.
        chunk: how many units `work` does at a time; None: as many as keep all workers busy.
    Yields:
        Each unit with what `work` made of it, or with its Failure.
    Raises:
        UnitError: with on_error "raise".
        Exception: what `work` raised: a mistake in it, not in a unit.
    """
    check_on_error(on_error)
    if not units:
        return
    n_failed = 0
    outcomes = _run_all(units, work, executor, on_error, chunk)
    with (
        _progress_bar(description, n_done=n_skipped, n_total=n_skipped + len(units)) as show,
        closing(outcomes),  # so that an error ends the workers at once
    ):
        for unit, outcome in outcomes:
            if isinstance(outcome, UnitError):
                outcome = failure_of(unit, outcome, on_error)
                n_failed += 1
            elif isinstance(outcome, Exception):
                raise outcome
            show(n_failed)
            yield unit, outcome


def one_by_one(units: Sequence[Unit], *, make: Callable[[Unit], Any]) -> Iterator[Any]:
    """Work for `run_units` of units that are made each by itself: what `make` gives, or the UnitError it raises."""
    for unit in units:
        try:
            yield make(unit)
        except UnitError as err:
            yield err


def failure_of(unit: Unit, err: UnitError, on_error: str) -> Failure:
    """Logs a bad unit and gives its row of failures.csv; with on_error "raise" raises the error instead."""
    if on_error == "raise":
        raise err
    log.warning("skipped: %s", err.message)
    return Failure(str(unit.source), err.stage, err.message)


def _run_all(
    units: Sequence[Unit],
    work: Callable,
    executor: Callable[[], AbstractContextManager[Executor]],
    on_error: str,
    chunk: int | None,
) -> Generator[tuple[Unit, Any]]:
    """Yields each unit with what `work` gave for it."""
    left, n_deaths = deque(units), 0
    suspects: deque[Unit] = deque()
    while left or suspects:
        with executor() as pool:
            while suspects:  # one at a time, so that the culprit is known
                unit = suspects.popleft()
                try:
                    outcomes = _answer(pool.submit(_run_chunk, work, [unit], on_error, _here()))
                except _NOT_SENT:
                    raise
                except Exception as err:
                    n_deaths += 1
                    if n_deaths == _MOST_DEATHS:
                        raise RuntimeError(f"{n_deaths} workers in a row died; executor=serial may show why") from err
                    yield unit, UnitError("worker", f"{unit.source}: the worker that had it died ({err!r})")
                    break  # out of this executor, which may be broken
                n_deaths = 0
                yield unit, outcomes[0]
            else:
                yield from _run_in_chunks(pool, left, suspects, work, on_error, chunk)


def _run_in_chunks(
    pool: Executor, left: deque[Unit], suspects: deque[Unit], work: Callable, on_error: str, chunk: int | None
) -> Iterator[tuple[Unit, Any]]:
    """Empties `left`; after the death of a worker, only what was under way, and `suspects` has what is lost of it."""
    n_workers = getattr(pool, "n_workers", os.cpu_count())
    size = chunk or min(_MOST_UNITS, math.ceil(len(left) / (4 * n_workers)))
    most_chunks = 1 if n_workers == 1 else 2 * n_workers  # one at work and one waiting for each worker
    running: dict[Future, list[Unit]] = {}
    while running or (left and not suspects):
        while left and not suspects and len(running) < most_chunks:
            sent = [left.popleft() for _ in range(min(size, len(left)))]
            try:
                running[pool.submit(_run_chunk, work, sent, on_error, _here())] = sent
            except BrokenExecutor:
                suspects.extend(sent)
        for future in wait(running, return_when=FIRST_COMPLETED).done:
            sent = running.pop(future)
            try:
                outcomes = _answer(future)
            except Exception:  # of the executor: those of `work` are among the outcomes
                suspects.extend(sent)
            else:
                yield from zip(sent, outcomes, strict=False)  # fewer outcomes where an error ended them


def _answer(future: Future) -> list[Any]:
    outcomes, messages = future.result()
    for level, message in messages:
        log.log(level, "%s", message)
    return outcomes


def _here() -> tuple[str, int]:
    return _token, os.getpid()


def _run_chunk(
    work: Callable[[Sequence[Unit]], Iterable[Any]], units: Sequence[Unit], on_error: str, parent: tuple[str, int]
) -> tuple[list[Any], list[tuple[int, str]]]:
    """On the worker: the outcomes, and what was logged if the worker is another process than the parent."""
    if parent == _here():
        return _outcomes(work, units, on_error), []
    with _collected_messages() as messages:
        outcomes = _outcomes(work, units, on_error)
    try:
        pickle.dumps(outcomes)
    except Exception as err:  # dask would wait for them for ever
        outcomes = [err]
    return outcomes, messages


def _outcomes(work: Callable[[Sequence[Unit]], Iterable[Any]], units: Sequence[Unit], on_error: str) -> list[Any]:
    """What `work` gave for each unit, or in the last place what it raised."""
    outcomes: list[Any] = []
    try:
        for outcome in work(units):
            outcomes.append(outcome)
            if on_error == "raise" and isinstance(outcome, UnitError):
                return outcomes
        if len(outcomes) != len(units):
            raise ValueError(f"work gave {len(outcomes)} outcomes for {len(units)} units")
    except Exception as err:
        outcomes[len(units) - 1 :] = [err]
    return outcomes


@contextmanager
def _collected_messages() -> Iterator[list[tuple[int, str]]]:
    """Collects what this package logs in this thread: a worker's messages belong into the parent's log."""
    logger, thread, messages = logging.getLogger("specgan"), threading.get_ident(), []

    class Collector(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if record.thread == thread:
                messages.append((record.levelno, record.getMessage()))

    collector, propagate = Collector(), logger.propagate
    logger.addHandler(collector)
    logger.propagate = False
    try:
        yield messages
    finally:
        logger.removeHandler(collector)
        logger.propagate = propagate


class _CountsColumn(ProgressColumn):
    """Units a second, and how many were there before or failed."""

    def render(self, task: Task) -> Text:
        rate = [f"{task.speed:.0f}/s"] if task.speed else []
        there = [f"{task.fields['n_there']} there"] if task.fields["n_there"] else []
        return Text(", ".join([*rate, *there, f"{task.fields['n_failed']} failed"]))


@contextmanager
def _progress_bar(description: str, *, n_done: int, n_total: int) -> Iterator[Callable[[int], None]]:
    """Yields what advances the bar by one unit, given the number of failures so far."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), _CountsColumn())
    with Progress(*columns, TimeElapsedColumn(), TimeRemainingColumn(), console=Console(stderr=True)) as progress:
        bar = progress.add_task(description, completed=n_done, total=n_total, n_there=n_done, n_failed=0)

        def show(n_failed: int) -> None:
            progress.update(bar, advance=1, n_failed=n_failed)

        yield show


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
