"""One recording -> its spectrograms, as tensors, pictures or both."""

import io
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Executor
from contextlib import AbstractContextManager, closing
from dataclasses import asdict, dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from specgan.audio import DOWNMIXES, open_audio
from specgan.files import atomic_path
from specgan.spectrogram import LevelRange, Spectrogram, SpectrogramParams, normalise
from specgan.tasks.runner import Failure, UnitError, failure_of, run_units, stage

FORMATS = ("pt", "png", "both")
POOL_MODES = ("avg", "max")
_BATCH_SAMPLES = 2**23  # in a batch on a device: 32 MiB of sound, and of power a few times as much


@dataclass(frozen=True)
class Recipe:
    """What is made of a recording.

    Args:
        params: of the spectrograms.
        mono: one channel, tensors (n_bins, n_frames); False keeps the channels, (n_channels, n_bins, n_frames).
        downmix: how several channels become one: "mean", "left" or "max_energy", see audio.open_audio.
        peak: each recording is scaled to this peak, 0..1, which makes them equally loud and **drops how loud they
            were**; None keeps their level.
        time_pool: frames that become one, at least 1; the last one may stand for fewer.
        freq_pool: bins that become one, at least 1.
        pool_mode: "avg" or "max" of their **power**, before the level mapping: the mean of decibels would lose tones.
        format: "pt", "png" or "both".
        grayscale: pictures have one grey channel instead of colours.
        cmap: of the pictures, any matplotlib colormap. Its first colour is silence (`params.floor_db`), its last a
            full-scale sine; with level "log1p" the lowest and highest value of the picture.
        image_scale: pixels a value in each direction, above 0.

    Raises:
        ValueError: an impossible setting.
    """

    params: SpectrogramParams
    mono: bool = True
    downmix: str = "mean"
    peak: float | None = None
    time_pool: int = 1
    freq_pool: int = 1
    pool_mode: str = "avg"
    format: str = "pt"
    grayscale: bool = False
    cmap: str = "magma"
    image_scale: float = 1.0

    def __post_init__(self) -> None:
        if self.peak is not None and not 0 < self.peak <= 1:
            raise ValueError(
                f"peak is {self.peak}; it must be above 0 and at most 1, or null to keep each clip's level"
            )
        for name, known in (("downmix", DOWNMIXES), ("pool_mode", POOL_MODES), ("format", FORMATS)):
            if getattr(self, name) not in known:
                raise ValueError(f"{name} is {getattr(self, name)!r}; one of {', '.join(known)}")
        for name, most in (("time_pool", self.params.n_frames), ("freq_pool", self.params.n_bins)):
            value = getattr(self, name)
            if not isinstance(value, int) or value < 1 or (most is not None and value > most):
                raise ValueError(f"{name} is {value!r}; an integer from 1" + (f" to {most}" if most else ""))
        if self.params.n_frames and self.params.n_frames % self.time_pool:
            raise ValueError(
                f"time_pool is {self.time_pool}; n_frames ({self.params.n_frames}) must be a multiple of it"
            )
        if self.image_scale <= 0:
            raise ValueError(f"image_scale is {self.image_scale}; above 0")
        if self.makes_pictures and not self.grayscale:
            from specgan.picture import colormap  # matplotlib, which tensors need not

            colormap(self.cmap)

    @property
    def makes_tensors(self) -> bool:
        return self.format in ("pt", "both")

    @property
    def makes_pictures(self) -> bool:
        return self.format in ("png", "both")

    def settings(self) -> dict[str, Any]:
        """What the outputs depend on, by name, as plain values."""
        settings = {"spectrogram": asdict(self.params), **asdict(self)}
        del settings["params"]
        unused = [] if self.mono else ["downmix"]
        unused += [] if self.time_pool * self.freq_pool > 1 else ["pool_mode"]
        unused += [] if self.makes_pictures else ["grayscale", "cmap", "image_scale"]
        unused += ["cmap"] if self.makes_pictures and self.grayscale else []
        return {name: value for name, value in settings.items() if name not in unused}


@dataclass(frozen=True)
class Clip:
    """A recording: its file, its label, and its place in the dataset folder, `<label>/<name>` without suffix."""

    source: Path
    label: str
    recording: str


