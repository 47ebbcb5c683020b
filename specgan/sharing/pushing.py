"""A checkpoint -> a repository of the Hugging Face hub, from which anybody can draw sounds."""

import logging
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

from torch import nn

from specgan.audio import WavSettings
from specgan.files import write_text
from specgan.generation import class_folders, make_vocoder, sound_info, vocode
from specgan.hub import require_hub
from specgan.models.shared import is_shared
from specgan.models.trained import TrainedGenerator
from specgan.sharing.card import CARD_NAME, CardSound, write_card
from specgan.sharing.licences import Licence
from specgan.sharing.measured import REPORT_NAME, Measured, read_measured
from specgan.sharing.uploading import require_login, upload
from specgan.spectrogram import SpectrogramParams
from specgan.survey.presets import read_presets

log = logging.getLogger(__name__)

SOUNDS_FOLDER = "sounds"
_NAME = r"[A-Za-z0-9](?:[\w.-]*\w)?"
_REPO = re.compile(rf"{_NAME}/{_NAME}", re.ASCII)


def push(
    ckpt_path: str | Path,
    repo: str,
    *,
    data_license: str | None,
    data_license_name: str | None = None,
    vocoder: Callable[..., nn.Module],
    carried_vocoder: bool = True,
    network: str | None = None,
    n_sounds: int = 2,
    seed: int = 0,
    report_path: str | Path | None = None,
    private: bool | None = None,
    dry_run: bool = False,
) -> None:
    """Uploads a generator, a card about it, and some of its sounds, in one commit.

    The repository is created if there is none. Of one that exists, files of these names are replaced and others stay.
    Nothing of the training goes along: no discriminator, no optimizer, no path.

    Args:
        ckpt_path: a checkpoint of train.py.
        repo: "user/name" on the hub.
        data_license: of the recordings that it was trained on, an identifier of the hub; required.
        data_license_name: of a licence without identifier, with `data_license` "other".
        vocoder: as of `generation.generate`, for the sounds.
        carried_vocoder: use the vocoder that the checkpoint carries instead, if it carries one.
        network: class of the generator if it is your own, see `TrainedGenerator.load`.
        n_sounds: of each class; 0: none.
        seed: of the first sound of each class.
        report_path: of stage=test; None: report.json of the checkpoint's run, if it is there.
        private: see `uploading.upload`.
        dry_run: print what would be uploaded, and contact nobody.
    Raises:
        FileNotFoundError, ValueError: no such checkpoint or report, a bad `repo`, or no licence.
        ImportError: huggingface_hub is not installed.
        PushError: the hub cannot be reached or refuses; nothing was uploaded.
    """
    if not _REPO.fullmatch(repo) or "--" in repo or ".." in repo or repo.endswith(".git") or len(repo) > 96:
        raise ValueError(f"repo is {repo}: name a repository on the hub as user/name, of letters, digits, -, _ and .")
    if not isinstance(n_sounds, int) or n_sounds < 0:
        raise ValueError(f"n_sounds is {n_sounds}; a whole number, at least 0")
    licence = Licence(data_license, data_license_name)
    require_hub("push")
    if not dry_run:
        require_login()
    trained = TrainedGenerator.load(ckpt_path, network=network)
    measured = _report_of(ckpt_path, report_path, trained)
    # What draws from the repository says that sounds are from there, so these are the same files.
    trained = replace(trained, checkpoint=f"hf://{repo}")
    to_sound = make_vocoder(trained, vocoder, carried=carried_vocoder)
    with TemporaryDirectory(prefix="specgan-") as temporary:
        folder = Path(temporary)
        sounds = _draw(trained, to_sound, range(seed, seed + n_sounds), folder)
        card = write_card(
            trained,
            repo=repo,
            licence=licence,
            measured=measured,
            presets=_presets(),
            sounds=sounds,
            host=_host(),
        )
        write_text(folder / CARD_NAME, card)
        names = [CARD_NAME, *trained.save(folder), *(sound.path for sound in sounds)]
        listing = "\n".join(f"{(folder / name).stat().st_size:>12,}  {name}" for name in names)
        if dry_run:
            print(f"{repo} would get these files (bytes, name); nobody was contacted:\n\n{listing}\n")
            print(f"{CARD_NAME}:\n\n{card}")
            return
        log.info("%s gets these files (bytes, name):\n%s", repo, listing)
        address = upload(folder, names, repo=repo, private=private)
    log.info("%s: uploaded; draw from it: ckpt_path=hf://%s", address, repo)


def _report_of(ckpt_path: str | Path, report_path: str | Path | None, trained: TrainedGenerator) -> Measured | None:
    if report_path is not None and not Path(report_path).is_file():
        raise FileNotFoundError(f"report_path is {report_path}: no such file; train.py stage=test writes {REPORT_NAME}")
    if report_path is None and is_shared(ckpt_path):
        log.warning("%s has no report, so the card says that it was not measured", ckpt_path)
        return None
    path = Path(ckpt_path).absolute().parent.parent / REPORT_NAME if report_path is None else Path(report_path)
    return read_measured(path, trained)


def _draw(trained: TrainedGenerator, vocoder: nn.Module, seeds: Sequence[int], folder: Path) -> list[CardSound]:
    """Writes the files that generate.py draws of each class, with its names."""
    sounds, folders = [], class_folders(trained.class_names)
    for label in trained.class_names:
        waveforms = vocode(trained.sample([label] * len(seeds), seeds), vocoder, seeds=seeds) if seeds else ()
        for number, waveform in zip(seeds, waveforms, strict=True):
            path = f"{SOUNDS_FOLDER}/{folders[label]}/{folders[label]}_{number}.wav"
            info = sound_info(trained, label=label, origin=f"{label}, seed {number}")
            WavSettings().write(folder / path, waveform, trained.params.sample_rate, info=info)
            sounds.append(CardSound(label, number, path))
    return sounds


def _host() -> str:
    from huggingface_hub import constants

    return constants.ENDPOINT.rstrip("/")


def _presets() -> Mapping[str, SpectrogramParams]:
    """Those of the configuration; none where there is no configuration, when this is called from Python."""
    from hydra.core.global_hydra import GlobalHydra

    return read_presets() if GlobalHydra.instance().is_initialized() else {}
