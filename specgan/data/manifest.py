"""The table of the clips in a dataset folder: read, written, split."""

import csv
import hashlib
import logging
import os
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import BinaryIO

import pandas as pd

from specgan.files import atomic_path, composed

log = logging.getLogger(__name__)

# pyarrow, which pandas would take where it is installed, holds no names that are not UTF-8.
pd.set_option("mode.string_storage", "python")

MANIFEST_NAME = "manifest.csv"
# group: of recordings that are never in different splits, where there are any.
COLUMNS = (
    *("path", "label", "split", "recording", "group", "start_s", "duration_s", "n_frames", "first_frame"),
    *("source", "sound"),
)
REQUIRED_COLUMNS = ("path", "label", "split", "recording", "source")  # the others are of clips cut from sounds
SPLITS = ("train", "val", "test")
SMALL_CLASSES = ("stop", "train")

_CHUNK_ROWS = 2**16  # that are read at a time
_ENCODING_ERRORS = "surrogateescape"  # a file name need not be UTF-8 (old archives); Python holds such bytes so


def is_url(folder: str | Path) -> bool:
    """Whether a folder is a URL for fsspec (s3://bucket/specs, memory://specs), not a path on this machine."""
    return "://" in str(folder)


def read_file(folder: str | Path, path: str) -> bytes:
    """Reads a file of a dataset folder, which may be a URL.

    Raises:
        FileNotFoundError: it does not exist.
    """
    with _open_file(folder, path) as file:
        return file.read()


def _open_file(folder: str | Path, path: str) -> BinaryIO:
    if not is_url(folder):
        return Path(folder, path).open("rb")
    import fsspec

    return fsspec.open(f"{str(folder).rstrip('/')}/{path}", "rb").open()


def read_manifest(
    folder: str | Path, *, split: str | None = None, columns: Collection[str] | None = None
) -> pd.DataFrame:
    """Reads `<folder>/manifest.csv`: one row a clip, columns REQUIRED_COLUMNS and perhaps others of COLUMNS.

    `path` is relative to the folder; it may lead out of it (`../specs/kick/1.pt`). Clips whose rows have a
    `first_frame` are in a shard, many in one file.

    Args:
        folder: a dataset folder, or the URL of one.
        split: only the rows of this one; None: all.
        columns: only these, where the table has them, and split; None: all. Fewer take less time and memory.
    Raises:
        FileNotFoundError: the folder has no manifest: it is not a dataset, or not finished.
        ValueError: one of REQUIRED_COLUMNS is missing.
    """
    path = f"{str(folder).rstrip('/')}/{MANIFEST_NAME}"
    wanted = None if columns is None else {*columns, "split"}
    # Labels are words, also when they look like numbers ("007") or like a missing value ("nan").
    text = dict.fromkeys((*REQUIRED_COLUMNS, "group", "sound"), str)
    how = {"dtype": text, "keep_default_na": False, "encoding_errors": _ENCODING_ERRORS}
    try:
        file = _open_file(folder, MANIFEST_NAME)
    except (FileNotFoundError, IsADirectoryError) as err:
        raise FileNotFoundError(
            f"{path}: no such file, so {folder} is no finished dataset folder; "
            "make it with: python preprocess.py task=spectrograms input=<audio> output=" + str(folder)
        ) from err
    usecols = None if wanted is None else lambda name: name in wanted
    with file, pd.read_csv(file, chunksize=_CHUNK_ROWS, usecols=usecols, **how) as parts:
        # part by part: of a large table only the wanted rows and columns are held
        table = pd.concat([_rows_of(part, split) for part in parts], ignore_index=True)
    missing = [name for name in REQUIRED_COLUMNS if (wanted is None or name in wanted) and name not in table.columns]
    if missing:
        raise ValueError(f"{path}: the columns {missing} are missing; make the dataset again")
    return table


def _rows_of(table: pd.DataFrame, split: str | None) -> pd.DataFrame:
    return table if split is None or "split" not in table else table[table["split"] == split]


def write_manifest(table: pd.DataFrame, folder: str | Path) -> None:
    """Writes those of COLUMNS that the table has to `<folder>/manifest.csv`, whole or not at all.

    Raises:
        KeyError: the table lacks one of REQUIRED_COLUMNS.
    """
    with atomic_path(Path(folder) / MANIFEST_NAME) as temporary:
        # Text is quoted: pandas leaves a carriage return in a name bare, which ends the row.
        table.to_csv(
            temporary,
            columns=[column for column in COLUMNS if column in table or column in REQUIRED_COLUMNS],
            index=False,
            quoting=csv.QUOTE_NONNUMERIC,
            errors=_ENCODING_ERRORS,
        )


def label_of(source: str | Path, *, label_from: str, separator: str) -> str:
    """Reads a file's label off its path, with its accents as keyboards type them, see `composed`.

    Args:
        source: the file.
        label_from: "parent": the name of the folder it is in; "prefix": its own name up to the first separator.
        separator: ends the prefix.
    Raises:
        ValueError: unknown `label_from`, empty `separator`, or a name without a label.
    """
    if label_from not in ("parent", "prefix"):
        raise ValueError(f"label_from is {label_from!r}; parent (the folder a file is in) or prefix (of its name)")
    if label_from == "prefix" and not separator:
        raise ValueError("separator is empty; give the text that ends the label in a file's name, e.g. _")
    # abspath: `x.wav` in the current folder has a parent's name too, and a link counts where it is, not where it leads
    if label_from == "parent":
        label = composed(os.path.basename(os.path.dirname(os.path.abspath(source))))
    else:
        label = composed(Path(source).stem).split(composed(separator), 1)[0]
    if not label:
        raise ValueError(f"{source}: its name has no label before {separator!r}; rename it, or label_from=parent")
    return label


