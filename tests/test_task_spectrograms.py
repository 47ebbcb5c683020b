"""task=spectrograms: what stands in a dataset folder, also after failures, changes and interruptions."""

import csv
import os
import shutil
import subprocess
import sys
import time
from collections import Counter
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import torch
import yaml
from folders import contents as everything
from processes import processes_of_group, wait_until

import specgan
from specgan.audio import load_audio, open_audio, save_wav
from specgan.batch import runner
from specgan.batch.failures import UnitError
from specgan.clips import levels
from specgan.data.dataset import SpectrogramDataset
from specgan.data.manifest import read_manifest
from specgan.data.shards import open_shard
from specgan.spectrogram import Spectrogram, SpectrogramParams
from specgan.tasks.spectrograms import make_spectrograms

PARAMS = SpectrogramParams(sample_rate=8000, n_fft=256, win_length=256, hop_length=128, n_mels=16, n_frames=None)
EXAMPLES = replace(PARAMS, n_frames=16)  # to train on


def write_clip(path: Path, *, n_samples: int = 2000, amplitude: float = 0.5, seed: int = 0) -> Path:
    noise = torch.rand(n_samples, generator=torch.Generator().manual_seed(seed)) * 2 - 1
    save_wav(path, amplitude * noise / noise.abs().max(), PARAMS.sample_rate)
    return path


def write_folder(root: Path, counts: dict[str, int]) -> Path:
    """`<root>/<label>/<label>_<i>.wav`, every one another sound of another length."""
    for k, (label, count) in enumerate(counts.items()):
        for i in range(count):
            write_clip(root / label / f"{label}_{i}.wav", n_samples=1500 + 100 * i, seed=100 * k + i)
    return root


@pytest.fixture
def audio(tmp_path) -> Path:
    return write_folder(tmp_path / "audio", {"kick": 4, "snare": 5})


@pytest.fixture
def specs(tmp_path) -> Path:
    return tmp_path / "specs"


def make(audio: Path, output: Path, **settings):
    return make_spectrograms(audio, output, **{"params": PARAMS, **settings})


def contents(folder: Path) -> dict[str, bytes]:
    """Everything but the journal, which has a test of its own."""
    return {name: content for name, content in everything(folder).items() if name != ".journal.jsonl"}


def info_of(folder: Path) -> dict:
    return yaml.safe_load((folder / "params.yaml").read_text())


def level_of(output: Path, source: Path) -> torch.Tensor:
    """The level tensor that the manifest gives for a recording."""
    table = read_manifest(output)
    (path,) = table.loc[table["source"] == str(source.resolve()), "path"]
    return torch.load(output / path, weights_only=True)


def expected_level(source: Path, params: SpectrogramParams = PARAMS) -> torch.Tensor:
    return Spectrogram(params)(load_audio(source, sample_rate=params.sample_rate)[0])[0]


def change(path: Path, *, by_seconds: float, seed: int = 999) -> None:
    """Another sound at the same path, whose modification time is moved."""
    modified = path.stat().st_mtime_ns
    write_clip(path, seed=seed)
    os.utime(path, ns=(modified, modified + round(by_seconds * 1e9)))


# What stands in the folder


def test_dataset_folder_holds_what_is_documented(audio, specs):
    report = make(audio, specs, splits=(50, 25, 25))
    clips = {f"kick/kick_{i}.pt" for i in range(4)} | {f"snare/snare_{i}.pt" for i in range(5)}
    assert set(contents(specs)) == clips | {"manifest.csv", "params.yaml"}
    table = read_manifest(specs).set_index("path")
    assert set(table.index) == clips
    row = table.loc["snare/snare_3.pt"]
    assert (row["label"], row["recording"]) == ("snare", "snare/snare_3")
    assert (row["start_s"], row["n_frames"]) == (0.0, 15)  # 1800 samples in frames of 128
    assert row["duration_s"] == pytest.approx(1800 / 8000)
    assert Path(row["source"]) == (audio / "snare" / "snare_3.wav").resolve()
    assert Counter(table.loc[table["label"] == "kick", "split"]) == {"train": 2, "val": 1, "test": 1}
    assert (report.n_done, report.n_skipped, report.failures) == (9, 0, [])
    assert "kick 4, snare 5" in str(report)


