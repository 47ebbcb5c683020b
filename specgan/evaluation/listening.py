"""A page on which people rate sounds without knowing where they come from, and its key.

The protocol is that of DCASE 2023 task 7 (Foley sound synthesis): points from 0 to 10 for the quality of each sound,
for its fit to the class, and for the diversity of the sounds of a class.
"""

import hashlib
import json
import logging
import random
from base64 import b64encode
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from string import ascii_uppercase

import torch
from torch import Tensor

from specgan.audio import encode_flac
from specgan.evaluation.clips import MeasuredClips
from specgan.evaluation.metrics import SILENT_PEAK
from specgan.evaluation.ratings import KEY_NAME, MOST, Key, Origin, read_key
from specgan.evaluation.report import Sampler
from specgan.files import safe_name, write_json
from specgan.pictures.pages import write_page

log = logging.getLogger(__name__)

PAGE_NAME = "listening.html"
LEVEL_DB = -23.0  # RMS re full scale of the loudest 0.4 s of each sound
LEAST_LEVEL_DB = -33.0  # the same, in a class with sounds whose peaks would exceed full scale
MOST_BYTES = 14_000_000  # of sound on a page, where it takes a third more

_TEMPLATES = Path(__file__).parent / "templates"
_WINDOW_S = 0.4
_RATING_S = 7.0  # that it takes to rate a sound or a set, besides hearing it

Sounds = Mapping[str, Mapping[str, Tensor]]  # by class and row: waveforms (N, T), or (N, channels, T)


def choose_sounds(sample: Sampler, clips: MeasuredClips, *, split: str, n_each: int, seed: int) -> Sounds:
    """Chooses the sounds of a page: of each class some real clips, the same through the vocoder, and generated ones.

    Args:
        sample: maps class indices and seeds to spectrograms (B, 1, n_mels, n_frames).
        clips: of the data set.
        split: of the real clips, "test" or "val".
        n_each: sounds of each class and row, >= 1; fewer of a class that has fewer real clips.
        seed: of the choice of real clips, and of the first generated sound of each class.
    Returns:
        Waveforms by class and by row: "real" (if the data set keeps sounds), "vocoded" and "generated".
    """
    real_clips = clips.data.test if split == "test" else clips.data.val
    places = clips.places(real_clips)
    labels = clips.labels(real_clips, places)
    generator = torch.Generator().manual_seed(seed)
    sounds: dict[str, dict[str, Tensor]] = {}
    for label, name in enumerate(clips.data.class_names):
        of_class = (labels == label).nonzero()[:, 0]
        chosen = of_class[torch.randperm(len(of_class), generator=generator)][:n_each].tolist()
        sounds[name] = {}
        if chosen:
            here = [places[index] for index in chosen]
            sounds[name] |= {"real": clips.waveforms(real_clips, here)} if clips.has_sounds else {}
            sounds[name] |= {"vocoded": clips.vocoded(real_clips, here)}
        seeds = [seed + i for i in range(len(chosen) or n_each)]
        sounds[name]["generated"] = clips.vocode(sample([label] * len(seeds), seeds), seeds)
    return sounds


def write_listening(folder: Path, sounds: Sounds, *, checkpoint: str, sample_rate: int, seed: int) -> None:
    """Writes `listening.html`, which holds its sounds and needs nothing else, and `listening_key.json`.

    Sounds of a class come in random order, with numbers that say nothing of their rows, and at one level. The same
    sounds give the same page. The key of another page in the folder is kept, under a name with that page's own.

    Args:
        folder: of both; it is created.
        sounds: see `choose_sounds`. Of a class as many are taken of each row as the shortest of them has.
        checkpoint: of the generated ones, for the key.
        sample_rate: of the sounds, Hz.
        seed: of the order.
    Raises:
        ValueError: a sound is empty or holds NaN or infinite samples; nothing is written.
    """
    encoded = {name: _encoded(at_one_level(rows, sample_rate), sample_rate) for name, rows in sounds.items()}
    page, key = _dealt(_fitting(encoded), checkpoint=checkpoint, seed=seed)
    lengths_s = [next(iter(rows.values())).shape[-1] / sample_rate for rows in sounds.values()]
    script = (_TEMPLATES / "listening.js").read_text(encoding="utf-8")
    _keep_other_key(folder, key)
    write_json(folder / KEY_NAME, asdict(key), indent=2)
    write_page(
        folder / PAGE_NAME,
        _TEMPLATES / "listening.html",
        content=asdict(page),
        script=script,
        script_hash=b64encode(hashlib.sha256(script.encode()).digest()).decode(),
        n_sounds=len(page.audio),
        minutes=max(1, round(sum(map(_duration_s, page.classes, lengths_s)) / 60)),
        most=MOST,
    )


def _keep_other_key(folder: Path, key: Key) -> None:
    """Renames a key without which the ratings of an earlier page could not be read any more."""
    path = folder / KEY_NAME
    if path.is_file() and (page := read_key(path).page) != key.page:
        kept = path.with_stem(f"{path.stem}-{safe_name(page)}")
        path.replace(kept)
        log.info("%s is new; the key of the page before, for ratings of that, is now %s", folder / PAGE_NAME, kept)


# --- one level


