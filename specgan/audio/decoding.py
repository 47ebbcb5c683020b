"""Any audio file -> waveform, block by block."""

import io
import logging
import re
import stat
from collections.abc import Generator, Iterable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import numpy as np
import soundfile
import soxr
import torch

from specgan.audio.joined import find_parts, open_part

if TYPE_CHECKING:
    import av

log = logging.getLogger(__name__)

DOWNMIXES = ("mean", "left", "max_energy")
BLOCK_FRAMES = 2**20  # 24 s at 44.1 kHz; nearly every clip is one block

_ANTIPHASE_DB = -40.0  # a downmix this far below its channels has lost the sound
_RATES = (100, 10_000_000)  # Hz, from whales to radio; a header with another rate is damaged
_MOST_VALUES = 2**23  # samples of all channels together that soundfile decodes at a time
_UNKNOWN_LENGTH = 2**63 - 1  # libsndfile's frame count for a stream whose header leaves it open
_MP3_SLACK = 2304  # frames: without a Xing header an MP3's length is an estimate, some MP3 frames off
_MANY_CHANNELS = 8  # this many or more are decoded interleaved: PyAV 18 does not see the end of a list of planes
_NO_OTHER_FILES = {"protocol_whitelist": "none"}  # for FFmpeg: a playlist may name any file or address
_CONTAINER_SLACK_S = 0.05  # seconds: containers round, and count the padding of a codec's first and last packet


class AudioError(ValueError):
    """A file that gives no usable sound. The message names the file, what is wrong and what to do."""


@dataclass
class AudioStream:
    """An open audio file.

    Args:
        sample_rate: Hz, after resampling.
        n_channels: after the downmix.
        blocks: the samples not yet read, tensors (n_channels, any number of samples), float32, full scale 1.0.
        is_read: whether the file was read to its end, and so all warnings about it were logged.
    """

    sample_rate: int
    n_channels: int
    blocks: Iterator[torch.Tensor]
    is_read: bool = False


def load_audio(
    path: str | Path, *, sample_rate: int | None = None, mono: bool = True, downmix: str = "mean"
) -> tuple[torch.Tensor, int]:
    """Decodes an audio file as a whole; `open_audio` says how.

    Returns:
        waveform (channels, n_samples), float32, full scale 1.0, and its sample rate in Hz.
    Raises: as `open_audio`.
    """
    with open_audio(path, sample_rate=sample_rate, mono=mono, downmix=downmix) as stream:
        blocks = list(stream.blocks)
    return (blocks[0] if len(blocks) == 1 else torch.cat(blocks, dim=1)), stream.sample_rate


