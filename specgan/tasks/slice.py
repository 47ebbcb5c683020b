"""Task: long recordings -> clips, cut at onsets, in pauses or into equal lengths."""

import csv
import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any

import torch

from specgan.audio import recording_id
from specgan.batch.executors import serial
from specgan.batch.failures import stage
from specgan.batch.journal import Journal, made_from, run_missing
from specgan.batch.runner import Batch, OpenExecutor, Report, one_by_one
from specgan.clips.clip import Clip
from specgan.clips.listing import list_clips
from specgan.command_line.commands import command
from specgan.cutting.clips import write_clips
from specgan.cutting.scan import scan
from specgan.cutting.settings import CutSettings
from specgan.cutting.spans import find_spans
from specgan.files import atomic_path, is_inside, write_bytes
from specgan.pictures.gallery import Entry, write_gallery
from specgan.pictures.render import render

log = logging.getLogger(__name__)

JOURNAL_NAME = ".slice.jsonl"
TABLE_NAME = "clips.csv"
PAGE_NAME = "index.html"
PICTURES = ".pictures"  # hidden, so that no task takes it for a folder of clips

_COLUMNS = ("path", "label", "recording", "start_s", "duration_s", "peak", "source")
_LOOK: dict[str, Any] = {
    "frequency_axis": "linear",
    "downmix": "max_energy",
    "n_fft": 1024,
    "width_px": 192,
    "height_px": 128,
}
_MOST_NAMED = 8  # recordings in a message


@dataclass(frozen=True)
class _Cut:
    """A clip that exists."""

    path: str
    clip: Clip
    row: Mapping[str, Any]
    recording: str


def cut_recordings(
    input: str | Path,
    output: str | Path,
    *,
    recursive: bool = True,
    label_from: str = "parent",
    separator: str = "_",
    classes: str | Sequence[str] | None = None,
    merge: Mapping[str, str] | Sequence[tuple[str, str]] | None = None,
    min_recordings: int = 1,
    remake: bool = False,
    n_shown: int = 200,
    executor: OpenExecutor = serial,
    on_error: str = "skip",
    **cuts: Any,
) -> Report:
    """Writes `<output>/<label>/<recording>_0001.wav` and so on, a table of the clips, and a page to look and listen.

    A second run cuts only recordings that are new or changed or, after a change of the settings, all. Clips that were
    deleted or moved since stay so. Each clip's file says which recording it is of, so that clips of one recording are
    never dealt to different splits (see `audio.origin`).

    Args:
        input: folder of recordings, or one recording.
        output: folder; neither in `input` nor around it.
        recursive, label_from, separator, classes, merge, min_recordings: which recordings, and their labels, see
            `list_clips`.
        remake: cut all recordings again, also those whose clips were deleted or moved.
        n_shown: clips on the page, at most; evenly spread over those of each recording.
        executor: opens the workers, see batch.executors.
        on_error: "skip" records a bad file in failures.csv and goes on; "raise" stops at the first.
        **cuts: where and how recordings are cut, see `CutSettings`.
    Raises:
        FileNotFoundError, ValueError: no recordings, arguments that cannot work, or a file is in the way that no
            earlier run wrote, and nothing is written; or no recording gave a clip.
    """
    settings = CutSettings(**cuts)
    if not isinstance(n_shown, int) or n_shown < 0:
        raise ValueError(f"n_shown is {n_shown!r}; an integer of at least 0")
    root, output = Path(os.path.abspath(input)), Path(os.path.abspath(output))  # the workers may run elsewhere
    batch = Batch(executor, on_error, "recordings")
    _require_apart(root, output)
    clips = list_clips(
        root,
        recursive=recursive,
        label_from=label_from,
        separator=separator,
        classes=classes,
        merge=merge,
        min_recordings=min_recordings,
    )
    journal: Journal[dict[str, Any]] = Journal(
        output,
        {**asdict(settings), "input": os.path.realpath(root)},
        name=JOURNAL_NAME,
        endings=r"_\d{4,}\.(wav|flac)",
        tables=(TABLE_NAME, PAGE_NAME),
        stays_removed=True,
    )
    journal.is_outdated |= remake
    work = partial(one_by_one, make=partial(_cut, settings=settings, output=output))
    made, failures, n_skipped = run_missing(journal, clips, partial(batch.run, work=work, chunk=1))

    entries = {clip: journal.entries[clip.key] for clip in clips if clip.key in journal.entries}
    cut = _existing(entries, output)
    _write_table(cut, output / TABLE_NAME)
    _write_page(output, cut, entries, n_shown)
    _report_remarks({clip: entry["remark"] for clip, entry in entries.items() if entry["remark"]})
    n_gone = sum(len(entry["outputs"]) for entry in entries.values()) - len(cut)
    if not cut and not n_gone:
        raise ValueError(f"{input}: no clip in {len(entries)} recordings; the warnings say why")
    log.info("to train on them: %s", command("train.py", data="folder", **{"data.audio_dir": output}))
    gone = f", {n_gone} deleted or moved since (task.remake=true cuts them again)" if n_gone else ""
    return Report(
        n_done=len(made),
        n_skipped=n_skipped,
        failures=failures,
        message=f"{output / PAGE_NAME}: {len(cut)} clips of {len(entries)} recordings{gone}",
    )


