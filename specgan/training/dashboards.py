"""Lightning's loggers as dashboards, which also show sounds and pictures of a training."""

import logging
import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loggers import TensorBoardLogger, WandbLogger
from lightning.pytorch.loggers.logger import rank_zero_experiment
from torch import Tensor

from specgan.pictures.fonts import drawable, families

log = logging.getLogger(__name__)

_MOST_NAMES = 110  # on an axis of a picture of 20 inches; more would overlap


@dataclass(frozen=True)
class Exhibit:
    """One sound, its files, and the judge's classification."""

    class_name: str
    kind: str  # "generated", "real" or "real, vocoded"
    seed: int | None  # None: a real sound
    place: str  # on the dashboard, under audio/ and spectrogram/: the same over epochs
    caption: str
    sound: Path
    picture: Path
    waveform: Tensor  # (T,) or (channels, T)
    sample_rate: int
    heard_as: str = ""  # "": without a judge
    probability: float | None = None  # of `heard_as`, by the judge


class Dashboard(ABC):
    """A logger that shows more than numbers. A new kind needs a new class here, and no change elsewhere."""

    @abstractmethod
    def log_exhibits(self, exhibits: Sequence[Exhibit], *, epoch: int) -> None:
        """Shows sounds and pictures under `audio/<place>` and `spectrogram/<place>`."""

    @abstractmethod
    def log_confusion(self, confusion: Sequence[Sequence[int]], class_names: Sequence[str], *, epoch: int) -> None:
        """Shows, under `confusion`, how many sounds of each class (row) the judge put in which class (column)."""


def dashboards(trainer: L.Trainer) -> list[Dashboard]:
    """The loggers of a trainer that show more than numbers."""
    return [logger for logger in trainer.loggers if isinstance(logger, Dashboard)]


class WandbDashboard(WandbLogger, Dashboard):
    """W&B: charts over epochs, sounds, pictures, a table of all sounds, confusion matrices, the best checkpoint.

    Args:
        log_best: log the best checkpoint as an artifact `model-<run id>` with the alias "best" when the run ends, also
            offline. (Lightning's `log_model` refuses offline, and gives that alias to every checkpoint it logs.)
        **settings: of Lightning's WandbLogger, and of wandb.init.
    """

    def __init__(self, *, log_best: bool = False, **settings: Any) -> None:
        super().__init__(**settings)
        self.log_best = log_best
        self.best: tuple[str, dict[str, float]] | None = None
        self.table: Any = None
        self.has_axis = False
        self.has_said_too_many = False

    @property
    @rank_zero_experiment
    def experiment(self) -> Any:
        run = super().experiment
        if not self.has_axis:
            self.has_axis = True
            # After Lightning's own, which this overrides: its axis is trainer/global_step.
            run.define_metric("epoch")
            run.define_metric("*", step_metric="epoch", step_sync=True)
        return run

    def log_exhibits(self, exhibits: Sequence[Exhibit], *, epoch: int) -> None:
        import wandb

        if self.table is None:
            columns = ["class", "kind", "seed", "epoch", "sound", "picture", "classified as", "probability"]
            self.table = wandb.Table(columns=columns, log_mode="INCREMENTAL")
        row: dict[str, Any] = {"epoch": epoch}
        for exhibit in exhibits:
            sound = wandb.Audio(str(exhibit.sound), caption=exhibit.caption)
            picture = wandb.Image(str(exhibit.picture), caption=exhibit.caption)
            row |= {f"audio/{exhibit.place}": sound, f"spectrogram/{exhibit.place}": picture}
            verdict = (exhibit.heard_as, exhibit.probability)
            self.table.add_data(exhibit.class_name, exhibit.kind, exhibit.seed, epoch, sound, picture, *verdict)
        self.experiment.log({**row, "sounds": self.table})

    def log_confusion(self, confusion: Sequence[Sequence[int]], class_names: Sequence[str], *, epoch: int) -> None:
        import wandb

        row: dict[str, Any] = {"epoch": epoch}
        row["confusion"] = wandb.Image(confusion_picture(confusion, class_names), caption=f"epoch {epoch}")
        cells = [
            [asked_for, heard_as, n]
            for asked_for, counts in zip(class_names, confusion, strict=True)
            for heard_as, n in zip(class_names, counts, strict=True)
            if n or heard_as == asked_for  # every class keeps its row and column
        ]
        if len(cells) <= wandb.Table.MAX_ROWS:
            row["confusion_chart"] = _confusion_chart(cells)
        elif not self.has_said_too_many:
            self.has_said_too_many = True
            log.warning(
                "the confusion matrix of %d classes has %d cells, W&B charts show %d at most: see the picture",
                *(len(class_names), len(cells), wandb.Table.MAX_ROWS),
            )
        self.experiment.log(row)

    def after_save_checkpoint(self, checkpoint_callback: ModelCheckpoint) -> None:
        super().after_save_checkpoint(checkpoint_callback)
        if self.log_best and checkpoint_callback.monitor and checkpoint_callback.best_model_path:
            score = {checkpoint_callback.monitor: float(checkpoint_callback.best_model_score)}
            self.best = checkpoint_callback.best_model_path, score

    def finalize(self, status: str) -> None:
        super().finalize(status)
        if self.best is not None:
            (path, score), self.best = self.best, None
            self._log_best(path, score)

    def _log_best(self, path: str, score: dict[str, float]) -> None:
        import wandb

        epoch = torch.load(path, map_location="cpu", weights_only=True, mmap=True)["epoch"] + 1
        metadata = {**score, "epoch": epoch}
        artifact = wandb.Artifact(f"model-{self.experiment.id}", type="model", metadata=metadata)
        artifact.add_file(path, name="best.ckpt")
        self.experiment.log_artifact(artifact, aliases=["best"])


