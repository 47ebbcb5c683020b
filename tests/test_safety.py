"""What files from a stranger may not do: run, leave the folder, take all memory, put script into a page, or crash."""

import ast
import io
import json
import logging
import os
import re
import struct
import subprocess
import sys
import zipfile
import zlib
from dataclasses import asdict, replace
from pathlib import Path
from urllib.parse import unquote

import numpy as np
import pandas as pd
import pytest
import soundfile
import torch
from encoded import by_ffmpeg
from hydra import compose, initialize_config_dir
from hydra.core.hydra_config import HydraConfig
from hydra.utils import instantiate
from names import HOSTILE_NAMES
from pages import Page
from runs import ROOT, folder_source, run

from specgan.audio import AudioError, load_audio, save_wav
from specgan.batch.journal import Journal
from specgan.captions.caption import Caption
from specgan.codec.coding import CodecError, CodecParams
from specgan.codec.png import SliceInfo, from_png, read_info, to_png
from specgan.data.dataset import SpectrogramDataset
from specgan.data.manifest import MANIFEST_NAME, REQUIRED_COLUMNS, read_manifest
from specgan.files import load_tensors
from specgan.generation import generate
from specgan.models.generators import DCGANGenerator
from specgan.models.trained import TrainedGenerator
from specgan.pictures.gallery import Entry, write_gallery
from specgan.spectrogram import SpectrogramParams
from specgan.tasks.caption import caption_songs
from specgan.tasks.compare import compare_pictures
from specgan.tasks.decode import decode_pictures
from specgan.tasks.spectrograms import make_spectrograms
from specgan.tasks.splits import make_splits
from specgan.training.settings import composed_for

PARAMS = SpectrogramParams(sample_rate=16000, n_fft=256, win_length=256, hop_length=128, n_mels=16, n_frames=16)
OURS = "specgan.models.generators.DCGANGenerator"
NETWORK = {"n_mels": 16, "n_frames": 16, "latent_dim": 8, "width": 8, "embedding_dim": 4}


def checkpoint(class_names=("kick", "snare"), **changes) -> dict:
    """What generate.py reads of a checkpoint."""
    network = DCGANGenerator(n_classes=len(class_names), **NETWORK)
    saved = {
        "params": asdict(PARAMS),
        "level_range": {"low": -80.0, "high": -10.0},
        "class_names": list(class_names),
        "generator": {"_target_": OURS, **network.settings},
        "n_steps": 3,
    }
    return {"state_dict": {f"ema.{k}": v for k, v in network.state_dict().items()}, "specgan": {**saved, **changes}}


def saved(path: Path, content) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save(content, path)
    return path


def tree(folder: Path) -> set[str]:
    """The paths of all files and folders in a folder."""
    return {str(path) for path in folder.rglob("*")}


# --- files that run


class Program:
    """Makes a folder when it is unpickled."""

    def __init__(self, place: Path) -> None:
        self.place = str(place)

    def __reduce__(self):
        return os.mkdir, (self.place,)


def refused(path: Path, read, *arguments) -> None:
    """Asserts that a file is refused by name, and that nothing that is shown tells how to read it all the same."""
    with pytest.raises(ValueError, match="not read") as caught:
        read(*arguments)
    errors = [caught.value]
    while errors[-1] is not None:
        hidden = None if errors[-1].__suppress_context__ else errors[-1].__context__
        errors.append(errors[-1].__cause__ or hidden)
    shown = "\n".join(map(str, errors[:-1]))
    assert f"{path}: holds more" in shown or f"{path}: was not written by torch.save" in shown
    assert "weights_only" not in shown and "Weights only" not in shown
    assert len(shown) < 700


@pytest.mark.parametrize("is_zip", [True, False])
def test_a_program_in_a_checkpoint_does_not_run(tmp_path, is_zip):
    path, content = tmp_path / "a.ckpt", {**checkpoint(), "x": Program(tmp_path / "ran")}
    torch.save(content, path, _use_new_zipfile_serialization=is_zip)
    refused(path, TrainedGenerator.load, path)
    assert not (tmp_path / "ran").exists()
    torch.load(path, weights_only=False)
    assert (tmp_path / "ran").exists()  # where it is read without care


def test_a_program_as_the_checkpoint_to_go_on_from_does_not_run(tiny_drums, tmp_path):
    path = saved(tmp_path / "a.ckpt", {**checkpoint(), "x": Program(tmp_path / "ran")})
    shown = run("train.py", f"ckpt_path={path}", *folder_source(tiny_drums), "logger=none", cwd=tmp_path, code=1)
    assert f"{path}: holds more than tensors, numbers and text" in shown
    assert "weights_only" not in shown
    assert not (tmp_path / "ran").exists()


def test_a_program_in_a_spectrogram_does_not_run(tiny_drums, tmp_path):
    whole = replace(PARAMS, n_frames=None)
    make_spectrograms(tiny_drums, tmp_path / "specs", params=whole, splits=(100, 0, 0))
    path = saved(tmp_path / "specs" / "kick" / "kick_0.pt", [Program(tmp_path / "specs" / "ran")])
    refused(path, SpectrogramDataset, tmp_path / "specs", "train", PARAMS)

    report = make_splits(tmp_path / "specs", tmp_path / "dealt", splits=(50, 25, 25))
    assert [failure.path for failure in report.failures] == [str(path)]
    assert "it was not read" in report.failures[0].error
    assert not list(tmp_path.rglob("ran"))