def _require_apart(root: Path, output: Path) -> None:
    """Raises ValueError where recordings would be taken for clips, or clips for recordings."""
    folder = root if root.is_dir() else root.parent
    if (root.is_dir() and is_inside(output, root)) or is_inside(folder, output):
        raise ValueError(
            f"output {output} is in input {root}, or around it: later runs could not tell clips from recordings; "
            "give a folder elsewhere"
        )


@torch.inference_mode()
def _cut(clip: Clip, *, settings: CutSettings, output: Path) -> dict[str, Any]:
    """Work for `Batch.run`."""
    with stage("decode"):
        state = made_from(clip.sources)
        found = scan(clip.source, sensitivity=settings.sensitivity if settings.at == "onsets" else None)
        spans = find_spans(found, settings)
        recording = recording_id(clip.source)
    paths = [f"{clip.recording}_{number:04d}.{settings.format}" for number in range(1, len(spans.clips) + 1)]
    with stage("write"):
        peaks = write_clips(clip.source, found, spans.clips, [output / path for path in paths], settings)
    rate = found.sample_rate
    rows = [
        {"start_s": round(start / rate, 6), "duration_s": round((end - start) / rate, 6), "peak": round(peak, 6)}
        for (start, end), peak in zip(spans.clips, peaks, strict=True)
    ]
    return {"made_from": state, "outputs": paths, "rows": rows, "remark": spans.remark, "recording": recording}


def _existing(entries: Mapping[Clip, Mapping[str, Any]], output: Path) -> list[_Cut]:
    return [
        _Cut(path, clip, row, entry["recording"])
        for clip, entry in entries.items()
        for path, row in zip(entry["outputs"], entry["rows"], strict=True)
        if os.path.isfile(output / path) and _is_in_folder(path)
    ]


def _is_in_folder(path: str) -> bool:
    """A journal may come from anyone, and pictures are written beside its paths."""
    return not path.startswith("/") and ".." not in PurePosixPath(path).parts


def _write_table(cut: Sequence[_Cut], path: Path) -> None:
    with (
        atomic_path(path) as temporary,
        temporary.open("w", newline="", encoding="utf-8", errors="surrogateescape") as file,
    ):
        writer = csv.DictWriter(file, _COLUMNS)
        writer.writeheader()
        for each in cut:
            names = {"path": each.path, "label": each.clip.label, "recording": each.recording}
            writer.writerow({**names, **each.row, "source": str(each.clip.source)})


def _write_page(output: Path, cut: Sequence[_Cut], entries: Mapping[Clip, Mapping[str, Any]], n_shown: int) -> None:
    """Writes the page, draws those of its pictures that are missing or older than their clip, and removes others."""
    shown = _spread(cut, n_shown)
    sections: dict[str, list[Entry]] = {}
    for clip, entry in entries.items():
        if entry["remark"] and not entry["outputs"]:
            sections[_heading(clip, 0)] = [Entry(entry["remark"], None, None)]
    n_of: dict[Clip, int] = {}
    for each in cut:
        n_of[each.clip] = n_of.get(each.clip, 0) + 1
    kept = set()
    for each in shown:
        picture = f"{PICTURES}/{each.path}.png"
        kept.add(output / picture)
        _draw(output / each.path, output / picture)
        start_s, duration_s = each.row["start_s"], each.row["duration_s"]
        caption = f"{Path(each.path).name}, {_clock(start_s)}, {duration_s:.2f} s"
        sections.setdefault(_heading(each.clip, n_of[each.clip]), []).append(Entry(caption, picture, each.path))
    for path in (output / PICTURES).rglob("*.png"):
        if path not in kept:
            path.unlink()
    part = f"{len(shown)} of {len(cut)} clips" if len(shown) < len(cut) else f"{len(cut)} clips"
    write_gallery(
        output / PAGE_NAME,
        title="Clips of recordings",
        note=f"{part}, each with its place in the recording. Delete the files of those you do not want, or move them "
        "into folders by class: they stay as you leave them.",
        sections=sections,
        pixelated=False,
    )


def _spread(cut: Sequence[_Cut], n: int) -> list[_Cut]:
    """Chooses at most n clips, evenly spaced, in their order."""
    if len(cut) <= n:
        return list(cut)
    return [cut[(2 * number + 1) * len(cut) // (2 * n)] for number in range(n)]


def _heading(clip: Clip, n_clips: int) -> str:
    return f"{clip.recording}: {n_clips} clip{'s' if n_clips != 1 else ''} of {clip.source.name}"


def _clock(seconds: float) -> str:
    """For example `1:02:03.45`."""
    minutes, rest = divmod(round(seconds, 2), 60)
    hours, minutes = divmod(int(minutes), 60)
    return f"{hours}:{minutes:02d}:{rest:05.2f}" if hours else f"{minutes}:{rest:05.2f}"


def _draw(clip: Path, picture: Path) -> None:
    if picture.exists() and picture.stat().st_mtime_ns >= clip.stat().st_mtime_ns:
        return
    write_bytes(picture, render(clip, **_LOOK))


def _report_remarks(remarks: Mapping[Clip, str]) -> None:
    """Logs what was not cut and why, each reason once."""
    by_remark: dict[str, list[str]] = {}
    for clip, remark in remarks.items():
        by_remark.setdefault(remark, []).append(clip.source.name)
    for remark, names in by_remark.items():
        more = f" and {len(names) - _MOST_NAMED} more" if len(names) > _MOST_NAMED else ""
        log.warning("%s%s: %s", ", ".join(names[:_MOST_NAMED]), more, remark)
