"""Task: a folder of songs -> 16-bit pictures that turn back into the sound (see specgan.codec.coding)."""

import os
from collections.abc import Callable
from concurrent.futures import Executor
from contextlib import AbstractContextManager
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from specgan.batch.executors import serial
from specgan.batch.failures import stage
from specgan.batch.journal import Journal, made_from, run_missing
from specgan.batch.runner import Batch, Report, one_by_one
from specgan.codec.coding import encode_slice
from specgan.codec.png import SliceInfo, to_png
from specgan.codec.slices import Slicing, SongFile, find_songs, measure, picture_names, read_slices
from specgan.files import write_bytes

JOURNAL_NAME = ".encode.jsonl"


def encode_songs(
    input: str | Path,
    output: str | Path,
    *,
    recursive: bool = True,
    executor: Callable[[], AbstractContextManager[Executor]] = serial,
    on_error: str = "skip",
    **settings: Any,
) -> Report:
    """Writes `<output>/<subfolders>/<song>_<slice>.png`, or `<song>_<slice>_ch<channel>.png` for each channel.

    A song that goes beyond full scale is made quieter by a gain, which its pictures store. A second run writes only
    pictures that are missing or whose source or settings changed.

    Args:
        input: folder of audio files, or one file.
        output: folder.
        recursive: search the subfolders too.
        executor: opens the workers, see batch.executors.
        on_error: "skip" records a bad file in failures.csv and goes on; "raise" stops at the first.
        settings: the fields of `CodecParams` (size, bit_depth, phase_encoding, range_db) and of `Slicing` (sample_rate,
            mono, downmix, trim_db). Silence that is cut off comes back in decoding.
    Raises:
        FileNotFoundError, ValueError: no audio file, impossible arguments, or a file is in the way that no earlier run
            wrote; nothing is written.
    """
    slicing = Slicing.of(**settings)
    output = Path(os.path.abspath(output))  # the workers may run elsewhere
    songs = find_songs(input, recursive=recursive)
    made_with = {**asdict(slicing), "input": os.path.realpath(input)}
    journal: Journal[dict[str, Any]] = Journal(output, made_with, name=JOURNAL_NAME, endings=r"_\d{4,}(_ch\d+)?\.png")
    batch = Batch(executor, on_error, "songs")
    run = partial(batch.run, work=partial(one_by_one, make=partial(_encode_song, slicing=slicing, output=output)))
    made, failures, n_skipped = run_missing(journal, songs, run)
    n_pictures = sum(len(entry["outputs"]) for entry in journal.entries.values())
    return Report(
        n_done=len(made),
        n_skipped=n_skipped,
        failures=failures,
        message=f"{output}: {n_pictures} pictures of {len(journal.entries)} songs",
    )


@torch.inference_mode()
def _encode_song(song: SongFile, *, slicing: Slicing, output: Path) -> dict[str, Any]:
    """Work for `Batch.run`."""
    outputs: list[str] = []
    try:
        with stage("decode"):
            state = made_from(song.sources)
            info = measure(song, slicing)
            for number, segment in enumerate(read_slices(song, info, slicing)):
                for channel, path in enumerate(picture_names(info, number)):
                    _write(output / path, segment[channel] * info.gain, replace(info, number=number, channel=channel))
                    outputs.append(path)
    except BaseException:
        for path in outputs:
            (output / path).unlink(missing_ok=True)
        raise
    return {"made_from": state, "outputs": outputs}


def _write(path: Path, samples: Tensor, info: SliceInfo) -> None:
    with stage("encode"):
        png = to_png(encode_slice(samples, info.params), info)
    with stage("write"):
        write_bytes(path, png)