SETTINGS = {"choices": {"data": "drums"}, "spectrogram": {}, "data": {}, "vocoder": {}, "evaluation": {}}
ATTACKS = {
    "class": {"vocoder": {"_target_": "os.mkdir", "path": "RAN"}},
    "class that is added": {"data": {"x": {"_target_": "os.mkdir", "path": "RAN"}}},
    "class for a value": {"data": {"merge": {"_target_": "os.mkdir", "path": "RAN"}}},
    "class in a list": {"data": {"classes": [{"_target_": "os.mkdir", "path": "RAN"}]}},
    "class in a class": {"data": {"make_audio": {"n_per_class": {"_target_": "os.mkdir", "path": "RAN"}}}},
    "interpolation": {"data": {"audio_dir": "${oc.env:HOME}"}},
    "file of a stranger": {"choices": {"data": "../../../evil"}},
    "group of a stranger": {"choices": {"hydra/launcher": "basic"}},
}
REFUSED = r"is not run for|would run or read something|no file of conf/|settings that are computed"


@pytest.mark.parametrize("attack", ATTACKS)
@pytest.mark.parametrize("version", ["settings.json", ".hydra"])
def test_the_settings_in_the_folder_of_a_run_run_nothing_of_a_strangers(attack, version, tmp_path):
    """train.py stage=test takes them from beside the checkpoint, and all of such a folder may be fetched."""
    content = json.loads(json.dumps({**SETTINGS, **ATTACKS[attack]}).replace("RAN", str(tmp_path / "ran")))
    if version == ".hydra":  # runs from before settings.json
        (tmp_path / ".hydra").mkdir()
        choices = content.pop("choices")
        about = {"hydra": {"runtime": {"choices": choices, "cwd": str(tmp_path)}}}
        (tmp_path / ".hydra" / "config.yaml").write_text(json.dumps({**content, "paths": {}, "seed": 0}))
        (tmp_path / ".hydra" / "hydra.yaml").write_text(json.dumps(about))
        if attack == "group of a stranger":
            pytest.skip("is not even read")
    else:
        (tmp_path / "settings.json").write_text(json.dumps(content))
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        HydraConfig.instance().set_config(compose("train", overrides=["stage=test"], return_hydra_config=True))
        with pytest.raises(ValueError, match=REFUSED):
            instantiate(composed_for(tmp_path).data)
    assert not (tmp_path / "ran").exists()


def test_what_torch_save_did_not_write_is_said(tmp_path):
    whole = saved(tmp_path / "whole.pt", {"a": torch.arange(1000)}).read_bytes()
    bomb = io.BytesIO()
    with zipfile.ZipFile(bomb, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("bomb/data.pkl", bytes(10**6))
    for content, fault in [
        (b"", "was not written by torch.save"),
        (b"no tensors", "was not written by torch.save"),
        (whole[:-100], "is damaged"),
        (whole[:300] + bytes(100) + whole[400:], "is damaged"),
        (bomb.getvalue(), "claims to hold more than its size"),
    ]:
        (tmp_path / "a.pt").write_bytes(content)
        for arguments in ((tmp_path / "a.pt",), ("a.pt", content)):
            with pytest.raises(ValueError, match=rf"a\.pt: {fault}.*; it was not read\. Make it again"):
                load_tensors(*arguments)
    assert load_tensors("a.pt", whole)["a"].equal(torch.arange(1000))
    with pytest.raises(FileNotFoundError, match=r"gone\.pt: no such file"):
        load_tensors(tmp_path / "gone.pt")


RUN_WHAT_THEY_READ = {
    *("eval", "exec", "os.system", "torch.jit.load", "torch.hub.load", "pd.read_pickle", "pandas.read_pickle"),
    *("pickle.load", "pickle.loads", "pickle.Unpickler", "marshal.load", "marshal.loads", "shelve.open"),
    *("joblib.load", "dill.load", "dill.loads", "cloudpickle.load", "cloudpickle.loads"),
    *("yaml.load", "yaml.load_all", "yaml.full_load", "yaml.unsafe_load"),
}
SAFE_ONLY_WITH = {  # how a call ends, and the argument that makes it safe
    "torch.load": "weights_only",
    ".load_checkpoint": "weights_only",
    ".load_from_checkpoint": "weights_only",
}


def unsafe_calls(source: str) -> list[str]:
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ImportFrom) and node.module:
            names = {f"{node.module}.{alias.name}" for alias in node.names}
            found += sorted(names & (RUN_WHAT_THEY_READ | {"torch.load", "numpy.load"}))  # would hide what is called
        if not isinstance(node, ast.Call):
            continue
        name, given = ast.unparse(node.func), {each.arg: ast.unparse(each.value) for each in node.keywords}
        is_safe = name not in RUN_WHAT_THEY_READ
        for ending, argument in SAFE_ONLY_WITH.items():
            is_safe &= not name.endswith(ending) or given.get(argument) == "True"
        is_safe &= "ckpt_path" not in given or not name.startswith("trainer.") or given.get("weights_only") == "True"
        is_safe &= given.get("allow_pickle", "False") == "False"
        is_safe &= given.get("trust_remote_code", "False") == "False" and given.get("shell", "False") == "False"
        if not is_safe:
            found.append(ast.unparse(node))
    return found


