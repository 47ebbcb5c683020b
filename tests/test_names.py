"""Odd names: each task, table and page takes all of them at once, and loses, mixes up and misplaces none.

The rules of names are tested with `specgan.files`.
"""

import csv
import json
import logging
import os
import shlex
import unicodedata
import warnings
from dataclasses import replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from types import SimpleNamespace
from urllib.parse import unquote

import cv2
import numpy as np
import pandas as pd
import pytest
import soundfile
import torch
from checkpoints import save_checkpoint
from folders import contents
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.utils import instantiate
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from names import ALIKE_FILES, ODD_NAMES
from omegaconf import OmegaConf
from pages import Page

from specgan.audio import load_audio
from specgan.audio.pack import MANIFEST_NAME
from specgan.batch.failures import Failure, write_failures
from specgan.batch.journal import Journal
from specgan.captions.caption import Caption
from specgan.codec.png import from_png
from specgan.command_line.arguments import as_typed, typed
from specgan.data.dataset import SpectrogramDataset
from specgan.data.folder import read_info, write_info
from specgan.data.manifest import assign_splits, label_of, read_manifest, write_manifest
from specgan.files import OUTPUTS_NAME
from specgan.generation import PAGE_NAME, class_folders, generate
from specgan.models.trained import TrainedGenerator
from specgan.pictures import fonts
from specgan.pictures.figures import to_overview
from specgan.pictures.gallery import Entry, write_gallery
from specgan.spectrogram import LevelRange, Spectrogram, SpectrogramParams
from specgan.tasks.caption import caption_songs
from specgan.tasks.compare import compare_pictures
from specgan.tasks.decode import decode_pictures
from specgan.tasks.encode import encode_songs
from specgan.tasks.slice import cut_recordings
from specgan.tasks.spectrograms import make_spectrograms
from specgan.tasks.splits import make_splits
from specgan.tasks.survey import survey
from specgan.training.preview import Preview, ShownSound

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
            labels[path] = unicodedata.normalize("NFC", path.parent.name)
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


def test_survey(sounds, tmp_path):
    output, presets = tmp_path / "out", lambda: {"small": SpectrogramParams()}
    report = survey(tmp_path / "in", output, presets=presets, n_shown=1, shown_s=0.01)
    assert (report.n_done, report.failures) == (len(sounds), [])
    with (output / "survey.csv").open(newline="", encoding="utf-8", errors="surrogateescape") as file:
        rows = {tmp_path / "in" / row["path"]: row["label"] for row in csv.DictReader(file)}
    assert rows == sounds
    page = Page(output / "survey.html")
    assert len(page.values("src", "audio")) == len(set(sounds.values()))
    assert not {"b", "i"} & set(page.texts)  # no name became markup


def test_slice(sounds, tmp_path):
    output = tmp_path / "out"
    cut = {"at": "length", "least_s": 0.0, "fade_in_ms": 0, "fade_out_ms": 0, "n_shown": len(sounds)}
    assert cut_recordings(tmp_path / "in", output, **cut).failures == []
    assert cut_recordings(tmp_path / "in", output, **cut).n_skipped == len(sounds)
    with (output / "clips.csv").open(newline="", encoding="utf-8", errors="surrogateescape") as file:
        rows = list(csv.DictReader(file))
    assert_one_file_each(output, [row["path"] for row in rows], len(sounds))
    assert {Path(row["source"]): row["label"] for row in rows} == sounds
    for row in rows:
        torch.testing.assert_close(load_audio(output / row["path"]), load_audio(row["source"]))
    page = Page(output / "index.html")
    shown = [unquote(source, errors="surrogateescape") for source in page.values("src")]
    assert all((output / path).is_file() for path in shown)
    assert len(shown) == 2 * len(sounds)
    assert not {"b", "i"} & set(page.texts)  # no name became markup


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


# --- classes


