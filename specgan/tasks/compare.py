"""Task: two folders of codec pictures -> how much their pairs differ, in figures and side by side."""

import csv
import logging
import math
import os
import statistics
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch

from specgan.batch.executors import serial
from specgan.batch.failures import Failure, UnitError, stage
from specgan.batch.journal import Journal, made_from, run_missing
from specgan.batch.runner import Batch, Report, one_by_one
from specgan.codec.coding import CodecError, CodecParams
from specgan.codec.png import from_png
from specgan.codec.quality import PEAK, ReadPicture, cautions, log_spectral_distance, psnr, snr, waveforms
from specgan.files import atomic_path, find_files, is_inside, remove_files, require_free, write_bytes
from specgan.pictures.gallery import Entry, write_gallery

log = logging.getLogger(__name__)

JOURNAL_NAME = ".compare.jsonl"
PICTURES_NAME = "pictures"
TABLE_NAME = "comparison.csv"
PAGE_NAME = "index.html"
FIGURES = ("psnr_db", "psnr_magnitude_db", "snr_db", "lsd_db")

_GAIN = 50  # of the difference, which is too small to see


@dataclass(frozen=True)
class _Pair:
    """An original and its reconstruction; `key` is the path that both have in their folders."""

    key: str
    source: Path
    reconstructed: Path

    @property
    def sources(self) -> list[Path]:
        return [self.source, self.reconstructed]


def compare_pictures(
    input: str | Path,
    output: str | Path,
    *,
    reconstructed: str | Path,
    phase_encoding: str = CodecParams.phase_encoding,
    range_db: float = CodecParams.range_db,
    executor: Callable[[], AbstractContextManager[Executor]] = serial,
    on_error: str = "skip",
) -> Report:
    """Writes `comparison.csv`, a picture of each pair under `pictures/`, and a page that shows all of it.

    Pictures are paired by their path in the folder; those without a partner are logged and listed on the page. A second
    run compares only what is new or changed. The figures of a pair:

        psnr_db             of all three channels
        psnr_magnitude_db   of red alone, because phase is noise where the sound is silent
        snr_db              of the waveform that the slice alone decodes to; empty for a silent original
        lsd_db              log-spectral distance of the two waveforms

    A picture is decoded by the settings in its text, or, without text, by those of its partner; if neither has text, by
    `phase_encoding` and `range_db`. A pair that cannot be decoded has neither snr_db nor lsd_db.

    Args:
        input: folder of original PNGs, searched with its subfolders; hidden files are left out. Or one file.
        output: folder, neither in `input` nor in `reconstructed`.
        reconstructed: folder of PNGs with the same names; or one file, of any name.
        phase_encoding, range_db: of pictures without text, see CodecParams.
        executor: opens the workers, see batch.executors.
        on_error: "skip" records a bad pair in failures.csv and goes on; "raise" stops at the first.
    Raises:
        FileNotFoundError, ValueError: no pairs, impossible folders or settings, or a file is in the way that no earlier
            run wrote; nothing is written. Also ValueError: every pair failed.
    """
    # The workers may run elsewhere.
    input, reconstructed, output = (Path(os.path.abspath(path)) for path in (input, reconstructed, output))
    batch = Batch(executor, on_error, "comparison")
    CodecParams(phase_encoding=phase_encoding, range_db=range_db)  # refuses impossible ones
    _check_places(input, reconstructed, output)
    pairs, unpaired = _pair(input, reconstructed)
    for (here, there), names in unpaired.items():
        log.warning("no partner in %s for %s, of %s", there, _listed(names), here)

    settings = {"phase_encoding": phase_encoding, "range_db": range_db}
    folders = {"input": str(input.resolve()), "reconstructed": str(reconstructed.resolve())}
    journal: Journal[dict[str, Any]] = Journal(output, {**settings, **folders}, name=JOURNAL_NAME)
    own = {f"{PICTURES_NAME}/{key}" for key in (*journal.entries, *journal.begun)}
    own |= {TABLE_NAME, PAGE_NAME} if journal.path.exists() else set()
    require_free(output, [TABLE_NAME, PAGE_NAME, *(f"{PICTURES_NAME}/{pair.key}" for pair in pairs)], ours=own)
    journal.require_free(())
    remove_files([f"{PICTURES_NAME}/{key}" for key in journal.begun], output)  # of a killed run
    for name in (TABLE_NAME, PAGE_NAME):
        (output / name).unlink(missing_ok=True)  # they say that the folder is complete
    compare = partial(_compare, output=output, phase_encoding=phase_encoding, range_db=range_db)
    run = partial(batch.run, work=partial(one_by_one, make=compare))
    made, failures, n_skipped = run_missing(journal, pairs, run)
    rows = {key: journal.entries[key] for key in sorted(journal.entries)}
    _log_notes(rows)
    message = f"{output}: {_summary(list(rows.values()))}"
    _write_page(output / PAGE_NAME, message, rows, failures, unpaired)
    _write_table(output / TABLE_NAME, rows)
    return Report(n_done=len(made), n_skipped=n_skipped, failures=failures, message=message)


