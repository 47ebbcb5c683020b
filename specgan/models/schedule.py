"""How learning rates and the average of the generator go over a training, chosen from its length."""

from dataclasses import dataclass

import lightning as L
import torch
from lightning.pytorch.callbacks import Timer


@dataclass(frozen=True)
class Schedule:
    """The course of a training.

    Args:
        learning_rate: of both players at the start.
        decay_from: share of the training, 0..1, after which the learning rates fall linearly to 0 at its end; 1: they
            stay.
        ema_decay: decay per step of the moving average of the generator.
    """

    learning_rate: float
    decay_from: float
    ema_decay: float

    @classmethod
    def for_length(cls, n_steps: float, *, n_values: int) -> "Schedule":
        """The one that suits a training.

        Short trainings gain from large steps, long ones from small steps, and large spectrograms need smaller ones; all
        gain from rates that fall to 0. Measured, see docs/experiments.md.

        Args:
            n_steps: of the whole training; infinity: it has no end.
            n_values: of a spectrogram.
        """
        of_length = max(_HIGHEST * min(1.0, (_SHORT / max(n_steps, 1)) ** 0.5), _LOWEST)
        return cls(
            learning_rate=of_length * min(1.0, (_SIZE / n_values) ** 0.5),
            decay_from=0.25,
            ema_decay=min(max(1 - 10 / max(n_steps, 1), 0.99), 0.9998),
        )

    def __str__(self) -> str:
        fall = "" if self.decay_from == 1 else f", falling to 0 after {100 * self.decay_from:.0f} % of the training"
        return f"learning rate {self.learning_rate:.2g}{fall}; average of the generator: decay {self.ema_decay:.4g}"

    def scale(self, over: float) -> float:
        """What the learning rates are multiplied by when a share of the training, 0..1, is over."""
        return 1.0 if self.decay_from == 1 else min(1.0, (1 - over) / (1 - self.decay_from))


_SIZE = 64 * 64  # values of the spectrograms that these numbers were measured on
_SHORT = 4000  # steps up to which the highest rate is best
_LOWEST, _HIGHEST = 4e-4, 1.2e-3


def share_over(trainer: L.Trainer, batch_idx: int, *, device: torch.device) -> float:
    """The share of a training (its max_epochs or max_time) that is done, 0..1, the same in all processes."""
    over = 0.0
    if trainer.max_epochs and trainer.max_epochs > 0:
        over = (trainer.current_epoch + batch_idx / trainer.num_training_batches) / trainer.max_epochs
    for timer in trainer.callbacks:
        if isinstance(timer, Timer) and timer.time_remaining() is not None:
            elapsed_s = timer.time_elapsed()
            over = max(over, elapsed_s / (elapsed_s + max(0.0, timer.time_remaining())))
            if trainer.world_size > 1:  # each process has its own clock
                over = float(trainer.strategy.reduce(torch.tensor(over, device=device), reduce_op="mean"))
    return min(over, 1.0)
