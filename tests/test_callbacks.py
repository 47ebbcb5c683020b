import itertools
import json
import logging
import math
import shutil
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import lightning as L
import pytest
import soundfile
import torch
from checkpoints import tiny_gan
from lightning.pytorch.callbacks import LambdaCallback, ModelCheckpoint, Timer

from specgan.audio import save_wav
from specgan.data.datamodule import SpectrogramDataModule
from specgan.data.dataset import SpectrogramDataset
from specgan.data.drums import drum
from specgan.evaluation.evaluator import Evaluation, QuickFigures
from specgan.evaluation.metrics import frechet_distance
from specgan.files import OUTPUTS_NAME
from specgan.models.classifier import Classifier
from specgan.spectrogram import SpectrogramParams
from specgan.tasks.spectrograms import make_spectrograms
from specgan.training.best import BestCheckpoint
from specgan.training.cadence import Cadence
from specgan.training.dashboards import Dashboard
from specgan.training.measure import Measure
from specgan.training.pace import Pace, ProgressBar
from specgan.training.preview import Preview, mean_distance
from specgan.training.stages import write_metrics
from specgan.vocoders.griffin_lim import GriffinLim

PARAMS = SpectrogramParams(hop_length=512, n_mels=32, n_frames=32)


def test_mean_distance_of_known_pairs():
    spectrograms = torch.stack([torch.full((1, 2, 2), value) for value in (0.0, 1.0, 3.0)])
    assert mean_distance(spectrograms) == pytest.approx((1 + 3 + 2) / 3)


class Strategy:
    """Of one process, or of one of several: what the first broadcasts, the others get."""

    def __init__(self, sent=None):
        self.sent = sent

    def broadcast(self, message):
        if self.sent is None:
            return message
        if message is None:  # from a process that did not do the work
            return self.sent.pop(0)
        self.sent.append(message)
        return message


class Recorder(Dashboard):
    """A third kind of dashboard, that keeps what it is told."""

    def __init__(self):
        self.exhibits, self.confusions = [], []

    def log_exhibits(self, exhibits, *, epoch):
        self.exhibits += [(epoch, exhibit) for exhibit in exhibits]

    def log_confusion(self, confusion, class_names, *, epoch):
        self.confusions.append((epoch, confusion, class_names))


@pytest.fixture
def stage(tiny_drums, tmp_path):
    """A Preview and what Lightning would hand it; `draw` decides what the model generates."""
    make_spectrograms(tiny_drums, tmp_path / "specs", params=PARAMS, splits=[80, 10, 10], peak=0.5, keep_sounds=9)
    train, val = (SpectrogramDataset(tmp_path / "specs", split, PARAMS) for split in ("train", "val"))
    data = SimpleNamespace(train=train, val=val, params=PARAMS, level_range=train.level_range)
    trainer = SimpleNamespace(datamodule=data, loggers=[Recorder()], is_global_zero=True, strategy=Strategy())
    trainer.current_epoch, trainer.max_epochs, trainer.should_stop = 0, 10, False
    module = SimpleNamespace(params=PARAMS, level_range=train.level_range, class_names=train.class_names, logged={})
    module.log_dict = lambda metrics, **_: module.logged.update(metrics)
    vocoder = partial(GriffinLim, n_iter=2, n_inversion_iter=5)
    preview = Preview(tmp_path / "previews", vocoder, every_n_epochs=2, n_samples=4)
    return SimpleNamespace(preview=preview, trainer=trainer, module=module, folder=tmp_path / "previews")


def real_clips(stage):
    """A perfect generator: real training clips of the class."""
    clips = stage.trainer.datamodule.train
    return lambda labels, seeds: torch.stack(
        [
            [clips[i][0] for i, label in enumerate(clips.labels) if label == wanted][seed]
            for wanted, seed in zip(labels, seeds, strict=True)
        ]
    )


def constant(value):
    return lambda labels, seeds: torch.full((len(labels), 1, 32, 32), value)


def run_epoch(stage, epoch, generator):
    stage.module.sample = generator
    stage.trainer.current_epoch = epoch - 1
    stage.preview.on_train_epoch_end(stage.trainer, stage.module)


def test_real_clips_are_written_once_as_recorded_and_vocoded(stage):
    stage.preview.on_fit_start(stage.trainer, stage.module)
    written = {str(path.relative_to(stage.folder)) for path in stage.folder.rglob("*.*")}
    kinds = [
        f"{name}/{kind}.{suffix}"
        for name in ("clap", "kick", "open_hat")
        for kind in ("real", "real_vocoded")
        for suffix in ("wav", "png")
    ]
    assert written == {*kinds, "index.html", "entries.json", OUTPUTS_NAME}
    recorded, rate = soundfile.read(stage.folder / "kick" / "real.wav")
    assert (len(recorded), rate) == (PARAMS.n_samples, PARAMS.sample_rate)
    assert abs(recorded).max() == pytest.approx(0.5, abs=1e-3)


