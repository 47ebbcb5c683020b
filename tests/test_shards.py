"""specgan.data.shards, and a dataset in shards: the same clips as in files of their own, wherever they lie."""

import csv
import itertools
import os
import pickle
import re
import shutil
import subprocess
import sys
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path
from signal import SIGXFSZ

import fsspec
import pandas as pd
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch.utils.data import DataLoader

from specgan.audio import open_audio, save_wav
from specgan.batch.executors import Processes, serial
from specgan.clips import levels as levels_module
from specgan.clips import on_device as device_module
from specgan.clips import shards as making_module
from specgan.data import shards as shards_module
from specgan.data.dataset import SpectrogramDataset, as_batched
from specgan.data.manifest import read_manifest
from specgan.data.shards import Shards, open_shard, remove_shards, write_shard
from specgan.spectrogram import SpectrogramParams
from specgan.tasks.spectrograms import make_spectrograms

PARAMS = SpectrogramParams(sample_rate=8000, n_fft=256, win_length=256, hop_length=128, n_mels=16, n_frames=None)
EXAMPLES = replace(PARAMS, n_frames=16)
SPLITS = ("train", "val", "test")
N = 40


def write_clip(path: Path, *, n_samples: int, seed: int) -> Path:
    noise = torch.rand(n_samples, generator=torch.Generator().manual_seed(seed)) - 0.5
    save_wav(path, noise * (1 + seed % 5) / 5, PARAMS.sample_rate)
    return path


@pytest.fixture(scope="module")
def audio(tmp_path_factory) -> Path:
    """Twenty recordings of each of two labels, half of them longer than an example."""
    root = tmp_path_factory.mktemp("sounds") / "audio"
    for i in range(N):
        write_clip(root / ("hiss", "rush")[i % 2] / f"{i}.wav", n_samples=500 + 130 * i, seed=i)
    return root


def make(audio: Path, output: Path, **settings):
    """Shards of six recordings."""
    defaults = {"params": PARAMS, "splits": (60, 20, 20), "format": "shards", "shard_size": 6}
    return make_spectrograms(audio, output, **(defaults | settings))


@pytest.fixture(scope="module")
def files(audio, tmp_path_factory) -> Path:
    """The dataset with a file for each clip."""
    folder = tmp_path_factory.mktemp("files") / "specs"
    make(audio, folder, format="pt")
    return folder


@pytest.fixture(scope="module")
def made(audio, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("made") / "specs"
    make(audio, folder)
    return folder


@pytest.fixture
def specs(made, tmp_path) -> Path:
    """The same, to be changed."""
    shutil.copytree(made, tmp_path / "specs")
    return tmp_path / "specs"


def to_memory(folder: Path) -> str:
    """Copies it there, and nothing else is left there; gives its URL."""
    memory = fsspec.filesystem("memory")
    if memory.exists("/specs"):
        memory.rm("/specs", recursive=True)
    memory.put(str(folder), "/specs", recursive=True)
    return "memory://specs"


@pytest.fixture
def in_memory(made):
    """The same in fsspec's memory."""
    return to_memory(made)


def examples(folder, split: str, **settings) -> dict[tuple, tuple]:
    """All that a dataset says of each clip, by recording and time."""
    dataset = SpectrogramDataset(folder, split, EXAMPLES, **settings)
    result = {}
    for i in range(len(dataset)):
        pieces = [dataset[i, position][0] for position in (0.0, 0.4, 1.0)]
        key = (dataset.sources[i], float(dataset.starts_s[i]))
        result[key] = (dataset.level(i), *pieces, dataset.class_names[dataset[i][1]], int(dataset.n_frames_of[i]))
    assert len(result) == len(dataset)
    return result


def assert_same_dataset(folder, other) -> None:
    for split in SPLITS:
        ours, theirs = examples(folder, split), examples(other, split)
        assert set(ours) == set(theirs)
        for key, values in ours.items():
            for value, twin in zip(values, theirs[key], strict=True):
                assert torch.equal(value, twin) if isinstance(value, torch.Tensor) else value == twin


def assert_same_manifest(folder, other) -> None:
    table, twin = (read_manifest(f) for f in (folder, other))
    pd.testing.assert_frame_equal(
        table.drop(columns=["path", "first_frame"]), twin.drop(columns=["path", "first_frame"], errors="ignore")
    )


def shard_files(folder: Path) -> dict[str, tuple[int, int]]:
    """Each with its inode and time, which change when it is written again."""
    return {
        f"shards/{path.name}": (path.stat().st_ino, path.stat().st_mtime_ns) for path in (folder / "shards").iterdir()
    }


def assert_no_other_shards(folder: Path) -> None:
    assert set(shard_files(folder)) == set(read_manifest(folder)["path"])


# One shard


def random_levels(*lengths: int, n_bins: int = 3, seed: int = 0) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.rand(n_bins, length, generator=generator) for length in lengths]