def assign_splits(
    recordings: Sequence[str],
    labels: Sequence[str],
    *,
    percentages: Sequence[float],
    seed: int,
    small_classes: str = "stop",
) -> list[str]:
    """Deals clips into train, val and test: whole recordings, each label by the same percentages.

    Each recording's place comes from a hash of its name and the seed, so that a folder that grows keeps nearly all
    clips where they were. scikit-learn's splitters cannot promise every label a place in every split.

    Args:
        recordings: the recording that each clip comes from.
        labels: the label of each clip. A recording counts for the label of its first clip.
        percentages: of train, val and test; they sum to 100. 0 leaves a split empty.
        seed: another seed deals other splits.
        small_classes: what becomes of a label that has fewer recordings than there are splits to fill: "stop" raises
            an error, "train" puts all of its recordings into train, so that it is not measured.
    Returns:
        "train", "val" or "test" for each clip.
    Raises:
        ValueError: the percentages are impossible, or a label has too few recordings and `small_classes` is "stop".
    """
    check_percentages(percentages)
    if small_classes not in SMALL_CLASSES:
        raise ValueError(f"small_classes is {small_classes!r}; one of {', '.join(SMALL_CLASSES)}")
    n_splits = n_filled(percentages)
    label_by_recording: dict[str, str] = {}
    for recording, label in zip(recordings, labels, strict=True):
        label_by_recording.setdefault(recording, label)
    by_label: dict[str, list[str]] = {}
    for recording, label in label_by_recording.items():
        by_label.setdefault(label, []).append(recording)
    if small_classes == "stop":
        _require_enough(by_label, n_splits)

    split_of: dict[str, str] = {}
    for members in by_label.values():
        if len(members) < n_splits:
            split_of.update(dict.fromkeys(members, "train"))
            continue
        members.sort(key=lambda name: hashlib.sha256(f"{seed}\0{name}".encode(errors=_ENCODING_ERRORS)).digest())
        counts = _counts(len(members), percentages)
        names = [name for name, count in zip(SPLITS, counts, strict=True) for _ in range(count)]
        split_of.update(zip(members, names, strict=True))
    return [split_of[recording] for recording in recordings]


def warn_of_small_classes(table: pd.DataFrame, percentages: Sequence[float]) -> None:
    """Logs the labels of a table that `assign_splits` put into train with all of their recordings, if there are any."""
    n_splits = n_filled(percentages)
    recordings = table["recording"]
    if "group" in table:
        recordings = table["group"].where(table["group"] != "", recordings)
    counts = recordings.groupby(table["label"]).nunique()
    if len(small := counts[counts < n_splits]):
        log.warning(
            "small_classes=train: too few recordings for %d splits, so all of them are trained on and none is left to "
            "measure with: %s",
            *(n_splits, ", ".join(f"{label!r} has {count}" for label, count in small.sort_index().items())),
        )


def n_filled(percentages: Sequence[float]) -> int:
    """How many splits get clips, and so how many recordings a label needs to be in each."""
    return sum(percentage > 0 for percentage in percentages)


def check_percentages(percentages: Sequence[float]) -> None:
    """Raises ValueError for anything but percentages of train, val and test."""
    if len(percentages) != 3 or min(percentages) < 0 or abs(sum(percentages) - 100) > 1e-6 or percentages[0] <= 0:
        raise ValueError(
            f"splits is {list(percentages)}; give three percentages for train, val and test that sum to 100, "
            "train above 0, e.g. [80,10,10]"
        )


def _require_enough(by_label: Mapping[str, Sequence[str]], n_splits: int) -> None:
    small = {label: len(members) for label, members in sorted(by_label.items()) if len(members) < n_splits}
    if small:
        raise ValueError(
            f"too few recordings for {n_splits} splits: "
            + ", ".join(f"{label!r} has {count}" for label, count in small.items())
            + "; record more, train on them without measuring them (small_classes=train), make fewer splits "
            "(splits=[100,0,0]), or, where the spectrograms are made, drop such labels "
            f"(min_recordings={n_splits}) or merge them (merge={{{next(iter(small))}: <other label>}})"
        )


def _counts(n: int, percentages: Sequence[float]) -> list[int]:
    """Shares `n` by largest remainder, at least 1 for every percentage above 0."""
    exact = [n * percentage / 100 for percentage in percentages]
    counts = [max(int(share), int(share > 0)) for share in exact]
    while sum(counts) > n:
        index = max(range(3), key=lambda i: (counts[i] - exact[i] if counts[i] > 1 else -n, counts[i]))
        counts[index] -= 1
    while sum(counts) < n:
        counts[max(range(3), key=lambda i: exact[i] - counts[i])] += 1
    return counts
