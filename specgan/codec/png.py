"""Codec pictures as PNG files whose text stores settings, song, slice and channel.

The text survives copying and renaming. Most programs lose it when they save a picture again; others keep it in another
place or in another of the three kinds of text chunk, and it is found in each of them.
"""

import io
import json
import struct
import sys
import zlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, fields
from typing import BinaryIO

import cv2
import numpy as np

from specgan.codec.coding import CodecError, CodecParams, count_slices

CODEC_VERSION = 1

_MOST_CHANNELS = 1024  # more than any file has; a text may come from anywhere
_MOST_TEXT = 2**20  # bytes, packed or not; ours has a few hundred
_TEXT_KINDS = (b"tEXt", b"zTXt", b"iTXt")  # plain, compressed, and international
_MOST_PIXELS = 2**30  # as many as OpenCV reads; a picture of an hour at 44.1 kHz has 318 million
_FEW_PIXELS = 2**24  # up to 128 MiB, which are decoded without further checks
_MOST_INFLATED = 1032  # bytes that one compressed byte can stand for
_CHANNELS = {0: 1, 2: 3, 3: 3, 4: 4, 6: 4}  # that OpenCV decodes each colour type to
_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_KEYWORD = b"specgan-codec"
_NOT_WHOLE = "not a whole PNG; fetch or encode it again"


@dataclass(frozen=True)
class SliceInfo:
    """What the text of a picture stores.

    Args:
        params: how the picture holds sound.
        sample_rate: Hz, >= 1.
        song: name of the song, without suffix.
        n_samples: of the whole song in one channel, before silence was cut off.
        number: of the slice, from 0.
        offset: samples of silence that were cut off before the first slice.
        n_trimmed: samples of silence that were cut off after the last slice; fewer than are left without `offset`.
        channel: from 0.
        n_channels: of the song.
        gain: factor of the waveform, > 0; 1 unless the song goes beyond full scale.

    Raises:
        ValueError: an impossible field; the message names it.
    """

    params: CodecParams
    sample_rate: int
    song: str
    n_samples: int
    number: int = 0
    offset: int = 0
    n_trimmed: int = 0
    channel: int = 0
    n_channels: int = 1
    gain: float = 1.0

    def __post_init__(self) -> None:
        for name in ("sample_rate", "n_samples", "number", "offset", "n_trimmed", "channel", "n_channels"):
            value, least = getattr(self, name), int(name in ("sample_rate", "n_samples", "n_channels"))
            if type(value) is not int or value < least:  # True is no number of samples
                raise ValueError(f"{name} is {value!r}; an integer of at least {least}")
        if self.n_kept < 1:
            cut = f"offset is {self.offset} and n_trimmed is {self.n_trimmed}"
            raise ValueError(f"{cut}; together below n_samples, which is {self.n_samples}")
        if self.number >= self.n_slices:
            raise ValueError(f"number is {self.number}; the song's {self.n_slices} slices are numbered from 0")
        if self.n_channels > _MOST_CHANNELS:
            raise ValueError(f"n_channels is {self.n_channels}; at most {_MOST_CHANNELS}")
        if self.channel >= self.n_channels:
            raise ValueError(f"channel is {self.channel}; the song's {self.n_channels} channels are numbered from 0")
        if not isinstance(self.song, str) or not self.song:
            raise ValueError(f"song is {self.song!r}; a name")
        if type(self.gain) not in (int, float) or not 0 < self.gain <= sys.float_info.max:
            raise ValueError(f"gain is {self.gain!r}; a finite number above 0")

    @property
    def n_kept(self) -> int:
        """Samples of the song in its slices, without the silence that was cut off."""
        return self.n_samples - self.offset - self.n_trimmed

    @property
    def n_slices(self) -> int:
        """Slices of the whole song."""
        return count_slices(self.n_kept, self.params)

    @property
    def slice_length(self) -> int:
        """Samples of the song in this slice; the last slice may have fewer than the others."""
        return min(self.params.slice_samples, self.n_kept - self.number * self.params.slice_samples)


def to_png(picture: np.ndarray, info: SliceInfo) -> bytes:
    """Encodes a picture (size, size, 3) of red, green and blue as a PNG whose text stores `info`."""
    # Phases in 16 bits are noise: compressing them takes ten times as long and saves 1 %. Silence saves much.
    is_noise = picture.dtype == np.uint16 and info.params.phase_encoding == "cos_sin"
    is_noise = is_noise and np.count_nonzero(picture[..., 0]) > 0.9 * picture[..., 0].size
    how = [cv2.IMWRITE_PNG_COMPRESSION, 0, cv2.IMWRITE_PNG_FILTER, cv2.IMWRITE_PNG_FILTER_NONE] if is_noise else []
    png = cv2.imencode(".png", cv2.cvtColor(picture, cv2.COLOR_RGB2BGR), how)[1].tobytes()
    text = json.dumps({"version": CODEC_VERSION, **asdict(info)}, ensure_ascii=True).encode()
    after_header = len(_SIGNATURE) + 25  # IHDR: length, type, 13 bytes, checksum
    return png[:after_header] + _chunk(b"tEXt", _KEYWORD + b"\0" + text) + png[after_header:]


