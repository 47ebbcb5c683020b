"""Spectrogram -> picture: exact-size colormapped PNG, and labelled figures for people."""

import io

import cv2
import numpy as np
from torch import Tensor

from specgan.spectrogram import LevelRange, SpectrogramParams, denormalise


def to_png(spectrogram: Tensor, *, cmap: str = "magma", scale: int = 1) -> bytes:
    """Encodes a spectrogram as a PNG of exactly (n_mels * scale, n_frames * scale) pixels, low frequencies below.

    Args:
        spectrogram: (n_mels, n_frames) in [-1, 1].
        cmap: any matplotlib colormap, in upper or lower case.
        scale: pixels a value in each direction.
    Raises:
        ValueError: an unknown colormap.
    """
    index = ((spectrogram.flip(0).clamp(-1, 1) + 1) * 127.5).round().byte().cpu().numpy()
    colours = (colormap(cmap)(np.linspace(0, 1, 256))[:, 2::-1] * 255).round().astype(np.uint8)  # OpenCV wants BGR
    pixels = colours[index].repeat(scale, axis=0).repeat(scale, axis=1)
    return cv2.imencode(".png", pixels)[1].tobytes()


def colormap(name: str):
    """Finds a matplotlib colormap by its name, in upper or lower case.

    Raises:
        ValueError: there is none of that name.
    """
    from matplotlib import colormaps

    by_name = {known.lower(): known for known in colormaps}
    if name.lower() not in by_name:
        raise ValueError(f"cmap is {name!r}; one of matplotlib's colormaps, e.g. magma, viridis, inferno, gray_r")
    return colormaps[name if name in colormaps else by_name[name.lower()]]


def to_figure(
    spectrogram: Tensor, params: SpectrogramParams, level_range: LevelRange, *, title: str, cmap: str = "magma"
) -> bytes:
    """Draws a spectrogram with its axes in seconds and Hz, and a bar for the level, as a PNG.

    Args:
        spectrogram: (n_mels, n_frames) in [-1, 1].
        params: what it means.
        level_range: what its -1 and 1 mean.
        title: text above.
        cmap: any matplotlib colormap.
    """
    from librosa.display import specshow
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4, 3), dpi=100, layout="constrained")  # not pyplot, which would keep it for ever
    axes = figure.add_subplot()
    image = specshow(
        denormalise(spectrogram.cpu(), level_range).numpy(),
        sr=params.sample_rate,
        hop_length=params.hop_length,
        n_fft=params.n_fft,
        fmin=params.f_min,
        fmax=params.upper_hz,
        htk=params.mel_scale == "htk",
        x_axis="time",
        y_axis="mel",
        vmin=level_range.low,
        vmax=level_range.high,
        cmap=cmap,
        ax=axes,
    )
    axes.set_title(title, parse_math=False)  # a name may hold dollar signs
    axes.set(xlabel="s", ylabel="Hz")
    figure.colorbar(image, ax=axes, label="dB re full scale" if params.level == "db" else "log(1 + power)")
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return buffer.getvalue()
