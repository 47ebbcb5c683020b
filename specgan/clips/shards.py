"""Recordings -> shards, each with the spectrograms of many."""

import math
import os
from collections import defaultdict
from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch

from specgan.batch.failures import Failure, UnitError, stage
from specgan.batch.journal import Journal
from specgan.batch.runner import Batch, one_by_one
from specgan.clips.clip import Clip, ClipEntry, Piece, Place, Row
from specgan.clips.levels import Levels, levels_in_groups
from specgan.clips.recipe import Recipe
from specgan.data.shards import SHARD_BYTES, open_shard, write_shard

_LEAST_CLIPS = 64  # that a worker takes at a time for a shard, if they are short
_MOST_BYTES = 2**28  # of sound files that it takes: long recordings keep it busy too
_MOST_SMALL = 8  # shards, before they are joined


def run_in_shards(
    clips: Sequence[Clip], *, batch: Batch, recipe: Recipe, output: Path, shard_size: int, n_skipped: int
) -> Generator[tuple[Clip, ClipEntry | Failure]]:
    """`Batch.run` that sends a worker the clips of one shard at a time."""
    sizes = [os.path.getsize(clip.source) for clip in clips[:256] if clip.source.exists()]
    most = min(shard_size, max(1, _MOST_BYTES * len(sizes) // max(1, sum(sizes))))
    chunk = min(most, max(_LEAST_CLIPS, math.ceil(len(clips) / (4 * os.cpu_count()))))
    return batch.run(clips, partial(make_shards, recipe=recipe, output=output), chunk=chunk, n_skipped=n_skipped)


def make_shards(clips: Sequence[Clip], *, recipe: Recipe, output: Path) -> list[ClipEntry | UnitError]:
    """Makes the spectrograms of some recordings into one shard, or several when they are many: work for `Batch.run`.

    Returns:
        For each clip its entry for the journal, whose only output is its shard; or its UnitError.
    """
    shard = Shard(recipe, output)
    entries: list[ClipEntry | UnitError] = []
    for group in levels_in_groups(clips, recipe=recipe):
        shard.add(group)
        if shard.is_full:
            entries += shard.write()
    return entries + shard.write()


class Shard:
    """Recordings that wait until their spectrograms fill a shard."""

    def __init__(self, recipe: Recipe, output: Path) -> None:
        self.recipe, self.output = recipe, output
        self.waiting: list[Levels | UnitError] = []
        self.n_bytes = 0

    @property
    def is_full(self) -> bool:
        return self.n_bytes >= SHARD_BYTES

    @torch.inference_mode()
    def add(self, group: Iterable[Levels | UnitError]) -> None:
        """Takes the spectrograms of recordings; UnitErrors keep their places among them."""
        for taken in one_by_one(group, make=_held):
            self.waiting.append(taken)
            self.n_bytes += 0 if isinstance(taken, UnitError) else sum(level.nbytes for level in taken.spectrograms)

    def write(self) -> list[ClipEntry | UnitError]:
        """Writes the shard, and returns for each recording its entry for the journal, or its UnitError."""
        waiting, self.waiting, self.n_bytes = self.waiting, [], 0
        spectrograms = [level for taken in waiting if not isinstance(taken, UnitError) for level in taken.spectrograms]
        if not spectrograms:
            return [taken for taken in waiting if isinstance(taken, UnitError)]
        try:
            with stage("write"):
                path, first_frames = write_shard(spectrograms, self.output)
        except UnitError as err:
            return [taken if isinstance(taken, UnitError) else err for taken in waiting]
        places: Iterator[Place] = iter([{"path": path, "first_frame": first} for first in first_frames])
        return list(one_by_one(waiting, make=partial(self._entry, path, places)))

    def _entry(self, path: str, places: Iterator[Place], levels: Levels) -> ClipEntry:
        pieces = [(next(places), Piece.of(number, level)) for number, level in enumerate(levels.spectrograms)]
        return levels.entry([path], pieces, self.recipe)


def _held(levels: Levels) -> Levels:
    """The same with all spectrograms (n_channels * n_bins, n_frames) in memory."""
    with closing(levels):
        return replace(levels, spectrograms=[level.flatten(0, 1).cpu() for level in levels.spectrograms])


def join_small_shards(clips: Sequence[Clip], journal: Journal[ClipEntry], shard_size: int) -> None:
    """Joins shards that are small because they were made by many workers, for a few new clips, or after a crash."""
    rows_in: dict[str, list[Row]] = defaultdict(list)  # by shard
    for clip in clips:
        if clip.key in journal.entries:
            for row in journal.entries[clip.key]["rows"]:
                rows_in[row["path"]].append(row)
    small: dict[str, int] = {}  # bytes by shard
    for path, rows in rows_in.items():
        frames = open_shard(journal.folder / path)
        used = sum(row["n_frames"] for row in rows) * frames[:1].nbytes
        if used < SHARD_BYTES / 4 and len(rows) < shard_size / 4:
            small[path] = used
    if len(small) <= _MOST_SMALL:
        return

    moved: dict[str, str] = {}
    together: list[str] = []
    for path in small:
        together.append(path)
        n_rows, n_bytes = sum(len(rows_in[p]) for p in together), sum(small[p] for p in together)
        if n_bytes >= SHARD_BYTES or n_rows >= shard_size or path == next(reversed(small)):
            joined = _join([row for p in together for row in rows_in[p]], journal.folder)
            moved |= dict.fromkeys(together, joined)
            together = []
    for entry in journal.entries.values():
        entry["outputs"] = [moved.get(path, path) for path in entry["outputs"]]
    journal.write()  # and after that the old ones can be removed


def _join(rows: Sequence[Row], folder: Path) -> str:
    """Writes the spectrograms of the rows into one shard, makes the rows say so, and returns its path."""
    opened = {path: open_shard(folder / path) for path in {row["path"] for row in rows}}
    levels = [opened[row["path"]][row["first_frame"] :][: row["n_frames"]].mT for row in rows]
    path, first_frames = write_shard(levels, folder)
    for row, first_frame in zip(rows, first_frames, strict=True):
        row.update({"path": path, "first_frame": first_frame})
    return path
