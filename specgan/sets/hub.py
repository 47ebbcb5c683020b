"""Data sets of the Hugging Face hub, or local ones of its forms: written out as audio files and a table of them.

The sound is not decoded here: the bytes of each file are taken as they are (`datasets` would need torchcodec).
"""

import csv
import json
import logging
import os
import shutil
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from specgan.files import safe_name, write_json
from specgan.hub import first_line
from specgan.sets.archives import MissingSetError
from specgan.sets.recording import SetRecording

if TYPE_CHECKING:
    from datasets import Audio, IterableDataset

log = logging.getLogger(__name__)

TABLE_NAME = "recordings.csv"
SETTINGS_NAME = "data-set.json"

_SPLITS = {"train": "train", "test": "test", **dict.fromkeys(("validation", "valid", "val", "dev"), "val")}


@dataclass(frozen=True)
class HubSet:
    """Which data set, and which of its columns.

    Args:
        name: `user/name` on the hub, or a local folder: of audio files, of Parquet files, or what load_dataset reads.
        label_column: of the classes.
        audio_column: of the sounds.
        group_column: of what must not be in different splits (speaker, take); None: none.
        subset: of data sets that have several ("config" of load_dataset); None: the default one.
        revision: of the hub's repository, a branch, tag or commit; None: the latest.
    """

    name: str
    label_column: str = "label"
    audio_column: str = "audio"
    group_column: str | None = None
    subset: str | None = None
    revision: str | None = None


