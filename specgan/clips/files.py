"""One recording -> its spectrograms, as tensors, pictures or both."""

import io
import math
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
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

from specgan.audio import DOWNMIXES, open_audio, scale_to_peak
from specgan.batch.journal import made_from
from specgan.batch.runner import Failure, UnitError, failure_of, run_units, stage
from specgan.data.shards import SHARD_BYTES, write_shard
from specgan.files import atomic_path
from specgan.spectrogram import LevelRange, Spectrogram, SpectrogramParams, normalise

FORMATS = ("pt", "png", "both", "shards")
POOL_MODES = ("avg", "max")
_GROUP_SAMPLES = 2**22  # of the waveforms that go through the stages together: 16 MiB, and a few times as much beside
_PART_BYTES = 2**25 + 1  # of a spectrogram: smaller ones are joined and encoded without a thought for memory
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
        format: "pt", "png" or "both", a file for each spectrogram; or "shards", a large file for thousands.
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
        if self.format == "shards" and not self.mono:
            raise ValueError("format is 'shards', which hold one channel, and mono is False; mono true, or format pt")
        for name, most in (("time_pool", self.params.n_frames), ("freq_pool", self.params.n_bins)):
            value = getattr(self, name)
            if not isinstance(value, int) or value < 1 or (most is not None and value > most):
                raise ValueError(f"{name} is {value!r}; an integer from 1" + (f" to {most}" if most else ""))
        if self.params.n_frames and self.params.n_frames % self.time_pool:
            raise ValueError(
                f"time_pool is {self.time_pool}; n_frames ({self.params.n_frames}) must be a multiple of it"
            )
        if not 0 < self.image_scale < math.inf:
            raise ValueError(f"image_scale is {self.image_scale}; a number above 0")
        if self.makes_pictures and not self.grayscale:
            from specgan.pictures.figures import colormap  # matplotlib, which tensors need not

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

    @property
    def key(self) -> str:
        return self.recording

    @property
    def sources(self) -> list[Path]:
        return [self.source]


def make_clips(clips: Sequence[Clip], *, recipe: Recipe, output: Path) -> list[Any]:
    """Makes the files of some recordings: work for `run_units`.

    All are read, then all are transformed, encoded and written, because a stage that goes on with its own code and data
    in the caches takes half the time with clips of a second. Long recordings are made one by one, in blocks.

    Returns:
        For each clip what the journal keeps: `made_from`, the state of its file; `outputs`, paths in the folder;
        `rows`, what the manifest says of each spectrogram. Or its UnitError, if it cannot be read, transformed or
        written; none of its files is left then.
    """
    groups = _groups(load_clips(clips, recipe=recipe))
    return [entry for jobs in groups for entry in _finish(jobs, recipe=recipe, output=output)]


def make_shards(clips: Sequence[Clip], *, recipe: Recipe, output: Path) -> list[Any]:
    """Makes the spectrograms of some recordings into one shard, or several when they are many: work for `run_units`.

    Returns: as `make_clips`; the only output of a clip is its shard, and `rows` have `first_frame`, the place in it.
    """
    shard, entries = _Shard(recipe, output), []
    for jobs in _groups(load_clips(clips, recipe=recipe)):
        shard.add(jobs)
        if shard.is_full:
            entries += shard.write()
    return entries + shard.write()


def _groups(jobs: Iterable[Any]) -> Iterator[list[Any]]:
    """As many jobs at a time as go through the stages together."""
    group, n_samples = [], 0
    for job in jobs:
        group.append(job)
        is_long = isinstance(job, _Job) and job.waveform is None
        n_samples += job.waveform.size if isinstance(job, _Job) and not is_long else 0
        if n_samples >= _GROUP_SAMPLES or is_long:
            yield group
            group, n_samples = [], 0
    yield group


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
    shard_size: int | None = None,
) -> Generator[tuple[Clip, Any]]:
    """As `run_units` with `make_clips`, but the workers only decode; batches of what they send are transformed here.

    Args:
        shard_size: clips in a shard, with format "shards": then as with `make_shards`.
    """
    loaded = run_units(
        clips,
        partial(load_clips, recipe=recipe),
        executor=executor,
        on_error=on_error,
        description=description,
        n_skipped=n_skipped,
    )

    shard = _Shard(recipe, output, device=device)
    waiting: list[Clip] = []

    def finish(jobs: Sequence[_Job], *, is_last: bool = False) -> Iterator[tuple[Clip, Any]]:
        waiting.extend(job.clip for job in jobs)
        if recipe.format == "shards":
            shard.add(jobs)
            if not (is_last or shard.is_full or len(waiting) >= shard_size):
                return
            entries = shard.write()
        else:
            entries = _finish(jobs, recipe=recipe, output=output, device=device)
        for clip, entry in zip(waiting, entries, strict=True):
            yield clip, failure_of(clip, entry, on_error) if isinstance(entry, UnitError) else entry
        waiting.clear()

    jobs: list[_Job] = []
    n_rows = longest = 0
    with closing(loaded):  # so that an error ends the workers at once
        for clip, job in loaded:
            if isinstance(job, Failure):
                yield clip, job
                continue
            jobs.append(job)
            if job.waveform is not None:
                n_rows, longest = n_rows + len(job.waveform), max(longest, job.waveform.shape[1])
            if n_rows * longest >= _BATCH_SAMPLES or job.waveform is None:
                yield from finish(jobs)
                jobs, n_rows, longest = [], 0, 0
    yield from finish(jobs, is_last=True)


