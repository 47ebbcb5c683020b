"""Task: a folder of audio -> what is in it, as a table, a page and a file, and the preset to train on it with."""

import logging
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, fields
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from specgan.batch.executors import serial
from specgan.batch.failures import stage
from specgan.batch.journal import Journal, made_from, run_missing
from specgan.batch.runner import Batch, OpenExecutor, Report, one_by_one
from specgan.clips.clip import Clip
from specgan.clips.listing import list_clips
from specgan.command_line.commands import command
from specgan.command_line.tables import print_rows
from specgan.files import require_free
from specgan.spectrogram import SpectrogramParams
from specgan.survey.advice import Settings, advise, training_settings
from specgan.survey.excerpts import excerpts
from specgan.survey.findings import findings
from specgan.survey.page import headline, write_survey
from specgan.survey.recording import Measures, measure
from specgan.survey.tables import HEADS, class_rows, write_table

log = logging.getLogger(__name__)

JOURNAL_NAME = ".survey.jsonl"
TABLE_NAME = "survey.csv"
PAGE_NAME = "survey.html"

_MEASURES = [field.name for field in fields(Measures)]  # what earlier versions did not measure is measured now


def survey(
    input: str | Path,
    output: str | Path,
    *,
    presets: Callable[[], Mapping[str, SpectrogramParams]],
    recursive: bool = True,
    label_from: str = "parent",
    separator: str = "_",
    classes: str | Sequence[str] | None = None,
    merge: Mapping[str, str] | Sequence[tuple[str, str]] | None = None,
    min_recordings: int = 1,
    n_shown: int = 3,
    shown_s: float = 3.0,
    executor: OpenExecutor = serial,
    on_error: str = "skip",
) -> Report:
    """Measures each recording; prints a table of the classes, what is striking, and the command to train with.

    Writes `survey.csv`, a row for each recording, and `survey.html`, with pictures and players. A second run measures
    only what is new or changed.

    Args:
        input: folder of audio files, or one file.
        output: folder.
        presets: gives the spectrogram presets to choose from, by name.
        recursive, label_from, separator, classes, merge, min_recordings: which recordings, and their labels, see
            `list_clips`.
        n_shown: recordings of each class on the page, at most.
        shown_s: seconds of each of them, at most.
        executor: opens the workers, see batch.executors.
        on_error: "skip" records a bad file in failures.csv and goes on; "raise" stops at the first.
    Raises:
        FileNotFoundError, ValueError: no recordings, arguments that cannot work, every file is bad, or a file is in the
            way that no earlier run wrote.
    """
    if not isinstance(n_shown, int) or n_shown < 0:
        raise ValueError(f"n_shown is {n_shown!r}; an integer of at least 0")
    if not shown_s > 0:
        raise ValueError(f"shown_s is {shown_s}; seconds, above 0")
    root, output = Path(os.path.abspath(input)), Path(os.path.abspath(output))  # the workers may run elsewhere
    batch = Batch(executor, on_error, "survey")
    which: dict[str, Any] = {"label_from": label_from, "separator": separator, "classes": classes, "merge": merge}
    which |= {"recursive": recursive, "min_recordings": min_recordings}
    clips = list_clips(root, **which)
    journal: Journal[dict[str, Any]] = Journal(
        output,
        {"input": os.path.realpath(root), "measures": _MEASURES},
        name=JOURNAL_NAME,
        tables=(TABLE_NAME, PAGE_NAME),
    )
    require_free(output, (TABLE_NAME, PAGE_NAME), ours=(TABLE_NAME, PAGE_NAME) if journal.path.exists() else ())
    run = partial(batch.run, work=partial(one_by_one, make=_measure))
    made, failures, n_skipped = run_missing(journal, clips, run)

    table = _table([clip for clip in clips if clip.recording in journal.entries], journal.entries, root)
    found = findings(table)
    advice = advise(table, presets(), has_gpu=torch.cuda.is_available())
    line = ""
    if advice is not None:
        folder: Settings = {"data": "folder", "data.audio_dir": str(input)}
        line = command("train.py", **{**folder, **_changed(**which), **training_settings(table, advice)})
    mark_hz = None if advice is None else advice.chosen.params.upper_hz
    shown = excerpts(table, n_each=n_shown, most_s=shown_s, mark_hz=mark_hz)
    write_table(table, output / TABLE_NAME)
    write_survey(
        output / PAGE_NAME,
        table,
        folder=str(input),
        findings=found,
        advice=advice,
        command=line,
        excerpts=shown,
        failures=[failure.error for failure in failures],
    )
    print_rows(class_rows(table), HEADS)
    for sentence in found:
        log.warning("%s", sentence)
    if advice is not None:
        for sentence in filter(None, (advice.about_chosen, advice.about_better, line)):
            log.info("%s", sentence)
    message = f"{output / PAGE_NAME}: {headline(table)}"
    return Report(n_done=len(made), n_skipped=n_skipped, failures=failures, message=message)


@torch.inference_mode()
def _measure(clip: Clip) -> dict[str, Any]:
    """Work for `Batch.run`."""
    with stage("decode"):
        return {"made_from": made_from(clip.sources), "outputs": [], "measures": asdict(measure(clip.source))}


def _table(clips: Sequence[Clip], entries: Mapping[str, Mapping[str, Any]], root: Path) -> pd.DataFrame:
    """A row for each recording: its path in the folder, its label, its file, and the fields of `Measures`."""
    folder = root if root.is_dir() else root.parent
    rows = [
        {
            "path": clip.source.relative_to(folder).as_posix(),
            "label": clip.label,
            "source": str(clip.source),
            **entries[clip.recording]["measures"],
        }
        for clip in clips
    ]
    # Figures that silence lacks are numbers all the same, also if all recordings lack them.
    numbers = ("peak_dbfs", "rms_dbfs", "band_hz", "audible_hz", "cut_hz", "downmix_db")
    return pd.DataFrame(rows).astype(dict.fromkeys(numbers, float))


def _changed(
    *,
    recursive: bool,
    label_from: str,
    separator: str,
    classes: str | Sequence[str] | None,
    merge: Mapping[str, str] | Sequence[tuple[str, str]] | None,
    min_recordings: int,
) -> Settings:
    """The settings of data=folder that list the same recordings, but for those that are so anyway."""
    settings: Settings = {}
    if not recursive:
        settings["+data.recursive"] = False
    if label_from != "parent":
        settings["data.label_from"] = label_from
    if separator != "_":
        settings["data.separator"] = separator
    if classes is not None:
        settings["data.classes"] = [classes] if isinstance(classes, str) else [str(each) for each in classes]
    if merge:
        settings["data.merge"] = {str(old): str(new) for old, new in dict(merge).items()}
    if min_recordings != 1:
        settings["data.min_recordings"] = min_recordings
    return settings
