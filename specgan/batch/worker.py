"""The worker's side of a batch: does the units that it is sent, and answers."""

import logging
import os
import pickle
import secrets
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Generic, TypeVar

from specgan.batch.failures import Unit, UnitError

U = TypeVar("U", bound=Unit)
R = TypeVar("R")
Work = Callable[[Sequence[U]], Iterable[R | UnitError]]

_token = secrets.token_hex(8)  # dask's workers may have this process's id, on another machine


@dataclass(frozen=True)
class Answer(Generic[R]):
    """What a worker sends back.

    Args:
        outcomes: of the units, in their order; fewer where an error ended them.
        mistake: what `work` raised.
        messages: level and text of what was logged, if the worker is another process.
    """

    outcomes: list[R | UnitError]
    mistake: Exception | None = None
    messages: Sequence[tuple[int, str]] = ()


def here() -> tuple[str, int]:
    """Names this process, also among those of other machines."""
    return _token, os.getpid()


def do_units(units: Sequence[U], *, work: Work[U, R], stops: bool, sender: tuple[str, int]) -> Answer[R]:
    """On the worker: does the units; `stops`: up to the first UnitError."""
    if sender == here():
        return _answer(units, work, stops)
    with _collected_messages() as messages:
        answer = _answer(units, work, stops)
    try:
        pickle.dumps(answer)
    except Exception as err:  # dask would wait for it for ever
        answer = Answer([], err)
    return Answer(answer.outcomes, answer.mistake, messages)


def _answer(units: Sequence[U], work: Work[U, R], stops: bool) -> Answer[R]:
    outcomes: list[R | UnitError] = []
    try:
        for outcome in work(units):
            outcomes.append(outcome)
            if stops and isinstance(outcome, UnitError):
                return Answer(outcomes)
        if len(outcomes) != len(units):
            raise ValueError(f"work gave {len(outcomes)} outcomes for {len(units)} units")
    except Exception as err:
        return Answer(outcomes[: len(units) - 1], err)
    return Answer(outcomes)


@contextmanager
def _collected_messages() -> Iterator[list[tuple[int, str]]]:
    """Collects what this package logs in this thread: a worker's messages belong into the parent's log."""
    logger, thread = logging.getLogger("specgan"), threading.get_ident()
    messages: list[tuple[int, str]] = []

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
