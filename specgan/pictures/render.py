"""One audio file -> one picture of exactly the given size."""

import io
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor

from specgan.pictures.figures import colormap
from specgan.pictures.scale import Scale
from specgan.pictures.settings import PictureSettings
from specgan.pictures.streams import AudioFile, mean_power

if TYPE_CHECKING:
    from matplotlib.axes import Axes

TICKS_HZ = (32000, 16000, 8000, 4000, 2000, 1000, 500, 200, 100, 50, 0)
TICK_PX = 18  # from one number to the next, at least


def render(path: str | Path, *, axes: bool = False, **settings: Any) -> bytes:
    """Draws the spectrogram of an audio file, low frequencies at the bottom. Its length takes no memory.

    Args:
        path: any audio file.
        axes: label seconds and Hz and add a colour bar, inside the same size.
        settings: the fields of `PictureSettings`, such as n_fft, f_max, cmap, width_px and height_px; it documents
            them and has their defaults.
    Returns:
        A PNG.
    Raises:
        FileNotFoundError, AudioError: no such file, or no sound in it.
        TypeError: an unknown setting.
        ValueError: an impossible setting; the message names it.
    """
    look = PictureSettings(**settings)
    audio = AudioFile(path, look)
    n_columns = math.ceil(audio.n_samples / look.hop)
    power = next(mean_power(audio, look, [(0, n_columns)], n_columns))
    level = look.level(power, Scale(power))
    return _with_axes(level, look, audio) if axes else look.png(level)


def _with_axes(level: Tensor, settings: PictureSettings, audio: AudioFile) -> bytes:
    from matplotlib.figure import Figure

    height_px, width_px = level.shape
    figure = Figure(figsize=(width_px / 100, height_px / 100), dpi=100, layout="constrained")
    plot = figure.add_subplot()
    image = plot.imshow(
        level.numpy(),
        origin="lower",
        aspect="auto",
        extent=(0, audio.n_samples / audio.sample_rate, 0, 1),
        cmap=colormap(settings.cmap),
        vmin=-settings.top_db,
        vmax=0,
    )
    _mark_frequencies(plot, settings, audio.sample_rate)
    plot.set(xlabel="s", ylabel="Hz")
    figure.colorbar(image, ax=plot, label="dB")
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return buffer.getvalue()


def _mark_frequencies(plot: "Axes", settings: PictureSettings, rate: int) -> None:
    """Labels as many of TICKS_HZ as fit, from the top; the axis goes from 0 to 1."""
    f_min, f_max = settings.edges(rate)
    ticks: dict[int, float] = {}  # Hz: place
    for hz in TICKS_HZ:
        if f_min <= hz <= f_max:
            place = _place(hz, f_min, f_max, settings.frequency_axis)
            distance = min(ticks.values()) - place if ticks else 1
            if distance * settings.height_px > TICK_PX:
                ticks[hz] = place
    plot.set_yticks(list(ticks.values()), [str(hz) for hz in ticks])


def _place(hz: float, f_min: float, f_max: float, axis: str) -> float:
    """Where a frequency lies on an axis from 0 (`f_min`) to 1 (`f_max`)."""
    if axis == "linear":
        return (hz - f_min) / (f_max - f_min)
    if axis == "log":
        return math.log(hz / f_min) / math.log(f_max / f_min)
    low, high, here = (math.log10(1 + f / 700) for f in (f_min, f_max, hz))
    return (here - low) / (high - low)
