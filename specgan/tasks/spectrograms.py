"""Task: a folder of audio -> a dataset folder of spectrograms that train.py opens."""

import hashlib
import logging
import os
import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Executor
from contextlib import AbstractContextManager, closing
from dataclasses import asdict
from functools import cache, partial
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

import specgan
from specgan.audio import find_audio
from specgan.files import atomic_path, safe_name
from specgan.manifest import MANIFEST_NAME, assign_splits, label_of, read_manifest, remove_clips, write_manifest
from specgan.spectrogram import LevelRange, SpectrogramParams
from specgan.tasks.clips import Clip, Recipe, check_device, make_clips, make_clips_on_device
from specgan.tasks.executors import serial
from specgan.tasks.journal import Journal
from specgan.tasks.runner import FAILURES_NAME, Failure, Report, check_on_error, run_units, write_failures

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
    journal = _open_journal(output, settings)
    stale = _start(output, clips, journal)

    if device == "cpu":
        make = partial(run_units, work=partial(make_clips, recipe=recipe, output=output))
    else:
        make = partial(make_clips_on_device, recipe=recipe, output=output, device=device)
    failed: dict[str, Failure] = {}
    n_skipped = len(clips) - len(stale)
    outcomes = make(stale, executor=executor, on_error=on_error, description="spectrograms", n_skipped=n_skipped)
    with closing(outcomes):  # so that an error ends the workers at once
        for clip, outcome in outcomes:
            if isinstance(outcome, Failure):
                failed[clip.recording] = outcome
            else:
                journal.add(clip.recording, outcome)
    write_failures([failed[name] for name in sorted(failed)], output)
    if len(failed) == len(clips):
        raise ValueError(f"{input}: none of its {len(clips)} files could be read; see {output / FAILURES_NAME}")

    real_folder = cache(os.path.realpath)
    made = [clip for clip in clips if clip.recording not in failed]
    table = pd.DataFrame([row for clip in made for row in _rows(clip, journal, real_folder)])
    table["split"] = assign_splits(table["recording"], table["label"], percentages=splits, seed=seed)
    if stale or not (output / MANIFEST_NAME).exists():
        journal.write()
    _finish(output, table, settings, params)
    counts = ", ".join(f"{label} {count}" for label, count in sorted(Counter(table["label"]).items()))
    return Report(
        n_done=len(stale) - len(failed),
        n_skipped=n_skipped,
        failures=list(failed.values()),
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

    by_name: dict[str, list[tuple[str, Path]]] = defaultdict(list)
    for source, label in labels.items():
        if classes is None or label in classes:
            folder = safe_name(label)
            if folder.casefold() in _RESERVED:
                folder = f"_{folder}"
            name = f"{folder}/{safe_name(source.stem)}"
            by_name[_one_name(name)].append((name, source))
    clips, taken = [], {name for name, same in by_name.items() if len(same) == 1}
    for same in by_name.values():
        for name, source in same:
            if len(same) > 1:  # the same stem in two folders, or with two suffixes
                digest, n = hashlib.sha256(os.fsencode(source.relative_to(root))).hexdigest(), 8
                while _one_name(f"{name}-{digest[:n]}") in taken:
                    n += 1
                name = f"{name}-{digest[:n]}"
                taken.add(_one_name(name))
            clips.append(Clip(source, labels[source], name))
    return sorted(clips, key=lambda clip: clip.recording)


def _one_name(name: str) -> str:
    """The same for names that differ in case, or in how an accent is put: some file systems take them for one."""
    return unicodedata.normalize("NFC", name).casefold()


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


def _open_journal(output: Path, settings: dict) -> Journal:
    """Removes what other settings made, and only then notes the settings: a killed run never mixes the two."""
    path, journal = output / PARAMS_NAME, Journal(output)
    old = yaml.safe_load(path.read_text()) if path.exists() else {}
    if {name: old.get(name) for name in settings} == settings:
        return journal
    listed = list(read_manifest(output)["path"]) if (output / MANIFEST_NAME).exists() else []
    (output / MANIFEST_NAME).unlink(missing_ok=True)
    remove_clips([*listed, *_outputs(journal, output)], output)
    journal.path.unlink(missing_ok=True)
    _write_yaml(path, settings)
    return Journal(output)


def _start(output: Path, clips: Sequence[Clip], journal: Journal) -> list[Clip]:
    """Clears away what is stale, and gives the clips that are to be made."""
    stale = [clip for clip in clips if not _is_fresh(clip, output, journal.entries.get(clip.recording))]
    fresh = {clip.recording for clip in clips} - {clip.recording for clip in stale}
    if len(fresh) == len(clips) and fresh == set(journal.entries) and not journal.begun:
        return []
    (output / MANIFEST_NAME).unlink(missing_ok=True)  # the folder is unfinished from here on
    gone = [name for name in (*journal.entries, *journal.begun) if name not in fresh]
    remove_clips(_outputs(journal, output, gone), output)
    for name in gone:
        journal.entries.pop(name, None)
    journal.begun.clear()
    journal.begin(clip.recording for clip in stale)
    return stale


def _is_fresh(clip: Clip, output: Path, entry: Mapping[str, Any] | None) -> bool:
    """Whether the outputs were made from the source as it is now."""
    if entry is None:
        return False
    try:
        status = clip.source.stat()
    except OSError:
        return False
    made_from = (entry["source"], entry["size"], entry["mtime_ns"])
    if made_from != (str(clip.source), status.st_size, status.st_mtime_ns):
        return False
    return all((output / path).exists() for path in entry["outputs"])


def _outputs(journal: Journal, output: Path, recordings: Iterable[str] | None = None) -> Iterator[str]:
    """The files that were made of recordings, all by default; also of those at which a killed run was at work."""
    recordings = {*journal.entries, *journal.begun} if recordings is None else set(recordings)
    unfinished: dict[str, set[str]] = defaultdict(set)
    for recording in recordings:
        if recording in journal.entries:
            yield from journal.entries[recording]["outputs"]
        else:
            folder, _, name = recording.rpartition("/")
            unfinished[folder].add(name)
    for folder, names in unfinished.items():
        for path in (output / folder).glob("*"):
            match = re.fullmatch(r"(.+?)(_\d{4,})?(_ch\d+)?\.(pt|png)", path.name, re.DOTALL)
            if match and (match[1] in names or f"{match[1]}{match[2] or ''}" in names):
                yield f"{folder}/{path.name}"
        yield f"{folder}/.partial"  # none of that name: so that remove_clips looks for half-written files there


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