def check_device(device: str) -> None:
    """Raises ValueError for a torch device that is not there."""
    try:
        torch.ones(1, device=torch.device(device)).cpu()
    except (RuntimeError, AssertionError, TypeError) as err:  # AssertionError: a torch without CUDA
        reason = str(err).partition("\n")[0]
        raise ValueError(f"device is {device!r}, which torch cannot use here ({reason}); cpu or cuda") from err


@dataclass
class _Job:
    """A clip on its way through the stages."""

    clip: Clip
    status: dict[str, Any]  # of the source, before it was read
    waveform: np.ndarray | None  # (channels, n_samples); None: too long to be kept, to be read in blocks
    is_warned: bool = False  # of what is wrong with the file
    power: Tensor | None = None
    levels: Sequence[Tensor] = ()
    encoded: Sequence["_Encoded"] = ()


@dataclass
class _Encoded:
    """One spectrogram as it will be written."""

    contents: dict[str, bytes | memoryview | Tensor]  # by path; the tensor's first
    row: dict[str, Any]  # see `_row`


def _each(function: Callable[[Any], Any], values: Iterable[Any]) -> list[Any]:
    """What the function makes of each value; or the UnitError that the value is, or that the function raises."""
    results = []
    for value in values:
        try:
            results.append(value if isinstance(value, UnitError) else function(value))
        except UnitError as err:
            results.append(err)
    return results


def load_clips(clips: Sequence[Clip], *, recipe: Recipe) -> Iterator[Any]:
    """Yields each clip's _Job, or the UnitError of one that cannot be read."""
    for clip in clips:
        yield from _each(partial(_load, recipe=recipe), [clip])


def _load(clip: Clip, *, recipe: Recipe) -> _Job:
    status = _status(clip)
    with stage("decode"), open_audio(clip.source, **_reading(recipe)) as stream:
        waveform = next(stream.blocks)
        if next(stream.blocks, None) is not None:
            return _Job(clip, status, None, is_warned=stream.is_read)
    if recipe.peak is not None:
        waveform = scale_to_peak(waveform, recipe.peak)
    return _Job(clip, status, waveform.numpy())


@torch.inference_mode()
def _finish(jobs: Sequence[Any], *, recipe: Recipe, output: Path, device: str = "cpu") -> list[Any]:
    """Takes jobs (or UnitErrors) through the stages after reading."""

    def encode(job: _Job) -> _Job:
        job.encoded = [_encode(level, job.clip, number, recipe) for number, level in enumerate(job.levels)]
        return job

    def write(job: _Job) -> dict[str, Any]:
        if job.waveform is None:
            return make_clip(job.clip, recipe=recipe, output=output, device=device, warn=not job.is_warned)
        return {**job.status, **_write(job.encoded, [job.waveform.shape[1]], recipe, output)}

    return _each(write, _each(encode, _transformed(jobs, recipe, device)))


def _transformed(jobs: Sequence[Any], recipe: Recipe, device: str) -> list[Any]:
    """Gives jobs their levels, but for those that are too long to be kept."""

    def transform(job: _Job) -> _Job:
        if job.waveform is not None:
            with stage("transform"):
                if job.power is None:
                    job.power = _transform(recipe.params, "cpu").power(torch.from_numpy(job.waveform))
                job.levels = list(_levels([job.power], recipe))
        return job

    if device != "cpu":
        short = [job for job in jobs if isinstance(job, _Job) and job.waveform is not None]
        _transform_batch(short, recipe.params, device)
    return _each(transform, jobs)


