"""Many sounds of a checkpoint, into a folder: what is asked for, who draws it, and the files that list it."""

import logging
import pickle
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import lru_cache, partial
from pathlib import Path
from typing import NamedTuple

import torch
from torch import nn

from specgan.audio import WavFacts, WavSettings
from specgan.audio.pack import MANIFEST_NAME, PackedSound, write_manifest, write_zip
from specgan.batch.executors import serial
from specgan.batch.runner import Batch, OpenExecutor
from specgan.batch.worker import Work
from specgan.files import Outputs, safe_name, unique_names
from specgan.generation.asked import AskedSound, classes_named, classes_of_recordings, sounds_like, sounds_of_classes
from specgan.generation.sound import make_vocoder, repeatable, sound_info, vocode, write_sound
from specgan.generation.steered import mix_of, moved_sounds, sounds_of_mix
from specgan.latent.steering import checked_move
from specgan.models.devices import find_device
from specgan.models.generators import draw
from specgan.models.trained import TrainedGenerator
from specgan.pictures.gallery import Entry, write_gallery
from specgan.spectrogram import SpectrogramParams

log = logging.getLogger(__name__)

PAGE_NAME = "index.html"

_LARGEST_SEED = 2**64 - 1  # of PyTorch
_MOST_AT_ONCE, _VALUES_AT_ONCE = 32, 2**20  # spectrograms that a GPU turns into sound, and values in all of these