def _check_places(input: Path, reconstructed: Path, output: Path) -> None:
    if os.path.realpath(input) == os.path.realpath(reconstructed):
        raise ValueError(f"input and reconstructed are both {input}; reconstructed must be another folder")
    for path in (input, reconstructed):
        if not path.exists():
            raise FileNotFoundError(f"{path}: no such file or folder; check the path")
        if path.is_dir() and is_inside(output, path):
            raise ValueError(f"output {output} is or lies in {path}, where its pictures would be found; give another")
        if is_inside(path, output / PICTURES_NAME):
            raise ValueError(f"{path} is or lies in {output / PICTURES_NAME}, which is written; give another output")
    if input.is_dir() != reconstructed.is_dir():
        raise ValueError(f"of {input} and {reconstructed} one is a folder; give two folders, or two files")
    if output.is_file():
        raise ValueError(f"output {output} is a file; give a folder")


def _pair(input: Path, reconstructed: Path) -> tuple[list[_Pair], dict[tuple[Path, Path], list[str]]]:
    """Returns the pairs, and by two folders the names that are only in the first, if any; sorted."""
    if input.is_file():
        return [_Pair(input.name, input, reconstructed)], {}
    originals, others = _find(input), _find(reconstructed)
    pairs = [_Pair(name, path, others[name]) for name, path in sorted(originals.items()) if name in others]
    if not pairs:
        raise ValueError(
            f"{input} ({_listed(sorted(originals), 3)}) and {reconstructed} ({_listed(sorted(others), 3)}) have no "
            "picture of the same name, which is its path in the folder; rename or move them"
        )
    unpaired = {
        (input, reconstructed): sorted(originals.keys() - others.keys()),
        (reconstructed, input): sorted(others.keys() - originals.keys()),
    }
    return pairs, {folders: names for folders, names in unpaired.items() if names}


def _find(root: Path) -> dict[str, Path]:
    found = {path.relative_to(root).as_posix(): path for path in find_files(root, (".png",))}
    if not found:
        raise FileNotFoundError(f"{root}: no PNG in it or its subfolders; check the path")
    return found


def _listed(names: Sequence[str], most: int = 10) -> str:
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


@torch.inference_mode()
def _compare(pair: _Pair, output: Path, *, phase_encoding: str, range_db: float) -> dict[str, Any]:
    """Work for `Batch.run`: writes the picture of a pair and returns its entry for the journal."""
    with stage("read"):
        state = made_from(pair.sources)
    pictures = _read(pair.source), _read(pair.reconstructed)
    _check_shapes(pair, [picture.pixels.shape for picture in pictures])
    original, reconstructed = (picture.widened() for picture in pictures)
    difference = np.abs(np.subtract(original, reconstructed, dtype=np.int32))
    squares = np.square(difference, dtype=np.float64).mean(axis=(0, 1))  # of red, green and blue
    figures: dict[str, float | None] = {"psnr_db": psnr(squares.mean()), "psnr_magnitude_db": psnr(squares[0])}

    notes = cautions(pictures)
    try:
        sounds = waveforms(*pictures, phase_encoding=phase_encoding, range_db=range_db)
    except CodecError as err:
        notes.append(f"no sound to compare: {err}")
        figures.update(snr_db=None, lsd_db=None)
    else:
        figures.update(snr_db=snr(*sounds), lsd_db=log_spectral_distance(*sounds))

    path = f"{PICTURES_NAME}/{pair.key}"
    with stage("write"):
        write_bytes(output / path, _side_by_side(original, reconstructed, difference))
    rounded = {name: None if figure is None else round(figure, 4) for name, figure in figures.items()}
    return {"made_from": state, "outputs": [path], "notes": notes, **rounded}


