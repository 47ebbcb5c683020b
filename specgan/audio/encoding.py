"""Waveform -> audio file, whole or not at all."""

import io
import logging
import math
import os
import struct
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np
import soundfile
import torch

from specgan.audio.decoders import AudioError
from specgan.audio.decoding import BLOCK_FRAMES
from specgan.files import atomic_path

log = logging.getLogger(__name__)

WAV_SUBTYPES = ("PCM_16", "PCM_24", "FLOAT")

_MOST_FLAC = (8, 655350)  # channels, and Hz
_KEPT_AS = {"PCM_24": "PCM_24", "PCM_32": "FLOAT", "FLOAT": "FLOAT", "DOUBLE": "FLOAT"}  # others as PCM_16


def scale_to_peak(waveform: torch.Tensor, peak: float) -> torch.Tensor:
    """Scales a sound so that its largest absolute sample is `peak`; digital silence stays as it is."""
    loudest = waveform.abs().max()
    return waveform * (peak / loudest) if loudest > 0 else waveform


def save_wav(
    path: str | Path,
    waveform: torch.Tensor,
    sample_rate: int,
    *,
    subtype: str = "PCM_16",
    info: Mapping[str, str] | None = None,
) -> None:
    """Writes a WAV, whole or not at all.

    In PCM a waveform that exceeds full scale is not clipped: all of it is scaled to a peak of 1.0, and a warning gives
    the gain. A sound that `load_audio` read from a file of the same subtype is written bit for bit as it was.

    Args:
        path: the file; its folder is created.
        waveform: (n_samples,) or (channels, n_samples), float, full scale 1.0, finite.
        sample_rate: Hz, > 0.
        subtype: "PCM_16", "PCM_24", or "FLOAT", which keeps float32 samples as they are, also beyond full scale.
        info: texts that go with the sound, in a chunk behind the samples, by their names in RIFF: INAM is a title, IPRD
            an album, IGNR a genre, ICMT a comment, ISFT the program. None: no chunk.
    Raises:
        ValueError: `waveform` is empty, has another shape, is not of floats or holds NaN or infinite samples;
            `sample_rate` <= 0; an unknown `subtype`.
    """
    if subtype not in WAV_SUBTYPES:
        raise ValueError(f"{path}: subtype is {subtype!r}; one of {', '.join(WAV_SUBTYPES)}")
    waveform = waveform.detach().cpu()
    peak = _checked_peak(waveform, sample_rate, path)
    if subtype != "FLOAT" and peak > 1.0:
        keep = "; subtype FLOAT keeps its level" if subtype == "PCM_24" else ""
        log.warning(
            f"{path}: peak {peak:.4g} is beyond full scale, scaled the whole sound by a gain of {1 / peak:.4g}{keep}"
        )
    with atomic_path(path) as temporary:
        if subtype == "FLOAT":  # not by libsndfile, which writes the time of day into it
            from scipy.io import wavfile  # slow to import, and few files need it

            wavfile.write(temporary, sample_rate, waveform.float().numpy().T)
        else:
            channels = 1 if waveform.ndim == 1 else len(waveform)
            with soundfile.SoundFile(temporary, "w", sample_rate, channels, subtype=subtype, format="WAV") as file:
                for block in waveform.split(BLOCK_FRAMES, dim=-1):  # so that memory does not hold a long sound twice
                    file.write(_to_pcm(block, max(1.0, peak), subtype).T)
        if info:
            _append_info(temporary, info)


def _append_info(path: Path, info: Mapping[str, str]) -> None:
    """Adds texts to a WAV. Not by libsndfile, which writes its own version behind that of the program.

    Source: Microsoft and IBM, "Multimedia Programming Interface and Data Specifications 1.0", 1991, LIST chunk INFO.
    """
    texts = (_chunk(name, text.encode(errors="replace") + b"\0") for name, text in info.items())
    with path.open("r+b") as file:
        file.seek(0, os.SEEK_END)
        file.write(_chunk("LIST", b"INFO" + b"".join(texts)))
        n_bytes = file.tell()
        file.seek(4)
        file.write(struct.pack("<I", n_bytes - 8))


def _chunk(name: str, content: bytes) -> bytes:
    """A chunk of RIFF, which has an even length."""
    return struct.pack("<4sI", name.encode(), len(content)) + content + b"\0" * (len(content) % 2)


def subtype_of(path: str | Path) -> str:
    """Returns which of WAV_SUBTYPES holds the samples that `open_audio` reads from a file.

    8 and 16 bits are kept as 16, 24 as 24, more and float as float32. What was coded with loss (MP3, AAC, Opus) has no
    bits of its own, and gets 16.
    """
    with Path(path).open("rb") as file:
        try:
            with soundfile.SoundFile(file) as sound:
                return _KEPT_AS.get(sound.subtype, "PCM_16")
        except (soundfile.SoundFileError, TypeError):  # PyAV reads it
            return "PCM_16"


