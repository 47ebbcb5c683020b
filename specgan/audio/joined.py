"""Files of several sounds, one behind the other, as `cat a.ogg b.ogg` or the recorder of a web radio makes them.

Decoders stop at the end of the first. Most kinds say where that is, so that an ordinary file costs a look behind it;
Ogg and FLAC do not, and are searched for another beginning.
"""

import io
import os
from typing import BinaryIO

from specgan.audio.kinds import HEAD_BYTES, is_sound

_BLOCK = 2**20  # bytes that are searched at a time
_ID3V1 = 128  # bytes of the tag behind an MP3
_OPEN_SIZES = (0, 2**32 - 1)  # that streaming writers put in, for they do not know it
# Where the size is, how many bytes it has, their order, and what is to be added.
_SIZES = {
    b"RIFF": (4, 4, "little", 8),
    b"RIFX": (4, 4, "big", 8),
    b"FORM": (4, 4, "big", 8),
    b"RF64": (20, 8, "little", 8),
    b"BW64": (20, 8, "little", 8),
    b"riff": (16, 8, "little", 0),  # W64
}


def find_parts(file: BinaryIO) -> list[tuple[int, int]]:
    """Returns where in a file each sound begins and ends, in bytes; one, unless files were joined."""
    starts = [0]
    while (start := _next_start(file, starts[-1])) is not None and start > starts[-1]:  # a size may be damaged
        starts.append(start)
    return list(zip(starts, [*starts[1:], file.seek(0, os.SEEK_END)], strict=True))


def open_part(file: BinaryIO, start: int, end: int) -> BinaryIO:
    """Opens some bytes of a file as a file of its own. The file must not be used otherwise meanwhile."""
    return io.BufferedReader(_Part(file, start, end), _BLOCK)


class _Part(io.RawIOBase):
    def __init__(self, file: BinaryIO, start: int, end: int) -> None:
        self.file, self.start, self.size, self.position = file, start, end - start, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        origin = {os.SEEK_SET: 0, os.SEEK_CUR: self.position, os.SEEK_END: self.size}[whence]
        self.position = max(0, origin + offset)
        return self.position

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        self.file.seek(self.start + self.position)
        content = self.file.read(max(0, min(len(buffer), self.size - self.position)))
        buffer[: len(content)] = content
        self.position += len(content)
        return len(content)


def _next_start(file: BinaryIO, start: int) -> int | None:
    """Where the sound behind the one at `start` begins; None: there is no other."""
    head = _read(file, start)
    if head.startswith(b"ID3") and len(head) > 10:
        start += 10 + sum((byte & 127) << shift for byte, shift in zip(head[6:10], (21, 14, 7, 0), strict=True))
        head = _read(file, start)
    kind = head[:4]
    if kind == b"OggS":
        return _find(file, b"OggS\0\2", _behind_beginnings(file, start))
    if kind == b"fLaC":
        return _find(file, b"fLaC", start + 4, then=(b"\0\0\0\x22", b"\x80\0\0\x22"))  # the head of its first block
    if kind == b"caff":
        return _begins(file, _behind_chunks(file, start + 8))
    if head[4:8] == b"ftyp":
        return _begins(file, _behind_boxes(file, start))
    if kind == b".snd":
        size = int.from_bytes(head[8:12], "big")
        return None if size in _OPEN_SIZES else _begins(file, start + int.from_bytes(head[4:8], "big") + size)
    if kind in _SIZES:
        at, n_bytes, order, more = _SIZES[kind]
        size = int.from_bytes(head[at : at + n_bytes], order)  # type: ignore[arg-type]
        if size not in _OPEN_SIZES:
            return _begins(file, start + size + more)
        following = _find(file, b"WAVEfmt ", start + 12)
        return following and following - 8
    return _begins(file, _behind_mp3(start, head))


def _read(file: BinaryIO, start: int, n_bytes: int = HEAD_BYTES) -> bytes:
    if start >= file.seek(0, os.SEEK_END):  # a size may be damaged, and no file system seeks everywhere
        return b""
    file.seek(start)
    return file.read(n_bytes)


def _find(file: BinaryIO, mark: bytes, start: int, then: tuple[bytes, ...] = (b"",)) -> int | None:
    """Where `mark`, followed by one of `then`, is found from `start` on."""
    overlap = len(mark) + max(map(len, then)) - 1
    while len(block := _read(file, start, _BLOCK)) > overlap:
        at = block.find(mark)
        while at >= 0:
            if block.startswith(then, at + len(mark)):
                return start + at
            at = block.find(mark, at + 1)
        start += len(block) - overlap
    return None


def _begins(file: BinaryIO, start: int | None) -> int | None:
    """`start`, or where a pad or a tag at it ends, if a sound begins there."""
    if start is None:
        return None
    head = _read(file, start, HEAD_BYTES + _ID3V1)
    skipped = _ID3V1 if head.startswith(b"TAG") else 1 if head.startswith(b"\0") and not is_sound(head) else 0
    return start + skipped if is_sound(head[skipped:][:HEAD_BYTES]) else None


def _behind_beginnings(file: BinaryIO, start: int) -> int:
    """Behind the first page of each stream of an Ogg: a film's picture and sound begin together."""
    while len(page := _read(file, start, 27 + 255)) > 27 and page.startswith(b"OggS\0\2"):
        start += 27 + page[26] + sum(page[27 : 27 + page[26]])
    return start


def _behind_chunks(file: BinaryIO, start: int) -> int | None:
    """Behind the last chunk of a CAF; None: its last one is open-ended."""
    while len(head := _read(file, start, 12)) == 12 and not is_sound(head):
        size = int.from_bytes(head[4:], "big", signed=True)
        if size < 0:
            return None
        start += 12 + size
    return start


def _behind_boxes(file: BinaryIO, start: int) -> int | None:
    """Behind the last box of an MP4, which begins with the only `ftyp`; None: it is open-ended."""
    first = True
    while len(head := _read(file, start, 16)) >= 8 and (first or head[4:8] != b"ftyp"):
        size = int.from_bytes(head[:4], "big")
        size = int.from_bytes(head[8:16], "big") if size == 1 else size
        if size < 8:
            return None
        start, first = start + size, False
    return start


def _behind_mp3(start: int, head: bytes) -> int | None:
    """Behind an MP3 whose first frame says how many bytes all of them have; None: it does not."""
    if not is_sound(head):
        return None
    for mark in (b"Xing", b"Info"):
        at = head.find(mark, 0, 64)
        if at >= 0 and (flags := int.from_bytes(head[at + 4 : at + 8], "big")) & 2:
            at += 8 + 4 * (flags & 1)
            return start + int.from_bytes(head[at : at + 4], "big")
    return None
