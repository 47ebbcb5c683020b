"""Task: two folders of codec pictures -> how far the second is from the first, in figures and side by side."""

import csv
import logging
import math
import os
import statistics
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from torch import Tensor

from specgan.batch.executors import serial
from specgan.batch.journal import Journal, made_from, run_missing
from specgan.batch.runner import Failure, Report, UnitError, check_on_error, one_by_one, run_units, stage
from specgan.codec.coding import CodecError, CodecParams, Song, decode_spectrum, fit_picture
from specgan.codec.png import SliceInfo, from_png
from specgan.files import atomic_path, find_files, is_inside, remove_files, write_bytes
from specgan.pictures.gallery import Sound, write_gallery
from specgan.spectrogram import power_blocks

log = logging.getLogger(__name__)

JOURNAL_NAME = ".compare.jsonl"
PICTURES_NAME = "pictures"
TABLE_NAME = "comparison.csv"
PAGE_NAME = "index.html"
FIGURES = ("psnr_db", "psnr_magnitude_db", "snr_db", "lsd_db")

_PEAK = 65535  # of the 16-bit scale, on which all pictures are compared
_GAIN = 50  # of the difference, or nobody would see it
_FLOOR_DB = -100  # re a full-scale sine, of the log-spectral distance


@dataclass(frozen=True)
class _Pair:
    """An original and what was made of it; `key` is the path that both have in their folders."""

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
    phase_encoding: str = "cos_sin",
    range_db: float = 150.0,
    executor: Callable[[], AbstractContextManager[Executor]] = serial,
    on_error: str = "skip",
) -> Report:
    """Writes `comparison.csv`, a picture of each pair under `pictures/`, and a page that shows all of it.

    Pictures are paired by their path in the folder; those without a partner are logged and stand on the page. A second
    run compares only what is new or changed. The figures of a pair:

        psnr_db, psnr_magnitude_db   all three channels; red alone, because phase is noise where it is silent
        snr_db                       of the waveform that the slice alone decodes to; empty for a silent original
        lsd_db                       log-spectral distance of the two waveforms

    A picture says itself how it holds sound. One that lost its text is taken to be like its partner; with no text on
    either side, `phase_encoding` and `range_db` say it. What cannot be decoded has no snr_db and lsd_db.

    Args:
        input: folder of original PNGs, searched with its subfolders; hidden files are left out. Or one file.
        output: folder, neither in `input` nor in `reconstructed`.
        reconstructed: folder of PNGs with the same names; or one file, of any name.
        phase_encoding, range_db: of pictures without text, see CodecParams.
        executor: opens the workers, see tasks.executors.
        on_error: "skip" records a bad pair in failures.csv and goes on; "raise" stops at the first.
    Raises:
        FileNotFoundError, ValueError: no pairs, or folders or settings that cannot work; nothing is written. Also
            ValueError: not one pair could be compared.
    """
    # The workers may run elsewhere.
    input, reconstructed, output = (Path(os.path.abspath(path)) for path in (input, reconstructed, output))
    settings: dict[str, Any] = {"phase_encoding": phase_encoding, "range_db": range_db}
    check_on_error(on_error)
    CodecParams(**settings)  # refuses impossible ones
    _check_places(input, reconstructed, output)
    pairs, unpaired = _pair(input, reconstructed)
    for (here, there), names in unpaired.items():
        log.warning("no partner in %s for %s, of %s", there, _some(names), here)

    folders = {"input": str(input.resolve()), "reconstructed": str(reconstructed.resolve())}
    journal = Journal(output, {**settings, **folders}, name=JOURNAL_NAME)
    remove_files([f"{PICTURES_NAME}/{key}" for key in journal.begun], output)  # of a killed run
    for name in (TABLE_NAME, PAGE_NAME):
        (output / name).unlink(missing_ok=True)  # they say that the folder is complete
    run = partial(run_units, work=partial(one_by_one, make=partial(_compare, output=output, **settings)))
    made, failures, n_skipped = run_missing(
        journal, pairs, run, executor=executor, on_error=on_error, description="comparison"
    )
    rows = {key: journal.entries[key] for key in sorted(journal.entries)}
    _log_notes(rows)
    message = f"{output}: {_summary(list(rows.values()))}"
    _write_page(output / PAGE_NAME, message, rows, failures, unpaired)
    _write_table(output / TABLE_NAME, rows)
    return Report(n_done=len(made), n_skipped=n_skipped, failures=failures, message=message)