@pytest.mark.parametrize(
    "call",
    [
        "torch.load(path)",
        "torch.load(path, weights_only=False)",
        "torch.load(path, weights_only=careful)",
        "pickle.load(file)",
        "np.load(path, allow_pickle=True)",
        "yaml.load(text, Loader=yaml.Loader)",
        "joblib.load(path)",
        "trainer.fit(model, ckpt_path=path)",
        "strategy.load_checkpoint(path)",
        "AutoModel.from_pretrained(name, trust_remote_code=True)",
        "from pickle import loads",
        "from torch import load",
    ],
)
def test_unsafe_ways_to_read_a_file_are_known(call):
    assert unsafe_calls(f"def f():\n    {call}")


def test_nothing_in_the_sources_reads_files_in_an_unsafe_way():
    sources = [*ROOT.glob("*.py"), *(ROOT / "specgan").rglob("*.py"), *(ROOT / "benchmarks").rglob("*.py")]
    assert len(sources) > 30
    found = {path.relative_to(ROOT).as_posix(): unsafe_calls(path.read_text(encoding="utf-8")) for path in sources}
    # The workers of generate.py and of the service get their generator from the process that started them.
    own = {
        "specgan/generation/drawing.py": ["pickle.loads(tools)"],
        "specgan/server/training.py": ["pickle.loads(trained)"],
    }
    assert {path: calls for path, calls in found.items() if calls} == own


# --- what a checkpoint names


@pytest.mark.parametrize(
    "target",
    [
        *("os.system", "subprocess.Popen", "builtins.eval", "torch.nn.Linear", "specgan.files.os.system"),
        *("stranger.Net", "stranger.os.system"),
        *("specgan.models.generators.sample", "specgan.models.generators.nn.Linear", "specgan.models.nowhere.Net"),
        *("specgan.models.generators.", "specgan.models..generators.DCGANGenerator", "", ".", None, 5, ["os.system"]),
    ],
)
def test_a_checkpoint_names_no_code_but_networks_of_ours(tmp_path, monkeypatch, target):
    (tmp_path / "stranger.py").write_text(f"import os\nos.mkdir({str(tmp_path / 'ran')!r})")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(os, "system", lambda command: (tmp_path / "ran").mkdir())
    monkeypatch.setattr(subprocess, "Popen", lambda **settings: (tmp_path / "ran").mkdir())
    generator = {"_target_": target, "command": "true", "args": ["true"], "source": "1"}
    path = saved(tmp_path / "a.ckpt", checkpoint(generator=generator))
    with pytest.raises(ValueError, match=r"a\.ckpt: not a checkpoint of specgan's train\.py \("):
        TrainedGenerator.load(path)
    assert not (tmp_path / "ran").exists()
    assert "stranger" not in sys.modules


def test_a_network_of_ones_own_is_made_when_it_is_named(tmp_path, monkeypatch):
    lines = ["from specgan.models.generators import DCGANGenerator", "class Own(DCGANGenerator): pass", "x = 5"]
    (tmp_path / "own_networks.py").write_text("\n".join(lines))
    monkeypatch.syspath_prepend(tmp_path)
    content = checkpoint()
    content["specgan"]["generator"]["_target_"] = "own_networks.Own"
    path = saved(tmp_path / "a.ckpt", content)
    for named in (None, "own_networks.Other"):
        with pytest.raises(ValueError, match=r"none of specgan's networks; .* name it: network=own_networks\.Own"):
            TrainedGenerator.load(path, network=named)
    assert "own_networks" not in sys.modules
    assert type(TrainedGenerator.load(path, network="own_networks.Own").network).__name__ == "Own"
    content["specgan"]["generator"]["_target_"] = "own_networks.x"
    with pytest.raises(ValueError, match=r"'own_networks\.x', which is no network"):
        TrainedGenerator.load(saved(path, content), network="own_networks.x")


@pytest.mark.parametrize(
    "changes",
    [
        {"class_names": []},
        {"class_names": "kick"},
        {"class_names": ["kick", 5]},
        {"class_names": None},
        {"params": None},
        {"params": {"unheard": 1}},
        {"params": {**asdict(PARAMS), "hop_length": -1}},
        {"level_range": {"low": 1.0}},
        {"n_steps": "many"},
        {"generator": None},
        {"generator": {}},
        {"generator": {"_target_": OURS, "n_classes": 2, **NETWORK, "width": 16}},
        {"generator": {"_target_": OURS, "n_classes": 2, **NETWORK, "norm": "no"}},
        {"generator": {"_target_": OURS, "unheard": 1}},
        {"generator": {"_target_": "specgan.models.classifier.Classifier"}},
    ],
)
def test_a_checkpoint_that_holds_something_else_is_refused_by_name(tmp_path, changes):
    content = checkpoint()
    content["specgan"] |= changes
    path = saved(tmp_path / "a.ckpt", content)
    with pytest.raises(ValueError, match=r"ckpt_path is .*a\.ckpt: not a checkpoint of specgan's train\.py \(.+\)"):
        TrainedGenerator.load(path)


# --- paths that lead out of the folder


def silence(params, level_range):
    return lambda spectrogram, seeds: torch.zeros(1, 64)


