"""The beginning of a sound as a picture: its waveform, and below it a spectrogram of short windows."""

import io
import math

import torch
import torch.nn.functional as F
from torch import Tensor

_WINDOW_S, _PER_WINDOW = 0.0058, 16  # and frames in each window
_RANGE_DB = 70.0
_BEFORE_S = 0.01  # shown before the onset


def draw_attack(waveform: Tensor, *, sample_rate: int, onset: int, duration_s: float, peak: float) -> bytes:
    """Draws a sound from shortly before its onset, as a PNG in the colours of our pages.

    Sounds that are drawn with the same `onset` and `peak` have the same axes and colours.

    Args:
        waveform: (T,).
        sample_rate: Hz.
        onset: the sample that is 0 ms.
        duration_s: from the onset to the end of the picture.
        peak: of the samples, > 0, that is at the top of the picture; a sine of it has the brightest colour.
    """
    from matplotlib import style
    from matplotlib.figure import Figure

    before, after = round(_BEFORE_S * sample_rate), round(duration_s * sample_rate)
    n_fft = 2 ** round(math.log2(_WINDOW_S * sample_rate))
    hop = max(1, n_fft // _PER_WINDOW)
    padded = F.pad(waveform.detach().cpu().float(), (before + n_fft, after + n_fft))
    wide = padded[onset : onset + before + after + 2 * n_fft]  # a window more on either side
    window = torch.hann_window(n_fft)
    power = torch.stft(wide, n_fft, hop, window=window, center=False, return_complex=True).abs() ** 2
    level = 10 * torch.log10(power / (peak * n_fft / 4) ** 2 + 1e-12)
    step_ms = 1000 / sample_rate
    left = (n_fft // 2 - n_fft - before - hop / 2) * step_ms  # the middle of a frame is its time
    right = left + level.shape[1] * hop * step_ms
    samples = wide[n_fft : n_fft + before + after]
    with style.context("dark_background"):
        figure = Figure(figsize=(3.4, 3.2), dpi=110)  # not pyplot, which would keep it for ever
        figure.subplots_adjust(left=0.15, right=0.96, bottom=0.15, top=0.97, hspace=0.12)
        upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=(2, 3))
        times = (torch.arange(len(samples)) - before) * step_ms
        upper.plot(times.numpy(), samples.numpy(), linewidth=0.6, color="#f4a582")
        upper.set(ylim=(-1.05 * peak, 1.05 * peak), xlim=(-before * step_ms, after * step_ms), yticks=(-peak, 0, peak))
        upper.set_yticklabels([f"{-peak:.2g}", "0", f"{peak:.2g}"])
        extent = (left, right, 0, sample_rate / 2000)
        lower.imshow(level.numpy(), origin="lower", aspect="auto", extent=extent, cmap="magma", vmin=-_RANGE_DB, vmax=0)
        lower.set(xlabel="ms after the onset", ylabel="kHz", xlim=(-before * step_ms, after * step_ms))
        for axes in (upper, lower):
            axes.axvline(0, color="white", linewidth=0.5, alpha=0.5)
            axes.tick_params(labelsize="small")
        buffer = io.BytesIO()
        figure.savefig(buffer, format="png", facecolor="#16141f")
    return buffer.getvalue()
