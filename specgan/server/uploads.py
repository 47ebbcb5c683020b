"""A sent file: taken from the request, then drawn and made playable in a process of its own."""

import asyncio
import logging
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, Protocol

import torch
from starlette.datastructures import UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import Request
from torch import Tensor

from specgan.audio import AudioError, open_audio, save_wav
from specgan.pictures.render import render
from specgan.server.errors import RefusedError

_MOST_RATE = 48000  # Hz of the WAV: browsers play it, and it bounds its size
_MOST_NAME = 100  # characters
_MOST_DRAWN = 96000  # Hz of what is drawn: far above, mel bands are narrower than the bins of an FFT

# fmt: off
# First bytes of audio files: (offset, bytes).
_AUDIO_STARTS = (
    (0, b"RIFF"), (0, b"RIFX"), (0, b"RF64"), (0, b"riff"), (0, b"FORM"), (0, b".snd"), (0, b"caff"), (0, b"fLaC"),
    (0, b"OggS"), (0, b"ID3"), (0, b"\xff\xfa"), (0, b"\xff\xfb"), (0, b"\xff\xf1"), (0, b"\xff\xf2"), (0, b"\xff\xf3"),
    (0, b"\xff\xf9"), (0, b"\xff\xfd"), (0, b"ADIF"), (4, b"ftyp"), (0, b"\x1aE\xdf\xa3"), (0, b"0&\xb2u\x8ef\xcf\x11"),
    (0, b"#!AMR"), (0, b"MAC "), (0, b"wvpk"), (0, b"\x0bw"),
)
# fmt: on


@dataclass(frozen=True)
class Received:
    """What came with a sent file.

    Args:
        name: that the client calls it by, without folders.
        texts: of the form's other fields.
    """

    name: str
    texts: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Plain:
    """A file of samples as they are for a checkpoint, which is written beside the one for browsers.

    Args:
        path: is written, a WAV of float samples.
        sample_rate: Hz.
        channels: that it gets.
        most_s: seconds, and a little more; what follows is left out.
    """

    path: Path
    sample_rate: int
    channels: int
    most_s: float


async def receive(request: Request, path: Path, *, max_bytes: int, timeout_s: float) -> Received:
    """Writes the file of a multipart form to `path` as it arrives.

    Args:
        request: its body is the form, with the file in the field audio_file.
        path: is written.
        max_bytes: of the file.
        timeout_s: seconds until all of it has to be here.
    Raises:
        RefusedError: 400 without a file, 408 or 413 where it takes too long or is too large.
    """
    if not request.headers.get("content-type", "").startswith("multipart/form-data"):
        raise RefusedError(400, "no_file", "the body is no form; send multipart/form-data with a file field audio_file")
    # Its temporary file has no name: nothing of it is left, however this ends.
    parser = MultiPartParser(request.headers, request.stream(), max_files=1, max_fields=16, max_part_size=2**16)
    try:
        async with asyncio.timeout(timeout_s):
            form = await parser.parse()
    except TimeoutError as err:
        message = f"the upload took more than {timeout_s:g} s; send less, or over a faster line"
        raise RefusedError(408, "too_slow", message) from err
    except MultiPartException as err:
        raise RefusedError(400, "invalid", f"the form cannot be read: {err.message} Send one file, audio_file") from err
    try:
        upload = _checked(form.get("audio_file"), max_bytes)
        await asyncio.to_thread(_copy, upload.file, path)
        name = (upload.filename or "").replace("\\", "/").rpartition("/")[2][:_MOST_NAME]
        texts = {key: value for key, value in form.items() if isinstance(value, str)}
        return Received("".join(filter(str.isprintable, name)) or "audio_file", texts)
    finally:
        await form.close()


def _checked(upload: UploadFile | str | None, max_bytes: int) -> UploadFile:
    if not isinstance(upload, UploadFile):
        raise RefusedError(400, "no_file", "no file in the field audio_file; send one: curl -F audio_file=@a.wav")
    if not upload.size:
        raise RefusedError(400, "empty", "audio_file is empty; check it, and send it again")
    if upload.size > max_bytes:
        message = f"audio_file is larger than {max_bytes:,} bytes, the most; send a part of it"
        raise RefusedError(413, "too_large", message)
    return upload