def test_a_shard_holds_the_frames_of_its_clips_one_behind_the_other(tmp_path):
    levels = random_levels(4, 1, 7)
    path, firsts = write_shard(levels, tmp_path)
    assert re.fullmatch(r"shards/[0-9a-f]{16}\.safetensors", path)
    assert firsts == [0, 4, 5]
    frames = open_shard(tmp_path / path)
    assert frames.shape == (12, 3)
    for level, first in zip(levels, firsts, strict=True):
        assert torch.equal(frames[first : first + level.shape[1]].T, level)
    assert load_file(tmp_path / path)["offsets"].tolist() == [0, 4, 5, 12]
    assert [file.name for file in (tmp_path / "shards").iterdir()] == [Path(path).name]


def test_the_same_clips_have_the_same_name_and_others_another(tmp_path):
    name = write_shard(random_levels(4, 1, 7), tmp_path)[0]
    assert write_shard(random_levels(4, 1, 7), tmp_path)[0] == name
    others = [random_levels(4, 1, 7, seed=1), random_levels(4, 2, 6), random_levels(4, 1)]
    frames = torch.cat(random_levels(4, 1, 7), dim=1)
    others.append([frames[:, :6], frames[:, 6:]])  # the same numbers, otherwise cut
    names = {write_shard(levels, tmp_path)[0] for levels in others}
    assert len(names) == 4
    assert name not in names


WRITE_INTO_A_FULL_DISK = """
import resource, signal, sys, torch
from specgan.data.shards import write_shard
signal.signal(signal.SIGXFSZ, getattr(signal, sys.argv[2]))
resource.setrlimit(resource.RLIMIT_FSIZE, (2000, 2000))
write_shard([torch.rand(64, 64)], sys.argv[1])
"""


@pytest.mark.parametrize(("signal", "left"), [("SIG_IGN", 0), ("SIG_DFL", 1)], ids=["full disk", "killed"])
def test_a_write_that_fails_leaves_nothing_and_a_killed_one_what_is_cleared_away(tmp_path, signal, left):
    run = [sys.executable, "-c", WRITE_INTO_A_FULL_DISK, tmp_path, signal]
    done = subprocess.run(run, capture_output=True, text=True)
    assert done.returncode == -SIGXFSZ if left else "File too large" in done.stderr
    assert len(list(tmp_path.glob("shards/*"))) == left
    remove_shards(tmp_path, keep=[])
    assert not list(tmp_path.iterdir())


DAMAGES = {
    "cut off": lambda path: path.write_bytes(path.read_bytes()[:-5]),
    "cut short": lambda path: path.write_bytes(path.read_bytes()[:20]),
    "empty": lambda path: path.write_bytes(b""),
    "pickled": lambda path: torch.save({"frames": torch.rand(5, 3)}, path),
    "other names": lambda path: save_file({"weights": torch.rand(5, 3)}, path),
    "one dimension": lambda path: save_file({"frames": torch.rand(15)}, path),
    "whole numbers": lambda path: save_file({"frames": torch.ones(5, 3, dtype=torch.int64)}, path),
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
@pytest.mark.parametrize("where", ["file", "url"])
def test_what_is_no_whole_shard_is_refused_by_its_name(tmp_path, damage, where):
    path, _ = write_shard(random_levels(4, 1), tmp_path)
    place = tmp_path / path
    damage(place)
    if where == "url":
        fsspec.filesystem("memory").put(str(place), "/broken.safetensors")
        place = "memory://broken.safetensors"
    with pytest.raises(ValueError, match=f"{place}: .*run the preprocess.py command"):
        open_shard(place)


@pytest.mark.parametrize("place", ["nowhere.safetensors", "memory://nowhere.safetensors"])
def test_a_shard_that_is_not_there_is_named(tmp_path, monkeypatch, place):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"nowhere\.safetensors"):
        open_shard(place)


