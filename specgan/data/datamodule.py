"""The data of a training run: written when missing, opened, and given out in batches."""

import hashlib
import logging
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import lightning as L
import torch

from specgan.data.balance import Balance
from specgan.data.batches import BatchPlan, TrainLoader
from specgan.data.cropping import CROPS, crop_for
from specgan.data.dataset import SpectrogramDataset, as_batched, open_splits
from specgan.data.fingerprint import fingerprint
from specgan.data.manifest import MANIFEST_NAME, is_url
from specgan.spectrogram import LevelRange, SpectrogramParams

log = logging.getLogger(__name__)

# Settings of `make_dataset` that do not change what it makes.
_NO_CHANGE = ("on_error", "executor")
_UNLESS_SET = ("recording_pattern",)  # that came later: folders without it keep their names
_LEAST_BATCHES, _MOST_BATCHES = 16, 32  # in an epoch, unless epoch_size is set


class SpectrogramDataModule(L.LightningDataModule):
    """Batches of (spectrogram (B, channels, n_mels, n_frames), label (B,)) from a folder of sounds or a dataset folder.

    Args:
        params: of the spectrograms.
        channels: of the spectrograms and sounds: 1, or 2 for stereo.
        audio_dir: folder of labelled sounds; None: `dataset_dir` exists already.
        dataset_dir: where the spectrograms are, a folder or a URL for fsspec (s3://bucket/specs); None: a folder of
            `datasets_dir` whose name is a digest of the settings, so that runs with other settings do not overwrite
            each other's data.
        datasets_dir: parent of such folders.
        make_audio: called with `audio_dir` before anything else: writes built-in sounds, or fetches a data set.
        make_dataset: called with input, output, params, seed (of the splits), `channels` unless it is 1,
            `small_classes` unless it is "stop", and `dataset_settings`: writes what is missing or stale in
            `dataset_dir`.
        batch_size: examples in a batch of each process.
        epoch_size: examples in an epoch, of all processes together; None: each training clip once, but at least 16
            batches, so that an epoch is worth its overhead, and at most 32, so that what is done between epochs comes
            soon. Each clip is trained on once before any is again, over as many epochs as that takes.
        max_clips_per_class: training clips of each class at most, chosen by `split_seed`, for a larger number the same
            ones and more; None: all. Validation, test and the judge keep all of theirs, so that results with few
            clips compare with those with many.
        balance: of unequal classes: from 0, each clip comes equally often, to 1, each class does.
        crop: of clips longer than an example: "random" takes another piece each time, "start" their beginning; None:
            chosen by `setup`, see `crop_for`.
        num_workers: processes that fetch batches; 0: this one, as the data are in memory.
        pin_memory: copy batches to memory that a GPU reads while it computes.
        seed: of order and crops.
        split_seed: of the splits. Not `seed`: runs with other seeds share data and splits, so that they compare.
        small_classes: "stop", or "train": classes with fewer recordings than splits are trained on and not measured.
        **dataset_settings: handed to `make_dataset`: label_from, listing, splits, peak, ...
    """

    def __init__(
        self,
        *,
        params: SpectrogramParams,
        channels: int = 1,
        audio_dir: str | None = None,
        dataset_dir: str | None = None,
        datasets_dir: str = "data/datasets",
        make_audio: Callable[..., Any] | None = None,
        make_dataset: Callable[..., Any] | None = None,
        batch_size: int = 64,
        epoch_size: int | None = None,
        max_clips_per_class: int | None = None,
        balance: float = 0.0,
        crop: str | None = "random",
        num_workers: int = 0,
        pin_memory: bool = False,
        seed: int = 0,
        split_seed: int = 0,
        small_classes: str = "stop",
        **dataset_settings: Any,
    ) -> None:
        super().__init__()
        if audio_dir is None and dataset_dir is None:
            raise ValueError("data.audio_dir is not set; give a folder of sounds: data.audio_dir=<folder>")
        if channels not in (1, 2):
            raise ValueError(f"data.channels is {channels!r}; 1, or 2 for stereo")
        if batch_size < 1:
            raise ValueError(f"batch_size is {batch_size}; at least 1")
        if epoch_size is not None and epoch_size < 1:
            raise ValueError(f"epoch_size is {epoch_size}; at least 1, or null for 16 to 32 batches")
        if max_clips_per_class is not None and max_clips_per_class < 1:
            raise ValueError(f"data.max_clips_per_class is {max_clips_per_class}; at least 1, or null for all clips")
        if not 0 <= balance <= 1:
            raise ValueError(f"data.balance is {balance}; from 0 (each clip equally often) to 1 (each class)")
        if crop is not None and crop not in CROPS:
            raise ValueError(f"crop is {crop!r}; {' or '.join(CROPS)}, or null: chosen")
        self.params, self.channels = params, channels
        self.audio_dir = audio_dir
        self.make_audio = make_audio
        self.make_dataset = make_dataset
        self.dataset_settings = {"seed": split_seed, **dataset_settings}
        if channels != 1:  # else the folders keep their names
            self.dataset_settings["channels"] = channels
        if small_classes != "stop":  # the same
            self.dataset_settings["small_classes"] = small_classes
        self.is_built_in = make_audio is not None and "listing" not in dataset_settings
        self.batch_size = batch_size
        self.epoch_size = epoch_size
        self.max_clips_per_class = max_clips_per_class
        self.balance = balance
        self.given_crop = self.crop = crop
        self.num_workers = num_workers
        self.pin_memory = pin_memory
        self.seed = seed
        self.loader: TrainLoader | None = None
        self.loader_state: dict[str, int] | None = None  # of the checkpoint that the training goes on from
        self.dataset_dir: str | Path = Path(dataset_dir or self._default_dir(datasets_dir))
        self.local_dir = self.dataset_dir  # for what others keep beside the data
        if dataset_dir is not None and is_url(dataset_dir):
            self.dataset_dir = dataset_dir
            self.local_dir = Path(datasets_dir) / f"remote-{hashlib.sha256(dataset_dir.encode()).hexdigest()[:8]}"
        self.fixed_range: LevelRange | None = None  # of a checkpoint, instead of the data's own; before `setup`
        self.range_note = ""  # says so, where they differ
        self.train: SpectrogramDataset | None = None  # as the next three, opened by `setup`
        self.whole_train: SpectrogramDataset | None = None  # also what `max_clips_per_class` leaves out of `train`
        self.val: SpectrogramDataset | None = None
        self.test: SpectrogramDataset | None = None

    def _default_dir(self, datasets_dir: str) -> Path:
        audio_dir = Path(self.audio_dir).resolve()
        settings = {
            name: value
            for name, value in self.dataset_settings.items()
            if name not in _NO_CHANGE and (value is not None or name not in _UNLESS_SET)
        }
        digest = fingerprint(audio_dir=audio_dir, params=self._whole, settings=settings)
        return Path(datasets_dir) / f"{audio_dir.name}-{digest}"

    @property
    def _whole(self) -> SpectrogramParams:
        """What the data are made with: whole recordings, so that examples of any length can be cut anywhere in them."""
        return replace(self.params, n_frames=None)

    def prepare_data(self) -> None:
        if self.make_audio is not None:
            self.make_audio(self.audio_dir)
        if self.audio_dir is None:
            return
        settings = self.dataset_settings
        report = self.make_dataset(input=self.audio_dir, output=self.dataset_dir, params=self._whole, **settings)
        log.info("%s", report)
        if report.failures:
            log.warning(
                "training goes on without %d files that could not be read: %s/failures.csv",
                len(report.failures),
                self.dataset_dir,
            )

    def setup(self, stage: str) -> None:
        splits = open_splits(self.dataset_dir, self.params, channels=self.channels)
        self.train, self.val, self.test = splits["train"], splits["val"], splits["test"]
        self._fix_range()
        if self.range_note and stage == "fit":  # a report has it among its warnings
            log.warning("%s", self.range_note)
        if not len(self.train):
            raise ValueError(f"{self.dataset_dir}: the training split is empty; make it with task.splits=[80,10,10]")
        self._check_classes()
        self.whole_train = self.train
        if self.given_crop is None:
            self.crop = crop_for(self.train)
        if self.max_clips_per_class is not None:
            seed = self.dataset_settings["seed"]
            self.train = self.train.limited(self.max_clips_per_class, generator=torch.Generator().manual_seed(seed))
            log.info("data.max_clips_per_class: trained on %d of %d clips", len(self.train), len(self.whole_train))

    def _check_classes(self) -> None:
        """Raises ValueError for classes that nothing is trained on; says which are not in another split."""
        missing = {
            split: [name for label, name in enumerate(self.class_names) if not (clips.labels == label).any()]
            for split, clips in (("train", self.train), ("val", self.val), ("test", self.test))
            if len(clips)
        }
        if missing["train"]:
            raise ValueError(
                f"{self.dataset_dir}: no clip of {', '.join(map(repr, missing['train']))} is in the training split; "
                f"give some of its clips split=train in {MANIFEST_NAME}, or make the dataset again, which deals each "
                "class to every split (or leaves it out: classes=[...])"
            )
        for split in ("val", "test"):
            if names := missing.get(split):
                log.warning(
                    "%s: no clip of %s is in %s, so it is not measured there",
                    self.dataset_dir,
                    ", ".join(map(repr, names)),
                    split,
                )

    def _fix_range(self) -> None:
        own, fixed = self.train.level_range, self.fixed_range
        if fixed is None or fixed == own:
            return
        for clips in (self.train, self.val, self.test):
            clips.level_range = fixed
        self.range_note = (
            f"The levels of {self.dataset_dir} reach from {own.low:g} to {own.high:g}, those of the checkpoint's data "
            f"from {fixed.low:g} to {fixed.high:g}: the checkpoint's range is used, and what is louder is cut. Did the "
            "data change?"
        )

    @property
    def class_names(self) -> list[str]:
        """The labels, in the order of their indices. Known after `setup`."""
        return self.train.class_names

    @property
    def level_range(self) -> LevelRange:
        """The level statistics of the training split, or `fixed_range`. Known after `setup`."""
        return self.train.level_range

    @property
    def n_clips_of_classes(self) -> list[float]:
        """Training clips of each class; where crops are random, longer ones count by their length."""
        longest = 1.0 if self.crop == "start" else None
        worth = (self.train.n_frames_of / self.params.n_frames).clamp(1.0, longest)
        return torch.bincount(self.train.labels, weights=worth, minlength=len(self.class_names)).tolist()

    def train_dataloader(self) -> "TrainLoader":
        """A loader of one epoch after another; another call goes on where the one before was."""
        n_processes, rank = (self.trainer.world_size, self.trainer.global_rank) if self.trainer else (1, 0)
        size = self.batch_size * n_processes
        plan = BatchPlan(
            self.train.order,
            n_examples=len(self.train),
            batch_size=self.batch_size,
            epoch_size=self.epoch_size or min(max(len(self.train), _LEAST_BATCHES * size), _MOST_BATCHES * size),
            crop=self.crop,
            seed=self.seed,
            n_processes=n_processes,
            rank=rank,
            balance=Balance(self.train.labels, self.balance) if self.balance else None,
        )
        before = self.loader.state_dict() if self.loader is not None else self.loader_state
        self.loader = TrainLoader(
            self.train,
            batch_sampler=plan,
            collate_fn=as_batched,
            num_workers=self.num_workers,
            pin_memory=self.pin_memory,
            persistent_workers=self.num_workers > 0,
            generator=torch.Generator().manual_seed(self.seed),  # else each epoch would draw from the global one
        )
        if before is not None:
            self.loader.load_state_dict(before)
        return self.loader

    # Lightning keeps the state of a loader by itself, but gives it back only in mid-epoch.
    def state_dict(self) -> dict[str, Any]:
        return {"loader": self.loader.state_dict(), "crop": self.crop}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.loader_state = state_dict["loader"]
        if self.given_crop is None:
            self.crop = state_dict.get("crop", "random")  # which it was before it could be chosen