class _Shard:
    """Spectrograms that wait until they are enough for a shard."""

    def __init__(self, recipe: Recipe, output: Path, *, device: str = "cpu") -> None:
        self.recipe, self.output, self.device = recipe, output, device
        self.waiting: list[tuple[dict[str, Any], list[Tensor], int] | UnitError] = []
        self.n_bytes = 0

    @property
    def is_full(self) -> bool:
        return self.n_bytes >= SHARD_BYTES

    @torch.inference_mode()
    def add(self, jobs: Sequence[Any]) -> None:
        """Transforms jobs; UnitErrors keep their places among them."""
        for taken in _each(self._take, _transformed(jobs, self.recipe, self.device)):
            self.waiting.append(taken)
            self.n_bytes += 0 if isinstance(taken, UnitError) else sum(level.nbytes for level in taken[1])

    def _take(self, job: _Job) -> tuple[dict[str, Any], list[Tensor], int]:
        """Keeps of a job its status, its levels (n_bins, n_frames), and how many samples they stand for."""
        if job.waveform is not None:
            return job.status, [level[0].cpu() for level in job.levels], job.waveform.shape[1]
        lengths: list[int] = []
        blocks = _levels_in_blocks(job.clip, self.recipe, lengths, device=self.device, warn=not job.is_warned)
        with closing(blocks) as levels:
            return job.status, [level[0].cpu() for level in levels], sum(lengths)

    def write(self) -> list[Any]:
        """Writes what waits, and gives for each job its entry for the journal, or its UnitError."""
        waiting, self.waiting, self.n_bytes = self.waiting, [], 0
        spectrograms = [level for taken in waiting if not isinstance(taken, UnitError) for level in taken[1]]
        if not spectrograms:
            return waiting
        try:
            with stage("write"):
                path, places = write_shard(spectrograms, self.output)
        except UnitError as err:
            return [taken if isinstance(taken, UnitError) else err for taken in waiting]
        place = iter(places)

        def entry(taken: tuple[dict[str, Any], list[Tensor], int]) -> dict[str, Any]:
            status, levels, n_samples = taken
            rows = [{"path": path, "first_frame": next(place), **_row(level, i)} for i, level in enumerate(levels)]
            return {**status, "outputs": [path], "rows": _timed(rows, n_samples, self.recipe.params)}

        return _each(entry, waiting)


def _transform_batch(jobs: Sequence[_Job], params: SpectrogramParams, device: str) -> None:
    """Transforms the waveforms all at once: silence fills up the shorter ones."""
    if not jobs:
        return
    longest = max(job.waveform.shape[1] for job in jobs)
    filled = np.zeros((sum(len(job.waveform) for job in jobs), longest), np.float32)
    place = 0
    for job in jobs:
        filled[place : place + len(job.waveform), : job.waveform.shape[1]] = job.waveform
        place += len(job.waveform)
    power, place = _transform(params, device).power(torch.from_numpy(filled).to(device)), 0
    for job in jobs:
        n_frames = math.ceil(job.waveform.shape[1] / params.hop_length)
        job.power = power[place : place + len(job.waveform), :, :n_frames]
        place += len(job.waveform)


def make_clip(clip: Clip, *, recipe: Recipe, output: Path, device: str = "cpu", warn: bool = True) -> dict[str, Any]:
    """Makes the files of one recording in blocks: memory does not grow with its length, beyond the spectrogram's own.

    Returns: as `make_clips`, for one clip.
    Raises:
        UnitError: it cannot be read, transformed or written; none of its files is left.
    """
    status = _status(clip)
    lengths: list[int] = []
    blocks = _levels_in_blocks(clip, recipe, lengths, device=device, warn=warn)
    with torch.inference_mode(), closing(blocks) as levels:
        encoded = (_encode(level, clip, number, recipe) for number, level in enumerate(levels))
        return {**status, **_write(encoded, lengths, recipe, output)}


def _levels_in_blocks(clip: Clip, recipe: Recipe, lengths: list[int], *, device: str, warn: bool) -> Generator[Tensor]:
    """As `_levels`, of a recording that is read in blocks; their lengths in samples go to `lengths`."""
    gain = 1.0
    if recipe.peak is not None:  # a pass of its own, because a long recording is not kept
        loudest = max(float(block.abs().max()) for block in _read(clip, recipe, warn=False))
        gain = recipe.peak / loudest if loudest > 0 else 1.0

    def blocks() -> Iterator[Tensor]:
        for block in _read(clip, recipe, warn=warn):
            lengths.append(block.shape[-1])
            yield (block * gain).to(device)

    with closing(_transform(recipe.params, device).power_blocks(blocks())) as power:
        yield from _levels(power, recipe)


def _status(clip: Clip) -> dict[str, Any]:
    """Which state of the source the outputs are made from: taken before it is read."""
    with stage("decode"):
        return {"made_from": made_from([clip.source])}


def _reading(recipe: Recipe) -> dict[str, Any]:
    return {"sample_rate": recipe.params.sample_rate, "mono": recipe.mono, "downmix": recipe.downmix}


def _read(clip: Clip, recipe: Recipe, *, warn: bool) -> Iterator[Tensor]:
    """Waveform blocks (channels, any length)."""
    with stage("decode"), open_audio(clip.source, **_reading(recipe), warn=warn) as stream:
        yield from stream.blocks


