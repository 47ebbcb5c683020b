"""The recordings of a folder, with their labels: the same for every task that takes labelled sounds."""

import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from specgan.audio import find_audio
from specgan.batch.failures import FAILURES_NAME
from specgan.clips.clip import Clip
from specgan.data.folder import PARAMS_NAME
from specgan.data.manifest import MANIFEST_NAME, label_of
from specgan.data.shards import SHARDS_NAME
from specgan.data.sounds import SOUNDS_NAME
from specgan.files import composed, safe_name, unique_names

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
    files = find_audio(root, recursive=recursive)
    raw = {source: label_of(source, label_from=label_from, separator=separator) for source in files}
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
    return _drop_small(sorted(clips, key=lambda clip: clip.recording), min_recordings)


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
