"""Audio file -> power as pictures show it, block by block, so that its length takes no memory."""

from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from specgan.audio import AudioError, open_audio
from specgan.pictures.settings import PictureSettings
from specgan.spectrogram import power_blocks

KEPT_SAMPLES = 2**24  # 64 MiB, six minutes at 44.1 kHz: longer sounds are decoded again for every pass
SILENCE_SAMPLES = 2**20  # in a block


class AudioFile:
    """An audio file that is read several times, in blocks.

    Raises: as `open_audio`, for the whole file.
    """

    def __init__(self, path: str | Path, settings: PictureSettings) -> None:
        self.path = path
        self._open = partial(open_audio, path, sample_rate=settings.sample_rate, downmix=settings.downmix)
        self._kept: list[Tensor] = []
        self.n_samples = 0
        with self._open() as stream:
            self.sample_rate = stream.sample_rate
            settings.rows(self.sample_rate)  # refuse impossible ones before the work
            for block in stream.blocks:
                self.n_samples += block.shape[1]
                self._kept = [*self._kept, block] if self.n_samples <= KEPT_SAMPLES else []

    def blocks(self, n_samples: int) -> Iterator[Tensor]:
        """Yields blocks (1, any length), followed by silence up to `n_samples` in all."""
        if self._kept:
            yield from self._kept
        else:
            with self._open(warn=False) as stream:
                yield from stream.blocks
        for start in range(self.n_samples, n_samples, SILENCE_SAMPLES):
            yield torch.zeros(1, min(SILENCE_SAMPLES, n_samples - start))


def mean_power(
    audio: AudioFile, settings: PictureSettings, spans: Iterable[tuple[int, int]], n_columns: int
) -> Iterator[Tensor]:
    """Yields the power of stretches of a sound, each as a picture shows it.

    Args:
        audio: is read once, in blocks.
        settings: of the pictures.
        spans: the first STFT column of each stretch and the one behind its last, in the order of time; two stretches
            may share one column if neither has another.
        n_columns: the STFT columns of all of them.
    Yields:
        (n_rows, n_columns <= width_px) double, >= 0. Where a stretch has more columns than pixels, a pixel is the mean
        of those it touches (adaptive average pooling): of their power, because the mean of dB would hide a tone.
    """
    weights = settings.rows(audio.sample_rate)
    samples = audio.blocks((n_columns - 1) * settings.hop + 1)
    sizes = {"n_fft": settings.n_fft, "win_length": settings.window, "hop_length": settings.hop}
    blocks = (weights @ power[0] for power in power_blocks(samples, **sizes))
    block, n_before = next(blocks), 0
    for first, end in spans:
        n, width = end - first, min(end - first, settings.width_px)
        sums = torch.zeros(len(weights), width, dtype=torch.float64)
        at = first
        while at < end:
            while at >= n_before + block.shape[1]:
                n_before, block = n_before + block.shape[1], next(blocks)
            piece = block[:, at - n_before : end - n_before].double()
            column = torch.arange(at - first, at - first + piece.shape[1])
            left, right = column * width // n, ((column + 1) * width - 1) // n  # the pixels that it touches, 1 or 2
            sums.index_add_(1, left, piece)
            sums.index_add_(1, right[right > left], piece[:, right > left])
            at += piece.shape[1]
        if not sums.isfinite().all():
            raise AudioError(
                f"{audio.path}: samples so far beyond full scale that their power overflows; scale them down"
            )
        pixel = torch.arange(width)
        yield sums / (((pixel + 1) * n + width - 1) // width - pixel * n // width)