@lru_cache(maxsize=2)
def _transform(params: SpectrogramParams, device: str) -> Spectrogram:
    return Spectrogram(params).to(device)


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
            yield _join(levels)
            return
        n_frames = p.n_frames // recipe.time_pool
        for block in _regroup(levels, n_frames):
            for level in block.split(n_frames, dim=-1):
                yield F.pad(level, (0, n_frames - level.shape[-1]), value=p.silence)


def _join(blocks: Iterable[Tensor]) -> Tensor:
    """Concatenates along time. Of a long recording, parts are let go as they are copied: it is not held twice."""
    parts, part, n_bytes = [], [], 0
    for block in blocks:
        part.append(block)
        n_bytes += block.nbytes
        if n_bytes >= _PART_BYTES:
            parts.append(torch.cat(part, dim=-1))
            part, n_bytes = [], 0
    if not parts:
        return torch.cat(part, dim=-1)
    parts += [torch.cat(part, dim=-1)] if part else []
    whole, place = torch.empty(*parts[0].shape[:-1], sum(part.shape[-1] for part in parts)), 0
    while parts:
        part = parts.pop(0)
        whole[..., place : place + part.shape[-1]] = part
        place += part.shape[-1]
    return whole


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


def _encode(level: Tensor, clip: Clip, number: int, recipe: Recipe) -> _Encoded:
    """Turns a spectrogram (channels, n_bins, n_frames), the clip's `number`th, into the bytes of its files."""
    contents: dict[str, bytes | memoryview | Tensor] = {}
    stem = clip.recording if recipe.params.n_frames is None else f"{clip.recording}_{number:04d}"
    with stage("encode"):
        level = level.cpu()
        if recipe.makes_tensors:
            tensor = level[0] if recipe.mono else level
            if tensor.untyped_storage().nbytes() > tensor.nbytes:
                tensor = tensor.clone()  # a view would be saved with all of its storage
            contents[f"{stem}.pt"] = tensor if tensor.nbytes >= _PART_BYTES else _saved(tensor)
        if recipe.makes_pictures:
            from specgan.pictures.figures import to_png

            scale = LevelRange(recipe.params.silence, 0.0 if recipe.params.level == "db" else 1.0)
            look: dict[str, Any] = {"cmap": recipe.cmap, "grayscale": recipe.grayscale, "scale": recipe.image_scale}
            for channel, spectrogram in enumerate(normalise(level, recipe.params, scale)):
                suffix = "" if recipe.mono else f"_ch{channel}"
                contents[f"{stem}{suffix}.png"] = to_png(spectrogram, **look)
        return _Encoded(contents, _row(level, number))


def _saved(tensor: Tensor) -> memoryview:
    buffer = io.BytesIO()
    torch.save(tensor, buffer)
    return buffer.getbuffer()


def _write(encoded: Iterable[_Encoded], lengths: Sequence[int], recipe: Recipe, output: Path) -> dict[str, Any]:
    """Writes the spectrograms of one recording, whose samples `lengths` counts when all have come."""
    outputs, rows = [], []
    try:
        for spectrogram in encoded:
            with stage("write"):
                for path, content in spectrogram.contents.items():
                    with atomic_path(output / path) as temporary:
                        if isinstance(content, Tensor):
                            with temporary.open("wb") as file:  # given a path, it would write the random name into it
                                torch.save(content, file)
                        else:
                            temporary.write_bytes(content)
                    outputs.append(path)
            paths = list(spectrogram.contents)
            rows += [{"path": path, **spectrogram.row} for path in (paths[:1] if recipe.makes_tensors else paths)]
    except BaseException:
        for path in outputs:
            (output / path).unlink(missing_ok=True)
        raise

    return {"outputs": outputs, "rows": _timed(rows, sum(lengths), recipe.params)}


def _row(level: Tensor, number: int) -> dict[str, Any]:
    """What the manifest says of a recording's `number`th spectrogram."""
    # peak_level: for the statistics; not a column of the manifest
    return {"start_s": number, "n_frames": level.shape[-1], "peak_level": float(level.max())}


def _timed(rows: list[dict[str, Any]], n_samples: int, params: SpectrogramParams) -> list[dict[str, Any]]:
    """Turns the numbers of slices, which stand for `start_s`, into times of a recording of `n_samples`."""
    duration_s = n_samples / params.sample_rate
    slice_s = duration_s if params.n_frames is None else params.n_samples / params.sample_rate
    for row in rows:
        start_s = row["start_s"] * slice_s
        row.update(start_s=round(start_s, 6), duration_s=round(min(slice_s, duration_s - start_s), 6))
    return rows
