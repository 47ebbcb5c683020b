"""Runs of a sweep that look worse than the others end early."""

import json
import logging
import math
from pathlib import Path
from statistics import median
from typing import Any

import lightning as L

from specgan.training.sweeps import checked_direction

log = logging.getLogger(__name__)


class Prune(L.Callback):
    """Ends a run of a sweep whose best metric so far is worse than the median of its siblings' at that step.

    It reads the curves that `Measure` writes, and so works with every sweeper and launcher. Of each sibling, also of
    ended and unfinished ones, the best value at this run's step or earlier counts. The run ends normally, with
    checkpoints, and its metric is its latest value.

    Args:
        sweep_dir: folder of the sweep, whose subfolders are its runs; None: a single run, which is never ended.
        curve: path of this run's curve; the siblings' have the same name.
        metric: to compare: `val/` and its name in the curve.
        direction: "minimize" or "maximize".
        n_startup: siblings that must have been measured first.
        n_warmup_steps: steps before which the run is not ended.
    Raises:
        ValueError: an impossible setting.
    Source: median stopping rule (Golovin et al., "Google Vizier", 2017).
    """

    def __init__(
        self,
        sweep_dir: str | Path | None,
        curve: str | Path,
        *,
        metric: str = "val/fad",
        direction: str = "minimize",
        n_startup: int = 5,
        n_warmup_steps: int = 2000,
    ) -> None:
        if n_startup < 1:
            raise ValueError(f"n_startup is {n_startup}; at least 1")
        if n_warmup_steps < 0:
            raise ValueError(f"n_warmup_steps is {n_warmup_steps}; at least 0")
        self.sweep_dir = None if sweep_dir is None else Path(sweep_dir)
        self.curve, self.metric, self.key = Path(curve), metric, metric.removeprefix("val/")
        self.sign = 1 if checked_direction(direction) == "minimize" else -1
        self.n_startup, self.n_warmup_steps = n_startup, n_warmup_steps
        self.has_warned = False

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        reason = self._reason(pl_module.n_steps) if trainer.is_global_zero else None
        reason = trainer.strategy.broadcast(reason)  # all processes stop, or none
        if reason is not None:
            log.info("pruned: %s", reason)
            trainer.should_stop = True

    def _reason(self, n_steps: int) -> str | None:
        """Why the run should end; None: it should go on, or was not measured at this step."""
        if self.sweep_dir is None or n_steps < self.n_warmup_steps:
            return None
        points = _points(self.curve)
        if not points or points[-1]["n_steps"] != n_steps:
            return None
        if self.key not in points[-1]:
            if not self.has_warned:
                log.warning("%s is not in %s, so the run is not compared with others", self.metric, self.curve)
            self.has_warned = True
            return None
        here = self._best(points, n_steps)
        curves = [path for path in self.sweep_dir.glob(f"*/{self.curve.name}") if not self._is_own(path)]
        siblings = [best for path in curves if math.isfinite(best := self._best(_points(path), n_steps))]
        if len(siblings) < self.n_startup or here <= (middle := median(siblings)):
            return None
        return (
            f"after {n_steps} steps {self.metric} has reached {self.sign * here:.3f}, and half of the other "
            f"{len(siblings)} runs of this sweep had {self.sign * middle:.3f} or better by then"
        )

    def _best(self, points: list[dict[str, Any]], n_steps: int) -> float:
        """The least value so far, with the sign that makes less better; infinite where there is none."""
        values = (self.sign * point.get(self.key, math.nan) for point in points if point["n_steps"] <= n_steps)
        return min((value for value in values if math.isfinite(value)), default=math.inf)

    def _is_own(self, path: Path) -> bool:
        return path.resolve() == self.curve.resolve()


def _points(curve: Path) -> list[dict[str, Any]]:
    try:
        return json.loads(curve.read_text(encoding="utf-8"))
    except FileNotFoundError:  # not measured yet, or removed by its owner
        return []
    except (OSError, ValueError) as err:  # one unreadable file must not end a sweep
        log.warning("%s: not read, so the run does not count for pruning: %s", curve, err)
        return []
