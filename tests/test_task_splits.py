"""task=splits: fair splits on disk, whatever the names, after failures, after kills, and beside files of others."""

import csv
import errno
import os
import shutil
from collections import Counter
from dataclasses import asdict, replace
from pathlib import Path

import pandas as pd
import pytest
import torch
import yaml
from folders import contents
from runs import run

from specgan.audio import save_wav
from specgan.batch.runner import UnitError
from specgan.data.dataset import SpectrogramDataset
from specgan.data.manifest import read_manifest, write_manifest
from specgan.files import walk_folders
from specgan.spectrogram import SpectrogramParams
from specgan.tasks.spectrograms import make_spectrograms
from specgan.tasks.splits import make_splits

ROOT = Path(__file__).parents[1]
PARAMS = SpectrogramParams(sample_rate=8000, n_fft=256, win_length=256, hop_length=128, n_mels=16, n_frames=16)
MODES = ["copy", "symlink", "hardlink", "manifest"]


def write_files(root: Path, *names: str) -> Path:
    """Files that hold their own name."""
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(os.fsencode(name))
    return root


def sounds(n: int = 10, labels=("kick", "snare")) -> list[str]:
    return [f"{label}/{i}.wav" for label in labels for i in range(n)]


@pytest.fixture
def clips(tmp_path) -> Path:
    return write_files(tmp_path / "clips", *sounds())


@pytest.fixture
def out(tmp_path) -> Path:
    return tmp_path / "out"


def split(clips: Path, out: Path, **settings):
    return make_splits(clips, out, **{"ext": ".wav", **settings})


def write_dataset(root: Path, levels: dict[str, float], *, level: str = "db", slices: int = 1) -> Path:
    """A dataset folder of constant tensors: for `kick/1` its highest level, `slices` times."""
    rows = []
    for recording, value in levels.items():
        for i in range(slices):
            path = f"{recording}_{i}.pt"
            (root / path).parent.mkdir(parents=True, exist_ok=True)
            torch.save(torch.full((PARAMS.n_mels, 20), value), root / path)
            row = {"path": path, "label": path.split("/")[0], "split": "train", "recording": recording}
            rows.append(
                row | {"start_s": 0.0, "duration_s": 0.32, "n_frames": 20, "source": f"/sounds/{recording}.wav"}
            )
    write_manifest(pd.DataFrame(rows), root)
    params = replace(PARAMS, level=level)
    spectrogram = {name: value for name, value in asdict(params).items() if name != "n_frames"}
    level_range = {"low": params.silence, "high": 99.0}
    info = {"spectrogram": spectrogram, "peak": None, "input": "/sounds", "level_range": level_range}
    (root / "params.yaml").write_text(yaml.safe_dump(info | {"class_names": ["kick", "snare"]}))
    return root


def dataset_levels(n: int = 10) -> dict[str, float]:
    return {f"{label}/{i}": -10.0 - 2 * i - k for k, label in enumerate(("kick", "snare")) for i in range(n)}


# What stands in the folder


def test_files_stand_where_the_manifest_says_by_the_percentages(clips, out):
    report = split(clips, out)
    table = read_manifest(out)
    assert list(table.columns) == ["path", "label", "split", "recording", "source"]
    assert table["path"].is_monotonic_increasing
    counts = Counter(zip(table["label"], table["split"], strict=True))
    assert counts == {(label, s): n for label in ("kick", "snare") for s, n in (("train", 8), ("val", 1), ("test", 1))}
    for row in table.itertuples():
        name = Path(row.source).name
        assert row.path == f"{row.split}/{row.label}/{name}"
        assert (out / row.path).read_text() == row.recording + ".wav" == f"{row.label}/{name}"
        assert row.source == str((clips / row.label / name).resolve())
    assert set(contents(out)) == {*table["path"], "manifest.csv"}
    assert (report.n_done, report.n_skipped, report.failures) == (20, 0, [])
    assert f"{out}: train 16, val 2, test 2 files; of each label: kick 8/1/1, snare 8/1/1" in str(report)
    assert len(contents(clips)) == 20


def test_labels_from_the_name(tmp_path, out):
    write_files(tmp_path / "clips", *(f"{label}_x_{i}.wav" for label in ("0", "1") for i in range(5)))
    split(tmp_path / "clips", out, label_from="prefix")
    assert Counter(read_manifest(out)["label"]) == {"0": 5, "1": 5}
    assert (out / read_manifest(out)["path"][0]).parent.parent.parent == out