def generate(
    ckpt_path: str | Path,
    *,
    label: str | int | Sequence[str | int] | Mapping[str, float],
    n_samples: int,
    seed: int,
    output: str | Path,
    vocoder: Callable[..., nn.Module],
    carried_vocoder: bool = True,
    network: str | None = None,
    like: str | Path | None = None,
    to: str | Path | None = None,
    distance: float = 0.3,
    move: Mapping[str, float] | None = None,
    wav: WavSettings | None = None,
    zip_path: str | Path | None = None,
    device: str = "auto",
    executor: OpenExecutor = serial,
    workers_from: int = 128,
) -> Path:
    """Writes `<output>/<class>/<class>_<seed>.wav` and .png for each sound, and `index.html` and `manifest.csv`.

    Sound i of a class has the seed `seed + i`. With `like`, these are `<class>/<name>_nearest`, the sound that is
    nearest to a recording, and variations of it, `<class>/<name>_<distance>_<seed>`; with `to` those on the way from
    one recording to another, `<name>_to_<name>_<i>`.

    The same checkpoint, class, seed and settings give the same bytes on the same device, however many are drawn with
    it. The page shows these sounds, the manifest also lists those of earlier runs in the folder.

    Args:
        ckpt_path: a checkpoint of train.py, or a shared generator, see `TrainedGenerator.load`; nothing else is needed.
        label: a class, a list of classes, or "all"; a class that is called all is ["all"]. With `like`, "all" has the
            class guessed, and a list of two classes is of `like` and `to`. Weights by class are a mix of classes,
            {"kick": 0.7, "tom": 0.3}, see `latent.mixing.class_shares`.
        n_samples: sounds of each class; variations; or sounds on the way, both ends included.
        seed: of the first sound of each class.
        output: folder.
        vocoder: called with the checkpoint's params and level_range, returns what turns spectrograms into sound.
        carried_vocoder: use the vocoder that the checkpoint carries instead, if it carries one.
        network: class of the generator if it is your own, see `TrainedGenerator.load`.
        like: a recording of your own, of any kind. The first one trains the checkpoint's encoder, see
            `latent.kept.load_or_train_encoder`.
        to: another one; None: `like` is varied.
        distance: of variations, from 0 (the nearest sound alone) to 1 (any of the class), see `LatentSpace.vary`.
        move: by how many standard deviations of their class the sounds are changed, {"brightness": 1.5, "length": -1},
            see `latent.steering.Steering`; None: they stay as they are.
        wav: what becomes of the sounds before they are written; None: the defaults of WavSettings.
        zip_path: a .zip of these sounds and a manifest of them, which is also written; None: none.
        device: where the network and the vocoder run, see `find_device`. Sounds are drawn by this process unless it is
            a CPU.
        executor: opens the workers, see batch.executors.
        workers_from: sounds of all classes together that are worth the start of workers; fewer are drawn here.
    Returns:
        The path of index.html.
    Raises:
        FileNotFoundError, ValueError: no such checkpoint, class or device, an empty request, or a file is in the way
            that no earlier run wrote; nothing is written.
    """
    if not isinstance(n_samples, int) or n_samples < 1:
        raise ValueError(f"n_samples is {n_samples}; a whole number, at least 1")
    if not isinstance(seed, int) or not 0 <= seed <= _LARGEST_SEED - n_samples + 1:
        raise ValueError(f"seed is {seed}; a whole number, at least 0, and {_LARGEST_SEED} at most for the last sound")
    place = find_device(device)
    trained = TrainedGenerator.load(ckpt_path, network=network)
    to_sound = make_vocoder(trained, vocoder, carried=carried_vocoder)
    notes = [f"Drawn from {ckpt_path}."]
    if to is not None and like is None:
        raise ValueError(f"to is {to}, and like is not given; like=<the recording to start from>")
    folders = class_folders(trained.class_names)
    move, mix, seeds = checked_move(move), mix_of(label), range(seed, seed + n_samples)
    classes: str | int | Sequence[str | int] = () if isinstance(label, Mapping) else label
    if mix is not None and like is not None:
        raise ValueError(f"label is {label}: a mix is of new sounds, and like is {like}; give one class, or no label")
    if mix is not None:
        sounds = sounds_of_mix(trained, mix, seeds, folders)
    elif like is None:
        sounds = sounds_of_classes(classes_named(classes, trained.class_names), seeds, folders)
    else:
        sounds, about = sounds_like(
            trained,
            ckpt_path,
            like=like,
            to=to,
            labels=classes_of_recordings(classes, trained.class_names, 1 if to is None else 2),
            distance=distance,
            n_samples=n_samples,
            seed=seed,
            folders=folders,
        )
        notes += about
    if move:
        sounds, about = moved_sounds(trained, sounds, move)
        notes += about
    for part in (trained.network, to_sound):  # not before: the search of points is done on the CPU
        if isinstance(part, nn.Module):  # a vocoder of one's own may be any function
            part.to(place)
    output = Path(output).absolute()  # the workers may run elsewhere
    paths = [path for sound in sounds for path in (sound.wav, sound.png)]
    _claim(output, [PAGE_NAME, MANIFEST_NAME, *paths], None if zip_path is None else Path(zip_path).absolute())
    is_alone = place.type != "cpu" or len(sounds) < workers_from or getattr(executor, "n_workers", None) == 1
    tools = _Tools(trained, to_sound, place, _batch_size(place, trained.params), wav or WavSettings(), output)
    packed = _draw_all(sounds, tools, None if is_alone else executor)

    index = output / PAGE_NAME
    sections: dict[str, list[Entry]] = {sound.label: [] for sound in sounds}
    for sound in sounds:
        sections[sound.label].append(Entry(sound.caption, sound.png, sound.wav))
    write_manifest(output, packed)
    if zip_path is not None:
        write_zip(zip_path, output, packed)
        log.info("%s: the sounds and their manifest", zip_path)
    write_gallery(index, title="New sounds", note=" ".join(notes), sections=sections)
    of = next(iter(sections)) if len(sections) == 1 else f"{len(sections)} classes"
    log.info("%d sound%s of %s; open %s", len(sounds), "" if len(sounds) == 1 else "s", of, index)
    return index


