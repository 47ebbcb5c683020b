"""One sample rate -> another, by soxr."""

from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import soxr
import torch

from specgan.audio.decoders import AudioError


def resample(waveform: torch.Tensor, from_rate: int, to_rate: int) -> torch.Tensor:
    """Resamples (..., n_samples) from one rate in Hz to another, as `open_audio` does (soxr, HQ)."""
    if from_rate == to_rate:
        return waveform
    channels = waveform.reshape(-1, waveform.shape[-1])
    resampled = soxr.resample(np.ascontiguousarray(channels.numpy().T), from_rate, to_rate, quality="HQ")
    return torch.from_numpy(np.ascontiguousarray(resampled.T)).view(*waveform.shape[:-1], -1)


def at_rate(n_samples: int, from_rate: int, to_rate: int) -> int:
    """How many samples at one rate last as long as `n_samples` at another, rounded: a place or a length in a sound."""
    return (2 * n_samples * to_rate + from_rate) // (2 * from_rate)


def resample_blocks(
    blocks: Iterable[np.ndarray], path: Path, n_channels: int, file_rate: int, sample_rate: int
) -> Iterator[np.ndarray]:
    """Resamples a sound in blocks (n_channels, n), at least one, to blocks of any length.

    Raises:
        AudioError: the whole is less than one sample at the new rate; names `path`.
    """
    resampler, n_in, n_out = None, 0, 0
    for samples, is_last in _mark_last(blocks):
        interleaved = np.ascontiguousarray(samples.T)
        if is_last and n_in == 0:  # a single block: the same samples, a little faster
            resampled = soxr.resample(interleaved, file_rate, sample_rate, quality="HQ")
        else:
            resampler = resampler or soxr.ResampleStream(
                file_rate, sample_rate, n_channels, dtype="float32", quality="HQ"
            )
            resampled = resampler.resample_chunk(interleaved, last=is_last)
        n_in, n_out = n_in + samples.shape[1], n_out + len(resampled)
        if len(resampled):
            yield resampled.reshape(-1, n_channels).T
    if n_out == 0:
        raise AudioError(
            f"{path}: its {n_in} samples at {file_rate} Hz are less than one at {sample_rate} Hz; leave it "
            "out or raise sample_rate"
        )


def _mark_last(blocks: Iterable[np.ndarray]) -> Iterator[tuple[np.ndarray, bool]]:
    blocks = iter(blocks)
    previous = next(blocks)
    for block in blocks:
        yield previous, False
        previous = block
    yield previous, True
