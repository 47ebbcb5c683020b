"""The encoder's file beside its checkpoint: trained when first needed, and again once the generator has changed."""

import hashlib
import json
import logging
from dataclasses import replace
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from specgan.files import write_bytes
from specgan.latent.encoder import Encoder
from specgan.latent.fitting import fit_encoder, new_encoder
from specgan.models.shared import file_of, is_shared
from specgan.models.trained import TrainedGenerator

log = logging.getLogger(__name__)

SUFFIX = ".encoder.safetensors"
_VERSION = 1  # raise it with every change of the encoder: those of another version are then trained anew


def encoder_path(ckpt_path: str | Path) -> Path:
    """Where the encoder of a checkpoint is kept: last.encoder.safetensors beside last.ckpt.

    Of a shared generator it is generator.encoder.safetensors in its folder; of one on the hub, in the hub's cache.
    """
    return file_of(ckpt_path).with_suffix(SUFFIX)


def load_or_train_encoder(trained: TrainedGenerator, ckpt_path: str | Path) -> Encoder:
    """Loads the encoder of a checkpoint; trains and keeps it where there is none, or only one of other weights.

    Where the folder cannot be written to, the encoder is used without being kept, and a warning says what to do.

    Args:
        trained: the generator of the checkpoint.
        ckpt_path: the checkpoint; its encoder is beside it.
    Raises:
        ValueError: the generator has no `from_embedding`, or the file that should be its encoder is none.
    """
    path = encoder_path(ckpt_path)
    encoder = load_encoder(trained, path)
    if encoder is not None:
        return encoder
    if path.is_file():
        log.info("%s: of other weights than %s has now, so it is trained again", path, ckpt_path)
    return train_encoder(trained, ckpt_path)


def load_encoder(trained: TrainedGenerator, path: str | Path) -> Encoder | None:
    """Loads an encoder of a generator; None: there is no such file, or it is of other weights.

    Args:
        trained: the generator.
        path: the file, see `encoder_path`.
    Raises:
        ValueError: the generator has no `from_embedding`, or the file is no encoder.
    """
    encoder, path = new_encoder(trained), Path(path)
    if not path.is_file() or _load(encoder, path) != fingerprint(trained):
        return None
    return encoder.eval().requires_grad_(False)


def save_encoder(encoder: Encoder, trained: TrainedGenerator, path: str | Path) -> None:
    """Writes an encoder, with what generator it is of."""
    about = {"specgan": "encoder", "generator": fingerprint(trained)}
    write_bytes(Path(path), save({name: value.contiguous() for name, value in encoder.state_dict().items()}, about))


def train_encoder(trained: TrainedGenerator, ckpt_path: str | Path, *, n_steps: int | None = None) -> Encoder:
    """Trains the encoder of a checkpoint anew, and keeps it if its folder can be written to.

    Args:
        trained, ckpt_path: as of `load_or_train_encoder`.
        n_steps: see `fit_encoder`.
    Raises:
        ValueError: as `fit_encoder`, or a file that is no encoder is in the way.
    """
    path = encoder_path(ckpt_path)
    if path.is_file():
        _metadata(path)  # a file of something else is not replaced
    log.info("training the encoder of %s, once: about two minutes on one core", ckpt_path)
    encoder, losses = fit_encoder(trained, n_steps=n_steps)
    try:
        if "://" in str(ckpt_path) and not is_shared(ckpt_path):
            raise OSError("it is on another machine")
        save_encoder(encoder, trained, path)
        log.info("%s: %d steps, spectral loss from %.3f to %.3f", path, len(losses), losses[0], losses[-1])
    except OSError as err:
        log.warning(
            "%s: cannot be written (%s), so the encoder is used without being kept, and is trained each time; copy the "
            "checkpoint into a folder of yours",
            *(path, err),
        )
    return encoder


def fingerprint(trained: TrainedGenerator) -> str:
    """A digest of what an encoder depends on: the generator's weights and settings, and the encoder's own version."""
    settings = replace(trained, n_steps=0, vocoder=None).to_dict()  # neither changes what is drawn
    del settings["n_steps"]
    digest = hashlib.sha256(json.dumps([_VERSION, settings], sort_keys=True).encode())
    for name, weight in sorted(trained.network.state_dict().items()):
        digest.update(name.encode() + weight.cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def _load(encoder: Encoder, path: Path) -> str:
    """Fills an encoder with the weights of a file, if they fit; returns the digest of the generator that it is of."""
    digest = _metadata(path)["generator"]
    with safe_open(path, "pt") as file:
        weights = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118, it is no dictionary
    own = encoder.state_dict()
    if {name: value.shape for name, value in weights.items()} != {name: value.shape for name, value in own.items()}:
        return ""
    encoder.load_state_dict(weights)
    return digest


def _metadata(path: Path) -> dict[str, str]:
    try:
        with safe_open(path, "pt") as file:
            about = file.metadata() or {}
    except SafetensorError:
        about = {}
    if about.get("specgan") != "encoder" or "generator" not in about:
        raise ValueError(f"{path}: not an encoder that specgan trained; move it away, and one is trained in its place")
    return about
