"""Training that survives: checkpoints that appear whole or not at all, a clean stop, and losses that become NaN."""

import logging
import math
import os
import signal
import sys
import threading
import time
from collections import deque
from pathlib import Path
from types import FrameType
from typing import Any

import lightning as L
import torch
from lightning.fabric.plugins.io.torch_io import TorchCheckpointIO
from lightning.fabric.utilities.cloud_io import _is_local_file_protocol
from lightning.pytorch.callbacks import Checkpoint
from torch import Tensor

from specgan.files import atomic_path, write_json
from specgan.training.cadence import is_last

log = logging.getLogger(__name__)

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class WholeCheckpoints(TorchCheckpointIO):
    """Writes each checkpoint to a temporary file in the same folder, flushes it to the disk, and then renames it.

    A kill or a full disk in the middle leaves the previous checkpoint unchanged. (Lightning writes into the system's
    folder for temporary files, which may be on another disk: the move from there is a copy.)
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None) -> None:
        """Writes a checkpoint.

        Raises:
            OSError: it could not be written.
        """
        if not _is_local_file_protocol(path):
            super().save_checkpoint(checkpoint, path, storage_options)
            return
        try:
            with atomic_path(path) as temporary, temporary.open("wb") as file:
                torch.save(checkpoint, file)
                file.flush()
                os.fsync(file.fileno())
        except (OSError, RuntimeError) as err:  # RuntimeError: of PyTorch's writer when the disk is full
            raise OSError(
                f"{path}: the checkpoint could not be written ({str(err).splitlines()[0]}); is the disk full? "
                "A previous checkpoint is unchanged: free some space, and continue from it with ckpt_path"
            ) from err


def end_on_sigterm() -> None:
    """From now on SIGTERM ends the program with 143, unless the calling program handles it by itself.

    Without, Lightning would: it ends the training of the judge, and then the program with 0, as if all were done.
    """
    if threading.current_thread() is threading.main_thread() and signal.getsignal(signal.SIGTERM) == signal.SIG_DFL:
        signal.signal(signal.SIGTERM, _end)


def _end(number: int, frame: FrameType | None) -> None:
    log.warning("%s: ended", signal.Signals(number).name)
    sys.exit(128 + number)


class LastCheckpoint(Checkpoint):
    """Keeps the newest state of a training in one file, and stops cleanly on Ctrl-C or SIGTERM.

    The first signal ends the training after the current step, with a checkpoint from which it continues as if nothing
    had happened; a second one ends it at once. A state with weights that are not finite is not kept.

    Args:
        path: of the checkpoint.
        at_epoch_ends_s: seconds from one checkpoint to the next at the ends of epochs; the first and the
            last epoch are always kept.
        every_s: seconds after which one is also written in the middle of an epoch.
    """

    def __init__(self, path: str | Path, *, at_epoch_ends_s: float = 10.0, every_s: float = 600.0) -> None:
        for name, value in {"at_epoch_ends_s": at_epoch_ends_s, "every_s": every_s}.items():
            if value < 0:
                raise ValueError(f"{name} is {value}; at least 0 seconds")
        self.path, self.at_epoch_ends_s, self.every_s = Path(path), at_epoch_ends_s, every_s
        self.received: int | None = None
        self.is_training = False
        self.handlers: dict[int, Any] = {}

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        self.received, self.is_training = None, False
        for number in _SIGNALS:
            try:
                self.handlers[number] = signal.signal(number, self._receive)
            except ValueError:  # only the main thread may set handlers; the calling program handles signals
                break

    def teardown(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        while self.handlers:
            number, handler = self.handlers.popitem()
            if signal.getsignal(number) == self._receive:
                signal.signal(number, handler if handler is not None else signal.SIG_DFL)

    def _receive(self, number: int, frame: FrameType | None) -> None:
        if not self.is_training:
            _end(number, frame)
        if self.received is not None:
            raise KeyboardInterrupt
        self.received = number
        log.warning("%s: stopping after this step; send it again to stop at once", signal.Signals(number).name)

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.saved_at_s, self.is_training = time.monotonic(), True

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        is_due = time.monotonic() - self.saved_at_s >= self.every_s
        is_stopped = self.received is not None
        if trainer.world_size > 1:  # all must agree, because saving needs all of them
            flags = torch.tensor([is_due, is_stopped], dtype=torch.float32, device=pl_module.device)
            is_due, is_stopped = (trainer.strategy.reduce(flags, reduce_op="sum") > 0).tolist()
        if is_due or is_stopped:
            self._save(trainer, pl_module)
        if is_stopped:
            raise KeyboardInterrupt  # Lightning ends the training and the process

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        is_needed = is_last(trainer) or not self.path.is_file()
        is_due = is_needed or time.monotonic() - self.saved_at_s >= self.at_epoch_ends_s
        is_stopped = trainer.strategy.reduce_boolean_decision(self.received is not None, all=False)
        if is_stopped or trainer.strategy.reduce_boolean_decision(is_due, all=False):  # all must agree here too
            self._save(trainer, pl_module)
        if is_stopped:
            raise KeyboardInterrupt

    def on_exception(self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException) -> None:
        if isinstance(exception, SystemExit) and self.received is not None:
            exception.code = 128 + self.received  # Lightning's, of a signal between two epochs, has 0

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.is_training = False

    def _save(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if not all(bool(parameter.isfinite().all()) for parameter in pl_module.parameters()):
            log.warning("%s: not written, because some weights are not finite", self.path)
            return
        trainer.save_checkpoint(self.path, weights_only=False)  # optimizers and loops too
        self.saved_at_s = time.monotonic()


class NotANumberGuard(L.Callback):
    """Ends a training whose losses have become NaN or infinite, or takes it back to the last good checkpoint.

    The scalars of the last steps go to `history`, to show what led to it.

    Args:
        checkpoint: path of the one that LastCheckpoint writes.
        history: path of a JSON file, a list of {n_steps, <scalar>: value or null}, the last steps.
        on_nan: "stop", or "rollback": restore weights and optimizers from the checkpoint and halve the learning rates.
        every_n_steps: steps from one check to the next: each waits for the GPU. The end of an epoch is checked too.
        n_kept: steps in the history.
        most_rollbacks: a training that needs more is stopped.
    Raises:
        FloatingPointError: a loss is not finite, and the training is not rolled back.
    """

    def __init__(
        self,
        checkpoint: str | Path,
        history: str | Path,
        *,
        on_nan: str = "stop",
        every_n_steps: int = 10,
        n_kept: int = 20,
        most_rollbacks: int = 5,
    ) -> None:
        if on_nan not in ("stop", "rollback"):
            raise ValueError(f"on_nan is {on_nan!r}; stop or rollback")
        if every_n_steps < 1:
            raise ValueError(f"every_n_steps is {every_n_steps}; at least 1")
        self.checkpoint, self.history = Path(checkpoint), Path(history)
        self.on_nan, self.every_n_steps, self.most_rollbacks = on_nan, every_n_steps, most_rollbacks
        self.steps: deque[tuple[int, dict[str, Tensor]]] = deque(maxlen=max(n_kept, every_n_steps))
        self.n_rollbacks = 0

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self.steps.append((pl_module.n_steps, outputs))
        if pl_module.n_steps % self.every_n_steps == 0 or batch_idx + 1 == trainer.num_training_batches:
            self._check(trainer, pl_module)

    def _check(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        values = torch.stack([value.float() for _, scalars in self.steps for value in scalars.values()])
        is_bad = not bool(values.isfinite().all())
        if not trainer.strategy.reduce_boolean_decision(is_bad, all=False):
            return
        names = self._write_history(trainer)
        fault = f"{', '.join(names) or 'a loss of another process'} not finite after {pl_module.n_steps} steps"
        self.steps.clear()
        if self.on_nan == "rollback" and self.checkpoint.is_file() and self.n_rollbacks < self.most_rollbacks:
            self.n_rollbacks += 1
            self._roll_back(trainer, pl_module)
            log.warning(
                "%s: back to the weights of %s, learning rates halved (%d of at most %d times)",
                *(fault, self.checkpoint, self.n_rollbacks, self.most_rollbacks),
            )
            return
        last = f"; the last good checkpoint is {self.checkpoint}" if self.checkpoint.is_file() else ""
        way_out = "" if self.on_nan == "rollback" else " or callbacks.guard.on_nan=rollback"
        raise FloatingPointError(
            f"{fault}: the steps before are in {self.history}{last}. Try a lower model.optimizer_g.lr, "
            f"trainer.precision=32-true{way_out}"
        )

    def _write_history(self, trainer: L.Trainer) -> list[str]:
        """Returns the names of the scalars that are not finite."""
        steps = [(n_steps, {name: float(value) for name, value in scalars.items()}) for n_steps, scalars in self.steps]
        if trainer.is_global_zero:
            known = [
                {
                    "n_steps": n_steps,
                    **{name: value if math.isfinite(value) else None for name, value in scalars.items()},
                }
                for n_steps, scalars in steps
            ]
            write_json(self.history, known, indent=1)
        return sorted({name for _, scalars in steps for name, value in scalars.items() if not math.isfinite(value)})

    def _roll_back(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        kept = trainer.strategy.checkpoint_io.load_checkpoint(self.checkpoint, weights_only=True)
        pl_module.load_state_dict(kept["state_dict"])
        for optimizer, state in zip(trainer.optimizers, kept["optimizer_states"], strict=True):
            optimizer.load_state_dict(state)
        pl_module.rate_scale *= 0.5
