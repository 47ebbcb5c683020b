"""Task: a folder of audio -> a dataset folder of spectrograms that train.py opens."""

import hashlib
import logging
import os
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import pandas as pd
import torch
import yaml

import specgan
from specgan.audio import find_audio, load_audio, scale_to_peak
from specgan.files import atomic_path, safe_name
from specgan.manifest import MANIFEST_NAME, assign_splits, read_manifest, write_manifest
from specgan.spectrogram import LevelRange, MelSpectrogram, SpectrogramParams
from specgan.tasks.runner import FAILURES_NAME, Failure, Report, check_on_error, run_units, stage, write_failures

log = logging.getLogger(__name__)

PARAMS_NAME = "params.yaml"


@dataclass(frozen=True)
class Clip:
    """One file to make: `source` audio, its label, and its place in the dataset folder."""

    source: Path
    label: str
    recording: str

    @property
    def path(self) -> str:
        return f"{self.recording}.pt"


def make_spectrograms(
    input: str | Path,
    output: str | Path,
    *,
    params: SpectrogramParams,
    label_from: str = "parent",
    separator: str = "_",
    classes: Sequence[str] | None = None,
    merge: Mapping[str, str] | None = None,
    min_recordings: int = 1,
    splits: Sequence[float] = (100, 0, 0),
    seed: int = 0,
    peak: float | None = None,
    on_error: str = "skip",
) -> Report:
    """Writes one level tensor (n_mels, n_frames) a recording, the manifest, and params.yaml with the statistics.

    A second run makes only what is missing, whose source changed, or, after a change of the settings, everything.

    Args:
        input: folder of audio files, searched with its subfolders.
        output: dataset folder.
        params: of the spectrograms. Clips keep their whole length, whatever n_frames.
        label_from: "parent": the folder a file is in; "prefix": its name up to the first separator.
        separator: ends the prefix.
        classes: labels to keep, after merging; None keeps all.
        merge: new label for old label.
        min_recordings: labels with fewer recordings are left out, which is logged.
        splits: percentages of train, val, test.
        seed: of the splits.
        peak: each clip is scaled to this peak, 0..1, which makes them equally loud and **drops how loud they were**;
            None keeps their level.
        on_error: "skip" records a bad file in failures.csv and goes on; "raise" stops at the first.
    Raises:
        FileNotFoundError, ValueError: nothing to do, or arguments or labels that cannot work; nothing is written.
    """
    input, output = Path(input), Path(output)
    if peak is not None and not 0 < peak <= 1:
        raise ValueError(f"peak is {peak}; it must be above 0 and at most 1, or null to keep each clip's level")
    check_on_error(on_error)
    clips = _plan(input, label_from=label_from, separator=separator, classes=classes, merge=merge or {})
    clips = _drop_small(clips, min_recordings)
    # Refuse impossible splits before the work, not after it.
    assign_splits([c.recording for c in clips], [c.label for c in clips], percentages=splits, seed=seed)

    # n_frames does not change what is written: clips keep their length.
    spectrogram = {name: value for name, value in asdict(params).items() if name != "n_frames"}
    # input: files of another folder may have the names and dates of this one's.
    settings = {"spectrogram": spectrogram, "peak": peak, "input": str(input.resolve())}
    _start(output, clips, settings)

    transform = MelSpectrogram(params)
    stale = [clip for clip in clips if not _is_fresh(clip, output)]
    failed: dict[str, Failure] = {}
    for clip, failure in run_units(
        stale, lambda clip: _make(clip, output, transform, peak), on_error=on_error, description="spectrograms"
    ):
        if failure is not None:
            failed[clip.path] = failure
    write_failures(list(failed.values()), output)
    if len(failed) == len(clips):
        raise ValueError(f"{input}: none of its {len(clips)} files could be read; see {output / FAILURES_NAME}")

    clips = [clip for clip in clips if clip.path not in failed]
    table = pd.DataFrame([_row(clip, output, params) for clip in clips])
    table["split"] = assign_splits(table["recording"], table["label"], percentages=splits, seed=seed)
    _finish(output, table, settings, _level_range(table, params))
    counts = ", ".join(f"{label} {count}" for label, count in sorted(Counter(table["label"]).items()))
    return Report(
        n_done=len(stale) - len(failed),
        n_skipped=len(clips) - len(stale) + len(failed),
        failures=list(failed.values()),
        message=f"{output}: {len(table)} spectrograms; {counts}",
    )


