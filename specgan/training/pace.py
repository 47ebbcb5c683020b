"""How far and how fast training is: logged every epoch, and shown."""

import time
from datetime import timedelta

import lightning as L
import torch
from lightning.pytorch.callbacks import RichProgressBar, Timer
from torch import Tensor


class Pace(L.Callback):
    """Logs how far and how fast training is, every epoch: `epoch`, `n_steps` and `train/examples_per_s`.

    `epoch` is the axis of the dashboards. It counts from 1, as previews and curve.json do, where Lightning's own counts
    from 0. The speed is that of all processes together, without what callbacks do at the end of an epoch.
    """

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._begin()  # a run that goes on in the middle of an epoch is not told of its start

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._begin()

    def _begin(self) -> None:
        self.n_examples, self.start_s = 0, time.monotonic()

    def on_train_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        outputs: object,
        batch: tuple[Tensor, Tensor],
        batch_idx: int,
    ) -> None:
        self.n_examples += len(batch[1]) * trainer.world_size
        if pl_module.device.type == "cuda" and batch_idx + 1 == trainer.num_training_batches:
            torch.cuda.synchronize(pl_module.device)  # it may be behind
        self.end_s = time.monotonic()

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        metrics = {"epoch": float(trainer.current_epoch + 1), "n_steps": float(pl_module.n_steps)}
        if self.n_examples:
            metrics["train/examples_per_s"] = self.n_examples / (self.end_s - self.start_s)
        log_known(pl_module, metrics)


class ProgressBar(RichProgressBar):
    """Lightning's. It counts epochs from 1, as previews do, and shows the time left of a training that has a time."""

    def _get_train_description(self, current_epoch: int) -> str:
        n_epochs = self.trainer.max_epochs
        of_all = f"/{n_epochs}" if n_epochs not in (None, -1) else ""
        left = [callback.time_remaining() for callback in self.trainer.callbacks if isinstance(callback, Timer)]
        times = "".join(f", {timedelta(seconds=round(seconds))} left" for seconds in left if seconds is not None)
        return f"Epoch {current_epoch + 1}{of_all}{times}"


def log_known(pl_module: L.LightningModule, metrics: dict[str, float], *, prog_bar: bool = False) -> None:
    """Logs values that are the same in all processes: they need no reduction, but each process must have them."""
    pl_module.log_dict(metrics, sync_dist=True, rank_zero_only=True, prog_bar=prog_bar)
