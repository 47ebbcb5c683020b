"""The start of a training from the weights of another: whatever fits is taken over, the rest is new."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from specgan.files import composed
from specgan.models.trained import CHECKPOINT_KEY, EMA, read_checkpoint
from specgan.spectrogram import SpectrogramParams

_SETTING = "init_from"
_N_ITERATIONS = 15  # of spectral norm, as for new weights
_FIRST_DOUBLING = 4  # place in DCGANGenerator.layers; before it are the dense layer and its norm

Rows = Sequence[int | None]  # for each class its place among the classes of the checkpoint; None: it is new


@dataclass(frozen=True)
class Start:
    """Weights of a checkpoint, for the networks of a new training.

    Both networks of the new training start from it, the generator from the average that also draws sounds. Optimizers,
    schedule and level range are those of the new training.

    Args:
        path: of the checkpoint.
        generator: weights of its averaged generator, by name.
        discriminator: weights of its discriminator, by name.
        settings: of its generator.
        params: of its spectrograms.
        class_names: of its training, by label.
        n_steps: of its training.
    """

    path: str
    generator: Mapping[str, Tensor] = field(repr=False)
    discriminator: Mapping[str, Tensor] = field(repr=False)
    settings: Mapping[str, Any]
    params: SpectrogramParams
    class_names: Sequence[str]
    n_steps: int

    @classmethod
    def read(cls, path: str | Path) -> "Start":
        """Reads a checkpoint of model=cgan, which may be a URL for fsspec (s3://bucket/best.ckpt).

        Raises:
            FileNotFoundError: no such file.
            ValueError: not a checkpoint of a specgan generator.
        """
        checkpoint = read_checkpoint(path, setting=_SETTING)
        try:
            saved = checkpoint[CHECKPOINT_KEY]
            generator, discriminator = (_part(checkpoint["state_dict"], name) for name in (EMA, "discriminator"))
            return cls(
                path=str(path),
                generator=generator,
                discriminator=discriminator,
                settings=dict(saved["generator"]),
                params=SpectrogramParams(**saved["params"]),
                class_names=[str(name) for name in saved["class_names"]],
                n_steps=int(saved["n_steps"]),
            )
        except Exception as err:  # a stranger's file can hold anything
            reason = f"it has no {err}" if isinstance(err, KeyError) else str(err)[:300]
            raise ValueError(
                f"{_SETTING} is {path}: not a checkpoint of train.py model=cgan ({reason}); name one, "
                f"{_SETTING}=<run>/checkpoints/best.ckpt, or leave {_SETTING} out"
            ) from err

    def into(
        self, generator: nn.Module, discriminator: nn.Module, *, params: SpectrogramParams, class_names: Sequence[str]
    ) -> list[str]:
        """Replaces the weights of new networks by those of the checkpoint, where they fit.

        A class of the same name takes over its weights. Weights that hold a value for each place of the smallest map
        keep their beginning in time where only the length differs, and are interpolated between bands.

        Args:
            generator, discriminator: new networks.
            params: of the new training's spectrograms.
            class_names: of the new training, by label.
        Returns:
            Sentences that say what was taken over.
        Raises:
            ValueError: nothing fits the generator.
        """
        there = _Sizes(self.params, self.settings, _depth(self.discriminator))
        here = _Sizes(params, getattr(generator, "settings", {}), _depth(discriminator.state_dict()))
        known = [composed(name) for name in self.class_names]
        rows = [known.index(composed(name)) if composed(name) in known else None for name in class_names]
        new_in = {
            "generator": _take(generator, self.generator, _generator_rules(there, here, rows)),
            "discriminator": _take(discriminator, self.discriminator, _discriminator_rules(there, here, rows)),
        }
        if (new_in["generator"] or [""])[0] == _ALL:
            raise ValueError(
                f"{_SETTING} is {self.path}: no weight of its generator {dict(self.settings)} fits the new one "
                f"{getattr(generator, 'settings', type(generator).__name__)}; set generator.width and others as they "
                f"are there, or leave {_SETTING} out"
            )
        return [self._of_weights(new_in), self._of_classes(rows, class_names), *self._of_spectrograms(params)]

    def _of_weights(self, new_in: Mapping[str, Sequence[str]]) -> str:
        whole = " and ".join(name for name, new in new_in.items() if not new)
        parts = [f"{whole} taken over as a whole"] if whole else []
        parts += [
            f"{name} new" if new[0] == _ALL else f"{name} taken over but for {', '.join(new)}, which start anew"
            for name, new in new_in.items()
            if new
        ]
        return f"{_SETTING} {self.path} ({self.n_steps} steps): {'; '.join(parts)}"

    def _of_classes(self, rows: Rows, class_names: Sequence[str]) -> str:
        known = [name for name, row in zip(class_names, rows, strict=True) if row is not None]
        new = [name for name, row in zip(class_names, rows, strict=True) if row is None]
        return f"classes that go on: {', '.join(known) or 'none'}; new classes: {', '.join(new) or 'none'}"

    def _of_spectrograms(self, params: SpectrogramParams) -> list[str]:
        there, here = asdict(self.params), asdict(params)
        differing = [f"{name} {there[name]}, here {here[name]}" for name in here if here[name] != there[name]]
        if not differing:
            return []
        return [f"other spectrograms, from which a start is weaker: {'; '.join(differing)}"]


@dataclass(frozen=True)
class _Sizes:
    """What the shapes of weights follow from."""

    params: SpectrogramParams
    settings: Mapping[str, Any]  # of the generator
    depth: int  # of the discriminator

    @property
    def of_spectrogram(self) -> tuple[int, int]:
        return self.params.n_bins, self.params.n_frames or 1

    @property
    def channels(self) -> int:
        return self.settings.get("channels", 1)

    @property
    def latent_dim(self) -> int:
        return self.settings.get("latent_dim", 0)

    @property
    def is_one_hot(self) -> bool:
        return "embedding_dim" in self.settings and self.settings["embedding_dim"] is None

    @property
    def last_layer(self) -> int:
        """Place of the generator's last transposed convolution in its layers."""
        return _FIRST_DOUBLING + 3 * (self.settings.get("depth") or 1) - 3

    def smallest(self, depth: int | None) -> tuple[int, int]:
        """Bands and frames of the smallest map."""
        n_mels, n_frames = self.of_spectrogram
        return -(-n_mels // 2 ** (depth or 0)), -(-n_frames // 2 ** (depth or 0))


Fit = Callable[[Tensor, Tensor], Tensor]  # (weight of the checkpoint, new weight) -> one that may have the new shape
Rule = tuple[str, Sequence[Fit]]  # name in the checkpoint, and what makes its weight fit
_ALL = "all"


def _generator_rules(there: _Sizes, here: _Sizes, rows: Rows) -> Callable[[str], Rule | None]:
    of_map = _map_rule(*(sizes.smallest(sizes.settings.get("depth")) for sizes in (there, here)))
    deeper = here.last_layer - there.last_layer
    last = f"layers.{here.last_layer}"

    def columns(old: Tensor, new: Tensor) -> Tensor:  # of the noise, and of one-hot labels or of an embedding
        if there.is_one_hot != here.is_one_hot or there.latent_dim != here.latent_dim:
            return old
        noise, of_label = old.split([here.latent_dim, old.shape[1] - here.latent_dim], dim=1)
        return torch.cat([noise, _of_classes(of_label.T, rows).T if here.is_one_hot else of_label], dim=1)

    def rule(name: str) -> Rule | None:
        if name == "embedding.weight":  # one-hot labels are not learned
            return None if here.is_one_hot else (name, (lambda old, _: _of_classes(old, rows, spread=1.0),))
        if name == "layers.0.weight":
            return name, (columns, lambda old, new: of_map(old.T, new).T)
        if name == "layers.0.bias":
            return name, (of_map,)
        place = re.match(r"layers\.(\d+)\.", name)
        if place and (number := int(place[1])) >= _FIRST_DOUBLING and number - deeper >= _FIRST_DOUBLING:
            source = name.replace(place[0], f"layers.{number - deeper}.", 1)  # counted from the spectrogram
            axis = 1 if name.endswith(".weight") else 0
            return source, (lambda old, new: _to_channels(old, new, axis),) if name.startswith(f"{last}.") else ()
        return name, ()

    return rule


def _discriminator_rules(there: _Sizes, here: _Sizes, rows: Rows) -> Callable[[str], Rule | None]:
    of_map = _map_rule(*(sizes.smallest(sizes.depth) for sizes in (there, here)))
    of_label_map = _map_rule(there.of_spectrogram, here.of_spectrogram)

    def of_channels(old: Tensor, new: Tensor) -> Tensor:
        n, wanted = there.channels, here.channels
        if n == wanted or old.shape[1] < n:
            return old
        # several channels that are alike give what one of them gave
        each = old[:, :n].sum(1, keepdim=True).expand(-1, wanted, -1, -1) / wanted
        return torch.cat([each, old[:, n:]], dim=1)

    def inputs(old: Tensor, new: Tensor) -> Tensor:  # the last stage has one more, the spread in a class
        if new.shape[1] - old.shape[1] == 1:
            return torch.cat([old, new[:, -1:]], dim=1)
        return old[:, :-1] if old.shape[1] - new.shape[1] == 1 else old

    def rule(name: str) -> Rule:
        of_classes: Fit = lambda old, _: _of_classes(old, rows)  # noqa: E731
        if name == "embedding.weight":
            return name, (of_classes, of_map)
        if name == "label_map.0.weight":
            return name, (of_classes, of_label_map)
        if name == "logit.weight":
            return name, (of_map,)
        if re.fullmatch(r"stages\.\d+\.0\.weight", name):
            return name, (of_channels if name.startswith("stages.0.") else inputs,)
        return name, ()

    return rule


@torch.no_grad()
def _take(network: nn.Module, weights: Mapping[str, Tensor], rule: Callable[[str], Rule | None]) -> list[str]:
    """Loads the layers that fit into a network; returns the others, behind `_ALL` if no layer but embeddings fits."""
    old_of = {plain: weight for name, weight in weights.items() if (plain := _plain(name))}
    state, taken, new_layers = network.state_dict(), {}, dict[str, None]()
    for name, new in state.items():
        if (plain := _plain(name)) is None or (found := rule(plain)) is None:
            continue
        source, fits = found
        old = old_of.get(source)
        for fit in fits if old is not None else ():
            old = fit(old, new)
        if old is not None and old.shape == new.shape:
            taken[name] = old.to(new)
        else:
            new_layers[_layer_of(plain)] = None
    taken = {name: weight for name, weight in taken.items() if _layer_of(_plain(name)) not in new_layers}
    if all(_layer_of(_plain(name)) == "embedding" for name in taken):
        return [_ALL, *new_layers]
    network.load_state_dict({**state, **taken})
    for module in network.modules():
        for _ in range(_N_ITERATIONS if hasattr(module, "parametrizations") and module.training else 0):
            module.weight  # noqa: B018  (spectral norm estimates the largest singular value a little better each time)
    return list(new_layers)


def _layer_of(name: str) -> str:
    return name.rpartition(".")[0]


def _of_classes(old: Tensor, rows: Rows, *, spread: float = 0.0) -> Tensor:
    """Rows (n_old, n) of the checkpoint's classes -> rows of the new classes.

    A new class gets the mean of the rows, `spread` standard deviations from it at random.
    """
    spare = old.mean(0)
    noise = torch.randn(len(rows), *spare.shape, generator=torch.Generator().manual_seed(0)).to(old)
    deviation = old.std(0, correction=0) * spread
    return torch.stack([old[row] if row is not None else spare + deviation * noise[i] for i, row in enumerate(rows)])


def _map_rule(old_size: tuple[int, int], new_size: tuple[int, int]) -> Fit:
    """For weights (..., C * bands * frames): frames from the beginning, the last one repeated; bands interpolated."""

    def fit(old: Tensor, new: Tensor) -> Tensor:
        if old_size == new_size or old.shape[-1] % (old_size[0] * old_size[1]):
            return old
        maps = old.reshape(-1, 1, *old_size)
        bands, frames = new_size
        if bands != old_size[0]:
            maps = F.interpolate(maps, size=(bands, old_size[1]), mode="bilinear", align_corners=False)
        maps = F.pad(maps[..., :frames], (0, max(0, frames - old_size[1]), 0, 0), mode="replicate")
        return maps.reshape(*old.shape[:-1], -1)

    return fit


def _to_channels(old: Tensor, new: Tensor, axis: int) -> Tensor:
    """All channels of a new last layer are alike, as the mean of the checkpoint's."""
    if old.dim() != new.dim() or old.shape[axis] == new.shape[axis]:
        return old
    return old.mean(axis, keepdim=True).repeat_interleave(new.shape[axis], axis)


def _depth(weights: Mapping[str, Tensor]) -> int:
    """Stages of a discriminator."""
    return len({name.split(".")[1] for name in weights if name.startswith("stages.")})


def _part(weights: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(f"{prefix}."): w for name, w in weights.items() if name.startswith(f"{prefix}.")}


def _plain(name: str) -> str | None:
    """The name of a weight without spectral norm; None: a vector of spectral norm."""
    if ".parametrizations.weight.0" in name:
        return None
    return name.replace("parametrizations.weight.original", "weight")