def _plan(
    root: Path, *, label_from: str, separator: str, classes: Sequence[str] | None, merge: Mapping[str, str]
) -> list[Clip]:
    """Gives each audio file its label and a place of its own."""
    if label_from not in ("parent", "prefix"):
        raise ValueError(f"label_from is {label_from!r}; parent (the folder a file is in) or prefix (of its name)")
    if label_from == "prefix" and not separator:
        raise ValueError("separator is empty; give the text that ends the label in a file's name, e.g. _")
    if classes is not None and not classes:
        raise ValueError("classes is empty; give the labels to keep, or null to keep all")
    # Labels are words; on the command line, classes=[0,1] are numbers.
    classes = None if classes is None else [str(name) for name in classes]
    merge = {str(old): str(new) for old, new in merge.items()}
    raw = {}
    for source in find_audio(root):
        # abspath: input=. has a name too, and a link counts where it is, not where it leads
        folder = Path(os.path.abspath(source)).parent
        label = folder.name if label_from == "parent" else source.stem.split(separator, 1)[0]
        if not label:
            raise ValueError(f"{source}: its name has no label before {separator!r}; rename it, or label_from=parent")
        raw[source] = label
    labels = {source: merge.get(label, label) for source, label in raw.items()}
    there = set(labels.values())
    unknown = (set(merge) - set(raw.values())) | (set(classes or ()) - there)
    if unknown:
        raise ValueError(
            f"{root}: no file has the label {', '.join(sorted(unknown))}; there are {', '.join(sorted(there))}"
        )

    by_name: dict[str, list[Path]] = defaultdict(list)
    for source, label in labels.items():
        if classes is None or label in classes:
            by_name[f"{safe_name(label)}/{safe_name(source.stem)}".casefold()].append(source)
    clips = []
    for same in by_name.values():
        for source in same:
            name = f"{safe_name(labels[source])}/{safe_name(source.stem)}"
            if len(same) > 1:  # the same stem in two folders, or with two suffixes
                digest = hashlib.sha256(os.fsencode(source.relative_to(root))).hexdigest()[:8]
                name = f"{name}-{digest}"
            clips.append(Clip(source, labels[source], name))
    return sorted(clips, key=lambda clip: clip.path)


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


def _start(output: Path, clips: Sequence[Clip], settings: dict) -> None:
    """Removes what other settings made, and only then notes the settings: a killed run never mixes the two."""
    path = output / PARAMS_NAME
    if path.exists():
        old = yaml.safe_load(path.read_text())
        if {name: old.get(name) for name in settings} == settings:
            return
    old_paths = list(read_manifest(output)["path"]) if (output / MANIFEST_NAME).exists() else []
    (output / MANIFEST_NAME).unlink(missing_ok=True)
    for name in {*old_paths, *(clip.path for clip in clips)}:
        (output / name).unlink(missing_ok=True)
    _write_yaml(path, settings)


def _is_fresh(clip: Clip, output: Path) -> bool:
    """Whether the output was made from the source as it is now: it carries the source's modification time."""
    path = output / clip.path
    return path.exists() and path.stat().st_mtime_ns == clip.source.stat().st_mtime_ns


def _make(clip: Clip, output: Path, transform: MelSpectrogram, peak: float | None) -> None:
    with stage("decode"):
        modified_ns = clip.source.stat().st_mtime_ns
        waveform, _ = load_audio(clip.source, sample_rate=transform.params.sample_rate)
    if peak is not None:
        waveform = scale_to_peak(waveform, peak)
    level = transform(waveform)[0]
    with stage("write"), atomic_path(output / clip.path) as temporary:
        with temporary.open("wb") as file:  # given a path, torch.save would write its random name into the file
            torch.save(level, file)
        os.utime(temporary, ns=(modified_ns, modified_ns))


def _row(clip: Clip, output: Path, params: SpectrogramParams) -> dict:
    level = torch.load(output / clip.path, weights_only=True)
    return {
        "path": clip.path,
        "label": clip.label,
        "recording": clip.recording,
        "start_s": 0.0,
        "duration_s": round(level.shape[1] * params.hop_length / params.sample_rate, 6),
        "n_frames": level.shape[1],
        "source": str(clip.source.resolve()),
        "peak_level": float(level.max()),  # for the statistics; not a column of the manifest
    }


def _level_range(table: pd.DataFrame, params: SpectrogramParams) -> LevelRange:
    peaks = table.loc[table["split"] == "train", "peak_level"]
    return LevelRange(low=params.silence, high=float(peaks.mean() if params.level == "log1p" else peaks.max()))


def _finish(output: Path, table: pd.DataFrame, settings: dict, level_range: LevelRange) -> None:
    if (output / MANIFEST_NAME).exists():
        for name in set(read_manifest(output)["path"]) - set(table["path"]):  # its source is gone
            (output / name).unlink(missing_ok=True)
    _write_yaml(
        output / PARAMS_NAME,
        {
            **settings,
            "level_range": asdict(level_range),
            "class_names": sorted(table["label"].unique().tolist()),
            "specgan_version": specgan.__version__,
        },
    )
    write_manifest(table, output)  # last: it says that the folder is complete


def _write_yaml(path: Path, content: dict) -> None:
    with atomic_path(path) as temporary:
        temporary.write_text(yaml.safe_dump(content, sort_keys=False))