def save_flac(path: str | Path, waveform: torch.Tensor, sample_rate: int, *, subtype: str, comment: str = "") -> None:
    """Writes a FLAC, whole or not at all.

    Args:
        path: the file; its folder is created.
        waveform: (n_samples,) or (channels, n_samples), float, full scale 1.0, finite.
        sample_rate: Hz.
        subtype: "PCM_16" or "PCM_24".
        comment: kept in the file.
    Raises:
        ValueError: as `save_wav`; more channels or a higher rate than the format holds; or the waveform is beyond full
            scale, which it does not hold either.
    """
    waveform = torch.atleast_2d(waveform.detach().cpu())
    peak, (channels, rate) = _checked_peak(waveform, sample_rate, path), _MOST_FLAC
    if len(waveform) > channels or sample_rate > rate:
        raise ValueError(
            f"{path}: {len(waveform)} channels at {sample_rate} Hz; FLAC holds up to {channels} at {rate} Hz: write WAV"
        )
    if peak > 1.0:
        raise ValueError(f"{path}: peak {peak:.4g} is beyond full scale, which FLAC does not hold: write WAV")
    with (
        atomic_path(path) as temporary,
        temporary.open("w+b") as opened,  # an open file, because its name need not be UTF-8
        soundfile.SoundFile(opened, "w", sample_rate, len(waveform), subtype=subtype, format="FLAC") as file,
    ):
        if comment:
            file.comment = comment
        file.write(_to_pcm(waveform, 1.0, subtype).T)


def encode_flac(waveform: torch.Tensor, sample_rate: int) -> bytes:
    """Encodes a sound as a 16-bit FLAC, which browsers play.

    A waveform that exceeds full scale is not clipped: all of it is scaled to a peak of 1.0.

    Args:
        waveform: (n_samples,) or (channels, n_samples), at most 8 channels, float, full scale 1.0, finite.
        sample_rate: Hz, 1..655350, the limit of the format.
    Raises:
        ValueError: `waveform` is empty, has another shape, is not of floats or holds NaN or infinite samples;
            `sample_rate` is out of range.
    """
    waveform = waveform.detach().cpu()
    peak = _checked_peak(waveform, sample_rate, "FLAC")
    if len(torch.atleast_2d(waveform)) > _MOST_FLAC[0] or sample_rate > _MOST_FLAC[1]:
        raise ValueError(
            f"FLAC: waveform has shape {tuple(waveform.shape)}, sample_rate is {sample_rate}; (n_samples,) or at most "
            "8 channels, and at most 655350 Hz"
        )
    buffer = io.BytesIO()
    soundfile.write(buffer, _to_pcm(waveform, max(1.0, peak), "PCM_16").T, sample_rate, format="FLAC", subtype="PCM_16")
    return buffer.getvalue()


def write_flac(
    path: str | Path, blocks: Iterable[torch.Tensor], sample_rate: int, *, channels: int = 1, comment: str = ""
) -> None:
    """Writes a sound that comes in blocks as a 16-bit FLAC, whole or not at all.

    Args:
        path: the file; its folder is created.
        blocks: (n_samples,) each, or (channels, n_samples), float, in [-1, 1].
        sample_rate: Hz, 1..655350.
        channels: of the blocks.
        comment: kept in the file.
    """
    with (
        atomic_path(path) as temporary,
        temporary.open("w+b") as opened,  # an open file, because its name need not be UTF-8
        soundfile.SoundFile(opened, "w", sample_rate, channels, subtype="PCM_16", format="FLAC") as file,
    ):
        file.comment = comment
        for block in blocks:
            file.write(_to_pcm(block, 1.0, "PCM_16").T)


def read_flac(content: bytes, start: int, n_samples: int) -> tuple[torch.Tensor, str]:
    """Reads `n_samples` samples from `start` on, or those that there are, and the comment, of what `write_flac` wrote.

    Returns:
        (n_samples,) or (channels, n_samples), and the comment.
    Raises:
        AudioError: the bytes are no FLAC.
    """
    try:
        with soundfile.SoundFile(io.BytesIO(content)) as file:
            file.seek(min(start, file.frames))
            return torch.from_numpy(file.read(n_samples, dtype="float32").T), file.comment
    except soundfile.SoundFileError as err:
        raise AudioError(f"not readable as FLAC: {err}") from err


def _checked_peak(waveform: torch.Tensor, sample_rate: int, name: str | Path) -> float:
    """Returns the largest absolute sample. Raises ValueError, whose message `name` begins, if it cannot be encoded."""
    if sample_rate <= 0:
        raise ValueError(f"{name}: sample_rate is {sample_rate}; give a rate above 0 Hz")
    if waveform.ndim not in (1, 2) or waveform.numel() == 0 or not waveform.is_floating_point():
        raise ValueError(
            f"{name}: waveform is {waveform.dtype} of shape {tuple(waveform.shape)}; give floats of shape (n_samples,) "
            "or (channels, n_samples), at least one sample"
        )
    low, high = (float(extreme) for extreme in waveform.aminmax())  # NaN where any sample is
    if not (math.isfinite(low) and math.isfinite(high)):
        n_bad = waveform.numel() - int(waveform.isfinite().sum())
        raise ValueError(f"{name}: {n_bad} of {waveform.numel()} samples are NaN or infinite; nothing was written")
    return max(-low, high)


def _to_pcm(waveform: torch.Tensor, peak: float, subtype: str) -> np.ndarray:
    """Float samples -> integers that soundfile writes as `subtype`; `peak` becomes full scale."""
    samples = waveform.double().numpy() / peak
    if subtype == "PCM_16":
        return np.minimum(np.rint(samples * 2**15), 2**15 - 1).astype(np.int16)
    return np.minimum(np.rint(samples * 2**23), 2**23 - 1).astype(np.int32) << 8  # 24 bits stand on top of 32