def test_params_file_holds_settings_statistics_and_version(audio, specs):
    make(audio, specs, peak=0.25)
    info = info_of(specs)
    assert info["spectrogram"]["hop_length"] == 128
    assert SpectrogramParams(**info["spectrogram"]) == PARAMS
    assert info["peak"] == 0.25
    assert info["class_names"] == ["kick", "snare"]
    assert info["level_range"]["low"] == PARAMS.floor_db
    assert info["specgan_version"] == specgan.__version__


def test_each_tensor_is_the_spectrogram_of_the_whole_file(audio, specs):
    make(audio, specs)
    for source in audio.rglob("*.wav"):
        torch.testing.assert_close(level_of(specs, source), expected_level(source), rtol=0, atol=0)


def test_files_of_another_rate_are_resampled(tmp_path, specs):
    tone = 0.5 * torch.sin(2 * torch.pi * 1000 * torch.arange(16000) / 16000)
    save_wav(tmp_path / "audio" / "a" / "tone.wav", tone, 16000)
    make(tmp_path / "audio", specs)
    assert read_manifest(specs)["n_frames"].tolist() == [63]  # one second at 8 kHz


def test_statistics_are_of_the_training_split_alone(audio, specs):
    make(audio, specs, splits=(50, 25, 25))
    table = read_manifest(specs)
    before = info_of(specs)["level_range"]
    for source in table.loc[table["split"] != "train", "source"]:
        write_clip(Path(source), amplitude=1.0, n_samples=8000)
    make(audio, specs, splits=(50, 25, 25))
    assert read_manifest(specs)["split"].tolist() == table["split"].tolist()
    assert info_of(specs)["level_range"] == before
    levels = {row.split: level_of(specs, Path(row.source)).max() for row in table.itertuples()}
    assert levels["val"] > before["high"]
    train = [level_of(specs, Path(source)).max() for source in table.loc[table["split"] == "train", "source"]]
    assert before["high"] == pytest.approx(float(max(train)))


def test_log1p_statistics_are_the_mean_of_the_loudest_levels(audio, specs):
    params = replace(PARAMS, level="log1p")
    make(audio, specs, params=params)
    loudest = [expected_level(source, params).max() for source in audio.rglob("*.wav")]
    assert info_of(specs)["level_range"] == {"low": 0.0, "high": pytest.approx(float(sum(loudest)) / 9)}


# Labels


def flat_folder(root: Path, names: list[str]) -> Path:
    for i, name in enumerate(names):
        write_clip(root / name, seed=i)
    return root


def labels_in(output: Path) -> dict[str, int]:
    return dict(Counter(read_manifest(output)["label"]))


PREFIX = {"label_from": "prefix"}


@pytest.mark.parametrize(
    ("names", "settings", "labels"),
    [
        (["a.wav", "b.wav", "c.wav"], {}, {"audio": 3}),
        (["kit1/kick/a.wav", "kit2/kick/b.wav", "kit2/snare/c.wav"], {}, {"kick": 2, "snare": 1}),
        (["dog_1_loud.wav", "dog_2.wav", "cat_1.wav", "bird.wav"], PREFIX, {"dog": 2, "cat": 1, "bird": 1}),
        (["big_dog--1.wav", "big_dog--2--x.wav"], {**PREFIX, "separator": "--"}, {"big_dog": 2}),
        (["a/dog_1.wav", "b/dog_2.wav"], PREFIX, {"dog": 2}),
    ],
    ids=["flat folder", "nested folders", "prefix", "separator", "prefixes in folders"],
)
def test_a_label_is_the_folder_or_the_prefix(tmp_path, specs, names, settings, labels):
    make(flat_folder(tmp_path / "audio", names), specs, **settings)
    assert labels_in(specs) == labels
    assert info_of(specs)["class_names"] == sorted(labels)