def _check_places(input: Path, reconstructed: Path, output: Path) -> None:
    if os.path.realpath(input) == os.path.realpath(reconstructed):
        raise ValueError(f"input and reconstructed are both {input}; give the folder of what was made of it")
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
    """Gives the pairs, and the names that are in the first of two folders and not in the second, if any; sorted."""
    if input.is_file():
        return [_Pair(input.name, input, reconstructed)], {}
    originals, others = _find(input), _find(reconstructed)
    pairs = [_Pair(name, path, others[name]) for name, path in sorted(originals.items()) if name in others]
    if not pairs:
        raise ValueError(
            f"{input} ({_some(sorted(originals), 3)}) and {reconstructed} ({_some(sorted(others), 3)}) have no picture "
            "of the same name, which is its path in the folder; rename or move them"
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


def _some(names: Sequence[str], most: int = 10) -> str:
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


# One pair


@torch.inference_mode()
def _compare(pair: _Pair, output: Path, **sound_settings: Any) -> dict[str, Any]:
    """Work for `run_units`: writes the picture of a pair and gives its entry."""
    with stage("read"):
        state = made_from(pair.sources)
    pictures, infos = zip(_read(pair.source), _read(pair.reconstructed), strict=True)
    _check_shapes(pair, [picture.shape for picture in pictures])
    original, reconstructed = (_widened(picture) for picture in pictures)
    difference = np.abs(np.subtract(original, reconstructed, dtype=np.int32))
    squares = np.square(difference, dtype=np.float64).mean(axis=(0, 1))  # of red, green and blue
    figures = {"psnr_db": _psnr(squares.mean()), "psnr_magnitude_db": _psnr(squares[0])}

    notes = _notes(pictures, infos)
    try:
        waveform, other = _waveforms(pictures, infos, **sound_settings)
    except CodecError as err:
        notes.append(f"no sound to compare: {err}")
        figures.update(snr_db=None, lsd_db=None)
    else:
        figures.update(snr_db=_snr(waveform, other), lsd_db=_log_spectral_distance(waveform, other))

    path = f"{PICTURES_NAME}/{pair.key}"
    parts = (original, reconstructed, np.minimum(difference * _GAIN, _PEAK))
    side_by_side = np.hstack([(part / 257).round().astype(np.uint8) for part in parts])
    png = cv2.imencode(".png", side_by_side[..., ::-1])[1]
    with stage("write"):
        write_bytes(output / path, png)
    rounded = {name: None if figure is None else round(figure, 4) for name, figure in figures.items()}
    return {"made_from": state, "outputs": [path], "notes": notes, **rounded}


def _read(path: Path) -> tuple[np.ndarray, SliceInfo | None]:
    """Returns the picture without its alpha channel, and what it knows of itself."""
    with stage("read"):
        png = path.read_bytes()
    try:
        picture, info = from_png(png)
    except CodecError as err:
        raise UnitError("read", f"{path}: {err}") from err
    return picture[..., :3] if picture.ndim == 3 else picture, info


def _check_shapes(pair: _Pair, shapes: Sequence[tuple[int, ...]]) -> None:
    if shapes[0] != shapes[1] or len(shapes[0]) != 3:
        sizes = [f"{width} x {height} pixels {'in colour' if rest else 'grey'}" for height, width, *rest in shapes]
        raise UnitError(
            "compare",
            f"{pair.source}: {sizes[0]}, and {pair.reconstructed}: {sizes[1]}; both must be in colour and of one size",
        )


def _notes(pictures: Sequence[np.ndarray], infos: Sequence[SliceInfo | None]) -> list[str]:
    """What makes the figures of a pair mean less."""
    notes = []
    n_bits = [8 * picture.itemsize for picture in pictures]
    if n_bits[0] != n_bits[1]:
        notes.append(f"{n_bits[0]} bit against {n_bits[1]} bit: the 8-bit picture is widened to 16")
    if all(infos):
        for name in ("phase_encoding", "range_db"):
            values = [getattr(info.params, name) for info in infos]
            if values[0] != values[1]:
                notes.append(f"{name} {values[0]} against {values[1]}: their PSNR means little")
    return notes


def _widened(picture: np.ndarray) -> np.ndarray:
    """On the 16-bit scale, where 255 is 65535."""
    return picture.astype(np.uint16) * 257 if picture.dtype == np.uint8 else picture


def _psnr(mean_square: float) -> float:
    return 10 * math.log10(_PEAK**2 / mean_square) if mean_square else math.inf


def _waveforms(
    pictures: Sequence[np.ndarray], infos: Sequence[SliceInfo | None], **settings: Any
) -> tuple[Tensor, Tensor]:
    """Returns what each picture sounds like alone, as long as the first text says, or a whole slice.

    Raises:
        CodecError: a picture that cannot be decoded.
    """
    known = next((info for info in infos if info is not None), None)
    like = known.params if known else None
    waveforms = []
    for whose, picture, info in zip(("original", "reconstructed"), pictures, infos, strict=True):
        params = info.params if info else like
        if params and not info:  # a model's depth may be another
            params = replace(params, bit_depth=8 * picture.itemsize)
        try:
            picture, params, _ = fit_picture(picture, params, **settings)
        except CodecError as err:
            raise CodecError(f"{whose} {err}") from err
        song = Song(known.slice_length if known else params.slice_samples, params)
        song.add(0, decode_spectrum(picture, params))
        waveforms.append(song.waveform())
    return tuple(waveforms)


def _snr(waveform: Tensor, other: Tensor) -> float | None:
    """dB; inf where there is no error, None where there is one and no signal."""
    signal = float(waveform.double().square().sum())
    error = float((other.double() - waveform).square().sum())
    if not error:
        return math.inf
    return 10 * math.log10(signal / error) if signal else None


def _log_spectral_distance(waveform: Tensor, other: Tensor) -> float:
    """Returns the root mean square over bins of the difference of two powers in dB, averaged over frames.

    Source: A. H. Gray and J. D. Markel, Distance measures for speech processing, IEEE Trans. ASSP 24 (5), 1976. The
    floor is ours: without it, silence would be infinitely far from the faintest noise.
    """
    n_fft = min(2048, max(16, 2 ** int(math.log2(len(waveform)))))  # short slices have short frames
    full_scale = (n_fft / 4) ** 2  # the power of a sine: half the sum of the window, squared
    levels = []
    for sound in (waveform, other):
        blocks = power_blocks([sound[None]], n_fft=n_fft, win_length=n_fft, hop_length=n_fft // 4)
        power = torch.cat(list(blocks), dim=-1)[0].double()
        levels.append(10 * torch.log10(power / full_scale + 10 ** (_FLOOR_DB / 10)))
    return float((levels[0] - levels[1]).square().mean(dim=0).sqrt().mean())


# What is told of all pairs


def _log_notes(rows: Mapping[str, Mapping[str, Any]]) -> None:
    """One line for all pictures of which the same is to be said."""
    names: dict[str, list[str]] = defaultdict(list)
    for name, row in rows.items():
        for note in row["notes"]:
            names[note].append(name)
    for note, same in names.items():
        log.warning("%s: %s", note, _some(same))


def _summary(rows: Sequence[Mapping[str, Any]]) -> str:
    """The figures are of the pairs that differ: of others they say nothing, and inf has no mean."""
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
    sections = {heading: [Sound(text, None, None) for text in some] for heading, some in texts.items() if some}
    pictures = [Sound(_caption(name, row), row["outputs"][0], None) for name, row in rows.items()]
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