def at_one_level(rows: Mapping[str, Tensor], sample_rate: int) -> dict[str, Tensor]:
    """Scales the sounds of a class, so that loudness does not tell rows apart.

    Each has an RMS of LEVEL_DB in its loudest 0.4 s. If peaks would exceed full scale, all have less, but not less than
    LEAST_LEVEL_DB; below that, those with the highest peaks are quieter. What cannot be heard stays as it is.

    Args:
        rows: waveforms (N, T) or (N, channels, T), by row.
        sample_rate: Hz.
    """
    sounds = [sound for waveforms in rows.values() for sound in waveforms if sound.abs().max() >= SILENT_PEAK]
    most = min((loudest_rms(sound, sample_rate) / float(sound.abs().max()) for sound in sounds), default=1.0)
    level = max(_amplitude(LEAST_LEVEL_DB), min(_amplitude(LEVEL_DB), most))

    def scaled(sound: Tensor) -> Tensor:
        peak = float(sound.abs().max())
        return sound * min(level / loudest_rms(sound, sample_rate), 1 / peak) if peak >= SILENT_PEAK else sound

    return {row: torch.stack([scaled(sound) for sound in waveforms]) for row, waveforms in rows.items()}


def loudest_rms(sound: Tensor, sample_rate: int) -> float:
    """The RMS of the loudest 0.4 s of a sound (T,) or (channels, T), or of all of it, if it is shorter."""
    power = torch.atleast_2d(sound).double().square().mean(dim=0)
    length = min(len(power), round(_WINDOW_S * sample_rate))
    sums = torch.nn.functional.pad(power.cumsum(0), (1, 0))
    return float((sums[length:] - sums[:-length]).max() / length) ** 0.5


def _amplitude(level_db: float) -> float:
    return 10 ** (level_db / 20)


# --- what is on the page, and in which order

Encoded = dict[str, list[bytes]]  # FLACs by row


def _encoded(rows: Mapping[str, Tensor], sample_rate: int) -> Encoded:
    n_each = min(map(len, rows.values()))  # by the number of its sounds a set would be known
    return {row: [encode_flac(sound, sample_rate) for sound in waveforms[:n_each]] for row, waveforms in rows.items()}


def _fitting(sounds: Mapping[str, Encoded]) -> Mapping[str, Encoded]:
    """As many sounds of each class and row as fit on a page."""
    n_bytes = sum(len(flac) for rows in sounds.values() for flacs in rows.values() for flac in flacs)
    if n_bytes <= MOST_BYTES:
        return sounds
    n_most = max(len(flacs) for rows in sounds.values() for flacs in rows.values())
    n_each = max(1, n_most * MOST_BYTES // n_bytes)
    if n_each < n_most:
        log.warning(
            "%s has %d sounds of each class and row instead of %d: with more it would be larger than 20 MB",
            *(PAGE_NAME, n_each, n_most),
        )
    return {name: {row: flacs[:n_each] for row, flacs in rows.items()} for name, rows in sounds.items()}


@dataclass(frozen=True)
class _Set:
    """The sounds of a row, to be heard one after another."""

    number: str
    letter: str
    sounds: list[str]


@dataclass(frozen=True)
class _Class:
    """What there is to rate of a class, in its order: sounds by number, then sets."""

    name: str
    sounds: list[str]
    sets: list[_Set]


@dataclass(frozen=True)
class _Page:
    """What the script of the page gets; nothing in it says which row a sound is of."""

    page: str
    most: int
    classes: list[_Class]
    audio: dict[str, str]


def _dealt(sounds: Mapping[str, Encoded], *, checkpoint: str, seed: int) -> tuple[_Page, Key]:
    digests = [(name, row, list(map(_digest, flacs))) for name, rows in sounds.items() for row, flacs in rows.items()]
    secret = _digest(json.dumps([seed, digests]).encode())
    # Another order for each page: who rates several must not learn where the generated sounds are.
    order = random.Random(secret)
    classes: list[_Class] = []
    audio: dict[str, str] = {}
    origins: dict[str, Origin] = {}
    of_sets: dict[str, Origin] = {}
    for name, rows in sounds.items():
        shuffled = [(row, flac) for row, flacs in rows.items() for flac in flacs]
        order.shuffle(shuffled)
        numbers = [str(len(audio) + i) for i in range(1, len(shuffled) + 1)]
        audio |= {number: b64encode(flac).decode() for number, (_, flac) in zip(numbers, shuffled, strict=True)}
        of_class = {number: Origin(name, row) for number, (row, _) in zip(numbers, shuffled, strict=True)}
        sets = []
        for letter, row in zip(ascii_uppercase, order.sample(list(rows), len(rows)), strict=False):
            own = [number for number in numbers if of_class[number].row == row]
            if len(own) > 1:  # else there is no diversity to hear
                sets.append(_Set(f"{len(classes) + 1}{letter}", letter, own))
                of_sets[sets[-1].number] = Origin(name, row)
        origins |= of_class
        classes.append(_Class(name, numbers, sets))
    page = _digest(secret.encode())[:12]
    all_rows = list(dict.fromkeys(row for rows in sounds.values() for row in rows))
    return _Page(page, MOST, classes, audio), Key(page, checkpoint, all_rows, origins, of_sets)


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _duration_s(of_class: _Class, length_s: float) -> float:
    """About how long it takes to rate a class: each sound is heard one and a half times, and again in its set."""
    n_sounds, n_sets = len(of_class.sounds), len(of_class.sets)
    return n_sounds * (1.5 * length_s + _RATING_S) + n_sets * _RATING_S + (n_sounds * length_s if n_sets else 0)