@pytest.mark.parametrize("input", [".", "../kicks"])
def test_a_relative_flat_folder_has_its_name(tmp_path, specs, monkeypatch, input):
    monkeypatch.chdir(flat_folder(tmp_path / "kicks", ["a.wav", "b.wav"]))
    make(Path(input), specs)
    assert labels_in(specs) == {"kicks": 2}


def test_linked_files_and_folders_have_the_label_of_where_they_are_seen(tmp_path, specs):
    store = flat_folder(tmp_path / "store", ["0001.wav", "more/0002.wav"])
    (tmp_path / "audio" / "kick").mkdir(parents=True)
    (tmp_path / "audio" / "kick" / "a.wav").symlink_to(store / "0001.wav")
    (tmp_path / "audio" / "snare").symlink_to(store / "more", target_is_directory=True)
    make(tmp_path / "audio", specs)
    assert labels_in(specs) == {"kick": 1, "snare": 1}


@pytest.mark.parametrize(
    ("settings", "labels"),
    [
        ({"classes": ["1"]}, {"1": 3}),
        ({"merge": {"0": "1"}, "classes": ["1"]}, {"1": 5}),
        ({"classes": [0, 1], "merge": {2: 1}}, {"0": 2, "1": 7}),  # as numbers arrive from the command line
    ],
    ids=["classes", "merged first", "numbers"],
)
def test_labels_are_merged_and_then_chosen(tmp_path, specs, settings, labels):
    make(write_folder(tmp_path / "audio", {"0": 2, "1": 3, "2": 4}), specs, **settings)
    assert labels_in(specs) == labels
    assert {path.name for path in specs.iterdir() if path.is_dir()} == set(labels)


def test_small_labels_are_left_out_and_named(tmp_path, specs, caplog):
    audio = write_folder(tmp_path / "audio", {"kick": 3, "ride": 2})
    make(audio, specs, min_recordings=3)
    assert labels_in(specs) == {"kick": 3}
    assert "ride" in caplog.text


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"classes": ["kick", "clap"]}, "label clap; there are kick, snare"),
        ({"classes": [3]}, "label 3; there are kick, snare"),
        ({"merge": {"bd": "kick"}}, "label bd; there are kick, snare"),
        ({"merge": {"kick": "snare"}, "classes": ["kick"]}, "label kick; there are snare"),
        ({"classes": []}, "classes is empty"),
        ({"min_recordings": 6}, "min_recordings is 6: .*5"),
        ({"label_from": "name"}, "label_from is 'name'"),
        ({"label_from": "prefix", "separator": ""}, "separator is empty"),
        ({"peak": 0.0}, "peak is 0.0"),
        ({"peak": 1.5}, "peak is 1.5"),
        ({"on_error": "ignore"}, "on_error is 'ignore'"),
        ({"splits": (80, 10, 5)}, r"splits is \[80, 10, 5\]"),
    ],
)
def test_arguments_that_cannot_work_are_named_and_nothing_is_written(audio, specs, settings, message):
    with pytest.raises(ValueError, match=message):
        make(audio, specs, **settings)
    assert not specs.exists()


def test_a_label_with_too_few_recordings_is_refused_before_anything_is_written(tmp_path, specs):
    audio = write_folder(tmp_path / "audio", {"kick": 10, "ride": 1})
    with pytest.raises(ValueError, match=r"'ride' has 1.*splits=.*min_recordings=3.*merge="):
        make(audio, specs, splits=(80, 10, 10))
    assert not specs.exists()


def test_a_refused_second_run_leaves_the_folder_as_it_was(audio, specs):
    make(audio, specs)
    before = contents(specs)
    with pytest.raises(ValueError, match="min_recordings"):
        make(audio, specs, params=replace(PARAMS, n_mels=8), min_recordings=50)
    assert contents(specs) == before


