"""At the ends of which epochs something is done that costs time: by number, or by a share of the time."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

import lightning as L
from lightning.pytorch.callbacks import Timer

_RARER = 1.25  # the times since the start grow by this factor at least


class Cadence:
    """Says when something is due, and measures what it costs. At the end of the training it is always due.

    By time, it is first due within `first_s`, or after the first epoch if that takes longer. Then it becomes ever
    rarer, and due only while `share` covers it and once more at the end: a short training may take more than its share,
    for the first and the last time. A run that goes on counts from its own start. The first process decides for all.

    Args:
        every_n_epochs: epochs from one to the next, on every machine; None: by time.
        share: of the time since the start that it may take, over 0 and at most 1; by time only.
        first_s: seconds from the start to the first one; by time only.
    Raises:
        ValueError: an impossible setting.
    """

    def __init__(self, every_n_epochs: int | None, *, share: float, first_s: float) -> None:
        if every_n_epochs is not None and every_n_epochs < 1:
            raise ValueError(f"every_n_epochs is {every_n_epochs}; at least 1, or null: by time")
        if not 0 < share <= 1:
            raise ValueError(f"share is {share}; more than 0 and at most 1")
        self.every_n_epochs, self.share, self.first_s = every_n_epochs, share, first_s
        self.start()

    def start(self) -> None:
        """To be called when the training starts."""
        self.start_s = time.monotonic()
        self.epoch_end_s = self.longest_epoch_s = 0.0  # as all below, since the start
        self.spent_s = self.cost_s = 0.0  # on all so far, and on the last one
        self.last_s: float | None = None  # when the last one was due

    def is_due(self, trainer: L.Trainer) -> bool:
        """Whether it is due at the end of this epoch; to be asked once at the end of each, by all processes."""
        if self.every_n_epochs is None:
            is_time = trainer.strategy.broadcast(
                self._is_time() and not self._ends_meanwhile(trainer) if trainer.is_global_zero else None
            )
        else:
            is_time = (trainer.current_epoch + 1) % self.every_n_epochs == 0
        return is_time or is_last(trainer)

    def _is_time(self) -> bool:
        now_s = time.monotonic() - self.start_s
        self.longest_epoch_s = max(self.longest_epoch_s, now_s - self.epoch_end_s)
        self.epoch_end_s = now_s
        if self.last_s is None:
            return now_s + self.longest_epoch_s > self.first_s
        at_the_end = self.spent_s + 2 * self.cost_s  # this one and the last one
        return now_s >= _RARER * self.last_s and at_the_end <= self.share * now_s

    def _ends_meanwhile(self, trainer: L.Trainer) -> bool:
        """Whether the time of the training would be over after it or one more epoch, so that it would be done twice."""
        times = [callback.time_remaining() for callback in trainer.callbacks if isinstance(callback, Timer)]
        return any(left_s is not None and left_s < self.cost_s + self.longest_epoch_s for left_s in times)

    @contextmanager
    def timed(self) -> Iterator[None]:
        """Around what is due."""
        begin_s = time.monotonic()
        yield
        self.cost_s = time.monotonic() - begin_s
        self.last_s, self.spent_s = begin_s - self.start_s, self.spent_s + self.cost_s


def is_last(trainer: L.Trainer) -> bool:
    """Whether the training ends with this epoch."""
    return trainer.should_stop or trainer.current_epoch + 1 == trainer.max_epochs