@pytest.mark.parametrize("ext", [".wav", "wav", "WAV", ".Wav"])
def test_extensions_in_either_case_with_or_without_dot(tmp_path, out, ext):
    names = ["a/1.wav", "a/2.WAV", "a/3.Wav", "a/4.wave", "a/wav", "a/5.wav.txt", "a/.6.wav", ".b/7.wav"]
    write_files(tmp_path / "clips", *names)
    split(tmp_path / "clips", out, ext=ext)
    assert sorted(Path(path).name for path in read_manifest(out)["path"]) == ["1.wav", "2.WAV", "3.Wav"]


def test_a_seed_deals_the_same_to_the_byte_and_another_differently(clips, tmp_path):
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        split(clips, tmp_path / name, seed=seed)
    assert contents(tmp_path / "a") == contents(tmp_path / "b")
    assert set(contents(tmp_path / "a")) != set(contents(tmp_path / "c"))


def test_the_order_of_the_folder_does_not_matter(clips, tmp_path, monkeypatch):
    split(clips, tmp_path / "a")
    folders = [(folder, names[::-1]) for folder, names in walk_folders(clips)]
    monkeypatch.setattr("specgan.tasks.splits.walk_folders", lambda *_, **__: reversed(folders))
    split(clips, tmp_path / "b")
    assert contents(tmp_path / "a") == contents(tmp_path / "b")


@pytest.mark.parametrize("mode", MODES)
def test_modes(clips, out, mode):
    out.parent.joinpath("linked").symlink_to(clips, target_is_directory=True)
    split(clips.parent / "linked", out, mode=mode)
    table = read_manifest(out)
    for row in table.itertuples():
        original, path = clips / row.label / Path(row.path).name, out / row.path
        assert path.read_bytes() == original.read_bytes()
        assert path.is_symlink() == (mode == "symlink")
        assert path.samefile(original) == (mode != "copy")
        if mode == "symlink":
            assert os.readlink(path) == str(original.resolve())
        if mode == "manifest":
            assert row.path == f"../clips/{row.label}/{original.name}"
    files = [path for path in out.rglob("*") if not path.is_dir()]
    assert len(files) == (1 if mode == "manifest" else 21)


def test_relative_folders(clips, monkeypatch):
    monkeypatch.chdir(clips)
    split(Path("."), Path("./split"), mode="symlink")
    table = read_manifest("split")
    assert set(table["label"]) == {"kick", "snare"}
    assert all((Path("split") / path).is_file() for path in table["path"])
    before = contents(Path("split"))
    split(Path("."), Path("./split"), mode="symlink")  # its own files are not dealt again
    assert contents(Path("split")) == before
    monkeypatch.chdir(clips / "kick")
    assert split(Path("."), Path("../../kicks")).message.endswith("of each label: kick 8/1/1")


def test_manifest_paths_survive_a_linked_output(clips, tmp_path):
    (tmp_path / "deep" / "real").mkdir(parents=True)
    (tmp_path / "out").symlink_to(tmp_path / "deep" / "real", target_is_directory=True)
    split(clips, tmp_path / "out", mode="manifest")
    assert all((tmp_path / "out" / path).is_file() for path in read_manifest(tmp_path / "out")["path"])


# Recordings


def recordings_by_split(out: Path) -> dict[str, set]:
    table = read_manifest(out)
    return {recording: set(splits) for recording, splits in table.groupby("recording")["split"]}


@pytest.mark.parametrize("seed", range(5))
def test_slices_stay_with_their_recording_as_the_manifest_of_the_input_says(tmp_path, out, seed):
    specs = write_dataset(tmp_path / "specs", dataset_levels(), slices=4)
    make_splits(specs, out, seed=seed)
    by_split = recordings_by_split(out)
    assert set(by_split) == set(dataset_levels())
    assert all(len(splits) == 1 for splits in by_split.values())
    assert Counter(next(iter(splits)) for splits in by_split.values()) == {"train": 16, "val": 2, "test": 2}
    assert set(read_manifest(out)["source"]) == {f"/sounds/{name}.wav" for name in dataset_levels()}


