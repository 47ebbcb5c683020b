"""One audio file -> one picture of exactly the wanted size."""

import io
import math
from pathlib import Path

from torch import Tensor

from specgan.pictures.figures import colormap
from specgan.pictures.streams import PictureSettings, Scale, Sound, mean_power


def render(
    path: str | Path,
    *,
    sample_rate: int | None = None,
    downmix: str = "mean",
    n_fft: int = 2048,
    win_length: int | None = None,
    hop_length: int | None = None,
    n_mels: int = 128,
    f_min: float = 0.0,
    f_max: float | None = None,
    frequency_axis: str = "mel",
    top_db: float = 80.0,
    noise_percentile: float | None = None,
    cmap: str = "magma",
    width_px: int = 1024,
    height_px: int = 256,
    axes: bool = False,
) -> bytes:
    """Draws the spectrogram of an audio file, low frequencies at the bottom. Its length takes no memory.

    Args:
        path: any audio file.
        sample_rate: Hz to resample to; None: the file's own.
        downmix: what becomes of several channels: "mean", "left" or "max_energy"; see `open_audio`.
        n_fft: samples in an FFT.
        win_length: samples in the Hann window, at most n_fft; None: n_fft.
        hop_length: samples from frame to frame; None: a quarter of win_length.
        n_mels: bands of the frequency axis "mel".
        f_min: Hz at the lower edge; with the axis "log" 0 means the first FFT bin.
        f_max: Hz at the upper edge; None: half the sample rate.
        frequency_axis: "mel", "log" or "linear".
        top_db: dB below the loudest value that are shown, > 0.
        noise_percentile: 0..100; values below this percentile of all become the darkest colour. None: none do.
        cmap: any matplotlib colormap, in upper or lower case.
        width_px: of the picture; fewer frames are enlarged bilinearly, of more the mean power is shown.
        height_px: of the picture.
        axes: label seconds and Hz and add a colour bar, inside the same size.
    Returns:
        A PNG.
    Raises:
        FileNotFoundError, AudioError: no such file, or no sound in it.
        ValueError: an impossible setting; the message names it.
    """
    settings = PictureSettings(
        sample_rate=sample_rate,
        downmix=downmix,
        n_fft=n_fft,
        win_length=win_length,
        hop_length=hop_length,
        n_mels=n_mels,
        f_min=f_min,
        f_max=f_max,
        frequency_axis=frequency_axis,
        top_db=top_db,
        noise_percentile=noise_percentile,
        cmap=cmap,
        width_px=width_px,
        height_px=height_px,
    )
    sound = Sound(path, settings)
    n_columns = math.ceil(sound.n_samples / settings.hop)
    power = next(mean_power(sound, settings, [(0, n_columns)], n_columns))
    level = settings.level(power, Scale(power))
    return _with_axes(level, settings, sound) if axes else settings.png(level)


def _with_axes(level: Tensor, settings: PictureSettings, sound: Sound) -> bytes:
    from matplotlib.figure import Figure

    (f_min, f_max), axis = settings.edges(sound.sample_rate), settings.frequency_axis

    def place(frequency: float) -> float:
        if axis == "linear":
            return (frequency - f_min) / (f_max - f_min)
        if axis == "log":
            return math.log(frequency / f_min) / math.log(f_max / f_min)
        low, high, here = (math.log10(1 + f / 700) for f in (f_min, f_max, frequency))
        return (here - low) / (high - low)

    height_px, width_px = level.shape
    figure = Figure(figsize=(width_px / 100, height_px / 100), dpi=100, layout="constrained")
    plot = figure.add_subplot()
    image = plot.imshow(
        level.numpy(),
        origin="lower",
        aspect="auto",
        extent=(0, sound.n_samples / sound.sample_rate, 0, 1),
        cmap=colormap(settings.cmap),
        vmin=-settings.top_db,
        vmax=0,
    )
    marks: list[int] = []  # from the top, as far as there is room for the numbers
    for frequency in (32000, 16000, 8000, 4000, 2000, 1000, 500, 200, 100, 50, 0):
        room = 1 if not marks else place(marks[-1]) - place(frequency) if f_min <= frequency else 0
        if f_min <= frequency <= f_max and room * height_px > 18:
            marks.append(frequency)
    plot.set_yticks([place(f) for f in marks], [str(f) for f in marks])
    plot.set(xlabel="s", ylabel="Hz")
    figure.colorbar(image, ax=plot, label="dB")
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return buffer.getvalue()
