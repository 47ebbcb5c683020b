"""Task: a folder of audio -> a dataset folder of spectrograms that train.py opens."""

import logging
import math
import os
import random
from collections import Counter, defaultdict
from collections.abc import Callable, Generator, Mapping, Sequence
from concurrent.futures import Executor
from contextlib import AbstractContextManager
from dataclasses import asdict
from functools import cache, partial
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

import specgan
from specgan.audio import find_audio
from specgan.batch.executors import serial
from specgan.batch.journal import Journal, run_missing
from specgan.batch.runner import FAILURES_NAME, Report, check_on_error, run_units
from specgan.clips.files import Clip, Recipe, check_device, make_clips, make_clips_on_device, make_shards
from specgan.data import sounds
from specgan.data.manifest import MANIFEST_NAME, SPLITS, assign_splits, label_of, read_manifest, write_manifest
from specgan.data.shards import SHARD_BYTES, SHARDS_NAME, open_shard, remove_shards, write_shard
from specgan.files import atomic_path, remove_files, safe_name, unique_names
from specgan.spectrogram import LevelRange, SpectrogramParams

log = logging.getLogger(__name__)

PARAMS_NAME = "params.yaml"
_RESERVED = {
    MANIFEST_NAME,
    PARAMS_NAME,
    FAILURES_NAME,
    SHARDS_NAME,
    sounds.SOUNDS_NAME,
}  # in a dataset folder; no label's folder
_LEAST_CLIPS = 64  # that a worker takes at a time for a shard, if they are short
_MOST_SMALL = 8  # shards, before they are joined
_MOST_BYTES = 2**28  # of sound files that it takes: long recordings keep it busy too


def make_spectrograms(
    input: str | Path,
    output: str | Path,
    *,
    params: SpectrogramParams,
    recursive: bool = True,
    label_from: str = "parent",
    separator: str = "_",
    classes: Sequence[str] | None = None,
    merge: Mapping[str, str] | None = None,
    min_recordings: int = 1,
    splits: Sequence[float] = (100, 0, 0),
    seed: int = 0,
    shard_size: int = 4096,
    keep_sounds: int = 0,
    executor: Callable[[], AbstractContextManager[Executor]] = serial,
    device: str = "cpu",
    on_error: str = "skip",
    **recipe: Any,
) -> Report:
    """Writes the spectrograms of each recording, the manifest, and params.yaml with the settings and statistics.

    A second run makes only what is missing or whose source changed (by size or modification time) or, after a change
    of the settings, everything. One run at a time works on a folder.

    Args:
        input: folder of audio files.
        output: dataset folder.
        params: of the spectrograms. With `n_frames` a recording is cut into slices of that many frames, the last one
            followed by silence; with None it keeps its whole length.
        recursive: search the subfolders too.
        label_from: "parent": the folder a file is in; "prefix": its name up to the first separator.
        separator: ends the prefix.
        classes: labels to keep, after merging; None keeps all.
        merge: new label for old label.
        min_recordings: labels with fewer recordings are left out, which is logged.
        splits: percentages of train, val, test.
        seed: of the splits, and of which clips share a shard.
        shard_size: recordings in a shard at most, with format "shards"; fewer where that keeps all workers busy, or
            where their frames fill 64 MiB.
        keep_sounds: recordings of each split whose sound is kept too, at most; 0: none. By it generated sounds are
            measured against real ones as recorded; without it, as the spectrograms sound through a vocoder.
        executor: opens the workers, see tasks.executors.
        device: "cpu": the workers do it all, each alone. Any other torch device, "cuda" for one: the workers decode,
            and this process transforms what they send in batches on that device; the numbers agree within 1e-4.
        on_error: "skip" records a bad file in failures.csv and goes on; "raise" stops at the first.
        **recipe: what is made of a recording, see `Recipe`: mono, downmix, peak, format, pooling, pictures.
    Raises:
        FileNotFoundError, ValueError: nothing to do, or arguments or labels that cannot work; nothing is written.
    """
    # Absolute, because the workers may run elsewhere. abspath: a link counts where it is, not where it leads.
    input, output = Path(os.path.abspath(input)), Path(os.path.abspath(output))
    made_of = Recipe(params=params, **recipe)
    check_on_error(on_error)
    check_device(device)
    if not isinstance(shard_size, int) or shard_size < 1:
        raise ValueError(f"shard_size is {shard_size!r}; an integer of at least 1")
    if not isinstance(keep_sounds, int) or keep_sounds < 0:
        raise ValueError(f"keep_sounds is {keep_sounds!r}; an integer of at least 0")
    clips = _plan(
        input, recursive=recursive, label_from=label_from, separator=separator, classes=classes, merge=merge or {}
    )
    clips = _drop_small(clips, min_recordings)
    # Refuse impossible splits before the work, not after it.
    split_of = assign_splits([c.recording for c in clips], [c.label for c in clips], percentages=splits, seed=seed)

    # input: files of another folder may have the names and dates of this one's.
    settings = {**made_of.settings(), "input": str(input.resolve())}
    journal = Journal(output, settings, endings=r"(_\d{4,})?(_ch\d+)?\.(pt|png)")
    if not journal.path.exists() and (output / MANIFEST_NAME).exists():  # a copy without hidden files, of any settings
        remove_files(read_manifest(output)["path"].unique(), output)
    if journal.is_outdated or not (output / PARAMS_NAME).exists():
        _write_yaml(output / PARAMS_NAME, settings)  # without statistics: the folder is unfinished
    run: Callable[..., Generator[tuple[Any, Any]]]
    if device != "cpu":
        run = partial(make_clips_on_device, recipe=made_of, output=output, device=device, shard_size=shard_size)
    elif made_of.format == "shards":
        run = partial(_run_in_shards, recipe=made_of, output=output, shard_size=shard_size)
    else:
        run = partial(run_units, work=partial(make_clips, recipe=made_of, output=output))
    made, failures, n_skipped = run_missing(
        journal,
        _shuffled(clips, split_of, seed) if made_of.format == "shards" else clips,
        run,
        final=output / MANIFEST_NAME,
        executor=executor,
        on_error=on_error,
        description="spectrograms",
    )

    there = [clip for clip in clips if clip.recording in journal.entries]
    if made_of.format == "shards":
        _join_small_shards(_shuffled(clips, split_of, seed), journal, shard_size)
    table = _table(there, journal)
    table["split"] = assign_splits(table["recording"], table["label"], percentages=splits, seed=seed)
    remove_shards(output, keep=table["path"].unique())
    table = sounds.keep_sounds(
        table,
        output,
        n_of_split=keep_sounds,
        sample_rate=params.sample_rate,
        downmix=made_of.downmix,
        peak=made_of.peak,
        seed=seed,
    )
    _finish(output, table, settings, params)
    counts = ", ".join(f"{label} {count}" for label, count in sorted(Counter(table["label"]).items()))
    return Report(
        n_done=len(made),
        n_skipped=n_skipped,
        failures=failures,
        message=f"{output}: {len(table)} spectrograms; {counts}",
    )