def test_pictures_beside_tensors_have_their_recordings(tmp_path, out):
    specs = write_dataset(tmp_path / "specs", dataset_levels(), slices=2)
    for path in list(specs.rglob("*.pt")):
        path.with_suffix(".png").write_text("picture")
    make_splits(specs, out, ext="png")
    make_splits(specs, tmp_path / "tensors")
    pictures, tensors = read_manifest(out), read_manifest(tmp_path / "tensors")
    assert pictures["path"].str.replace(".png", ".pt").tolist() == tensors["path"].tolist()
    assert pictures.drop(columns="path").equals(tensors.drop(columns="path"))
    assert not (out / "params.yaml").exists()  # no tensors, no dataset for train.py


def test_a_split_can_be_split_again(tmp_path, out):
    specs = write_dataset(tmp_path / "specs", dataset_levels(), slices=3)
    make_splits(specs, tmp_path / "first", mode="symlink")
    make_splits(tmp_path / "first", out, seed=7)
    assert set(recordings_by_split(out)) == set(dataset_levels())
    assert all(len(splits) == 1 for splits in recordings_by_split(out).values())


def test_a_pattern_names_the_recording_within_its_folder(tmp_path, out):
    names = [f"{label}/take{i}_{k}.wav" for label in ("kick", "snare") for i in range(10) for k in range(5)]
    split(write_files(tmp_path / "clips", *names), out, recording_pattern=r"^(.+)_\d+$")
    by_split = recordings_by_split(out)
    assert set(by_split) == {f"{label}/take{i}" for label in ("kick", "snare") for i in range(10)}
    assert all(len(splits) == 1 for splits in by_split.values())
    assert Counter(read_manifest(out)["split"]) == {"train": 80, "val": 10, "test": 10}


def test_the_pattern_wins_over_the_manifest(tmp_path, out):
    specs = write_dataset(tmp_path / "specs", dataset_levels(), slices=1)
    (specs / "kick" / "new_0.pt").write_bytes((specs / "kick" / "1_0.pt").read_bytes())
    make_splits(specs, out, recording_pattern="^(.)", splits=(50, 50, 0))
    table = read_manifest(out).set_index("path")
    assert set(table["recording"]) == {*dataset_levels(), "kick/n"}
    sources = dict(zip(table["recording"], table["source"], strict=True))
    assert sources["kick/3"] == "/sounds/kick/3.wav"
    assert sources["kick/n"] == str(specs / "kick" / "new_0.pt")


@pytest.mark.parametrize(
    ("pattern", "reason"),
    [
        ("^(take", "missing \\)"),
        ("take", "no such group"),
        (r"^(.+)_\d+$", "it finds nothing there"),
        ("^(x?)take", "it finds nothing there"),
    ],
    ids=["no expression", "no group", "no match", "empty match"],
)
def test_a_pattern_that_gives_no_recording_is_refused(tmp_path, out, pattern, reason):
    write_files(tmp_path / "clips", "kick/take.wav")
    message = rf"recording_pattern .* for .*take\.wav: {reason}.*e\.g\. recording_pattern="
    with pytest.raises(ValueError, match=message) as info:
        split(tmp_path / "clips", out, recording_pattern=pattern)
    assert repr(pattern) in str(info.value)
    assert not out.exists()


def test_a_file_that_the_manifest_does_not_list_is_refused(tmp_path, out):
    specs = write_dataset(tmp_path / "specs", dataset_levels())
    (specs / "kick" / "slice.pt").write_bytes(b"")
    with pytest.raises(ValueError, match=r"slice\.pt: .*manifest\.csv does not list it.*recording_pattern"):
        make_splits(specs, out)
    assert not out.exists()


def test_a_table_of_another_program_says_nothing(clips, out, caplog):
    (clips / "manifest.csv").write_text("filename,category\n1.wav,kick\n")
    assert split(clips, out).n_done == 20
    assert "clips/manifest.csv is not specgan's" in caplog.text


def test_a_recording_of_two_labels_is_refused(tmp_path, out):
    names = [f"{label}_kit{i}.wav" for label in ("kick", "snare") for i in range(5)]
    write_files(tmp_path / "clips", *names)
    with pytest.raises(ValueError, match="recording 'kit0' has files of several labels: kick, snare"):
        split(tmp_path / "clips", out, label_from="prefix", recording_pattern="(kit.)")
    assert not out.exists()


