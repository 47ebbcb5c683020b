"""Task: the files of a folder -> train, val and test folders that share no recording."""

import json
import logging
import os
import re
import shutil
from collections import Counter
from collections.abc import Sequence
from functools import partial
from pathlib import Path, PurePosixPath

import pandas as pd
from rich.console import Console
from rich.progress import track

from specgan.audio import origin_of
from specgan.batch.failures import FAILURES_NAME, Failure, UnitError, check_on_error, stage, write_failures
from specgan.batch.runner import Report
from specgan.data.dealing import EXAMPLE, deal_groups, group_by_pattern
from specgan.data.folder import PARAMS_NAME, find_info, write_info
from specgan.data.manifest import (
    MANIFEST_NAME,
    REQUIRED_COLUMNS,
    SPLITS,
    label_of,
    read_manifest,
    warn_of_small_classes,
    write_manifest,
)
from specgan.data.sounds import is_sound_path
from specgan.files import (
    atomic_path,
    is_inside,
    load_tensors,
    remove_files,
    safe_name,
    unique_names,
    walk_folders,
    write_json,
)

log = logging.getLogger(__name__)

MODES = ("copy", "symlink", "hardlink", "manifest")
UNFINISHED_NAME = ".unfinished.json"  # while a run works: the files that it removes or makes

_WAYS_OUT = "mode=copy or mode=symlink works across file systems"


def make_splits(
    input: str | Path,
    output: str | Path,
    *,
    ext: str = ".pt",
    label_from: str = "parent",
    separator: str = "_",
    splits: Sequence[float] = (80, 10, 10),
    small_classes: str = "stop",
    seed: int = 0,
    mode: str = "copy",
    recording_pattern: str | None = None,
    on_error: str = "skip",
) -> Report:
    """Deals files into `<output>/<split>/<label>/<name>` and lists them in `<output>/manifest.csv`.

    What an earlier split left in `output` is removed first; files of others stay. A killed run leaves no manifest, and
    the next one clears up behind it. From a dataset folder of task=spectrograms comes one that train.py opens.

    Args:
        input: folder, searched with its subfolders; hidden files and the output's own are left out.
        output: folder of the splits.
        ext: of the files to deal, in either case, with or without the dot.
        label_from: "parent": the folder a file is in; "prefix": its name up to the first separator.
        separator: ends the prefix.
        splits: percentages of train, val, test, by recording and the same for each label; they sum to 100.
        small_classes: "stop", or "train": all files of labels with fewer recordings than splits go to train.
        seed: another seed deals other splits.
        mode: "copy", "symlink" (absolute), "hardlink", or "manifest": the manifest alone, with paths to the input.
        recording_pattern: regular expression, searched in the name without suffix, whose first group names the
            recording that a file was made from, within its folder; None: as the input's own manifest says; without one,
            as the file itself says (clips of task=slice), or else each file is a recording.
        on_error: "skip" records a bad file in failures.csv and goes on; "raise" stops at the first.
    Raises:
        FileNotFoundError, ValueError: nothing to do, or arguments, names or labels that cannot work; nothing is
            written or removed. Also ValueError: bad files were all that a label had for a split; no manifest then.
    """
    input, output = Path(input), Path(output)
    check_on_error(on_error)
    if mode not in MODES:
        raise ValueError(f"mode is {mode!r}; one of {', '.join(MODES)}")
    suffix = "." + str(ext).lower().lstrip(".")
    files = _find(input, output, suffix)
    info = find_info(input)
    table = _plan(input, files, label_from=label_from, separator=separator, pattern=recording_pattern)
    deal = partial(deal_groups, percentages=splits, seed=seed, small_classes=small_classes)
    table["split"] = deal(table["recording"], table["label"])
    table["path"] = table["split"] + "/" + table["name"]
    if mode == "manifest":
        table["path"] = [os.path.relpath(_absolute(file), os.path.realpath(output)) for file in table["file"]]
    if mode == "hardlink":
        _require_one_file_system(files, output)
    table = table.sort_values("path", ignore_index=True)
    info = info if suffix == ".pt" else None
    made = [MANIFEST_NAME, FAILURES_NAME, *([PARAMS_NAME] if info else [])]
    if info is None or mode == "manifest":
        table["sound"] = ""  # nothing but the manifest is written, and its sounds lie in the folder
    kept_sounds = sorted(set(table["sound"]) - {""})
    _clear(output, made if mode == "manifest" else [*made, *kept_sounds, *table["path"]])

    failures: dict[str, Failure] = {}
    peaks: dict[str, float | None] = {}
    rows = track(table.itertuples(), total=len(table), description="splits", console=Console(stderr=True))
    for row in rows:
        try:
            peaks[row.path] = _place(row.file, output / row.path, mode, measure=info is not None)
        except UnitError as err:
            if on_error == "raise":
                raise UnitError(err.stage, f"{row.file}: {err.message}") from err
            log.warning("skipped %s: %s", row.file, err.message)
            failures[row.path] = Failure(str(row.file), err.stage, err.message)
    for sound in kept_sounds:
        _place(input / sound, output / sound, mode, measure=False)
    write_failures(list(failures.values()), output)
    warn_of_small_classes(table, splits)
    _require_every_split(table, failures, output)

    table = table[~table["path"].isin(failures)]
    if not kept_sounds:
        table = table.drop(columns="sound")
    if info:
        measured = table.assign(peak_level=table["path"].map(peaks))
        write_info(info, measured, output, silence=info["level_range"]["low"])
    write_manifest(table, output)  # last: it says that the folder is complete
    (output / UNFINISHED_NAME).unlink()
    return Report(n_done=len(table), failures=list(failures.values()), message=f"{output}: {_summary(table)}")