def test_missing_folder_and_folder_without_audio(tmp_path, specs):
    with pytest.raises(FileNotFoundError, match="nowhere"):
        make(tmp_path / "nowhere", specs)
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "notes.txt").write_text("no sound")
    with pytest.raises(ValueError, match="empty: no audio file"):
        make(tmp_path / "empty", specs)
    assert not specs.exists()


# Failures


def test_a_corrupt_file_is_recorded_and_tried_again_and_the_others_are_made(audio, specs):
    bad = audio / "kick" / "kick_1.wav"
    bad.write_bytes(b"no sound at all")
    for n_done, n_skipped in ((8, 0), (0, 8)):
        report = make(audio, specs)
        assert (report.n_done, report.n_skipped, len(report.failures)) == (n_done, n_skipped, 1)
    assert report.failures[0].path == str(bad)
    with (specs / "failures.csv").open(newline="") as file:
        (row,) = csv.DictReader(file)
    assert (row["path"], row["stage"]) == (str(bad), "decode")
    assert "kick_1.wav" in row["error"]
    assert labels_in(specs) == {"kick": 3, "snare": 5}
    assert not (specs / "kick" / "kick_1.pt").exists()
    write_clip(bad)
    report = make(audio, specs)
    assert (report.n_done, report.n_skipped, report.failures) == (1, 8, [])
    assert not (specs / "failures.csv").exists()
    assert labels_in(specs) == {"kick": 4, "snare": 5}


def test_raise_stops_at_the_first_corrupt_file(audio, specs):
    (audio / "kick" / "kick_1.wav").write_bytes(b"no sound at all")
    with pytest.raises(UnitError, match=r"kick_1\.wav"):
        make(audio, specs, on_error="raise")
    assert not (specs / "manifest.csv").exists()


def test_only_corrupt_files_is_an_error(tmp_path, specs):
    for name in ("a.wav", "b.wav"):
        (tmp_path / "audio" / name).parent.mkdir(exist_ok=True)
        (tmp_path / "audio" / name).write_bytes(b"no sound at all")
    with pytest.raises(ValueError, match=r"nothing could be made.*failures\.csv lists 2"):
        make(tmp_path / "audio", specs)
    with (specs / "failures.csv").open(newline="") as file:
        assert len(list(csv.DictReader(file))) == 2
    assert not (specs / "manifest.csv").exists()


def test_failures_that_leave_a_label_too_small_are_an_error(tmp_path, specs):
    audio = write_folder(tmp_path / "audio", {"kick": 3, "snare": 4})
    (audio / "kick" / "kick_1.wav").write_bytes(b"no sound at all")
    with pytest.raises(ValueError, match="'kick' has 2"):
        make(audio, specs, splits=(80, 10, 10))
    assert (specs / "failures.csv").exists()
    assert not (specs / "manifest.csv").exists()


def test_only_silence_is_an_error(tmp_path, specs):
    save_wav(tmp_path / "audio" / "a" / "silent.wav", torch.zeros(1000), 8000)
    with pytest.raises(ValueError, match="silent"):
        make(tmp_path / "audio", specs)


def test_a_class_of_silence_is_named_at_every_run(tmp_path, specs, caplog):
    audio = write_folder(tmp_path / "audio", {"kick": 2, "snare": 2})
    for i in range(2):
        save_wav(audio / "rest" / f"{i}.wav", torch.zeros(1000), 8000)
    save_wav(audio / "kick" / "pause.wav", torch.zeros(1000), 8000)
    for _ in range(2):
        caplog.clear()
        make(audio, specs)
        lines = [message for message in caplog.messages if "silent" in message]
        assert lines == [f"{specs}: every clip of class 'rest' is silent; check its recordings, or leave the class out"]


# The second run


def modified(folder: Path) -> dict[str, int]:
    """Inode and modification time: both change when a file is written again."""
    return {str(path): (path.stat().st_ino, path.stat().st_mtime_ns) for path in folder.rglob("*.pt")}


def test_a_second_run_makes_nothing(audio, specs):
    make(audio, specs)
    times, files = modified(specs), contents(specs)
    report = make(audio, specs)
    assert (report.n_done, report.n_skipped) == (0, 9)
    assert modified(specs) == times
    assert contents(specs) == files