@pytest.mark.parametrize("nested", ["dataset", "split"])
def test_a_folder_with_a_manifest_inside_the_input_is_refused(clips, out, nested):
    if nested == "split":
        split(clips, clips / "v1", mode="symlink")
    else:
        write_dataset(clips / "v1", dataset_levels())
    with pytest.raises(ValueError, match="clips/v1: has a manifest of its own"):
        split(clips, out)
    assert not out.exists()


@pytest.mark.parametrize("missing", ["manifest.csv", "level_range"])
def test_an_unfinished_dataset_is_refused(tmp_path, out, missing):
    specs = write_dataset(tmp_path / "specs", dataset_levels())
    if missing == "manifest.csv":
        (specs / missing).unlink()
    else:
        info = yaml.safe_load((specs / "params.yaml").read_text())
        del info["level_range"]
        (specs / "params.yaml").write_text(yaml.safe_dump(info))
    with pytest.raises(ValueError, match="specs: the dataset is not finished"):
        make_splits(specs, out, recording_pattern="(.)")


# Training on the output


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(("level", "statistic"), [("db", max), ("log1p", lambda peaks: sum(peaks) / len(peaks))])
def test_train_opens_the_split_of_a_dataset(tmp_path, out, mode, level, statistic):
    levels = {name: -value for name, value in dataset_levels().items()} if level == "log1p" else dataset_levels()
    specs = write_dataset(tmp_path / "specs", levels, level=level)
    make_splits(specs, out, seed=3, mode=mode, splits=(50, 25, 25))
    table = read_manifest(out)
    params = replace(PARAMS, level=level)
    datasets = {name: SpectrogramDataset(out, name, params) for name in ("train", "val", "test")}
    train = [levels[name] for name in table.loc[table["split"] == "train", "recording"]]
    assert len(train) == 10
    for name, dataset in datasets.items():
        assert dataset.class_names == ["kick", "snare"]
        expected = table[table["split"] == name]
        assert [dataset.class_names[label] for label in dataset.labels] == expected["label"].tolist()
        peaks = [float(dataset.level(index).max()) for index in range(len(dataset))]
        assert peaks == [levels[name] for name in expected["recording"]]
        assert dataset.level_range.low == params.silence
        assert dataset.level_range.high == pytest.approx(statistic(train), rel=1e-6)
        assert dataset[0][0].shape == (1, 16, 16)
    assert statistic(train) != pytest.approx(statistic(list(levels.values())))  # the training split alone counts


def test_from_slices_and_pictures_to_split(tmp_path, out):
    for i in range(5):
        noise = torch.rand(2, 9000, generator=torch.Generator().manual_seed(i)) - 0.5
        save_wav(tmp_path / "clips" / "hiss" / f"{i}.wav", noise, 8000)
    for name, settings in (("slices", {}), ("stereo", {"format": "both", "mono": False})):
        make_spectrograms(tmp_path / "clips", tmp_path / name, params=PARAMS, **settings)
        n_slices = len(read_manifest(tmp_path / name))
        assert n_slices > 5
        for ext, n in (("pt", n_slices), ("png", 2 * n_slices)) if settings else (("pt", n_slices),):
            assert make_splits(tmp_path / name, out, ext=ext, splits=(60, 20, 20)).n_done == n
            by_split = recordings_by_split(out)
            assert set(by_split) == {f"hiss/{i}" for i in range(5)}
            assert all(len(splits) == 1 for splits in by_split.values())


def test_new_labels_of_a_dataset_are_its_classes(tmp_path, out):
    specs = write_dataset(tmp_path / "specs", {f"all/{'ab'[i % 2]}_{i}": -20.0 for i in range(20)})
    make_splits(specs, out, label_from="prefix")
    assert SpectrogramDataset(out, "train", PARAMS).class_names == ["a", "b"]


