"""A generator without its run, as a folder on this machine or a repository of the Hugging Face hub.

`specgan.json` holds what its checkpoint says about it, `generator.safetensors` its averaged weights, and
`vocoder.safetensors` those of the vocoder that it carries, if it carries one. Nothing in them can run.
"""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

import specgan
from specgan.files import write_bytes, write_text
from specgan.hub import fetch_from_hub

SETTINGS_NAME, WEIGHTS_NAME, VOCODER_NAME = "specgan.json", "generator.safetensors", "vocoder.safetensors"
VOCODER_KEY = "vocoder"  # in the settings: a vocoder that a checkpoint carries, plain values

_PLACE = re.compile(r"hf://(?P<repo>[^/@]+/[^/@]+)(?:@(?P<revision>refs/(?:pr|convert)/[^/@]+|[^/@]+))?/?")
_FILE = re.compile(r"hf://[^/]+/[^/]+/.+")  # which fsspec reads
_MOST_BYTES = 2**24  # of the settings


def write_shared(folder: str | Path, settings: Mapping[str, Any], weights: Mapping[str, Tensor]) -> list[str]:
    """Writes a generator into a folder and returns the names of the files.

    Args:
        folder: is created.
        settings: of `TrainedGenerator.to_dict`.
        weights: the state of its network.
    Raises:
        ValueError: a setting is no plain value, which only a network of one's own can have.
    """
    contents = {WEIGHTS_NAME: _packed(weights)}
    settings = {"specgan": specgan.__version__, **settings}
    if VOCODER_KEY in settings:
        about = {name: value for name, value in settings[VOCODER_KEY].items() if name != "weights"}
        # The file by itself is one for vocoder.path, too.
        contents[VOCODER_NAME] = _packed(settings[VOCODER_KEY]["weights"], {"specgan": json.dumps(about)})
        settings[VOCODER_KEY] = about
    try:
        text = json.dumps(settings, indent=2, allow_nan=False) + "\n"
    except (TypeError, ValueError) as err:
        raise ValueError(f"the generator has a setting that JSON cannot hold ({err}); give it plain values") from err
    write_text(Path(folder, SETTINGS_NAME), text)
    for name, content in contents.items():
        write_bytes(Path(folder, name), content)
    return [SETTINGS_NAME, *contents]


def read_shared(folder: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Reads what `write_shared` wrote: settings, with those weights of the vocoder that are in them, and weights.

    Raises:
        FileNotFoundError: a file is missing.
        ValueError: a file is damaged, or none of these.
    """
    settings, weights = _read_settings(folder / SETTINGS_NAME), _unpacked(folder / WEIGHTS_NAME)
    if VOCODER_KEY in settings:
        settings[VOCODER_KEY] = {**settings[VOCODER_KEY], "weights": _unpacked(folder / VOCODER_NAME)}
    return settings, weights


def is_shared(ckpt_path: str | Path) -> bool:
    """Whether it names a shared generator, not a checkpoint file: hf://user/name, or a folder with specgan.json.

    Raises:
        ValueError: it starts with hf:// and names neither a repository nor a file in one.
    """
    return _repository(ckpt_path) is not None or Path(ckpt_path, SETTINGS_NAME).is_file()


def shared_folder(ckpt_path: str | Path) -> Path | None:
    """The folder of a shared generator, which is downloaded if it is not in the hub's cache; None: it names none.

    Raises:
        ImportError: huggingface_hub is not installed.
        MissingWeightsError: it can neither be found nor fetched.
        ValueError: as `is_shared`.
    """
    place = _repository(ckpt_path)
    if place is None:
        return Path(ckpt_path) if is_shared(ckpt_path) else None
    repo, revision = place
    at = f" --revision {revision}" if revision else ""
    how = (
        f"It is {SETTINGS_NAME}, {WEIGHTS_NAME} and, if it carries a vocoder, {VOCODER_NAME}. Where there is a "
        f"network: hf download {repo}{at} --local-dir generator; and here: ckpt_path=generator"
    )
    settings = fetch_from_hub(repo, SETTINGS_NAME, revision=revision, how=how)
    commit = settings.parent.name  # of all files, whatever is pushed meanwhile
    fetch_from_hub(repo, WEIGHTS_NAME, revision=commit, how=how)
    if VOCODER_KEY in _read_settings(settings):
        fetch_from_hub(repo, VOCODER_NAME, revision=commit, how=how)
    return settings.parent


def file_of(ckpt_path: str | Path) -> Path:
    """The file that holds the generator's weights on this machine: the checkpoint, or one of a shared generator.

    Raises:
        ImportError, MissingWeightsError, ValueError: as `shared_folder`.
    """
    folder = shared_folder(ckpt_path)
    return Path(ckpt_path) if folder is None else folder / WEIGHTS_NAME


def name_of(ckpt_path: str | Path) -> str:
    """What sounds say that they were drawn from: the name of the file or the folder, or hf://user/name."""
    return str(ckpt_path) if _repository(ckpt_path) else Path(ckpt_path).absolute().name


def _repository(ckpt_path: str | Path) -> tuple[str, str | None] | None:
    text = str(ckpt_path)
    if not text.startswith("hf://") or (_FILE.fullmatch(text) and not _PLACE.fullmatch(text)):
        return None
    found = _PLACE.fullmatch(text)
    if found is None:
        raise ValueError(f"ckpt_path is {text}: name a repository of the hub, as hf://user/name or hf://user/name@v1")
    return found["repo"], found["revision"]


def _read_settings(path: Path) -> dict[str, Any]:
    try:
        if path.stat().st_size > _MOST_BYTES:
            raise ValueError(f"{path.stat().st_size} bytes")
        settings = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(settings, dict) or not isinstance(settings.get(VOCODER_KEY, {}), dict):
            raise ValueError("no settings")
    except (ValueError, RecursionError) as err:
        raise ValueError(f"{path}: not the settings of a generator that specgan wrote ({str(err)[:200]})") from err
    return settings


def _packed(weights: Mapping[str, Tensor], about: dict[str, str] | None = None) -> bytes:
    from safetensors.torch import save

    # cloned: the format has no weights that share memory
    return save({name: value.detach().cpu().clone().contiguous() for name, value in weights.items()}, about)


def _unpacked(path: Path) -> dict[str, Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load

    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file; it belongs to the {SETTINGS_NAME} beside it")
    try:
        return load(path.read_bytes())
    except SafetensorError as err:
        raise ValueError(f"{path}: damaged, or no file of safetensors ({str(err)[:200]})") from err