def class_folders(class_names: Sequence[str]) -> dict[str, str]:
    """The folder name of each class, beside the page and the manifest; two classes never share one."""
    wanted = {Path(str(index)): safe_name(name) for index, name in enumerate(class_names)}
    wanted |= {place: f"_{name}" for place, name in wanted.items() if name.casefold() in (PAGE_NAME, MANIFEST_NAME)}
    names = unique_names(wanted, Path())
    return {name: names[Path(str(index))] for index, name in enumerate(class_names)}


def _claim(output: Path, paths: Sequence[str], zip_path: Path | None) -> None:
    """Notes all files of a run, or raises ValueError and notes none."""
    outputs = Outputs(output, "generate")
    outputs.require_free(paths)
    if zip_path is not None:
        if zip_path.suffix.lower() != ".zip" or output.is_relative_to(zip_path):
            raise ValueError(f"zip is {zip_path}; a file whose name ends in .zip, other than output ({output})")
        Outputs(zip_path.parent, "generate").claim([zip_path.name])
    outputs.claim(paths)


class _Tools(NamedTuple):
    """What sounds are drawn with, and the folder that they are written to."""

    trained: TrainedGenerator
    vocoder: nn.Module
    device: torch.device
    batch_size: int
    wav: WavSettings
    output: Path


def _batch_size(device: torch.device, params: SpectrogramParams) -> int:
    """Spectrograms that the vocoder gets at a time, by their size alone, so that all runs have the same."""
    n_values = params.n_bins * (params.n_frames or 1)
    return 1 if device.type == "cpu" else min(_MOST_AT_ONCE, max(1, _VALUES_AT_ONCE // n_values))


def _draw_all(sounds: Sequence[AskedSound], tools: _Tools, executor: OpenExecutor | None) -> list[PackedSound]:
    """Writes the sounds on the workers of `executor`, or with None in this process."""
    work: Work[AskedSound, WavFacts] = partial(_draw, tools=tools)
    if executor is not None:
        # Pickled once and here: else it would be for each call, and tensors would go through shared memory, which may
        # be small. The workers do not read the checkpoint, because a training that goes on may replace it meanwhile.
        work = partial(_draw_with, tools=pickle.dumps(tools))
    batch = Batch(executor or serial, on_error="raise", description="sounds")
    drawn = batch.run(sounds, work, chunk=None if tools.batch_size == 1 else tools.batch_size)
    checkpoint = tools.trained.checkpoint
    return [
        PackedSound.of(sound.wav, sound.label, sound.seed, facts, checkpoint, origin=_said(sound))
        for sound, facts in drawn
        if isinstance(facts, WavFacts)  # always, because the first failure ends the run
    ]


def _said(sound: AskedSound) -> str:
    return "" if sound.point is None else sound.origin  # of others the row says it: class and seed


def _draw_with(sounds: Sequence[AskedSound], *, tools: bytes) -> Iterator[WavFacts]:
    return _draw(sounds, tools=_unpickled(tools))


@lru_cache(maxsize=1)
def _unpickled(tools: bytes) -> _Tools:
    return pickle.loads(tools)


def _draw(sounds: Sequence[AskedSound], *, tools: _Tools) -> Iterator[WavFacts]:
    """Work for `Batch.run`."""
    trained, seeds = tools.trained, [sound.seed for sound in sounds]
    with repeatable():
        points = [sound.point for sound in sounds if sound.point is not None]
        if points:
            z, embedding = (torch.stack([getattr(point, name) for point in points]) for name in ("z", "embedding"))
            spectrograms = draw(trained.network, z, embedding)
        else:
            spectrograms = trained.sample([sound.label for sound in sounds], seeds)
    waveforms = vocode(spectrograms, tools.vocoder, seeds=seeds, device=tools.device, batch_size=tools.batch_size)
    for sound, spectrogram, waveform in zip(sounds, spectrograms, waveforms, strict=True):
        yield write_sound(
            tools.output / sound.stem,
            spectrogram,
            waveform,
            sample_rate=trained.params.sample_rate,
            wav=tools.wav,
            info=sound_info(trained, label=sound.label, origin=sound.origin),
        ).facts
