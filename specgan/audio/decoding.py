"""Any audio file -> waveform, block by block."""

import logging
import stat
from collections.abc import Generator, Iterable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import BinaryIO

import numpy as np
import torch

from specgan.audio.decoders import AudioError, decode
from specgan.audio.joined import find_parts, open_part
from specgan.audio.resampling import resample_blocks
from specgan.audio.stereo import to_stereo

log = logging.getLogger(__name__)

DOWNMIXES = ("mean", "left", "max_energy")
BLOCK_FRAMES = 2**20  # 24 s at 44.1 kHz; nearly every clip is one block

_ANTIPHASE_DB = -40.0  # a downmix this far below its channels has lost the sound


@dataclass
class AudioStream:
    """An open audio file.

    Args:
        sample_rate: Hz, after resampling.
        n_channels: of the blocks.
        blocks: the samples not yet read, tensors (n_channels, any number of samples), float32, full scale 1.0.
        is_read: whether the file was read to its end, and so all warnings about it were logged.
        file_rate: Hz, before resampling; 0: unknown.
        n_file_channels: of the file; 0: unknown.
    """

    sample_rate: int
    n_channels: int
    blocks: Iterator[torch.Tensor]
    is_read: bool = False
    file_rate: int = 0
    n_file_channels: int = 0


def load_audio(
    path: str | Path, *, sample_rate: int | None = None, mono: bool = True, downmix: str = "mean", channels: int = 1
) -> tuple[torch.Tensor, int]:
    """Decodes an audio file as a whole; `open_audio` says how.

    Returns:
        waveform (channels, n_samples), float32, full scale 1.0, and its sample rate in Hz.
    Raises: as `open_audio`.
    """
    with open_audio(path, sample_rate=sample_rate, mono=mono, downmix=downmix, channels=channels) as stream:
        blocks = list(stream.blocks)
    return (blocks[0] if len(blocks) == 1 else torch.cat(blocks, dim=1)), stream.sample_rate


@contextmanager
def open_audio(
    path: str | Path,
    *,
    sample_rate: int | None = None,
    mono: bool = True,
    downmix: str = "mean",
    channels: int = 1,
    block_frames: int = BLOCK_FRAMES,
    warn: bool = True,
) -> Iterator[AudioStream]:
    """Decodes an audio file block by block, whatever its suffix says, so that its length takes no memory.

    soundfile decodes; files that it cannot read go to PyAV (FFmpeg). A file that is cut short or damaged gives the
    sound before that point and, where this can be detected, a logged warning. Float files may exceed [-1, 1]: their
    values are kept.

    Args:
        path: the file.
        sample_rate: Hz to resample to (soxr, HQ), > 0; None keeps the file's own.
        mono: turn the channels of the file into `channels`, before resampling; False keeps them, however many.
        downmix: how to. "mean": their average; if they cancel each other (antiphase), a warning is logged. "left": the
            first channel. "max_energy": the channel with the most energy, for which the file is decoded twice.
        channels: 1, or 2: left and right. Then a single channel is put on both sides, and of 3 to 8 channels each side
            gets its own and the centre, see `stereo.to_stereo`.
        block_frames: samples of each channel that are decoded at a time, >= 1; the samples do not depend on it.
        warn: False logs no warnings, for a file that is read a second time.
    Yields:
        the stream; it is closed when the block ends.
    Raises:
        FileNotFoundError: no such file.
        AudioError: no audio stream, no samples, NaN or infinite samples, an impossible rate, or bytes that neither
            decoder understands; also while the blocks are read. With `channels` 2 also more than 8 channels.
        ValueError: `sample_rate` or `block_frames` < 1, an unknown `downmix`, or `channels` neither 1 nor 2.
    """
    path = Path(path)
    if sample_rate is not None and sample_rate <= 0:
        raise ValueError(f"sample_rate is {sample_rate}; give a rate above 0 Hz, or None to keep the file's own")
    if downmix not in DOWNMIXES:
        raise ValueError(f"downmix is {downmix!r}; one of {', '.join(DOWNMIXES)}")
    if channels not in (1, 2):
        raise ValueError(f"channels is {channels!r}; 1, or 2 for left and right")
    if block_frames < 1:
        raise ValueError(f"block_frames is {block_frames}; at least 1")
    try:
        status = path.stat()
    except FileNotFoundError as err:
        raise FileNotFoundError(f"{path}: no such file; check the path") from err
    if stat.S_ISDIR(status.st_mode):
        raise AudioError(f"{path}: is a folder, not an audio file; list the files in it with find_audio")
    if not stat.S_ISREG(status.st_mode):
        raise AudioError(f"{path}: is a device or a pipe; write the sound into a file")
    if status.st_size == 0:
        raise AudioError(f"{path}: has zero bytes; fetch or record it again")

    with closing(_decode(path, block_frames, warn=warn)) as decoded:
        first = next(decoded, None)
        if first is None:
            raise AudioError(f"{path}: holds no samples (0 frames); fetch or record it again")
        samples, file_rate = first
        n_channels = n_file_channels = len(samples)
        blocks = _finite((samples for samples, _ in chain([first], decoded)), path, file_rate)
        if mono and channels == 2:
            n_channels, blocks = 2, to_stereo(blocks, path, n_file_channels)
        elif mono and n_channels > 1:
            n_channels, blocks = 1, _downmix(blocks, path, downmix, block_frames, warn)
        stream = AudioStream(
            sample_rate or file_rate, n_channels, iter(()), file_rate=file_rate, n_file_channels=n_file_channels
        )
        blocks = _note_end(blocks, stream)
        if sample_rate is not None and sample_rate != file_rate:
            blocks = resample_blocks(blocks, path, n_channels, file_rate, sample_rate)
        # ravel: torch copies a row of another stride several times slower, even if it is the only one
        stream.blocks = (torch.from_numpy(samples.ravel()).view(samples.shape) for samples in blocks)
        yield stream