def make_clip(clip: Clip, *, recipe: Recipe, output: Path, device: str = "cpu") -> dict[str, Any]:
    """Makes the files of one recording.

    Returns:
        What the journal keeps: `source`, `size` and `mtime_ns` of the file they were made from; `outputs`, their paths
        in the folder; `rows`, what the manifest says of each spectrogram.
    Raises:
        UnitError: it cannot be read, transformed or written; none of its files is left.
    """
    status = _status(clip)
    lengths = []

    def blocks() -> Iterator[Tensor]:
        for block in _read(clip, recipe):
            lengths.append(block.shape[-1])
            yield block.to(device)

    with torch.inference_mode(), closing(_transform(recipe.params, device).power_blocks(blocks())) as power:
        return {**status, **_write_all(clip, power, lengths, recipe=recipe, output=output)}


def _status(clip: Clip) -> dict[str, Any]:
    """Which state of the source the outputs are made from: taken before it is read."""
    with stage("decode"):
        status = clip.source.stat()
    return {"source": str(clip.source), "size": status.st_size, "mtime_ns": status.st_mtime_ns}


def _read(clip: Clip, recipe: Recipe) -> Iterator[Tensor]:
    """Waveform blocks (channels, any length), scaled to the peak."""
    settings = {"sample_rate": recipe.params.sample_rate, "mono": recipe.mono, "downmix": recipe.downmix}
    with stage("decode"):
        with open_audio(clip.source, **settings) as stream:
            if recipe.peak is None:
                yield from stream.blocks
                return
            first = next(stream.blocks)
            loudest, is_long = first.abs().max(), False
            for block in stream.blocks:
                loudest, is_long = torch.maximum(loudest, block.abs().max()), True
        gain = recipe.peak / loudest if loudest > 0 else 1.0
        if not is_long:
            yield first * gain
            return
        with open_audio(clip.source, **settings, warn=False) as stream:  # again: a long file is not kept
            for block in stream.blocks:
                yield block * gain


@lru_cache(maxsize=2)
def _transform(params: SpectrogramParams, device: str) -> Spectrogram:
    return Spectrogram(params).to(device)


def _write_all(
    clip: Clip, power: Iterable[Tensor], lengths: Sequence[int], *, recipe: Recipe, output: Path
) -> dict[str, Any]:
    """Writes what becomes of blocks (channels, n_bins, some frames) of power, whose samples `lengths` counts."""
    p, spectrograms, outputs = recipe.params, [], []
    try:
        for index, level in enumerate(_levels(power, recipe)):
            stem = clip.recording if p.n_frames is None else f"{clip.recording}_{index:04d}"
            paths = _write(level.cpu(), stem, recipe, output)
            outputs += paths
            listed = paths[:1] if recipe.makes_tensors else paths
            spectrograms += [(path, index, level.shape[-1], float(level.max())) for path in listed]
    except BaseException:
        for path in outputs:
            (output / path).unlink(missing_ok=True)
        raise

    duration_s = sum(lengths) / p.sample_rate
    slice_s = duration_s if p.n_frames is None else p.n_samples / p.sample_rate
    rows = [
        {
            "path": path,
            "start_s": round(index * slice_s, 6),
            "duration_s": round(min(slice_s, duration_s - index * slice_s), 6),
            "n_frames": n_frames,
            "peak_level": peak_level,  # for the statistics; not a column of the manifest
        }
        for path, index, n_frames, peak_level in spectrograms
    ]
    return {"outputs": outputs, "rows": rows}


def _levels(power: Iterable[Tensor], recipe: Recipe) -> Iterator[Tensor]:
    """Levels (channels, n_bins, n_frames) after pooling: of each slice, or of the whole recording."""
    p, pool = recipe.params, (recipe.freq_pool, recipe.time_pool)
    with stage("transform"):
        if pool != (1, 1):
            pooled = F.avg_pool2d if recipe.pool_mode == "avg" else F.max_pool2d
            # ceil_mode: the last pixel of a row or column stands for what is left
            power = (pooled(block, pool, ceil_mode=True) for block in _regroup(power, recipe.time_pool))
        levels = (_transform(p, "cpu").to_level(block) for block in power)
        if p.n_frames is None:
            levels = list(levels)
            yield levels[0] if len(levels) == 1 else torch.cat(levels, dim=-1)
            return
        n_frames = p.n_frames // recipe.time_pool
        for block in _regroup(levels, n_frames):
            for level in block.split(n_frames, dim=-1):
                yield F.pad(level, (0, n_frames - level.shape[-1]), value=p.silence)