@pytest.mark.parametrize("mode", ["copy", "symlink"])
def test_from_sounds_to_split(tmp_path, out, mode):
    for i in range(5):
        noise = torch.rand(3000, generator=torch.Generator().manual_seed(i)) - 0.5
        save_wav(tmp_path / "clips" / "hiss" / f"{i}.wav", noise * (1 + i) / 5, 8000)
    whole = replace(PARAMS, n_frames=None)
    specs = tmp_path / "specs"
    make_spectrograms(tmp_path / "clips", specs, params=whole, splits=(60, 20, 20), seed=4, keep_sounds=2)
    for _ in range(2):  # a second split replaces the sounds of the first
        make_splits(specs, out, splits=(60, 20, 20), seed=4, mode=mode)
    before, after = (SpectrogramDataset(folder, "train", PARAMS) for folder in (tmp_path / "specs", out))
    assert sorted(before.sources) == sorted(after.sources)  # the same percentages and seed deal the same
    assert before.level_range == after.level_range
    assert len(before.with_sound) == len(after.with_sound) == 2
    places = [(int(index), 0.0) for index in after.with_sound]
    torch.testing.assert_close(after.waveforms(places), before.waveforms(places), rtol=0, atol=0)


def test_a_folder_of_tensors_that_is_no_dataset(tmp_path, out):
    write_files(tmp_path / "tensors", *(f"a/{i}.pt" for i in range(3)))  # not read, only copied
    make_splits(tmp_path / "tensors", out)
    assert not (out / "params.yaml").exists()


# Runs after runs


def test_a_rerun_leaves_nothing_of_the_older_split_and_everything_of_others(clips, tmp_path, out):
    others = ["README.md", "train/kick/mine.txt", "train/notes/a.wav", ".hidden", "old/x.wav"]
    write_files(out, *others)
    split(clips, out, seed=1)
    for name in sounds(5, ["snare"]):
        (clips / name).unlink()
    new_labels = {"label_from": "prefix", "splits": (100, 0, 0)}  # 0, 1, ...
    for settings in ({"seed": 2}, {"splits": (100, 0, 0)}, {"mode": "symlink"}, new_labels, {}):
        split(clips, out, **settings)
        fresh = tmp_path / "fresh"
        split(clips, fresh, **settings)
        assert contents(out) == contents(fresh) | {name: name.encode() for name in others}
        folders = {path for path in out.rglob("*") if path.is_dir()}
        assert all(any(folder.iterdir()) for folder in folders)
        shutil.rmtree(fresh)
    assert len(contents(clips)) == 15


@pytest.mark.parametrize("mode", MODES)
def test_a_rerun_never_removes_what_links_and_paths_lead_to(clips, tmp_path, out, mode):
    before = contents(clips)
    for seed in (1, 2):
        split(clips, out, mode=mode, seed=seed)
    split(clips, out, mode="manifest")
    assert contents(clips) == before
    assert set(contents(out)) == {"manifest.csv"}


class Killed(BaseException):
    """No code of ours runs after a kill, so every further operation of the dying run raises it again."""


def kill_at(patch, n: int) -> list[str]:
    """From the n-th change of the file system on, nothing changes any more; copies and writes stop half-way."""
    done: list[str] = []

    def wrap(owner, name, half=None):
        original = getattr(owner, name)

        def operation(*args, **kwargs):
            done.append(name)
            if len(done) == n and half is not None:
                half(*args)
            if len(done) >= n:
                raise Killed
            return original(*args, **kwargs)

        patch.setattr(owner, name, operation)

    for name in ("replace", "unlink", "rmdir", "mkdir", "symlink", "link"):
        wrap(os, name)
    write_bytes = Path.write_bytes
    wrap(shutil, "copy2", lambda source, target: write_bytes(target, Path(source).read_bytes()[:2]))
    wrap(Path, "write_text", lambda path, text, *args: write_bytes(path, text.encode()[: len(text) // 2]))
    wrap(pd.DataFrame, "to_csv", lambda table, path, *args: write_bytes(path, b'"pa'))
    return done


@pytest.mark.parametrize(("mode", "before"), [("copy", "nothing"), ("symlink", "split"), ("hardlink", "split")])
def test_a_run_killed_anywhere_is_made_good_by_the_next(tmp_path, mode, before):
    specs = write_dataset(tmp_path / "specs", dataset_levels(3))
    fresh, start = tmp_path / "fresh", tmp_path / "start"
    again = {"seed": 2, "splits": (50, 50, 0), "mode": mode}
    if before == "split":
        make_splits(specs, start, seed=1)
    write_files(start, "README.md", "val/kick/mine.txt")
    make_splits(specs, fresh, **again)
    expected = contents(fresh) | {name: name.encode() for name in ("README.md", "val/kick/mine.txt")}
    n = 0
    while True:
        n += 1
        out = tmp_path / f"out{n}"
        shutil.copytree(start, out)
        with pytest.MonkeyPatch.context() as patch:
            done = kill_at(patch, n)
            try:
                make_splits(specs, out, **again)
            except Killed:
                killed = True
            else:
                killed = False
        if killed and (out / "manifest.csv").exists():
            # the old split before anything was touched, or the new one complete
            assert all((out / path).exists() for path in read_manifest(out)["path"])
        make_splits(specs, out, **again)
        assert contents(out) == expected, (n, done)
        assert all(any(path.iterdir()) for path in out.rglob("*") if path.is_dir())
        shutil.rmtree(out)
        if not killed:
            break
    assert n > (30 if before == "split" else 20)
    assert len(contents(specs)) == 6 + 2


# What is refused, before anything is removed


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"splits": [80, 10, 5]}, r"splits is \[80, 10, 5\]"),
        ({"mode": "move"}, "mode is 'move'; one of copy, symlink, hardlink, manifest"),
        ({"on_error": "ignore"}, "on_error is 'ignore'"),
        ({"label_from": "suffix"}, "label_from is 'suffix'"),
        ({"label_from": "prefix", "separator": ""}, "separator is empty"),
        ({"label_from": "prefix"}, "'0' has 2.*'1' has 2"),  # kick/0.wav, snare/0.wav
        ({"recording_pattern": "x"}, "recording_pattern 'x'"),
        ({"ext": ".flac"}, r"no file with ext=\.flac .*: \.wav \(20\), \.txt \(2\), no extension \(1\)"),
    ],
)
def test_impossible_arguments_change_nothing(clips, out, settings, message):
    write_files(clips, "a.txt", "b.txt", "LICENSE")
    split(clips, out, seed=1)
    before = contents(out)
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        split(clips, out, **settings)
    assert contents(out) == before


