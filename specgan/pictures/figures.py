"""Spectrogram -> picture: exact-size colormapped PNG, and labelled figures for people."""

import io
from collections.abc import Sequence
from functools import cache

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from specgan.pictures.fonts import drawable, families
from specgan.spectrogram import LevelRange, SpectrogramParams, denormalise

MOST_PIXELS = 1_000_000


def to_png(spectrogram: Tensor, *, cmap: str = "magma", scale: float = 1, grayscale: bool = False) -> bytes:
    """Encodes a spectrogram as a PNG of exactly its size times `scale`, low frequencies at the bottom.

    Args:
        spectrogram: (n_bins, n_frames) in [-1, 1], or (channels, n_bins, n_frames), see `stacked`.
        cmap: any matplotlib colormap, in upper or lower case.
        scale: pixels a value in each direction, rounded to whole pixels and at least one: above 1 each value is
            repeated, below 1 a pixel is the mean of the values it covers.
        grayscale: one grey channel, -1 black and 1 white, instead of colours.
    Raises:
        ValueError: an unknown colormap, `scale` <= 0, or more than 1,000,000 pixels in a direction, the limit of
            libpng.
    """
    if scale <= 0:
        raise ValueError(f"scale is {scale}; above 0")
    spectrogram = stacked(spectrogram)
    height, width = (max(1, round(size * scale)) for size in spectrogram.shape)
    if max(height, width) > MOST_PIXELS:
        raise ValueError(
            f"the picture would be {width} x {height} pixels, PNG readers take {MOST_PIXELS} at most; make it smaller "
            "(pooling, a lower scale), or cut the sound into pieces"
        )
    # Piece by piece, because a picture of an hour would be held several times as floats.
    pieces = [((piece.flip(0).clamp(-1, 1) + 1) * 127.5).round().byte() for piece in spectrogram.split(2**16, dim=1)]
    index = torch.cat(pieces, dim=1).cpu().numpy()
    if (height, width) != tuple(spectrogram.shape):
        interpolation = cv2.INTER_AREA if scale < 1 else cv2.INTER_NEAREST
        index = cv2.resize(index, (width, height), interpolation=interpolation)
    if not grayscale:
        index = cv2.applyColorMap(index, _palette(cmap))
    # A colormap's neighbours are no neighbours in red, green and blue: PNG's filters make such pictures larger.
    options = (cv2.IMWRITE_PNG_FILTER, cv2.IMWRITE_PNG_FILTER_NONE, cv2.IMWRITE_PNG_COMPRESSION, 1)
    strategy = (cv2.IMWRITE_PNG_STRATEGY, cv2.IMWRITE_PNG_STRATEGY_DEFAULT)
    return cv2.imencode(".png", index, [*options, *strategy])[1].tobytes()


def stacked(spectrogram: Tensor) -> Tensor:
    """Puts channels above each other, the first on top, with a bright line between them.

    Args:
        spectrogram: (n_bins, n_frames) or (channels, n_bins, n_frames) in [-1, 1].
    Returns:
        (channels * (n_bins + 1) - 1, n_frames), low frequencies of the last channel first.
    """
    if spectrogram.ndim == 2 or len(spectrogram) == 1:
        return spectrogram.flatten(0, -2)
    return F.pad(spectrogram.flip(0), (0, 0, 0, 1), value=1.0).flatten(0, 1)[:-1]


@cache
def _palette(cmap: str) -> np.ndarray:
    """(256, 1, 3) uint8; OpenCV wants blue, green, red."""
    return (colormap(cmap)(np.linspace(0, 1, 256))[:, None, 2::-1] * 255).round().astype(np.uint8)


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
        spectrogram: (n_bins, n_frames) in [-1, 1], or (channels, n_bins, n_frames), drawn above each other.
        params: what it means.
        level_range: what its -1 and 1 mean.
        title: text above.
        cmap: any matplotlib colormap.
    """
    from librosa.display import specshow
    from matplotlib.figure import Figure

    levels = denormalise(spectrogram.cpu(), level_range).view(-1, *spectrogram.shape[-2:]).numpy()
    height = 3 if len(levels) == 1 else 1 + 1.5 * len(levels)
    figure = Figure(figsize=(4, height), dpi=100, layout="constrained")  # not pyplot, which would keep it for ever
    plots = figure.subplots(len(levels), sharex=True, squeeze=False)[:, 0]
    for level, axes in zip(levels, plots, strict=True):
        image = specshow(
            level,
            sr=params.sample_rate,
            hop_length=params.hop_length,
            n_fft=params.n_fft,
            fmin=params.f_min,
            fmax=params.upper_hz,
            htk=params.mel_scale == "htk",
            x_axis="time",
            y_axis="mel" if params.kind == "mel" else "linear",
            y_coords=None
            if params.kind == "mel"
            else np.fft.rfftfreq(params.n_fft, 1 / params.sample_rate)[params.fft_bins],
            vmin=level_range.low,
            vmax=level_range.high,
            cmap=cmap,
            ax=axes,
        )
        axes.set(xlabel="s" if axes is plots[-1] else "", ylabel="Hz")
    plots[0].set_title(drawable(title), parse_math=False, family=families(title))  # a name may hold dollar signs
    figure.colorbar(image, ax=list(plots), label="dB re full scale" if params.level == "db" else "log(1 + power)")
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return buffer.getvalue()


def to_overview(rows: Sequence[tuple[str, Sequence[Tensor | None]]], columns: Sequence[str]) -> bytes:
    """Draws many spectrograms side by side, as a PNG.

    Args:
        rows: of each its name and a spectrogram (n_bins, n_frames) or (channels, n_bins, n_frames) in [-1, 1] for each
            column; None leaves it empty.
        columns: their names.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(1.1 * len(columns) + 0.8, 1.1 * len(rows) + 0.3), dpi=100, layout="constrained")
    grid = figure.subplots(len(rows), len(columns), squeeze=False)
    for (name, spectrograms), row in zip(rows, grid, strict=True):
        for spectrogram, axes in zip(spectrograms, row, strict=True):
            axes.set(xticks=[], yticks=[])
            if spectrogram is not None:
                axes.imshow(
                    stacked(spectrogram.cpu()).numpy(), origin="lower", aspect="auto", cmap="magma", vmin=-1, vmax=1
                )
        row[0].set_ylabel(drawable(name), parse_math=False, family=families(name))
    for name, axes in zip(columns, grid[0], strict=True):
        axes.set_title(drawable(name), fontsize="medium", parse_math=False, family=families(name))
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return buffer.getvalue()