@pytest.mark.parametrize("by_seconds", [5, -5, 0.001, -86400])
def test_a_changed_source_is_made_again_alone(audio, specs, by_seconds):
    make(audio, specs)
    changed = audio / "kick" / "kick_2.wav"
    change(changed, by_seconds=by_seconds)
    report = make(audio, specs)
    assert (report.n_done, report.n_skipped) == (1, 8)
    torch.testing.assert_close(level_of(specs, changed), expected_level(changed), rtol=0, atol=0)
    assert read_manifest(specs).set_index("path").loc["kick/kick_2.pt", "n_frames"] == 16  # 2000 samples now
    assert make(audio, specs).n_done == 0


def test_new_sources_are_made_alone_and_removed_and_corrupt_ones_leave_the_dataset(audio, specs):
    make(audio, specs)
    (audio / "snare" / "snare_0.wav").unlink()
    (audio / "kick" / "kick_1.wav").write_bytes(b"no sound any more")
    new = write_clip(audio / "clap" / "new.wav")
    report = make(audio, specs)
    assert (report.n_done, report.n_skipped, len(report.failures)) == (1, 7, 1)
    assert info_of(specs)["class_names"] == ["clap", "kick", "snare"]
    torch.testing.assert_close(level_of(specs, new), expected_level(new), rtol=0, atol=0)
    for gone in ("snare/snare_0.pt", "kick/kick_1.pt"):
        assert gone not in set(read_manifest(specs)["path"])
        assert not (specs / gone).exists()


@pytest.mark.parametrize("settings", [{"params": replace(PARAMS, n_mels=8)}, {"peak": 0.5}])
def test_other_settings_make_everything_again(audio, specs, tmp_path, settings):
    make(audio, specs)
    report = make(audio, specs, **settings)
    assert (report.n_done, report.n_skipped) == (9, 0)
    make(audio, tmp_path / "fresh", **settings)
    assert contents(specs) == contents(tmp_path / "fresh")


@pytest.mark.parametrize(
    "settings",
    [{"cmap": "gray"}, {"splits": (50, 25, 25)}, {"merge": {}}, {"on_error": "raise"}],
)
def test_what_does_not_change_a_tensor_makes_no_tensor(audio, specs, settings):
    make(audio, specs)
    report = make(audio, specs, **settings)
    assert (report.n_done, report.n_skipped) == (0, 9)


def test_other_labels_and_splits_end_like_a_fresh_folder(audio, specs, tmp_path):
    make(audio, specs)
    settings = {"merge": {"snare": "drum"}, "classes": ["drum"], "splits": (60, 20, 20)}
    make(audio, specs, **settings)
    make(audio, tmp_path / "fresh", **settings)
    assert contents(specs) == contents(tmp_path / "fresh")


def test_another_input_of_the_same_names_and_times_makes_everything_again(audio, specs, tmp_path):
    make(audio, specs)
    other = tmp_path / "other"
    for i, source in enumerate(sorted(audio.rglob("*.wav"))):  # as unpacked from an archive with one date for all
        copy = write_clip(other / source.relative_to(audio), seed=500 + i)
        os.utime(copy, ns=(source.stat().st_mtime_ns,) * 2)
    assert make(other, specs).n_done == 9
    make(other, tmp_path / "fresh")
    assert contents(specs) == contents(tmp_path / "fresh")


def test_files_of_others_stay(audio, specs):
    foreign = {"notes.txt": b"mine", "kick/cover.png": b"picture", "other/clip.pt": b"tensor", "kick/kick_0.txt": b"x"}
    for name, content in foreign.items():
        (specs / name).parent.mkdir(parents=True, exist_ok=True)
        (specs / name).write_bytes(content)
    make(audio, specs)
    (audio / "kick" / "kick_0.wav").unlink()
    make(audio, specs, peak=0.5)
    files = contents(specs)
    assert {name: files.get(name) for name in foreign} == foreign


# Interruptions


