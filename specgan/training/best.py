"""The checkpoints with the best metric so far, which stay whatever happens to their folder."""

import logging
import shutil
from pathlib import Path
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import Tensor

from specgan.data.datamodule import SpectrogramDataModule
from specgan.evaluation.evaluator import Evaluation
from specgan.files import load_tensors

log = logging.getLogger(__name__)


class BestCheckpoint(ModelCheckpoint):
    """Lightning's ModelCheckpoint, for which the files in its folder say what is best so far.

    Lightning's own goes by the checkpoint that a training goes on from: it forgets all scores if the folder has another
    path than before, and a checkpoint from before the best one knows a lower bar. Each file says its own score.

    Two measurements of one generator differ by chance, and the later of two equally good ones has learned for longer,
    with smaller steps. So a later checkpoint also replaces the one in the folder where it is a little worse.

    Args:
        *args, **kwargs: of ModelCheckpoint.
        tolerance: share of the best score so far, >= 0, by which a later checkpoint may be worse. It counts where one
            checkpoint is kept (`save_top_k=1`).
        evaluation: whose judge measures the metric. The score of a checkpoint of another judge does not count, because
            the two do not compare; it is kept under another name. None: all scores compare.
    """

    def __init__(self, *args: Any, evaluation: Evaluation | None = None, tolerance: float = 0.0, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if tolerance < 0:
            raise ValueError(f"tolerance is {tolerance}; a share of the best score, at least 0")
        self.evaluation, self.tolerance = evaluation, tolerance
        self.record: float | None = None  # the best score so far, also if a later checkpoint was kept
        self.latest: float | None = None
        self.judge: str | None = None  # its name, from `setup` on

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        super().setup(trainer, pl_module, stage)
        found = None
        if stage == "fit" and trainer.is_global_zero:
            self.judge = None if self.evaluation is None else self.evaluation.judge_name(trainer.datamodule)
            found = self._find(trainer.datamodule)
        scores, self.record = trainer.strategy.broadcast((found, self.record))
        if scores:
            by_score = sorted(scores, key=lambda path: scores[path], reverse=self.mode == "max")
            self.best_k_models = scores
            self.best_model_path, self.kth_best_model_path = by_score[0], by_score[-1]
            self.best_model_score, self.kth_value = scores[by_score[0]], scores[by_score[-1]]

    def check_monitor_top_k(self, trainer: L.Trainer, current: Tensor | None = None) -> bool:
        """Whether to keep a checkpoint of this score, now that it is measured."""
        is_better = super().check_monitor_top_k(trainer, current)
        if current is None or self.save_top_k != 1:
            return is_better
        score, sign = float(current), -1 if self.mode == "max" else 1
        is_new, self.latest = score != self.latest, score  # it stays what it was until the next measurement
        if self.record is None or sign * score < sign * self.record:
            self.record = score
        is_near = is_new and sign * (score - self.record) <= self.tolerance * abs(self.record)
        return trainer.strategy.reduce_boolean_decision(is_better or is_near)

    def _find(self, data: SpectrogramDataModule) -> dict[str, Any]:
        """The score of each checkpoint in the folder that this callback wrote."""
        scores: dict[str, Any] = {}
        for path in sorted(Path(str(self.dirpath)).glob("*.ckpt")):
            try:
                saved = load_tensors(path)
            except ValueError as err:  # perhaps the very reason to go on from another one
                log.warning("%s", err)
                continue
            own = saved.get("callbacks", {}).get(self.state_key, {})
            models, judge = own.get("best_k_models", {}), own.get("judge")
            # Each knows itself as one of the best; last.ckpt, of another callback, knows others alone.
            found = {str(path): score for known, score in models.items() if Path(known).name == path.name}
            if found and self.evaluation is not None and not self.evaluation.is_by(data, judge):
                copy = path.with_stem(f"{path.stem}-{judge or 'older-judge'}")
                log.warning("%s: its %s is of another judge and does not count; kept as %s", path, self.monitor, copy)
                shutil.copy2(path, copy)
                continue
            scores |= found
            if found and self.save_top_k == 1:
                self.record = own.get("record", float(next(iter(found.values()))))
        return scores

    def state_dict(self) -> dict[str, Any]:
        return {**super().state_dict(), "judge": self.judge, "record": self.record}

    @property
    def state_key(self) -> str:
        """That of Lightning's own, by which older checkpoints have it."""
        return super().state_key.replace(type(self).__qualname__, ModelCheckpoint.__qualname__, 1)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Does nothing: see `setup`."""
