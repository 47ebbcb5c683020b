"""Task: a folder of songs -> 16-bit pictures that turn back into the sound (see specgan.codec)."""

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from specgan.audio import find_audio, open_audio
from specgan.codec import CodecParams, encode_slice, segments
from specgan.codec_png import SliceInfo, to_png
from specgan.files import atomic_path, safe_name, unique_names
from specgan.tasks.executors import serial
from specgan.tasks.journal import Journal, made_from, run_missing
from specgan.tasks.runner import Report, UnitError, run_units, stage

JOURNAL_NAME = ".encode.jsonl"


@dataclass(frozen=True)
class _Song:
    source: Path
    key: str  # its place in the output folder, without slice number and suffix

    @property
    def sources(self) -> list[Path]:
        return [self.source]


@dataclass(frozen=True)
class _Settings:
    params: CodecParams
    sample_rate: int | None
    mono: bool
    downmix: str
    trim_db: float | None

    def reading(self) -> dict[str, Any]:
        return {"sample_rate": self.sample_rate, "mono": self.mono, "downmix": self.downmix}


def encode_songs(
    input: str | Path,
    output: str | Path,
    *,
    size: int = 1024,
    bit_depth: int = 16,
    phase_encoding: str = "cos_sin",
    range_db: float | None = None,
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
        size, bit_depth, phase_encoding, range_db: see CodecParams.
        sample_rate: Hz to resample to; None: each file's own.
        mono: one channel; False: a picture for each channel.
        downmix: how, with `mono`: "mean", "left" or "max_energy", see audio.open_audio.
        trim_db: dB re full scale, < 0: what is quieter at both ends is cut off; the pictures know how much, and
            decoding puts silence there. A song that is quieter throughout stays whole. None: nothing is cut.
        recursive: search the subfolders too.
        executor: opens the workers, see tasks.executors.
        on_error: "skip" records a bad file in failures.csv and goes on; "raise" stops at the first.
    Raises:
        FileNotFoundError, ValueError: nothing to do, or arguments that cannot work; nothing is written.
    """
    input, output = Path(os.path.abspath(input)), Path(os.path.abspath(output))  # the workers may run elsewhere
    params = CodecParams(size=size, bit_depth=bit_depth, phase_encoding=phase_encoding, range_db=range_db)
    if trim_db is not None and trim_db >= 0:
        raise ValueError(f"trim_db is {trim_db}; dB re full scale, below 0, e.g. -60, or null to cut nothing")
    settings = _Settings(params, sample_rate, mono, downmix, trim_db)
    files = find_audio(input, recursive=recursive)
    root = input.parent if input.is_file() else input
    songs = [_Song(file, key) for file, key in unique_names({file: _place(file, root) for file in files}, root).items()]

    journal = Journal(output, {**asdict(settings), "input": str(input.resolve())}, name=JOURNAL_NAME)
    run = partial(run_units, work=partial(_encode_songs, settings=settings, output=output))
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


def _place(file: Path, root: Path) -> str:
    return "/".join(safe_name(part) for part in file.relative_to(root).with_suffix("").parts)


def _encode_songs(songs: Sequence[_Song], *, settings: _Settings, output: Path) -> Iterator[Any]:
    """Work for `run_units`: the entry of each song, or its UnitError."""
    for song in songs:
        try:
            yield _encode_song(song, settings, output)
        except UnitError as err:
            yield err


@torch.inference_mode()
def _encode_song(song: _Song, settings: _Settings, output: Path) -> dict[str, Any]:
    outputs: list[str] = []
    try:
        with stage("decode"):
            state = made_from(song.sources)
            info, loud = _measure(song, settings)
        with stage("decode"), open_audio(song.source, **settings.reading(), warn=False) as stream:
            blocks = (block * info.gain for block in _cut(stream.blocks, loud))
            for number, segment in enumerate(segments(blocks, info.params)):
                for channel, samples in enumerate(segment):
                    suffix = f"_ch{channel}" if info.n_channels > 1 else ""
                    path = f"{song.key}_{number:04d}{suffix}.png"
                    _write(output / path, samples, info, number, channel)
                    outputs.append(path)
    except BaseException:
        for path in outputs:
            (output / path).unlink(missing_ok=True)
        raise
    return {"made_from": state, "outputs": outputs}


def _measure(song: _Song, settings: _Settings) -> tuple[SliceInfo, slice]:
    """Reads the song once, for what every picture must know: its first slice's info, and the samples to keep."""
    n_samples, peak = 0, 0.0
    first, behind = None, 0  # of what is loud
    threshold = 0.0 if settings.trim_db is None else 10 ** (settings.trim_db / 20)
    with open_audio(song.source, **settings.reading()) as stream:
        for block in stream.blocks:
            level = block.abs().amax(dim=0)
            peak = max(peak, float(level.max()))
            if settings.trim_db is not None:
                loud = (level > threshold).nonzero()
                if len(loud):
                    first = n_samples + int(loud[0]) if first is None else first
                    behind = n_samples + int(loud[-1]) + 1
            n_samples += block.shape[1]
    kept = slice(0, n_samples) if first is None else slice(first, behind)
    info = SliceInfo(
        params=settings.params,
        sample_rate=stream.sample_rate,
        song=song.key,
        n_samples=n_samples,
        offset=kept.start,
        n_trimmed=n_samples - kept.stop,
        n_channels=stream.n_channels,
        gain=1 / peak if peak > 1 else 1.0,
    )
    return info, kept


def _cut(blocks: Iterator[Tensor], kept: slice) -> Iterator[Tensor]:
    """What of the blocks (channels, n) lies in `kept`, samples of the whole."""
    start = 0
    for block in blocks:
        part = block[:, max(0, kept.start - start) : max(0, kept.stop - start)]
        start += block.shape[1]
        if part.shape[1]:
            yield part


def _write(path: Path, samples: Tensor, info: SliceInfo, number: int, channel: int) -> None:
    with stage("encode"):
        png = to_png(encode_slice(samples, info.params), replace(info, number=number, channel=channel))
    with stage("write"), atomic_path(path) as temporary:
        temporary.write_bytes(png)