def interrupt_after(monkeypatch, k: int) -> None:
    """The user presses Ctrl-C while file k + 1 is read."""
    calls = []

    def read(path, **settings):
        calls.append(path)
        if len(calls) > k:
            raise KeyboardInterrupt
        return open_audio(path, **settings)

    monkeypatch.setattr(levels, "open_audio", read)
    monkeypatch.setattr(runner, "_MOST_UNITS", 1)  # noted as done one by one


@pytest.mark.parametrize("k", [0, 5])
def test_an_interrupted_run_completes_to_the_same_bytes(audio, specs, tmp_path, monkeypatch, k):
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        interrupt_after(patch, k)
        make(audio, specs, splits=(50, 25, 25))
    assert len(list(specs.rglob("*.pt"))) == k
    with pytest.raises((FileNotFoundError, ValueError), match=r"finished"):
        SpectrogramDataset(specs, "train", EXAMPLES)
    report = make(audio, specs, splits=(50, 25, 25))
    assert (report.n_done, report.n_skipped) == (9 - k, k)
    make(audio, tmp_path / "uninterrupted", splits=(50, 25, 25))
    assert contents(specs) == contents(tmp_path / "uninterrupted")


def test_an_interrupted_change_of_settings_mixes_nothing(audio, specs, tmp_path, monkeypatch):
    other = replace(PARAMS, n_mels=8)
    make(audio, specs)
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        interrupt_after(patch, 4)
        make(audio, specs, params=other)
    shapes = {torch.load(path, weights_only=True).shape[0] for path in specs.rglob("*.pt")}
    assert shapes == {8}
    for params in (PARAMS, other):
        with pytest.raises((FileNotFoundError, ValueError), match="finished"):
            SpectrogramDataset(specs, "train", replace(params, n_frames=16))
    # Completed with the new settings, or taken back to the old ones: as if never interrupted.
    for name, params in (("new", other), ("old", PARAMS)):
        make(audio, specs, params=params)
        make(audio, tmp_path / name, params=params)
        assert contents(specs) == contents(tmp_path / name)


def test_an_interrupted_write_leaves_no_partial_file(audio, specs, monkeypatch):
    def save(level, file):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(torch, "save", save)
        make(audio, specs)
    assert set(contents(specs)) == {"params.yaml"}


def test_the_manifest_is_missing_while_the_folder_is_unfinished(audio, specs):
    make(audio, specs)
    (specs / "manifest.csv").unlink()
    with pytest.raises(FileNotFoundError, match="no finished dataset folder"):
        SpectrogramDataset(specs, "train", EXAMPLES)


# Names


def assert_one_file_each(output: Path, sources: list[Path]) -> None:
    """Every source has a file of its own inside `output`, with its own sound."""
    table = read_manifest(output)
    assert len(table) == len(sources) == len(set(table["path"].str.casefold()))
    for path in table["path"]:
        assert (output / path).resolve().parent.parent == output.resolve()
        assert not Path(path).name.startswith((".", "-"))
    for source in sources:
        torch.testing.assert_close(level_of(output, source), expected_level(source), rtol=0, atol=0)


@pytest.mark.parametrize("root", [".hidden", "-x", "..up"])
def test_a_root_with_a_leading_dot_or_dash_makes_a_visible_label_folder(tmp_path, specs, root):
    sources = [write_clip(tmp_path / root / f"{i}.wav", seed=i) for i in range(2)]
    make(tmp_path / root, specs)
    assert labels_in(specs) == {root: 2}
    assert_one_file_each(specs, sources)


def test_output_inside_input(audio):
    make(audio, audio / "specs")
    report = make(audio, audio / "specs")
    assert (report.n_done, report.n_skipped) == (0, 9)


# kill -9

ROOT = Path(__file__).parents[1]
WORK = replace(PARAMS, hop_length=16)  # so much of it that a run can be met in its middle
N_CLIPS = 200
BROKEN = ("kick_3", "kick_90", "snare_7")
linux = pytest.mark.skipif(sys.platform != "linux", reason="looks for the processes of a run in /proc")


