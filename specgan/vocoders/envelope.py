"""How the power of a sound rises and falls within the frames of its spectrogram. Torch only, no files."""

import torch
import torch.nn.functional as F
from torch import Tensor

from specgan.spectrogram import SpectrogramParams, squared_magnitude
from specgan.vocoders.frames import Frames

_CELLS = 4  # in a hop, of each of which the power is searched
_SHORTER = 16  # short windows in a window of the spectrogram
_N_ITER = 5
_LEAST, _MOST = 0.03, 4.0  # gain


def shape(waveform: Tensor, power: Tensor, params: SpectrogramParams) -> Tensor:
    """Gives sounds the envelope that a spectrogram implies, in every band.

    Frames overlap, so that their power says more about when it comes than one frame does: an onset in the middle of a
    frame is seen by some and not by others. The power in each quarter of a hop is searched that gives that of all
    frames, by the updates of Lee and Seung, which find no negative power (see `MelInversion`). Gains on a short STFT of
    the sound, smoothed over a few of its values, then bring it there.

    Args:
        waveform: (B, n_frames * hop_length).
        power: (B, n_frames, n_fft // 2 + 1) >= 0.
        params: of the power.
    Returns:
        waveform (B, n_frames * hop_length).
    """
    length = 4 * max(1, params.win_length // _SHORTER // 4)
    hop = length // 4
    frames = Frames(-(-waveform.shape[-1] // hop), length, hop, length, waveform)
    spectrum = frames.analyse(frames.surround(waveform))
    wanted = _fine_power(_pool(power, length // 2 + 1, params), params)  # (B, length // 2 + 1, n_frames * _CELLS)
    centres = torch.arange(spectrum.shape[1], device=power.device) * hop * _CELLS / params.hop_length
    cells = (centres.long()).clamp_(max=wanted.shape[-1] - 1)
    wanted = wanted[..., cells].mT * frames.window.square().sum()
    gain = (wanted / _smooth(squared_magnitude(spectrum)).clamp_min_(1e-30)).sqrt_().clamp_(_LEAST, _MOST)
    shaped = frames.synthesise(spectrum * gain)
    return shaped[:, frames.start : frames.start + waveform.shape[-1]]


def _pool(power: Tensor, n_bins: int, params: SpectrogramParams) -> Tensor:
    """The mean power (B, n_bins, n_frames) of the FFT bins nearest to those of a shorter FFT."""
    n_fine = power.shape[-1]
    nearest = (torch.arange(n_fine, device=power.device) * (n_bins - 1) / (n_fine - 1)).round().long()
    pool = F.one_hot(nearest, n_bins).to(power)
    return (power @ (pool / pool.sum(0))).mT


def _fine_power(power: Tensor, params: SpectrogramParams) -> Tensor:
    """Power of frames (B, bins, n_frames) -> mean square of the samples (B, bins, n_frames * _CELLS)."""
    n_frames, hop = power.shape[-1], params.hop_length
    n_sides = -(-params.win_length // (2 * hop))  # hops that a window reaches from its centre
    # The share of each cell in the power of a frame: the square of a Hann window, at 8 places in a cell.
    offsets = (torch.arange(2 * n_sides * _CELLS * 8, device=power.device) + 0.5) * hop / (_CELLS * 8) - n_sides * hop
    window = torch.cos(torch.pi * offsets / params.win_length).pow(4) * (offsets.abs() < params.win_length / 2)
    window = (window.unflatten(0, (-1, 8)).mean(1) * hop / _CELLS).unflatten(0, (-1, _CELLS)).T[None]
    frames = power.reshape(-1, 1, n_frames)
    reached = F.conv_transpose1d(torch.ones_like(frames[:1]), window).clamp_min_(1e-30)
    cells = F.conv_transpose1d(frames / window.sum(), window) / reached  # (B * bins, _CELLS, n_frames + hops - 1)
    for _ in range(_N_ITER):
        cells *= F.conv_transpose1d(frames / F.conv1d(cells, window).clamp_min_(1e-30), window) / reached
    cells = cells[..., n_sides : n_sides + n_frames].mT  # those before the sound and behind it are silent
    return cells.reshape(*power.shape[:2], n_frames * _CELLS)


def _smooth(power: Tensor) -> Tensor:
    """Means over 5 frames and 3 bins (B, frames, bins)."""
    return F.avg_pool2d(power, (5, 3), 1, (2, 1), count_include_pad=False)