@contextmanager
def open_audio(
    path: str | Path,
    *,
    sample_rate: int | None = None,
    mono: bool = True,
    downmix: str = "mean",
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
        mono: turn several channels into one, before resampling.
        downmix: how to. "mean": their average; if they cancel each other (antiphase), a warning is logged. "left": the
            first channel. "max_energy": the channel with the most energy, for which the file is decoded twice.
        block_frames: samples of each channel that are decoded at a time, >= 1; the samples do not depend on it.
        warn: False logs no warnings, for a file that is read a second time.
    Yields:
        the stream; it is closed when the block ends.
    Raises:
        FileNotFoundError: no such file.
        AudioError: no audio stream, no samples, NaN or infinite samples, an impossible rate, or bytes that neither
            decoder understands; also while the blocks are read.
        ValueError: `sample_rate` or `block_frames` < 1, or an unknown `downmix`.
    """
    path = Path(path)
    if sample_rate is not None and sample_rate <= 0:
        raise ValueError(f"sample_rate is {sample_rate}; give a rate above 0 Hz, or None to keep the file's own")
    if downmix not in DOWNMIXES:
        raise ValueError(f"downmix is {downmix!r}; one of {', '.join(DOWNMIXES)}")
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
        n_channels = len(samples)
        blocks = _finite((samples for samples, _ in chain([first], decoded)), path, file_rate)
        if mono and n_channels > 1:
            n_channels, blocks = 1, _downmix(blocks, path, downmix, block_frames, warn)
        stream = AudioStream(sample_rate or file_rate, n_channels, iter(()))
        blocks = _note_end(blocks, stream)
        if sample_rate is not None and sample_rate != file_rate:
            blocks = _resample(blocks, path, n_channels, file_rate, sample_rate)
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


def _resample(
    blocks: Iterable[np.ndarray], path: Path, n_channels: int, file_rate: int, sample_rate: int
) -> Iterator[np.ndarray]:
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


def _decode(path: Path, block_frames: int, *, warn: bool) -> Generator[tuple[np.ndarray, int]]:
    """Blocks (channels, n) float32 and their rate in Hz, from the first decoder that understands the file."""
    with path.open("rb") as file:  # an open file, not its name, so that libsndfile goes by content alone
        parts = find_parts(file)
        file.seek(0)
        if len(parts) == 1:
            yield from _decode_part(file, path, block_frames, warn)
        else:
            yield from _decode_joined(file, parts, path, block_frames, warn)


def _decode_joined(
    file: BinaryIO, parts: list[tuple[int, int]], path: Path, block_frames: int, warn: bool
) -> Iterator[tuple[np.ndarray, int]]:
    """Several sounds one behind the other, as one of the first one's channels and sample rate."""
    n_channels = first_rate = 0
    for number, (start, end) in enumerate(parts, 1):
        try:
            with closing(_decode_part(open_part(file, start, end), path, block_frames, warn)) as decoded:
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
                    blocks = _resample(blocks, path, n_channels, rate, first_rate)
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


def _decode_part(file: BinaryIO, path: Path, block_frames: int, warn: bool) -> Generator[tuple[np.ndarray, int]]:
    n_done = 0
    try:
        for samples, rate in _decode_soundfile(file, path, block_frames, warn):
            n_done += samples.shape[1]
            yield samples, rate
        return
    except (soundfile.SoundFileError, TypeError) as err:  # TypeError: soundfile takes `.raw` for headerless
        reason = getattr(err, "error_string", str(err)).rstrip(".")
    file.seek(0)
    for samples, rate in _decode_av(file, path, block_frames, warn, reason):
        n_known = min(n_done, samples.shape[1])  # soundfile has given these
        n_done -= n_known
        if n_known < samples.shape[1]:
            yield samples[:, n_known:], rate


def _decode_soundfile(file: BinaryIO, path: Path, block_frames: int, warn: bool) -> Iterator[tuple[np.ndarray, int]]:
    is_whole = isinstance(getattr(file, "raw", None), io.FileIO)
    opened = file.fileno() if is_whole else file  # by number: no call to Python for each read
    with soundfile.SoundFile(opened, closefd=False) as sound:
        if sound.frames == _UNKNOWN_LENGTH:
            raise soundfile.SoundFileRuntimeError("the header gives no length")  # PyAV reads such streams
        _check_rate(path, sound.samplerate)
        n_frames, most = 0, min(block_frames, _MOST_VALUES // sound.channels)  # memory is taken before it is filled
        while len(samples := sound.read(most, dtype="float32", always_2d=True)):
            n_frames += len(samples)
            yield samples.T, sound.samplerate
        slack = _MP3_SLACK if sound.format == "MP3" else 0
        announced = max(sound.frames - slack, _announced_frames(sound))
        if warn and n_frames < announced and n_frames:
            _warn_cut_short(path, f"{n_frames} of about {max(sound.frames, announced)} frames")


def _check_rate(path: Path, rate: int) -> None:
    """Raises AudioError for an impossible rate, before resampling takes memory in proportion to it.

    The rest of a header needs no check: libsndfile and FFmpeg limit the channels (to 1024 and 512), and memory grows
    with the samples that are decoded, not with the number in the header.
    """
    if not _RATES[0] <= rate <= _RATES[1]:
        raise AudioError(
            f"{path}: its header says {rate} Hz; {_RATES[0]} to {_RATES[1]} are read; write the file again"
        )


def _announced_frames(sound: soundfile.SoundFile) -> int:
    """Frames by the header of a WAV, AIFF or AU. libsndfile lowers `frames` to those in the file, and logs both."""
    chunk = re.search(r"^ *(?:data|SSND|Data Size) *: (\d+) \(should be (\d+)\)", sound.extra_info, re.MULTILINE)
    n_bytes, n_bytes_found = map(int, chunk.groups()) if chunk else (0, 0)
    if n_bytes_found == 0 or n_bytes >= 2**31 - 1:  # sizes that streaming writers put in
        return 0
    return round(sound.frames * n_bytes / n_bytes_found)


def _decode_av(
    file: BinaryIO, path: Path, block_frames: int, warn: bool, soundfile_reason: str
) -> Iterator[tuple[np.ndarray, int]]:
    import av  # slow to import, and few files need it

    resampler, fault, cause = None, "", None
    held, n_held, n_frames = [], 0, 0  # the last two packets are held back: the end may have to be trimmed
    try:
        with av.open(file, metadata_errors="ignore", container_options=_NO_OTHER_FILES) as container:
            stream = next(iter(container.streams.audio), None)
            if stream is None:
                raise AudioError(f"{path}: has no audio stream; leave it out")
            if stream.codec_context is None:
                raise AudioError(f"{path}: FFmpeg does not know the format of its sound; convert it, or leave it out")
            _check_rate(path, stream.codec_context.sample_rate or _RATES[0])  # 0: not known yet
            announced_s = _announced_seconds(container, stream)
            is_indexed = stream.frames > 0  # read here: a closed container's stream has lost it
            for frame in container.decode(stream):
                if resampler is None:
                    kind = "fltp" if frame.layout.nb_channels < _MANY_CHANNELS else "flt"
                    resampler = av.AudioResampler(kind, frame.layout, frame.sample_rate)
                if (frame.layout.name, frame.sample_rate) != (resampler.layout.name, resampler.rate):
                    fault = "the channels or the sample rate change at that point"
                    break
                held += [_to_array(block) for block in resampler.resample(frame)]
                n_held += frame.samples
                if n_held >= block_frames and len(held) > 2:
                    samples, held, n_held = np.concatenate(held[:-2], axis=1), held[-2:], 0
                    n_frames += samples.shape[1]
                    yield samples, resampler.rate
    except av.FFmpegError as err:
        fault, cause = err.strerror, err
    if resampler is not None:
        held += [_to_array(block) for block in resampler.resample(None)]
    if not held:
        raise AudioError(
            f"{path}: not readable as audio (soundfile: {soundfile_reason}; PyAV: {fault or 'no frame of sound'}); "
            "check that it is an audio file and whole"
        ) from cause

    samples, rate = np.concatenate(held, axis=1), resampler.rate
    n_frames += samples.shape[1]
    announced = round(announced_s * rate)
    if fault or n_frames < announced - _CONTAINER_SLACK_S * rate:
        of_about = f" of about {announced}" if announced else ""
        if warn:
            _warn_cut_short(path, f"{n_frames}{of_about} frames" + (f" ({fault})" if fault else ""))
    elif is_indexed and announced < n_frames <= announced + frame.samples:
        samples = samples[:, : announced - n_frames]  # an indexed container (MP4) knows where the padding begins
    if samples.size:
        yield samples, rate


def _to_array(frame: "av.AudioFrame") -> np.ndarray:
    """A frame of PyAV, planar or interleaved, -> (channels, n)."""
    samples = frame.to_ndarray()
    return samples if frame.format.is_planar else samples.reshape(-1, frame.layout.nb_channels).T


def _announced_seconds(container: "av.container.InputContainer", stream: "av.AudioStream") -> float:
    """Length by the header, or 0.0 without one: that of a bare AAC stream is a guess from its first packets."""
    if container.format.name == "aac":
        return 0.0
    if stream.duration:
        return float(stream.duration * stream.time_base)
    return (container.duration or 0) / 1e6  # microseconds


def _warn_cut_short(path: Path, decoded: str) -> None:
    log.warning(f"{path}: damaged or cut short, decoded {decoded} and kept them; fetch it again for the rest")


def resample(waveform: torch.Tensor, from_rate: int, to_rate: int) -> torch.Tensor:
    """Resamples (channels, n_samples) from one rate in Hz to another, as `open_audio` does (soxr, HQ)."""
    if from_rate == to_rate:
        return waveform
    resampled = soxr.resample(np.ascontiguousarray(waveform.numpy().T), from_rate, to_rate, quality="HQ")
    return torch.from_numpy(np.ascontiguousarray(resampled.T))