def command(audio: Path, output: Path, *more: str) -> list[str]:
    """`preprocess.py` on two processes, with the settings WORK."""
    settings = [f"spectrogram.{name}={'null' if value is None else value}" for name, value in asdict(WORK).items()]
    arguments = [f"input={audio}", f"output={output}", "task.splits=[80,10,10]", "task.format=both", *settings, *more]
    return [sys.executable, str(ROOT / "preprocess.py"), "executor=processes", "executor.n_workers=2", *arguments]


def kill_in_the_middle(audio: Path, output: Path, *more: str, n_made: int, files: str = "*/*.pt") -> int:
    """Starts a run, kills it with -9 when there are so many files, and gives its process group."""
    with subprocess.Popen(
        command(audio, output, *more), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
    ) as run:
        while len(list(output.glob(files))) < n_made:
            assert run.poll() is None, "it came to its end before it was killed"
            time.sleep(0.001)
        run.kill()
    assert run.returncode == -9
    assert not (output / "manifest.csv").exists()
    return run.pid


@pytest.fixture(scope="module")
def many(tmp_path_factory) -> Path:
    """Recordings of two labels, three of them broken."""
    audio = tmp_path_factory.mktemp("many") / "audio"
    for i in range(N_CLIPS):
        label = "kick" if i < N_CLIPS // 2 + 5 else "snare"
        write_clip(audio / label / f"{label}_{i % (N_CLIPS // 2 + 5)}.wav", n_samples=4000 + 50 * (i % 40), seed=i)
    for name in BROKEN:
        (audio / name.split("_")[0] / f"{name}.wav").write_bytes(b"no sound at all")
    return audio


@linux
def test_a_run_that_was_killed_twice_ends_as_if_never_killed(many, tmp_path):
    specs = tmp_path / "specs"
    group = kill_in_the_middle(many, specs, n_made=40)
    wait_until(lambda: not processes_of_group(group))  # its workers end by themselves, and may write until then
    before = set(specs.glob("*/*.pt"))
    assert 40 <= len(before) < N_CLIPS - 3
    kill_in_the_middle(many, specs, n_made=len(before) + 60)
    noted = sum(b'"key"' in line for line in (specs / ".journal.jsonl").read_bytes().splitlines())
    done = subprocess.run(command(many, specs), capture_output=True, text=True)
    assert done.returncode == 1, done.stderr
    report = " ".join(done.stderr.split())
    assert f"{N_CLIPS - 3 - noted} made, {noted} already there, 3 failed" in report
    assert noted > 0
    with (specs / "failures.csv").open(newline="") as file:
        assert sorted(Path(row["path"]).stem for row in csv.DictReader(file)) == sorted(BROKEN)
    make(many, tmp_path / "uninterrupted", params=WORK, splits=(80, 10, 10), format="both")
    assert everything(specs) == everything(tmp_path / "uninterrupted")


@linux
def test_a_killed_run_into_shards_leaves_whole_ones_and_is_completed(many, tmp_path):
    specs, settings = tmp_path / "specs", ("task.format=shards", "task.shard_size=30")
    group = kill_in_the_middle(many, specs, *settings, n_made=3, files="shards/[0-9a-f]*.safetensors")
    wait_until(lambda: not processes_of_group(group))
    whole = [path for path in specs.glob("shards/*") if not path.name.startswith(".")]
    assert 3 <= len(whole) < 7
    for path in whole:
        assert len(open_shard(path))
    noted = sum(b'"key"' in line for line in (specs / ".journal.jsonl").read_bytes().splitlines())
    done = subprocess.run(command(many, specs, *settings), capture_output=True, text=True)
    assert done.returncode == 1, done.stderr
    assert f"{N_CLIPS - 3 - noted} made, {noted} already there, 3 failed" in " ".join(done.stderr.split())
    table = read_manifest(specs)
    assert {str(path.relative_to(specs)) for path in specs.glob("shards/*")} == set(table["path"])
    assert sorted(Path(source).stem for source in table["source"]) == sorted(
        path.stem for path in many.rglob("*.wav") if path.stem not in BROKEN
    )
    for row in table.iloc[::29].itertuples():
        level = open_shard(specs / row.path)[row.first_frame :][: row.n_frames].T
        torch.testing.assert_close(level, expected_level(Path(row.source), WORK), rtol=0, atol=0)


