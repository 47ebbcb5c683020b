"""The scripts as a user runs them, on tiny networks and a few drums."""

import json
import os
import re
import shutil
from pathlib import Path

import pandas as pd
import pytest
import torch
from runs import TINY, folder_source, run

from specgan.evaluation.ratings import read_key


def content(folder):
    return {str(path.relative_to(folder)): path.stat().st_mtime_ns for path in Path(folder).rglob("*")}


@pytest.fixture(scope="module")
def trained(tiny_drums, tmp_path_factory):
    """Two epochs with everything at its default but the sizes: W&B offline, previews, measurements, checkpoints."""
    home = tmp_path_factory.mktemp("home")
    (home / "clips").symlink_to(tiny_drums)
    run("train.py", *folder_source("clips"), *TINY, "trainer.max_epochs=2", "hydra.run.dir=runs/a", cwd=home)
    return home


def test_training_leaves_checkpoint_config_metrics_previews_and_an_offline_run(trained):
    folder = trained / "runs" / "a"
    checkpoint = torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)
    assert checkpoint["epoch"] == 1
    assert checkpoint["specgan"]["class_names"] == ["clap", "kick", "open_hat"]
    assert "latent_dim: 16" in (folder / ".hydra" / "config.yaml").read_text()
    metrics = json.loads((folder / "metrics.json").read_text())
    assert {"train/loss_g", "train/loss_d", "val/silent_share", "val/diversity"} <= set(metrics)
    log = (folder / "train.log").read_text()
    assert "18 clips of 18 recordings, 3 classes of 6; " in log
    assert " Hz at most (18 recordings)" in log
    assert metrics["val/fad"] > 0
    assert 0 <= metrics["val/conditional_accuracy"] <= 1
    (point,) = json.loads((folder / "curve.json").read_text())
    assert (point["epoch"], point["n_steps"], point["fad"]) == (2, 4, pytest.approx(metrics["val/fad"]))
    assert torch.load(folder / "checkpoints" / "best.ckpt", weights_only=True)["epoch"] == 1
    assert len(list((trained / "data" / "datasets").glob("*/judge-*.pt"))) == 1
    assert (folder / "previews" / "kick" / "epoch_2.wav").stat().st_size > 10_000
    (wandb_run,) = (folder / "wandb").glob("offline-run-*")
    media = {path.suffix for path in (wandb_run / "files" / "media").rglob("*.*")}
    assert {".wav", ".png", ".json"} <= media  # sounds, pictures, the table


def test_a_run_goes_on_from_its_checkpoint(trained, tiny_drums):
    arguments = ["trainer.max_epochs=3", "hydra.run.dir=runs/b", "ckpt_path=runs/a/checkpoints/last.ckpt", "logger=csv"]
    arguments += ["init_from=gone.ckpt"]  # as it was started
    output = run("train.py", *folder_source(tiny_drums), *TINY, *arguments, cwd=trained)
    assert "init_from is not used again: the run goes on from runs/a/checkpoints/last.ckpt" in output
    before, after = (
        torch.load(trained / "runs" / name / "checkpoints" / "last.ckpt", weights_only=True) for name in "ab"
    )
    assert (before["epoch"], after["epoch"]) == (1, 2)
    assert after["specgan"]["n_steps"] == before["specgan"]["n_steps"] + 2
    steps = [next(iter(optimizer["state"].values()))["step"].item() for optimizer in after["optimizer_states"]]
    assert steps == [6, 6]
    curve = json.loads((trained / "runs" / "b" / "curve.json").read_text())
    assert [point["epoch"] for point in curve] == [2, 3]
    rows = pd.read_csv(trained / "runs" / "b" / "csv" / "metrics.csv")
    assert rows["epoch"].min() == 3


def test_generate_needs_the_checkpoint_alone(trained, tmp_path):
    shutil.copy(trained / "runs" / "a" / "checkpoints" / "last.ckpt", tmp_path / "x.ckpt")
    run("generate.py", "ckpt_path=x.ckpt", "label=kick", "n_samples=2", "seed=3", "output=one", cwd=tmp_path)
    run("generate.py", "ckpt_path=x.ckpt", "label=all", "n_samples=4", "output=all", cwd=tmp_path)
    assert sorted(path.name for path in (tmp_path / "one" / "kick").glob("*.wav")) == ["kick_3.wav", "kick_4.wav"]
    assert len(list((tmp_path / "all").glob("*/*.wav"))) == 12
    same = Path("kick") / "kick_3.wav"
    assert (tmp_path / "one" / same).read_bytes() == (tmp_path / "all" / same).read_bytes()
    assert set(os.listdir(tmp_path)) == {"x.ckpt", "one", "all"}  # no logs, no config folders


