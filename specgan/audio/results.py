"""Sounds that specgan writes are noted beside them (`files.Outputs`), so that they are never taken for recordings.

The note goes where the folder goes, whatever its name becomes. Results without one are known by the files beside them.
"""

import csv
import io
import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from urllib.parse import unquote

from specgan.files import Outputs, noted_outputs

_PAGES = re.compile("<title>(New sounds|Training preview)</title>")
_ON_PAGE = re.compile(r'src="([^"]+\.wav)"')
_KEPT = re.compile(r"[0-9a-f]{16}\.flac")
DRUMS_MARKER = "drums.json"  # beside the built-in drums
_DRUMS = re.compile(r'\A\{\}|"n_per_class"')  # in that file; {}: not finished


def note_results(folder: str | Path, paths: Iterable[str]) -> None:
    """Notes sounds of a folder as specgan's own; call it before they are written.

    Args:
        folder: it is created.
        paths: of the sounds, or of folders that hold nothing else, in the folder.
    """
    Outputs(folder, "sounds").note(paths)


def results_in(folder: str | Path) -> set[str]:
    """The files and folders that are specgan's by what is written in a folder, their paths joined to its own."""
    paths = map(os.path.normpath, (*(path for _, path in noted_outputs(folder)), *_by_files_beside(folder)))
    return {os.path.join(folder, path) for path in paths if not path.startswith(("..", os.sep))}


def _by_files_beside(folder: str | Path) -> Iterator[str]:
    """What is not noted: of task=splits, the built-in drums, and of versions that kept no note."""
    markers = Path(folder).glob(f"*/{DRUMS_MARKER}")
    yield from (file.parent.name for file in markers if _DRUMS.search(_read(file.parent, file.name)))
    if "specgan." in _read(folder, ".hydra/config.yaml"):
        yield from ("previews", "wandb")
    if "spectrogram:" in _read(folder, "params.yaml"):
        yield from (f"sounds/{path.name}" for path in Path(folder, "sounds").glob("*") if _KEPT.fullmatch(path.name))
    if (table := _read(folder, "manifest.csv")).startswith('"path","label","split"'):  # copies that task=splits deals
        yield from (row[0] for row in csv.reader(io.StringIO(table)) if row)
    page = _read(folder, "index.html")
    if _PAGES.search(page):
        yield from (unquote(path, errors="surrogateescape") for path in _ON_PAGE.findall(page))


def _read(folder: str | Path, name: str) -> str:
    try:
        return Path(folder, name).read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
