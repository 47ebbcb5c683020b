"""The data of a training run: made when missing, opened, dealt out in batches."""

import hashlib
import logging
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import lightning as L
import torch
from torch.utils.data import DataLoader, Sampler

from specgan.data.dataset import SpectrogramDataset
from specgan.spectrogram import SpectrogramParams

log = logging.getLogger(__name__)


class SpectrogramDataModule(L.LightningDataModule):
    """Batches of (spectrogram (B, 1, n_mels, n_frames), label (B,)) from a folder of sounds or a dataset folder.

    Args:
        params: of the spectrograms.
        audio_dir: folder of labelled sounds; None: `dataset_dir` is there already.
        dataset_dir: where the spectrograms are; None: a folder of `datasets_dir` whose name stands for the settings,
            so that runs with other settings do not overwrite each other's data.
        datasets_dir: parent of such folders.
        make_audio: called with `audio_dir` before anything else: makes built-in sounds.
        make_dataset: called with input, output, params, seed (of the splits) and `dataset_settings`: makes what is
            missing or stale in `dataset_dir`.
        batch_size: examples in a batch.
        epoch_size: examples in an epoch; None: each training clip once, but at least 16 batches: smaller folders are
            gone through several times, so that an epoch is worth its overhead.
        crop: of clips longer than an example: "random" takes another piece each time, "start" their beginning (for
            hits whose attack matters).
        num_workers: processes that fetch batches; 0: this one, as the data are in memory.
        seed: of order and crops.
        split_seed: of the splits. Not `seed`: runs with other seeds share data and splits, so that they compare.
        **dataset_settings: handed to `make_dataset`: label_from, splits, peak, ...
    """

    def __init__(
        self,
        *,
        params: SpectrogramParams,
        audio_dir: str | None = None,
        dataset_dir: str | None = None,
        datasets_dir: str = "data/datasets",
        make_audio: Callable[..., Any] | None = None,
        make_dataset: Callable[..., Any] | None = None,
        batch_size: int = 64,
        epoch_size: int | None = None,
        crop: str = "random",
        num_workers: int = 0,
        seed: int = 0,
        split_seed: int = 0,
        **dataset_settings: Any,
    ) -> None:
        super().__init__()
        if audio_dir is None and dataset_dir is None:
            raise ValueError("data.audio_dir is not set; give a folder of sounds: data.audio_dir=<folder>")
        if batch_size < 1:
            raise ValueError(f"batch_size is {batch_size}; at least 1")
        if epoch_size is not None and epoch_size < 1:
            raise ValueError(f"epoch_size is {epoch_size}; at least 1, or null for each clip once")
        if crop not in ("random", "start"):
            raise ValueError(f"crop is {crop!r}; random or start")
        self.params = params
        self.audio_dir = audio_dir
        self.make_audio = make_audio
        self.make_dataset = make_dataset
        self.dataset_settings = {"seed": split_seed, **dataset_settings}
        self.batch_size = batch_size
        self.epoch_size = epoch_size
        self.crop = crop
        self.num_workers = num_workers
        self.generator = torch.Generator().manual_seed(seed)
        self.dataset_dir = Path(dataset_dir) if dataset_dir else Path(datasets_dir) / self._dataset_name()
        self.train: SpectrogramDataset | None = None

    def _dataset_name(self) -> str:
        audio_dir = Path(self.audio_dir).resolve()
        settings = repr((audio_dir, self.params, sorted(self.dataset_settings.items())))
        return f"{audio_dir.name}-{hashlib.sha256(settings.encode()).hexdigest()[:8]}"

    def prepare_data(self) -> None:
        if self.make_audio is not None:
            self.make_audio(self.audio_dir)
        if self.audio_dir is None:
            return
        whole = replace(self.params, n_frames=None)  # so that crops of a clip can be anywhere in it
        report = self.make_dataset(input=self.audio_dir, output=self.dataset_dir, params=whole, **self.dataset_settings)
        log.info("%s", report)
        if report.failures:
            log.warning(
                "training goes on without %d files that could not be read: %s/failures.csv",
                len(report.failures),
                self.dataset_dir,
            )

    def setup(self, stage: str) -> None:
        self.train = SpectrogramDataset(self.dataset_dir, "train", self.params)
        self.val = SpectrogramDataset(self.dataset_dir, "val", self.params)
        self.test = SpectrogramDataset(self.dataset_dir, "test", self.params)
        if not len(self.train):
            raise ValueError(f"{self.dataset_dir}: the training split is empty; make it with task.splits=[80,10,10]")

    @property
    def class_names(self) -> list[str]:
        """The labels, in the order of their indices. Known after `setup`."""
        return self.train.class_names

    @property
    def level_range(self):
        """The level statistics of the training split. Known after `setup`."""
        return self.train.level_range

    def train_dataloader(self) -> DataLoader:
        epoch_size = self.epoch_size or max(len(self.train), 16 * self.batch_size)
        sampler = _CropSampler(len(self.train), epoch_size, self.crop, self.generator)
        # drop_last: batch norm and pairing want whole batches. The epoch size is a batch at least.
        return DataLoader(
            self.train,
            self.batch_size,
            sampler=sampler,
            num_workers=self.num_workers,
            drop_last=epoch_size >= self.batch_size,
        )

    def state_dict(self) -> dict[str, Any]:
        return {"generator": self.generator.get_state()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.generator.set_state(state_dict["generator"])


class _CropSampler(Sampler[tuple[int, float]]):
    """Shuffled indices, each with the place of its crop, so that both come from one generator in one process."""

    def __init__(self, n_clips: int, epoch_size: int, crop: str, generator: torch.Generator) -> None:
        self.n_clips, self.epoch_size, self.crop, self.generator = n_clips, epoch_size, crop, generator

    def __len__(self) -> int:
        return self.epoch_size

    def __iter__(self) -> Iterator[tuple[int, float]]:
        n_rounds = -(-self.epoch_size // self.n_clips)
        order = torch.cat([torch.randperm(self.n_clips, generator=self.generator) for _ in range(n_rounds)])
        places = torch.rand(self.epoch_size, generator=self.generator)
        if self.crop == "start":
            places.zero_()
        yield from zip(order[: self.epoch_size].tolist(), places.tolist(), strict=True)