def test_a_class_with_too_few_recordings_is_named(tmp_path, out):
    write_files(tmp_path / "clips", *sounds(9), *sounds(2, ["clap"]))
    with pytest.raises(ValueError, match=r"'clap' has 2.*splits=\[100,0,0\]"):
        split(tmp_path / "clips", out)
    assert not out.exists()


def test_no_folder_and_an_empty_one(tmp_path, out):
    with pytest.raises(FileNotFoundError, match="nowhere: no such folder"):
        split(tmp_path / "nowhere", out)
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileNotFoundError, match="no other files"):
        split(tmp_path / "empty", out)
    assert not out.exists()


@pytest.mark.parametrize("where", [".", "kick", "linked"])
def test_an_input_inside_the_output_is_refused(clips, tmp_path, where):
    (tmp_path / "linked").symlink_to(clips / "kick", target_is_directory=True)
    source = tmp_path / "linked" if where == "linked" else clips / where
    before = contents(clips)
    with pytest.raises(ValueError, match="is, or lies in, output"):
        split(source, clips, splits=(100, 0, 0))
    assert contents(clips) == before


def test_a_dataset_as_output_is_refused(clips, tmp_path):
    specs = write_dataset(tmp_path / "specs", dataset_levels())
    before = contents(specs)
    with pytest.raises(ValueError, match=r"specs: its manifest\.csv is not of a split"):
        split(clips, specs)
    assert contents(specs) == before


@pytest.mark.parametrize("name", ["train/kick/0.wav", "train", "val/snare", "failures.csv", "manifest.csv", "."])
def test_files_of_others_in_the_way_are_refused(clips, out, name):
    if name == ".":
        out.write_text("a file")
    else:
        write_files(out, name)
    with pytest.raises(ValueError, match=r"is in the way|is not of a split"):
        split(clips, out, splits=(50, 30, 20) if "val" in name else (100, 0, 0))
    assert out.is_file() or contents(out) == {name: name.encode()}


def test_a_manifest_removes_only_what_a_split_makes(clips, out):
    """A table of the same columns that somebody made by hand: it is replaced, the files that it lists stay."""
    split(clips, out, mode="manifest")
    write_files(out, "mine.wav", "kick/mine.wav", "train/kick/x/mine.wav")
    table = read_manifest(out)
    write_manifest(table.assign(path=["mine.wav", "kick/mine.wav", "train/kick/x/mine.wav", *table["path"][3:]]), out)
    split(clips, out, mode="manifest")
    assert set(contents(out)) == {"mine.wav", "kick/mine.wav", "train/kick/x/mine.wav", "manifest.csv"}