@st.composite
def class_names(draw) -> list[str]:
    """Names that a file system takes for folders beside one another, in the form that labels have."""
    letters = st.characters(exclude_characters="/\0", exclude_categories=["Cs"]) | st.sampled_from(
        "aA_ ?*:.${}'\"[],=\\%~"
    )
    names = st.text(letters, min_size=1, max_size=12).map(partial(unicodedata.normalize, "NFC"))
    usable = names.filter(lambda name: name not in (".", "..") and len(os.fsencode(name)) <= 255)
    return sorted(
        draw(st.lists(usable | st.sampled_from([*ODD_NAMES, *ODD_CLASSES]), min_size=1, max_size=4, unique=True))
    )


ODD_CLASSES = ["all", "CON", "nul.x", "a.", "a ", "a_", ".a", "_a", "KICK", "kick", "שלום", "${x}", "鼓"]
ODD_CLASSES += [PAGE_NAME, MANIFEST_NAME]


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(class_names())
@example(sorted({*ODD_NAMES, *ODD_CLASSES}))
@example(["what*", "what:", "what?"])
def test_any_folder_name_is_a_class_from_the_folder_to_the_command_that_draws_it(names):
    with TemporaryDirectory() as folder:
        root = Path(folder)
        for name in names:
            (root / "in" / name).mkdir(parents=True, exist_ok=True)
        assert sorted(os.listdir(root / "in")) == names
        labels = [label_of(root / "in" / name / "x.wav", label_from="parent", separator="_") for name in names]
        assert labels == names

        row = {"path": "x", "split": "train", "recording": "x", "source": "x", "peak_level": 0.0}
        table = pd.DataFrame([{**row, "label": label} for label in labels])
        write_info({"spectrogram": {"level": "db"}}, table, root, silence=-80.0)
        write_manifest(table, root)
        assert read_info(root)["class_names"] == read_manifest(root)["label"].tolist() == names

        trained = TrainedGenerator.load(save_checkpoint(root / "x.ckpt", names))
        assert trained.class_names == names
        drawn = {name: asked_for(name) for name in names}
        assert drawn == {name: [name] if name == "all" else name for name in names}
        folders = class_folders(names)
        assert_one_file_each(root, [f"{place}/x" for place in folders.values()], len(names))
        assert not {PAGE_NAME, MANIFEST_NAME} & set(folders.values())
        write_gallery(
            root / PAGE_NAME, title="", note="", sections={name: [Entry(name, "x.png", None)] for name in names}
        )
        assert_page_shows(root / PAGE_NAME, names, ["x.png"] * len(names))


def asked_for(name: str) -> str | list[str]:
    """What `generate` gets as `label` from the command for a class, as the shell and Hydra read it."""
    command = shlex.quote(typed("label", name) if name != "all" else "label=[all]")
    (override,) = OverridesParser.create().parse_overrides(as_typed(shlex.split(command)))
    cfg = OmegaConf.create({"label": override.value(), "generate": {"_target_": "builtins.dict", "label": "${label}"}})
    return instantiate(cfg.generate, _convert_="all")["label"]


def draw(path: Path, output: Path, label: str | list[str]) -> set[str]:
    def silence(params, level_range):
        return lambda spectrograms, seeds: torch.zeros(len(spectrograms), params.n_samples)

    generate(path, label=label, n_samples=1, seed=0, output=output, vocoder=silence)
    return {path.split("/")[0] for path in contents(output)} - {PAGE_NAME, MANIFEST_NAME, OUTPUTS_NAME}


def test_the_word_all_draws_every_class_and_the_list_the_class_of_that_name(tmp_path):
    path = save_checkpoint(tmp_path / "x.ckpt", ["all", "kick"])
    assert draw(path, tmp_path / "1", "all") == {"all", "kick"}
    assert draw(path, tmp_path / "2", ["all"]) == {"all"}


