"""How songs are cut into the slices that pictures and captions are made of: the same for both."""

import os
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from specgan.audio import DOWNMIXES, find_audio, open_audio
from specgan.codec.coding import CodecParams, segments
from specgan.codec.png import SliceInfo
from specgan.files import safe_name, unique_names


@dataclass(frozen=True)
class Song:
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
        params: of the pictures, which say how long a slice is.
        sample_rate: Hz to resample to; None: each file's own.
        mono: one channel; False: all of them.
        downmix: how, with `mono`: "mean", "left" or "max_energy", see audio.open_audio.
        trim_db: dB re full scale, < 0: what is quieter at both ends is cut off. A song that is quieter throughout stays
            whole. None: nothing is cut.

    Raises:
        ValueError: an impossible setting.
    """

    params: CodecParams
    sample_rate: int | None = None
    mono: bool = True
    downmix: str = "mean"
    trim_db: float | None = None

    def __post_init__(self) -> None:
        if self.sample_rate is not None and self.sample_rate < 1:
            raise ValueError(f"sample_rate is {self.sample_rate}; Hz, at least 1, or null for each file's own")
        if self.downmix not in DOWNMIXES:
            raise ValueError(f"downmix is {self.downmix!r}; one of {', '.join(DOWNMIXES)}")
        if self.trim_db is not None and self.trim_db >= 0:
            raise ValueError(f"trim_db is {self.trim_db}; dB re full scale, below 0, e.g. -60, or null to cut nothing")

    def reading(self) -> dict:
        """Arguments for open_audio."""
        return {"sample_rate": self.sample_rate, "mono": self.mono, "downmix": self.downmix}


def find_songs(root: str | Path, *, recursive: bool) -> list[Song]:
    """Finds the songs in a folder, or takes the one file, and gives each a place of its own. Raises: as find_audio."""
    root = Path(os.path.abspath(root))  # the workers may run elsewhere
    files = find_audio(root, recursive=recursive)
    folder = root.parent if root.is_file() else root
    places = {file: file.relative_to(folder).with_suffix("").parts for file in files}
    wanted = {file: "/".join(map(safe_name, parts)) for file, parts in places.items()}
    return [Song(file, key) for file, key in unique_names(wanted, folder).items()]


def measure(song: Song, slicing: Slicing) -> SliceInfo:
    """Reads a song once, for what every slice must know; gives the info of its first slice.

    Raises: as open_audio.
    """
    n_samples, peak = 0, 0.0
    first, behind = None, 0  # of what is loud
    threshold = 0.0 if slicing.trim_db is None else 10 ** (slicing.trim_db / 20)
    with open_audio(song.source, **slicing.reading()) as stream:
        for block in stream.blocks:
            level = block.abs().amax(dim=0)
            peak = max(peak, float(level.max()))
            if slicing.trim_db is not None:
                loud = (level > threshold).nonzero()
                if len(loud):
                    first = n_samples + int(loud[0]) if first is None else first
                    behind = n_samples + int(loud[-1]) + 1
            n_samples += block.shape[1]
    kept = slice(0, n_samples) if first is None else slice(first, behind)
    return SliceInfo(
        params=slicing.params,
        sample_rate=stream.sample_rate,
        song=song.key,
        n_samples=n_samples,
        offset=kept.start,
        n_trimmed=n_samples - kept.stop,
        n_channels=stream.n_channels,
        gain=1 / peak if peak > 1 else 1.0,
    )


def read_slices(song: Song, info: SliceInfo, slicing: Slicing) -> Generator[Tensor]:
    """Yields what `codec.encode_slice` takes of each slice, (channels, n); the song's own samples without the gain.

    Raises: as open_audio.
    """
    with open_audio(song.source, **slicing.reading(), warn=False) as stream:
        yield from segments(_cut(stream.blocks, slice(info.offset, info.offset + info.n_kept)), info.params)


def picture_names(info: SliceInfo, number: int) -> list[str]:
    """The pictures of a slice, one for each channel, as paths in the output folder."""
    if info.n_channels == 1:
        return [f"{info.song}_{number:04d}.png"]
    return [f"{info.song}_{number:04d}_ch{channel}.png" for channel in range(info.n_channels)]


def _cut(blocks: Iterator[Tensor], kept: slice) -> Iterator[Tensor]:
    """What of the blocks (channels, n) lies in `kept`, samples of the whole."""
    start = 0
    for block in blocks:
        part = block[:, max(0, kept.start - start) : max(0, kept.stop - start)]
        start += block.shape[1]
        if part.shape[1]:
            yield part