def _plan(
    root: Path,
    *,
    recursive: bool,
    label_from: str,
    separator: str,
    classes: Sequence[str] | None,
    merge: Mapping[str, str],
) -> list[Clip]:
    """Gives each audio file its label and a place of its own."""
    if classes is not None and not classes:
        raise ValueError("classes is empty; give the labels to keep, or null to keep all")
    # Labels are words; on the command line, classes=[0,1] are numbers.
    classes = None if classes is None else [str(name) for name in classes]
    merge = {str(old): str(new) for old, new in merge.items()}
    if "" in merge.values():
        raise ValueError(f"merge is {merge}; a label has at least one letter")
    files = find_audio(root, recursive=recursive)
    raw = {source: label_of(source, label_from=label_from, separator=separator) for source in files}
    labels = {source: merge.get(label, label) for source, label in raw.items()}
    there = set(labels.values())
    unknown = (set(merge) - set(raw.values())) | (set(classes or ()) - there)
    if unknown:
        raise ValueError(
            f"{root}: no file has the label {', '.join(sorted(unknown))}; there are {', '.join(sorted(there))}"
        )

    wanted = {}
    for source, label in labels.items():
        if classes is None or label in classes:
            folder = safe_name(label)
            if folder.casefold() in _RESERVED:
                folder = f"_{folder}"
            wanted[source] = f"{folder}/{safe_name(source.stem)}"
    clips = [Clip(source, labels[source], name) for source, name in unique_names(wanted, root).items()]
    return sorted(clips, key=lambda clip: clip.recording)


