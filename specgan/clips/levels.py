"""A recording -> the levels of its spectrograms: read, transformed, pooled, cut into slices."""

from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, closing
from dataclasses import dataclass
from functools import lru_cache, partial

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from specgan.audio import AudioStream, open_audio, scale_to_peak
from specgan.batch.failures import UnitError, stage
from specgan.batch.journal import State, made_from
from specgan.batch.runner import one_by_one
from specgan.clips.clip import Clip, ClipEntry, Piece, Place, rows_of
from specgan.clips.recipe import Recipe
from specgan.spectrogram import Spectrogram, SpectrogramParams

PART_BYTES = 2**25 + 1  # of a spectrogram: smaller ones are joined and encoded without regard to memory
_GROUP_SAMPLES = 2**22  # of the waveforms that go through a stage together: 16 MiB, and a few times as much beside


@dataclass(frozen=True)
class Loaded:
    """A recording that was read.

    Args:
        clip: the recording.
        made_from: the state of its file, before it was read.
        waveform: (n_channels, n_samples) float32. None: it is too long to be held, and will be read again in blocks.
        is_warned: what is wrong with the file has been logged.
        recorded_rate: of the file, Hz; 0: unknown.
        n_channels: of the file; 0: unknown.
    """

    clip: Clip
    made_from: list[State]
    waveform: np.ndarray | None
    is_warned: bool = False
    recorded_rate: int = 0
    n_channels: int = 0


@dataclass(frozen=True)
class Levels:
    """The spectrograms of a recording.

    Args:
        clip, made_from: as in `Loaded`.
        spectrograms: (n_channels, n_bins, n_frames) each, one for each slice, or one of the whole. Those of a long
            recording are made as they are taken, and only once.
        lengths: samples of the blocks that the spectrograms so far are made from.
        recorded_rate, n_channels: as in `Loaded`.
    """

    clip: Clip
    made_from: list[State]
    spectrograms: list[Tensor] | Generator[Tensor]
    lengths: list[int]
    recorded_rate: int = 0
    n_channels: int = 0

    @property
    def n_samples(self) -> int:
        """Of the recording, at the spectrograms' sample rate; final when all spectrograms have been taken."""
        return sum(self.lengths)

    def entry(self, outputs: list[str], pieces: Iterable[tuple[Place, Piece]], recipe: Recipe) -> ClipEntry:
        """The recording in the journal, once its spectrograms are written."""
        rows = rows_of(pieces, self.n_samples, recipe.params, recorded_rate=self.recorded_rate)
        entry: ClipEntry = {"made_from": self.made_from, "outputs": outputs, "rows": rows}
        return entry if recipe.channels == 1 else {**entry, "n_channels": self.n_channels}

    @property
    def is_held(self) -> bool:
        return isinstance(self.spectrograms, list)

    def close(self) -> None:
        """Closes the file of a long recording."""
        if not isinstance(self.spectrograms, list):
            self.spectrograms.close()


def levels_in_groups(clips: Sequence[Clip], *, recipe: Recipe) -> Iterator[list[Levels | UnitError]]:
    """Yields the levels of each clip, or its UnitError: as many at a time as go through the next stage together.

    All are read, then all are transformed: a stage that goes on with its own code and data in the caches takes half the
    time with clips of a second. A long recording ends its group.
    """
    group: list[Loaded | UnitError] = []
    n_samples = 0
    for loaded in load_clips(clips, recipe=recipe):
        group.append(loaded)
        is_long = isinstance(loaded, Loaded) and loaded.waveform is None
        if isinstance(loaded, Loaded) and loaded.waveform is not None:
            n_samples += loaded.waveform.size
        if n_samples >= _GROUP_SAMPLES or is_long:
            yield list(one_by_one(group, make=partial(levels_of, recipe=recipe)))
            group, n_samples = [], 0
    yield list(one_by_one(group, make=partial(levels_of, recipe=recipe)))


def load_clips(clips: Sequence[Clip], *, recipe: Recipe) -> Iterator[Loaded | UnitError]:
    """Yields each clip as it is read, or its UnitError: work for `Batch.run`."""
    return one_by_one(clips, make=partial(_load, recipe=recipe))


def _load(clip: Clip, *, recipe: Recipe) -> Loaded:
    with stage("decode"):
        state = made_from(clip.sources)
        with _open(clip, recipe) as stream:
            waveform, rate, n_channels = next(stream.blocks), stream.file_rate, stream.n_file_channels
            if next(stream.blocks, None) is not None:
                return Loaded(clip, state, None, is_warned=stream.is_read, recorded_rate=rate, n_channels=n_channels)
    if recipe.peak is not None:
        waveform = scale_to_peak(waveform, recipe.peak)
    return Loaded(clip, state, waveform.numpy(), recorded_rate=rate, n_channels=n_channels)


