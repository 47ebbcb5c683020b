"""The power of a waveform's short-time Fourier transform, in blocks."""

import math
from collections.abc import Iterable, Iterator
from itertools import chain, pairwise

import torch
import torch.nn.functional as F
from torch import Tensor

MOST_FRAMES = 4096  # transformed at a time, which bounds the memory
_CACHED_SAMPLES = 2**17  # transformed at a time on a CPU, so that they stay in its cache


def power_blocks(blocks: Iterable[Tensor], *, n_fft: int, win_length: int, hop_length: int) -> Iterator[Tensor]:
    """Maps the blocks of a waveform to blocks of its power, so that memory does not grow with the length.

    Args:
        blocks: (B, any length), at least one. Frame t is centred on sample t * hop_length, and silence surrounds the
            waveform. The power does not depend on where a block ends.
        n_fft: samples in an FFT.
        win_length: samples in the Hann window, at most n_fft.
        hop_length: samples from frame to frame; it may exceed n_fft.
    Yields:
        (B, n_fft // 2 + 1, any number of frames), >= 0; ceil(length / hop_length) frames in all.
    """
    for power in frame_power(blocks, n_fft, hop_length, torch.hann_window(win_length)):
        yield power.mT


def frame_power(blocks: Iterable[Tensor], n_fft: int, hop_length: int, window: Tensor) -> Iterator[Tensor]:
    """As `power_blocks` with a window of your own, but (B, frames, bins), which is how an FFT leaves them in memory."""
    n_left = (n_fft - len(window)) // 2
    window = F.pad(window, (n_left, n_fft - len(window) - n_left))
    for frames in _frames(blocks, n_fft, hop_length):
        if frames.shape[-2] == 0:  # MKL refuses it
            yield frames[..., : n_fft // 2 + 1]
            return
        for some in frames.split(_frames_at_once(frames), dim=-2):
            yield squared_magnitude(torch.fft.rfft(some * window), overwrite=True)


def _frames(blocks: Iterable[Tensor], n_fft: int, hop_length: int) -> Iterator[Tensor]:
    """Views (B, frames, n_fft) of the frames that end in each block; without any frame, a single one of 0 frames."""
    span = max(n_fft, hop_length)  # samples that a frame needs: its own, and those before the next frame
    rest, n_done = None, 0  # rest: the samples from the start of the next frame on
    for block in _surround(blocks, n_fft // 2, span, hop_length):
        samples = block if rest is None else torch.cat([rest, block], dim=-1)
        n_frames = max(0, (samples.shape[-1] - span) // hop_length + 1)
        if n_frames:
            yield samples.unfold(-1, n_fft, hop_length)[..., :n_frames, :]
        rest, n_done = samples[..., n_frames * hop_length :], n_done + n_frames
    if n_done == 0:
        yield rest.new_zeros(*rest.shape[:-1], 0, n_fft)


def _surround(blocks: Iterable[Tensor], n_before: int, span: int, hop_length: int) -> Iterator[Tensor]:
    """Adds the silence around a waveform: `n_before` samples before it, and behind it what the last frame lacks."""
    n_samples, n_left, n_right = 0, n_before, 0
    for block, following in pairwise(chain(blocks, [None])):
        n_samples += block.shape[-1]
        if following is None:
            last_start = (math.ceil(n_samples / hop_length) - 1) * hop_length
            n_right = max(0, last_start + span - n_before - n_samples)
        yield F.pad(block, (n_left, n_right)) if n_left or n_right else block
        n_left = 0


def _frames_at_once(frames: Tensor) -> int:
    """How many of the frames (B, frames, n_fft) are transformed at a time."""
    if frames.device.type != "cpu":
        return MOST_FRAMES
    values = frames.shape[-1] * math.prod(frames.shape[:-2])
    return min(MOST_FRAMES, max(16, _CACHED_SAMPLES // values))


def squared_magnitude(spectrum: Tensor, *, overwrite: bool = False) -> Tensor:
    """Returns |spectrum| ** 2, from real and imaginary part: abs() takes a root that would be squared again.

    Args:
        spectrum: complex, of any shape.
        overwrite: work in its memory, which is a little faster; its values are lost.
    """
    parts = torch.view_as_real(spectrum)
    squares = parts.square_() if overwrite else parts.square()
    return squares[..., 0] + squares[..., 1]
