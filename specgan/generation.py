"""Checkpoint -> new sounds in a folder."""

import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from rich.progress import track
from torch import Tensor, nn

from specgan.audio import save_wav
from specgan.files import Outputs, safe_name, unique_names, write_bytes
from specgan.models.generators import CHUNK_SIZE
from specgan.models.trained import TrainedGenerator, find_class
from specgan.pictures.figures import to_png
from specgan.pictures.gallery import Entry, write_gallery

log = logging.getLogger(__name__)

PAGE_NAME = "index.html"

_LARGEST_SEED = 2**64 - 1  # of PyTorch


def generate(
    ckpt_path: str | Path,
    *,
    label: str | int | Sequence[str | int],
    n_samples: int,
    seed: int,
    output: str | Path,
    vocoder: Callable[..., nn.Module],
    network: str | None = None,
) -> Path:
    """Writes `<output>/<class>/<class>_<seed>.wav` and .png for each sound, and `<output>/index.html`.

    Sound i of a class has the seed `seed + i`. The same checkpoint, class and seed give the same bytes, however many
    are drawn with it.

    Args:
        ckpt_path: a checkpoint of train.py; nothing else is needed.
        label: a class, a list of classes, or "all"; a class that is called all is ["all"].
        n_samples: sounds of each class.
        seed: of the first sound of each class.
        output: folder.
        vocoder: called with the checkpoint's params and level_range, returns what turns spectrograms into sound.
        network: class of the generator if it is your own, see `TrainedGenerator.load`.
    Returns:
        The path of index.html.
    Raises:
        FileNotFoundError, ValueError: no such checkpoint or class, an empty request, or a file is in the way that no
            earlier run wrote; nothing is written.
    """
    if not isinstance(n_samples, int) or n_samples < 1:
        raise ValueError(f"n_samples is {n_samples}; a whole number, at least 1")
    if not isinstance(seed, int) or not 0 <= seed <= _LARGEST_SEED - n_samples + 1:
        raise ValueError(f"seed is {seed}; a whole number, at least 0, and {_LARGEST_SEED} at most for the last sound")
    trained = TrainedGenerator.load(ckpt_path, network=network)
    labels = _chosen(label, trained.class_names)
    to_sound = vocoder(trained.params, trained.level_range)
    output = Path(output)
    folders = class_folders(trained.class_names)

    jobs = [(name, seed + i) for name in labels for i in range(n_samples)]
    stems = {(name, of_sound): f"{folders[name]}/{folders[name]}_{of_sound}" for name, of_sound in jobs}
    outputs = [f"{stem}{suffix}" for stem in stems.values() for suffix in (".wav", ".png")]
    Outputs(output, "generate").claim([PAGE_NAME, *outputs])
    sections: dict[str, list[Entry]] = {name: [] for name in labels}
    chunks = [jobs[start : start + CHUNK_SIZE] for start in range(0, len(jobs), CHUNK_SIZE)]
    for chunk in track(chunks, description="sounds"):
        spectrograms = trained.sample([name for name, _ in chunk], [s for _, s in chunk])
        for (name, sound_seed), spectrogram in zip(chunk, spectrograms, strict=True):
            stem = stems[name, sound_seed]
            write_sound(output / stem, spectrogram, to_sound, seed=sound_seed, sample_rate=trained.params.sample_rate)
            sections[name].append(Entry(f"seed {sound_seed}", f"{stem}.png", f"{stem}.wav"))

    index = output / PAGE_NAME
    write_gallery(index, title="New sounds", note=f"Drawn from {ckpt_path}.", sections=sections)
    log.info("%d sounds of %d classes; open %s", len(jobs), len(labels), index)
    return index


class SoundFiles(NamedTuple):
    """The files of one sound."""

    wav: Path
    png: Path


@torch.inference_mode()
def write_sound(
    stem: str | Path, spectrogram: Tensor, vocoder: nn.Module, *, seed: int, sample_rate: int
) -> SoundFiles:
    """Writes `<stem>.wav` and `<stem>.png`.

    Args:
        stem: path without a suffix.
        spectrogram: (1, n_mels, n_frames) in [-1, 1]. One alone, because the FFT and the filters round differently in
            batches of other sizes: so a sound has the same bytes whatever else is written.
        vocoder: called with a batch of one and seeds, returns waveforms (1, T).
        seed: of the vocoder's phases.
        sample_rate: of the WAV, Hz.
    """
    files = SoundFiles(Path(f"{stem}.wav"), Path(f"{stem}.png"))
    save_wav(files.wav, vocoder(spectrogram.unsqueeze(0), seeds=[seed])[0], sample_rate)
    write_bytes(files.png, to_png(spectrogram[0]))
    return files


def class_folders(class_names: Sequence[str]) -> dict[str, str]:
    """The folder name of each class, beside PAGE_NAME; two classes never share one."""
    wanted = {Path(str(index)): safe_name(name) for index, name in enumerate(class_names)}
    wanted |= {place: f"_{name}" for place, name in wanted.items() if name.casefold() == PAGE_NAME}
    names = unique_names(wanted, Path())
    return {name: names[Path(str(index))] for index, name in enumerate(class_names)}


def _chosen(label: str | int | Sequence[str | int], class_names: Sequence[str]) -> list[str]:
    if label == "all":
        return list(class_names)
    asked_for = [str(name) for name in ([label] if isinstance(label, (str, int)) else label)]
    found = {name: find_class(name, class_names) for name in asked_for}
    unknown = [name for name, known in found.items() if known is None]
    if unknown or not found:
        raise ValueError(
            f"label is {', '.join(unknown) or 'empty'}: not a class of this checkpoint; "
            f"choose all or some of: {', '.join(class_names)}"
        )
    return list(dict.fromkeys(known for known in found.values() if known is not None))