# Several


@pytest.fixture
def opened(monkeypatch) -> list[str]:
    """The shards that were opened, in their order."""
    places: list[str] = []

    def count(place):
        places.append(str(place))
        return open_shard(place)

    monkeypatch.setattr(shards_module, "open_shard", count)
    return places


def write_several(folder: Path, n: int) -> list[str]:
    return [str(folder / write_shard(random_levels(4, seed=seed), folder)[0]) for seed in range(n)]


def test_the_last_used_stay_open(tmp_path, opened):
    places = write_several(tmp_path, 4)
    shards = Shards(places, n_frames=[4] * 4, n_bins=3, n_open=2)
    assert len(shards) == 4
    for number in (0, 1, 0, 1, 2, 1, 0):  # 2 closes 0, which was used before 1
        assert torch.equal(shards[number], open_shard(places[number]))
    assert opened == [places[number] for number in (0, 1, 2, 0)]
    assert shards.open_first([0, 1, 2, 3]) == [0, 1, 2, 3]
    assert shards.open_first([3, 2, 1, 0]) == [1, 0, 3, 2]


def test_a_process_that_is_sent_them_opens_its_own(tmp_path):
    shards = Shards(write_several(tmp_path, 2), n_frames=[4] * 2, n_bins=3, n_open=2)
    closed = len(pickle.dumps(shards))
    frames = shards[0].clone()
    assert len(pickle.dumps(shards)) == closed
    assert torch.equal(pickle.loads(pickle.dumps(shards))[0], frames)


@pytest.mark.parametrize("expected", [{"n_frames": [5]}, {"n_bins": 4}])
def test_a_shard_without_all_that_the_manifest_tells_of_is_refused(tmp_path, expected):
    places = write_several(tmp_path, 1)
    with pytest.raises(ValueError, match=rf"{places[0]}: has 4 frames of 3 bins"):
        Shards(places, **({"n_frames": [4], "n_bins": 3} | expected), n_open=1)[0]


def test_n_open_is_at_least_one(made):
    with pytest.raises(ValueError, match="n_open is 0; at least 1"):
        SpectrogramDataset(made, "train", EXAMPLES, n_open=0)


def test_removing_shards_leaves_those_to_keep_and_files_of_others(tmp_path):
    kept, gone = (Path(place) for place in write_several(tmp_path, 2))
    for name in ("notes.txt", "mine.safetensors", ".partial-1-2-3.safetensors"):
        (tmp_path / "shards" / name).write_text("x")
    remove_shards(tmp_path, keep=[f"shards/{kept.name}"])
    assert {path.name for path in (tmp_path / "shards").iterdir()} == {kept.name, "notes.txt", "mine.safetensors"}
    assert not gone.exists()
    remove_shards(tmp_path / "nowhere", keep=[])


# Making them


@pytest.mark.parametrize("executor", [serial, partial(ThreadPoolExecutor, 3), Processes(2)])
def test_shards_hold_what_files_hold_wherever_they_are_made(audio, files, made, tmp_path, executor):
    report = make(audio, tmp_path / "specs", executor=executor)
    assert (report.n_done, report.n_skipped, report.failures) == (N, 0, [])
    assert_same_manifest(tmp_path / "specs", files)
    assert_same_dataset(tmp_path / "specs", files)
    assert_no_other_shards(tmp_path / "specs")
    assert read_manifest(tmp_path / "specs").groupby("path").size().max() == 6
    assert {path.name for path in (tmp_path / "specs").iterdir()} == {
        *("manifest.csv", "params.yaml", ".journal.jsonl", "shards")
    }
    for name in (*shard_files(made), "manifest.csv", "params.yaml"):
        assert (tmp_path / "specs" / name).read_bytes() == (made / name).read_bytes()