def test_generate_answers_an_unknown_class_with_the_classes(trained, tmp_path):
    output = run("generate.py", f"ckpt_path={trained}/runs/a/checkpoints/last.ckpt", "label=gong", cwd=tmp_path, code=1)
    assert "choose all or some of: clap, kick, open_hat" in output
    assert os.listdir(tmp_path) == []


def test_preprocess_then_train_on_its_folder(tiny_drums, tmp_path):
    settings = [argument for argument in TINY if argument.startswith("spectrogram.")]
    run(
        "preprocess.py",
        "task=spectrograms",
        f"input={tiny_drums}",
        "output=specs",
        "task.splits=[80,10,10]",
        *settings,
        cwd=tmp_path,
    )
    assert (tmp_path / "specs" / "kick" / "kick_0_0000.pt").exists()  # TINY has n_frames: slices
    run(
        "train.py",
        "data=dataset",
        "data.dataset_dir=specs",
        *TINY,
        "trainer.max_epochs=1",
        "logger=none",
        "hydra.run.dir=run",
        cwd=tmp_path,
    )
    assert (tmp_path / "run" / "checkpoints" / "last.ckpt").exists()
    assert not (tmp_path / "run" / "wandb").exists()
    other = [*TINY, "spectrogram.n_fft=2048", "logger=none", "hydra.run.dir=other"]
    output = run("train.py", "data=dataset", "data.dataset_dir=specs", *other, cwd=tmp_path, code=1)
    assert "n_fft: the folder has 1024, the settings 2048" in output


def test_preprocess_goes_on_past_a_bad_file_and_exits_1(tiny_drums, tmp_path):
    shutil.copytree(tiny_drums, tmp_path / "clips")
    (tmp_path / "clips" / "kick" / "bad.wav").write_bytes(b"no sound in here")
    output = run("preprocess.py", "task=spectrograms", "input=clips", "output=specs", cwd=tmp_path, code=1)
    assert "18 made, 0 already there, 1 failed" in output.replace("\n", " ")
    assert "bad.wav" in (tmp_path / "specs" / "failures.csv").read_text()
    assert len(pd.read_csv(tmp_path / "specs" / "manifest.csv")) == 18


@pytest.mark.parametrize(
    ("folder", "message"),
    [("nowhere", "nowhere: no such file or folder"), ("empty", "empty: no audio file in it")],
)
def test_a_missing_or_empty_folder_is_named(tmp_path, folder, message):
    (tmp_path / "empty").mkdir()
    assert message in run("preprocess.py", f"input={folder}", "output=specs", cwd=tmp_path, code=1)
    arguments = ["data=folder", f"data.audio_dir={folder}", "logger=none", "hydra.run.dir=run"]
    assert message in run("train.py", *arguments, cwd=tmp_path, code=1)
    assert not (tmp_path / "specs").exists()
    assert not (tmp_path / "data").exists()


@pytest.mark.parametrize(
    ("command", "missing"),
    [
        (["preprocess.py", "input=clips"], "output"),
        (["generate.py"], "ckpt_path"),
        (["train.py", "data=folder", "hydra.run.dir=run"], "data.audio_dir"),
    ],
)
def test_what_is_not_set_is_named_in_a_message_without_a_stack(tmp_path, command, missing):
    output = run(*command, cwd=tmp_path, code=1, HYDRA_FULL_ERROR="0")
    assert f"full_key: {missing}" in output
    assert 'File "' not in output


def test_hydra_full_error_1_shows_where_an_error_came_from(tmp_path):
    assert 'File "' in run("generate.py", cwd=tmp_path, code=1, HYDRA_FULL_ERROR="1")


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("generator.depth=9", "depth is 9; 4 to 6 for 64 x 64"),
        ("discriminator.width=36", "width is 36"),
        ("seed=-1", "seed is -1; a whole number from 0 to 4294967295"),
        ("trainer.precision=bf16-true", "bf16-true; the models train in 32-true, bf16-mixed, 16-mixed, 64-true"),
    ],
)
def test_an_impossible_setting_is_refused_before_anything_is_done(tmp_path, setting, message):
    assert message in run("train.py", setting, "logger=none", "hydra.run.dir=run", cwd=tmp_path, code=1)
    assert not (tmp_path / "data").exists()


