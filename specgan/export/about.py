"""What an exported file says about itself."""

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from torch import nn

import specgan
from specgan.models.trained import TrainedGenerator
from specgan.spectrogram import SpectrogramParams
from specgan.vocoders.griffin_lim import GriffinLim
from specgan.vocoders.learned import Learned
from specgan.vocoders.vocos import Vocos

REPORT_NAME = "report.json"  # of train.py stage=test, in the folder of a run


def about(
    trained: TrainedGenerator,
    ckpt_path: str | Path,
    *,
    presets: Mapping[str, SpectrogramParams],
    vocoder: Mapping[str, Any],
) -> dict[str, Any]:
    """Everything that a program needs to use the file, and where it comes from: plain values by name.

    Args:
        trained: the generator.
        ckpt_path: it was read from.
        presets: the one with the settings of its spectrograms is named.
        vocoder: see `about_vocoder`.
    Raises:
        ValueError: the report of the run is damaged.
    """
    p = trained.params
    return {
        "class_names": list(trained.class_names),
        "sample_rate": p.sample_rate,
        "n_samples": p.n_samples,
        "channels": trained.channels,
        "spectrogram": asdict(p),
        "preset": next((name for name, params in presets.items() if params == p), None),
        "level_range": asdict(trained.level_range),
        "latent_dim": trained.network.latent_dim,
        "n_steps": trained.n_steps,
        "checkpoint": trained.checkpoint,
        "vocoder": dict(vocoder),
        "specgan_version": specgan.__version__,
        "figures": figures_of(trained, ckpt_path),
    }


def about_vocoder(vocoder: nn.Module) -> dict[str, Any]:
    """The name and the settings of a vocoder, and whether it is in the model."""
    name = _NAMES.get(type(vocoder), type(vocoder).__name__)
    if isinstance(vocoder, GriffinLim):
        settings = {key: getattr(vocoder, key) for key in ("n_iter", "momentum", "start")}
        n_inversion_iter = 0 if vocoder.inversion is None else vocoder.inversion.n_iter
        return {"name": name, "in_model": False, **settings, "n_inversion_iter": n_inversion_iter}
    return {"name": name, "in_model": True}


_NAMES: dict[type, str] = {GriffinLim: "griffin_lim", Learned: "learned", Vocos: "vocos"}


def figures_of(trained: TrainedGenerator, ckpt_path: str | Path) -> dict[str, Any] | None:
    """What the report in the folder of the run measured on this checkpoint; None: there is no such report.

    Returns:
        `split`, which was measured, and `rows`: each figure by "real", "vocoded" and "generated".
    Raises:
        ValueError: the report is damaged.
    """
    path = Path(ckpt_path).absolute().parents[1] / REPORT_NAME
    if not path.is_file():
        return None
    try:
        report = json.loads(path.read_text(encoding="utf-8"))
        measured = Path(report["checkpoint"]).name, report["n_steps"]
        figures = {name: report[name] for name in ("split", "rows")}
    except (ValueError, TypeError, KeyError) as err:
        raise ValueError(f"{path}: not a report of train.py stage=test ({err}); make it again, or move it") from err
    return figures if measured == (trained.checkpoint, trained.n_steps) else None