@pytest.mark.parametrize(
    "settings",
    [
        {"params": replace(PARAMS, n_frames=20)},
        {"params": replace(PARAMS, level="log1p")},
        {"peak": 0.5},
    ],
    ids=["slices", "log1p", "peak"],
)
def test_whatever_is_made_is_the_same_as_in_files(audio, tmp_path, settings):
    folders = [tmp_path / "shards", tmp_path / "files"]
    for folder, file_format in zip(folders, ("shards", "pt"), strict=True):
        make(audio, folder, format=file_format, **settings)
    assert_same_manifest(*folders)
    tables = [read_manifest(folder).itertuples() for folder in folders]
    for row, twin in zip(*tables, strict=True):
        level = open_shard(folders[0] / row.path)[row.first_frame :][: row.n_frames].T
        assert torch.equal(level, torch.load(folders[1] / twin.path, weights_only=True))


def test_a_shard_has_all_labels_and_one_split(made):
    table = read_manifest(made)
    assert table.groupby("path")["split"].nunique().eq(1).sum() >= 5  # but where the clips of two splits meet
    train = table[table["split"] == "train"]
    assert train["path"].nunique() == 4
    assert train.groupby("path")["label"].nunique().eq(2).all()


def test_a_full_shard_is_followed_by_another(audio, files, tmp_path, monkeypatch):
    monkeypatch.setattr(making_module, "SHARD_BYTES", 100 * 16 * 4)
    monkeypatch.setattr(making_module, "_MOST_SMALL", 1000)  # none are joined
    monkeypatch.setattr(levels_module, "_GROUP_SAMPLES", 1)
    make(audio, tmp_path, shard_size=100)
    assert_same_dataset(tmp_path, files)
    n_frames = read_manifest(tmp_path).groupby("path")["n_frames"].sum()
    assert len(n_frames) > 5
    assert n_frames.max() < 100 + 45  # the last clip may exceed it
    assert n_frames.sort_values().iloc[1:].min() >= 100


def test_long_recordings_come_in_blocks(audio, tmp_path, monkeypatch):
    monkeypatch.setattr(levels_module, "open_audio", partial(open_audio, block_frames=3000))
    make(audio, tmp_path, peak=0.5)
    monkeypatch.undo()
    make(audio, tmp_path / "files", peak=0.5, format="pt")
    assert_same_manifest(tmp_path, tmp_path / "files")
    ours, theirs = (examples(folder, "train") for folder in (tmp_path, tmp_path / "files"))
    for key, (level, *_) in ours.items():
        torch.testing.assert_close(level, theirs[key][0], rtol=0, atol=1e-3)


def test_on_a_device_they_are_the_same_within_rounding(audio, files, tmp_path, monkeypatch):
    monkeypatch.setattr(device_module, "_BATCH_SAMPLES", 20_000)
    make(audio, tmp_path, device="cpu:0")  # the CPU, but as a device of its own
    assert_same_manifest(tmp_path, files)
    assert len(shard_files(tmp_path)) > 2
    ours, theirs = examples(tmp_path, "train"), examples(files, "train")
    for key, (level, *_) in ours.items():
        torch.testing.assert_close(level, theirs[key][0], rtol=0, atol=1e-4)


