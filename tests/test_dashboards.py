"""What W&B and TensorBoard are given, read back from the files of tiny runs; nothing goes over a network."""

import base64
import hashlib
import io
import json
import struct
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
import yaml
from PIL import Image
from runs import TINY, folder_source, run

from specgan.models.classifier import Classifier
from specgan.training import dashboards
from specgan.training.dashboards import WandbDashboard, confusion_picture

CLASSES = ["clap", "kick", "open_hat"]
N_SAMPLES, RATE = 32 * 512, 16000  # of a sound, at the sizes of TINY


def train(tiny_drums, home, name, *arguments):
    """Two epochs, both shown and measured; returns the folder of the run and what it said."""
    changed = ("callbacks.preview.every_n_epochs", "callbacks.measure.every_n_epochs")
    settings = [*folder_source(tiny_drums), *(s for s in TINY if not s.startswith(changed))]
    settings += [f"{setting}=1" for setting in changed]
    settings += ["trainer.max_epochs=2", "loss.gamma=0.125", f"hydra.run.dir={name}"]
    variables = {
        "WANDB_MODE": "offline",
        "WANDB_DATA_DIR": str(home / "staged"),
        "WANDB_CACHE_DIR": str(home / "cache"),
    }
    run("train.py", *settings, *arguments, cwd=home, **variables)
    return home / name


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    return tmp_path_factory.mktemp("home")


# --- W&B


def records_of(path):
    """The records of a .wandb file: a log in blocks of 32 KiB, in which a record may lie in pieces."""
    from wandb.proto.wandb_internal_pb2 import Record

    content, position, pieces = path.read_bytes(), 7, b""
    assert content.startswith(b":W&B")
    while position + 7 <= len(content):
        left = 32768 - position % 32768
        if left < 7:
            position += left
            continue
        length, kind = struct.unpack("<HB", content[position + 4 : position + 7])
        pieces += content[position + 7 : position + 7 + length]
        position += 7 + length
        if kind in (1, 4):  # whole, or the last piece
            yield Record.FromString(pieces)
            pieces = b""


def nested(items):
    """What was logged, a dict; the parts of a sound or picture come one by one."""
    row = {}
    for item in items:
        *parents, name = [item.key] if item.key else item.nested_key
        place = row
        for parent in parents:
            place = place.setdefault(parent, {})
        place[name] = json.loads(item.value_json)
    return row


class OfflineRun:
    def __init__(self, folder):
        (self.folder,) = (folder / "wandb").glob("offline-run-*")
        (path,) = self.folder.glob("*.wandb")
        self.records = list(records_of(path))

    def of(self, kind):
        return [getattr(record, kind) for record in self.records if record.WhichOneof("record_type") == kind]

    def rows(self, key):
        """What was logged under a key: (epoch, value)."""
        rows = [nested(row.item) for row in self.of("history")]
        return [(row["epoch"], row[key]) for row in rows if key in row]

    def file(self, value):
        return self.folder / "files" / value["path"]

    def table(self, key):
        """A table that is logged piece by piece, as an artifact: dicts, in which sounds and pictures are files."""
        rows = {}
        for artifact in self.of("artifact"):
            if artifact.type != "wandb-run-incremental-table":
                continue
            files = {entry.path: Path(entry.local_path) for entry in artifact.manifest.contents}
            (piece,) = (path for path in files if path.endswith(f".{key}.table.json"))
            content = json.loads(files[piece].read_text())
            for row in content["data"]:
                row = dict(zip(content["columns"], row, strict=True))
                row |= {name: files[row[name]["path"]] for name in ("sound", "picture")}
                rows[row["class"], row["kind"], row["epoch"]] = row
        return rows


@pytest.fixture(scope="module")
def folder(tiny_drums, home):
    return train(tiny_drums, home, "wandb_run", "logger=wandb", "logger.log_best=true")


@pytest.fixture(scope="module")
def offline(folder):
    return OfflineRun(folder)