def test_class_names_of_a_checkpoint_stay_in_the_output(tmp_path):
    names = [*HOSTILE_NAMES, str(tmp_path / "absolute")]
    path, output = saved(tmp_path / "a.ckpt", checkpoint(names)), tmp_path / "deep" / "deeper" / "out"
    before = set(tree(tmp_path))
    page = generate(path, label="all", n_samples=1, seed=0, output=output, vocoder=silence)
    made = {Path(name) for name in set(tree(tmp_path)) - before} - {output, *output.parents}
    assert all(path.is_relative_to(output) for path in made)
    assert len(list(output.rglob("*.wav"))) == len(names)  # and no class took another's place
    assert len(list(output.rglob("*.png"))) == len(names)
    shown = assert_is_harmless(page.read_text(encoding="utf-8"))
    assert len(shown) == 2 * len(names)
    assert all((output / each).is_file() for each in shown)


def table_of(paths, **columns) -> pd.DataFrame:
    defaults = {"label": "kick", "split": "train", "recording": "a", "source": "/dev/null"}
    return pd.DataFrame({"path": list(paths), **{**defaults, **columns}})


@pytest.fixture
def victim(tmp_path):
    """A file that nobody may touch, and ways to it from `tmp_path / "work" / "out"`."""
    path = tmp_path / "work" / "victim.pt"
    path.parent.mkdir()
    path.write_bytes(b"precious")
    (tmp_path / "work" / "out" / "train").mkdir(parents=True)
    yield path
    assert path.read_bytes() == b"precious"


WAYS_OUT = ["../victim.pt", "train/../../victim.pt", "train/../victim.pt", "./../victim.pt", "..", "", ".", "x\0.pt"]


def test_a_manifest_makes_no_task_remove_what_is_not_in_its_folder(victim, tiny_drums):
    out = victim.parent / "out"
    ways = [*WAYS_OUT, str(victim)]
    specs = victim.parent / "specs"
    make_spectrograms(tiny_drums, specs, params=replace(PARAMS, n_frames=None), splits=(50, 25, 25))
    table = table_of(ways)[list(REQUIRED_COLUMNS)]

    table.to_csv(out / MANIFEST_NAME, index=False)
    (out / ".unfinished.json").write_text(json.dumps(ways))
    make_splits(specs, out, splits=(50, 25, 25))
    assert victim.exists()

    (specs / ".journal.jsonl").unlink()
    table.to_csv(specs / MANIFEST_NAME, index=False)
    with pytest.raises(ValueError, match="is in the way"):  # spectrograms that the manifest does not list
        make_spectrograms(tiny_drums, specs, params=replace(PARAMS, n_frames=None), splits=(50, 25, 25))
    assert victim.exists()


def test_labels_and_recordings_of_a_manifest_lead_nowhere(victim, tiny_drums):
    specs, out = victim.parent / "specs", victim.parent / "out"
    make_spectrograms(tiny_drums, specs, params=replace(PARAMS, n_frames=None), splits=(50, 25, 25))
    table = read_manifest(specs)
    table["label"], table["recording"] = "../../evil", [f"/../../{i}" for i in range(len(table))]
    table.to_csv(specs / MANIFEST_NAME, index=False)
    before = set(tree(victim.parent))
    make_splits(specs, out, splits=(50, 25, 25))
    made = set(tree(victim.parent)) - before
    assert made and all(Path(path).is_relative_to(out) for path in made)


@pytest.mark.parametrize("content", ["{", "5", '{"a": 1}', "[[1]]", "\x00"])
def test_a_damaged_note_of_a_killed_split_is_named(victim, tiny_drums, content):
    out = victim.parent / "out"
    (out / ".unfinished.json").write_text(content)
    with pytest.raises(ValueError, match=r"\.unfinished\.json: damaged"):
        make_splits(tiny_drums, out, ext="wav", splits=(50, 25, 25))


def forged_journal(path: Path, ways) -> None:
    entries = [{"key": f"../k{i}", "made_from": [], "outputs": [way]} for i, way in enumerate(ways)]
    lines = [{"settings": {"forged": True}}, {"begun": [*ways, "../victim", "../../work/victim"]}, *entries]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))


def test_a_journal_makes_no_task_remove_what_is_not_in_its_folder(victim, tmp_path):
    out = victim.parent / "out"
    forged_journal(out / ".journal.jsonl", [*WAYS_OUT, str(victim)])
    Journal(out, endings=r"(_\d{4})?\.pt").start({})
    assert victim.exists()

    pictures = tmp_path / "pictures"
    write_picture(pictures / "a.png")
    for name in (".decode.jsonl", ".compare.jsonl"):
        forged_journal(out / name, [*WAYS_OUT, str(victim)])
    decode_pictures(pictures, out)
    write_picture(tmp_path / "others" / "a.png")
    compare_pictures(pictures, out, reconstructed=tmp_path / "others")


@pytest.mark.parametrize(
    "line", ["5", "null", '"begun"', "[]", "{}", '{"begun": 5}', '{"begun": [5]}', '{"key": 5}', '{"key": "a"}', "\0"]
)
def test_a_damaged_line_of_a_journal_counts_for_nothing(tmp_path, line):
    good = {"key": "b", "made_from": [], "outputs": []}
    lines = [json.dumps({"settings": {}}), line, json.dumps(good)]
    (tmp_path / ".journal.jsonl").write_text("\n".join(lines) + "\n")
    journal = Journal(tmp_path, endings=r"\.pt")
    assert set(journal.entries) == {"b"}
    assert journal.start({"b": []}) == []


class OneWord:
    sample_rate = 8000
    batch_size = 4

    def load(self):
        pass

    def __call__(self, waveforms):
        return [Caption("A sound.") for _ in waveforms]


