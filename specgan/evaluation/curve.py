"""A metric over the minutes of training, as a drawing for a page."""

import io
import math
import re
from collections.abc import Sequence

from specgan.evaluation.content import CurvePoint


def draw_curve(curve: Sequence[CurvePoint], key: str, label: str, *, is_share: bool = False) -> str | None:
    """Returns an SVG to stand in HTML, or None where fewer than two points have the metric.

    Args:
        curve: the content of curve.json.
        key: of the metric.
        label: of its axis.
        is_share: shown in percent.
    """
    from matplotlib import style
    from matplotlib.figure import Figure
    from matplotlib.ticker import PercentFormatter

    points = [
        (point["time_s"] / 60, value)
        for point in curve
        if (value := point.get(key)) is not None and math.isfinite(value)
    ]
    if len(points) < 2:
        return None
    minutes, values = zip(*points, strict=True)
    svg = io.StringIO()
    with style.context(["dark_background", {"svg.fonttype": "none", "svg.hashsalt": key}]):
        plot = Figure(figsize=(5, 3), layout="constrained")
        axes = plot.add_subplot(xlabel="minutes of training", ylabel=label)
        axes.plot(minutes, values, ".-", color="#f4a582")
        axes.grid(alpha=0.25)
        if is_share:
            axes.yaxis.set_major_formatter(PercentFormatter(1))
        elif min(values) > 0 and max(values) > 10 * min(values):
            axes.set_yscale("log")
            axes.yaxis.set_major_formatter("{x:g}")  # 100, not 10 to the power of 2
        plot.savefig(svg, format="svg", transparent=True, metadata=dict.fromkeys(["Creator", "Date", "Format", "Type"]))
    # Inside HTML the names of the formats, which are addresses, have no use.
    return re.sub(r' xmlns(:\w+)?="[^"]*"', "", svg.getvalue()[svg.getvalue().index("<svg") :])
