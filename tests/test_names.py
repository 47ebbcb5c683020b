"""Odd names: each task, table and page takes all of them at once, and loses, mixes up and misplaces none.

The rules of names are tested with `specgan.files`.
"""

import csv
import json
import os
from dataclasses import replace
from functools import partial
from pathlib import Path
from urllib.parse import unquote

import cv2
import numpy as np
import pandas as pd
import pytest
import soundfile
import torch
from folders import contents
from names import ALIKE_FILES, ODD_NAMES
from pages import Page

from specgan.audio import load_audio
from specgan.batch.failures import Failure, write_failures
from specgan.batch.journal import Journal
from specgan.captions.caption import Caption
from specgan.codec.png import from_png
from specgan.data.dataset import SpectrogramDataset
from specgan.data.manifest import assign_splits, read_manifest, write_manifest
from specgan.pictures.gallery import Entry, write_gallery
from specgan.spectrogram import Spectrogram, SpectrogramParams
from specgan.tasks.caption import caption_songs
from specgan.tasks.compare import compare_pictures
from specgan.tasks.decode import decode_pictures
from specgan.tasks.encode import encode_songs
from specgan.tasks.spectrograms import make_spectrograms
from specgan.tasks.splits import make_splits

RATE, SIZE = 8000, 64  # slices of 2048 samples
PARAMS = SpectrogramParams(sample_rate=RATE, n_fft=256, win_length=256, hop_length=128, n_mels=16, n_frames=None)


def noise(seed: int) -> np.ndarray:
    """Another sound for each seed, which also has a length of its own."""
    return np.random.default_rng(seed).uniform(-0.5, 0.5, 300 + seed)


@pytest.fixture
def sounds(tmp_path) -> dict[Path, str]:
    """Sounds by their path in `tmp_path / "in"`, with the label that their folder gives them."""
    labels = {}
    for seed, name in enumerate([*(f"{name}/{name}.wav" for name in ODD_NAMES), *ALIKE_FILES]):
        path = tmp_path / "in" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.exists():  # else the file system takes two names for one
            with path.open("wb") as file:
                soundfile.write(file, noise(seed), RATE, format=path.suffix[1:], subtype="PCM_16")
            labels[path] = path.parent.name
    return labels


def assert_one_file_each(output: Path, paths: list[str], n_files: int) -> None:
    """The files lie in the output, visible to everyone, also where case and accents do not tell names apart."""
    assert len(paths) == n_files == len(set(pd.Series(paths).str.normalize("NFC").str.casefold()))
    for path in paths:
        assert (output / path).parent.resolve().is_relative_to(output.resolve())
        assert not any(part.startswith((".", "-")) or not part.isprintable() for part in Path(path).parts)
        assert all(len(os.fsencode(part)) <= 255 for part in Path(path).parts)


def test_spectrograms(sounds, tmp_path):
    specs = tmp_path / "specs"
    assert make_spectrograms(tmp_path / "in", specs, params=PARAMS, splits=(100, 0, 0)).failures == []
    assert make_spectrograms(tmp_path / "in", specs, params=PARAMS, splits=(100, 0, 0)).n_skipped == len(sounds)
    table = read_manifest(specs)
    assert_one_file_each(specs, table["path"].tolist(), len(sounds))
    assert table["recording"].nunique() == len(sounds)
    assert dict(zip(map(Path, table["source"]), table["label"], strict=True)) == sounds
    level_of = Spectrogram(PARAMS)
    for row in table.itertuples():
        expected = level_of(load_audio(row.source, sample_rate=RATE)[0])[0]
        torch.testing.assert_close(torch.load(specs / row.path, weights_only=True), expected)
    dataset = SpectrogramDataset(specs, "train", replace(PARAMS, n_frames=16))
    assert dataset.class_names == sorted(set(sounds.values()))
    assert sorted(dataset.class_names[label] for _, label in dataset) == sorted(sounds.values())


@pytest.mark.parametrize("mode", ["copy", "symlink", "hardlink", "manifest"])
def test_splits(sounds, tmp_path, mode):
    for seed in (0, 1):  # a second time over the first
        for ext in ("wav", "flac"):
            make_splits(tmp_path / "in", tmp_path / ext, ext=ext, splits=(100, 0, 0), mode=mode, seed=seed)
    found = {}
    for out in (tmp_path / "wav", tmp_path / "flac"):
        table = read_manifest(out)
        if mode == "manifest":
            assert set(contents(out)) == {"manifest.csv"}
        else:
            assert_one_file_each(out, table["path"].tolist(), len(table))
            assert set(contents(out)) == {*table["path"], "manifest.csv"}
        for row in table.itertuples():
            assert (out / row.path).read_bytes() == Path(row.source).read_bytes()
            assert Path(row.path).suffix == Path(row.source).suffix
        found |= dict(zip(map(Path, table["source"]), table["label"], strict=True))
    assert found == sounds


