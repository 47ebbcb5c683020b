"""What report.json holds."""

from collections.abc import Mapping, Sequence
from typing import NotRequired, TypedDict

CurvePoint = Mapping[str, float | None]  # of curve.json: epoch, time_s, n_steps and the metrics that were measured then


class Figure(TypedDict):
    """A metric of some sounds. `low` and `high` are its 95 % interval; None and NaN are unknown."""

    value: float | None
    low: float | None
    high: float | None
    n: int


class JudgeQuality(TypedDict):
    """How many real clips the judge classifies right, and whether that is enough for its verdicts to mean much."""

    val_accuracy: NotRequired[Figure]
    test_accuracy: NotRequired[Figure]
    vocoded_test_accuracy: NotRequired[Figure]
    cross_validated_accuracy: NotRequired[Figure]  # `n` is of recordings
    n_folds: NotRequired[int]  # of the cross-validation
    chance: NotRequired[float]  # what who always guesses the most frequent class would have
    trusted: bool


class EvaluationReport(TypedDict):
    """The content of report.json.

    `rows` holds metrics by row, a key of `ROWS`; `per_class` the conditional accuracy by row and class; `confusion`
    counts by row, then by class as a list in the order of `class_names`, then by classified as.
    """

    checkpoint: str
    dataset: str
    seed: int
    n_steps: int
    class_names: Sequence[str]
    judge: JudgeQuality
    rows: Mapping[str, Mapping[str, Figure]]
    split: NotRequired[str]  # "test" where it is missing
    sample_rate: NotRequired[int]  # at which the judge listens, Hz
    spectrogram_rate: NotRequired[int]  # of the preset, Hz
    per_class: NotRequired[Mapping[str, Mapping[str, Figure]]]
    unmeasured_classes: NotRequired[Sequence[str]]  # of which `split` has no clip
    confusion: NotRequired[Mapping[str, Sequence[Sequence[int]]]]
    warnings: NotRequired[Sequence[str]]
    curve: NotRequired[Sequence[CurvePoint]]
