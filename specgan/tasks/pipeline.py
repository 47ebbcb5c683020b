"""Task: a folder of songs -> pictures, captions and metadata: a data set for trainers of image models, in one go."""

import sys
from collections.abc import Callable
from concurrent.futures import Executor
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from specgan.batch.executors import serial
from specgan.batch.failures import write_failures
from specgan.batch.runner import Report
from specgan.captions.caption import Captioner
from specgan.tasks.caption import caption_songs
from specgan.tasks.encode import encode_songs


def make_pairs(
    input: str | Path,
    output: str | Path,
    *,
    captioner: Captioner | None,
    bit_depth: int = 16,
    phase_encoding: str = "cos_sin",
    range_db: float = 150.0,
    artist: str | None = None,
    title: str | None = None,
    tempo: bool = True,
    lowest_bpm: float = 70.0,
    highest_bpm: float = 180.0,
    executor: Callable[[], AbstractContextManager[Executor]] = serial,
    on_error: str = "skip",
    **slicing: Any,
) -> Report:
    """Makes the pictures of `encode_songs` and for each the caption of `caption_songs`, cut by the same slices.

    Args:
        captioner: None: pictures alone.
        slicing: what both take: size, sample_rate, mono, downmix, trim_db, recursive.
        others: as of these two.
    Raises: as these two.
    """
    common: dict[str, Any] = {**slicing, "executor": executor, "on_error": on_error}
    how: dict[str, Any] = {"bit_depth": bit_depth, "phase_encoding": phase_encoding, "range_db": range_db}
    pictures = encode_songs(input, output, **how, **common)
    if captioner is None:
        return pictures
    about: dict[str, Any] = {"artist": artist, "title": title, "tempo": tempo}
    about |= {"lowest_bpm": lowest_bpm, "highest_bpm": highest_bpm}
    captions = caption_songs(input, output, captioner=captioner, **about, **common)
    failures = list({failure.path: failure for failure in (*captions.failures, *pictures.failures)}.values())
    write_failures(failures, Path(output))
    message = f"{pictures.message}; {captions.message}"
    return Report(pictures.n_done + captions.n_done, pictures.n_skipped + captions.n_skipped, failures, message)


def ask_for_missing(cfg: DictConfig, questions: dict[str, str]) -> None:
    """Asks on a terminal for what the configuration lacks; where there is none, says nothing, and Hydra will.

    Args:
        cfg: is completed. If a mandatory value is missing, values that are null are asked for too.
        questions: by the name of the value, e.g. "task.artist". An empty answer leaves a null as it is.
    """
    missing = [name for name in questions if OmegaConf.is_missing(*_place(cfg, name))]
    if not missing or not (sys.stdin.isatty() and sys.stderr.isatty()):
        return
    from rich.console import Console
    from rich.prompt import Prompt

    console = Console(stderr=True)
    for name, question in questions.items():
        is_needed = name in missing
        if not is_needed and OmegaConf.select(cfg, name) is not None:
            continue
        answer = ""
        while not answer:
            optional = "" if is_needed else " (Enter for none)"
            answer = Prompt.ask(f"{question}{optional}", console=console, default="", show_default=False).strip()
            if not is_needed:
                break
        if answer:
            OmegaConf.update(cfg, name, answer)


def _place(cfg: DictConfig, name: str) -> tuple[DictConfig, str]:
    folder, _, last = name.rpartition(".")
    return (OmegaConf.select(cfg, folder) if folder else cfg), last