def test_an_accent_is_one_letter_in_either_form(tmp_path):
    nfc, nfd = "caf\u00e9", "cafe\u0301"
    for number, form in enumerate((nfc, nfd)):
        (tmp_path / "in" / form).mkdir(parents=True)
        soundfile.write(tmp_path / "in" / form / f"{number}.wav", noise(number), RATE)
        (tmp_path / "in" / f"{form}_{number}.wav").write_bytes((tmp_path / "in" / form / f"{number}.wav").read_bytes())
    for classes in (None, [nfc], [nfd], nfd):
        specs = tmp_path / "specs"
        make_spectrograms(tmp_path / "in", specs, params=PARAMS, classes=classes, merge=[("in", nfd)])
        assert set(read_manifest(specs)["label"]) == {nfc}
    assert label_of(tmp_path / f"{nfd}_1.wav", label_from="prefix", separator="_") == nfc
    for number, of_checkpoint in enumerate((nfc, nfd)):  # the second: of an earlier version
        path = save_checkpoint(tmp_path / "x.ckpt", [of_checkpoint, "kick"])
        for form in (nfc, nfd):
            assert draw(path, tmp_path / f"{number}", form) == {of_checkpoint}


def test_previews_and_dashboards_keep_classes_apart(tmp_path):
    names = ["what*", "what:", "what?", "KICK", "kick"]
    module = SimpleNamespace(class_names=names, params=PARAMS, level_range=LevelRange(-80.0, 0.0))
    preview = Preview(tmp_path, vocoder=None, n_shown=1)
    picture, sound = torch.zeros(1, 16, 16), torch.zeros(2048)
    samples = [ShownSound(name, "generated", "epoch 1", picture, PARAMS, sound, ("", None), seed=0) for name in names]
    shown = [preview._write(module, sample) for sample in samples]
    assert len({exhibit.place.casefold() for exhibit in shown}) == len(names)
    assert len(contents(tmp_path).keys() - {OUTPUTS_NAME}) == 2 * len(names)


# --- letters in pictures


@pytest.fixture
def no_fonts(monkeypatch):
    """As on a machine without fonts of its own."""
    for function in (fonts.family_of, fonts._has, fonts._opened):
        function.cache_clear()
    monkeypatch.setattr(fonts, "_warned_about", set())
    from matplotlib import font_manager

    monkeypatch.setattr(font_manager, "findSystemFonts", lambda: [])
    own = [entry for entry in font_manager.fontManager.ttflist if "matplotlib" in entry.fname]
    monkeypatch.setattr(font_manager.fontManager, "ttflist", own)
    yield font_manager
    fonts.family_of.cache_clear()


def overview() -> bytes:
    return to_overview([("大鼓", [torch.zeros(4, 4)])], ["鼓 é"])


def test_letters_that_no_font_has_are_warned_about_once(no_fonts, caplog):
    with caplog.at_level(logging.WARNING), warnings.catch_warnings():
        warnings.simplefilter("error")
        overview()
        overview()
    assert [record.getMessage().split(":")[0] for record in caplog.records] == [
        "no installed font has the letters 大 鼓"
    ]
    assert fonts.drawable("鼓 é\udce9\t") == "? é??"


def test_letters_are_drawn_with_an_installed_font_that_has_them(no_fonts, monkeypatch, caplog, tmp_path):
    from fontTools.fontBuilder import FontBuilder
    from fontTools.pens.ttGlyphPen import TTGlyphPen

    without = overview()
    pen = TTGlyphPen(None)
    pen.moveTo((0, 0)), pen.lineTo((0, 900)), pen.lineTo((900, 0)), pen.closePath()
    font = FontBuilder(1000)
    font.setupGlyphOrder([".notdef", "drum"])
    font.setupCharacterMap({ord("鼓"): "drum", ord("大"): "drum"})
    font.setupGlyf({".notdef": pen.glyph(), "drum": pen.glyph()})
    font.setupHorizontalMetrics({".notdef": (1000, 0), "drum": (1000, 0)})
    font.setupHorizontalHeader(ascent=900, descent=-100)
    font.setupNameTable({"familyName": "Drums", "styleName": "Regular"})
    font.setupOS2()
    font.setupPost()
    font.save(tmp_path / "drums.ttf")
    fonts.family_of.cache_clear()
    caplog.clear()
    monkeypatch.setattr(no_fonts, "findSystemFonts", lambda: [str(tmp_path / "drums.ttf")])
    assert fonts.families("鼓 é") == ["sans-serif", "Drums"]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert overview() != without
    assert not caplog.records
