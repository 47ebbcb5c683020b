"""Songs -> slices, of which pictures and captions are made: the same slices for both."""

import os
from collections.abc import Generator, Iterable, Iterator
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, TypedDict

import torch
import torch.nn.functional as F
from torch import Tensor

from specgan.audio import DOWNMIXES, find_audio, open_audio
from specgan.codec.coding import CodecParams, count_slices
from specgan.codec.png import SliceInfo
from specgan.files import safe_name, unique_names


@dataclass(frozen=True)
class SongFile:
    """An audio file, and its place in the output folder, without slice number and suffix."""

    source: Path
    key: str

    @property
    def sources(self) -> list[Path]:
        return [self.source]


@dataclass(frozen=True)
class Slicing:
    """How songs are read and cut.

    Args:
        params: of the pictures; their size is the length of a slice.
        sample_rate: Hz to resample to; None: each file's own.
        mono: one channel; False: all of them.
        downmix: how several channels become one, with `mono`: "mean", "left" or "max_energy", see audio.open_audio.
        trim_db: dB re full scale, < 0: quieter sound at both ends is cut off. A song that is quieter throughout stays
            whole. None: nothing is cut.

    Raises:
        ValueError: an impossible setting.
    """

    params: CodecParams
    sample_rate: int | None = None
    mono: bool = True
    downmix: str = "mean"
    trim_db: float | None = None

    @classmethod
    def of(cls, **settings: Any) -> "Slicing":
        """Makes one from settings of both: the fields of this class, and those of CodecParams in place of `params`."""
        names = {field.name for field in fields(CodecParams)} & settings.keys()
        params = CodecParams(**{name: settings.pop(name) for name in names})
        return cls(params, **settings)

    def __post_init__(self) -> None:
        if self.sample_rate is not None and self.sample_rate < 1:
            raise ValueError(f"sample_rate is {self.sample_rate}; Hz, at least 1, or null for each file's own")
        if self.downmix not in DOWNMIXES:
            raise ValueError(f"downmix is {self.downmix!r}; one of {', '.join(DOWNMIXES)}")
        if self.trim_db is not None and self.trim_db >= 0:
            raise ValueError(f"trim_db is {self.trim_db}; dB re full scale, below 0, e.g. -60, or null to cut nothing")

    def reading(self) -> "_Reading":
        """Returns arguments for open_audio."""
        return {"sample_rate": self.sample_rate, "mono": self.mono, "downmix": self.downmix}


class _Reading(TypedDict):
    sample_rate: int | None
    mono: bool
    downmix: str


def find_songs(root: str | Path, *, recursive: bool) -> list[SongFile]:
    """Finds the songs in a folder, or takes the one file, and gives each a unique place. Raises: as find_audio."""
    root = Path(os.path.abspath(root))  # the workers may run elsewhere
    files = find_audio(root, recursive=recursive)
    folder = root.parent if root.is_file() else root
    places = {file: file.relative_to(folder).with_suffix("").parts for file in files}
    wanted = {file: "/".join(map(safe_name, parts)) for file, parts in places.items()}
    return [SongFile(file, key) for file, key in unique_names(wanted, folder).items()]


def measure(song: SongFile, slicing: Slicing) -> SliceInfo:
    """Reads a song once, for what all of its slices need to know. Returns the info of the first slice.

    Raises: as open_audio.
    """
    n_samples, peak = 0, 0.0
    loud: list[int] = []  # the first and the last loud sample of each block
    threshold = 0.0 if slicing.trim_db is None else 10 ** (slicing.trim_db / 20)
    with open_audio(song.source, **slicing.reading()) as stream:
        for block in stream.blocks:
            level = block.abs().amax(dim=0)
            peak = max(peak, float(level.max()))
            if slicing.trim_db is not None:
                found = (level > threshold).nonzero()[:, 0]
                loud += [n_samples + int(place) for place in found[[0, -1]]] if len(found) else []
            n_samples += block.shape[1]
    start, end = (loud[0], loud[-1] + 1) if loud else (0, n_samples)
    return SliceInfo(
        params=slicing.params,
        sample_rate=stream.sample_rate,
        song=song.key,
        n_samples=n_samples,
        offset=start,
        n_trimmed=n_samples - end,
        n_channels=stream.n_channels,
        gain=1 / peak if peak > 1 else 1.0,
    )


def read_slices(song: SongFile, info: SliceInfo, slicing: Slicing) -> Generator[Tensor]:
    """Yields each slice as `encode_slice` takes it, (channels, n): the samples of the file, without the gain.

    Raises: as open_audio.
    """
    with open_audio(song.source, **slicing.reading(), warn=False) as stream:
        yield from segments(_cut(stream.blocks, info.offset, info.offset + info.n_kept), info.params)


def segments(blocks: Iterable[Tensor], params: CodecParams) -> Iterator[Tensor]:
    """Cuts a waveform that comes in blocks into what `encode_slice` takes: overlapping, with silence around.

    Args:
        blocks: (channels, any length).
    Yields:
        (channels, slice_samples + n_fft - hop_length), one for each slice; the last one may be partly silence.
    """
    length = params.slice_samples + params.n_fft - params.hop_length
    waiting = None
    n_samples = n_slices = 0
    for block in blocks:
        n_samples += block.shape[1]
        waiting = F.pad(block, (params.n_fft // 2, 0)) if waiting is None else torch.cat([waiting, block], dim=1)
        while waiting.shape[1] >= length:
            yield waiting[:, :length]
            waiting = waiting[:, params.slice_samples :]
            n_slices += 1
    for _ in range(n_slices, count_slices(n_samples, params)):
        yield F.pad(waiting, (0, max(0, length - waiting.shape[1])))[:, :length]
        waiting = waiting[:, params.slice_samples :]


def _cut(blocks: Iterable[Tensor], start: int, end: int) -> Iterator[Tensor]:
    """Yields what of the blocks (channels, n) lies in [start, end), samples of the whole."""
    n_before = 0
    for block in blocks:
        part = block[:, max(0, start - n_before) : max(0, end - n_before)]
        n_before += block.shape[1]
        if part.shape[1]:
            yield part


def picture_names(info: SliceInfo, number: int) -> list[str]:
    """Returns the pictures of a slice, one for each channel, as paths in the output folder."""
    if info.n_channels == 1:
        return [f"{info.song}_{number:04d}.png"]
    return [f"{info.song}_{number:04d}_ch{channel}.png" for channel in range(info.n_channels)]
