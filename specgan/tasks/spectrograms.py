"""Task: a folder of audio -> a dataset folder of spectrograms that train.py opens."""

import logging
import os
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
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
from specgan.files import atomic_path, remove_files, safe_name, unique_names
from specgan.manifest import MANIFEST_NAME, assign_splits, label_of, read_manifest, write_manifest
from specgan.spectrogram import LevelRange, SpectrogramParams
from specgan.tasks.clips import Clip, Recipe, check_device, make_clips, make_clips_on_device
from specgan.tasks.executors import serial
from specgan.tasks.journal import Journal, run_missing
from specgan.tasks.runner import FAILURES_NAME, Report, check_on_error, run_units

log = logging.getLogger(__name__)

PARAMS_NAME = "params.yaml"
_RESERVED = {MANIFEST_NAME, PARAMS_NAME, FAILURES_NAME}  # names in a dataset folder that no label's folder may have


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
        seed: of the splits.
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
    recipe = Recipe(params=params, **recipe)
    check_on_error(on_error)
    check_device(device)
    clips = _plan(
        input, recursive=recursive, label_from=label_from, separator=separator, classes=classes, merge=merge or {}
    )
    clips = _drop_small(clips, min_recordings)
    # Refuse impossible splits before the work, not after it.
    assign_splits([c.recording for c in clips], [c.label for c in clips], percentages=splits, seed=seed)

    # input: files of another folder may have the names and dates of this one's.
    settings = {**recipe.settings(), "input": str(input.resolve())}
    journal = Journal(output, settings, endings=r"(_\d{4,})?(_ch\d+)?\.(pt|png)")
    if not journal.path.exists() and (output / MANIFEST_NAME).exists():  # a copy without hidden files, of any settings
        remove_files(read_manifest(output)["path"], output)
    if journal.is_outdated or not (output / PARAMS_NAME).exists():
        _write_yaml(output / PARAMS_NAME, settings)  # without statistics: the folder is unfinished
    if device == "cpu":
        run = partial(run_units, work=partial(make_clips, recipe=recipe, output=output))
    else:
        run = partial(make_clips_on_device, recipe=recipe, output=output, device=device)
    made, failures, n_skipped = run_missing(
        journal,
        clips,
        run,
        final=output / MANIFEST_NAME,
        executor=executor,
        on_error=on_error,
        description="spectrograms",
    )

    real_folder = cache(os.path.realpath)
    there = [clip for clip in clips if clip.recording in journal.entries]
    table = pd.DataFrame([row for clip in there for row in _rows(clip, journal, real_folder)])
    table["split"] = assign_splits(table["recording"], table["label"], percentages=splits, seed=seed)
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


def _rows(clip: Clip, journal: Journal, real_folder: Callable[[str], str]) -> Iterator[dict]:
    folder, name = os.path.split(clip.source)
    # Only links are followed one by one: the way to the folder is the same for all in it.
    source = os.path.realpath(clip.source) if os.path.islink(clip.source) else os.path.join(real_folder(folder), name)
    for row in journal.entries[clip.recording]["rows"]:
        yield {"label": clip.label, "recording": clip.recording, "source": source, **row}


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
