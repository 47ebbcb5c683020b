"""Plots as drawings that stand inside a page: SVG in the colours of our pages."""

import io
import re
from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.figure import Figure

COLOUR = "#f4a582"  # of curves and bars


def inline_svg(draw: "Callable[[Figure], None]", *, width: float, height: float, salt: str) -> str:
    """Returns an SVG to stand in HTML, the same for the same plot.

    Args:
        draw: fills an empty figure; matplotlib's style is that of a dark page meanwhile.
        width: of the figure, inches.
        height: of the figure, inches.
        salt: names what is drawn, so that two drawings of a page share no identifiers.
    """
    from matplotlib import style
    from matplotlib.figure import Figure

    svg = io.StringIO()
    with style.context(["dark_background", {"svg.fonttype": "none", "svg.hashsalt": salt}]):
        figure = Figure(figsize=(width, height), layout="constrained")
        draw(figure)
        figure.savefig(
            svg, format="svg", transparent=True, metadata=dict.fromkeys(["Creator", "Date", "Format", "Type"])
        )
    # Inside HTML the names of the formats, which are addresses, have no use.
    return re.sub(r' xmlns(:\w+)?="[^"]*"', "", svg.getvalue()[svg.getvalue().index("<svg") :])