def test_what_the_rate_of_the_preset_leaves_of_a_recording_can_be_heard(stage, tmp_path):
    for seed in range(6):
        save_wav(tmp_path / "audio" / "open_hat" / f"{seed}.wav", drum("open_hat", seed=seed, sample_rate=44100), 44100)
    make_spectrograms(tmp_path / "audio", tmp_path / "wide", params=PARAMS, splits=[50, 50, 0], peak=0.5, keep_sounds=9)
    data = stage.trainer.datamodule
    data.train, data.val = (SpectrogramDataset(tmp_path / "wide", split, PARAMS) for split in ("train", "val"))
    stage.module.class_names = data.train.class_names
    stage.preview.evaluation = SimpleNamespace(find_judge=lambda data: Scripted([]))
    stage.preview.on_fit_start(stage.trainer, stage.module)
    shown = [some for _, some in stage.trainer.loggers[0].exhibits]
    assert [(some.kind, some.sample_rate) for some in shown] == [
        ("real", 44100),
        ("real, resampled", 16000),
        ("real, vocoded", 16000),
    ]
    assert [some.caption.rpartition(", classified")[0] for some in shown] == [
        "as recorded",
        "at the preset's rate, 16000 Hz",
        "through the vocoder",
    ]
    assert [some.sound.name for some in shown] == ["real.wav", "real_resampled.wav", "real_vocoded.wav"]
    assert [soundfile.info(some.sound).samplerate for some in shown] == [44100, 16000, 16000]


def test_every_second_epoch_and_the_last_one_are_shown(stage):
    stage.preview.on_fit_start(stage.trainer, stage.module)
    for epoch in (1, 2, 3, 4):
        run_epoch(stage, epoch, real_clips(stage))
    stage.trainer.should_stop = True
    run_epoch(stage, 5, real_clips(stage))
    shown = sorted(path.stem for path in (stage.folder / "kick").glob("epoch_*.wav"))
    assert shown == ["epoch_2", "epoch_4", "epoch_5"]
    assert "kick/epoch_4.wav" in (stage.folder / "index.html").read_text()


def test_a_good_generator_gets_good_metrics_and_no_warning(stage, caplog):
    stage.preview.on_fit_start(stage.trainer, stage.module)
    with caplog.at_level(logging.WARNING, logger="specgan.training.preview"):
        run_epoch(stage, 2, real_clips(stage))
    assert stage.module.logged["val/silent_share"] == 0
    assert stage.module.logged["val/clipped_share"] == 0
    assert stage.module.logged["val/diversity"] == pytest.approx(1, abs=0.3)
    assert not [record for record in caplog.records if record.name == "specgan.training.preview"]


@pytest.mark.parametrize(
    ("value", "metric", "text"),
    [
        (-1.0, "val/silent_share", "100 % of the sounds are silent"),
        (1.0, "val/clipped_share", "100 % of the sounds exceed full scale"),
        (0.0, "val/diversity", "nearly equal sounds for every seed of clap, kick, open_hat"),
    ],
)
def test_silent_clipped_and_collapsed_generators_are_called_out(stage, caplog, value, metric, text):
    stage.preview.on_fit_start(stage.trainer, stage.module)
    run_epoch(stage, 2, constant(value))
    assert stage.module.logged[metric] == (0 if metric == "val/diversity" else 1)
    assert text in caplog.text


def test_dashboards_get_every_sound_with_its_files(stage):
    stage.preview.n_shown = 2
    stage.preview.on_fit_start(stage.trainer, stage.module)
    run_epoch(stage, 2, real_clips(stage))
    run_epoch(stage, 4, real_clips(stage))
    shown = stage.trainer.loggers[0].exhibits
    assert len(shown) == 3 * (2 + 2 + 2)
    places = [(epoch, some.kind, some.seed, some.place) for epoch, some in shown if some.class_name == "kick"]
    assert places == [
        (0, "real", None, "kick/real"),
        (0, "real, vocoded", None, "kick/real_vocoded"),
        *((epoch, "generated", seed, f"kick/seed_{seed}") for epoch in (2, 4) for seed in (0, 1)),
    ]
    for _, some in shown:
        recorded, rate = soundfile.read(some.sound, dtype="float32")
        torch.testing.assert_close(torch.from_numpy(recorded), some.waveform, rtol=0, atol=1e-3)
        assert rate == some.sample_rate
        assert some.picture.read_bytes().startswith(b"\x89PNG")
        assert (some.heard_as, some.probability) == ("", None)  # nobody judges here
    assert "classified as" not in (stage.folder / "index.html").read_text()


def test_the_page_of_a_run_that_goes_on_lists_what_was_drawn_before(stage):
    pages = []
    for epoch in (2, 4, 4):
        preview = Preview(stage.folder, stage.preview.make_vocoder, every_n_epochs=2)
        stage.preview = preview
        preview.on_fit_start(stage.trainer, stage.module)
        run_epoch(stage, epoch, real_clips(stage))
        pages.append((stage.folder / "index.html").read_text())
    assert [page.count("<audio") for page in pages] == [3 * 3, 3 * 4, 3 * 4]
    assert "kick/epoch_2.wav" in pages[-1]


