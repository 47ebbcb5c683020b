"""Checkpoint -> new sounds in a folder."""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from rich.progress import track
from torch import Tensor, nn

from specgan.audio import save_wav
from specgan.files import atomic_path, safe_name
from specgan.gallery import Sound, write_gallery
from specgan.models.generators import CHUNK_SIZE, sample
from specgan.picture import to_png
from specgan.spectrogram import LevelRange, SpectrogramParams

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class TrainedGenerator:
    """A generator and what its output means."""

    network: nn.Module
    params: SpectrogramParams
    level_range: LevelRange
    class_names: Sequence[str]
    n_steps: int

    @classmethod
    def load(cls, ckpt_path: str | Path) -> "TrainedGenerator":
        """Reads the averaged generator from a checkpoint of train.py.

        Raises:
            FileNotFoundError: no such file.
            ValueError: not a checkpoint of a specgan generator.
        """
        path = Path(ckpt_path)
        if not path.is_file():
            raise FileNotFoundError(f"ckpt_path is {path}: no such file; train.py writes <run>/checkpoints/last.ckpt")
        try:
            checkpoint = torch.load(path, map_location="cpu", weights_only=True)
            saved = checkpoint["specgan"]
        except Exception as err:
            raise ValueError(f"ckpt_path is {path}: not a checkpoint of specgan's train.py ({err})") from err
        network = _make_network(**saved["generator"])
        prefix = "ema."
        weights = checkpoint["state_dict"].items()
        network.load_state_dict({name.removeprefix(prefix): w for name, w in weights if name.startswith(prefix)})
        return cls(
            network=network.eval(),
            params=SpectrogramParams(**saved["params"]),
            level_range=LevelRange(**saved["level_range"]),
            class_names=saved["class_names"],
            n_steps=saved["n_steps"],
        )

    def sample(self, labels: Sequence[str], seeds: Sequence[int]) -> Tensor:
        """Draws spectrograms (B, 1, n_mels, n_frames) in [-1, 1]; each depends on its label and seed alone."""
        return self.sample_indices([self.class_names.index(label) for label in labels], seeds)

    def sample_indices(self, labels: Sequence[int], seeds: Sequence[int]) -> Tensor:
        """As `sample`, of class indices."""
        return sample(self.network, labels, seeds)


def _make_network(_target_: str, **settings: Any) -> nn.Module:
    module, _, name = _target_.rpartition(".")
    network = getattr(import_module(module), name, None)
    # A checkpoint comes from anywhere: it may name a network to make, not a function to call.
    if not (isinstance(network, type) and issubclass(network, nn.Module)):
        raise ValueError(f"the checkpoint names {_target_!r} as its generator, which is no network")
    return network(**settings)


def generate(
    ckpt_path: str | Path,
    *,
    label: str | int | Sequence[str | int],
    n_samples: int,
    seed: int,
    output: str | Path,
    vocoder: Callable[..., nn.Module],
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
    Returns:
        The path of index.html.
    Raises:
        FileNotFoundError, ValueError: no such checkpoint or class, or nothing asked for; nothing is written.
    """
    if n_samples < 1:
        raise ValueError(f"n_samples is {n_samples}; at least 1")
    if seed < 0:
        raise ValueError(f"seed is {seed}; at least 0")
    trained = TrainedGenerator.load(ckpt_path)
    labels = _chosen(label, trained.class_names)
    to_sound = vocoder(trained.params, trained.level_range)
    output = Path(output)

    jobs = [(name, seed + i) for name in labels for i in range(n_samples)]
    sections: dict[str, list[Sound]] = {name: [] for name in labels}
    chunks = [jobs[start : start + CHUNK_SIZE] for start in range(0, len(jobs), CHUNK_SIZE)]
    for chunk in track(chunks, description="sounds"):
        spectrograms = trained.sample([name for name, _ in chunk], [s for _, s in chunk])
        # One sound at a time, because the FFT and filter products also round by batch size.
        for (name, sound_seed), spectrogram in zip(chunk, spectrograms, strict=True):
            stem = f"{safe_name(name)}/{safe_name(name)}_{sound_seed}"
            waveform = to_sound(spectrogram.unsqueeze(0), seeds=[sound_seed])[0]
            save_wav(output / f"{stem}.wav", waveform, trained.params.sample_rate)
            with atomic_path(output / f"{stem}.png") as temporary:
                temporary.write_bytes(to_png(spectrogram[0]))
            sections[name].append(Sound(f"seed {sound_seed}", f"{stem}.png", f"{stem}.wav"))

    index = output / "index.html"
    write_gallery(index, title="New sounds", note=f"Drawn from {ckpt_path}.", sections=sections)
    log.info("%d sounds of %d classes; open %s", len(jobs), len(labels), index)
    return index


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
