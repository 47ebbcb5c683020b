"""The recordings of a folder, with their labels: the same for every task that takes labelled sounds."""

import logging
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from specgan.audio import find_audio, origin_of
from specgan.batch.failures import FAILURES_NAME
from specgan.clips.clip import Clip
from specgan.data.dealing import group_by_pattern
from specgan.data.folder import PARAMS_NAME
from specgan.data.manifest import MANIFEST_NAME, label_of
from specgan.data.shards import SHARDS_NAME
from specgan.data.sounds import SOUNDS_NAME
from specgan.files import composed, safe_name, unique_names
from specgan.sets.recording import SetRecording

log = logging.getLogger(__name__)

# In a dataset folder; not names of labels' folders.
_RESERVED = {MANIFEST_NAME, PARAMS_NAME, FAILURES_NAME, SHARDS_NAME, SOUNDS_NAME}


def list_clips(
    root: Path,
    *,
    recursive: bool = True,
    label_from: str = "parent",
    separator: str = "_",
    classes: str | Sequence[str] | None = None,
    merge: Mapping[str, str] | Sequence[tuple[str, str]] | None = None,
    min_recordings: int = 1,
    listing: Callable[[Path], Iterable[SetRecording]] | None = None,
) -> list[Clip]:
    """Gives each audio file of a folder its label, and a place of its own in a dataset folder; sorted by that place.

    Args:
        root: folder of audio files.
        recursive: search the subfolders too.
        label_from: "parent": the folder a file is in; "prefix": its name up to the first separator.
        separator: ends the prefix.
        classes: label or labels to keep, after merging; None keeps all.
        merge: new label for old label, or pairs of an old and a new one.
        min_recordings: labels with fewer recordings are left out, which is logged.
        listing: lists the recordings of a data set of known layout, with labels, groups and splits, given its folder;
            None: all audio files of `root`.
    Raises:
        FileNotFoundError, AudioError: no such folder, or no recording in it.
        ValueError: a label in `classes` or `merge` that no file has, or every label has fewer than `min_recordings`.
    """
    if classes is not None and not classes:
        raise ValueError("classes is empty; give the labels to keep, or null to keep all")
    # Labels are words; in YAML, classes: [0, 1] are numbers.
    if classes is not None:
        classes = [composed(str(name)) for name in ([classes] if isinstance(classes, str) else classes)]
    merge = {composed(str(old)): composed(str(new)) for old, new in dict(merge or {}).items()}
    if "" in merge.values():
        raise ValueError(f"merge is {merge}; a label has at least one letter")
    if listing is None:
        files = find_audio(root, recursive=recursive)
        known_of: dict[Path, SetRecording] = {}
        raw = {source: label_of(source, label_from=label_from, separator=separator) for source in files}
    else:
        known_of = {each.path: each for each in listing(root)}
        raw = {source: composed(each.label) for source, each in sorted(known_of.items())}
    labels = {source: merge.get(label, label) for source, label in raw.items()}
    known = set(labels.values())
    unknown = (set(merge) - set(raw.values())) | (set(classes or ()) - known)
    if unknown:
        raise ValueError(
            f"{root}: no file has the label {', '.join(sorted(unknown))}; there are {', '.join(sorted(known))}"
        )

    wanted = {}
    for source, label in labels.items():
        if classes is None or label in classes:
            folder = safe_name(label)
            if folder.casefold() in _RESERVED:
                folder = f"_{folder}"
            wanted[source] = f"{folder}/{safe_name(source.stem)}"
    clips = [Clip(source, labels[source], name) for source, name in unique_names(wanted, root).items()]
    if known_of:
        clips = [replace(clip, group=known_of[clip.source].group, split=known_of[clip.source].split) for clip in clips]
    return _drop_small(sorted(clips, key=lambda clip: clip.recording), min_recordings)


def grouped(clips: Sequence[Clip], root: Path, *, recording_pattern: str | None = None) -> list[Clip]:
    """Gives clips that were cut from one recording one group.

    Args:
        clips: a group that they have stays, unless there is a pattern.
        root: folder of all of them.
        recording_pattern: says it by their names, see `group_by_pattern`; None: their files say it, see `audio.origin`.
    Raises:
        ValueError: as `group_by_pattern`.
    """
    if recording_pattern is not None:
        return [replace(clip, group=group_by_pattern(recording_pattern, clip.source, root)) for clip in clips]
    return [clip if clip.group else replace(clip, group=origin_of(clip.source) or "") for clip in clips]


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