def test_one_sound_of_a_class_has_one_place_over_all_epochs(stage):
    stage.preview.on_fit_start(stage.trainer, stage.module)
    run_epoch(stage, 2, real_clips(stage))
    run_epoch(stage, 4, real_clips(stage))
    shown = stage.trainer.loggers[0].exhibits
    assert [(epoch, some.seed) for epoch, some in shown if some.place == "kick"] == [(2, 0), (4, 0)]


@pytest.mark.parametrize("is_trained", [True, False])
def test_each_sound_has_the_class_that_the_judge_takes_it_for(stage, is_trained):
    stage.preview.evaluation = SimpleNamespace(find_judge=lambda data: Scripted([]) if is_trained else None)
    stage.preview.on_fit_start(stage.trainer, stage.module)
    run_epoch(stage, 2, constant(-1.0))
    page = (stage.folder / "index.html").read_text()
    for epoch, some in stage.trainer.loggers[0].exhibits:
        heard_as = "silence" if epoch == 2 else "noise"  # as Scripted classifies
        assert (some.heard_as, some.probability) == ((heard_as, 0.75) if is_trained else ("", None))
        assert (f"classified as {heard_as} (75 %)" in some.caption) == is_trained
        assert some.caption in page


def test_the_first_process_alone_draws_and_all_know_the_metrics(stage):
    sent = []
    stage.trainer.strategy = Strategy(sent)
    stage.preview.on_fit_start(stage.trainer, stage.module)
    run_epoch(stage, 2, real_clips(stage))
    found = dict(stage.module.logged)
    before = {path: path.stat().st_mtime_ns for path in stage.folder.rglob("*")}

    stage.module.logged.clear()
    stage.trainer.is_global_zero = False
    other = Preview(stage.folder, None, every_n_epochs=2)
    other.on_fit_start(stage.trainer, stage.module)
    stage.module.sample = None
    other.on_train_epoch_end(stage.trainer, stage.module)
    assert stage.module.logged == found and "val/diversity" in found
    assert {path: path.stat().st_mtime_ns for path in stage.folder.rglob("*")} == before
    assert sent == []


@pytest.mark.parametrize("settings", [{"every_n_epochs": 0}, {"share": 0.0}, {"n_shown": 5}, {"n_samples": 1}])
def test_impossible_settings(tmp_path, settings):
    with pytest.raises(ValueError, match=next(iter(settings))):
        Preview(tmp_path, GriffinLim, **settings)


# --- Measure


class Scripted:
    """An evaluation, its evaluator and its judge in one: it finds one scripted distance after the other."""

    CONFUSION = ([3, 1], [0, 4])

    def __init__(self, fads, error=None, real=(0.25, 14)):
        self.fads, self.error, self.real = iter(fads), error, real
        self.prepared, self.asked, self.asked_real = [], [], []
        self.judge, self.reference, self.name = self, torch.zeros(2, 1), "judge-0"  # features of two training clips

    def of(self, data):
        if self.error is not None:
            raise self.error
        self.prepared.append(data)
        return self

    def quick(self, sample, *, n_samples):
        self.asked.append((sample, n_samples))
        return QuickFigures(next(self.fads), 0.5, self.CONFUSION)

    def quick_real(self, *, n_samples):
        self.asked_real.append(n_samples)
        return self.real

    def judge_name(self, data):
        return self.name

    def is_by(self, data, name):
        return name == self.name

    def classify(self, waveforms, sample_rate):
        return [("noise" if waveform.abs().max() > 1e-3 else "silence", 0.75) for waveform in waveforms]


def measured_run(measure, *, epochs, max_epochs, stops_at=None, loggers=(), strategy=None, is_global_zero=True):
    """What Measure logs when it goes through the epochs: {epoch: metrics}."""
    trainer = SimpleNamespace(datamodule="the data", loggers=loggers, strategy=strategy or Strategy())
    trainer.max_epochs, trainer.should_stop, trainer.is_global_zero = max_epochs, False, is_global_zero
    module = SimpleNamespace(sample="the sampler", n_steps=0, class_names=["kick", "snare"])
    logged = {}
    module.log_dict = lambda metrics, **_: logged.__setitem__(trainer.current_epoch + 1, metrics)
    trainer.current_epoch = min(epochs, default=1) - 1
    measure.setup(trainer, module, "fit")
    measure.on_train_start(trainer, module)
    for epoch in epochs:
        trainer.current_epoch, module.n_steps = epoch - 1, 10 * epoch
        trainer.should_stop = epoch == stops_at
        measure.on_train_epoch_end(trainer, module)
    return logged


