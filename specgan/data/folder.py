"""The dataset folder: the only reader and writer of its params.yaml, with the settings and the statistics."""

import logging
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

import specgan
from specgan.data.manifest import MANIFEST_NAME, read_file
from specgan.files import write_text
from specgan.spectrogram import LevelRange, SpectrogramParams

log = logging.getLogger(__name__)

PARAMS_NAME = "params.yaml"


def read_info(folder: str | Path) -> dict[str, Any]:
    """Reads `<folder>/params.yaml`: spectrogram, peak, sound_rate (if it keeps sounds), level_range, class_names.

    Args:
        folder: a dataset folder, or the URL of one.
    Raises:
        FileNotFoundError: it is no dataset folder.
        ValueError: it is not finished.
    """
    path = f"{str(folder).rstrip('/')}/{PARAMS_NAME}"
    try:
        info = yaml.safe_load(read_file(folder, PARAMS_NAME))
    except (FileNotFoundError, IsADirectoryError) as err:
        message = f"{path}: no such file, so {folder} is no dataset folder; make one with preprocess.py"
        raise FileNotFoundError(message) from err
    if "level_range" not in info:
        raise ValueError(f"{path}: the folder was not finished; run the same preprocess.py command again")
    return info


def find_info(folder: Path) -> dict[str, Any] | None:
    """As `read_info`, for any folder on this machine; None: it is no dataset folder.

    Raises:
        ValueError: the dataset is not finished, or its params.yaml is not YAML.
    """
    path = folder / PARAMS_NAME
    try:
        info = yaml.safe_load(path.read_text(encoding="utf-8")) if path.is_file() else None
    except (yaml.YAMLError, UnicodeDecodeError) as err:
        message = f"{path}: not YAML ({str(err)[:200]}); make the dataset again, or move the file away"
        raise ValueError(message) from err
    if not _is_ours(info):
        return None
    if "level_range" not in info or not (folder / MANIFEST_NAME).exists():
        raise ValueError(f"{folder}: the dataset is not finished; run the preprocess.py command that makes it again")
    return info


def is_before_sound_rates(folder: str | Path) -> bool:
    """Whether a version made the folder that kept all sounds at the spectrograms' rate; see `write_info`."""
    path = Path(folder, PARAMS_NAME)
    info = yaml.safe_load(path.read_bytes()) if path.is_file() else None
    return _is_ours(info) and "level_range" in info and "sound_rate" not in info


def is_dataset_folder(folder: Path) -> bool:
    """Whether a folder is a dataset, finished or not: its params.yaml is this program's."""
    path = folder / PARAMS_NAME
    try:
        return path.is_file() and _is_ours(yaml.safe_load(path.read_bytes()))
    except yaml.YAMLError:
        return False


def _is_ours(info: object) -> bool:
    return isinstance(info, dict) and "spectrogram" in info


def write_settings(settings: Mapping[str, object], folder: Path) -> None:
    """Writes a params.yaml without statistics: the dataset is not finished."""
    write_text(folder / PARAMS_NAME, yaml.safe_dump(dict(settings), sort_keys=False))


def write_info(settings: Mapping[str, Any], clips: pd.DataFrame, folder: Path, *, silence: float) -> None:
    """Writes the params.yaml of a finished dataset, with the statistics of its training split.

    Logs a warning for each class of which no clip can be heard.

    Args:
        settings: that the spectrograms were made with; statistics among them are replaced.
        clips: of each spectrogram label, split, and peak_level, its highest level.
        folder: of the dataset.
        silence: level of digital silence.
    Raises:
        ValueError: all training clips are silent.
    """
    peaks = clips.loc[clips["split"] == "train", "peak_level"]
    high = float(peaks.mean() if settings["spectrogram"]["level"] == "log1p" else peaks.max())
    info = {
        **settings,
        "level_range": asdict(LevelRange(low=silence, high=high)),
        "class_names": sorted(clips["label"].unique().tolist()),
        "specgan_version": specgan.__version__,
    }
    loudest = clips.groupby("label")["peak_level"].max()
    for name in loudest.index[loudest <= silence]:
        log.warning("%s: every clip of class %r is silent; check its recordings, or leave the class out", folder, name)
    write_settings(info, folder)


def require_same_params(params: SpectrogramParams, info: Mapping[str, Any], folder: str | Path) -> None:
    """Raises ValueError, with both values, when a dataset folder was made with other settings."""
    differing = [
        f"{name}: the folder has {value!r}, the settings {getattr(params, name)!r}"
        for name, value in info["spectrogram"].items()
        if name != "n_frames" and getattr(params, name) != value  # shorter examples can be cut from longer slices
    ]
    if differing:
        raise ValueError(f"{folder}: made with other spectrogram settings; {'; '.join(differing)}")
