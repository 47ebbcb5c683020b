"""Task: a folder of songs -> pictures, captions and metadata: a data set for trainers of image models, in one go."""

import sys
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from specgan.batch.failures import write_failures
from specgan.batch.runner import Report
from specgan.captions.caption import Captioner
from specgan.tasks.caption import caption_songs
from specgan.tasks.encode import encode_songs

_OF_PICTURES = ("bit_depth", "phase_encoding", "range_db")
_OF_CAPTIONS = ("artist", "title", "tempo", "lowest_bpm", "highest_bpm")


def make_pairs(input: str | Path, output: str | Path, *, captioner: Captioner | None, **settings: Any) -> Report:
    """Writes the pictures of `encode_songs` and for each the caption of `caption_songs`, of the same slices.

    Args:
        input: folder of audio files, or one file.
        output: folder.
        captioner: None: pictures only.
        settings: those of `encode_songs` and of `caption_songs`.
    Raises: as these two.
    """
    pictures = encode_songs(input, output, **_without(settings, _OF_CAPTIONS))
    if captioner is None:
        return pictures
    captions = caption_songs(input, output, captioner=captioner, **_without(settings, _OF_PICTURES))
    failures = list({failure.path: failure for failure in (*captions.failures, *pictures.failures)}.values())
    write_failures(failures, Path(output))
    message = f"{pictures.message}; {captions.message}"
    return Report(pictures.n_done + captions.n_done, pictures.n_skipped + captions.n_skipped, failures, message)


def _without(settings: dict[str, Any], names: tuple[str, ...]) -> dict[str, Any]:
    return {name: value for name, value in settings.items() if name not in names}


def ask_for_missing(cfg: DictConfig, questions: dict[str, str]) -> None:
    """Asks on a terminal for values that the configuration lacks; without a terminal, Hydra names them later.

    Args:
        cfg: is completed. Only if a mandatory value is missing; then values that are null are questions too.
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
