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
from specgan.batch.journal import Journal, made_from, run_missing
from specgan.batch.runner import Report, one_by_one, run_units, stage
from specgan.codec.coding import CodecParams, encode_slice
from specgan.codec.png import SliceInfo, to_png
from specgan.codec.slices import Slicing, Song, find_songs, measure, picture_names, read_slices
from specgan.files import write_bytes

JOURNAL_NAME = ".encode.jsonl"


def encode_songs(
    input: str | Path,
    output: str | Path,
    *,
    size: int = 1024,
    bit_depth: int = 16,
    phase_encoding: str = "cos_sin",
    range_db: float = 150.0,
    sample_rate: int | None = None,
    mono: bool = True,
    downmix: str = "mean",
    trim_db: float | None = None,
    recursive: bool = True,
    executor: Callable[[], AbstractContextManager[Executor]] = serial,
    on_error: str = "skip",
) -> Report:
    """Writes `<output>/<subfolders>/<song>_<slice>.png`, or `<song>_<slice>_ch<channel>.png` for each channel.

    A song that goes beyond full scale is made quieter by a gain that its pictures know. A second run makes only what is
    missing or whose source or settings changed.

    Args:
        input: folder of audio files, or one file.
        output: folder.
        size, bit_depth, phase_encoding, range_db: see codec.CodecParams.
        sample_rate, mono, downmix, trim_db: see slices.Slicing; what is cut off comes back as silence.
        recursive: search the subfolders too.
        executor: opens the workers, see tasks.executors.
        on_error: "skip" records a bad file in failures.csv and goes on; "raise" stops at the first.
    Raises:
        FileNotFoundError, ValueError: nothing to do, or arguments that cannot work; nothing is written.
    """
    params = CodecParams(size=size, bit_depth=bit_depth, phase_encoding=phase_encoding, range_db=range_db)
    slicing = Slicing(params, sample_rate, mono, downmix, trim_db)
    output = Path(os.path.abspath(output))  # the workers may run elsewhere
    songs = find_songs(input, recursive=recursive)
    settings = {**asdict(slicing), "input": os.path.realpath(input)}
    journal = Journal(output, settings, name=JOURNAL_NAME, endings=r"_\d{4,}(_ch\d+)?\.png")
    run = partial(run_units, work=partial(one_by_one, make=partial(_encode_song, slicing=slicing, output=output)))
    made, failures, n_skipped = run_missing(
        journal, songs, run, executor=executor, on_error=on_error, description="songs"
    )
    n_pictures = sum(len(entry["outputs"]) for entry in journal.entries.values())
    return Report(
        n_done=len(made),
        n_skipped=n_skipped,
        failures=failures,
        message=f"{output}: {n_pictures} pictures of {len(journal.entries)} songs",
    )


@torch.inference_mode()
def _encode_song(song: Song, *, slicing: Slicing, output: Path) -> dict[str, Any]:
    """Work for `run_units`."""
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