def from_png(png: bytes) -> tuple[np.ndarray, SliceInfo | None]:
    """Decodes a PNG to its picture, unchanged, and its text; None: it has no text of this codec.

    Returns:
        (height, width) or (height, width, channels) uint8 or uint16; red, green, blue, perhaps alpha.
    Raises:
        CodecError: no PNG, a damaged one, a header that claims more pixels than the file can hold, a damaged text, or
            one of a newer version.
    """
    chunks = list(_chunks(io.BytesIO(png), read_all=True))  # OpenCV would fill missing parts with black
    _check_claim(chunks)
    try:
        picture = cv2.imdecode(np.frombuffer(png, np.uint8), cv2.IMREAD_UNCHANGED)
    except cv2.error:  # an impossible size
        picture = None
    if picture is None:
        raise CodecError(_NOT_WHOLE)
    if picture.ndim == 3:
        picture = cv2.cvtColor(picture, cv2.COLOR_BGRA2RGBA if picture.shape[2] == 4 else cv2.COLOR_BGR2RGB)
    return picture, _find_info(chunks)


def read_info(file: BinaryIO) -> SliceInfo | None:
    """Reads the text of a PNG, without its pixels; None: it has no text of this codec.

    Args:
        file: open at the start of the PNG, seekable.
    Raises:
        CodecError: no PNG, one that ends before its text, a damaged text, or one of a newer version.
    """
    return _find_info(_chunks(file, read_all=False))


def _check_claim(chunks: Sequence[tuple[bytes, bytes]]) -> None:
    """Raises CodecError for a header that claims more than the file can hold: OpenCV allocates what it claims."""
    kind, header = chunks[0]
    if kind != b"IHDR" or len(header) != 13:
        raise CodecError(_NOT_WHOLE)
    width, height, bit_depth, colour = struct.unpack(">IIBB", header[:10])
    n_pixels = width * height
    n_bytes = n_pixels * max(8, bit_depth) // 8 * _CHANNELS.get(colour, 1)
    most = _MOST_INFLATED * sum(len(content) for kind, content in chunks if kind == b"IDAT")
    claim = f"its header claims {width} x {height} pixels"
    if n_pixels > _MOST_PIXELS:
        raise CodecError(f"{claim}, more than the limit of {_MOST_PIXELS}; {_NOT_WHOLE}")
    if n_pixels > _FEW_PIXELS and n_bytes > most:
        raise CodecError(f"{claim}, {n_bytes} bytes, of which the file can hold {most} at most; {_NOT_WHOLE}")


def _chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def _chunks(file: BinaryIO, *, read_all: bool) -> Iterator[tuple[bytes, bytes]]:
    """Yields the kind and the content of each chunk up to IEND; unless `read_all`, only texts are read, others are b"".

    Raises:
        CodecError: no PNG, a chunk is missing, or one that was read has a wrong checksum.
    """
    if file.read(len(_SIGNATURE)) != _SIGNATURE:
        raise CodecError(_NOT_WHOLE)
    kind = b""
    while kind != b"IEND":
        header = file.read(8)
        if len(header) < 8:
            raise CodecError(_NOT_WHOLE)
        length, kind = struct.unpack(">I4s", header)
        if read_all or (kind in _TEXT_KINDS and length <= _MOST_TEXT):
            content = file.read(length)
            if file.read(4) != struct.pack(">I", zlib.crc32(content, zlib.crc32(kind))):
                raise CodecError(_NOT_WHOLE)
        else:
            content = b""
            file.seek(length + 4, io.SEEK_CUR)
        yield kind, content


def _find_info(chunks: Iterable[tuple[bytes, bytes]]) -> SliceInfo | None:
    for kind, content in chunks:
        if kind in _TEXT_KINDS and content.startswith(_KEYWORD + b"\0"):
            return _parse_info(_text(kind, content[len(_KEYWORD) + 1 :]).strip(b"\0\r\n "))
    return None


def _text(kind: bytes, content: bytes) -> bytes:
    """The text of a chunk, from what follows its keyword.

    Raises:
        CodecError: it is cut off, or compressed and damaged.
    Source: Portable Network Graphics (PNG) Specification, W3C, 11.3.3.
    """
    is_packed = kind == b"zTXt"
    if kind == b"zTXt":
        content = content[1:]  # compression method
    elif kind == b"iTXt":
        is_packed = content[:1] == b"\1"
        *_, content = content[2:].split(b"\0", 2)  # language and translated keyword come before it
    if not is_packed:
        return content
    unpack = zlib.decompressobj()
    try:
        text = unpack.decompress(content, _MOST_TEXT)
    except zlib.error as err:
        raise CodecError(_damaged(str(err))) from err
    if not unpack.eof:
        raise CodecError(_damaged("it is cut off, or far too long"))
    return text


def _parse_info(text: bytes) -> SliceInfo:
    try:
        values = json.loads(text)
        version = values.pop("version", None) if isinstance(values, dict) else None
        if type(version) is int and version > CODEC_VERSION:
            raise CodecError(f"its text is of codec version {version}, this is {CODEC_VERSION}; update specgan")
        if version != CODEC_VERSION:
            raise ValueError(f"version is {version!r}, not {CODEC_VERSION}")
        _check_fields(values, SliceInfo)
        _check_fields(values["params"], CodecParams)
        return SliceInfo(**{**values, "params": CodecParams(**values["params"])})
    except CodecError:
        raise
    except (ValueError, RecursionError) as err:  # RecursionError: deeply nested brackets
        raise CodecError(_damaged(str(err))) from err


def _damaged(reason: str) -> str:
    return f"its specgan-codec text is damaged ({reason[:200]}); encode the picture again"


def _check_fields(values: object, kind: type) -> None:
    """Raises ValueError unless `values` has exactly the fields of `kind`."""
    wanted = {field.name for field in fields(kind)}
    if not isinstance(values, dict):
        raise ValueError(f"{kind.__name__} is {values!r}; an object with {', '.join(sorted(wanted))}")
    if odd := values.keys() ^ wanted:
        raise ValueError(f"missing or unknown in {kind.__name__}: {', '.join(sorted(odd))}")
