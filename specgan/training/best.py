"""The checkpoints with the best metric so far, which stay whatever happens to their folder."""

import logging
import shutil
from pathlib import Path
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import ModelCheckpoint

from specgan.data.datamodule import SpectrogramDataModule
from specgan.evaluation.evaluator import Evaluation
from specgan.files import load_tensors

log = logging.getLogger(__name__)


class BestCheckpoint(ModelCheckpoint):
    """Lightning's ModelCheckpoint, for which the files in its folder say what is best so far.

    Lightning's own goes by the checkpoint that a training goes on from: it forgets all scores if the folder has another
    path than before, and a checkpoint from before the best one knows a lower bar. Each file says its own score.

    Args:
        *args, **kwargs: of ModelCheckpoint.
        evaluation: whose judge measures the metric. The score of a checkpoint of another judge does not count, because
            the two do not compare; it is kept under another name. None: all scores compare.
    """

    def __init__(self, *args: Any, evaluation: Evaluation | None = None, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.evaluation = evaluation
        self.judge: str | None = None  # its name, from `setup` on

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        super().setup(trainer, pl_module, stage)
        found = None
        if stage == "fit" and trainer.is_global_zero:
            self.judge = None if self.evaluation is None else self.evaluation.judge_name(trainer.datamodule)
            found = self._find(trainer.datamodule)
        if scores := trainer.strategy.broadcast(found):
            by_score = sorted(scores, key=lambda path: scores[path], reverse=self.mode == "max")
            self.best_k_models = scores
            self.best_model_path, self.kth_best_model_path = by_score[0], by_score[-1]
            self.best_model_score, self.kth_value = scores[by_score[0]], scores[by_score[-1]]

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
        return scores

    def state_dict(self) -> dict[str, Any]:
        return {**super().state_dict(), "judge": self.judge}

    @property
    def state_key(self) -> str:
        """That of Lightning's own, by which older checkpoints have it."""
        return super().state_key.replace(type(self).__qualname__, ModelCheckpoint.__qualname__, 1)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Does nothing: see `setup`."""