def test_captions_stay_in_the_output_whatever_the_journal_says_of_songs(tmp_path):
    save_wav(tmp_path / "songs" / "a.wav", torch.rand(3000) - 0.5, 8000)
    output = tmp_path / "deep" / "deeper" / "out"
    how = {"captioner": OneWord(), "size": 64, "tempo": False}
    caption_songs(tmp_path / "songs", output, **how)
    journal = output / ".songs.jsonl"
    assert '"song": "a"' in journal.read_text()
    journal.write_text(journal.read_text().replace('"song": "a"', '"song": "../../evil"'))
    for path in set(output.iterdir()) - {journal}:
        path.unlink()
    before = set(tree(tmp_path))
    caption_songs(tmp_path / "songs", output, **how)
    assert not [path for path in set(tree(tmp_path)) - before if not Path(path).is_relative_to(output)]
    names = [json.loads(line)["file_name"] for line in (output / "metadata.jsonl").read_text().splitlines()]
    assert names == ["a_0000.png", "a_0001.png"]


def picture_and_info(size=16, **changes):
    info = SliceInfo(CodecParams(size=size), 8000, "song", n_samples=size * size // 2)
    generator = np.random.default_rng(0)
    return generator.integers(0, 65536, (size, size, 3), dtype=np.uint16), replace(info, **changes)


def write_picture(path: Path, **changes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(to_png(*picture_and_info(**changes)))
    return path


def test_songs_of_pictures_stay_in_the_output(tmp_path):
    names = [*HOSTILE_NAMES, str(tmp_path / "absolute")]
    for number, name in enumerate(names):
        write_picture(tmp_path / "in" / f"{number}.png", song=name)
    output = tmp_path / "deep" / "deeper" / "out"
    before = set(tree(tmp_path))
    report = decode_pictures(tmp_path / "in", output)
    assert (report.n_done, report.failures) == (len(names), [])
    made = {Path(name) for name in set(tree(tmp_path)) - before} - {output, *output.parents}
    assert all(path.is_relative_to(output) for path in made)
    sounds = [path for path in output.rglob("*.wav") if not path.name.startswith(".")]
    assert len(sounds) == len(names)


# --- headers that claim too much


def wav(*, channels=1, rate=16000, bits=16, tag=1, n_bytes=0xFFFFFFF0, content=bytes(4000)) -> bytes:
    align = channels * bits // 8
    about = struct.pack("<HHIIHH", tag, channels, rate, rate * align & 0xFFFFFFFF, align & 0xFFFF, bits)
    return b"RIFF\xf0\xff\xff\xffWAVEfmt \x10\0\0\0" + about + b"data" + struct.pack("<I", n_bytes) + content


def encoded(kind: str, subtype: str | None = None, *, n_samples=4000, rate=16000) -> bytes:
    buffer = io.BytesIO()
    soundfile.write(buffer, 0.2 * np.sin(np.arange(n_samples) / 7), rate, format=kind, subtype=subtype)
    return buffer.getvalue()


def flac(*, n_samples=None, rate=None) -> bytes:
    content = bytearray(encoded("FLAC"))
    fields = int.from_bytes(content[18:26], "big")  # 20 bits of rate, 3 of channels, 5 of depth, 36 of samples
    if n_samples is not None:
        fields = fields >> 36 << 36 | n_samples
    if rate is not None:
        fields = fields & (1 << 44) - 1 | rate << 44
    content[18:26] = fields.to_bytes(8, "big")
    return bytes(content)


def ogg_checksum(page: bytes) -> int:
    total = 0
    for byte in page:
        total ^= byte << 24
        for _ in range(8):
            total = (total << 1 ^ 0x04C11DB7 if total >> 31 else total << 1) & 0xFFFFFFFF
    return total


def ogg_pages(content: bytes) -> list[bytearray]:
    pages = []
    while content[:4] == b"OggS" and len(content) > 27:
        size = 27 + content[26] + sum(content[27 : 27 + content[26]])
        pages.append(bytearray(content[:size]))
        content = content[size:]
    return [*pages, bytearray(content)]


def sealed(pages: list[bytearray]) -> bytes:
    """An Ogg file with right checksums: without them nobody looks into a page."""
    for page in pages[:-1]:
        page[22:26] = bytes(4)
        page[22:26] = struct.pack("<I", ogg_checksum(page))
    return b"".join(pages)


def ogg(*, channels=None, rate=None, n_samples=None) -> bytes:
    pages = ogg_pages(encoded("OGG", "VORBIS"))
    if channels is not None:
        pages[0][39] = channels
    if rate is not None:
        pages[0][40:44] = struct.pack("<I", rate)
    if n_samples is not None:
        pages[-2][6:14] = struct.pack("<q", n_samples)
    return sealed(pages)


def changed(content: bytes, atom: bytes, offset: int, form: str, *values) -> bytes:
    content = bytearray(content)
    struct.pack_into(form, content, content.index(atom) + 4 + offset, *values)
    return bytes(content)


READER = """
import json, resource, sys
from pathlib import Path
import av, soxr, torch
from specgan.audio import load_audio, open_audio
from specgan.codec.png import from_png, read_info
from specgan.files import load_tensors
from specgan.models.trained import TrainedGenerator
from specgan.tasks.decode import decode_pictures

def drain(path):
    with open_audio(path) as stream:
        return sum(block.shape[1] for block in stream.blocks)

READ = {
    "audio": lambda path: list(load_audio(path, mono=False)[0].shape),
    "resampled": lambda path: list(load_audio(path, sample_rate=16000)[0].shape),
    "blocks": drain,
    "png": lambda path: from_png(path.read_bytes())[0].shape,
    "text": lambda path: repr(read_info(path.open("rb"))),
    "checkpoint": lambda path: TrainedGenerator.load(path).n_steps,
    "song": lambda path: decode_pictures(path, path.with_suffix(".wav" if path.is_file() else ".out")).n_done,
    "phaseless": lambda path: decode_pictures(path, path.with_suffix(".out"), phase="griffin_lim").n_done,
}
folder = Path(sys.argv[1])
torch.zeros(8).sum()
in_use = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (in_use + 2**30, in_use + 2**30))
said = {}
for path in sorted(folder.iterdir()):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    try:
        result = READ[path.stem.split("-")[0]](path)
    except Exception as err:
        result = f"{type(err).__name__}: {err}"
    said[path.name] = [result, (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024]
print("SAID" + json.dumps(said))
"""


def claiming(png: bytes, width: int, height: int, bit_depth: int = 16, colour: int = 2) -> bytes:
    """A PNG whose header claims another size."""
    header = b"IHDR" + struct.pack(">IIBB", width, height, bit_depth, colour) + png[26:29]
    return png[:12] + header + struct.pack(">I", zlib.crc32(header)) + png[33:]


def wrong_rate(name: str, rate: int) -> str:
    return f"AudioError: .*{name}: its header says {rate} Hz; 100 to 10000000 are read"


def claims() -> dict[str, tuple[bytes, object]]:
    """Small files that claim to be huge, by name, with what reading them gives: a shape, a number or an error."""
    picture, info = picture_and_info()
    png, aac = to_png(picture, info), by_ffmpeg("mp4", "aac")
    hour = np.zeros(3600 * 8000, np.int16)
    buffer = io.BytesIO()
    soundfile.write(buffer, hour, 8000, format="FLAC")
    large = checkpoint()
    large["specgan"]["generator"] |= {"latent_dim": 10**10, "n_mels": 10**6}
    large_file = io.BytesIO()
    torch.save(large, large_file)
    not_a_picture = "CodecError: its header claims {} x {} pixels, .*not a whole PNG"
    lying = "its text claims {} samples, and its song's 1 pictures hold 128 at most"
    return (
        {
            "audio-bytes.wav": (wav(), [1, 2000]),
            "audio-samples.flac": (flac(n_samples=2**36 - 1), [1, 4000]),
            "audio-samples.ogg": (ogg(n_samples=2**40), r"\[1, \d+\]"),
            "audio-samples.mp4": (changed(aac, b"stts", 8, ">II", 0xFFFFFFF0, 1024), None),
            "audio-duration.mp4": (changed(aac, b"mdhd", 12, ">II", 16000, 0xFFFFFFF0), r"\[1, \d+\]"),
            "audio-sizes.mp4": (changed(aac, b"stsz", 4, ">II", 0, 0xFFFFFFF0), None),
            "audio-chunks.mp4": (changed(aac, b"stsc", 8, ">II", 1, 0xFFFFFFF0), None),
            "audio-channels.wav": (wav(channels=10_000), r"AudioError: .*\(soundfile: Too many channels specified"),
            "audio-1024_channels.wav": (wav(channels=1024, content=bytes(2048 * 50)), [1024, 50]),
            "audio-channels.ogg": (ogg(channels=255), [255, 4000]),
            "audio-channels.mp4": (changed(aac, b"mp4a", 16, ">H", 10_000), None),
            "resampled-rate.wav": (wav(rate=2**31 - 1), wrong_rate("rate.wav", 2147483647)),
            "resampled-slow.wav": (wav(rate=1), wrong_rate("slow.wav", 1)),
            "resampled-rate.flac": (flac(rate=1), wrong_rate("rate.flac", 1)),
            "resampled-rate.ogg": (ogg(rate=2**31 - 1), wrong_rate("rate.ogg", 2147483647)),
            "blocks-hour.flac": (buffer.getvalue(), len(hour)),
            "png-huge.png": (claiming(png, 100_000, 100_000), not_a_picture.format(100_000, 100_000)),
            "png-large.png": (claiming(png, 30_000, 30_000), not_a_picture.format(30_000, 30_000)),
            "png-bits.png": (claiming(png, 32_000, 32_000, 1, 0), not_a_picture.format(32_000, 32_000)),
            "text-long.png": (png[:33] + b"\x7f\xff\xff\xfftEXt" + png[33:], "CodecError: .*not a whole PNG"),
            "song-long.png": (to_png(*picture_and_info(n_samples=2**40)), 1),  # alone it is its slice
            "checkpoint-large.ckpt": (
                large_file.getvalue(),
                "ValueError: .*its weights are not those of its generator",
            ),
        }
        | {
            f"song-{n}/song.png": (to_png(*picture_and_info(n_samples=n)), lying.format(n))
            for n in (2**24, 2**33, 2**40)
        }
        | {"phaseless-long/song.png": (to_png(*picture_and_info(n_samples=2**27)), lying.format(2**27))}
    )


@pytest.mark.skipif(sys.platform != "linux", reason="limits memory as Linux does")
def test_what_a_header_claims_takes_no_memory(tmp_path):
    wanted = claims()
    for name, (content, _) in wanted.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(content)
        assert len(content) < 2**20
    done = subprocess.run([sys.executable, "-c", READER, tmp_path], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    said = json.loads(done.stdout.split("SAID")[1])
    for name, (_, result) in wanted.items():
        found, n_bytes = said[name.split("/")[0]]
        assert n_bytes < 2**27, name
        if isinstance(result, str):
            assert re.search(result, str(found)), name
        elif result is not None:
            assert found == result, name
        else:  # FFmpeg may see through it, and read what is there
            assert isinstance(found, list) or found.startswith("AudioError"), name


def test_a_song_may_have_a_hundred_times_the_silence_or_little_of_it(tmp_path, monkeypatch):
    def decoded(n_samples):
        write_picture(tmp_path / "in" / "0.png", n_samples=n_samples)
        decode_pictures(tmp_path / "in", tmp_path / "out")
        return soundfile.info(tmp_path / "out" / "song.wav").frames

    assert decoded(2**20) == 2**20  # far more than its picture has, but not much
    monkeypatch.setattr("specgan.tasks.decode._MOST_SAMPLES", 1000)
    assert decoded(12_800) == 12_800
    with pytest.raises(ValueError, match=r"its text claims 12801 samples.* hold 128 at most; add the missing pictures"):
        decoded(12_801)


def test_a_playlist_opens_no_other_file(tmp_path):
    """FFmpeg reads lists of files and addresses, whatever they are called."""
    (tmp_path / "secret.mp4").write_bytes(by_ffmpeg("mp4", "aac"))
    (tmp_path / "secret.mp3").write_bytes(encoded("MP3"))
    start = "#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXT-X-MEDIA-SEQUENCE:0\n#EXTINF:9,\n"
    lists = {
        "concat.wav": "ffconcat version 1.0\nfile secret.mp4\n",
        "hls.m3u8": f"{start}secret.mp3\n#EXT-X-ENDLIST\n",
    }
    for name, text in lists.items():
        (tmp_path / name).write_text(text)
        with pytest.raises(AudioError, match="not readable as audio"):
            load_audio(tmp_path / name)
    assert load_audio(tmp_path / "secret.mp4")[1] == 16000


def test_a_pipe_is_no_file(tmp_path):
    os.mkfifo(tmp_path / "a.wav")  # reading it would wait for ever
    with pytest.raises(AudioError, match=r"a\.wav: is a device or a pipe"):
        load_audio(tmp_path / "a.wav")


# --- names in pages


OUR_TAGS = {
    *("html", "meta", "title", "style", "h1", "h2", "p", "section", "div", "figure", "img", "audio", "figcaption"),
}
OUR_ATTRIBUTES = {
    *("lang", "charset", "name", "content", "http-equiv", "class", "src", "alt", "loading", "controls", "preload"),
}


def assert_is_harmless(page: str) -> list[str]:
    """Asserts that a page has no tags or attributes but ours; gives the files that it shows, relative to it."""
    tags = Page(page).tags
    assert {tag for tag, _ in tags} <= OUR_TAGS
    assert {name for _, attributes in tags for name in attributes} <= OUR_ATTRIBUTES
    assert "script-src 'none'" in page
    sources = Page(page).values("src")
    assert all(re.fullmatch(r"[\w.~%-][\w.~%/-]*", source, re.ASCII) for source in sources)
    return [unquote(source, errors="surrogateescape") for source in sources]


EVIL_TEXTS = [
    "<script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    '"onload="alert(1)',
    "' onload='alert(1)",
    "javascript:alert(1)",
    "</title><script>alert(1)</script>",
    "</style><script>alert(1)</script>",
    "--><script>alert(1)</script>",
    "&lt;script&gt;",
    "{title} {sections} %s %(x)s",
]


def test_names_in_a_gallery_stay_text(tmp_path):
    for text in EVIL_TEXTS:
        sounds = [Entry(text, text, text)]
        write_gallery(tmp_path / "index.html", title=text, note=text, sections={text: sounds})
        page = (tmp_path / "index.html").read_text(encoding="utf-8")
        assert assert_is_harmless(page) == [text, text]
        assert Page(page).values("alt") == [f"spectrogram: {text}"]


def test_file_names_in_a_comparison_stay_text(tmp_path):
    names = [f"{text.replace('/', '')}.png" for text in EVIL_TEXTS]
    for name in names:
        write_picture(tmp_path / "a" / name)
        write_picture(tmp_path / "b" / name)
    write_picture(tmp_path / "a" / "only<script>.png")
    compare_pictures(tmp_path / "a", tmp_path / "out", reconstructed=tmp_path / "b")
    shown = assert_is_harmless((tmp_path / "out" / "index.html").read_text(encoding="utf-8"))
    assert sorted(shown) == sorted(f"pictures/{name}" for name in names)
    assert all((tmp_path / "out" / each).is_file() for each in shown)


# --- damage


def damaged(content: bytes, n: int, *, seed: int) -> list[bytes]:
    """Copies with bits turned, bytes replaced, pieces cut out, doubled or moved; most of it near the start."""
    generator = np.random.default_rng(seed)

    def place(size: int) -> int:
        return int(generator.integers(0, min(size, 200) if generator.random() < 0.6 else size))

    copies = []
    for _ in range(n):
        copy = bytearray(content)
        for _ in range(int(generator.integers(1, 6))):
            at, kind = place(len(copy)), generator.integers(0, 6)
            if kind <= 1:
                copy[at] ^= 1 << int(generator.integers(0, 8))
            elif kind == 2:
                copy[at] = int(generator.integers(0, 256))
            elif kind == 3:
                extreme = [b"\xff\xff\xff\xff", b"\0\0\0\0", b"\x7f\xff\xff\xff", b"\xff\xff\xff\x7f"]
                copy[at : at + 4] = extreme[generator.integers(0, 4)]
            elif kind == 4:
                del copy[at : at + int(generator.integers(1, 40))]
            else:
                copy[at:at] = copy[at : at + int(generator.integers(1, 40))]
            copy = copy or bytearray(b"\0")
        copies.append(bytes(copy))
    return copies


def survives(read, copies, errors) -> int:
    """Reads copies, none of which may raise anything but `errors`; returns how many were read all the same."""
    n_read = 0
    for number, copy in enumerate(copies):
        try:
            read(copy)
            n_read += 1
        except errors as err:
            assert str(err)
        except Exception as err:
            raise AssertionError(f"copy {number} of {len(copies)}, {len(copy)} bytes: {err!r}") from err
    return n_read


LAYOUTS = {7: "6.1", 8: "7.1", 12: "7.1.4"}
SOUNDS = {
    "wav": lambda: encoded("WAV", "PCM_16"),
    "adpcm.wav": lambda: encoded("WAV", "IMA_ADPCM"),
    "aiff": lambda: encoded("AIFF"),
    "flac": lambda: encoded("FLAC"),
    "ogg": lambda: encoded("OGG", "VORBIS"),
    "opus": lambda: encoded("OGG", "OPUS"),
    "mp3": lambda: encoded("MP3"),
    "mp4": lambda: by_ffmpeg("mp4", "aac"),
    "alac.m4a": lambda: by_ffmpeg("ipod", "alac"),
    "aac": lambda: by_ffmpeg("adts", "aac"),
    "mka": lambda: by_ffmpeg("matroska", "aac"),
}


@pytest.mark.parametrize("name", SOUNDS)
def test_a_damaged_sound_gives_sound_or_an_audio_error(tmp_path, name, caplog):
    caplog.set_level(logging.ERROR)
    path = tmp_path / f"a.{name}"

    def read(content):
        path.write_bytes(content)
        waveform, rate = load_audio(path, sample_rate=8000, mono=False)
        assert waveform.isfinite().all() and waveform.shape[1] > 0 and rate == 8000

    copies = damaged(SOUNDS[name](), 40, seed=1)
    if name in ("ogg", "opus"):
        copies = [sealed(ogg_pages(copy)) for copy in copies]
    assert survives(read, copies, (AudioError,)) > 0


def test_the_channels_of_a_crowded_file_are_read(tmp_path):
    """PyAV 18 by itself reads beyond the list of planes of such files, and crashes."""
    for n_channels in (7, 8, 12):
        samples = (np.sin(np.arange(8000) / 7)[:, None] * np.linspace(0.1, 0.6, n_channels)).astype(np.float32)
        content = by_ffmpeg("matroska", "pcm_f32le", samples, rate=8000, layout=LAYOUTS[n_channels])
        (tmp_path / "a.mka").write_bytes(content)
        waveform, _ = load_audio(tmp_path / "a.mka", mono=False)
        np.testing.assert_array_equal(waveform.numpy(), samples.T)


def test_a_damaged_picture_is_refused(tmp_path):
    png = to_png(*picture_and_info())
    copies = damaged(png, 300, seed=2)
    generator = np.random.default_rng(3)
    for _ in range(100):  # headers that are whole, and lie
        sizes = [int(2 ** generator.uniform(0, 31)) for _ in range(2)]
        depth, colour = int(generator.choice([1, 2, 4, 8, 16, 3])), int(generator.integers(0, 8))
        copies.append(claiming(png, *sizes, depth, colour))
    survives(from_png, copies, (CodecError,))
    survives(lambda content: read_info(io.BytesIO(content)), copies, (CodecError,))


def test_a_damaged_checkpoint_is_refused(tmp_path):
    path = saved(tmp_path / "whole.ckpt", checkpoint())
    copies = damaged(path.read_bytes(), 150, seed=4)
    with zipfile.ZipFile(path) as archive:
        parts = {part.filename: archive.read(part) for part in archive.infolist()}
    (name,) = (name for name in parts if name.endswith("data.pkl"))
    for pickled in damaged(parts[name], 150, seed=5):  # whole archives, and what is in them is not
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w") as archive:
            for each, content in parts.items():
                archive.writestr(each, pickled if each == name else content)
        copies.append(buffer.getvalue())

    def read(content):
        (tmp_path / "a.ckpt").write_bytes(content)
        TrainedGenerator.load(tmp_path / "a.ckpt")

    assert survives(read, [path.read_bytes()], ()) == 1
    survives(read, copies, (ValueError,))


def test_a_damaged_manifest_is_refused(tmp_path):
    table = table_of([f"kick/{i}.pt" for i in range(20)], source=[f'/a "b"/é{i}.wav' for i in range(20)])
    table["start_s"], table["n_frames"] = 0.5, 63
    table.to_csv(tmp_path / "whole.csv", index=False)

    def read(content):
        (tmp_path / MANIFEST_NAME).write_bytes(content)
        assert set(REQUIRED_COLUMNS) <= set(read_manifest(tmp_path).columns)

    whole = (tmp_path / "whole.csv").read_bytes()
    assert survives(read, [whole], ()) == 1
    others = [b"", b"\0" * 100, b'"', b"\xff\xfe" * 9]
    survives(read, [*damaged(whole, 300, seed=6), *others], (ValueError, FileNotFoundError))
