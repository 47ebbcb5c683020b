"""A survey of recordings as one page to read, look at and listen to."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from specgan.pictures.drawings import COLOUR, inline_svg
from specgan.pictures.pages import write_page
from specgan.survey.advice import Advice
from specgan.survey.excerpts import HIGHEST_RATE, Excerpt
from specgan.survey.presets import Fit
from specgan.survey.tables import ABOUT, HEADS, class_rows

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_TEMPLATE = Path(__file__).parent / "templates" / "survey.html"
_N_BINS = 30
_PRESET_HEADS = (
    "spectrogram=",
    "values",
    "length, s",
    "up to, Hz",
    "recordings longer",
    "with audible sound above",
    "length kept",
    "pitch range kept",
)


def write_survey(
    path: Path,
    table: pd.DataFrame,
    *,
    folder: str,
    findings: Sequence[str],
    advice: Advice | None,
    command: str,
    excerpts: Mapping[str, Sequence[Excerpt]],
    failures: Sequence[str],
) -> None:
    """Writes the page, which holds its sounds and pictures and needs nothing else.

    Args:
        path: of the page.
        table: a row for each recording, see `findings`.
        folder: that was surveyed.
        findings: sentences.
        advice: which preset to take; None: nothing can be advised.
        command: that trains with it.
        excerpts: of recordings, by class.
        failures: about files that could not be read.
    """
    write_page(
        path,
        _TEMPLATE,
        folder=folder,
        headline=headline(table),
        findings=findings,
        advice=[text for text in (advice.about_chosen, advice.about_better) if text] if advice else [],
        command=command,
        marked=f"{advice.chosen.params.upper_hz:.0f} Hz" if advice else "",
        failures=failures,
        heads=HEADS,
        about=ABOUT,
        rows=class_rows(table),
        drawings=_drawings(table, advice.chosen if advice else None),
        preset_heads=_PRESET_HEADS,
        presets=[_preset_row(fit, advice) for fit in advice.fits] if advice else [],
        excerpts=excerpts,
    )


def headline(table: pd.DataFrame) -> str:
    """How much there is, in a line."""
    total_s, classes = table["duration_s"].sum(), table["label"].nunique()
    total = f"{total_s / 3600:.1f} hours" if total_s >= 3600 else f"{total_s / 60:.1f} minutes"
    return (
        f"{len(table)} recording{'s' if len(table) > 1 else ''} of {classes} class{'es' if classes > 1 else ''}, "
        f"{total} in all"
    )


def _preset_row(fit: Fit, advice: Advice) -> list[str]:
    smallest = advice.fits[0].values
    return [
        fit.name,
        f"{fit.params.n_bins} x {fit.params.n_frames} ({fit.values / smallest:.1f} times the smallest)",
        f"{fit.example_s:.2f}",
        f"{fit.params.upper_hz:.0f}",
        f"{fit.n_longer} of {advice.n_recordings}",
        f"{fit.n_higher} of {advice.n_recordings}",
        f"{100 * fit.length:.0f} %",
        f"{100 * fit.band:.0f} %",
    ]


def _drawings(table: pd.DataFrame, chosen: Fit | None) -> dict[str, str]:
    """Histograms as SVG, by what they show."""
    length, top = (chosen.example_s, chosen.params.upper_hz) if chosen else (None, None)
    wanted = {
        "Length, s": ("duration_s", True, length),
        "Level, dB (RMS re full scale)": ("rms_dbfs", False, None),
        "Audible up to, Hz": ("audible_hz", False, top),
        "Spectrum ends (60 dB below its peak), Hz": ("band_hz", False, top),
    }
    return {
        label: inline_svg(
            _histogram(table[column].dropna().clip(upper=HIGHEST_RATE / 2), label, is_log, mark),
            width=5,
            height=2.6,
            salt=column,
        )
        for label, (column, is_log, mark) in wanted.items()
        if table[column].notna().any()
    }


def _histogram(values: pd.Series, label: str, is_log: bool, mark: float | None) -> "Callable[[Figure], None]":
    import numpy as np

    low, high = float(values.min()), float(values.max())
    if mark is not None:
        low, high = min(low, mark), max(high, mark)
    if is_log:
        bins = np.geomspace(max(low, 1e-4) * 0.95, high * 1.05, _N_BINS + 1)
    else:
        bins = np.linspace(low - 0.5, high + 0.5, _N_BINS + 1)

    def draw(figure: "Figure") -> None:
        axes: Axes = figure.add_subplot(xlabel=label, ylabel="recordings")
        axes.hist(values, bins=bins, color=COLOUR)
        if is_log:
            axes.set_xscale("log")
            axes.xaxis.set_major_formatter("{x:g}")
            axes.xaxis.set_minor_formatter("")
        if mark is not None:
            axes.axvline(mark, color="#5eead4", linestyle="--")
        axes.yaxis.get_major_locator().set_params(integer=True)
        axes.grid(alpha=0.25)

    return draw
