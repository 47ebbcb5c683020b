"""Shards: large files, each with the spectrograms of many clips, one after the other.

A shard is a safetensors file, which holds numbers and nothing that could be run, of two tensors: `frames`, float32
(n_frames of all, n_bins), so that a clip is one piece of the file, and `offsets`, int64 (n_clips + 1,): clip i has the
frames from offsets[i] to offsets[i + 1]. A frame of stereo has the bins of the left channel and then those of the
right; `n_bins` are those of both.
"""

import hashlib
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from pathlib import Path

import torch
from torch import Tensor

from specgan.files import remove_files, write_bytes

SHARDS_NAME = "shards"  # the folder in a dataset folder
SHARD_BYTES = 2**26  # of frames; a shard that has as many is full


def write_shard(spectrograms: Sequence[Tensor], folder: str | Path) -> tuple[str, list[int]]:
    """Writes one shard, whole or not at all.

    Its name is a digest of what it holds: the same clips give the same file, and others never replace it.

    Args:
        spectrograms: (n_bins, n_frames) each.
        folder: of the dataset.
    Returns:
        The shard's path in the folder, and the first frame of each spectrogram in it.
    """
    from safetensors.torch import save

    frames = torch.cat([spectrogram.mT for spectrogram in spectrograms]).contiguous()
    offsets = torch.tensor([0, *(spectrogram.shape[1] for spectrogram in spectrograms)]).cumsum(0)
    digest = hashlib.blake2b(frames.numpy(), digest_size=8)
    digest.update(offsets.numpy())
    path = f"{SHARDS_NAME}/{digest.hexdigest()}.safetensors"
    # Not by `save_file`, which writes into a temporary file of its own that a killed run would leave for good.
    write_bytes(Path(folder) / path, save({"frames": frames, "offsets": offsets}))
    return path, offsets[:-1].tolist()


def open_shard(place: str | Path) -> Tensor:
    """Opens the frames (n_frames, n_bins) of a shard.

    Args:
        place: a file, which is mapped into memory, so that only what is used is read; or a URL that fsspec knows
            (s3://, gs://, https://, memory://, ...), which is read whole.
    Raises:
        FileNotFoundError: it does not exist.
        ValueError: it is not a shard, or not a whole one.
    """
    from safetensors import SafetensorError, safe_open

    place = str(place)
    is_utf8 = place == place.encode(errors="replace").decode()  # of other names safetensors maps none
    try:
        if "://" in place or not is_utf8:
            import fsspec
            from safetensors.torch import load

            with fsspec.open(place, "rb") as file:
                frames = load(file.read())["frames"]
        else:
            with safe_open(place, framework="pt") as file:
                frames = file.get_tensor("frames")
    except (SafetensorError, KeyError) as err:
        raise ValueError(f"{place}: no shard, or not a whole one ({err}); {_WAY_OUT}") from err
    if frames.ndim != 2 or frames.dtype != torch.float32:
        raise ValueError(f"{place}: its frames are {frames.dtype} of shape {tuple(frames.shape)}; {_WAY_OUT}")
    return frames


_WAY_OUT = "copy the dataset again, or remove this file and run the preprocess.py command that made it"


class Shards:
    """Shards of one dataset, the last used of which stay open.

    Args:
        places: of each, see `open_shard`.
        n_frames: that each must have at least.
        n_bins: of all.
        n_open: how many stay open, at least 1.
    """

    def __init__(self, places: Sequence[str], *, n_frames: Sequence[int], n_bins: int, n_open: int) -> None:
        if n_open < 1:
            raise ValueError(f"n_open is {n_open}; at least 1")
        self.places, self.n_frames, self.n_bins, self.n_open = places, n_frames, n_bins, n_open
        self._open: OrderedDict[int, Tensor] = OrderedDict()

    def __len__(self) -> int:
        return len(self.places)

    def __getitem__(self, number: int) -> Tensor:
        """The frames of a shard, see `open_shard`.

        Raises:
            FileNotFoundError, ValueError: as `open_shard`; also ValueError: it has not all frames or bins.
        """
        if number in self._open:
            self._open.move_to_end(number)
            return self._open[number]
        frames = open_shard(self.places[number])
        if len(frames) < self.n_frames[number] or frames.shape[1] != self.n_bins:
            raise ValueError(
                f"{self.places[number]}: has {len(frames)} frames of {frames.shape[1]} bins, but the manifest "
                f"and params.yaml say {self.n_frames[number]} of {self.n_bins}; {_WAY_OUT}"
            )
        while len(self._open) >= self.n_open:
            self._open.popitem(last=False)
        self._open[number] = frames
        return frames

    def open_first(self, numbers: Iterable[int]) -> list[int]:
        """The numbers, those that are open before the others: so that these do not close them before their turn."""
        return sorted(numbers, key=lambda number: number not in self._open)

    def __getstate__(self) -> dict:
        """A process that is sent this opens for itself."""
        return {**self.__dict__, "_open": OrderedDict()}


def remove_shards(folder: str | Path, *, keep: Iterable[str]) -> None:
    """Removes the shards of a dataset folder that are not among `keep`, paths in it, and half-written ones."""
    own = {f"{SHARDS_NAME}/{path.name}" for path in Path(folder, SHARDS_NAME).glob(f"{'[0-9a-f]' * 16}.safetensors")}
    # no file has the last name: with it, half-written ones in the folder are removed
    remove_files([*(own - set(keep)), f"{SHARDS_NAME}/.partial"], folder)
