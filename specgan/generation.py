"""Checkpoint -> new sounds in a folder."""

import logging
import pickle
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn

from specgan.audio import save_wav
from specgan.batch.executors import serial
from specgan.batch.runner import Batch, OpenExecutor
from specgan.batch.worker import Work
from specgan.files import Outputs, safe_name, unique_names, write_bytes
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
    executor: OpenExecutor = serial,
    workers_from: int = 128,
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
        executor: opens the workers, see batch.executors.
        workers_from: sounds of all classes together that are worth the start of workers; fewer are drawn here.
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
    output = Path(output).absolute()  # the workers may run elsewhere
    sounds = _sounds(labels, range(seed, seed + n_samples), class_folders(trained.class_names))
    Outputs(output, "generate").claim([PAGE_NAME, *(path for sound in sounds for path in (sound.wav, sound.png))])
    is_alone = len(sounds) < workers_from or getattr(executor, "n_workers", None) == 1
    _draw_all(sounds, _Tools(trained, to_sound, output), None if is_alone else executor)

    index = output / PAGE_NAME
    sections: dict[str, list[Entry]] = {name: [] for name in labels}
    for sound in sounds:
        sections[sound.label].append(Entry(f"seed {sound.seed}", sound.png, sound.wav))
    write_gallery(index, title="New sounds", note=f"Drawn from {ckpt_path}.", sections=sections)
    log.info("%d sounds of %d classes; open %s", len(sounds), len(labels), index)
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


@dataclass(frozen=True)
class _Sound:
    """A sound to draw; `stem` is its path in the output, without a suffix."""

    label: str
    seed: int
    stem: str

    @property
    def wav(self) -> str:
        return f"{self.stem}.wav"

    @property
    def png(self) -> str:
        return f"{self.stem}.png"

    @property
    def source(self) -> Path:
        return Path(self.wav)


def _sounds(labels: Sequence[str], seeds: Iterable[int], folders: Mapping[str, str]) -> list[_Sound]:
    return [_Sound(name, seed, f"{folders[name]}/{folders[name]}_{seed}") for name in labels for seed in seeds]


class _Tools(NamedTuple):
    """What sounds are drawn with, and the folder that they are written to."""

    trained: TrainedGenerator
    vocoder: nn.Module
    output: Path


def _draw_all(sounds: Sequence[_Sound], tools: _Tools, executor: OpenExecutor | None) -> None:
    """Writes the sounds on the workers of `executor`, or with None in this process."""
    work: Work[_Sound, SoundFiles] = partial(_draw, tools=tools)
    if executor is not None:
        # Pickled once and here: else it would be for each call, and tensors would go through shared memory, which may
        # be small. The workers do not read the checkpoint, because a training that goes on may replace it meanwhile.
        work = partial(_draw_with, tools=pickle.dumps(tools))
    for _ in Batch(executor or serial, on_error="raise", description="sounds").run(sounds, work):
        pass


def _draw_with(sounds: Sequence[_Sound], *, tools: bytes) -> Iterator[SoundFiles]:
    return _draw(sounds, tools=_unpickled(tools))


@lru_cache(maxsize=1)
def _unpickled(tools: bytes) -> _Tools:
    return pickle.loads(tools)


def _draw(sounds: Sequence[_Sound], *, tools: _Tools) -> Iterator[SoundFiles]:
    """Work for `Batch.run`."""
    trained = tools.trained
    spectrograms = trained.sample([sound.label for sound in sounds], [sound.seed for sound in sounds])
    for sound, spectrogram in zip(sounds, spectrograms, strict=True):
        stem = tools.output / sound.stem
        yield write_sound(stem, spectrogram, tools.vocoder, seed=sound.seed, sample_rate=trained.params.sample_rate)


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