def test_a_label_with_one_clip_stops_training_with_the_ways_out(tiny_drums, tmp_path):
    shutil.copytree(tiny_drums, tmp_path / "clips")
    (tmp_path / "clips" / "gong").mkdir()
    shutil.copy(tiny_drums / "kick" / "kick_0.wav", tmp_path / "clips" / "gong" / "gong.wav")
    arguments = ["data=folder", "data.audio_dir=clips", *TINY, "trainer.max_epochs=1", "logger=none"]
    output = run("train.py", *arguments, "hydra.run.dir=run", cwd=tmp_path, code=1)
    assert "'gong' has 1" in output
    assert not (tmp_path / "data").exists()
    output = run("train.py", *arguments, "data.min_recordings=3", "hydra.run.dir=run", cwd=tmp_path)
    assert "left out, fewer than 3 recordings: gong" in output


def test_multirun_leaves_config_checkpoint_and_metrics_of_each_job(tiny_drums, tmp_path):
    tiny = [argument for argument in TINY if "latent_dim" not in argument]
    sweep = ["-m", "model=cgan", "model.latent_dim=8,16", "hydra.sweep.dir=sweep", "trainer.max_epochs=1"]
    run("train.py", *sweep, *folder_source(tiny_drums), *tiny, cwd=tmp_path)
    for job, latent_dim in (("0", 8), ("1", 16)):
        folder = tmp_path / "sweep" / job
        checkpoint = torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)
        assert checkpoint["specgan"]["generator"]["latent_dim"] == latent_dim
        assert f"latent_dim: {latent_dim}" in (folder / ".hydra" / "config.yaml").read_text()
        assert "train/loss_g" in json.loads((folder / "metrics.json").read_text())
        assert len(list((folder / "wandb").glob("offline-run-*"))) == 1  # the run before was closed


# --- stage=test


def test_a_trained_generator_is_measured_with_the_settings_of_its_run(trained):
    command = ["train.py", "stage=test", "ckpt_path=runs/a/checkpoints/best.ckpt"]
    folder, before = trained / "runs" / "a", content(trained)
    (judge,) = trained.rglob("judge-*.pt")
    weights = torch.load(judge, weights_only=True)["state_dict"]
    output = run(*command, cwd=trained)
    report = json.loads((folder / "report.json").read_text())
    assert list(report["rows"]) == ["real", "vocoded", "generated"]
    assert report["class_names"] == ["clap", "kick", "open_hat"]
    assert (report["checkpoint"], report["n_steps"]) == ("runs/a/checkpoints/best.ckpt", 4)
    assert report["curve"] == json.loads((folder / "curve.json").read_text())
    assert report["rows"]["generated"]["conditional_accuracy"]["n"] == 3 * 6
    assert report["rows"]["real"]["frechet_distance"]["n"] == 3 * 2
    page = (folder / "report.html").read_text()
    nearest = page.count("<audio") - 3 * (2 + 2 + 4)  # beside real, vocoded and generated ones
    assert 3 * 4 <= nearest <= 3 * 4 * 3  # by three distances, which may find the same clip
    # a table of all figures on the terminal, and nothing left behind but the report
    figures = report["rows"]["generated"]
    table = {line.split()[0]: line.split()[1:] for line in output.splitlines() if line.split()[:1]}
    assert set(figures) <= set(table)
    shown = [row["conditional_accuracy"]["value"] for row in report["rows"].values()]
    values = re.findall(r"([\d.]+) \(", " ".join(table["conditional_accuracy"]))  # each with its interval behind it
    assert [float(value) for value in values] == pytest.approx(shown, abs=1e-3)
    after = content(trained)
    assert set(after) - set(before) == {"runs/a/report.json", "runs/a/report.html", "runs/a/report.png"}
    kept = torch.load(judge, weights_only=True)
    assert all(torch.equal(weights[name], weight) for name, weight in kept["state_dict"].items())  # of the training

    first = (folder / "report.json").read_bytes(), (folder / "report.html").read_bytes()
    run(*command, cwd=trained)
    assert ((folder / "report.json").read_bytes(), (folder / "report.html").read_bytes()) == first