def test_sounds_and_pictures_of_each_class_over_epochs_and_real_ones_at_the_start(offline):
    wanted = {f"{name}{kind}": epochs for name in CLASSES for kind, epochs in KINDS.items()}
    for place, epochs in wanted.items():
        sounds, pictures = offline.rows(f"audio/{place}"), offline.rows(f"spectrogram/{place}")
        assert [epoch for epoch, _ in sounds] == [epoch for epoch, _ in pictures] == epochs
        for _, value in sounds:
            waveform, rate = soundfile.read(offline.file(value))
            assert (len(waveform), rate) == (N_SAMPLES, RATE)
        for _, value in pictures:
            with Image.open(offline.file(value)) as picture:
                assert picture.size == (400, 300)
    assert len({offline.file(value).read_bytes() for _, value in offline.rows("audio/kick")}) == 2


KINDS = {"": [1, 2], "/real": [0], "/real_vocoded": [0]}


def test_the_table_tells_what_the_judge_hears_in_each_sound(offline, folder, home):
    table = offline.table("sounds")
    kinds = [("real", 0), ("real, vocoded", 0), ("generated", 1), ("generated", 2)]
    assert set(table) == {(name, kind, epoch) for name in CLASSES for kind, epoch in kinds}
    columns = ["class", "kind", "seed", "epoch", "sound", "picture", "classified as", "probability"]
    assert all(list(row) == columns for row in table.values())
    assert {(kind, row["seed"]) for (_, kind, _), row in table.items()} == {
        ("real", None),
        ("real, vocoded", None),
        ("generated", 0),
    }
    (path,) = (home / "data" / "datasets").glob("*/judge-*.pt")
    judge = Classifier(sample_rate=RATE, n_samples=N_SAMPLES, class_names=CLASSES, width=8)
    judge.load_state_dict(torch.load(path, weights_only=True)["state_dict"])
    page = (folder / "previews" / "index.html").read_text()
    n_heard = 0
    for row in table.values():
        waveform, _ = soundfile.read(row["sound"], dtype="float32")
        assert row["picture"].read_bytes().startswith(b"\x89PNG")
        assert f"classified as {row['classified as']} ({100 * row['probability']:.0f} %)" in page
        if abs(waveform).max() < 0.999:  # else the file is softer than what was heard
            shares = judge.judge(torch.from_numpy(waveform).unsqueeze(0))[1][0].softmax(dim=0)
            assert row["probability"] == pytest.approx(float(shares.max()), abs=0.01)
            assert shares[CLASSES.index(row["classified as"])] >= shares.max() - 0.01
            n_heard += 1
    assert n_heard >= 6  # the real ones


def test_each_measurement_has_its_confusion_matrix(offline, folder):
    pictures = offline.rows("confusion")
    assert [epoch for epoch, _ in pictures] == [1, 2]
    assert all(offline.file(value).read_bytes().startswith(b"\x89PNG") for _, value in pictures)
    curve = json.loads((folder / "curve.json").read_text())
    for point, (_, value) in zip(curve, offline.rows("confusion_chart_table"), strict=True):
        content = json.loads(offline.file(value).read_text())
        assert content["columns"] == ["Actual", "Predicted", "nPredictions"]
        n = {(asked_for, heard_as): n for asked_for, heard_as, n in content["data"]}
        assert {(name, name) for name in CLASSES} <= set(n)
        assert all(sum(n.get((asked_for, heard_as), 0) for heard_as in CLASSES) == 4 for asked_for in CLASSES)
        share = sum(n[name, name] for name in CLASSES) / sum(n.values())
        assert share == pytest.approx(point["conditional_accuracy"])