def test_a_bad_recording_costs_itself_alone(audio, files, tmp_path):
    shutil.copytree(audio, tmp_path / "audio")
    bad = tmp_path / "audio" / "rush" / "7.wav"
    bad.write_bytes(b"no sound at all")
    report = make(tmp_path / "audio", tmp_path / "specs")
    assert (report.n_done, [failure.path for failure in report.failures]) == (N - 1, [str(bad)])
    assert len(read_manifest(tmp_path / "specs")) == N - 1
    report = make(tmp_path / "audio", tmp_path / "specs")
    assert (report.n_done, report.n_skipped, len(report.failures)) == (0, N - 1, 1)
    shutil.copy(audio / "rush" / "7.wav", bad)
    assert make(tmp_path / "audio", tmp_path / "specs").n_done == 1
    assert [Path(source).name for source in read_manifest(tmp_path / "specs")["source"]] == [
        Path(source).name for source in read_manifest(files)["source"]
    ]


def test_a_shard_that_cannot_be_written_fails_its_recordings(audio, tmp_path, monkeypatch):
    n_calls = 0

    def write(levels, folder):
        nonlocal n_calls
        n_calls += 1
        if n_calls == 2:
            raise OSError("disk full")
        return write_shard(levels, folder)

    with monkeypatch.context() as patch:
        patch.setattr(making_module, "write_shard", write)
        report = make(audio, tmp_path, splits=(100, 0, 0))
    assert (report.n_done, len(report.failures)) == (N - 6, 6)
    with (tmp_path / "failures.csv").open(newline="") as file:
        assert {(row["stage"], row["error"]) for row in csv.DictReader(file)} == {("write", "disk full")}
    assert make(audio, tmp_path, splits=(100, 0, 0)).n_done == 6


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"mono": False}, "format is 'shards', of which all clips have as many channels, and mono is False"),
        ({"shard_size": 0}, "shard_size is 0; an integer of at least 1"),
        ({"shard_size": 0.5}, "shard_size is 0.5"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_is_written(audio, tmp_path, settings, message):
    with pytest.raises(ValueError, match=message):
        make(audio, tmp_path / "specs", **settings)
    assert not (tmp_path / "specs").exists()


@pytest.mark.parametrize("file_format", ["pt", "shards"])
def test_a_label_may_be_called_shards(tmp_path, file_format):
    for i, label in enumerate(("shards", "kick")):
        write_clip(tmp_path / "audio" / label / "x.wav", n_samples=2000, seed=i)
    for _ in range(2):
        make(tmp_path / "audio", tmp_path / "specs", format=file_format, splits=(100, 0, 0))
        dataset = SpectrogramDataset(tmp_path / "specs", "train", EXAMPLES)
        assert sorted(dataset.class_names[label] for _, label in dataset) == ["kick", "shards"]


# The second run


def test_a_second_run_makes_nothing(audio, specs):
    before = shard_files(specs)
    report = make(audio, specs)
    assert (report.n_done, report.n_skipped) == (0, N)
    assert shard_files(specs) == before


def test_other_splits_make_no_shard(audio, specs):
    before = shard_files(specs)
    assert make(audio, specs, splits=(50, 25, 25), seed=5).n_done == 0
    assert shard_files(specs) == before
    make(audio, specs.with_name("files"), splits=(50, 25, 25), seed=5, format="pt")
    assert_same_dataset(specs, specs.with_name("files"))


def change(path: Path) -> None:
    modified = path.stat().st_mtime_ns
    write_clip(path, n_samples=3000, seed=999)
    os.utime(path, ns=(modified + 10**9,) * 2)


def test_changed_and_new_and_removed_sources(audio, tmp_path):
    """And a shard goes when no row refers to it any more, not before."""
    shutil.copytree(audio, tmp_path / "audio")
    specs = tmp_path / "specs"
    settings = {"splits": (100, 0, 0)}
    make(tmp_path / "audio", specs, **settings)
    before = shard_files(specs)
    of_shard = defaultdict(list)
    for row in read_manifest(specs).itertuples():
        of_shard[row.path].append(Path(row.source))
    first, second, third, *_ = of_shard
    for source in (*of_shard[first], of_shard[second][0]):
        change(source)
    of_shard[third][0].unlink()
    write_clip(tmp_path / "audio" / "hiss" / "new.wav", n_samples=1000, seed=5)
    report = make(tmp_path / "audio", specs, **settings)
    assert (report.n_done, report.n_skipped) == (6 + 1 + 1, N - 8)
    after = shard_files(specs)
    assert first not in after
    assert {name: after[name] for name in before if name != first} == {
        name: time for name, time in before.items() if name != first
    }
    make(tmp_path / "audio", tmp_path / "files", format="pt", **settings)
    assert_same_manifest(specs, tmp_path / "files")
    assert_same_dataset(specs, tmp_path / "files")
    assert_no_other_shards(specs)


@pytest.mark.parametrize(
    "settings", [{"params": replace(PARAMS, n_mels=8)}, {"peak": 0.5}, {"format": "pt"}, {}], ids=str
)
def test_other_settings_leave_nothing_of_the_old(audio, files, made, tmp_path, settings):
    specs, fresh = tmp_path / "specs", tmp_path / "fresh"
    shutil.copytree(made if settings else files, specs)
    assert make(audio, specs, **settings).n_done == N
    make(audio, fresh, **settings)
    assert {path.relative_to(specs) for path in specs.rglob("*")} == {
        path.relative_to(fresh) for path in fresh.rglob("*")
    }


def test_an_interrupted_run_goes_on_where_it_was(audio, files, tmp_path, monkeypatch):
    n_calls = 0

    def read(path, **settings):
        nonlocal n_calls
        n_calls += 1
        if n_calls > 20:
            raise KeyboardInterrupt
        return open_audio(path, **settings)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(levels_module, "open_audio", read)
        make(audio, tmp_path)
    before = shard_files(tmp_path)
    assert len(before) == 3
    orphan, _ = write_shard(random_levels(5), tmp_path)  # as of a worker that was killed before it was noted
    (tmp_path / "shards" / ".partial-0-0-0.safetensors").write_bytes(b"half")
    report = make(audio, tmp_path)
    assert (report.n_done, report.n_skipped) == (N - 18, 18)
    after = shard_files(tmp_path)
    assert before.items() <= after.items()
    assert orphan not in after
    assert_no_other_shards(tmp_path)
    assert_same_manifest(tmp_path, files)
    assert_same_dataset(tmp_path, files)


def test_many_small_shards_are_joined(audio, files, tmp_path):
    make(audio, tmp_path, shard_size=2)
    assert len(shard_files(tmp_path)) == N / 2
    report = make(audio, tmp_path, shard_size=16)
    assert (report.n_done, report.n_skipped) == (0, N)
    joined = shard_files(tmp_path)
    assert len(joined) == 3
    assert_no_other_shards(tmp_path)
    assert_same_manifest(tmp_path, files)
    assert_same_dataset(tmp_path, files)
    assert make(audio, tmp_path, shard_size=16).n_done == 0
    assert shard_files(tmp_path) == joined


# Reading them


def test_a_folder_may_be_a_url(files, in_memory):
    assert_same_dataset(in_memory, files)
    assert_same_manifest(in_memory, files)


def test_files_may_be_at_a_url_too(files):
    assert_same_dataset(f"{to_memory(files)}/", files)


def test_nothing_at_a_url_is_named():
    with pytest.raises(FileNotFoundError, match=r"memory://nowhere/params\.yaml: no such file"):
        SpectrogramDataset("memory://nowhere", "train", EXAMPLES)
    with pytest.raises(FileNotFoundError, match=r"memory://nowhere/manifest\.csv: no such file"):
        read_manifest("memory://nowhere")


def epoch(folder, *, num_workers: int = 0, **settings) -> list[tuple[torch.Tensor, torch.Tensor]]:
    dataset = SpectrogramDataset(folder, "train", EXAMPLES, **settings)
    order = dataset.order(torch.Generator().manual_seed(3)).tolist()
    places = [(index, i / len(order)) for i, index in enumerate(order)]
    batches = [places[i : i + 5] for i in range(0, len(places), 5)]
    return list(DataLoader(dataset, batch_sampler=batches, collate_fn=as_batched, num_workers=num_workers))


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded")
@pytest.mark.parametrize("where", ["file", "url"])
def test_workers_give_the_same_batches(made, in_memory, where):
    none, two = (epoch(made if where == "file" else in_memory, num_workers=n, n_open=2) for n in (0, 2))
    assert len(none) == 5
    for batch, twin in zip(none, two, strict=True):
        assert torch.equal(batch[0], twin[0])
        assert torch.equal(batch[1], twin[1])


@pytest.mark.parametrize("n_open", [1, 2, 100])
def test_a_batch_is_its_examples_one_by_one(made, n_open):
    dataset = SpectrogramDataset(made, "train", EXAMPLES, n_open=n_open)
    items = [(5, 0.3), (20, 1.0), (0, 0.0), (5, 0.9), (11, 0.5)]
    spectrograms, labels = dataset.__getitems__(items)
    assert spectrograms.shape == (5, 1, 16, 16)
    for item, spectrogram, label in zip(items, spectrograms, labels, strict=True):
        assert torch.equal(spectrogram, dataset[item][0])
        assert label == dataset[item][1]


@pytest.mark.parametrize("n_open", [1, 2, 3, 100])
def test_an_epoch_reads_each_shard_once(made, opened, n_open):
    epoch(made, n_open=n_open)
    assert len(opened) == len(set(opened)) == read_manifest(made, split="train")["path"].nunique() == 4


def test_the_order_is_a_permutation_that_the_generator_decides(made):
    dataset = SpectrogramDataset(made, "train", EXAMPLES, n_open=2)
    generator = torch.Generator().manual_seed(0)
    first, second = dataset.order(generator), dataset.order(generator)
    assert first.dtype == torch.int64
    assert sorted(first.tolist()) == sorted(second.tolist()) == list(range(24))
    assert not torch.equal(first, second)
    assert torch.equal(dataset.order(torch.Generator().manual_seed(0)), first)


def test_the_order_mixes_a_few_shards_at_a_time_and_all_in_turn(made):
    dataset = SpectrogramDataset(made, "train", EXAMPLES, n_open=2)
    shard_of = {source: path for path, source in read_manifest(made)[["path", "source"]].itertuples(index=False)}
    pairs = set()
    for seed in range(20):
        shards = [shard_of[dataset.sources[i]] for i in dataset.order(torch.Generator().manual_seed(seed))]
        changes = [i for i in range(1, 24) if not set(shards[:i]) & set(shards[i:])]
        assert len(changes) == 1  # between the two windows
        assert sum(a != b for a, b in itertools.pairwise(shards)) > 5  # mixed, not one behind the other
        pairs.add(frozenset(shards[: changes[0]]))
    assert len(pairs) > 3


def test_copies_of_a_clip_come_spread_over_the_turn_of_its_shards(made):
    dataset = SpectrogramDataset(made, "train", EXAMPLES, n_open=2)
    copies = torch.arange(24) % 4
    order = dataset.order(torch.Generator().manual_seed(1), copies)
    assert torch.equal(order.bincount(minlength=24), copies)
    once = dataset.order(torch.Generator().manual_seed(1), torch.ones(24, dtype=torch.int64))
    is_first = torch.isin(order, once[:12])
    assert is_first.equal(torch.arange(36) < is_first.sum())  # one window behind the other
    for part in (order[is_first], order[~is_first]):
        for index in (copies == 3).nonzero()[:, 0]:
            places = (part == index).nonzero()[:, 0] * 3 // len(part)  # about one in each third
            assert not len(places) or places[-1] - places[0] >= 1


def rewrite(folder: Path, **values) -> None:
    table = read_manifest(folder)
    for column, value in values.items():
        table[column] = table[column].astype(object)
        table.loc[table["split"] == "train", column] = value
    table.to_csv(folder / "manifest.csv", index=False)


@pytest.mark.parametrize("path", ["../x.safetensors", "shards/../../x", "/etc/x", "..\\x", "memory://x", "C:\\x", ""])
def test_a_path_that_leads_out_of_the_folder_is_refused(specs, path):
    rewrite(specs, path=path)
    with pytest.raises(ValueError, match=f"its manifest has the path {re.escape(repr(path))}"):
        SpectrogramDataset(specs, "train", EXAMPLES)


@pytest.mark.parametrize("path", ["../files/hiss/0.pt", "/etc/x", "s3://elsewhere/0.pt"])
def test_a_path_of_a_file_at_a_url_does_not_lead_out_either(files, tmp_path, path):
    shutil.copytree(files, tmp_path / "specs")
    rewrite(tmp_path / "specs", path=path)
    with pytest.raises(ValueError, match=f"its manifest has the path {re.escape(repr(path))}"):
        SpectrogramDataset(to_memory(tmp_path / "specs"), "train", EXAMPLES)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"first_frame": -1}, "first_frame of its manifest is not a count"),
        ({"first_frame": 0.5}, "first_frame of its manifest is not a count"),
        ({"n_frames": -5}, "n_frames of its manifest is not a count"),
        ({"label": "kick"}, "labels that params.yaml does not know"),
    ],
)
def test_a_manifest_that_cannot_be_is_refused(specs, values, message):
    rewrite(specs, **values)
    with pytest.raises(ValueError, match=message):
        SpectrogramDataset(specs, "train", EXAMPLES)


