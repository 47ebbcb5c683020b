"""The tables of a report as text."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from specgan.evaluation.content import Figure
from specgan.evaluation.glossary import METRICS, PERCENT, Comparison, Metric

COLUMNS = ("generated", "real", "resampled", "vocoded")  # first what the page is about: a phone shows little more


def known(rows: Mapping[str, Mapping[str, Figure]], row: str, name: str) -> Figure | None:
    """Returns a metric of a row, if it has a value."""
    figure = rows.get(row, {}).get(name)
    return figure if figure and _is_number(figure["value"]) else None


def _is_number(value: float | None) -> bool:
    return value is not None and math.isfinite(value)


@dataclass(frozen=True)
class Cell:
    """A figure as text."""

    value: str
    interval: str
    n: int


@dataclass(frozen=True)
class MetricRow:
    """A metric, its cells by row of the report (None: unknown), and generated sounds against real ones."""

    metric: Metric
    cells: dict[str, Cell | None]
    comparison: Comparison


def metric_rows(rows: Mapping[str, Mapping[str, Figure]]) -> list[MetricRow]:
    """Every metric that was measured, in the order of `METRICS`; those that are not in it come last, by name."""
    found = {name for row in rows.values() for name in row}
    names = [*(name for name in METRICS if name in found), *sorted(found - METRICS.keys())]
    return [_metric_row(name, METRICS.get(name, Metric(name, "", "")), rows) for name in names]


def _metric_row(name: str, metric: Metric, rows: Mapping[str, Mapping[str, Figure]]) -> MetricRow:
    generated, real = (known(rows, row, name) for row in ("generated", "real"))
    comparison = metric.compare(generated, real) if generated and real else Comparison("–")
    return MetricRow(metric, _cells(rows, name, metric), comparison)


def _cells(rows: Mapping[str, Mapping[str, Figure]], name: str, metric: Metric) -> dict[str, Cell | None]:
    figures = {row: known(rows, row, name) for row in COLUMNS}
    return {row: figure and _cell(figure, metric) for row, figure in figures.items()}


def _cell(figure: Figure, metric: Metric) -> Cell:
    low, high, interval = figure["low"], figure["high"], ""
    if _is_number(low) and _is_number(high):
        interval = f"{metric.text(low).removesuffix(PERCENT)} to {metric.text(high)}"
    return Cell(metric.text(figure["value"]), interval, figure["n"])


@dataclass(frozen=True)
class ClassRow:
    """The conditional accuracy of a class by row of the report; `section` is the number of that with its sounds."""

    name: str
    section: int | None
    cells: dict[str, Cell | None]


def class_rows(
    per_class: Mapping[str, Mapping[str, Figure]], names: Sequence[str], *, sections: Sequence[str]
) -> list[ClassRow]:
    """A row for each class, or none where classes were not measured. `sections` are the classes that have one."""
    places = {name: place for place, name in enumerate(sections)}
    metric = METRICS["conditional_accuracy"]
    return [ClassRow(name, places.get(name), _cells(per_class, name, metric)) for name in names] if per_class else []


@dataclass(frozen=True)
class Matrix:
    """Counts by class, then by what it was classified as; `mistakes` are the most frequent ones in words."""

    label: str
    counts: Sequence[Sequence[int]]
    mistakes: list[str]
    is_open: bool


def matrices(
    confusion: Mapping[str, Sequence[Sequence[int]]], names: Sequence[str], labels: Mapping[str, str]
) -> list[Matrix]:
    """The confusion matrix of each row of the report that has one."""
    return [
        Matrix(labels[row], confusion[row], _mistakes(confusion[row], names), is_open=row in ("generated", "real"))
        for row in COLUMNS
        if row in confusion
    ]


def _mistakes(counts: Sequence[Sequence[int]], names: Sequence[str], *, n_most: int = 5) -> list[str]:
    """The most frequent ones, as shares of their class: with many classes nobody finds them in the matrix."""
    wrong = [
        (n / sum(of_class), f"{names[i]} as {names[j]} ({n} of {sum(of_class)})")
        for i, of_class in enumerate(counts)
        for j, n in enumerate(of_class)
        if i != j and n
    ]
    return [text for _, text in sorted(wrong, key=lambda pair: -pair[0])[:n_most]]


def as_text(rows: Mapping[str, Mapping[str, Figure]]) -> str:
    """All figures of a report with their intervals: a line for each metric, a column for each row of the report."""
    names = list(dict.fromkeys(metric for figures in rows.values() for metric in figures))
    lines = [f"{'':32}" + "".join(f"{row:>26}" for row in rows)]
    for name in names:
        values = [figures.get(name) for figures in rows.values()]
        lines.append(f"{name:32}" + "".join(f"{with_interval(value) if value else '-':>26}" for value in values))
    return "\n".join(lines)


def with_interval(figure: Figure) -> str:
    """For example 0.871 (0.834 to 0.902)."""
    return f"{figure['value']:.3f} ({figure['low']:.3f} to {figure['high']:.3f})"
