"""A metric over the minutes of training, as a drawing for a page."""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from specgan.evaluation.content import CurvePoint
from specgan.pictures.drawings import COLOUR, inline_svg

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def draw_curve(curve: Sequence[CurvePoint], key: str, label: str, *, is_share: bool = False) -> str | None:
    """Returns an SVG to stand in HTML, or None where fewer than two points have the metric.

    Args:
        curve: the content of curve.json.
        key: of the metric.
        label: of its axis.
        is_share: shown in percent.
    """
    points = [
        (point["time_s"] / 60, value)
        for point in curve
        if (value := point.get(key)) is not None and math.isfinite(value)
    ]
    if len(points) < 2:
        return None
    minutes, values = zip(*points, strict=True)

    def draw(figure: "Figure") -> None:
        from matplotlib.ticker import PercentFormatter

        axes = figure.add_subplot(xlabel="minutes of training", ylabel=label)
        axes.plot(minutes, values, ".-", color=COLOUR)
        axes.grid(alpha=0.25)
        if is_share:
            axes.yaxis.set_major_formatter(PercentFormatter(1))
        elif min(values) > 0 and max(values) > 10 * min(values):
            axes.set_yscale("log")
            axes.yaxis.set_major_formatter("{x:g}")  # 100, not 10 to the power of 2

    return inline_svg(draw, width=5, height=3, salt=key)