def test_every_second_epoch_and_the_last_one_are_measured(tmp_path):
    evaluation = Scripted([9.0, 4.0, 5.0])
    measure = Measure(evaluation, tmp_path / "curve.json", every_n_epochs=2, n_samples=7)
    logged = measured_run(measure, epochs=range(1, 6), max_epochs=5)
    assert {epoch: metrics["val/fad"] for epoch, metrics in logged.items()} == {2: 9.0, 4: 4.0, 5: 5.0}
    names = {"val/fad", "val/conditional_accuracy", "val/fad_real"}
    assert all(set(metrics) == names for metrics in logged.values())
    assert evaluation.prepared == ["the data"]
    assert evaluation.asked == [("the sampler", 7)] * 3
    curve = json.loads((tmp_path / "curve.json").read_text())
    assert [(point["epoch"], point["n_steps"], point["fad"]) for point in curve] == [
        (2, 20, 9.0),
        (4, 40, 4.0),
        (5, 50, 5.0),
    ]
    assert all(set(point) == {"epoch", "time_s", "n_steps", "fad", "conditional_accuracy"} for point in curve)
    assert all(point["conditional_accuracy"] == 0.5 for point in curve)
    times = [point["time_s"] for point in curve]
    assert times == sorted(times) and times[0] >= 0


def test_each_measurement_has_the_distance_of_real_clips_beside_it(tmp_path, caplog):
    evaluation = Scripted([9.0, 4.0])
    measure = Measure(evaluation, tmp_path / "curve.json", every_n_epochs=1, n_samples=7)
    with caplog.at_level(logging.INFO, logger="specgan.training.measure"):
        logged = measured_run(measure, epochs=[1, 2], max_epochs=2)
    assert [metrics["val/fad_real"] for metrics in logged.values()] == [0.25, 0.25]
    assert evaluation.asked_real == [7]  # once, for as many sounds
    assert "real clips: fad 0.250 (14 " in caplog.text
    assert "epoch 1: fad 9.000 (real clips 0.250), conditional_accuracy 0.500" in caplog.text


def test_without_real_clips_generated_ones_are_measured_all_the_same(tmp_path, caplog):
    measure = Measure(Scripted([9.0], real=None), tmp_path / "curve.json", every_n_epochs=1)
    with caplog.at_level(logging.INFO, logger="specgan.training.measure"):
        logged = measured_run(measure, epochs=[1], max_epochs=1)
    assert set(logged[1]) == {"val/fad", "val/conditional_accuracy"}
    assert "val/fad has no real clips to compare with" in caplog.text
    assert "epoch 1: fad 9.000, conditional_accuracy" in caplog.text


def test_dashboards_get_the_confusion_of_each_measurement(tmp_path):
    recorder = Recorder()
    measure = Measure(Scripted([9.0, 4.0]), tmp_path / "curve.json", every_n_epochs=2)
    measured_run(measure, epochs=range(1, 5), max_epochs=4, loggers=[object(), recorder])
    assert recorder.confusions == [(epoch, Scripted.CONFUSION, ["kick", "snare"]) for epoch in (2, 4)]


def test_the_first_process_alone_measures_and_all_know_the_metrics(tmp_path):
    """Else one process would keep a checkpoint and wait for the others."""
    sent = []
    strategy = Strategy(sent)
    first = Measure(Scripted([9.0, 4.0]), tmp_path / "curve.json", every_n_epochs=1)
    found = measured_run(first, epochs=[1, 2], max_epochs=2, strategy=strategy)
    assert len(found) == 2
    other = Measure(None, tmp_path / "other.json", every_n_epochs=1)  # touching its evaluation would raise
    assert measured_run(other, epochs=[1, 2], max_epochs=2, strategy=strategy, is_global_zero=False) == found
    assert not (tmp_path / "other.json").exists()
    assert sent == []


def test_the_epoch_at_which_a_run_is_stopped_is_measured(tmp_path):
    measure = Measure(Scripted([1.0, 2.0]), tmp_path / "curve.json", every_n_epochs=10)
    assert set(measured_run(measure, epochs=[1, 2, 3], max_epochs=-1, stops_at=3)) == {3}


def test_a_resumed_curve_goes_on_where_it_was(tmp_path):
    first = Measure(Scripted([9.0]), tmp_path / "a.json", every_n_epochs=2)
    measured_run(first, epochs=[1, 2], max_epochs=10)
    first.points[0]["time_s"] = 100.0  # as if it had taken so long
    torch.save(first.state_dict(), tmp_path / "state.pt")
    second = Measure(Scripted([4.0]), tmp_path / "b.json", every_n_epochs=2)
    second.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    measured_run(second, epochs=[3, 4], max_epochs=10)
    curve = json.loads((tmp_path / "b.json").read_text())
    assert [(point["epoch"], point["fad"]) for point in curve] == [(2, 9.0), (4, 4.0)]
    assert curve[1]["time_s"] >= 100.0


def test_an_error_of_the_judge_stops_the_run(tmp_path):
    measure = Measure(Scripted([], ValueError("judge-0.pt: not a judge")), tmp_path / "curve.json")
    with pytest.raises(ValueError, match="not a judge"):
        measured_run(measure, epochs=[], max_epochs=1)