def test_scalars_stand_over_epochs(offline, folder):
    curve = json.loads((folder / "curve.json").read_text())
    for name in ("fad", "conditional_accuracy"):
        points = [(point["epoch"], pytest.approx(point[name], rel=1e-5)) for point in curve]
        assert offline.rows(f"val/{name}") == points
    assert offline.rows("n_steps") == [(1, 2), (2, 4)]
    (_, first), (_, second) = offline.rows("val/fad_real")
    assert first == second > 0
    for name in ("train/loss_g", "train/loss_d", "train/examples_per_s", "val/silent_share", "val/diversity"):
        assert [epoch for epoch, _ in offline.rows(name)] == [1, 2]
    # the axis of all charts: what was said last counts, after Lightning's own
    globs = [metric for metric in offline.of("metric") if metric.glob_name == "*"]
    assert (globs[-1].step_metric, globs[-1].options.step_sync) == ("epoch", True)
    axes = {metric.name: metric.step_metric for metric in offline.of("metric") if metric.name}
    assert axes["epoch"] == ""
    assert "trainer/global_step" not in set(axes.values())


def test_settings_can_be_searched(offline):
    config = {}
    for update in (*(record.config for record in offline.of("run")), *offline.of("config")):
        config |= {item.key: json.loads(item.value_json) for item in update.update if item.key}
    assert config["loss"]["gamma"] == 0.125
    assert config["generator"]["width"] == 16
    assert config["spectrogram"]["hop_length"] == 512


def test_the_best_checkpoint_is_an_artifact(offline, folder):
    checkpoint = folder / "checkpoints" / "best.ckpt"
    (artifact,) = [artifact for artifact in offline.of("artifact") if artifact.type == "model"]
    run_id = offline.of("run")[0].run_id
    assert (artifact.name, set(artifact.aliases)) == (f"model-{run_id}", {"best", "latest"})
    curve = json.loads((folder / "curve.json").read_text())
    least = min(point["fad"] for point in curve)
    best = [point for point in curve if point["fad"] <= 1.2 * least][-1]  # callbacks.best.tolerance
    assert json.loads(artifact.metadata) == {"val/fad": pytest.approx(best["fad"]), "epoch": best["epoch"]}
    assert torch.load(checkpoint, weights_only=True)["epoch"] + 1 == best["epoch"]
    (entry,) = artifact.manifest.contents
    digest = base64.b64encode(hashlib.md5(checkpoint.read_bytes()).digest()).decode()
    assert (entry.path, entry.digest) == ("best.ckpt", digest)
    assert Path(entry.local_path).read_bytes() == checkpoint.read_bytes()


class LoggedRun:
    """Takes the place of a run of W&B."""

    def __init__(self):
        self.rows = []

    def log(self, row):
        self.rows.append(row)


def chart_of(confusion, n_classes, monkeypatch):
    """What is logged of a confusion matrix twice; the cells of its chart, None: no chart."""
    run = LoggedRun()
    monkeypatch.setattr(WandbDashboard, "experiment", run)
    monkeypatch.setattr(dashboards, "confusion_picture", lambda *_: np.zeros((4, 4, 3), np.uint8))
    dashboard = WandbDashboard(offline=True)
    for epoch in (1, 2):
        dashboard.log_confusion(confusion, [f"class {i}" for i in range(n_classes)], epoch=epoch)
    assert all("confusion" in row for row in run.rows)
    chart = run.rows[-1].get("confusion_chart")
    return None if chart is None else chart.table._to_table_json()["data"]


def test_the_confusion_chart_of_many_classes_is_whole(monkeypatch):
    n = 104
    confusion = np.zeros((n, n), int)
    confusion[:, 3] = 20  # all are classified as one class
    cells = chart_of(confusion.tolist(), n, monkeypatch)
    assert {(row[0], row[1]): row[2] for row in cells if row[2]} == {(f"class {i}", "class 3"): 20 for i in range(n)}
    assert {row[0] for row in cells} == {row[1] for row in cells} == {f"class {i}" for i in range(n)}


def test_a_confusion_chart_that_wandb_would_cut_is_not_drawn_and_said_once(monkeypatch, caplog):
    assert chart_of(np.ones((104, 104), int).tolist(), 104, monkeypatch) is None
    (record,) = caplog.records
    assert "104 classes has 10816 cells, W&B charts show 10000 at most" in record.message


# --- TensorBoard


