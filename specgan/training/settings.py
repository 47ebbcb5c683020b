"""What a run keeps so that stage=test measures with the same settings: plain values, from which nothing is executed.

A run folder may come from anyone. So classes are never taken from it: `conf/` or the command line brings them, and the
folder says only which files of `conf/` were chosen and what their values were.
"""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hydra import compose
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import DictConfig, OmegaConf, open_dict

from specgan.audio import note_results
from specgan.data.manifest import is_url
from specgan.files import write_json

SETTINGS_NAME = "settings.json"
_SECTIONS = ("spectrogram", "data", "vocoder", "evaluation")
_CHOICES = (*_SECTIONS, "judge@evaluation.judge")


def write_settings(cfg: DictConfig, run_dir: Path) -> None:
    """Writes `<run_dir>/settings.json`, with the settings of data and measuring that a training was started with.

    Also the checkpoint whose weights it started from, if it did: for the record, stage=test needs it not.
    """
    runtime = HydraConfig.get().runtime
    note_results(run_dir, ["wandb"])  # W&B copies sounds there
    settings = _plain_settings(cfg, runtime.choices, cwd=runtime.cwd)
    if cfg.init_from is not None:
        settings["init_from"] = str(cfg.init_from if is_url(str(cfg.init_from)) else Path(runtime.cwd, cfg.init_from))
    write_json(run_dir / SETTINGS_NAME, settings, indent=2)


def _plain_settings(cfg: DictConfig, choices: Mapping[str, Any], *, cwd: str) -> dict[str, Any]:
    return {
        "choices": {group: choices[group] for group in _CHOICES if group in choices},
        **{name: _plain(cfg[name], cwd=cwd) for name in _SECTIONS},
    }


def _plain(node: DictConfig, *, cwd: str) -> dict[str, Any]:
    """The values of a node, without our classes and without other sections that it refers to."""
    values: dict[str, Any] = {}
    for name in map(str, node):
        value = node[name]
        if name.startswith("_") and (name != "_target_" or str(value).startswith("specgan.")):
            continue
        if isinstance(value, DictConfig):
            if not OmegaConf.is_interpolation(node, name):
                values[name] = _plain(value, cwd=cwd)
        elif (name.endswith("_dir") or name == "path") and value is not None and not is_url(str(value)):
            values[name] = str(Path(cwd, str(value)))
        else:
            values[name] = OmegaConf.to_container(value, resolve=True) if OmegaConf.is_config(value) else value
    return values


def composed_for(run_dir: Path) -> DictConfig | None:
    """Returns the configuration of this command with the settings that a run kept; None: it kept none.

    What the command line says takes precedence over the run.

    Raises:
        ValueError: the run kept something else than plain values, or used a class that is not specgan's and that the
            command line does not name.
    """
    path = run_dir / SETTINGS_NAME
    kept = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else _of_earlier_version(run_dir / ".hydra")
    if kept is None:
        return None
    given = list(HydraConfig.get().overrides.task)
    choices = kept["choices"]
    for group, choice in choices.items():
        if group not in _CHOICES or not re.fullmatch(r"\w+", str(choice)):  # not a path to somebody's file
            raise ValueError(f"{run_dir}: the chosen {group!r} is {choice!r}, which is no file of conf/")
    cfg = compose("train", overrides=[*(f"{group}={choice}" for group, choice in choices.items()), *given])
    names = {override.key_or_group for override in OverridesParser.create().parse_overrides(given)}
    for section in _SECTIONS:
        # the command line may choose another vocoder, which has other settings
        if section not in names or HydraConfig.get().runtime.choices[section] == choices.get(section):
            _fill(cfg[section], kept[section], place=section, given=names, run_dir=run_dir)
    return cfg


def _of_earlier_version(hydra_dir: Path) -> dict[str, Any] | None:
    """The same of a run from before settings.json, by Hydra's record of it."""
    files = hydra_dir / "config.yaml", hydra_dir / "hydra.yaml"
    if not all(file.is_file() for file in files):
        return None
    record, about = map(OmegaConf.load, files)
    runtime = about.hydra.runtime
    needed = OmegaConf.masked_copy(record, [*_SECTIONS, "paths", "seed"])
    needed.paths.pop("run_dir", None)
    if re.search(r"\$\{[^}]*:", OmegaConf.to_yaml(needed)):  # a resolver could read the environment
        raise ValueError(f"{files[0]}: has settings that are computed (${{...:...}}); give those on the command line")
    return _plain_settings(needed, runtime.choices, cwd=runtime.cwd)


def _fill(node: DictConfig, values: Mapping[str, Any], *, place: str, given: set[str], run_dir: Path) -> None:
    """Sets the values of a run in a section, except those that the command line gives."""
    for name, value in values.items():
        path = f"{place}.{name}"
        if path in given:
            continue
        if name == "_target_":
            if value != node.get(name):
                raise ValueError(
                    f"{run_dir}: was made with {path}={value}, which is none of specgan's classes and is not run for a "
                    f"checkpoint's sake; if it is yours, give it on the command line: {path}={value}"
                )
        elif isinstance(value, Mapping) and isinstance(node.get(name), DictConfig):
            _fill(node[name], value, place=path, given=given, run_dir=run_dir)
        elif not any(each.startswith(f"{path}.") for each in given):
            _require_plain(value, path, run_dir)
            with open_dict(node):
                node[name] = value


def _require_plain(value: Any, path: str, run_dir: Path) -> None:
    text = json.dumps(value)
    if '"_target_"' in text or "${" in text:
        raise ValueError(f"{run_dir}: its {path} would run or read something; give {path} on the command line instead")
