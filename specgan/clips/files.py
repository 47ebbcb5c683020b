"""Recordings -> a file for each spectrogram: tensors, pictures or both."""

import io
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from specgan.batch.failures import UnitError, stage
from specgan.batch.runner import one_by_one
from specgan.clips.clip import Clip, ClipEntry, Piece, Place
from specgan.clips.levels import PART_BYTES, Levels, levels_in_groups
from specgan.clips.recipe import Recipe
from specgan.files import atomic_path
from specgan.spectrogram import LevelRange, normalise


@torch.inference_mode()
def make_clips(clips: Sequence[Clip], *, recipe: Recipe, output: Path) -> list[ClipEntry | UnitError]:
    """Makes the files of some recordings: work for `Batch.run`.

    Returns:
        For each clip its entry for the journal, or its UnitError, if it cannot be read, transformed or written; none of
        its files is left then.
    """
    groups = levels_in_groups(clips, recipe=recipe)
    return [entry for group in groups for entry in write_clips(group, recipe=recipe, output=output)]


@torch.inference_mode()
def write_clips(group: Iterable[Levels | UnitError], *, recipe: Recipe, output: Path) -> list[ClipEntry | UnitError]:
    """Encodes a group of recordings, then writes them; one that is not held, slice by slice.

    Returns: as `make_clips`.
    """
    encoded = list(one_by_one(group, make=partial(_encode, recipe=recipe)))
    return list(one_by_one(encoded, make=partial(_write, recipe=recipe, output=output)))


@dataclass(frozen=True)
class _Spectrogram:
    """One spectrogram as it will be written."""

    piece: Piece
    contents: dict[str, bytes | memoryview | Tensor]  # by path; the tensor's first


@dataclass(frozen=True)
class _Encoded:
    """A recording whose spectrograms will be written."""

    levels: Levels
    spectrograms: Iterable[_Spectrogram]


def _encode(levels: Levels, *, recipe: Recipe) -> _Encoded:
    def encode() -> Iterator[_Spectrogram]:
        for number, level in enumerate(levels.spectrograms):
            stem = levels.clip.recording if recipe.params.n_frames is None else f"{levels.clip.recording}_{number:04d}"
            with stage("encode"):
                level = level.cpu()
                yield _Spectrogram(Piece.of(number, level), _contents(level, stem, recipe))

    return _Encoded(levels, list(encode()) if levels.is_held else encode())


def _contents(level: Tensor, stem: str, recipe: Recipe) -> dict[str, bytes | memoryview | Tensor]:
    """Turns a spectrogram (n_channels, n_bins, n_frames) into the bytes of its files; large tensors stay tensors."""
    contents: dict[str, bytes | memoryview | Tensor] = {}
    if recipe.makes_tensors:
        tensor = level[0] if recipe.is_single else level
        if tensor.untyped_storage().nbytes() > tensor.nbytes:
            tensor = tensor.clone()  # a view would be saved with all of its storage
        contents[f"{stem}.pt"] = tensor if tensor.nbytes >= PART_BYTES else _saved(tensor)
    if recipe.makes_pictures:
        from specgan.pictures.figures import to_png

        scale = LevelRange(recipe.params.silence, 0.0 if recipe.params.level == "db" else 1.0)
        for channel, spectrogram in enumerate(normalise(level, recipe.params, scale)):
            suffix = "" if recipe.is_single else f"_ch{channel}"
            contents[f"{stem}{suffix}.png"] = to_png(
                spectrogram, cmap=recipe.cmap, grayscale=recipe.grayscale, scale=recipe.image_scale
            )
    return contents


def _saved(tensor: Tensor) -> memoryview:
    buffer = io.BytesIO()
    torch.save(tensor, buffer)
    return buffer.getbuffer()


def _write(encoded: _Encoded, *, recipe: Recipe, output: Path) -> ClipEntry:
    """Writes the spectrograms of one recording; if that fails, removes what was written of them."""
    outputs: list[str] = []
    pieces: list[tuple[Place, Piece]] = []
    levels = encoded.levels
    try:
        with closing(levels):
            for spectrogram in encoded.spectrograms:
                for path, content in spectrogram.contents.items():
                    with stage("write"):
                        _write_file(output / path, content)
                    outputs.append(path)
                paths = list(spectrogram.contents)
                listed = paths[:1] if recipe.makes_tensors else paths
                pieces += [({"path": path}, spectrogram.piece) for path in listed]
    except BaseException:
        for path in outputs:
            (output / path).unlink(missing_ok=True)
        raise
    return levels.entry(outputs, pieces, recipe)


def _write_file(path: Path, content: bytes | memoryview | Tensor) -> None:
    with atomic_path(path) as temporary:
        if isinstance(content, Tensor):
            with temporary.open("wb") as file:  # given a path, it would write the random name into it
                torch.save(content, file)
        else:
            temporary.write_bytes(content)
