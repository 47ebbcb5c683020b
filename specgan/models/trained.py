"""A trained generator, and how a checkpoint holds it: what CGAN writes and what generation, service and report read."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from specgan.files import composed, load_tensors
from specgan.models.generators import sample
from specgan.models.shared import (
    SETTINGS_NAME,
    VOCODER_KEY,
    is_shared,
    name_of,
    read_shared,
    shared_folder,
    write_shared,
)
from specgan.spectrogram import LevelRange, SpectrogramParams

CHECKPOINT_KEY = "specgan"  # the dictionary of `TrainedGenerator.to_dict`, beside what Lightning writes
EMA = "ema"  # the submodule of CGAN, and so the prefix of the weights in `state_dict`

_UNSAID = {"channels": 1}  # settings of networks from before there were others
_OURS = "specgan.models."  # a checkpoint may ask for networks from here


@dataclass(frozen=True)
class TrainedGenerator:
    """A generator and what its output means.

    Args:
        network: with `settings`, the arguments that rebuild it, and `latent_dim`; called as network(z, labels).
        params: of the spectrograms.
        level_range: that [-1, 1] stands for.
        class_names: by label.
        n_steps: batches that it was trained on.
        checkpoint: name of the file or folder that it was read from, or hf://user/name; "": of none.
        vocoder: that the checkpoint carries, plain values of `specgan.vocoders.learned.Learned`; None: it carries none.
    """

    network: nn.Module
    params: SpectrogramParams
    level_range: LevelRange
    class_names: Sequence[str]
    n_steps: int
    checkpoint: str = ""
    vocoder: Mapping[str, Any] | None = None

    @property
    def channels(self) -> int:
        """Of the spectrograms: 2 are stereo."""
        return self.network.settings.get("channels", 1)

    def to_dict(self) -> dict[str, Any]:
        """What a checkpoint says about the generator besides its weights: numbers and text, no objects."""
        network = type(self.network)
        return {
            "params": asdict(self.params),
            "level_range": asdict(self.level_range),
            "class_names": list(self.class_names),
            "generator": {"_target_": f"{network.__module__}.{network.__qualname__}", **self.network.settings},
            "n_steps": self.n_steps,
            **({} if self.vocoder is None else {VOCODER_KEY: dict(self.vocoder)}),
        }

    def save(self, folder: str | Path) -> list[str]:
        """Writes the generator alone, without its run, see `models.shared`; `load` reads the folder.

        Returns:
            The names of the files.
        Raises:
            ValueError: the network has settings that are no plain values.
        """
        return write_shared(folder, self.to_dict(), self.network.state_dict())

    @classmethod
    def load(cls, ckpt_path: str | Path | None, *, network: str | None = None) -> "TrainedGenerator":
        """Reads the averaged generator from a checkpoint of train.py, or a shared one, see `models.shared`.

        A checkpoint may come from anywhere, and names the class of its generator. Classes of specgan.models are
        instantiated without asking, others only if the caller names them.

        Args:
            ckpt_path: the checkpoint; a folder with specgan.json; or hf://user/name, hf://user/name@revision on the
                Hugging Face hub, whose cache comes first.
            network: dotted path of the generator's class if it is your own, "my_networks.MyGenerator".
        Raises:
            FileNotFoundError: no such file; or, as MissingWeightsError, nothing that can be fetched.
            ImportError: hf:// without the package huggingface_hub.
            ValueError: None, or not a checkpoint of a specgan generator, or its class is another one.
        """
        if ckpt_path is None:
            raise ValueError("ckpt_path is null; name a checkpoint of train.py: ckpt_path=<run>/checkpoints/best.ckpt")
        checkpoint = read_checkpoint(ckpt_path)
        try:
            saved, weights = checkpoint[CHECKPOINT_KEY], checkpoint["state_dict"]
            weights = {name.removeprefix(f"{EMA}."): w for name, w in weights.items() if name.startswith(f"{EMA}.")}
            return cls(
                network=_rebuilt(saved["generator"], weights, named=network),
                params=SpectrogramParams(**saved["params"]),
                level_range=LevelRange(**saved["level_range"]),
                class_names=_checked_names(saved["class_names"]),
                n_steps=int(saved["n_steps"]),
                checkpoint=name_of(ckpt_path),
                vocoder=saved.get(VOCODER_KEY),
            )
        except Exception as err:  # a stranger's file can hold anything
            reason = f"it has no {err}" if isinstance(err, KeyError) else str(err)[:300]
            what = f"its {SETTINGS_NAME} is not that" if is_shared(ckpt_path) else "not a checkpoint"
            raise ValueError(f"ckpt_path is {ckpt_path}: {what} of specgan's train.py ({reason})") from err

    def require_continues(self, saved: Mapping[str, Any]) -> None:
        """Raises ValueError, with both values, if `saved` (of `to_dict`) has other settings than this generator."""
        here = self.to_dict()
        differing = [
            f"{name}: checkpoint {there.get(name)!r}, this run {value!r}"
            for kind in ("params", "generator", "level_range")
            for there in [{**_UNSAID, **saved[kind]}]
            for name, value in here[kind].items()
            if name != "_target_" and there.get(name) != value
        ]
        if [*map(composed, here["class_names"])] != [*map(composed, saved["class_names"])]:
            differing.append(f"class_names: checkpoint {saved['class_names']}, this run {here['class_names']}")
        if differing:
            raise ValueError(
                "the checkpoint does not fit this run; go on with the settings it was trained with, or start without "
                f"ckpt_path. They differ in {'; '.join(differing)}"
            )

    def sample(self, labels: Sequence[str], seeds: Sequence[int]) -> Tensor:
        """Draws spectrograms (B, channels, n_mels, n_frames) in [-1, 1]; each depends on its label and seed alone."""
        names = [find_class(label, self.class_names) for label in labels]
        return self.sample_indices([self.class_names.index(name) for name in names], seeds)

    def sample_indices(self, labels: Sequence[int], seeds: Sequence[int]) -> Tensor:
        """As `sample`, with class indices."""
        return sample(self.network, labels, seeds)


def find_class(name: str, class_names: Sequence[str]) -> str | None:
    """The class of that name, also if its accents are typed in the other form of Unicode; None: there is none."""
    alike = (known for known in class_names if composed(known) == composed(name))
    return name if name in class_names else next(alike, None)


def level_range_of(ckpt_path: str | Path) -> LevelRange:
    """The level range of a checkpoint of train.py to go on from; it may be a URL for fsspec (s3://bucket/last.ckpt).

    Raises:
        FileNotFoundError: no such file.
        ValueError: not a checkpoint of a specgan generator, or a shared one, from which no training can go on.
    """
    if is_shared(ckpt_path):
        raise ValueError(
            f"ckpt_path is {ckpt_path}: a shared generator, without what a training goes on with (discriminator, "
            "optimizers); name a checkpoint of your own run, or draw from it: generate.py"
        )
    checkpoint = read_checkpoint(ckpt_path)
    try:
        return LevelRange(**checkpoint[CHECKPOINT_KEY]["level_range"])
    except Exception as err:  # a stranger's file can hold anything
        raise ValueError(f"ckpt_path is {ckpt_path}: not a checkpoint of specgan's train.py") from err


def is_vocoder(ckpt_path: str | Path) -> bool:
    """Whether a checkpoint of train.py is one of model=vocoder, without a generator.

    Raises:
        FileNotFoundError: no such file.
        ValueError: it is damaged.
    """
    checkpoint = read_checkpoint(ckpt_path)
    saved = checkpoint.get(CHECKPOINT_KEY) if isinstance(checkpoint, dict) else None
    return isinstance(saved, dict) and VOCODER_KEY in saved and "generator" not in saved


def read_checkpoint(path: str | Path, *, setting: str = "ckpt_path") -> Any:
    """What a checkpoint of train.py holds, plain values; the path may be a URL for fsspec (s3://bucket/last.ckpt).

    Args:
        path: of the checkpoint.
        setting: that named it, for errors.
    Raises:
        FileNotFoundError: no such file.
        ValueError: it is damaged.
    """
    folder = shared_folder(path)
    if folder is not None:
        saved, weights = read_shared(folder)
        return {CHECKPOINT_KEY: saved, "state_dict": {f"{EMA}.{name}": weight for name, weight in weights.items()}}
    if "://" in str(path):
        import fsspec

        with fsspec.open(str(path), "rb") as file:
            return load_tensors(path, file.read())
    path = Path(path)
    if path.is_dir():
        raise FileNotFoundError(
            f"{setting} is {path}: a folder without {SETTINGS_NAME}; name a file in it, as <run>/checkpoints/last.ckpt"
        )
    if not path.is_file():
        raise FileNotFoundError(f"{setting} is {path}: no such file; train.py writes <run>/checkpoints/last.ckpt")
    return load_tensors(path)


def _rebuilt(saved: Mapping[str, Any], weights: Mapping[str, Tensor], *, named: str | None) -> nn.Module:
    settings = dict(saved)
    target = settings.pop("_target_")
    module, _, name = target.rpartition(".")
    # Importing a module runs it, so this check comes first.
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
    rebuilt = network(**settings)
    rebuilt.load_state_dict(weights)
    return rebuilt.eval()


def _checked_names(names: Any) -> list[str]:
    if not isinstance(names, list) or not names or not all(isinstance(name, str) for name in names):
        raise ValueError(f"class_names is {names!r}; a list of names")
    return names
