"""Checkpoints that carry their vocoder, so that generate.py needs nothing else."""

import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import lightning as L
import torch
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf
from torch import nn

from specgan.files import atomic_path, load_tensors
from specgan.models.shared import VOCODER_KEY, is_shared
from specgan.models.trained import CHECKPOINT_KEY, TrainedGenerator

log = logging.getLogger(__name__)


class CarryVocoder(L.Callback):
    """Puts the trained vocoder of a run into its checkpoints; one without weights, as Griffin-Lim, is not carried.

    Args:
        vocoder: called with params and level_range.
    """

    def __init__(self, vocoder: Callable[..., nn.Module]) -> None:
        self.make_vocoder = vocoder

    def on_fit_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        pl_module.carried = held_by(self.make_vocoder(pl_module.params, pl_module.level_range)) or pl_module.carried


def held_by(vocoder: nn.Module) -> Mapping[str, Any] | None:
    """What a checkpoint keeps of a vocoder, plain values; None: it has nothing to keep."""
    return getattr(vocoder, "held", None)


def carry(cfg: DictConfig) -> None:
    """Puts `vocoder` into a checkpoint of a generator, `ckpt_path`, in place.

    Raises:
        FileNotFoundError, ValueError: no such checkpoint, or a shared generator; or the vocoder has no weights, or is
            for other spectrograms.
    """
    if cfg.ckpt_path is not None and is_shared(cfg.ckpt_path):
        raise ValueError(f"ckpt_path is {cfg.ckpt_path}: a shared generator, and the file of a checkpoint is changed")
    trained = TrainedGenerator.load(cfg.ckpt_path, network=OmegaConf.select(cfg, "generator._target_"))
    held = held_by(instantiate(cfg.vocoder, _convert_="all")(trained.params, trained.level_range))
    if held is None:
        raise ValueError(
            "vocoder has no weights that a checkpoint could carry; give vocoder=learned vocoder.path=<file>"
        )
    checkpoint = load_tensors(cfg.ckpt_path)
    checkpoint[CHECKPOINT_KEY][VOCODER_KEY] = held
    with atomic_path(Path(cfg.ckpt_path)) as temporary:
        torch.save(checkpoint, temporary)
    log.info("%s carries its vocoder now", cfg.ckpt_path)