def _note_end(blocks: Iterable[np.ndarray], stream: AudioStream) -> Iterator[np.ndarray]:
    yield from blocks
    stream.is_read = True


def _finite(blocks: Iterable[np.ndarray], path: Path, rate: int) -> Iterator[np.ndarray]:
    n_before = 0
    for samples in blocks:
        with np.errstate(over="ignore", invalid="ignore"):
            is_finite = np.isfinite(samples.sum())  # cheaper than each sample; a finite sound's sum may overflow
        n_bad = 0 if is_finite else samples.size - int(np.count_nonzero(np.isfinite(samples)))
        if n_bad:
            where = f" (from {n_before / rate:.1f} s on)" if n_before else ""
            raise AudioError(
                f"{path}: {n_bad} of {samples.size} samples are NaN or infinite{where}; write the file again"
            )
        n_before += samples.shape[1]
        yield samples


def _downmix(
    blocks: Iterable[np.ndarray], path: Path, downmix: str, block_frames: int, warn: bool
) -> Iterator[np.ndarray]:
    """Blocks (channels, n) -> (1, n)."""
    if downmix != "mean":
        channel = 0 if downmix == "left" else _loudest_channel(path, block_frames)
        yield from (samples[channel : channel + 1] for samples in blocks)
        return
    energy = mix_energy = 0.0
    for samples in blocks:
        mix = samples.mean(axis=0, keepdims=True)
        energy += _energy(samples).mean()
        mix_energy += _energy(mix).mean()
        yield mix
    if warn and energy > 0 and mix_energy <= energy * 10 ** (_ANTIPHASE_DB / 10):
        log.warning(
            f"{path}: its {len(samples)} channels cancel each other (antiphase), their mean is at least "
            f"{-_ANTIPHASE_DB:g} dB quieter than they are; downmix=max_energy takes the loudest, mono=false keeps all"
        )


def _loudest_channel(path: Path, block_frames: int) -> int:
    with closing(_decode(path, block_frames, warn=False)) as decoded:
        return int(np.argmax(sum(_energy(samples) for samples, _ in decoded)))


def _energy(samples: np.ndarray) -> np.ndarray:
    """(channels, n) -> (channels,)"""
    return np.square(samples, dtype=np.float64).sum(axis=1)


def _decode(path: Path, block_frames: int, *, warn: bool) -> Generator[tuple[np.ndarray, int]]:
    """Blocks (channels, n) float32 and their rate in Hz, from the first decoder that understands the file."""
    with path.open("rb") as file:  # an open file, not its name, so that libsndfile goes by content alone
        parts = find_parts(file)
        file.seek(0)
        if len(parts) == 1:
            yield from decode(file, path, block_frames, warn)
        else:
            yield from _decode_joined(file, parts, path, block_frames, warn)


def _decode_joined(
    file: BinaryIO, parts: list[tuple[int, int]], path: Path, block_frames: int, warn: bool
) -> Iterator[tuple[np.ndarray, int]]:
    """Several sounds one behind the other, as one of the first one's channels and sample rate."""
    n_channels = first_rate = 0
    for number, (start, end) in enumerate(parts, 1):
        try:
            with closing(decode(open_part(file, start, end), path, block_frames, warn)) as decoded:
                first = next(decoded, None)
                if first is None:
                    continue
                samples, rate = first
                if not first_rate:
                    n_channels, first_rate = len(samples), rate
                if warn and (len(samples), rate) != (n_channels, first_rate):
                    log.warning(
                        f"{path}: several recordings, one behind the other; number {number} has {len(samples)} "
                        f"channels at {rate} Hz, converted to the first one's {n_channels} at {first_rate} Hz"
                    )
                blocks: Iterator[np.ndarray] = (
                    _with_channels(samples, n_channels) for samples, _ in chain([first], decoded)
                )
                if rate != first_rate:
                    blocks = resample_blocks(blocks, path, n_channels, rate, first_rate)
                yield from ((samples, first_rate) for samples in blocks)
        except AudioError as err:
            if not first_rate:
                raise
            if warn:
                log.warning(
                    f"{path}: recordings one behind the other; number {number} of {len(parts)} (bytes {start} to "
                    f"{end}) is left out: {err}"
                )


def _with_channels(samples: np.ndarray, n_channels: int) -> np.ndarray:
    """(channels, n) -> (n_channels, n): as they are, or else their mean in each."""
    if len(samples) == n_channels:
        return samples
    return np.repeat(samples.mean(axis=0, keepdims=True), n_channels, axis=0)
