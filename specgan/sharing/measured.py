"""The figures of a card: those of report.json, if the report is of the generator that is shared."""

import json
import logging
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from specgan.evaluation.glossary import percent
from specgan.evaluation.tables import MetricRow, metric_rows
from specgan.models.trained import TrainedGenerator

log = logging.getLogger(__name__)

REPORT_NAME = "report.json"
_SETTINGS_NAME = "settings.json"  # of the run, beside it

_PATH = re.compile(r"(?<![\w.])(?:[A-Za-z]:[\\/]|~?[\\/])[^\s,;:()]+")  # an absolute one


@dataclass(frozen=True)
class Measured:
    """What a report says, as text and without a path.

    Args:
        split: of the real clips, "test" or "val".
        beside: the row that generated sounds are compared with.
        rows: the metrics.
        vocoder: through which the generated sounds went, a file of conf/vocoder; "": unknown.
        judge: the share of real clips that the judge classifies right; "": unknown.
        is_judge_trusted: whether its verdicts mean much.
        warnings: of the report.
    """

    split: str
    beside: str
    rows: Sequence[MetricRow]
    vocoder: str
    judge: str
    is_judge_trusted: bool
    warnings: Sequence[str]


def read_measured(path: Path, trained: TrainedGenerator) -> Measured | None:
    """Reads a report of stage=test; None: there is none, or it is of another checkpoint.

    Args:
        path: of report.json.
        trained: the generator that it should be of.
    Raises:
        ValueError: it is no report.
    """
    if not path.is_file():
        log.warning("%s: no such file, so the card says that the generator was not measured (stage=test does it)", path)
        return None
    try:
        report = json.loads(path.read_text(encoding="utf-8"))
        if (report["n_steps"], report["class_names"]) != (trained.n_steps, list(trained.class_names)):
            log.warning(
                "%s: of a checkpoint after %s steps, and this one is of %d, so the card says that it was not measured; "
                "measure it: stage=test",
                *(path, report["n_steps"], trained.n_steps),
            )
            return None
        return _measured(report, _vocoder(path.with_name(_SETTINGS_NAME)))
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as err:
        reason = f"it has no {err}" if isinstance(err, KeyError) else str(err)[:200]
        raise ValueError(f"{path}: not a report of train.py stage=test ({reason}); make it again") from err


def _vocoder(settings: Path) -> str:
    """The vocoder that the settings of a run choose, which is one of conf/; "": it kept none."""
    if not settings.is_file():
        return ""
    name = json.loads(settings.read_text(encoding="utf-8"))["choices"]["vocoder"]
    return name if re.fullmatch(r"\w+", name) else ""


def _measured(report: dict[str, Any], vocoder: str) -> Measured:
    split, judge = report.get("split", "test"), report["judge"]
    accuracy = judge.get(f"{split}_accuracy") or judge.get(f"vocoded_{split}_accuracy")
    return Measured(
        split=split,
        beside="real" if "real" in report["rows"] else "vocoded",
        rows=metric_rows(report["rows"]),
        vocoder=vocoder,
        judge=percent(accuracy["value"]) if accuracy else "",
        is_judge_trusted=bool(judge["trusted"]),
        warnings=[_without_paths(warning, report) for warning in report.get("warnings", [])],
    )


def _without_paths(warning: str, report: dict[str, Any]) -> str:
    for name, said in (("dataset", "the data set"), ("checkpoint", "the checkpoint")):
        if report.get(name):
            warning = warning.replace(report[name], said)
    return _PATH.sub("[a path]", warning)
