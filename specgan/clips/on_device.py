"""Recordings -> spectrograms on a device: the workers only decode, this process transforms batches of theirs."""

import math
from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import closing
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from specgan.batch.failures import Failure, UnitError, failure_of
from specgan.batch.runner import Batch, one_by_one
from specgan.clips.clip import Clip, ClipEntry
from specgan.clips.files import write_clips
from specgan.clips.levels import Levels, Loaded, levels_of, levels_of_power, load_clips, transform
from specgan.clips.recipe import Recipe
from specgan.clips.shards import Shard
from specgan.spectrogram import SpectrogramParams

_BATCH_SAMPLES = 2**23  # in a batch: 32 MiB of sound, and of power a few times as much


def run_on_device(
    clips: Sequence[Clip],
    *,
    batch: Batch,
    recipe: Recipe,
    output: Path,
    device: str,
    shard_size: int,
    n_skipped: int = 0,
) -> Generator[tuple[Clip, ClipEntry | Failure]]:
    """As `Batch.run` with `make_clips`, or with `make_shards`, but only decodes on the workers.

    Args:
        shard_size: clips in a shard, with format "shards".
    """
    loaded = batch.run(clips, partial(load_clips, recipe=recipe), n_skipped=n_skipped)
    shard = Shard(recipe, output)
    waiting: list[Clip] = []  # for the shard to be written
    with closing(loaded):  # so that an error ends the workers at once
        for group in _batches(loaded):
            yield from ((clip, outcome) for clip, outcome in group if isinstance(outcome, Failure))
            jobs = [outcome for _, outcome in group if isinstance(outcome, Loaded)]
            levels, waiting = _transform(jobs, recipe, device), waiting + [job.clip for job in jobs]
            if recipe.format != "shards":
                entries = write_clips(levels, recipe=recipe, output=output)
            else:
                shard.add(levels)
                if not shard.is_full and len(waiting) < shard_size:
                    continue
                entries = shard.write()
            yield from _named(waiting, entries, batch)
            waiting = []
    yield from _named(waiting, shard.write(), batch)


def _batches(
    outcomes: Iterable[tuple[Clip, Loaded | Failure]],
) -> Iterator[list[tuple[Clip, Loaded | Failure]]]:
    """Yields as many recordings at a time as fill a batch; a long one ends it."""
    group: list[tuple[Clip, Loaded | Failure]] = []
    n_rows = longest = 0
    for clip, outcome in outcomes:
        group.append((clip, outcome))
        if isinstance(outcome, Failure):
            continue
        if outcome.waveform is not None:
            n_rows, longest = n_rows + len(outcome.waveform), max(longest, outcome.waveform.shape[1])
        if n_rows * longest >= _BATCH_SAMPLES or outcome.waveform is None:
            yield group
            group, n_rows, longest = [], 0, 0
    yield group


def _named(
    clips: Sequence[Clip], entries: Iterable[ClipEntry | UnitError], batch: Batch
) -> Iterator[tuple[Clip, ClipEntry | Failure]]:
    for clip, entry in zip(clips, entries, strict=True):
        yield clip, failure_of(clip, entry, batch.on_error) if isinstance(entry, UnitError) else entry


@torch.inference_mode()
def _transform(jobs: Sequence[Loaded], recipe: Recipe, device: str) -> list[Levels | UnitError]:
    """Transforms a batch, and each long recording by itself."""
    powers = _powers([job.waveform for job in jobs if job.waveform is not None], recipe.params, device)

    def levels(job: Loaded) -> Levels:
        if job.waveform is None:
            return levels_of(job, recipe=recipe, device=device)
        return levels_of_power(job, next(powers), recipe=recipe)

    return list(one_by_one(jobs, make=levels))


def _powers(waveforms: Sequence[np.ndarray], params: SpectrogramParams, device: str) -> Iterator[Tensor]:
    """Yields the power of each waveform. All are transformed at once: silence fills up the shorter ones."""
    if not waveforms:
        return
    n_rows = [len(waveform) for waveform in waveforms]
    filled = np.zeros((sum(n_rows), max(waveform.shape[1] for waveform in waveforms)), np.float32)
    for waveform, rows in zip(waveforms, np.split(filled, np.cumsum(n_rows)[:-1]), strict=True):
        rows[:, : waveform.shape[1]] = waveform
    power = transform(params, device).power(torch.from_numpy(filled).to(device))
    for waveform, rows in zip(waveforms, power.split(n_rows), strict=True):
        yield rows[..., : math.ceil(waveform.shape[1] / params.hop_length)]


def check_device(device: str) -> None:
    """Raises ValueError for a torch device that this machine does not have."""
    try:
        torch.ones(1, device=torch.device(device)).cpu()
    except (RuntimeError, AssertionError, TypeError) as err:  # AssertionError: a torch without CUDA
        reason = str(err).partition("\n")[0]
        raise ValueError(f"device is {device!r}, which torch cannot use here ({reason}); cpu or cuda") from err
