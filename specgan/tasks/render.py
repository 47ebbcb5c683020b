"""Task: one audio file -> one picture of exactly the wanted size."""

import io
import math
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from specgan.audio import load_audio
from specgan.files import atomic_path
from specgan.picture import colormap, to_png
from specgan.spectrogram import SpectrogramParams, mel_filters, power_spectrum
from specgan.tasks.runner import Report


def render_file(input: str | Path, output: str | Path, **settings: Any) -> Report:
    """Writes the picture that `render` makes of `input` to `output`; "-" is standard output."""
    png = render(input, **settings)
    if str(output) == "-":
        sys.stdout.buffer.write(png)
    else:
        with atomic_path(output) as temporary:
            temporary.write_bytes(png)
    return Report(n_done=1, message=f"{output}: picture of {input}")


def render(
    path: str | Path,
    *,
    sample_rate: int | None = None,
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
    """Draws the spectrogram of an audio file, its channels averaged, low frequencies at the bottom.

    Args:
        path: any audio file.
        sample_rate: Hz to resample to; None: the file's own.
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
    win_length = win_length or n_fft
    hop_length = hop_length or max(1, win_length // 4)
    _check(n_fft, win_length, hop_length, frequency_axis, top_db, noise_percentile, width_px, height_px)
    colormap(cmap)  # refuse an unknown one before the work
    waveform, rate = load_audio(path, sample_rate=sample_rate)
    f_max = rate / 2 if f_max is None else f_max
    if not 0 <= f_min < f_max <= rate / 2:
        raise ValueError(
            f"f_min is {f_min:g} and f_max {f_max:g}; 0 <= f_min < f_max <= {rate / 2:g} Hz, half the sample rate"
        )
    power = power_spectrum(waveform, n_fft=n_fft, win_length=win_length, hop_length=hop_length)[0]
    if frequency_axis == "log" and f_min == 0:
        f_min = rate / n_fft
    if frequency_axis == "mel":
        params = SpectrogramParams(rate, n_fft, n_fft, n_fft, n_mels, n_frames=None, f_min=f_min, f_max=f_max)
        power = mel_filters(params) @ power
    else:
        power = _rows(power, rate, f_min, f_max, frequency_axis, height_px)
    # Where there are fewer pixels than values, a pixel shows their mean power: the mean of their dB would hide a tone.
    sizes = (min(height_px, power.shape[0]), min(width_px, power.shape[1]))
    level = _to_db(F.adaptive_avg_pool2d(power[None], sizes)[0], top_db)
    if noise_percentile is not None:
        threshold = np.percentile(level.numpy(), noise_percentile)
        level = torch.where(level < threshold, -top_db, level)
    level = F.interpolate(level[None, None], (height_px, width_px), mode="bilinear")[0, 0]
    if not axes:
        return to_png(1 + 2 * level / top_db, cmap=cmap)
    duration_s = waveform.shape[1] / rate
    return _with_axes(level, cmap, top_db, duration_s, f_min, f_max, frequency_axis)


def _check(n_fft, win_length, hop_length, frequency_axis, top_db, noise_percentile, width_px, height_px) -> None:
    sizes = {"n_fft": n_fft, "win_length": win_length, "hop_length": hop_length}
    for name, value in (sizes | {"width_px": width_px, "height_px": height_px}).items():
        if value < 1:
            raise ValueError(f"{name} is {value}; at least 1")
    if win_length > n_fft:
        raise ValueError(f"win_length is {win_length}; at most n_fft ({n_fft})")
    if frequency_axis not in ("mel", "log", "linear"):
        raise ValueError(f"frequency_axis is {frequency_axis!r}; mel, log or linear")
    if top_db <= 0:
        raise ValueError(f"top_db is {top_db}; above 0")
    if noise_percentile is not None and not 0 <= noise_percentile <= 100:
        raise ValueError(f"noise_percentile is {noise_percentile}; in 0..100, or null")


def _to_db(power: Tensor, top_db: float) -> Tensor:
    """Maps power to dB below the loudest value, from -top_db to 0. The floor comes before the logarithm."""
    loudest = power.max()
    if loudest == 0:
        return torch.full_like(power, -top_db)
    return 10 * torch.log10((power / loudest).clamp_min(10 ** (-top_db / 10)))


def _rows(power: Tensor, rate: int, f_min: float, f_max: float, axis: str, n_rows: int) -> Tensor:
    """Maps (n_fft // 2 + 1, n_frames) power to `n_rows` rows, evenly spaced on the axis: the mean over each row."""
    bin_hz = rate / 2 / (len(power) - 1)
    widest_hz = (f_max - f_min) / n_rows if axis == "linear" else f_max * (1 - (f_min / f_max) ** (1 / n_rows))
    n_points = 2 + math.ceil(widest_hz / bin_hz)  # in a row, so that none skips a bin
    place = (torch.arange(n_rows * n_points) + 0.5) / (n_rows * n_points)
    frequency = f_min + place * (f_max - f_min) if axis == "linear" else f_min * (f_max / f_min) ** place
    below = (frequency / bin_hz).floor().long().clamp_max(len(power) - 2)
    share = (frequency / bin_hz - below).unsqueeze(1)
    points = (1 - share) * power[below] + share * power[below + 1]
    return points.view(n_rows, n_points, -1).mean(1)


def _with_axes(
    level: Tensor, cmap: str, top_db: float, duration_s: float, f_min: float, f_max: float, axis: str
) -> bytes:
    from matplotlib.figure import Figure

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
    extent = (0, duration_s, 0, 1)
    image = plot.imshow(
        level.numpy(), origin="lower", aspect="auto", extent=extent, cmap=colormap(cmap), vmin=-top_db, vmax=0
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
