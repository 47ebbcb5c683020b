"""A dataset folder as a torch Dataset."""

import copy
import re
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from torch.utils.data import Dataset

from specgan.audio import at_rate
from specgan.data.balance import shuffled
from specgan.data.folder import read_info, require_same_params
from specgan.data.manifest import SPLITS, is_url, read_file, read_manifest
from specgan.data.shards import Shards
from specgan.data.sounds import KeptSounds
from specgan.files import load_tensors
from specgan.spectrogram import LevelRange, SpectrogramParams, normalise

_COLUMNS = ("path", "label", "recording", "start_s", "n_frames", "first_frame", "source", "sound")


class SpectrogramDataset(Dataset):
    """The clips of one split, all of one length: held in memory, or read from shards when they are needed.

    Args:
        folder: a dataset folder of task=spectrograms, or the URL of one for fsspec (s3://bucket/specs).
        split: "train", "val" or "test".
        params: of the spectrograms; `n_frames` is the length of an example. Shorter clips are followed by silence, of
            longer ones a piece is cut.
        channels: of the spectrograms and sounds.
        n_open: shards that stay open, and the clips of which `order` mixes, at least 1.
        manifest: of the folder, if it was read already, with the rows of all splits; None: it is read.
    Raises:
        FileNotFoundError: no finished dataset folder.
        ValueError: the folder was made with other spectrogram settings, another number of channels, or for other ends
            (pictures alone, each recording's own channels, pooled); or `n_frames` is None; or its manifest is at odds
            with its files.
    Attributes:
        labels: (N,) int64, indices of `class_names`.
        recordings: (N,) int64, the recording that each clip comes from, numbered in this split.
        n_frames_of: (N,) int64, the whole length of each clip.
        starts_s: (N,) where in its recording each clip starts; NaN: the manifest does not say.
        sound_rate: of the kept sounds, Hz.
    """

    def __init__(
        self,
        folder: str | Path,
        split: str,
        params: SpectrogramParams,
        *,
        channels: int = 1,
        n_open: int = 8,
        manifest: pd.DataFrame | None = None,
    ) -> None:
        self.folder, self.params = folder if is_url(folder) else Path(folder), params
        self.channels, self._n_values = channels, channels * params.n_bins  # of a frame: the bins of all channels
        info = read_info(folder)
        require_same_params(params, info, folder)
        _require_trainable(info, params, folder, channels)
        if params.n_frames is None:
            raise ValueError("n_frames is None: examples need one length; choose a spectrogram preset that has one")
        self.class_names: list[str] = info["class_names"]
        self.level_range = LevelRange(**info["level_range"])
        if manifest is None:
            manifest = read_manifest(folder, split=split, columns=_COLUMNS)
        table = manifest[manifest["split"] == split].reset_index(drop=True)
        paths = None
        if "first_frame" in table and len(table):  # one shard behind the other, as they are best read
            numbers, paths = pd.factorize(table["path"].to_numpy(object), sort=True)
            table = table.assign(shard=numbers).sort_values(["shard", "first_frame"], ignore_index=True)
        labels = pd.Index(self.class_names, dtype=object).get_indexer(table["label"].to_numpy(object))
        if (labels < 0).any():
            raise ValueError(f"{folder}: its manifest has labels that params.yaml does not know; make it again")
        self.labels = torch.from_numpy(labels.astype(np.int64))
        self.recordings = torch.from_numpy(pd.factorize(table["recording"].to_numpy(object))[0].astype(np.int64))
        # One text, because few ask: a list of a million takes much more.
        self._sources = "\0".join(table["source"]).encode(errors="surrogateescape")
        whole = info["spectrogram"].get("n_frames") is None
        self.starts_s: np.ndarray = np.full(len(table), 0.0 if whole else np.nan)
        if "start_s" in table:
            self.starts_s = table["start_s"].to_numpy(float)
        self.sound_rate: int = info.get("sound_rate", params.sample_rate)
        self._sounds = KeptSounds(folder, table["sound"] if "sound" in table else [""] * len(table))
        # Clip i is `n_frames_of[i]` frames from `_first[i]` on, of `_frames`, or of shard number `_shard_of[i]`.
        self._frames = torch.empty(0, self._n_values)
        self._shards: Shards | None = None
        if paths is None:
            self._read_files(table)
        else:
            self._open_shards(table, paths, n_open)

    def _open_shards(self, table: pd.DataFrame, paths: Sequence[str], n_open: int) -> None:
        for column in ("first_frame", "n_frames"):
            if column not in table or table[column].dtype.kind != "i" or (table[column] < 0).any():
                raise ValueError(f"{self.folder}: {column} of its manifest is not a count of frames; copy it again")
        self._first, self.n_frames_of = (torch.tensor(table[name].to_numpy()) for name in ("first_frame", "n_frames"))
        self._shard_of = torch.tensor(table["shard"].to_numpy())
        ends = torch.zeros(len(paths), dtype=torch.int64)
        ends.scatter_reduce_(0, self._shard_of, self._first + self.n_frames_of, "amax")
        places = [_place(self.folder, path, is_shard=True) for path in paths]
        self._shards = Shards(places, n_frames=ends.tolist(), n_bins=self._n_values, n_open=n_open)

    def _read_files(self, table: pd.DataFrame) -> None:
        """Fills `_frames` file by file: nothing is held twice."""
        block = np.empty((int(table["n_frames"].sum()) if "n_frames" in table else 0, self._n_values), np.float32)
        expected = (self.params.n_bins,) if self.channels == 1 else (self.channels, self.params.n_bins)
        ends = [0]
        for path in table["path"]:
            place = _place(self.folder, path)
            level = load_tensors(place, read_file(self.folder, path) if is_url(self.folder) else None)
            shape = tuple(level.shape) if isinstance(level, Tensor) else None
            if shape is None or shape[:-1] != expected:
                raise ValueError(
                    f"{place}: a tensor of shape {shape}, and params.yaml tells of {self.params.n_bins} bins"
                    f"{'' if self.channels == 1 else f' of {self.channels} channels'}; remove it and run the "
                    "preprocess.py command that made it"
                )
            end = ends[-1] + shape[-1]
            if end > len(block):  # the manifest did not say; nothing else refers to the block, so it may move
                block.resize((end + end // 8, block.shape[1]), refcheck=False)
            block[ends[-1] : end] = level.flatten(0, -2).numpy().T
            ends.append(end)
        block.resize((ends[-1], block.shape[1]), refcheck=False)
        self._frames = torch.from_numpy(block)
        ends = torch.tensor(ends)
        self._first, self.n_frames_of = ends[:-1], ends.diff()

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, item: int | tuple[int, float]) -> tuple[Tensor, int]:
        """Returns a spectrogram (channels, n_mels, n_frames) in [-1, 1] and its label.

        Args:
            item: the index; or the index and where to cut a longer clip, from 0 (its start) to 1 (its end).
        """
        spectrograms, labels = self.__getitems__([item])
        return spectrograms[0], int(labels[0])

    def __getitems__(self, items: Sequence[int | tuple[int, float]]) -> tuple[Tensor, Tensor]:
        """Returns a batch, each item as [] gives it: spectrograms (B, channels, n_mels, n_frames) and labels (B,).

        A DataLoader calls this by itself; with `collate_fn=as_batched` it hands on what comes.
        """
        indices, positions = zip(*(item if isinstance(item, tuple) else (item, 0.0) for item in items), strict=True)
        index, position = torch.tensor(indices), torch.tensor(positions, dtype=torch.float64)
        lengths, n_frames = self.n_frames_of[index], self.params.n_frames
        first = self._first[index] + ((lengths - n_frames).clamp_min(0) * position).round().long()
        levels = self._cut(index, first, lengths.clamp_max(n_frames))
        normalised = normalise(levels, self.params, self.level_range)  # of both channels alike
        # (B, n_frames, channels * n_mels) -> (B, channels, n_mels, n_frames)
        spectrograms = normalised.mT.contiguous().unflatten(1, (self.channels, -1))
        return spectrograms, self.labels[index]

    def _cut(self, index: Tensor, first: Tensor, lengths: Tensor) -> Tensor:
        """Levels (B, n_frames, channels * n_mels): of each clip `lengths` frames from `first`, and then silence."""
        if self._shards is None:
            return self._cut_from(self._frames, first, lengths)
        shard_of = self._shard_of[index]
        levels = torch.empty(len(index), self.params.n_frames, self._n_values)
        for shard in self._shards.open_first(shard_of.unique().tolist()):
            of_it = (shard_of == shard).nonzero()[:, 0]
            levels[of_it] = self._cut_from(self._shards[shard], first[of_it], lengths[of_it])
        return levels

    def _cut_from(self, frames: Tensor, first: Tensor, lengths: Tensor) -> Tensor:
        place = torch.arange(self.params.n_frames)
        is_behind = place >= lengths.unsqueeze(1)
        rows = (first.unsqueeze(1) + place).masked_fill_(is_behind, 0)
        levels = frames.index_select(0, rows.flatten()).view(*rows.shape, -1)
        return levels.masked_fill_(is_behind.unsqueeze(-1), self.params.silence) if is_behind.any() else levels

    def limited(self, n: int, *, generator: torch.Generator) -> "SpectrogramDataset":
        """This split with at most `n` clips of each class; from one generator, a larger `n` adds clips to a smaller."""
        shuffled = torch.randperm(len(self), generator=generator)
        labels = self.labels[shuffled]
        chosen = torch.cat([shuffled[labels == label][:n] for label in range(len(self.class_names))]).sort().values
        few = copy.copy(self)
        few.__dict__.pop("sources", None)  # of all clips, if they were asked for
        few.recordings = self.recordings[chosen]
        few.labels, few.n_frames_of = self.labels[chosen], self.n_frames_of[chosen]
        few._first, few.starts_s = self._first[chosen], self.starts_s[chosen.numpy()]
        few._sources = "\0".join(self.sources[i] for i in chosen.tolist()).encode(errors="surrogateescape")
        few._sounds = self._sounds.of(chosen)
        if self._shards is not None:
            few._shard_of = self._shard_of[chosen]
        return few

    def order(self, generator: torch.Generator, copies: Tensor | None = None) -> Tensor:
        """Returns all indices (N,) int64, shuffled.

        Of data in shards, whole shards are shuffled, and then the clips of each `n_open` that follow one another: so
        each is read once, and clips that stand far apart on the disk meet in a batch all the same.

        Args:
            generator: decides.
            copies: (N,) how often each index occurs, spread over the whole; None: once.
        """
        if self._shards is None:
            return shuffled(len(self), generator, copies)
        n_of_shards = torch.bincount(self._shard_of, minlength=len(self._shards))
        clips_of = torch.arange(len(self)).split(n_of_shards.tolist())
        parts = []
        for numbers in torch.randperm(len(self._shards), generator=generator).split(self._shards.n_open):
            together = torch.cat([clips_of[number] for number in numbers])
            each = None if copies is None else copies[together]
            parts.append(together[shuffled(len(together), generator, each)])
        return torch.cat(parts)

    def some_of(self, indices: Tensor, n: int) -> Tensor:
        """Returns at most `n` of these indices, evenly spread; of data in shards only of `n_open` shards."""
        if self._shards is not None:
            shard_of = self._shard_of[indices]
            shards = _evenly(shard_of.unique(), self._shards.n_open)
            indices = indices[torch.isin(shard_of, shards)]
        return _evenly(indices, n)

    def level(self, index: int) -> Tensor:
        """Returns the level of clip `index` at its whole length, before it is normalised.

        (n_mels, n_frames), or (channels, n_mels, n_frames) of several channels.
        """
        frames = self._frames if self._shards is None else self._shards[int(self._shard_of[index])]
        level = frames[self._first[index] :][: self.n_frames_of[index]].mT
        return level if self.channels == 1 else level.unflatten(0, (self.channels, -1))

    @cached_property
    def sources(self) -> list[str]:
        """The file that each clip was made from, which need not exist any more."""
        return self._sources.decode(errors="surrogateescape").split("\0") if len(self) else []

    @property
    def with_sound(self) -> Tensor:
        """The clips whose sound is kept: (n,) int64, indices, ascending."""
        return self._sounds.indices

    def waveforms(self, places: Sequence[tuple[int, float]]) -> Tensor:
        """Reads the kept sounds at `sound_rate` that the examples at `places` (as in []) show.

        (N, T), or (N, channels, T) of several channels.

        Raises:
            FileNotFoundError: the sound of a clip is not kept, see `with_sound`.
            AudioError: its file is damaged.
        """
        pieces = []
        for index, position in places:
            surplus = max(0, int(self.n_frames_of[index]) - self.params.n_frames)
            first_frame = round(position * surplus)
            start = round(self.starts_s[index] * self.params.sample_rate) + first_frame * self.params.hop_length
            pieces.append(self._sounds.piece(index, self._in_sound(start), self._in_sound(self.params.n_samples)))
        return torch.stack(pieces)

    def _in_sound(self, n_samples: int) -> int:
        """A place or a length at the spectrograms' rate, at that of the sounds."""
        return at_rate(n_samples, self.params.sample_rate, self.sound_rate)


def open_splits(folder: str | Path, params: SpectrogramParams, *, channels: int = 1) -> dict[str, SpectrogramDataset]:
    """Opens all splits of a dataset folder, for which its manifest is read once.

    Raises: as `SpectrogramDataset`.
    """
    read_info(folder)  # first: of a folder that is none, or not finished, it says more
    manifest = read_manifest(folder, columns=_COLUMNS)
    unknown = sorted(set(manifest["split"]) - set(SPLITS))
    if unknown:
        raise ValueError(
            f"{folder}: its manifest has the splits {', '.join(map(repr, unknown))}; write {', '.join(SPLITS)}"
        )
    return {split: SpectrogramDataset(folder, split, params, channels=channels, manifest=manifest) for split in SPLITS}


def _evenly(values: Tensor, n: int) -> Tensor:
    """At most `n` of the values (N,), from the first to the last in even steps."""
    return values[torch.linspace(0, len(values) - 1, min(n, len(values))).round().long()]


def as_batched(batch: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    """The `collate_fn` for a DataLoader over a SpectrogramDataset, whose batches come ready."""
    return batch


def _place(folder: str | Path, path: str, *, is_shard: bool = False) -> str:
    """Where a file of a dataset folder is.

    Raises:
        ValueError: the manifest of a folder from elsewhere leads out of it. A list of tensors on this machine may:
            task=splits makes such, with task.mode=manifest.
    """
    parts = re.split(r"[/\\]", path)
    if (is_shard or is_url(folder)) and (":" in path or not parts[0] or ".." in parts):
        raise ValueError(f"{folder}: its manifest has the path {path!r}, which leads out of it; do not trust this data")
    return f"{str(folder).rstrip('/')}/{path}" if is_url(folder) else str(Path(folder, path))


def _require_trainable(info: dict, params: SpectrogramParams, folder: str | Path, channels: int) -> None:
    """Raises ValueError when a dataset folder holds no spectrograms that can be learned and turned back into sound."""
    n_frames = info["spectrogram"].get("n_frames")
    if n_frames is not None and params.n_frames is not None and params.n_frames > n_frames:
        raise ValueError(
            f"{folder}: its recordings are cut into slices of n_frames {n_frames}, the settings say {params.n_frames}; "
            "make it with spectrogram.n_frames=null, which keeps them whole"
        )
    fit = {"format": ("pt", "both", "shards"), "mono": (True,), "time_pool": (1,), "freq_pool": (1,)}
    for name, values in fit.items():
        value = info.get(name, values[0])
        if value not in values:
            wanted = " or ".join(str(known).lower() for known in values)
            raise ValueError(
                f"{folder}: made with task.{name}={str(value).lower()}; training needs task.{name}={wanted}"
            )
    if (n_channels := info.get("channels", 1)) != channels:
        raise ValueError(
            f"{folder}: made with task.channels={n_channels}, data.channels is {channels}; give "
            f"data.channels={n_channels}, or make it with task.channels={channels}"
        )