def _find(root: Path, output: Path, suffix: str) -> list[Path]:
    """Lists the files with that suffix, sorted; linked folders are followed, each real one once."""
    if not root.is_dir():
        raise FileNotFoundError(f"{root}: no such folder; check the path")
    if is_inside(root, output):
        raise ValueError(f"input {root} is, or lies in, output {output}, which is cleared first; give another output")
    found: list[Path] = []
    others: Counter[str] = Counter()
    for folder, names in walk_folders(root, avoid=output):
        if folder != root and _own_manifest(folder) is not None:
            # Its files may be copies or slices of the others': of one recording, though nothing here would say so.
            raise ValueError(f"{folder}: has a manifest of its own; give it as input, or move it out of {root}")
        for path in (folder / name for name in names):
            if path.suffix.lower() != suffix:
                others[path.suffix.lower() or "no extension"] += 1
            elif not (path.is_symlink() and is_inside(path, output)):
                found.append(path)
    if not found:
        there = ", ".join(f"{other} ({count})" for other, count in others.most_common(5)) or "no other files"
        raise FileNotFoundError(f"{root}: no file with ext={suffix} in it or its subfolders; there are: {there}")
    return sorted(found)


def _absolute(file: Path) -> Path:
    """The file's real folder, but its own name, also when it is a link: stores of links have names without meaning."""
    return Path(os.path.realpath(file.parent), file.name)


def _plan(root: Path, files: Sequence[Path], *, label_from: str, separator: str, pattern: str | None) -> pd.DataFrame:
    """Gives each file its label, its recording, the sound it comes from, and a unique name in a split's folder."""
    listed = _listed(root)
    rows, wanted = [], {}
    for file in files:
        relative = file.relative_to(root)
        stem = relative.with_suffix("").as_posix()
        recording, source, sound = origin_of(file) or stem, str(_absolute(file)), ""
        if listed is not None:
            whole = re.sub(r"_ch\d+$", "", stem)  # one tensor has a picture for each channel
            recording, source, sound = listed.get(stem) or listed.get(whole, (None, source, ""))
        if pattern is not None:
            recording = group_by_pattern(pattern, file, root)
        if recording is None:
            raise ValueError(
                f"{file}: {root / MANIFEST_NAME} does not list it, so nothing says of which recording it is; make the "
                f"dataset again, move the file away, or give a pattern, e.g. {EXAMPLE}"
            )
        label = label_of(file, label_from=label_from, separator=separator)
        wanted[file] = f"{safe_name(label)}/{safe_name(file.stem)}"
        rows.append({"file": file, "label": label, "recording": recording, "source": source, "sound": sound})
    names = unique_names(wanted, root)
    table = pd.DataFrame(rows)
    table["name"] = [f"{names[file]}{file.suffix}" for file in table["file"]]
    for recording, labels in table.groupby("recording")["label"] if pattern is not None else ():
        if labels.nunique() > 1:
            raise ValueError(
                f"recording {recording!r} has files of several labels: {', '.join(sorted(labels.unique()))}; it can "
                "be in one split of one label only: change label_from or recording_pattern, or move the files"
            )
    return table


def _listed(root: Path) -> dict[str, tuple[str, str, str]] | None:
    """By path without suffix, which a picture beside a tensor shares: recording, source, sound. None: no manifest."""
    table = _own_manifest(root)
    if table is None:
        if (root / MANIFEST_NAME).exists():
            log.warning("%s is not specgan's, so it says nothing about recordings", root / MANIFEST_NAME)
        return None
    if "first_frame" in table:
        raise ValueError(
            f"{root}: its spectrograms are in shards, many in a file; run task=spectrograms again with other "
            "task.splits, which makes none of them again"
        )
    sounds = table["sound"] if "sound" in table else [""] * len(table)
    stems = [str(PurePosixPath(path).with_suffix("")) for path in table["path"]]
    recordings = table["recording"]
    if "group" in table:
        recordings = table["group"].where(table["group"] != "", recordings)
    return dict(zip(stems, zip(recordings, table["source"], sounds, strict=True), strict=True))


