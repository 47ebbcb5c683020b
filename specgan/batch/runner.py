"""Runs a batch of work units: on workers, with a progress bar, and past bad units."""

import logging
import math
import os
import pickle
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, BrokenExecutor, Executor, Future, wait
from contextlib import AbstractContextManager, closing
from dataclasses import dataclass, field
from functools import partial
from typing import Generic, TypeVar

from specgan.batch.failures import Failure, Unit, UnitError, check_on_error, failure_of
from specgan.batch.progress import progress_bar
from specgan.batch.worker import Answer, Work, do_units, here

log = logging.getLogger(__name__)

_MOST_UNITS = 32  # sent to a worker at a time
_MOST_DEATHS = 5  # of workers in a row, before the fault is sought elsewhere than in the units
_NOT_SENT = (pickle.PicklingError, TypeError, AttributeError)  # by pickle: `work` or its outcomes cannot go to a worker


@dataclass
class Report:
    """What a task did.

    Args:
        n_done: files made in this run.
        n_skipped: files made before, from the same source with the same settings.
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


T = TypeVar("T")
U = TypeVar("U", bound=Unit)
R = TypeVar("R")
OpenExecutor = Callable[[], AbstractContextManager[Executor]]


@dataclass(frozen=True)
class Batch:
    """How a task does its units.

    Args:
        executor: opens the workers, see batch.executors.
        on_error: "skip" goes on past a bad unit, "raise" stops at the first.
        description: of the progress bar.
    Raises:
        ValueError: an unknown `on_error`.
    """

    executor: OpenExecutor
    on_error: str
    description: str

    def __post_init__(self) -> None:
        check_on_error(self.on_error)

    def run(
        self, units: Sequence[U], work: Work[U, R], *, n_skipped: int = 0, chunk: int | None = None
    ) -> Generator[tuple[U, R | Failure]]:
        """Runs `work` on each unit, on the workers of the executor.

        A unit that kills its worker (a decoder that crashes, memory that runs out) is found and fails alone: the units
        that were under way are tried again one by one, on a new executor.

        Args:
            units: what is to be done; the order of the results is the executor's.
            work: does a few units, and gives for each of them, in their order, its result, or the UnitError (see
                `stage`) of one that cannot be done. It is sent to the workers: a function of a module, or a
                functools.partial.
            n_skipped: units that were done before, for the progress bar.
            chunk: how many units `work` does at a time; None: as many as keep all workers busy.
        Yields:
            Each unit with its result, or with its Failure.
        Raises:
            UnitError: with on_error "raise".
            Exception: what `work` raised: a mistake in it, not in a unit.
        """
        if not units:
            return
        n_failed = 0
        job = partial(do_units, work=work, stops=self.on_error == "raise", sender=here())
        outcomes = _Queue(units, job, chunk).outcomes(self.executor)
        with (
            progress_bar(self.description, n_done=n_skipped, n_total=n_skipped + len(units)) as advance,
            closing(outcomes),  # so that an error ends the workers at once
        ):
            for unit, outcome in outcomes:
                result = failure_of(unit, outcome, self.on_error) if isinstance(outcome, UnitError) else outcome
                n_failed += isinstance(outcome, UnitError)
                advance(n_failed)
                yield unit, result


def one_by_one(units: Iterable[T | UnitError], *, make: Callable[[T], R]) -> Iterator[R | UnitError]:
    """Yields what `make` gives for each unit, or the UnitError that it raises; a UnitError among the units stays."""
    for unit in units:
        try:
            yield unit if isinstance(unit, UnitError) else make(unit)
        except UnitError as err:
            yield err


class _Queue(Generic[U, R]):
    """Units that wait for their turn; after the death of a worker, its units are `suspects`."""

    def __init__(self, units: Sequence[U], job: Callable[[Sequence[U]], Answer[R]], chunk: int | None) -> None:
        self.left, self.suspects = deque(units), deque[U]()
        self.job, self.chunk = job, chunk
        self.n_deaths = 0  # in a row

    def outcomes(self, executor: OpenExecutor) -> Generator[tuple[U, R | UnitError]]:
        """Yields each unit with its result, on as many executors as break."""
        while self.left or self.suspects:
            with executor() as pool:
                is_whole = yield from self._alone(pool)
                if is_whole:
                    yield from self._in_chunks(pool)

    def _alone(self, pool: Executor) -> Generator[tuple[U, R | UnitError], None, bool]:
        """Does the suspects one at a time, so that the culprit is known; returns whether the pool survived them."""
        while self.suspects:
            unit = self.suspects.popleft()
            try:
                answer = pool.submit(self.job, [unit]).result()
            except _NOT_SENT:
                raise
            except Exception as err:
                self.n_deaths += 1
                if self.n_deaths == _MOST_DEATHS:
                    message = f"{self.n_deaths} workers in a row died; executor=serial may show why"
                    raise RuntimeError(message) from err
                yield unit, UnitError("worker", f"{unit.source}: the worker that had it died ({err!r})")
                return False
            self.n_deaths = 0
            yield from _told([unit], answer)
        return True

    def _in_chunks(self, pool: Executor) -> Iterator[tuple[U, R | UnitError]]:
        """Does all that is left; after the death of a worker, only what is under way."""
        n_workers = getattr(pool, "n_workers", os.cpu_count())
        size = self.chunk or min(_MOST_UNITS, math.ceil(len(self.left) / (4 * n_workers)))
        most_chunks = 1 if n_workers == 1 else 2 * n_workers  # one at work and one waiting for each worker
        running: dict[Future[Answer[R]], list[U]] = {}
        while running or (self.left and not self.suspects):
            while self.left and not self.suspects and len(running) < most_chunks:
                sent = [self.left.popleft() for _ in range(min(size, len(self.left)))]
                try:
                    running[pool.submit(self.job, sent)] = sent
                except BrokenExecutor:
                    self.suspects.extend(sent)
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                sent = running.pop(future)
                try:
                    answer = future.result()
                except Exception:  # of the executor: those of `work` are in the answer
                    self.suspects.extend(sent)
                else:
                    yield from _told(sent, answer)


def _told(units: Sequence[U], answer: Answer[R]) -> Iterator[tuple[U, R | UnitError]]:
    """Logs a worker's messages here, yields its outcomes, and raises its mistake."""
    for level, message in answer.messages:
        log.log(level, "%s", message)
    yield from zip(units, answer.outcomes, strict=False)
    if answer.mistake is not None:
        raise answer.mistake