def _open(clip: Clip, recipe: Recipe, *, warn: bool = True) -> AbstractContextManager[AudioStream]:
    return open_audio(
        clip.source,
        sample_rate=recipe.params.sample_rate,
        mono=recipe.mono,
        downmix=recipe.downmix,
        channels=recipe.channels,
        warn=warn,
    )


def levels_of(loaded: Loaded, *, recipe: Recipe, device: str = "cpu") -> Levels:
    """Transforms one recording on the device; of a long one, nothing is done before its spectrograms are taken.

    Raises:
        UnitError: it cannot be transformed.
    """
    if loaded.waveform is None:
        lengths: list[int] = []
        spectrograms = _in_blocks(loaded, recipe, lengths, device)
        return Levels(loaded.clip, loaded.made_from, spectrograms, lengths, loaded.recorded_rate, loaded.n_channels)
    with stage("transform"):
        power = transform(recipe.params, device).power(torch.from_numpy(loaded.waveform).to(device))
    return levels_of_power(loaded, power, recipe=recipe)


def levels_of_power(loaded: Loaded, power: Tensor, *, recipe: Recipe) -> Levels:
    """The levels of a recording from its power (n_channels, n_bins, n_frames), which may be on another device.

    Raises:
        UnitError: they cannot be made.
    """
    spectrograms, lengths = list(_cut([power], recipe)), [loaded.waveform.shape[1]]
    return Levels(loaded.clip, loaded.made_from, spectrograms, lengths, loaded.recorded_rate, loaded.n_channels)


def _in_blocks(loaded: Loaded, recipe: Recipe, lengths: list[int], device: str) -> Generator[Tensor]:
    """Reads a long recording: memory does not grow with its length, beyond the spectrogram's own."""
    gain = 1.0
    if recipe.peak is not None:  # a pass of its own, because a long recording is not held
        loudest = max(float(block.abs().max()) for block in _read(loaded.clip, recipe, warn=False))
        gain = recipe.peak / loudest if loudest > 0 else 1.0

    def blocks() -> Iterator[Tensor]:
        for block in _read(loaded.clip, recipe, warn=not loaded.is_warned):
            lengths.append(block.shape[-1])
            yield (block * gain).to(device)

    with closing(transform(recipe.params, device).power_blocks(blocks())) as power:
        yield from _cut(power, recipe)


def _read(clip: Clip, recipe: Recipe, *, warn: bool) -> Iterator[Tensor]:
    """Waveform blocks (n_channels, any length)."""
    with stage("decode"), _open(clip, recipe, warn=warn) as stream:
        yield from stream.blocks


@lru_cache(maxsize=2)
def transform(params: SpectrogramParams, device: str) -> Spectrogram:
    """The transform on a device, whose window and filters are computed once."""
    return Spectrogram(params).to(device)


def _cut(power: Iterable[Tensor], recipe: Recipe) -> Iterator[Tensor]:
    """Levels (n_channels, n_bins, n_frames) after pooling: of each slice, or of the whole recording."""
    p, pool = recipe.params, (recipe.freq_pool, recipe.time_pool)
    with stage("transform"):
        if pool != (1, 1):
            pooled = F.avg_pool2d if recipe.pool_mode == "avg" else F.max_pool2d
            # ceil_mode: the last pixel of a row or column stands for what is left
            power = (pooled(block, pool, ceil_mode=True) for block in _regroup(power, recipe.time_pool))
        levels = (transform(p, "cpu").to_level(block) for block in power)
        if p.n_frames is None:
            yield _join(levels)
            return
        n_frames = p.n_frames // recipe.time_pool
        for block in _regroup(levels, n_frames):
            for level in block.split(n_frames, dim=-1):
                yield F.pad(level, (0, n_frames - level.shape[-1]), value=p.silence)


def _join(blocks: Iterable[Tensor]) -> Tensor:
    """Concatenates along time. Parts of a long recording are released as they are copied: it is not held twice."""
    parts: list[Tensor] = []
    part: list[Tensor] = []
    n_bytes = 0
    for block in blocks:
        part.append(block)
        n_bytes += block.nbytes
        if n_bytes >= PART_BYTES:
            parts.append(torch.cat(part, dim=-1))
            part, n_bytes = [], 0
    if not parts:
        return torch.cat(part, dim=-1)
    parts += [torch.cat(part, dim=-1)] if part else []
    whole, place = torch.empty(*parts[0].shape[:-1], sum(part.shape[-1] for part in parts)), 0
    while parts:
        first = parts.pop(0)
        whole[..., place : place + first.shape[-1]] = first
        place += first.shape[-1]
    return whole


def _regroup(blocks: Iterable[Tensor], size: int) -> Iterator[Tensor]:
    """Moves the borders of blocks (..., any number of frames) to multiples of `size`, except the end of the last."""
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