def test_links_into_the_output_are_no_input(clips, out):
    split(clips, out)
    (clips / "kick" / "link.wav").symlink_to(out / read_manifest(out)["path"][0])
    (clips / "more").symlink_to(out / "train" / "kick", target_is_directory=True)
    assert split(clips, out).n_done == 20


def test_a_linked_folder_in_the_output_is_refused(clips, tmp_path, out):
    write_files(tmp_path / "elsewhere", "kick/0.wav")
    out.mkdir()
    (out / "train").symlink_to(tmp_path / "elsewhere", target_is_directory=True)
    with pytest.raises(ValueError, match="out/train: is in the way"):
        split(clips, out)
    # nor does a manifest lead through it
    (out / "train").unlink()
    split(clips, out, splits=(100, 0, 0))
    shutil.rmtree(out / "train")
    (out / "train").symlink_to(tmp_path / "elsewhere", target_is_directory=True)
    split(clips, out, mode="manifest")
    assert (tmp_path / "elsewhere" / "kick" / "0.wav").exists()


# Names and links


@pytest.mark.parametrize("root", ["..up", "-x", ".hidden"])
def test_an_input_with_a_leading_dot_or_dash_makes_a_visible_label_folder(tmp_path, out, root):
    split(write_files(tmp_path / root, "1.wav", "2.wav", "3.wav"), out)
    assert set(read_manifest(out)["label"]) == {root}
    assert all(not Path(path).parent.name.startswith((".", "-")) for path in read_manifest(out)["path"])


def test_the_same_name_in_two_folders_is_two_recordings(tmp_path, out):
    names = [f"kit{i}/kick/a_{k}.wav" for i in range(3) for k in range(2)]
    split(write_files(tmp_path / "clips", *names), out, recording_pattern="^(.)_")
    by_split = recordings_by_split(out)
    assert set(by_split) == {f"kit{i}/kick/a" for i in range(3)}
    assert sorted(next(iter(splits)) for splits in by_split.values()) == ["test", "train", "val"]


@pytest.mark.parametrize("mode", MODES)
def test_an_input_of_links(clips, tmp_path, out, mode):
    """As data stores lay them out: the link has the name, what it leads to has none."""
    for name in sounds():
        (tmp_path / "links" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "store" / name.replace("/", "-")[:-4]).parent.mkdir(exist_ok=True)
        blob = tmp_path / "store" / name.replace("/", "-")[:-4]
        (clips / name).rename(blob)
        (tmp_path / "links" / name).symlink_to(os.path.relpath(blob, (tmp_path / "links" / name).parent))
    split(tmp_path / "links", out, mode=mode)
    table = read_manifest(out)
    assert all((out / row.path).read_text() == row.recording + ".wav" for row in table.itertuples())
    assert all(Path(row.path).suffix == Path(row.source).suffix == ".wav" for row in table.itertuples())
    assert len(contents(tmp_path / "store")) == 20


# Files that cannot be dealt


def failing_copy(monkeypatch, *names: str) -> None:
    copy2 = shutil.copy2

    def failing(source, target):
        if "/".join(Path(source).parts[-2:]) in names:
            raise PermissionError(errno.EACCES, "Permission denied", str(source))
        return copy2(source, target)

    monkeypatch.setattr(shutil, "copy2", failing)


def first_of(out: Path, split: str, label: str) -> str:
    table = read_manifest(out)
    return table.loc[(table["split"] == split) & (table["label"] == label), "recording"].iloc[0] + ".wav"


def test_a_file_that_cannot_be_copied_is_recorded(clips, tmp_path, out, monkeypatch):
    split(clips, out)
    bad = first_of(out, "train", "kick")
    with monkeypatch.context() as patch:
        failing_copy(patch, bad)
        report = split(clips, out)
        assert (report.n_done, len(report.failures)) == (19, 1)
        with (out / "failures.csv").open(newline="") as file:
            ((_, stage, error),) = list(csv.reader(file))[1:]
        assert stage == "write"
        assert "Permission denied" in error
        assert Path(report.failures[0].path) == clips / bad
        assert len(read_manifest(out)) == 19
        assert bad[:-4] not in set(read_manifest(out)["recording"])
        assert len(list(out.rglob("*.wav"))) == 19
        with pytest.raises(UnitError, match=r"write: .*Permission denied"):
            split(clips, out, on_error="raise")
        assert not (out / "manifest.csv").exists()
    split(clips, out)
    split(clips, tmp_path / "fresh")
    assert contents(out) == contents(tmp_path / "fresh")  # failures.csv is gone too