def _read(path: Path) -> ReadPicture:
    with stage("read"):
        png = path.read_bytes()
    try:
        pixels, info = from_png(png)
    except CodecError as err:
        raise UnitError("read", f"{path}: {err}") from err
    return ReadPicture(pixels[..., :3] if pixels.ndim == 3 else pixels, info)


def _check_shapes(pair: _Pair, shapes: Sequence[tuple[int, ...]]) -> None:
    if shapes[0] != shapes[1] or len(shapes[0]) != 3:
        sizes = [f"{width} x {height} pixels {'in colour' if rest else 'grey'}" for height, width, *rest in shapes]
        raise UnitError(
            "compare",
            f"{pair.source}: {sizes[0]}, and {pair.reconstructed}: {sizes[1]}; both must be in colour and of one size",
        )


def _side_by_side(original: np.ndarray, reconstructed: np.ndarray, difference: np.ndarray) -> bytes:
    """Encodes three pictures on the 16-bit scale as one PNG of 8 bits, the difference times _GAIN."""
    parts = (original, reconstructed, np.minimum(difference * _GAIN, PEAK))
    pixels = np.hstack([(part / 257).round().astype(np.uint8) for part in parts])
    return cv2.imencode(".png", pixels[..., ::-1])[1].tobytes()


def _log_notes(rows: Mapping[str, Mapping[str, Any]]) -> None:
    """Logs each note once, with the pictures that it is about."""
    names: dict[str, list[str]] = defaultdict(list)
    for name, row in rows.items():
        for note in row["notes"]:
            names[note].append(name)
    for note, same in names.items():
        log.warning("%s: %s", note, _listed(same))


def _summary(rows: Sequence[Mapping[str, Any]]) -> str:
    """Summarises the pairs that differ: the figures of identical ones are inf, which has no mean."""
    different = [row for row in rows if row["psnr_db"] < math.inf]
    psnr, magnitude, snr, lsd = ([row[name] for row in different if row[name] is not None] for name in FIGURES)
    parts = [f"{len(rows)} pair" + "s" * (len(rows) > 1)]
    if psnr:
        magnitude = [value for value in magnitude if value < math.inf] or [math.inf]
        parts.append(f"PSNR {statistics.fmean(psnr):.1f} dB (magnitude {statistics.fmean(magnitude):.1f})")
    if snr:
        parts.append(f"SNR median {statistics.median(snr):.1f} dB")
    if lsd:
        parts.append(f"LSD {statistics.fmean(lsd):.2f} dB")
    return f"{', '.join(parts)}; {len(rows) - len(different)} identical"


def _write_page(
    path: Path,
    note: str,
    rows: Mapping[str, Mapping[str, Any]],
    failures: Sequence[Failure],
    unpaired: Mapping[tuple[Path, Path], Sequence[str]],
) -> None:
    texts = {f"Only in {here}": names for (here, _), names in unpaired.items()}
    texts["Not compared"] = [failure.error for failure in failures]
    sections = {heading: [Entry(text, None, None) for text in lines] for heading, lines in texts.items() if lines}
    pictures = [Entry(_caption(name, row), row["outputs"][0], None) for name, row in rows.items()]
    sections[f"Original | Reconstructed | Difference × {_GAIN}"] = pictures
    write_gallery(path, title="Comparison", note=note, sections=sections, pixelated=False, width="60rem")


def _caption(name: str, row: Mapping[str, Any]) -> str:
    parts = ["identical"]
    if row["psnr_db"] < math.inf:
        parts = [f"PSNR {row['psnr_db']:.1f} dB (magnitude {row['psnr_magnitude_db']:.1f})"]
    if row["snr_db"] is not None:
        parts.append(f"SNR {row['snr_db']:.1f} dB")
    if row["lsd_db"] is not None:
        parts.append(f"LSD {row['lsd_db']:.2f} dB")
    return "; ".join([f"{name}: {', '.join(parts)}", *row["notes"]])


def _write_table(path: Path, rows: Mapping[str, Mapping[str, Any]]) -> None:
    # surrogateescape: a file name need not be UTF-8
    with (
        atomic_path(path) as temporary,
        temporary.open("w", newline="", encoding="utf-8", errors="surrogateescape") as file,
    ):
        writer = csv.writer(file)
        writer.writerow(("name", *FIGURES, "picture"))
        writer.writerows((name, *(row[key] for key in FIGURES), row["outputs"][0]) for name, row in rows.items())
