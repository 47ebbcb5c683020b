"""Checkpoint -> new sounds in a folder."""

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from rich.progress import track
from torch import Tensor, nn

from specgan.audio import save_wav
from specgan.files import load_tensors, safe_name, unique_names, write_bytes
from specgan.models.generators import CHUNK_SIZE, sample
from specgan.pictures.figures import to_png
from specgan.pictures.gallery import Sound, write_gallery
from specgan.spectrogram import LevelRange, SpectrogramParams

log = logging.getLogger(__name__)

PAGE_NAME = "index.html"

_OURS = "specgan.models."  # modules whose networks a checkpoint may ask for
_EMA = "ema."


@dataclass(frozen=True)
class TrainedGenerator:
    """A generator and what its output means."""

    network: nn.Module
    params: SpectrogramParams
    level_range: LevelRange
    class_names: Sequence[str]
    n_steps: int

    @classmethod
    def load(cls, ckpt_path: str | Path, *, network: str | None = None) -> "TrainedGenerator":
        """Reads the averaged generator from a checkpoint of train.py.

        A checkpoint may come from anywhere, and says itself which class makes its generator. Those of specgan.models
        are made without a question, others only if the caller names them.

        Args:
            ckpt_path: the checkpoint.
            network: dotted path of the generator's class where it is your own, "my_networks.MyGenerator".
        Raises:
            FileNotFoundError: no such file.
            ValueError: not a checkpoint of a specgan generator, or its class is another one.
        """
        path = Path(ckpt_path)
        if not path.is_file():
            raise FileNotFoundError(f"ckpt_path is {path}: no such file; train.py writes <run>/checkpoints/last.ckpt")
        checkpoint = load_tensors(path)
        try:
            saved, weights = checkpoint["specgan"], checkpoint["state_dict"]
            weights = {name.removeprefix(_EMA): w for name, w in weights.items() if name.startswith(_EMA)}
            return cls(
                network=_make_network(saved["generator"], weights, named=network),
                params=SpectrogramParams(**saved["params"]),
                level_range=LevelRange(**saved["level_range"]),
                class_names=_checked_names(saved["class_names"]),
                n_steps=int(saved["n_steps"]),
            )
        except Exception as err:  # anything may stand in it
            reason = f"it has no {err}" if isinstance(err, KeyError) else str(err)[:300]
            raise ValueError(f"ckpt_path is {path}: not a checkpoint of specgan's train.py ({reason})") from err

    def sample(self, labels: Sequence[str], seeds: Sequence[int]) -> Tensor:
        """Draws spectrograms (B, 1, n_mels, n_frames) in [-1, 1]; each depends on its label and seed alone."""
        return self.sample_indices([self.class_names.index(label) for label in labels], seeds)

    def sample_indices(self, labels: Sequence[int], seeds: Sequence[int]) -> Tensor:
        """As `sample`, of class indices."""
        return sample(self.network, labels, seeds)


def _make_network(saved: Mapping[str, Any], weights: Mapping[str, Tensor], *, named: str | None) -> nn.Module:
    settings = dict(saved)
    target = settings.pop("_target_")
    module, _, name = target.rpartition(".")
    # Importing a module runs it, so this comes first.
    if not target.startswith(_OURS) and target != named:
        raise ValueError(
            f"its generator is a {target!r}, which is none of specgan's networks; if that is a class of your own, name "
            f"it: network={target}"
        )
    network = getattr(import_module(module), name, None)
    if not (isinstance(network, type) and issubclass(network, nn.Module)):
        raise ValueError(f"its generator is a {target!r}, which is no network")
    if target.startswith(_OURS):
        with torch.device("meta"):  # takes no memory, whatever size the settings claim
            sizes = {key: weight.shape for key, weight in network(**settings).state_dict().items()}
        if sizes != {key: weight.shape for key, weight in weights.items()}:
            raise ValueError("its weights are not those of its generator")
    made = network(**settings)
    made.load_state_dict(weights)
    return made.eval()


def _checked_names(names: Any) -> list[str]:
    if not isinstance(names, list) or not names or not all(isinstance(name, str) for name in names):
        raise ValueError(f"class_names is {names!r}; a list of names")
    return names


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
    are drawn beside it.

    Args:
        ckpt_path: a checkpoint of train.py; nothing else is needed.
        label: a class, a list of classes, or "all".
        n_samples: sounds of each class.
        seed: of the first sound of each class.
        output: folder.
        vocoder: called with the checkpoint's params and level_range, makes what turns spectrograms into sound.
        network: class of the generator where it is your own, see `TrainedGenerator.load`.
    Returns:
        The path of index.html.
    Raises:
        FileNotFoundError, ValueError: no such checkpoint or class, or nothing asked for; nothing is written.
    """
    if n_samples < 1:
        raise ValueError(f"n_samples is {n_samples}; at least 1")
    if seed < 0:
        raise ValueError(f"seed is {seed}; at least 0")
    trained = TrainedGenerator.load(ckpt_path, network=network)
    labels = _chosen(label, trained.class_names)
    to_sound = vocoder(trained.params, trained.level_range)
    output = Path(output)
    folders = _folders(trained.class_names)

    jobs = [(name, seed + i) for name in labels for i in range(n_samples)]
    sections: dict[str, list[Sound]] = {name: [] for name in labels}
    chunks = [jobs[start : start + CHUNK_SIZE] for start in range(0, len(jobs), CHUNK_SIZE)]
    for chunk in track(chunks, description="sounds"):
        spectrograms = trained.sample([name for name, _ in chunk], [s for _, s in chunk])
        # One sound at a time, because the FFT and filter products also round by batch size.
        for (name, sound_seed), spectrogram in zip(chunk, spectrograms, strict=True):
            stem = f"{folders[name]}/{folders[name]}_{sound_seed}"
            waveform = to_sound(spectrogram.unsqueeze(0), seeds=[sound_seed])[0]
            save_wav(output / f"{stem}.wav", waveform, trained.params.sample_rate)
            write_bytes(output / f"{stem}.png", to_png(spectrogram[0]))
            sections[name].append(Sound(f"seed {sound_seed}", f"{stem}.png", f"{stem}.wav"))

    index = output / PAGE_NAME
    write_gallery(index, title="New sounds", note=f"Drawn from {ckpt_path}.", sections=sections)
    log.info("%d sounds of %d classes; open %s", len(jobs), len(labels), index)
    return index


def _folders(class_names: Sequence[str]) -> dict[str, str]:
    """A name that a folder can have for each class; two classes never share one."""
    wanted = {Path(str(index)): safe_name(name) for index, name in enumerate(class_names)}
    wanted |= {place: f"_{name}" for place, name in wanted.items() if name.casefold() == PAGE_NAME}
    names = unique_names(wanted, Path())
    return {name: names[Path(str(index))] for index, name in enumerate(class_names)}


def _chosen(label: str | int | Sequence[str | int], class_names: Sequence[str]) -> list[str]:
    if label == "all" and "all" not in class_names:
        return list(class_names)
    labels = [str(name) for name in ([label] if isinstance(label, (str, int)) else label)]
    unknown = [name for name in labels if name not in class_names]
    if unknown or not labels:
        raise ValueError(
            f"label is {', '.join(unknown) or 'empty'}: not a class of this checkpoint; "
            f"choose all or some of: {', '.join(class_names)}"
        )
    return list(dict.fromkeys(labels))
