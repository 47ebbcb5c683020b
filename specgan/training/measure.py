"""From time to time, how far generated sounds are from real ones: `val/fad`, by which the best checkpoint is kept."""

import json
import logging
import math
import time
from pathlib import Path
from typing import Any

import lightning as L

from specgan.data.datamodule import SpectrogramDataModule
from specgan.evaluation.evaluator import Evaluation, Evaluator
from specgan.files import write_json
from specgan.training.cadence import Cadence
from specgan.training.dashboards import dashboards
from specgan.training.pace import log_known

log = logging.getLogger(__name__)

_FIRST_S = 300.0  # so that short trainings are measured at their end alone


class Measure(L.Callback):
    """From time to time, measures sounds drawn from fixed seeds against the training clips.

    Metrics: `val/fad` (Fréchet distance on the features of the data set's judge), beside it `val/fad_real`, that of as
    many real clips that were not trained on, and `val/conditional_accuracy` (the share of sounds that the judge takes
    for the class that was asked for). `curve` has them over epochs and time; a run that goes on continues it, but
    without the figures of another judge (the data were changed, or made anew at another rate), which do not compare.
    Loggers that are dashboards get the confusion matrix.

    Args:
        evaluation: gives the `Evaluator` of the data set.
        curve: path of a JSON file, a list of {epoch, time_s, n_steps, <metric>: ...}.
        every_n_epochs: epochs from measurement to measurement; None: by time. The last epoch is measured too.
        share: of the time of the training that measuring may take, see `Cadence`.
        n_samples: sounds of a class on average.
    """

    def __init__(
        self,
        evaluation: Evaluation,
        curve: str | Path,
        *,
        every_n_epochs: int | None = None,
        share: float = 0.02,
        n_samples: int = 20,
    ) -> None:
        if n_samples < 1:
            raise ValueError(f"n_samples is {n_samples}; at least 1")
        self.evaluation, self.curve = evaluation, Path(curve)
        self.cadence, self.n_samples = Cadence(every_n_epochs, share=share, first_s=_FIRST_S), n_samples
        self.points: list[dict[str, float]] = []
        self.evaluator: Evaluator | None = None  # of the first process, which alone measures
        self.data: SpectrogramDataModule | None = None  # as the evaluator
        self.real_distance: float | None = None

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        if stage != "fit" or not trainer.is_global_zero:
            return
        if self.curve.is_file():  # of the run that goes on
            self.points = json.loads(self.curve.read_text())
        self.evaluator, self.data = self.evaluation.of(trainer.datamodule), trainer.datamodule
        real = self.evaluator.quick_real(n_samples=self.n_samples)
        if len(self.evaluator.judge.reference) < 2:
            log.warning(
                "val/fad cannot be measured, and no best.ckpt is kept: there is 1 training clip to measure by, and a "
                "distance needs 2; record more, or data.splits=[100,0,0]"
            )
        elif real is None:
            log.info("val/fad has no real clips to compare with: the data set has no validation or test split")
        else:
            self.real_distance, n_clips = real
            log.info("real clips: fad %.3f (%d that were not trained on)", self.real_distance, n_clips)

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        past_s = max((point["time_s"] for point in self.points if point["epoch"] <= trainer.current_epoch), default=0.0)
        self.start_s = time.monotonic() - past_s
        self.cadence.start()

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if not self.cadence.is_due(trainer):
            return
        with self.cadence.timed():
            metrics = self._measure(trainer, pl_module) if trainer.is_global_zero else None
            metrics = trainer.strategy.broadcast(metrics)
        log_known(pl_module, {f"val/{name}": value for name, value in metrics.items()}, prog_bar=True)

    def _measure(self, trainer: L.Trainer, pl_module: L.LightningModule) -> dict[str, float]:
        epoch, time_s = trainer.current_epoch + 1, round(time.monotonic() - self.start_s, 1)
        figures = self.evaluator.quick(pl_module.sample, n_samples=self.n_samples)
        for dashboard in dashboards(trainer):
            dashboard.log_confusion(figures.confusion, pl_module.class_names, epoch=epoch)
        beside = "" if self.real_distance is None else f" (real clips {self.real_distance:.3f})"
        distance, accuracy = figures.frechet_distance, figures.conditional_accuracy
        shown = f"{distance:.3f}{beside}" if math.isfinite(distance) else "not measured"
        log.info("epoch %d: fad %s, conditional_accuracy %.3f", epoch, shown, accuracy)
        metrics = {"fad": distance, "conditional_accuracy": accuracy}  # the names that they have on dashboards
        metrics = {name: value for name, value in metrics.items() if math.isfinite(value)}
        point = {"epoch": epoch, "time_s": time_s, "n_steps": pl_module.n_steps, **metrics}
        self.points = _by_epoch(self.points, [point])
        write_json(self.curve, self.points)
        return metrics if self.real_distance is None else {**metrics, "fad_real": self.real_distance}

    def state_dict(self) -> dict[str, Any]:
        return {"points": self.points, "judge": self.evaluator and self.evaluator.judge.name}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.points = _by_epoch(self.points, state_dict["points"])
        if self.evaluator is not None and not self.evaluation.is_by(self.data, state_dict.get("judge")):
            log.warning("val/fad and val/conditional_accuracy so far are of another judge: they leave the curve")
            judged = ("fad", "conditional_accuracy")
            self.points = [{name: point[name] for name in point if name not in judged} for point in self.points]


def _by_epoch(*parts: list[dict[str, float]]) -> list[dict[str, float]]:
    """The points of all parts; of an epoch that several have, the last one's."""
    points = {point["epoch"]: point for part in parts for point in part}
    return [points[epoch] for epoch in sorted(points)]