@pytest.mark.parametrize("settings", [{"every_n_epochs": 0}, {"share": 1.5}, {"n_samples": 0}])
def test_impossible_settings_of_measure(tmp_path, settings):
    ((name, value),) = settings.items()
    with pytest.raises(ValueError, match=f"{name} is {value}; "):
        Measure(Scripted([]), tmp_path / "curve.json", **settings)


def make_run(tiny_drums, folder, evaluation, *, max_epochs, keep_sounds=18, tolerance=0.0):
    """A trainer with the callbacks of conf/callbacks, a model and its data."""
    data = SpectrogramDataModule(
        params=PARAMS,
        audio_dir=str(tiny_drums),
        datasets_dir=str(folder / "data"),
        make_dataset=make_spectrograms,
        splits=[80, 10, 10],
        peak=0.5,
        keep_sounds=keep_sounds,
        batch_size=4,
        epoch_size=8,
    )
    checkpoints = folder / "checkpoints"
    kept = {"monitor": "val/fad", "enable_version_counter": False, "evaluation": evaluation, "tolerance": tolerance}
    trainer = L.Trainer(
        max_epochs=max_epochs,
        accelerator="cpu",
        logger=False,
        callbacks=[
            Pace(),
            Measure(evaluation, folder / "curve.json", every_n_epochs=2, n_samples=2),
            BestCheckpoint(checkpoints, "best", **kept),
            ModelCheckpoint(checkpoints, "last", every_n_epochs=1, enable_version_counter=False),
        ],
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    return trainer, tiny_gan(), data


def epoch_of(checkpoint: Path) -> int:
    return torch.load(checkpoint, weights_only=True)["epoch"] + 1


def test_the_best_checkpoint_is_that_of_the_smallest_distance(tiny_drums, tmp_path):
    evaluation = Scripted([3.0, 1.0, 2.0, 1.5])
    trainer, model, data = make_run(tiny_drums, tmp_path, evaluation, max_epochs=7)
    trainer.fit(model, datamodule=data)
    assert epoch_of(tmp_path / "checkpoints" / "best.ckpt") == 4
    assert epoch_of(tmp_path / "checkpoints" / "last.ckpt") == 7
    assert trainer.callback_metrics["val/fad"] == 1.5
    assert trainer.callback_metrics["val/fad_real"] == 0.25
    assert (trainer.callback_metrics["epoch"], trainer.callback_metrics["n_steps"]) == (7, 14)
    curve = json.loads((tmp_path / "curve.json").read_text())
    assert [point["epoch"] for point in curve] == [2, 4, 6, 7]
    assert [point["n_steps"] for point in curve] == [4, 8, 12, 14]

    more = Scripted([0.5])
    trainer, model, data = make_run(tiny_drums, tmp_path, more, max_epochs=8)
    trainer.fit(model, datamodule=data, ckpt_path=tmp_path / "checkpoints" / "last.ckpt", weights_only=True)
    curve = json.loads((tmp_path / "curve.json").read_text())
    assert [point["epoch"] for point in curve] == [2, 4, 6, 7, 8]
    assert epoch_of(tmp_path / "checkpoints" / "best.ckpt") == 8


def test_a_later_checkpoint_may_be_a_little_worse_than_the_best_of_all(tiny_drums, tmp_path):
    """Compared with the best score so far, so that many small steps down do not add up, also after a resume."""
    checkpoints = tmp_path / "checkpoints"
    trainer, model, data = make_run(tiny_drums, tmp_path, Scripted([1.0, 1.15, 1.3, 1.19]), max_epochs=8, tolerance=0.2)
    trainer.fit(model, datamodule=data)
    assert epoch_of(checkpoints / "best.ckpt") == 8
    trainer, model, data = make_run(tiny_drums, tmp_path, Scripted([1.25]), max_epochs=10, tolerance=0.2)
    trainer.fit(model, datamodule=data, ckpt_path=checkpoints / "last.ckpt", weights_only=True)
    assert epoch_of(checkpoints / "best.ckpt") == 8


def test_a_worse_resumed_run_leaves_the_best_checkpoint(tiny_drums, tmp_path):
    trainer, model, data = make_run(tiny_drums, tmp_path, Scripted([1.0]), max_epochs=2)
    trainer.fit(model, datamodule=data)
    trainer, model, data = make_run(tiny_drums, tmp_path, Scripted([2.0]), max_epochs=4)
    trainer.fit(model, datamodule=data, ckpt_path=tmp_path / "checkpoints" / "last.ckpt", weights_only=True)
    assert epoch_of(tmp_path / "checkpoints" / "best.ckpt") == 2


def test_figures_of_another_judge_are_not_compared(tiny_drums, tmp_path, caplog):
    """A worse distance is the best one, when the better one is of another judge; the run before stays at hand."""
    trainer, model, data = make_run(tiny_drums, tmp_path, Scripted([1.0]), max_epochs=2)
    trainer.fit(model, datamodule=data)
    other = Scripted([2.0])
    other.name = "judge-1"
    trainer, model, data = make_run(tiny_drums, tmp_path, other, max_epochs=4)
    best = tmp_path / "checkpoints" / "best.ckpt"
    trainer.fit(model, datamodule=data, ckpt_path=best, weights_only=True)
    assert (epoch_of(best), epoch_of(best.with_name("best-judge-0.ckpt"))) == (4, 2)
    curve = json.loads((tmp_path / "curve.json").read_text())
    assert [(point["epoch"], point.get("fad")) for point in curve] == [(2, None), (4, 2.0)]
    assert "its val/fad is of another judge" in caplog.text and "so far are of another judge" in caplog.text


def test_a_run_of_an_older_version_goes_on_with_a_judge_at_the_rate_of_the_preset(tiny_drums, tmp_path):
    """It did not write down by which judge it was measured; only at another rate that can be no other one."""
    for rate, is_same in ((16000, True), (32000, False)):
        audio = tmp_path / str(rate)
        for path in tiny_drums.rglob("*.wav"):
            save_wav(audio / path.parent.name / path.name, drum(path.parent.name, seed=0, sample_rate=rate), rate)
        _, _, data = make_run(audio, tmp_path, Scripted([]), max_epochs=1)
        data.prepare_data()
        data.setup("fit")
        evaluation = make_evaluation()
        assert evaluation.is_by(data, None) == is_same
        assert evaluation.is_by(data, evaluation.judge_name(data)) and not evaluation.is_by(data, "judge-0")


def best_distance(run):
    best = torch.load(run / "checkpoints" / "best.ckpt", weights_only=True)
    return best["callbacks"]["Measure"]["points"][-1]["fad"]


def test_the_best_checkpoint_stays_when_its_folder_moves_and_whatever_the_run_goes_on_from(tiny_drums, tmp_path):
    trainer, model, data = make_run(tiny_drums, tmp_path / "a", Scripted([5.0, 1.0]), max_epochs=4)
    keep = lambda trainer, _: trainer.save_checkpoint(tmp_path / f"{trainer.current_epoch + 1}.ckpt")  # noqa: E731
    trainer.callbacks.append(LambdaCallback(on_train_epoch_end=keep))
    trainer.fit(model, datamodule=data)
    (tmp_path / "a").rename(tmp_path / "b")
    early = tmp_path / "2.ckpt"  # which knows 5.0 alone
    trainer, model, data = make_run(tiny_drums, tmp_path / "b", Scripted([2.0]), max_epochs=4)
    trainer.fit(model, datamodule=data, ckpt_path=early, weights_only=True)
    assert best_distance(tmp_path / "b") == 1.0
    # a better one takes its place, and in another folder the best is that of the folder
    for name, fads, expected in (("b", [0.5], 0.5), ("c", [2.0], 2.0)):
        trainer, model, data = make_run(tiny_drums, tmp_path / name, Scripted(fads), max_epochs=4)
        trainer.fit(model, datamodule=data, ckpt_path=early, weights_only=True)
        assert best_distance(tmp_path / name) == expected


def test_a_curve_keeps_what_its_folder_knows(tmp_path):
    measured_run(Measure(Scripted([9.0, 4.0]), tmp_path / "c.json", every_n_epochs=2), epochs=range(1, 5), max_epochs=4)
    again = Measure(Scripted([3.0, 2.0]), tmp_path / "c.json", every_n_epochs=2)  # from a checkpoint without a curve
    measured_run(again, epochs=[3, 4, 5, 6], max_epochs=6)
    curve = json.loads((tmp_path / "c.json").read_text())
    assert [(point["epoch"], point["fad"]) for point in curve] == [(2, 9.0), (4, 3.0), (6, 2.0)]


def test_the_metrics_of_a_finished_run_stay_when_it_goes_on_and_nothing_is_left_to_do(tmp_path):
    write_metrics(tmp_path, {})
    assert not (tmp_path / "metrics.json").exists()
    write_metrics(tmp_path, {"val/fad": 2.0, "train/loss_g": 1.0})
    write_metrics(tmp_path, {})
    write_metrics(tmp_path, {"train/loss_g": None})
    assert json.loads((tmp_path / "metrics.json").read_text()) == {"val/fad": 2.0, "train/loss_g": None}


def make_evaluation(**settings):
    return Evaluation(
        vocoder=partial(GriffinLim, n_iter=2, n_inversion_iter=5),
        judge=partial(Classifier, width=8, n_features=8, n_steps=2),
        device="cpu",
        **settings,
    )


def test_real_clips_are_measured_on_what_was_not_trained_on(tiny_drums, tmp_path):
    """By hand: all clips of validation and test, against the training clips."""
    splits = [50, 17, 33]  # 3, 1 and 2 of each class
    make_spectrograms(tiny_drums, tmp_path / "specs", params=PARAMS, splits=splits, keep_sounds=9)
    data = SpectrogramDataModule(params=PARAMS, dataset_dir=str(tmp_path / "specs"), crop="start")
    data.setup("fit")
    evaluation = make_evaluation().of(data)
    classifier = evaluation.judge.classifier
    held_out = torch.cat([every_sound(clips) for clips in (data.val, data.test)])
    reference = classifier.judge(every_sound(data.train))[0]
    fad, n_clips = evaluation.quick_real(n_samples=20)
    assert n_clips == len(held_out) == 9
    expected = frechet_distance(classifier.judge(held_out)[0], reference)
    assert fad == pytest.approx(expected, rel=1e-3, abs=1e-5)
    assert evaluation.quick_real(n_samples=2)[1] == 6  # as many as `quick` draws
    assert evaluation.quick_real(n_samples=1)[1] == 3  # which the validation split alone has
    data.val = data.test = SpectrogramDataset(tmp_path / "specs", "no such split", PARAMS)
    assert evaluation.quick_real(n_samples=20) is None


def every_sound(clips):
    return clips.waveforms([(i, 0.0) for i in range(len(clips))])


def test_the_judge_names_the_class_that_it_takes_a_sound_for(tiny_drums, tmp_path):
    _, _, data = make_run(tiny_drums, tmp_path, Scripted([]), max_epochs=1)
    data.prepare_data()
    data.setup("fit")
    judge = make_evaluation().of(data).judge
    waveforms = every_sound(data.train)
    shares = judge.classifier.judge(waveforms)[1].exp()
    shares /= shares.sum(dim=1, keepdim=True)
    for (name, probability), share in zip(judge.classify(waveforms, PARAMS.sample_rate), shares, strict=True):
        assert name == ["clap", "kick", "open_hat"][int(share.argmax())]
        assert probability == pytest.approx(float(share.max()), abs=1e-5)


def test_measuring_does_not_change_the_training(tiny_drums, tmp_path):
    """Neither the judge, trained or loaded, nor the measurements touch what the generator becomes."""
    weights = {}
    for name, evaluation in (
        ("without", Scripted([0.0] * 9)),
        ("trained", make_evaluation()),
        ("loaded", make_evaluation()),
    ):
        torch.manual_seed(3)
        trainer, model, data = make_run(tiny_drums, tmp_path, evaluation, max_epochs=3)
        trainer.fit(model, datamodule=data)
        weights[name] = torch.cat([parameter.flatten() for parameter in model.generator.parameters()])
        assert len(list((tmp_path / "data").glob("*/judge*"))) == (name != "without")
    assert weights["loaded"].equal(weights["trained"])
    assert weights["without"].equal(weights["trained"])
    for point in json.loads((tmp_path / "curve.json").read_text()):
        assert point["fad"] >= 0
        assert 0 <= point["conditional_accuracy"] <= 1


@pytest.mark.parametrize("keep_sounds", [0, 9])
def test_a_run_is_measured_without_the_recordings(tiny_drums, tmp_path, keep_sounds):
    audio = shutil.copytree(tiny_drums, tmp_path / "audio")
    trainer, model, data = make_run(audio, tmp_path, make_evaluation(), max_epochs=2, keep_sounds=keep_sounds)
    data.prepare_data()
    shutil.rmtree(audio)
    data.prepare_data = lambda: None
    trainer.callbacks.insert(0, Preview(tmp_path / "previews", make_evaluation().recipe.vocoder))
    trainer.fit(model, datamodule=data)
    assert trainer.callback_metrics["val/fad"] > 0
    assert trainer.callback_metrics["val/fad_real"] >= 0
    assert (tmp_path / "checkpoints" / "best.ckpt").exists()
    previews = {path.name for path in (tmp_path / "previews" / "kick").glob("real*.wav")}
    assert previews == ({"real.wav", "real_vocoded.wav"} if keep_sounds else {"real_vocoded.wav"})


# --- Cadence


class Clock:
    """A training whose time passes when it is told."""

    def __init__(self, monkeypatch):
        self.now_s = 1000.0
        monkeypatch.setattr("specgan.training.cadence.time.monotonic", lambda: self.now_s)

    def uses(self, cadence, *, epochs_s, cost_s, time_s=math.inf):
        """The times since the start at which something that costs `cost_s` is done, in epochs of these lengths.

        The training ends with the epoch in which `time_s` is over.
        """
        trainer = SimpleNamespace(max_epochs=len(epochs_s), should_stop=False, is_global_zero=True, strategy=Strategy())
        cadence.start()
        start_s, uses = self.now_s, []
        timer = Timer()
        timer.time_remaining = lambda: start_s + time_s - self.now_s
        trainer.callbacks = [timer]
        for trainer.current_epoch, epoch_s in enumerate(epochs_s):
            self.now_s += min(epoch_s, max(0.1, start_s + time_s - self.now_s))  # a batch at least
            trainer.should_stop = self.now_s >= start_s + time_s
            if cadence.is_due(trainer):
                uses.append(self.now_s - start_s)
                with cadence.timed():
                    self.now_s += cost_s
            if trainer.should_stop:
                break
        return uses


@pytest.mark.parametrize(
    ("epochs_s", "first_s"),
    [([1.0] * 100, 60), ([14.0] * 10, 56), ([20.0, 14.0] * 5, 54), ([61.0] * 3, 61), ([40.0] * 3, 40), ([5.0] * 3, 15)],
)
def test_the_first_time_is_within_a_minute_or_after_the_first_epoch(monkeypatch, epochs_s, first_s):
    assert Clock(monkeypatch).uses(Cadence(None, share=0.01, first_s=60), epochs_s=epochs_s, cost_s=2)[0] == first_s


@pytest.mark.parametrize("cost_s", [0.1, 1, 5, 20])
def test_an_hour_keeps_its_share_and_what_is_done_becomes_rarer(monkeypatch, cost_s):
    clock, cadence = Clock(monkeypatch), Cadence(None, share=0.02, first_s=60)
    epochs_s = [14.0] * 257
    uses = clock.uses(cadence, epochs_s=epochs_s, cost_s=cost_s)
    assert cost_s * len(uses) <= 0.02 * (clock.now_s - 1000)
    assert uses[-1] == pytest.approx(sum(epochs_s) + cost_s * (len(uses) - 1))  # the last epoch
    ratios = [later / earlier for earlier, later in itertools.pairwise(uses[:-1])]
    assert min(ratios, default=2) >= 1.25
    assert len(uses) == {0.1: 19, 1: 16, 5: 9, 20: 3}[cost_s]


def test_a_training_shorter_than_its_share_is_seen_at_its_first_minute_and_its_end(monkeypatch):
    assert Clock(monkeypatch).uses(Cadence(None, share=0.02, first_s=60), epochs_s=[10.0] * 12, cost_s=3) == [60, 123]


@pytest.mark.parametrize("time_s", range(100, 150, 7))
def test_what_the_end_will_do_is_not_done_just_before_it_too(monkeypatch, time_s):
    uses = Clock(monkeypatch).uses(Cadence(None, share=0.5, first_s=60), epochs_s=[10.0] * 99, cost_s=3, time_s=time_s)
    assert uses[-1] >= time_s
    assert min(later - earlier for earlier, later in itertools.pairwise(uses)) > 10


def test_epochs_by_number_do_not_look_at_the_clock(monkeypatch):
    assert Clock(monkeypatch).uses(Cadence(2, share=0.01, first_s=60), epochs_s=[100.0] * 5, cost_s=0) == [
        200,
        400,
        500,
    ]


def test_the_first_process_decides_by_its_clock_for_all(monkeypatch):
    clock, sent = Clock(monkeypatch), []
    trainer = SimpleNamespace(
        max_epochs=-1, should_stop=False, is_global_zero=True, strategy=Strategy(sent), callbacks=[]
    )
    first, other = Cadence(None, share=0.5, first_s=60), Cadence(None, share=0.5, first_s=60)
    found = []
    for trainer.current_epoch in range(20):
        clock.now_s += 10
        trainer.is_global_zero = True
        found.append(first.is_due(trainer))
        if found[-1]:
            with first.timed():
                clock.now_s += 1
        clock.now_s += 1000  # the other one's clock is elsewhere
        trainer.is_global_zero = False
        assert other.is_due(trainer) == found[-1]
        clock.now_s -= 1000
    assert [epoch for epoch, is_due in enumerate(found) if is_due] == [5, 7, 9, 12, 16]
    assert sent == []


# --- Pace


def test_speed_counts_the_examples_of_all_processes_but_not_what_callbacks_do(monkeypatch):
    now = [100.0]
    monkeypatch.setattr("specgan.training.pace.time.monotonic", lambda: now[0])
    trainer = SimpleNamespace(world_size=2, num_training_batches=3, current_epoch=4)
    module = SimpleNamespace(device=torch.device("cpu"), n_steps=15, logged={})
    module.log_dict = lambda metrics, **_: module.logged.update(metrics)
    pace = Pace()
    pace.on_train_start(trainer, module)
    now[0] += 50  # a preview between two epochs
    pace.on_train_epoch_start(trainer, module)
    for batch_idx in range(3):
        now[0] += 2.0
        pace.on_train_batch_end(trainer, module, None, (torch.zeros(8, 1, 4, 4), torch.zeros(8)), batch_idx)
    now[0] += 50  # a measurement at the end of the epoch
    pace.on_train_epoch_end(trainer, module)
    assert module.logged == {"epoch": 5, "n_steps": 15, "train/examples_per_s": 2 * 24 / 6}


@pytest.mark.parametrize(
    ("limits", "shown"),
    [
        ({"max_epochs": 9}, "Epoch 3/9"),
        ({"max_epochs": -1, "max_time": {"minutes": 5}}, "Epoch 3, 0:05:00 left"),
        ({"max_epochs": 9, "max_time": {"minutes": 5}}, "Epoch 3/9, 0:05:00 left"),
        ({"max_epochs": -1}, "Epoch 3"),
    ],
)
def test_the_progress_bar_counts_from_1_and_shows_the_time_left(limits, shown):
    bar = ProgressBar()
    bar._trainer = L.Trainer(**limits, callbacks=[bar], logger=False, enable_checkpointing=False, accelerator="cpu")
    assert bar._get_train_description(2) == shown