def _drop_small(clips: list[Clip], min_recordings: int) -> list[Clip]:
    counts = Counter(clip.label for clip in clips)
    small = sorted(label for label, count in counts.items() if count < min_recordings)
    if len(small) == len(counts):
        raise ValueError(
            f"min_recordings is {min_recordings}: every label has fewer recordings; the largest has "
            f"{max(counts.values())}"
        )
    if small:
        log.warning("left out, fewer than %d recordings: %s", min_recordings, ", ".join(small))
    return [clip for clip in clips if counts[clip.label] >= min_recordings]


def _shuffled(clips: Sequence[Clip], split_of: Sequence[str], seed: int) -> list[Clip]:
    """The order in which clips go into shards: training mixes few shards at a time, so each has all labels.

    Each split has shards of its own, as long as the splits stay as they are.
    """
    together = list(zip(split_of, clips, strict=True))
    random.Random(seed).shuffle(together)
    return [clip for _, clip in sorted(together, key=lambda pair: SPLITS.index(pair[0]))]


def _run_in_shards(
    clips: Sequence[Clip], *, recipe: Recipe, output: Path, shard_size: int, **settings: Any
) -> Generator[tuple[Clip, Any]]:
    """`run_units` that gives a worker a shard's clips at a time."""
    some = [os.path.getsize(clip.source) for clip in clips[:256] if clip.source.exists()]
    most = min(shard_size, max(1, _MOST_BYTES * len(some) // max(1, sum(some))))
    chunk = min(most, max(_LEAST_CLIPS, math.ceil(len(clips) / (4 * os.cpu_count()))))
    yield from run_units(clips, partial(make_shards, recipe=recipe, output=output), chunk=chunk, **settings)


def _join_small_shards(clips: Sequence[Clip], journal: Journal, shard_size: int) -> None:
    """Joins shards that are small because they were made by many workers, for a few new clips, or after a crash."""
    rows_of: dict[str, list[dict]] = defaultdict(list)  # by shard
    for clip in clips:
        for row in journal.entries.get(clip.recording, {}).get("rows", ()):
            rows_of[row["path"]].append(row)
    small = {}
    for path, rows in rows_of.items():
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
        n_rows, n_bytes = sum(len(rows_of[p]) for p in together), sum(small[p] for p in together)
        if n_bytes >= SHARD_BYTES or n_rows >= shard_size or path == next(reversed(small)):
            rows = [row for p in together for row in rows_of[p]]
            opened = {p: open_shard(journal.folder / p) for p in together}
            levels = [opened[row["path"]][row["first_frame"] :][: row["n_frames"]].mT for row in rows]
            joined, places = write_shard(levels, journal.folder)
            for row, place in zip(rows, places, strict=True):
                row.update(path=joined, first_frame=place)
            moved |= dict.fromkeys(together, joined)
            together = []
    for entry in journal.entries.values():
        entry["outputs"] = [moved.get(path, path) for path in entry["outputs"]]
    journal.write()  # and after that the old ones can go


def _table(clips: Sequence[Clip], journal: Journal) -> pd.DataFrame:
    """The manifest as it stands in the journal, without splits."""
    real_folder = cache(os.path.realpath)
    columns: dict[str, list] = defaultdict(list)
    for clip in clips:
        folder, name = os.path.split(clip.source)
        # Only links are followed one by one: the way to the folder is the same for all in it.
        is_link = os.path.islink(clip.source)
        source = os.path.realpath(clip.source) if is_link else os.path.join(real_folder(folder), name)
        for row in journal.entries[clip.recording]["rows"]:
            for name, value in {"label": clip.label, "recording": clip.recording, "source": source, **row}.items():
                columns[name].append(value)
    return pd.DataFrame(columns)


def _finish(output: Path, table: pd.DataFrame, settings: dict, params: SpectrogramParams) -> None:
    _write_yaml(
        output / PARAMS_NAME,
        {
            **settings,
            "level_range": asdict(_level_range(table, params)),
            "class_names": sorted(table["label"].unique().tolist()),
            "specgan_version": specgan.__version__,
        },
    )
    write_manifest(table, output)  # last: it says that the folder is complete


def _level_range(table: pd.DataFrame, params: SpectrogramParams) -> LevelRange:
    peaks = table.loc[table["split"] == "train", "peak_level"]
    return LevelRange(low=params.silence, high=float(peaks.mean() if params.level == "log1p" else peaks.max()))


def _write_yaml(path: Path, content: dict) -> None:
    with atomic_path(path) as temporary:
        temporary.write_text(yaml.safe_dump(content, sort_keys=False))