def _copy(file: BinaryIO, path: Path) -> None:
    with path.open("wb") as copy:
        shutil.copyfileobj(file, copy)


class Conversion(Protocol):
    """What `convert` does, or what tests do in its place."""

    def __call__(
        self,
        upload: Path,
        wav: Path,
        png: Path,
        *,
        max_duration_s: float,
        picture: Mapping[str, object],
        plain: Plain | None = None,
    ) -> str: ...


def convert(
    upload: Path,
    wav: Path,
    png: Path,
    *,
    max_duration_s: float,
    picture: Mapping[str, object],
    plain: Plain | None = None,
) -> str:
    """Draws an audio file of any format and writes it as a WAV that browsers play.

    The WAV has the channels of the file if these are one or two, else their mean, and at most 48 kHz.

    Args:
        upload: the file; its content says what it is.
        wav: is written.
        png: is written, as task=render draws it; of a file above 96 kHz, what is below 48 kHz.
        max_duration_s: longer sounds are refused.
        picture: arguments of `specgan.render`.
        plain: is also written, with the samples of `open_audio`; None: it is not.
    Returns:
        Warnings about the file, or an empty text.
    Raises:
        RefusedError: 415 where it is no audio file, 400 where it cannot be decoded or lasts too long.
    """
    warnings = _Warnings()
    log = logging.getLogger("specgan")
    log.addHandler(warnings)
    log.propagate = False  # the answer says it, and the service's log would name a file that is gone
    try:
        waveform, sample_rate, file_rate = _load(upload, max_duration_s)
        save_wav(wav, waveform, sample_rate)
        del waveform  # a quarter of a GB in ten minutes
        if plain is not None:
            _write_plain(upload, plain)
        if file_rate > _MOST_DRAWN and picture.get("sample_rate") is None:
            picture = {**picture, "sample_rate": _MOST_DRAWN}
            warnings.texts.append(f"it has {file_rate} Hz, drawn up to {_MOST_DRAWN // 2} Hz")
        png.write_bytes(render(upload, **picture))  # type: ignore[arg-type] # which checks each
    except AudioError as err:
        status_code, error = (400, "not_decodable") if _begins_as_audio(upload) else (415, "not_audio")
        raise RefusedError(status_code, error, _named(err, upload, wav)) from err
    finally:
        log.removeHandler(warnings)
        log.propagate = True
    return "; ".join(dict.fromkeys(_named(text, upload, wav) for text in warnings.texts))


def _load(upload: Path, max_duration_s: float) -> tuple[Tensor, int, int]:
    """Returns the waveform (channels, n_samples), its rate in Hz, and that of the file."""
    with open_audio(upload, mono=False, block_frames=1, warn=False) as stream:
        file_rate, mono = stream.sample_rate, stream.n_channels > 2
    sample_rate = min(file_rate, _MOST_RATE)
    blocks, n_samples = [], 0
    with open_audio(upload, sample_rate=sample_rate, mono=mono) as stream:
        for block in stream.blocks:
            blocks.append(block)
            n_samples += block.shape[1]
            if n_samples > max_duration_s * sample_rate:
                message = f"audio_file lasts more than {max_duration_s:g} s, the most; send a part of it"
                raise RefusedError(400, "too_long", message)
    return (blocks[0] if len(blocks) == 1 else torch.cat(blocks, dim=1)), sample_rate, file_rate


def _write_plain(upload: Path, plain: Plain) -> None:
    blocks, n_samples = [], 0
    with open_audio(upload, sample_rate=plain.sample_rate, channels=plain.channels) as stream:
        for block in stream.blocks:
            blocks.append(block)
            n_samples += block.shape[1]
            if n_samples > plain.most_s * plain.sample_rate:
                break
    save_wav(plain.path, torch.cat(blocks, dim=1), plain.sample_rate, subtype="FLOAT")


def _begins_as_audio(path: Path) -> bool:
    with path.open("rb") as file:
        start = file.read(12)
    return any(start[offset:].startswith(mark) for offset, mark in _AUDIO_STARTS)


def _named(text: object, upload: Path, wav: Path) -> str:
    """Names files as the client knows them: their paths on this machine are not for it."""
    return str(text).replace(str(upload), "audio_file").replace(str(wav), "the WAV")


class _Warnings(logging.Handler):
    """Collects what is logged as a warning."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.texts: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.texts.append(record.getMessage())