# More names


def assert_same_sounds(output: Path, sources: dict[Path, str]) -> None:
    """Every source has a file of its own and its label, and nothing stands outside the folder."""
    assert_one_file_each(output, list(sources))
    table = read_manifest(output).set_index("source")
    assert {source: table.loc[str(source.resolve()), "label"] for source in sources} == sources


@pytest.mark.parametrize("name", ["manifest.csv", "params.yaml", "failures.csv", "Manifest.CSV"])
def test_a_label_may_be_called_like_a_file_of_the_folder(tmp_path, specs, name):
    sources = {
        write_clip(tmp_path / "audio" / label / "x.wav", seed=i): label
        for i, label in enumerate([name, f"_{name}", "kick"])
    }
    (tmp_path / "audio" / name / "bad.wav").write_bytes(b"no sound at all")
    for _ in range(2):
        assert len(make(tmp_path / "audio", specs).failures) == 1
        assert_same_sounds(specs, sources)
    assert make(tmp_path / "audio", specs).n_skipped == 3
    assert make(tmp_path / "audio", specs, merge={name: "kick"}, peak=0.5).n_done == 3
    assert labels_in(specs) == {f"_{name}": 1, "kick": 2}


@pytest.mark.parametrize("label", ["..", ".", "a/b", "../../x", "/etc", ".journal.jsonl", "a\x00b", "-"])
def test_merging_into_a_strange_label_stays_inside(audio, specs, tmp_path, label):
    outside = {path for path in tmp_path.rglob("*") if specs not in path.parents}
    make(audio, specs, merge={"kick": label})
    assert labels_in(specs) == {label: 4, "snare": 5}
    assert info_of(specs)["class_names"] == sorted([label, "snare"])
    assert_one_file_each(specs, list(audio.rglob("*.wav")))
    assert {path for path in tmp_path.rglob("*") if specs not in path.parents} == outside | {specs}
    make(audio, specs, merge={"kick": "snare"})  # and goes again
    make(audio, tmp_path / "fresh", merge={"kick": "snare"})
    assert contents(specs) == contents(tmp_path / "fresh")


def test_merging_into_no_label_is_refused(audio, specs):
    with pytest.raises(ValueError, match=r"merge is \{'kick': ''\}"):
        make(audio, specs, merge={"kick": ""})
    assert not specs.exists()


def test_a_file_that_has_the_name_that_another_was_given_has_a_file_of_its_own(tmp_path, specs):
    sources = [write_clip(tmp_path / "audio" / kit / "kick" / "a.wav", seed=i) for i, kit in enumerate("12")]
    make(tmp_path / "audio", specs)
    given = sorted(Path(path).stem for path in read_manifest(specs)["path"])
    assert len(set(given)) == 2
    sources += [
        write_clip(tmp_path / "audio" / "3" / "kick" / f"{stem}.wav", seed=5 + i) for i, stem in enumerate(given)
    ]
    make(tmp_path / "audio", specs)
    assert_one_file_each(specs, sources)


def test_the_same_file_in_two_classes_or_splits_is_said_in_one_line(audio, specs, caplog):
    shutil.copy(audio / "kick/kick_0.wav", audio / "snare/of_a_kick.wav")
    make(audio, specs)
    (line,) = (message for message in caplog.messages if "same sound" in message)
    assert line.startswith("2 files are the same sound")
    assert "kick/kick_0.wav (kick, train), " in line
    assert "snare/of_a_kick.wav (snare, train)" in line


def test_the_same_file_twice_in_one_class_and_split_is_the_users_choice(audio, specs, caplog):
    shutil.copy(audio / "kick/kick_0.wav", audio / "kick/again.wav")
    make(audio, specs)
    assert not caplog.messages