def fetch_hub_set(audio_dir: str | Path, **which: Any) -> None:
    """Writes the sounds of a data set into a folder, once: `<label>/<split>_0000000.wav`, ..., and a table of them.

    Args:
        audio_dir: folder; it does not exist yet, or holds this data set.
        **which: the fields of `HubSet`.
    Raises:
        MissingSetError: it cannot be fetched.
        ValueError: no such column, no sound with a label, or the folder holds something else.
    """
    chosen, folder = HubSet(**which), Path(audio_dir)
    chosen = HubSet(**{**asdict(chosen), "name": os.path.expanduser(chosen.name)})
    if (folder / TABLE_NAME).is_file():
        kept = json.loads((folder / SETTINGS_NAME).read_text(encoding="utf-8"))
        if kept != asdict(chosen):
            raise ValueError(f"{folder}: was made with {kept}, not {asdict(chosen)}; remove it, or give another folder")
        return
    if folder.exists() and any(folder.iterdir()):
        raise ValueError(f"{folder}: holds something else than {chosen.name}; give another folder: data.audio_dir=...")
    splits = _open(chosen)
    partial = folder.with_name(f".partial-{folder.name}")
    shutil.rmtree(partial, ignore_errors=True)  # of a killed run
    partial.mkdir(parents=True)
    try:
        rows, n_left_out = [], 0
        own = {name: _SPLITS.get(name, "") for name in splits}
        has_own = set(own.values()) > {"train"}
        for name, rows_of in splits.items():
            for row in _written(name, rows_of, chosen, partial):
                n_left_out += row is None
                if row is not None:
                    rows.append({**row, "split": own[name] if has_own else ""})
        if not rows:
            raise ValueError(f"{chosen.name}: no row has both a label and a sound")
        if n_left_out:
            log.warning("%s: left out %d rows without a label or a sound", chosen.name, n_left_out)
        with (partial / TABLE_NAME).open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, ["path", "label", "group", "split"])
            writer.writeheader()
            writer.writerows(rows)
        write_json(partial / SETTINGS_NAME, asdict(chosen))
        if folder.exists():
            folder.rmdir()
        os.replace(partial, folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    counts = Counter(row["label"] for row in rows)
    log.info("%s: wrote %d sounds of %d labels to %s", chosen.name, len(rows), len(counts), folder)


def list_hub_set(audio_dir: Path) -> Iterator[SetRecording]:
    """Yields what `fetch_hub_set` wrote.

    Raises:
        FileNotFoundError: nothing, or not all.
    """
    path = Path(audio_dir, TABLE_NAME)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file, so data=hf did not write {audio_dir}; check data.audio_dir")
    with path.open(newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            yield SetRecording(Path(audio_dir, row["path"]), row["label"], group=row["group"], split=row["split"])


def _open(chosen: HubSet) -> "Mapping[str, IterableDataset]":
    """Opens each split, so that it is fetched while it is read and no second copy stays on the disk."""
    try:
        from datasets import load_dataset
    except ModuleNotFoundError as err:
        raise ModuleNotFoundError('data=hf needs datasets: pip install "specgan[datasets]"', name="datasets") from err
    is_local = os.path.isdir(chosen.name)
    try:
        splits = load_dataset(chosen.name, chosen.subset, revision=chosen.revision, streaming=True)
        _log_licence(chosen, splits, is_local=is_local)
        return splits
    except Exception as err:  # from a wrong name to a proxy's page
        reason = first_line(err)
    if is_local:
        raise ValueError(f"{chosen.name}: load_dataset cannot read this folder ({reason})")
    raise MissingSetError(
        f"{chosen.name}: no such folder, and it cannot be fetched from https://huggingface.co/datasets/{chosen.name} "
        f"({reason}); its page there says its size and licence. On a machine with network: hf download {chosen.name} "
        "--repo-type dataset --local-dir <folder>; then data.name=<folder>"
    )


def _log_licence(chosen: HubSet, splits: "Mapping[str, IterableDataset]", *, is_local: bool) -> None:
    if is_local:
        return
    from huggingface_hub import dataset_info

    info = next(iter(splits.values())).info
    card = dataset_info(chosen.name, revision=chosen.revision).card_data
    licence = (card.license if card else None) or info.license or "not stated: ask its authors"
    size = f", {info.download_size / 1e9:.2g} GB" if info.download_size else ""
    log.info("%s: fetching https://huggingface.co/datasets/%s%s; licence: %s", *2 * (chosen.name,), size, licence)


def _written(split: str, rows: "IterableDataset", chosen: HubSet, folder: Path) -> Iterator[dict[str, str] | None]:
    """Writes the sounds of a split, and yields their rows of the table; None: a row without label or sound."""
    from datasets import ClassLabel

    features = rows.features or {}
    wanted = [chosen.label_column, chosen.audio_column, *([chosen.group_column] if chosen.group_column else [])]
    missing = [name for name in wanted if features and name not in features]
    if missing:
        raise ValueError(
            f"{chosen.name}: no column {missing[0]!r} in its split {split!r}; there are {', '.join(features)}: set "
            "data.label_column, data.audio_column, data.group_column"
        )
    kind = features.get(chosen.label_column)
    words = kind.names if isinstance(kind, ClassLabel) else None
    for number, row in enumerate(rows.cast_column(chosen.audio_column, _undecoded())):
        label, sound = row[chosen.label_column], row[chosen.audio_column]
        content = _content(sound)
        if label is None or content is None or (words is not None and label < 0):  # -1: a test set without labels
            yield None
            continue
        if not isinstance(label, (str, int, bool)):
            raise ValueError(f"{chosen.name}: label_column {chosen.label_column!r} holds {label!r}; words or numbers")
        word = words[label] if words is not None else str(label)
        suffix = PurePosixPath(sound.get("path") or "").suffix
        path = PurePosixPath(safe_name(word), f"{safe_name(split)}_{number:07d}{suffix}")
        target = folder / path
        target.parent.mkdir(exist_ok=True)
        target.write_bytes(content)
        group = "" if chosen.group_column is None else str(row[chosen.group_column])
        yield {"path": str(path), "label": word, "group": group}


def _undecoded() -> "Audio":
    """The kind of a column of sounds that are handed on as they are: bytes, or where they are."""
    from datasets import Audio

    class Undecoded(Audio):
        def encode_example(self, value: Any) -> dict[str, Any]:  # that of `Audio` needs torchcodec
            if isinstance(value, (str, Path)):
                return {"bytes": None, "path": str(value)}
            if isinstance(value, (bytes, bytearray)):
                return {"bytes": bytes(value), "path": None}
            return {"bytes": value.get("bytes"), "path": value.get("path")}

    return Undecoded(decode=False)


def _content(sound: Mapping[str, Any] | None) -> bytes | None:
    if not sound:
        return None
    if sound.get("bytes") is not None:
        return sound["bytes"]
    if not sound.get("path"):
        return None
    import fsspec

    with fsspec.open(sound["path"], "rb") as file:  # also hf://datasets/..., or a file in an archive
        return file.read()