def test_a_manifest_of_more_frames_than_there_are_is_refused_by_the_shard(specs):
    rewrite(specs, n_frames=10**6)
    with pytest.raises(ValueError, match=r"[0-9a-f]{16}\.safetensors: has \d+ frames of 16 bins, but the manifest"):
        SpectrogramDataset(specs, "train", EXAMPLES)[0]


def test_a_broken_shard_of_a_dataset_is_named(specs):
    path = specs / read_manifest(specs, split="val")["path"][0]
    DAMAGES["cut off"](path)
    SpectrogramDataset(specs, "train", EXAMPLES)[0]
    with pytest.raises(ValueError, match=path.name):
        epoch_of_val = SpectrogramDataset(specs, "val", EXAMPLES)
        epoch_of_val.__getitems__(range(len(epoch_of_val)))


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have no such file names")
def test_names_that_are_not_utf8(tmp_path):
    name = os.fsdecode(b"caf\xe9")
    for i in range(2):
        (tmp_path / "audio" / name).mkdir(parents=True, exist_ok=True)
        write_clip(tmp_path / "plain.wav", n_samples=2000, seed=i).rename(tmp_path / "audio" / name / f"{name}{i}.wav")
    make(tmp_path / "audio", tmp_path / f"specs-{name}", splits=(100, 0, 0), keep_sounds=2)
    dataset = SpectrogramDataset(tmp_path / f"specs-{name}", "train", EXAMPLES)
    assert dataset.class_names == [name]
    assert dataset.waveforms([(0, 0.0)]).abs().max() > 0.05
    assert dataset[1][0].max() > -1


def test_waveforms_are_those_of_the_examples(audio, tmp_path):
    for format in ("shards", "pt"):
        make(audio, tmp_path / format, format=format, keep_sounds=24)
    ours, theirs = (SpectrogramDataset(tmp_path / format, "train", EXAMPLES) for format in ("shards", "pt"))
    for i in (0, 9, 23):
        twin = theirs.sources.index(ours.sources[i])
        assert torch.equal(ours.waveforms([(i, 0.7)]), theirs.waveforms([(twin, 0.7)]))


def test_some_clips_of_a_dataset_in_shards(made):
    whole = SpectrogramDataset(made, "train", EXAMPLES, n_open=2)
    few = whole.limited(3, generator=torch.Generator().manual_seed(0))
    assert few.labels.bincount().tolist() == [3, 3]
    for index, source in enumerate(few.sources):
        twin = whole.sources.index(source)
        assert torch.equal(few[index, 0.4][0], whole[twin, 0.4][0])
    assert sorted(few.order(torch.Generator().manual_seed(0)).tolist()) == list(range(6))
    fewest = whole.limited(1, generator=torch.Generator().manual_seed(0))  # in two of the shards at most
    assert sorted(fewest.order(torch.Generator().manual_seed(0)).tolist()) == [0, 1]
