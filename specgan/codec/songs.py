"""Pictures -> songs: which pictures belong together, and which are missing."""

import logging
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any

from specgan.codec.png import SliceInfo
from specgan.files import safe_name, unique_names

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Picture:
    """One picture and its text; None: it has no text, and is a song by itself."""

    source: Path
    info: SliceInfo | None


@dataclass(frozen=True)
class SongPictures:
    """The pictures of a song, in the order of slices and channels, and its place in the output without suffix."""

    key: str
    pictures: tuple[Picture, ...]

    @property
    def source(self) -> Path:
        return self.pictures[0].source

    @property
    def sources(self) -> list[Path]:
        return [picture.source for picture in self.pictures]

    def missing(self) -> dict[int, list[str]]:
        """Returns the numbers of the missing slices by channel, as "4" or "6-8"; only channels that lack any."""
        numbers = defaultdict(list)
        for picture in self.pictures:
            if picture.info is not None:
                numbers[picture.info.channel].append(picture.info.number)
        info = self.pictures[0].info
        gaps = {channel: _gaps(numbers[channel], info.n_slices) for channel in range(info.n_channels)} if info else {}
        return {channel: missing for channel, missing in gaps.items() if missing}


def group_pictures(pictures: Sequence[Picture], root: Path) -> list[SongPictures]:
    """Groups pictures that lie in `root` by their text, whatever their names are, and gives each song a unique place.

    Of two pictures of one slice and channel the second is left out, with a warning.
    """
    groups: dict[Any, dict[tuple[int, int], Picture]] = defaultdict(dict)
    for picture in pictures:
        info = picture.info
        song = picture.source if info is None else replace(info, number=0, channel=0)
        place = (0, 0) if info is None else (info.number, info.channel)
        first = groups[song].setdefault(place, picture)
        if first is not picture:
            log.warning("%s: left out, the same slice and channel as %s", picture.source, first.source)
    songs, wanted = {}, {}
    for group in groups.values():
        slices = tuple(group[place] for place in sorted(group))
        first = slices[0]
        name = first.info.song if first.info else first.source.relative_to(root).with_suffix("").as_posix()
        songs[first.source] = slices
        wanted[first.source] = "/".join(safe_name(part) for part in PurePosixPath(name).parts) or "_"
    return [SongPictures(key, songs[path]) for path, key in unique_names(wanted, root).items()]


def alone(picture: Picture, key: str) -> SongPictures:
    """Returns a picture as a song of this one slice, whose place is `key`."""
    info = picture.info
    if info is not None:
        whole = replace(info, number=0, n_samples=info.slice_length, offset=0, n_trimmed=0, channel=0, n_channels=1)
        picture = replace(picture, info=whole)
    return SongPictures(key, (picture,))


def _gaps(numbers: Sequence[int], n: int) -> list[str]:
    """Returns what sorted numbers lack of 0..n-1: [2, 3, 5] of 9 -> ["0-1", "4", "6-8"]."""
    gaps, expected = [], 0
    for number in (*numbers, n):
        if number > expected:
            gaps.append(str(expected) if number == expected + 1 else f"{expected}-{number - 1}")
        expected = number + 1
    return gaps
