"""Task: a folder of audio -> a dataset folder of spectrograms that train.py opens."""

import hashlib
import logging
import os
import random
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import cache, partial
from pathlib import Path
from typing import Any

import pandas as pd

from specgan.batch.executors import serial
from specgan.batch.journal import Journal, Run, run_missing
from specgan.batch.runner import Batch, OpenExecutor, Report
from specgan.clips.clip import Clip, ClipEntry
from specgan.clips.files import make_clips
from specgan.clips.listing import grouped, list_clips
from specgan.clips.on_device import check_device, run_on_device
from specgan.clips.recipe import Recipe
from specgan.clips.shards import join_small_shards, run_in_shards
from specgan.data import sounds
from specgan.data.dealing import deal_groups
from specgan.data.folder import PARAMS_NAME, is_dataset_folder, write_info, write_settings
from specgan.data.manifest import MANIFEST_NAME, SPLITS, read_manifest, warn_of_small_classes, write_manifest
from specgan.data.shards import remove_shards
from specgan.files import remove_files, require_free
from specgan.sets.recording import SetRecording
from specgan.spectrogram import SpectrogramParams

log = logging.getLogger(__name__)


def make_spectrograms(
    input: str | Path,
    output: str | Path,
    *,
    params: SpectrogramParams,
    recursive: bool = True,
    label_from: str = "parent",
    separator: str = "_",
    classes: str | Sequence[str] | None = None,
    merge: Mapping[str, str] | Sequence[tuple[str, str]] | None = None,
    min_recordings: int = 1,
    recording_pattern: str | None = None,
    listing: Callable[[Path], Iterable[SetRecording]] | None = None,
    own_splits: bool = True,
    splits: Sequence[float] = (100, 0, 0),
    small_classes: str = "stop",
    seed: int = 0,
    shard_size: int = 4096,
    keep_sounds: int = 0,
    executor: OpenExecutor = serial,
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
        classes: label or labels to keep, after merging; None keeps all.
        merge: new label for old label, or pairs of an old and a new one.
        min_recordings: labels with fewer recordings are left out, which is logged.
        recording_pattern: regular expression, searched in the name of a file without suffix; files of a folder whose
            first groups match the same text were cut from one recording, and stay in one split. None: as the files say
            (clips of task=slice); those that say nothing are each on its own.
        listing: lists the recordings of a data set of known layout, see `list_clips`; None: all audio files.
        own_splits: use the splits that such a data set publishes; only what it does not publish is dealt.
        splits: percentages of train, val, test.
        small_classes: "stop", or "train": labels with fewer recordings than splits are trained on and not measured.
        seed: of the splits, and of which clips share a shard.
        shard_size: recordings in a shard at most, with format "shards"; fewer where that keeps all workers busy, or
            where their frames fill 64 MiB.
        keep_sounds: recordings of each split whose sound is kept too, at most; 0: none. By it generated sounds are
            measured against real ones as recorded; without it, as the spectrograms sound through a vocoder.
        executor: opens the workers, see batch.executors.
        device: "cpu": the workers do it all, each alone. Any other torch device, "cuda" for one: the workers decode,
            and this process transforms what they send in batches on that device; the numbers agree within 1e-4.
        on_error: "skip" records a bad file in failures.csv and goes on; "raise" stops at the first.
        **recipe: what is made of a recording, see `Recipe`: channels, downmix, peak, format, pooling, pictures.
    Raises:
        FileNotFoundError, ValueError: nothing to do, arguments or labels that cannot work, or a file is in the way that
            no earlier run wrote; nothing is written.
    """
    # Absolute, because the workers may run elsewhere. abspath: a link counts where it is, not where it leads.
    input, output = Path(os.path.abspath(input)), Path(os.path.abspath(output))
    made_of = Recipe(params=params, **recipe)
    batch = Batch(executor, on_error, "spectrograms")
    check_device(device)
    if not isinstance(shard_size, int) or shard_size < 1:
        raise ValueError(f"shard_size is {shard_size!r}; an integer of at least 1")
    if not isinstance(keep_sounds, int) or keep_sounds < 0:
        raise ValueError(f"keep_sounds is {keep_sounds!r}; an integer of at least 0")
    clips = list_clips(
        input,
        recursive=recursive,
        label_from=label_from,
        separator=separator,
        classes=classes,
        merge=merge,
        min_recordings=min_recordings,
        listing=listing,
    )
    clips = grouped(clips, input if input.is_dir() else input.parent, recording_pattern=recording_pattern)
    if not own_splits:
        clips = [replace(clip, split="") for clip in clips]
    # Refuse impossible splits before the work, not after it.
    deal = partial(_deal, percentages=splits, seed=seed, small_classes=small_classes)
    split_of = deal(clips)
    in_order = _shuffled(clips, split_of, seed) if made_of.format == "shards" else clips

    # input: files of another folder may have the names and dates of this one's.
    settings = {**made_of.settings(), "input": str(input.resolve())}
    journal = _open_journal(output, settings, clips)
    run = _run(batch, made_of, output, device=device, shard_size=shard_size)
    made, failures, n_skipped = run_missing(journal, in_order, run, final=output / MANIFEST_NAME)
    if made_of.format == "shards":
        join_small_shards(in_order, journal, shard_size)

    _note_channels([entry["n_channels"] for entry in journal.entries.values() if "n_channels" in entry])
    there = [clip for clip in clips if clip.recording in journal.entries]
    table = _table(there, journal)
    dealt = dict(zip((clip.recording for clip in there), deal(there), strict=True))
    table["split"] = table["recording"].map(dealt)
    if any(clip.group for clip in there):
        table["group"] = table["recording"].map({clip.recording: clip.group for clip in there})
    if small_classes == "train":
        warn_of_small_classes(table, splits)
    _warn_of_copies(table)
    remove_shards(output, keep=table["path"].unique())
    table, sound_rate = sounds.keep_sounds(
        table,
        output,
        n_of_split=keep_sounds,
        sample_rate=params.sample_rate,
        downmix=made_of.downmix,
        peak=made_of.peak,
        seed=seed,
        channels=made_of.channels,
    )
    if sound_rate is not None:
        settings["sound_rate"] = sound_rate
    write_info(settings, table, output, silence=params.silence)
    write_manifest(table, output)  # last: it says that the folder is complete
    counts = ", ".join(f"{label} {count}" for label, count in sorted(Counter(table["label"]).items()))
    return Report(
        n_done=len(made),
        n_skipped=n_skipped,
        failures=failures,
        message=f"{output}: {len(table)} spectrograms; {counts}",
    )


def _deal(clips: Sequence[Clip], *, percentages: Sequence[float], seed: int, small_classes: str) -> list[str]:
    return deal_groups(
        [clip.group or clip.recording for clip in clips],
        [clip.label for clip in clips],
        percentages=percentages,
        seed=seed,
        small_classes=small_classes,
        own=[clip.split for clip in clips],
    )


def _open_journal(output: Path, settings: dict[str, object], clips: Sequence[Clip]) -> Journal[ClipEntry]:
    """Opens the journal, and marks the folder as unfinished if it has other settings or none."""
    journal: Journal[ClipEntry] = Journal(output, settings, endings=r"(_\d{4,})?(_ch\d+)?\.(pt|png)")
    if not journal.path.exists() and not is_dataset_folder(output):
        require_free(output, (MANIFEST_NAME, PARAMS_NAME))
    elif not journal.path.exists() and (output / MANIFEST_NAME).exists():  # a copy without hidden files
        remove_files(read_manifest(output)["path"].unique(), output)
    journal.require_free(clip.recording for clip in clips)
    if journal.is_outdated or not (output / PARAMS_NAME).exists():
        write_settings(settings, output)
    return journal


def _run(batch: Batch, recipe: Recipe, output: Path, *, device: str, shard_size: int) -> Run[Clip, ClipEntry]:
    """What makes the spectrograms of clips: here on a device, or on the workers, into shards or files."""
    if device != "cpu":
        return partial(run_on_device, batch=batch, recipe=recipe, output=output, device=device, shard_size=shard_size)
    if recipe.format == "shards":
        return partial(run_in_shards, batch=batch, recipe=recipe, output=output, shard_size=shard_size)
    return partial(batch.run, work=partial(make_clips, recipe=recipe, output=output))


def _shuffled(clips: Sequence[Clip], split_of: Sequence[str], seed: int) -> list[Clip]:
    """The order in which clips go into shards: training mixes few shards at a time, so each has all labels.

    Each split has its own shards, until the splits change.
    """
    together = list(zip(split_of, clips, strict=True))
    random.Random(seed).shuffle(together)
    return [clip for _, clip in sorted(together, key=lambda pair: SPLITS.index(pair[0]))]


def _note_channels(n_channels: Sequence[int]) -> None:
    """Logs how many recordings, by the channels of their files, did not have the two of their spectrograms."""
    n_single, n_many = sum(n == 1 for n in n_channels), sum(n > 2 for n in n_channels)
    if n_single:
        log.info("%d of %d recordings are mono: both channels are the same", n_single, len(n_channels))
    if n_many:
        log.info(
            "%d of %d recordings have more than two channels: each side has its front, the centre and its surround",
            n_many,
            len(n_channels),
        )


def _warn_of_copies(table: pd.DataFrame) -> None:
    """Logs which files are the same, byte for byte, where their labels or splits differ.

    Only files whose spectrograms have the same highest level and length are read.
    """
    first = table.drop_duplicates("recording")
    alike = first[first.duplicated(["peak_level", "n_frames"], keep=False)]
    digests = [_digest(source) for source in alike["source"]]
    for _, same in alike.assign(digest=digests).dropna(subset="digest").groupby("digest"):
        if len(same.drop_duplicates(["label", "split"])) > 1:
            places = ", ".join(f"{row.source} ({row.label}, {row.split})" for row in same.head(5).itertuples())
            log.warning(
                "%d files are the same sound, in several classes or splits, which makes measurements look better or "
                "classes alike; keep one of them: %s",
                len(same),
                places,
            )


def _digest(source: str) -> str | None:
    """Of a file's content; None: it is gone since."""
    try:
        with open(source, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:
        return None


def _table(clips: Sequence[Clip], journal: Journal[ClipEntry]) -> pd.DataFrame:
    """The manifest of the clips in the journal, without splits."""
    real_folder = cache(os.path.realpath)
    columns: dict[str, list] = defaultdict(list)
    for clip in clips:
        folder, name = os.path.split(clip.source)
        # Only links are resolved one by one: the folder of all files in it is resolved once.
        is_link = os.path.islink(clip.source)
        source = os.path.realpath(clip.source) if is_link else os.path.join(real_folder(folder), name)
        for row in journal.entries[clip.recording]["rows"]:
            known = {"label": clip.label, "recording": clip.recording, "source": source, "recorded_rate": 0, **row}
            for name, value in known.items():
                columns[name].append(value)
    return pd.DataFrame(columns)