def test_the_command_line_takes_precedence_over_the_settings_of_the_run_wherever_it_is_given(trained, tmp_path):
    """The run had a relative data.audio_dir, and its settings.json knows nothing of listening, as earlier ones."""
    shutil.copytree(trained / "runs" / "a", tmp_path / "a")
    settings = json.loads((tmp_path / "a" / "settings.json").read_text())
    del settings["evaluation"]["listening"]
    (tmp_path / "a" / "settings.json").write_text(json.dumps(settings))
    arguments = ["evaluation.split=val", "evaluation.n_samples=7", "evaluation.classifier_steps=0", "data=folder"]
    arguments += ["evaluation.listening=true"]
    checkpoint = f"{tmp_path}/a/checkpoints/last.ckpt"
    output = run("train.py", "stage=test", f"ckpt_path={checkpoint}", *arguments, cwd=tmp_path)
    assert os.listdir(tmp_path) == ["a"]  # the data are where they were
    key = read_key(tmp_path / "a" / "listening_key.json")
    assert key.checkpoint == checkpoint
    assert len(key.sounds) == 3 * 3 * 1  # there is one val clip of each class
    assert (tmp_path / "a" / "listening.html").stat().st_size > 10_000
    assert f"preprocess.py task=listening input=ratings task.key={tmp_path}/a/listening_key.json" in output
    report = json.loads((tmp_path / "a" / "report.json").read_text())
    assert report["split"] == "val"
    assert report["rows"]["generated"]["conditional_accuracy"]["n"] == 3 * 7
    assert "classification_accuracy_score" not in report["rows"]["generated"]


def test_measuring_without_a_checkpoint_says_how_to_name_one(tmp_path):
    output = run("train.py", "stage=test", cwd=tmp_path, code=1)
    assert "ckpt_path is not set" in output
    assert "ckpt_path=<run>/checkpoints/best.ckpt" in output
    assert 'File "' not in output
    assert os.listdir(tmp_path) == []


def test_a_checkpoint_without_its_run_must_fit_the_data(trained, tiny_drums, tmp_path):
    shutil.copy(trained / "runs" / "a" / "checkpoints" / "best.ckpt", tmp_path / "x.ckpt")
    other = [*folder_source(tiny_drums), "data.classes=[clap,kick]"]
    output = run("train.py", "stage=test", "ckpt_path=x.ckpt", *other, cwd=tmp_path, code=1)
    assert "settings.json: no such file" in output
    assert "n_mels=32" in output and "n_mels=64" in output
    assert "class_names: checkpoint ['clap', 'kick', 'open_hat'], data set ['clap', 'kick']" in output
    assert not (tmp_path / "report.json").exists()


# --- model=classifier


def test_the_judge_can_be_trained_by_itself(tiny_drums, tmp_path):
    shared = ("spectrogram", "vocoder.", "evaluation.device")
    settings = [argument for argument in TINY if argument.startswith(shared)]
    judge = ["model=classifier", "model.width=8", "model.n_steps=20", "hydra.run.dir=judge"]
    run("train.py", *judge, *folder_source(tiny_drums), *settings, cwd=tmp_path)
    metrics = json.loads((tmp_path / "judge" / "metrics.json").read_text())
    splits = ("val", "test", "vocoded_val", "vocoded_test", "cross_validated")
    assert set(metrics) == {f"judge/{split}_accuracy" for split in splits}
    assert all(0 <= value <= 1 for value in metrics.values())
    (kept,) = (tmp_path / "data" / "datasets").glob("*/judge-*.pt")
    made = kept.stat().st_mtime_ns
    assert not (tmp_path / "judge" / "checkpoints").exists()

    # and is the one that a training uses
    run(
        "train.py",
        *folder_source(tiny_drums),
        *TINY,
        "trainer.max_epochs=1",
        "logger=none",
        "hydra.run.dir=run",
        cwd=tmp_path,
    )
    assert list((tmp_path / "data" / "datasets").glob("*/judge-*.pt")) == [kept]
    assert kept.stat().st_mtime_ns == made
    assert "val/fad" in json.loads((tmp_path / "run" / "metrics.json").read_text())


def test_a_dataset_trains_and_is_measured_when_the_recordings_are_gone(tiny_drums, tmp_path):
    """Without kept sounds, through the vocoder."""
    shutil.copytree(tiny_drums, tmp_path / "clips")
    settings = [argument for argument in TINY if argument.startswith("spectrogram.")]
    spectrograms = ["task=spectrograms", "input=clips", "output=specs", "task.splits=[80,10,10]"]
    run("preprocess.py", *spectrograms, *settings, cwd=tmp_path)
    shutil.rmtree(tmp_path / "clips")
    arguments = ["data=dataset", "data.dataset_dir=specs", "trainer.max_epochs=1", "logger=none", "hydra.run.dir=run"]
    run("train.py", *arguments, *TINY, cwd=tmp_path)
    assert (tmp_path / "run" / "checkpoints" / "best.ckpt").exists()
    assert "val/fad" in json.loads((tmp_path / "run" / "metrics.json").read_text())