def _regroup(blocks: Iterable[Tensor], size: int) -> Iterator[Tensor]:
    """Shifts the limits of blocks (..., some frames) to multiples of `size`, but for the end of the last one."""
    rest = None
    for block in blocks:
        if rest is not None:
            block = torch.cat([rest, block], dim=-1)
        n_whole = block.shape[-1] // size * size
        if n_whole:
            yield block[..., :n_whole]
        rest = block[..., n_whole:]
    if rest is not None and rest.shape[-1]:
        yield rest


def _write(level: Tensor, stem: str, recipe: Recipe, output: Path) -> list[str]:
    """Writes one spectrogram (channels, n_bins, n_frames) and returns the paths: of the tensor first."""
    contents = {}
    with stage("encode"):
        if recipe.makes_tensors:
            buffer = io.BytesIO()  # given a path, torch.save would write its random name into the file
            torch.save((level[0] if recipe.mono else level).clone(), buffer)  # a view would be saved with its storage
            contents[f"{stem}.pt"] = buffer.getbuffer()
        if recipe.makes_pictures:
            from specgan.picture import to_png

            scale = LevelRange(recipe.params.silence, 0.0 if recipe.params.level == "db" else 1.0)
            look = {"cmap": recipe.cmap, "grayscale": recipe.grayscale, "scale": recipe.image_scale}
            for channel, spectrogram in enumerate(normalise(level, recipe.params, scale)):
                suffix = "" if recipe.mono else f"_ch{channel}"
                contents[f"{stem}{suffix}.png"] = to_png(spectrogram, **look)
    with stage("write"):
        for path, content in contents.items():
            with atomic_path(output / path) as temporary:
                temporary.write_bytes(content)
    return list(contents)


def make_clips_on_device(
    clips: Sequence[Clip],
    *,
    recipe: Recipe,
    output: Path,
    device: str,
    executor: Callable[[], AbstractContextManager[Executor]],
    on_error: str,
    description: str,
    n_skipped: int = 0,
) -> Iterator[tuple[Clip, Any]]:
    """As `run_units` with `make_clip`, but the workers only decode; batches of what they send are transformed here."""
    batch: list[tuple[Clip, dict, np.ndarray]] = []
    loaded = run_units(
        clips,
        partial(_load_short, recipe=recipe),
        executor=executor,
        on_error=on_error,
        description=description,
        n_skipped=n_skipped,
    )

    def attempt(clip: Clip, make: Callable[[], dict]) -> tuple[Clip, Any]:
        try:
            return clip, make()
        except UnitError as err:
            return clip, failure_of(clip, err, on_error)

    def flush() -> Iterator[tuple[Clip, Any]]:
        powers = _batch_power([waveform for _, _, waveform in batch], recipe.params, device)
        for (clip, status, waveform), power in zip(batch, powers, strict=True):
            write = partial(_write_all, clip, [power], [waveform.shape[1]], recipe=recipe, output=output)
            yield attempt(clip, lambda status=status, write=write: {**status, **write()})
        batch.clear()

    with torch.inference_mode():
        for clip, outcome in loaded:
            if isinstance(outcome, Failure):
                yield clip, outcome
                continue
            status, waveform = outcome
            if waveform is None:
                yield attempt(clip, partial(make_clip, clip, recipe=recipe, output=output, device=device))
                continue
            batch.append((clip, status, waveform))
            if sum(len(w) for _, _, w in batch) * max(w.shape[1] for _, _, w in batch) >= _BATCH_SAMPLES:
                yield from flush()
        if batch:
            yield from flush()


def _load_short(clip: Clip, *, recipe: Recipe) -> tuple[dict[str, Any], np.ndarray | None]:
    """On a worker: the waveform (channels, n_samples), or None if it is too long to be sent."""
    status = _status(clip)
    with closing(_read(clip, recipe)) as blocks:
        block = next(blocks)
        return status, (block.numpy() if next(blocks, None) is None else None)


def _batch_power(waveforms: Sequence[np.ndarray], params: SpectrogramParams, device: str) -> Iterator[Tensor]:
    """Power (channels, n_bins, n_frames) of each waveform, all transformed at once: silence fills them up."""
    longest = max(waveform.shape[1] for waveform in waveforms)
    filled = np.zeros((sum(map(len, waveforms)), longest), np.float32)
    place = 0
    for waveform in waveforms:
        filled[place : place + len(waveform), : waveform.shape[1]] = waveform
        place += len(waveform)
    power, place = _transform(params, device).power(torch.from_numpy(filled).to(device)), 0
    for waveform in waveforms:
        n_frames = math.ceil(waveform.shape[1] / params.hop_length)
        yield power[place : place + len(waveform), :, :n_frames]
        place += len(waveform)
