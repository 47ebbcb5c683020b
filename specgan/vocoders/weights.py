"""Files that hold a trained vocoder: checkpoints, and the base that comes with the package."""

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from specgan.files import load_tensors, write_bytes
from specgan.spectrogram import SpectrogramParams
from specgan.vocoders.refinement import Refiner

CHECKPOINT_KEY, VOCODER_KEY = "specgan", "vocoder"  # in a checkpoint of train.py, where `Refiner.contents` is

BASES = Path(__file__).parent / "bases"

# that a stranger's file can ask for
_MOST = {"width": 512, "n_blocks": 16, "n_bands": 256, "n_steps": 8, "n_last": 8, "n_iter": 256}


def new_network(params: SpectrogramParams, *, start: str | Path | None = None, **settings: int) -> Refiner:
    """A network to train, for spectrograms of these settings.

    Args:
        params: of the spectrograms.
        start: what it starts from: a file of `read_vocoder`; "base": the base of the package for such spectrograms, if
            there is one; None: random weights.
        settings: of `Refiner`; those of what it starts from must be the same, but for `n_iter`.
    Raises:
        FileNotFoundError, ValueError: `start` is no vocoder, or one of other settings.
    """
    network = Refiner(params, **settings)
    if start == "base":
        start = find_base(params)
    if start is not None:
        begun = rebuilt(read_vocoder(start), params, origin=str(start))
        if begun.settings | {"n_iter": network.n_iter} != network.settings:  # nothing is learned in these iterations
            raise ValueError(f"{start}: a network of {begun.settings}, and model.network asks for {network.settings}")
        network.load_state_dict(begun.state_dict())
    return network


def rebuilt(held: Any, params: SpectrogramParams, *, origin: str, given: Mapping[str, int] | None = None) -> Refiner:
    """The network of `Refiner.contents`, for spectrograms of the given settings.

    Args:
        held: what a file holds, which may be anything.
        params: of the spectrograms; their `n_frames` may differ from those that it was trained on.
        origin: name of the file, for messages.
        given: settings that are used in place of the file's.
    Raises:
        ValueError: `held` is no such network, or one for other spectrograms.
    """
    try:
        own = SpectrogramParams(**held["params"])
        settings = dict(held["settings"])
        weights = dict(held["weights"])
        if not all(isinstance(value, int) and 0 <= value <= _MOST.get(name, 0) for name, value in settings.items()):
            raise ValueError(f"impossible settings {settings}")
    except Exception as err:  # a stranger's file can hold anything
        reason = f"it has no {err}" if isinstance(err, KeyError) else str(err)[:300]
        raise ValueError(f"{origin}: not a vocoder that train.py model=vocoder trained ({reason})") from err
    require_same(own, params, origin=origin)
    try:
        network = Refiner(params, **settings | dict(given or {}))
    except (TypeError, ValueError) as err:
        raise ValueError(f"{origin}: not a vocoder that train.py model=vocoder trained ({str(err)[:300]})") from err
    sizes = {name: weight.shape for name, weight in network.state_dict().items()}
    _require_weights(weights, sizes, origin=origin)
    network.load_state_dict(weights)
    return network.requires_grad_(False).eval()


def require_same(own: SpectrogramParams, params: SpectrogramParams, *, origin: str) -> None:
    """Raises ValueError, with both values, if a vocoder was trained on other spectrograms."""
    # A clip's level mapping and its length do not change what its power means.
    differing = [
        f"{name}: trained on {value!r}, these are {getattr(params, name)!r}"
        for name, value in asdict(own).items()
        if name not in ("n_frames", "level", "floor_db") and getattr(params, name) != value
    ]
    if differing:
        raise ValueError(
            f"{origin}: a vocoder for other spectrograms ({'; '.join(differing)}); train one for these: "
            "python train.py model=vocoder, or use vocoder=griffin_lim"
        )


def _require_weights(weights: Mapping[str, Any], sizes: Mapping[str, torch.Size], *, origin: str) -> None:
    found = {name: getattr(weight, "shape", None) for name, weight in weights.items()}
    if found != dict(sizes):
        wrong = sorted(set(found) ^ set(sizes)) or sorted(name for name in sizes if found[name] != sizes[name])
        raise ValueError(f"{origin}: not the weights of this vocoder; {wrong[0]} differs (and {len(wrong) - 1} others)")
    for name, weight in weights.items():
        if not isinstance(weight, Tensor) or not weight.is_floating_point() or not bool(weight.isfinite().all()):
            raise ValueError(f"{origin}: its weight {name} is not finite, so it was not trained to an end")


def read_vocoder(path: str | Path) -> dict[str, Any]:
    """Reads what a checkpoint of train.py, or a .safetensors file, holds of a vocoder; nothing in it is run.

    Raises:
        FileNotFoundError: no such file.
        ValueError: it holds no vocoder.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(
            f"vocoder.path is {path}: no such file; python train.py model=vocoder writes <run>/checkpoints/best.ckpt"
        )
    if path.suffix == ".safetensors":
        return _read_safetensors(path)
    held = load_tensors(path)
    held = held.get(CHECKPOINT_KEY) if isinstance(held, dict) else None
    if not isinstance(held, dict) or VOCODER_KEY not in held:
        raise ValueError(
            f"vocoder.path is {path}: it holds no vocoder; name a checkpoint of train.py model=vocoder, or of a "
            "training with vocoder=learned"
        )
    return held[VOCODER_KEY]


def _read_safetensors(path: Path) -> dict[str, Any]:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            about = json.loads((file.metadata() or {})["specgan"])
            return {**about, "weights": {name: file.get_tensor(name).float() for name in file.keys()}}  # noqa: SIM118
    except (SafetensorError, KeyError, TypeError, json.JSONDecodeError) as err:
        raise ValueError(f"vocoder.path is {path}: not a vocoder that specgan wrote ({str(err)[:200]})") from err


def write_safetensors(path: str | Path, held: Mapping[str, Any]) -> None:
    """Writes `Refiner.contents` as .safetensors, in half precision, whole or not at all."""
    from safetensors.torch import save

    about = json.dumps({name: held[name] for name in ("params", "settings")})
    weights = {name: weight.half().contiguous() for name, weight in held["weights"].items()}
    write_bytes(path, save(weights, metadata={"specgan": about}))


def find_base(params: SpectrogramParams) -> Path:
    """The base for spectrograms of these settings that comes with the package.

    Raises:
        ValueError: there is none; the message names what there is.
    """
    bases = sorted(BASES.glob("*.safetensors"))
    for path in bases:
        try:
            require_same(SpectrogramParams(**_read_safetensors(path)["params"]), params, origin=path.name)
            return path
        except ValueError:
            continue
    raise ValueError(
        f"vocoder.path is null, and the package has no trained vocoder for these spectrograms (it has those of "
        f"{', '.join(path.stem for path in bases) or 'none'}); train one: python train.py model=vocoder "
        "spectrogram=<preset> data=folder data.audio_dir=<clips>, and give vocoder.path=<run>/checkpoints/best.ckpt"
    )