def _confusion_chart(cells: list[list[Any]]) -> Any:
    """W&B's chart of cells (class asked for, class it was heard as, number of sounds)."""
    import wandb

    fields = ["Actual", "Predicted", "nPredictions"]  # as W&B's chart calls them
    return wandb.plot_table(
        "wandb/confusion_matrix/v1",
        wandb.Table(columns=fields, data=cells),
        fields={field: field for field in fields},
        string_fields={"title": "Class, and classified as"},
    )


class TensorBoardDashboard(TensorBoardLogger, Dashboard):
    """TensorBoard: scalars, sounds and pictures over epochs.

    Args:
        **settings: of Lightning's TensorBoardLogger.
    """

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)

    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        # Lightning's step counts batches, but sounds belong to epochs, and there is one axis.
        super().log_metrics(metrics, int(metrics["epoch"]) if "epoch" in metrics else step)

    def log_exhibits(self, exhibits: Sequence[Exhibit], *, epoch: int) -> None:
        from PIL import Image

        for exhibit in exhibits:
            self._add_audio(exhibit, epoch)
            with Image.open(exhibit.picture) as picture:
                pixels = np.asarray(picture.convert("RGB"))
            self.experiment.add_image(f"spectrogram/{exhibit.place}", pixels, epoch, dataformats="HWC")

    def _add_audio(self, exhibit: Exhibit, epoch: int) -> None:
        tag = f"audio/{exhibit.place}"
        if exhibit.waveform.ndim == 1:
            self.experiment.add_audio(tag, exhibit.waveform, epoch, sample_rate=exhibit.sample_rate)
            return
        from tensorboard.compat.proto.summary_pb2 import Summary

        # PyTorch's add_audio takes one channel only.
        audio = Summary.Audio(
            sample_rate=exhibit.sample_rate,
            num_channels=len(exhibit.waveform),
            length_frames=exhibit.waveform.shape[-1],
            encoded_audio_string=exhibit.sound.read_bytes(),
            content_type="audio/wav",
        )
        self.experiment.file_writer.add_summary(Summary(value=[Summary.Value(tag=tag, audio=audio)]), epoch)

    def log_confusion(self, confusion: Sequence[Sequence[int]], class_names: Sequence[str], *, epoch: int) -> None:
        pixels = confusion_picture(confusion, class_names)
        self.experiment.add_image("confusion", pixels, epoch, dataformats="HWC")


def confusion_picture(confusion: Sequence[Sequence[int]], class_names: Sequence[str]) -> np.ndarray:
    """Draws a confusion matrix: rows are the classes, columns the judge's, each row as shares of its sum.

    All classes are drawn. Where their names would overlap, every second, third, ... is named, and the axes say so.

    Args:
        confusion: how many sounds of each class (row) the judge put in which class (column).
        class_names: of rows and columns.
    Returns:
        (height, width, 3) uint8.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    counts = np.asarray(confusion)
    size = min(20.0, 3.0 + 0.3 * len(counts))
    figure = Figure(figsize=(size, size), dpi=100, layout="constrained")  # not pyplot, which would keep it in memory
    axes = figure.add_subplot()
    shares = counts / counts.sum(axis=1, keepdims=True).clip(min=1)
    axes.imshow(shares, vmin=0, vmax=1, cmap="magma")
    step = math.ceil(len(counts) / _MOST_NAMES)
    places = range(0, len(counts), step)
    names = [drawable(class_names[place]) for place in places]
    fonts = families("".join(names))
    axes.set_xticks(places, names, rotation=90, parse_math=False, family=fonts)  # a name may hold dollar signs
    axes.set_yticks(places, names, parse_math=False, family=fonts)
    named = f" (one class in {step} is named)" if step > 1 else ""
    axes.set(xlabel=f"classified as{named}", ylabel=f"class{named}")
    if len(counts) <= 30:  # more numbers would overlap
        for row, column in np.argwhere(counts):
            color = "black" if shares[row, column] > 0.5 else "white"
            axes.text(column, row, str(counts[row, column]), ha="center", va="center", color=color, fontsize=8)
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()