@pytest.fixture(scope="module")
def events(tiny_drums, home):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    folder = train(tiny_drums, home, "tensorboard_run", "logger=tensorboard")
    events = EventAccumulator(str(folder / "tensorboard"), size_guidance={"audio": 0, "images": 0, "scalars": 0})
    events.Reload()
    return folder, events


def test_tensorboard_has_the_sounds(events):
    folder, events = events
    wanted = {f"audio/{name}{kind}": epochs for name in CLASSES for kind, epochs in KINDS.items()}
    assert set(events.Tags()["audio"]) == set(wanted)
    for tag, epochs in wanted.items():
        sounds = events.Audio(tag)
        assert [sound.step for sound in sounds] == epochs
        for sound in sounds:
            waveform, rate = soundfile.read(io.BytesIO(sound.encoded_audio_string))
            assert (len(waveform), rate, sound.sample_rate) == (N_SAMPLES, RATE, RATE)
    kept, _ = soundfile.read(folder / "previews" / "kick" / "epoch_2.wav")
    shown, _ = soundfile.read(io.BytesIO(events.Audio("audio/kick")[-1].encoded_audio_string))
    np.testing.assert_allclose(shown, kept, atol=1e-3)


def test_tensorboard_has_the_pictures_and_the_confusion(events):
    folder, events = events
    wanted = {f"spectrogram/{name}{kind}": epochs for name in CLASSES for kind, epochs in KINDS.items()}
    assert set(events.Tags()["images"]) == {*wanted, "confusion"}
    for tag, epochs in {**wanted, "confusion": [1, 2]}.items():
        assert [picture.step for picture in events.Images(tag)] == epochs
    with Image.open(folder / "previews" / "kick" / "epoch_2.png") as kept:
        expected = np.asarray(kept.convert("RGB"))
    shown = Image.open(io.BytesIO(events.Images("spectrogram/kick")[-1].encoded_image_string))
    np.testing.assert_array_equal(np.asarray(shown), expected)


def test_tensorboard_has_the_scalars_over_epochs(events):
    folder, events = events
    curve = json.loads((folder / "curve.json").read_text())
    points = [(point.step, point.value) for point in events.Scalars("val/fad")]
    assert points == [(point["epoch"], pytest.approx(point["fad"], rel=1e-5)) for point in curve]
    assert [(point.step, point.value) for point in events.Scalars("n_steps")] == [(1, 2), (2, 4)]
    names = {"train/loss_g", "train/loss_d", "train/examples_per_s", "val/fad_real", "val/conditional_accuracy"}
    assert names <= set(events.Tags()["scalars"])
    assert all([point.step for point in events.Scalars(name)] == [1, 2] for name in names)
    assert yaml.safe_load((folder / "tensorboard" / "hparams.yaml").read_text())["loss"]["gamma"] == 0.125


# --- the picture of a confusion matrix


def test_a_confusion_picture_shows_shares_of_each_row():
    draw = partial(confusion_picture, class_names=["a$b$", "b"])
    picture, other = draw([[4, 0], [0, 9]]), draw([[0, 4], [0, 9]])
    assert picture.ndim == 3 and picture.shape[2] == 3 and picture.dtype == np.uint8
    # The two cells of the first row differ: from the first column that does to the last.
    rows, columns = np.nonzero((picture != other).any(axis=2))
    middle = (columns.min() + columns.max()) // 2
    for some, is_left_bright in ((picture, True), (other, False)):
        row = some[rows.min() : rows.max()].astype(int)
        left, right = row[:, columns.min() : middle].sum(), row[:, middle : columns.max()].sum()
        assert (left > 3 * right) if is_left_bright else (right > 3 * left)
    assert draw([[0, 0], [0, 0]]).shape == picture.shape  # no sound at all is no error


def test_many_classes_make_a_picture_that_can_be_shown():
    n = 200
    picture = confusion_picture(np.eye(n, dtype=int), [f"class {i}" for i in range(n)])
    assert max(picture.shape) <= 2000