def _own_manifest(folder: Path) -> pd.DataFrame | None:
    """The folder's manifest; None: it has none, or another program's table of that name."""
    try:
        return read_manifest(folder)
    except (FileNotFoundError, ValueError):
        return None


def _require_one_file_system(files: Sequence[Path], output: Path) -> None:
    existing = next(folder for folder in (output.absolute(), *output.absolute().parents) if folder.exists())
    for folder in sorted({file.parent for file in files}):
        if folder.stat().st_dev != existing.stat().st_dev:
            raise ValueError(f"{folder} and {output} are on two file systems, mode=hardlink needs one; {_WAYS_OUT}")


def _clear(output: Path, made: Sequence[str]) -> None:
    """Removes what earlier runs made, and notes what this one will make, so that the next can clean up after it."""
    earlier = _unfinished(output / UNFINISHED_NAME)
    if os.path.lexists(output / MANIFEST_NAME):
        table = _own_manifest(output)
        if table is None or tuple(table.columns) not in (REQUIRED_COLUMNS, (*REQUIRED_COLUMNS, "sound")):
            raise ValueError(f"{output}: its {MANIFEST_NAME} is not of a split, so it is kept; give another output")
        # Only what a split makes: mode=manifest lists files that are not ours.
        earlier.update(path for path in table["path"] if path.count("/") == 2 and path.split("/")[0] in SPLITS)
        earlier.update(path for path in table.get("sound", ()) if is_sound_path(path))
        earlier.update((MANIFEST_NAME, FAILURES_NAME, *([PARAMS_NAME] if find_info(output) else [])))
    folders = {str(folder) for path in made for folder in PurePosixPath(path).parents}
    blocked = [path for path in made if path not in earlier and os.path.lexists(output / path)]
    # A linked folder would take the files elsewhere, where no later run removes them.
    blocked += [path for path in folders - {"."} if (output / path).is_symlink() or (output / path).is_file()]
    if output.is_file() or blocked:
        path = output / min(blocked, default="")
        raise ValueError(f"{path}: is in the way, and no earlier split made it; move it, or give another output")

    output.mkdir(parents=True, exist_ok=True)
    write_json(output / UNFINISHED_NAME, sorted(earlier.union(made)))
    (output / MANIFEST_NAME).unlink(missing_ok=True)  # first: what follows is no finished folder
    remove_files(earlier.union(made), output)


def _unfinished(path: Path) -> set[str]:
    """What a killed run noted; empty if no run was killed."""
    try:
        noted = json.loads(path.read_text(encoding="utf-8")) if path.exists() else []
    except ValueError:
        noted = None
    if not isinstance(noted, list) or not all(isinstance(name, str) for name in noted):
        raise ValueError(f"{path}: damaged; look into {path.parent}, remove what a split left there, and this file")
    return set(noted)


def _place(file: Path, target: Path, mode: str, *, measure: bool) -> float | None:
    """Puts a file, or a link to it, in its place; returns its highest level if `measure`."""
    peak = None
    with stage("read"):
        if measure:
            peak = float(load_tensors(file).max())
        else:
            file.open("rb").close()  # a link can be made to what cannot be read
    if mode == "manifest":
        return peak
    with stage("write"), atomic_path(target) as temporary:
        if mode == "copy":
            shutil.copy2(file, temporary)
        elif mode == "symlink":
            os.symlink(_absolute(file), temporary)
        else:
            try:
                os.link(os.path.realpath(file), temporary)
            except OSError as err:
                raise OSError(
                    f"no hard link to it can be made in {target.parent}: {err.strerror}; {_WAYS_OUT}"
                ) from err
    return peak


def _require_every_split(table: pd.DataFrame, failures: dict[str, Failure], output: Path) -> None:
    is_left = ~table["path"].isin(failures)
    for (label, split), left in is_left.groupby([table["label"], table["split"]]):
        if left.any():
            continue
        first = next(iter(failures.values()))
        raise ValueError(
            f"{len(failures)} of {len(table)} files could not be dealt, which leaves label {label!r} without any "
            f"for {split}; mend them or move them away, and run again. {output / FAILURES_NAME} lists them; the "
            f"first is {first.path}: {first.error}"
        )


def _summary(table: pd.DataFrame) -> str:
    """For example `train 16, val 2, test 2 files; of each label: kick 8/1/1, snare 8/1/1`."""
    counts = pd.crosstab(table["label"], table["split"]).reindex(columns=SPLITS, fill_value=0)
    total = ", ".join(f"{split} {counts[split].sum()}" for split in SPLITS)
    labels = ", ".join(f"{label} {'/'.join(map(str, row))}" for label, *row in counts.itertuples())
    return f"{total} files; of each label: {labels}"