def test_encode_and_decode(sounds, tmp_path):
    pictures, audio = tmp_path / "pictures", tmp_path / "audio"
    assert encode_songs(tmp_path / "in", pictures, size=SIZE).failures == []
    assert encode_songs(tmp_path / "in", pictures, size=SIZE).n_skipped == len(sounds)
    made = [path for path in contents(pictures) if path.endswith(".png")]
    assert_one_file_each(pictures, made, len(sounds))
    assert len({from_png((pictures / path).read_bytes())[1].song.casefold() for path in made}) == len(sounds)

    assert decode_pictures(pictures, audio).failures == []
    decoded = [path for path in contents(audio) if path.endswith(".wav")]
    assert_one_file_each(audio, decoded, len(sounds))
    lengths = sorted(load_audio(audio / path)[0].shape[1] for path in decoded)
    assert lengths == sorted(load_audio(path)[0].shape[1] for path in sounds)


def test_caption(sounds, tmp_path):
    def length(waveforms):
        return [Caption(f"{len(waveform)} samples") for waveform in waveforms]

    length.sample_rate, length.batch_size, length.load = RATE, 1, lambda: None
    out = tmp_path / "out"
    encode_songs(tmp_path / "in", out, size=SIZE)
    assert caption_songs(tmp_path / "in", out, captioner=length, size=SIZE, tempo=False).failures == []
    rows = [json.loads(line) for line in (out / "metadata.jsonl").read_text(encoding="utf-8").splitlines()]
    assert_one_file_each(out, [row["file_name"] for row in rows], len(sounds))
    for row in rows:
        _, info = from_png((out / row["file_name"]).read_bytes())
        assert row["text"] == f"{info.n_samples} samples"


def test_compare(tmp_path):
    png = cv2.imencode(".png", np.random.default_rng(0).integers(0, 256, (8, 8, 3), dtype=np.uint8))[1].tobytes()
    names = [f"{name}/{name}.png" for name in ODD_NAMES]
    for folder in ("original", "reconstructed"):
        for name in names:
            path = tmp_path / folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(png)
    output = tmp_path / "comparison"
    alone = f"alone {ODD_NAMES[-1]}.png"  # without a partner
    (tmp_path / "original" / alone).write_bytes(png)
    compare = partial(compare_pictures, tmp_path / "original", output, reconstructed=tmp_path / "reconstructed")
    assert (compare().n_done, compare().n_skipped) == (len(names), len(names))
    with (output / "comparison.csv").open(newline="", encoding="utf-8", errors="surrogateescape") as file:
        rows = list(csv.DictReader(file))
    assert [row["name"] for row in rows] == sorted(names)
    assert all((output / row["picture"]).is_file() for row in rows)
    assert_page_shows(output / "index.html", [alone, *sorted(names)], [f"pictures/{name}" for name in sorted(names)])


def test_gallery(tmp_path):
    pictures = [f"{name}/{name}.png" for name in ODD_NAMES]
    sections = {name: [Entry(name, picture, None)] for name, picture in zip(ODD_NAMES, pictures, strict=True)}
    write_gallery(tmp_path / "index.html", title=ODD_NAMES[0], note="", sections=sections)
    assert_page_shows(tmp_path / "index.html", ODD_NAMES, pictures)


def assert_page_shows(index: Path, names: list[str], pictures: list[str]) -> None:
    page = Page(index)
    assert [unquote(source, errors="surrogateescape") for source in page.values("src")] == pictures
    for caption, name in zip(page.texts["figcaption"], names, strict=True):
        shown = name.encode(errors="replace").decode()
        assert " ".join(caption.split()).startswith(" ".join(shown.split()))  # a page has one kind of space
    assert not {"b", "i"} & set(page.texts)  # no name became markup


def test_manifest(tmp_path):
    table = pd.DataFrame({"path": ODD_NAMES, "label": ODD_NAMES, "recording": ODD_NAMES, "source": ODD_NAMES})
    table["split"] = assign_splits(ODD_NAMES, ["kick"] * len(ODD_NAMES), percentages=(80, 10, 10), seed=0)
    write_manifest(table, tmp_path)
    read = read_manifest(tmp_path)
    for column in ("path", "label", "recording", "source"):
        assert read[column].tolist() == ODD_NAMES, column


def test_journal(tmp_path):
    journal = Journal(tmp_path)
    journal.begin([*ODD_NAMES, "begun"])
    for name in ODD_NAMES:
        journal.add(name, {"outputs": [name]})
    again = Journal(tmp_path)
    assert (again.entries, again.begun) == ({name: {"outputs": [name]} for name in ODD_NAMES}, {"begun"})


def test_failures(tmp_path):
    failures = [Failure(name, "decode", f"{name}: not audio") for name in ODD_NAMES]
    write_failures(failures, tmp_path)
    with (tmp_path / "failures.csv").open(newline="", encoding="utf-8", errors="surrogateescape") as file:
        header, *rows = csv.reader(file)
    assert header == ["path", "stage", "error"]
    assert [Failure(*row) for row in rows] == failures
