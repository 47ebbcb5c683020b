"""The bytes of one recording -> blocks of samples, by soundfile or, where it cannot, by FFmpeg (PyAV)."""

import io
import logging
import re
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import numpy as np
import soundfile

if TYPE_CHECKING:
    import av

log = logging.getLogger(__name__)

_RATES = (100, 10_000_000)  # Hz, from whales to radio; a header with another rate is damaged
_MOST_VALUES = 2**23  # samples of all channels together that soundfile decodes at a time
_UNKNOWN_LENGTH = 2**63 - 1  # libsndfile's frame count for a stream whose header leaves it open
_MP3_SLACK = 2304  # frames: without a Xing header an MP3's length is an estimate, some MP3 frames off
_MANY_CHANNELS = 8  # this many or more are decoded interleaved: PyAV 18 does not see the end of a list of planes
_NO_OTHER_FILES = {"protocol_whitelist": "none"}  # for FFmpeg: a playlist may name any file or address
_CONTAINER_SLACK_S = 0.05  # seconds: containers round, and count the padding of a codec's first and last packet


class AudioError(ValueError):
    """A file that gives no usable sound. The message names the file, what is wrong and what to do."""


def decode(file: BinaryIO, path: Path, block_frames: int, warn: bool) -> Generator[tuple[np.ndarray, int]]:
    """Yields blocks (channels, n) float32 and their rate in Hz, by soundfile, or by PyAV from where that stops.

    Args:
        file: one recording, open at its start, seekable.
        path: of the file, for messages.
        block_frames: samples of a channel in a block, about.
        warn: log what is lost of a file that is damaged or cut short.
    Raises:
        AudioError: neither can read it.
    """
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
