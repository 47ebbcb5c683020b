"""The first lines of a training: how much there is to train on, and what the spectrogram settings leave out of it."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from specgan.audio import AudioError
from specgan.data.fingerprint import fingerprint
from specgan.data.manifest import read_manifest
from specgan.files import write_json
from specgan.spectrogram import SpectrogramParams
from specgan.survey.presets import Fit, fit, fit_all
from specgan.survey.recording import measure_band

BANDS_NAME = ".bands.json"  # in a dataset folder: up to where the sound of some recordings can be heard

_MOST_RECORDINGS = 100  # whose band is measured
_MOST_S = 5.0  # of each of them
_WORTH_SAYING = 0.05  # share of the clips
_EMPTY = 2  # times the frequency where the sound ends, from which a preset's band is called empty


@dataclass(frozen=True)
class FirstLook:
    """What can be said of the data before training.

    Args:
        summary: a sentence about what there is.
        warnings: one about each thing that the spectrogram settings leave out of much of it, and one about a band in
            which there is nothing.
    """

    summary: str
    warnings: Sequence[str]


def first_look(
    folder: str | Path,
    params: SpectrogramParams,
    presets: Mapping[str, SpectrogramParams],
    *,
    n_frames: np.ndarray,
    crop: str,
    local_dir: Path,
    may_read: bool,
) -> FirstLook:
    """Looks at a dataset folder.

    Where the sound of recordings ends is measured once, on a sample of them, and kept in `local_dir`.

    Args:
        folder: of the dataset, or its URL.
        params: the spectrogram settings of the training.
        presets: by name, to name one that keeps more.
        n_frames: (N,) whole length of each clip.
        crop: what the training takes of clips that are longer than an example: "random" or "start".
        local_dir: where what belongs to the dataset is kept on this machine.
        may_read: the recordings may be read, if they are there; False: only what was measured before is said.
    """
    table = read_manifest(folder, columns=("recording", "label", "source", "n_frames"))
    length_s = n_frames * params.hop_length / params.sample_rate
    audible_hz = _audible_hz(table, local_dir / BANDS_NAME, may_read)
    name = next((f"spectrogram={name}" for name, preset in presets.items() if preset == params), "the spectrogram")
    own, others = fit(name, params, length_s, audible_hz), fit_all(presets, length_s, audible_hz)
    warnings = [
        *_about_length(own, others, len(length_s), crop),
        *_about_band(own, others, len(audible_hz)),
        *_about_empty_band(own, others, audible_hz),
    ]
    return FirstLook(f"{folder}: {_summary(table, length_s, audible_hz)}", warnings)


def _summary(table: pd.DataFrame, length_s: np.ndarray, audible_hz: np.ndarray) -> str:
    counts = table["label"].value_counts()
    each = f"{counts.min()} to {counts.max()}" if counts.min() < counts.max() else f"{counts.min()}"
    text = (
        f"{len(table)} clips of {table['recording'].nunique()} recordings, {len(counts)} classes of {each}; "
        f"{length_s.min():.2f} to {length_s.max():.2f} s long, {np.median(length_s):.2f} s in the median"
    )
    if len(audible_hz):
        text += (
            f"; audible sound up to {np.median(audible_hz):.0f} Hz in the median, {audible_hz.max():.0f} Hz at most "
            f"({len(audible_hz)} recordings)"
        )
    return text


def _about_length(own: Fit, others: Sequence[Fit], n: int, crop: str) -> list[str]:
    if own.n_longer <= _WORTH_SAYING * n:
        return []
    longer = [each for each in others if each.example_s > own.example_s and each.params.upper_hz >= own.params.upper_hz]
    enough = [each for each in longer if each.n_longer <= _WORTH_SAYING * n]
    way_out = "a larger spectrogram.n_frames keeps more"
    if longer:
        best = enough[0] if enough else max(longer, key=lambda each: each.example_s)
        way_out = f"spectrogram={best.name} keeps {best.example_s:.2f} s, with {_times(best, own)}"
    taken = "their beginnings are taken (data.crop=random takes any piece of them)"
    if crop == "random":
        taken = "pieces of that length are taken from them, each time others (data.crop=start takes their beginnings)"
    return [f"{own.n_longer} of {n} clips are longer than the {own.example_s:.2f} s of {own.name}: {taken}; {way_out}"]


def _about_band(own: Fit, others: Sequence[Fit], n: int) -> list[str]:
    if own.n_higher <= _WORTH_SAYING * n:
        return []
    higher = [
        each for each in others if each.params.upper_hz > own.params.upper_hz and each.example_s >= 0.9 * own.example_s
    ]
    enough = [each for each in higher if each.n_higher <= _WORTH_SAYING * n]
    way_out = "a higher spectrogram.sample_rate keeps more"
    if higher:
        best = enough[0] if enough else max(higher, key=lambda each: each.params.upper_hz)
        way_out = f"spectrogram={best.name} reaches {best.params.upper_hz:.0f} Hz, with {_times(best, own)}"
    return [
        f"{own.n_higher} of {n} recordings have audible sound above {own.params.upper_hz:.0f} Hz, which {own.name} "
        f"leaves out; {way_out}"
    ]


def _about_empty_band(own: Fit, others: Sequence[Fit], audible_hz: np.ndarray) -> list[str]:
    if not len(audible_hz) or own.params.upper_hz < _EMPTY * audible_hz.max():
        return []
    lower = [
        each
        for each in others
        if audible_hz.max() <= each.params.upper_hz < own.params.upper_hz
        and each.values == own.values
        and each.example_s >= 0.9 * own.example_s
    ]
    if not lower:
        return []
    best = min(lower, key=lambda each: each.params.upper_hz)
    return [
        f"audible sound ends at {audible_hz.max():.0f} Hz, and {own.name} goes on to {own.params.upper_hz:.0f} Hz; "
        f"spectrogram={best.name} ends at {best.params.upper_hz:.0f} Hz, so more of its bands show the sound"
    ]


def _times(other: Fit, own: Fit) -> str:
    return f"{other.values / own.values:.1f} times the values"


def _audible_hz(table: pd.DataFrame, kept: Path, may_read: bool) -> np.ndarray:
    """Up to where a sample of the recordings can be heard, from the file `kept` if it is of this sample; else (0,)."""
    sample = _sample(table)
    digest = fingerprint(n_digits=16, recordings=sample.astype(str).values.tolist())
    before = _read(kept)
    if before.get("of") == digest:
        return np.array(before["audible_hz"], dtype=float)
    if not may_read:
        return np.empty(0)
    measured = []
    for source in sample["source"]:
        try:
            band = measure_band(source, most_s=_MOST_S)
        except (OSError, AudioError):  # moved away since
            continue
        measured += [band.audible_hz] if band is not None else []
    if measured:
        write_json(kept, {"of": digest, "audible_hz": measured})
    return np.array(measured)


def _sample(table: pd.DataFrame) -> pd.DataFrame:
    """At most _MOST_RECORDINGS rows, as many of each label where it has so many; by a hash, so that they stay."""
    recordings = table.drop_duplicates("recording")
    digests = [hashlib.sha256(name.encode(errors="surrogateescape")).hexdigest() for name in recordings["recording"]]
    recordings = recordings.assign(digest=digests).sort_values("digest")
    place = recordings.groupby("label").cumcount()
    return recordings.assign(place=place).sort_values(["place", "digest"]).head(_MOST_RECORDINGS)


def _read(path: Path) -> dict:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}
