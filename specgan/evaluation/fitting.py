"""The training of a classifier."""

from dataclasses import dataclass

import lightning as L
import torch
from lightning.pytorch.callbacks import EarlyStopping, LambdaCallback, WeightAveraging
from lightning.pytorch.utilities.seed import isolate_rng
from rich.progress import Progress
from torch import Tensor
from torch.utils.data import DataLoader, TensorDataset

from specgan.models.classifier import Classifier

_BATCH_SIZE, _VALIDATED_TOGETHER = 64, 256
_AVERAGE = 0.98  # decay a step of the average of the weights
_CHECK_EVERY, _LEAST_GAIN = 50, 0.01  # steps from validation to validation, and what the loss must fall by

Sounds = tuple[Tensor, Tensor]  # waveforms (N, T) or (N, channels, T), and their labels (N,)


@dataclass(frozen=True)
class Fitting:
    """How long a classifier is trained; see `fit_classifier`.

    Args:
        most_steps: batches at most, whatever the classifier's own setting is.
        ends_early: when the loss on other clips is flat. It is not among a dozen.
    """

    most_steps: int | None = None
    ends_early: bool = True


def fit_classifier(
    classifier: Classifier,
    waveforms: Tensor,
    labels: Tensor,
    *,
    seed: int,
    device: torch.device,
    validation: Sounds | None = None,
    fitting: Fitting = Fitting(),
    description: str | None = None,
) -> None:
    """Trains a classifier and keeps the moving average of its weights; the global random state stays as it is.

    It ends when the loss on `validation` no longer falls, if `fitting` says so, at the latest after the classifier's
    `n_steps` steps.

    Args:
        classifier: it is on `device` afterwards.
        waveforms: (N, T) or (N, channels, T). Each is analysed once, before the training.
        labels: (N,) int64.
        seed: of order and augmentation.
        device: of torch.
        validation: waveforms and labels (M,) that are not trained on; None: those that are.
        fitting: how long.
        description: of a progress bar; None: there is none.
    """
    if len(labels) == 1:  # batch normalisation needs two
        waveforms, labels = torch.cat([waveforms, waveforms]), labels.repeat(2)
    classifier.to(device).eval()
    batch_size = min(_BATCH_SIZE, len(labels))
    n_steps = min(classifier.n_steps, fitting.most_steps or classifier.n_steps)
    train = TensorDataset(classifier.analyse_all(waveforms), labels)
    held_out = train
    if validation is not None:
        held_out = TensorDataset(classifier.analyse_all(validation[0]), validation[1])
    with isolate_rng(), Progress(transient=True, disable=description is None) as progress:
        torch.manual_seed(seed)
        task = progress.add_task(description or "", total=n_steps)
        callbacks = [
            WeightAveraging(avg_fn=_averaged),
            LambdaCallback(on_train_batch_end=lambda *_: progress.advance(task)),
        ]
        if fitting.ends_early:
            ending = EarlyStopping("val/loss", min_delta=_LEAST_GAIN, patience=2, check_on_train_epoch_end=False)
            callbacks.append(ending)
        trainer = L.Trainer(
            max_steps=n_steps,
            limit_val_batches=None if fitting.ends_early else 0,
            val_check_interval=_CHECK_EVERY if fitting.ends_early else None,
            check_val_every_n_epoch=None,
            num_sanity_val_steps=0,
            accelerator="gpu" if device.type == "cuda" else "cpu",
            devices=1,
            callbacks=callbacks,
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
        )
        loader = DataLoader(train, batch_size, shuffle=True, drop_last=True)
        trainer.fit(classifier.train(), loader, DataLoader(held_out, _VALIDATED_TOGETHER))
    classifier.to(device).eval()


def _averaged(average: Tensor, current: Tensor, n_averaged: Tensor) -> Tensor:
    """The moving average of a weight; shorter in the first steps, so that it forgets where they began."""
    n = int(n_averaged)
    return average + (1 - min(_AVERAGE, (1 + n) / (10 + n))) * (current - average)