@pytest.mark.parametrize("mode", MODES)
def test_a_link_that_leads_nowhere_is_a_bad_file_in_every_mode(clips, out, mode):
    (clips / "kick" / "dead.wav").symlink_to(clips / "nowhere.wav")
    report = split(clips, out, mode=mode, splits=(100, 0, 0))
    assert [(Path(failure.path).name, failure.stage) for failure in report.failures] == [("dead.wav", "read")]
    assert len(read_manifest(out)) == 20
    assert not any("dead" in path for path in read_manifest(out)["path"])


@pytest.mark.parametrize("mode", MODES)
def test_a_broken_tensor_of_a_dataset_is_a_bad_file(tmp_path, out, mode):
    specs = write_dataset(tmp_path / "specs", dataset_levels(20), slices=1)
    (specs / "kick" / "3_0.pt").write_bytes(b"no tensor")
    report = make_splits(specs, out, mode=mode, splits=(100, 0, 0))
    assert [Path(failure.path).name for failure in report.failures] == ["3_0.pt"]
    assert len(SpectrogramDataset(out, "train", PARAMS)) == 39


def test_a_class_that_loses_its_place_stops_the_run(clips, out, monkeypatch):
    split(clips, out)
    bad = first_of(out, "val", "snare")
    failing_copy(monkeypatch, bad)
    with pytest.raises(ValueError, match=rf"1 of 20 .*label 'snare' without any for val.*{bad}: .*Permission denied"):
        split(clips, out)
    assert not (out / "manifest.csv").exists()
    assert bad in (out / "failures.csv").read_text()


def test_total_failure_is_an_error(clips, out, monkeypatch):
    failing_copy(monkeypatch, *sounds())
    with pytest.raises(ValueError, match="20 of 20 files could not be dealt"):
        split(clips, out)
    assert set(contents(out)) == {"failures.csv", ".unfinished.json"}


def test_a_hard_link_that_cannot_be_names_the_other_modes(clips, out, monkeypatch):
    def link(source, target):
        raise OSError(errno.EXDEV, "Invalid cross-device link", str(source), None, str(target))

    monkeypatch.setattr(os, "link", link)
    with pytest.raises(UnitError, match="Invalid cross-device link; mode=copy or mode=symlink"):
        split(clips, out, mode="hardlink", on_error="raise")
    with pytest.raises(ValueError, match="mode=copy or mode=symlink"):
        split(clips, out, mode="hardlink")


def test_hard_links_across_file_systems_are_refused_before_anything_is_removed(clips, tmp_path):
    shm = Path("/dev/shm")
    if not os.access(shm, os.W_OK) or shm.stat().st_dev == tmp_path.stat().st_dev:
        pytest.skip("no second file system at hand")
    out = shm / f"specgan-test-{os.getpid()}"
    try:
        split(clips, out, seed=1)
        before = contents(out)
        with pytest.raises(ValueError, match="two file systems, mode=hardlink needs one; mode=copy or mode=symlink"):
            split(clips, out, mode="hardlink")
        assert contents(out) == before
    finally:
        shutil.rmtree(out, ignore_errors=True)


# As a user runs it


def test_the_command_line(tmp_path):
    specs = write_dataset(tmp_path / "data" / "specs", {f"x/{'ab'[i % 2]}_{i}": -20.0 - i for i in range(20)}, slices=2)
    settings = ["input=data/specs", "output=data/specs_v1", "task.ext=.pt", "task.label_from=prefix"]
    said = run("preprocess.py", "task=splits", *settings, "task.splits=[80,10,10]", "task.seed=42", cwd=tmp_path)
    assert "data/specs_v1: train 32, val 4, test 4 files; of each label: a 16/2/2, b 16/2/2 (40 made" in said
    make_splits(specs, tmp_path / "same", label_from="prefix", seed=42)
    assert contents(tmp_path / "data" / "specs_v1") == contents(tmp_path / "same")
    assert SpectrogramDataset(tmp_path / "data" / "specs_v1", "train", PARAMS).class_names == ["a", "b"]
    assert sorted(os.listdir(tmp_path)) == ["data", "same"]
