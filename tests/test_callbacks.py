import json
import logging
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import lightning as L
import pytest
import soundfile
import torch
from lightning.pytorch.callbacks import ModelCheckpoint

from specgan.audio import AudioError
from specgan.callbacks import Measure, Preview, mean_distance
from specgan.data.datamodule import SpectrogramDataModule
from specgan.data.dataset import SpectrogramDataset
from specgan.evaluation import Evaluation
from specgan.models.cgan import CGAN
from specgan.models.classifier import Classifier
from specgan.models.discriminators import ProjectionDiscriminator
from specgan.models.generators import DCGANGenerator
from specgan.models.losses import BCELoss
from specgan.spectrogram import SpectrogramParams
from specgan.tasks.spectrograms import make_spectrograms
from specgan.vocoder import GriffinLim

PARAMS = SpectrogramParams(hop_length=512, n_mels=32, n_frames=32)


def test_mean_distance_of_known_pairs():
    spectrograms = torch.stack([torch.full((1, 2, 2), value) for value in (0.0, 1.0, 3.0)])
    assert mean_distance(spectrograms) == pytest.approx((1 + 3 + 2) / 3)


@pytest.fixture
def stage(tiny_drums, tmp_path):
    """A Preview and what Lightning would hand it; `draw` decides what the model generates."""
    make_spectrograms(tiny_drums, tmp_path / "specs", params=PARAMS, splits=[80, 10, 10], peak=0.5)
    train, val = (SpectrogramDataset(tmp_path / "specs", split, PARAMS) for split in ("train", "val"))
    data = SimpleNamespace(train=train, val=val, params=PARAMS, level_range=train.level_range)
    trainer = SimpleNamespace(
        datamodule=data, loggers=[], is_global_zero=True, current_epoch=0, max_epochs=10, should_stop=False
    )
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
    assert written == {*kinds, "index.html"}
    recorded, rate = soundfile.read(stage.folder / "kick" / "real.wav")
    assert (len(recorded), rate) == (PARAMS.n_samples, PARAMS.sample_rate)
    assert abs(recorded).max() == pytest.approx(0.5, abs=1e-3)


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
    with caplog.at_level(logging.WARNING, logger="specgan.callbacks"):
        run_epoch(stage, 2, real_clips(stage))
    assert stage.module.logged["val/silent_share"] == 0
    assert stage.module.logged["val/clipped_share"] == 0
    assert stage.module.logged["val/diversity"] == pytest.approx(1, abs=0.3)
    assert not [record for record in caplog.records if record.name == "specgan.callbacks"]


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


def test_a_recording_that_is_gone_costs_a_warning_only(stage, caplog):
    clips = stage.trainer.datamodule.val
    clips.sources = ["/gone.wav"] * len(clips.sources)
    stage.preview.on_fit_start(stage.trainer, stage.module)
    assert "gone.wav" in caplog.text
    assert (stage.folder / "kick" / "real_vocoded.wav").exists()
    assert not (stage.folder / "kick" / "real.wav").exists()


@pytest.mark.parametrize("settings", [{"every_n_epochs": 0}, {"n_shown": 5}, {"n_samples": 1}])
def test_impossible_settings(tmp_path, settings):
    with pytest.raises(ValueError, match=next(iter(settings))):
        Preview(tmp_path, GriffinLim, **settings)


# --- Measure


class Scripted:
    """An evaluation that finds one scripted distance after the other."""

    def __init__(self, fads, error=None):
        self.fads, self.error = iter(fads), error
        self.prepared, self.asked = [], []

    def prepare(self, datamodule):
        if self.error is not None:
            raise self.error
        self.prepared.append(datamodule)

    def quick(self, sample, *, n_samples):
        self.asked.append((sample, n_samples))
        return {"fad": next(self.fads), "conditional_accuracy": 0.5}


def measured_run(measure, *, epochs, max_epochs, stops_at=None):
    """What Measure logs when it goes through the epochs: {epoch: metrics}."""
    trainer = SimpleNamespace(datamodule="the data", is_global_zero=True, max_epochs=max_epochs, should_stop=False)
    module = SimpleNamespace(sample="the sampler", n_steps=0)
    logged = {}
    module.log_dict = lambda metrics, **_: logged.__setitem__(trainer.current_epoch + 1, metrics)
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
    assert all(set(metrics) == {"val/fad", "val/conditional_accuracy"} for metrics in logged.values())
    assert evaluation.prepared == ["the data"]
    assert evaluation.asked == [("the sampler", 7)] * 3
    curve = json.loads((tmp_path / "curve.json").read_text())
    assert [(point["epoch"], point["n_steps"], point["fad"]) for point in curve] == [
        (2, 20, 9.0),
        (4, 40, 4.0),
        (5, 50, 5.0),
    ]
    assert all(point["conditional_accuracy"] == 0.5 for point in curve)
    times = [point["time_s"] for point in curve]
    assert times == sorted(times) and times[0] >= 0


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


@pytest.mark.parametrize("error", [FileNotFoundError("kick_3.wav is gone"), AudioError("kick_3.wav is broken")])
def test_recordings_that_are_gone_cost_a_warning_and_the_metrics_only(tmp_path, caplog, error):
    measure = Measure(Scripted([], error), tmp_path / "curve.json", every_n_epochs=1)
    assert measured_run(measure, epochs=[1, 2], max_epochs=2) == {}
    assert "kick_3.wav" in caplog.text and "not measured" in caplog.text
    assert not (tmp_path / "curve.json").exists()


def test_other_errors_stop_the_run(tmp_path):
    measure = Measure(Scripted([], ValueError("judge-0.pt: not a judge")), tmp_path / "curve.json")
    with pytest.raises(ValueError, match="not a judge"):
        measured_run(measure, epochs=[], max_epochs=1)


@pytest.mark.parametrize("settings", [{"every_n_epochs": 0}, {"n_samples": 0}])
def test_impossible_settings_of_measure(tmp_path, settings):
    with pytest.raises(ValueError, match=f"{next(iter(settings))} is 0; at least 1"):
        Measure(Scripted([]), tmp_path / "curve.json", **settings)


def make_run(tiny_drums, folder, evaluation, *, max_epochs):
    """A trainer with the callbacks of conf/callbacks, a model and its data."""
    data = SpectrogramDataModule(
        params=PARAMS,
        audio_dir=str(tiny_drums),
        datasets_dir=str(folder / "data"),
        make_dataset=make_spectrograms,
        splits=[80, 10, 10],
        peak=0.5,
        batch_size=4,
        epoch_size=8,
    )
    model = CGAN(
        generator=partial(DCGANGenerator, width=16),
        discriminator=partial(ProjectionDiscriminator, width=16),
        loss=BCELoss(),
        optimizer_g=torch.optim.Adam,
        optimizer_d=torch.optim.Adam,
        latent_dim=16,
    )
    checkpoints = folder / "checkpoints"
    trainer = L.Trainer(
        max_epochs=max_epochs,
        accelerator="cpu",
        logger=False,
        callbacks=[
            Measure(evaluation, folder / "curve.json", every_n_epochs=2, n_samples=2),
            ModelCheckpoint(checkpoints, "best", monitor="val/fad", enable_version_counter=False),
            ModelCheckpoint(checkpoints, "last", every_n_epochs=1, enable_version_counter=False),
        ],
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    return trainer, model, data


def epoch_of(checkpoint: Path) -> int:
    return torch.load(checkpoint, weights_only=True)["epoch"] + 1


def test_the_best_checkpoint_is_that_of_the_smallest_distance(tiny_drums, tmp_path):
    evaluation = Scripted([3.0, 1.0, 2.0, 1.5])
    trainer, model, data = make_run(tiny_drums, tmp_path, evaluation, max_epochs=7)
    trainer.fit(model, datamodule=data)
    assert epoch_of(tmp_path / "checkpoints" / "best.ckpt") == 4
    assert epoch_of(tmp_path / "checkpoints" / "last.ckpt") == 7
    assert trainer.callback_metrics["val/fad"] == 1.5
    curve = json.loads((tmp_path / "curve.json").read_text())
    assert [point["epoch"] for point in curve] == [2, 4, 6, 7]
    assert [point["n_steps"] for point in curve] == [4, 8, 12, 14]

    more = Scripted([0.5])
    trainer, model, data = make_run(tiny_drums, tmp_path, more, max_epochs=8)
    trainer.fit(model, datamodule=data, ckpt_path=tmp_path / "checkpoints" / "last.ckpt", weights_only=True)
    curve = json.loads((tmp_path / "curve.json").read_text())
    assert [point["epoch"] for point in curve] == [2, 4, 6, 7, 8]
    assert epoch_of(tmp_path / "checkpoints" / "best.ckpt") == 8


def test_a_worse_resumed_run_leaves_the_best_checkpoint(tiny_drums, tmp_path):
    trainer, model, data = make_run(tiny_drums, tmp_path, Scripted([1.0]), max_epochs=2)
    trainer.fit(model, datamodule=data)
    trainer, model, data = make_run(tiny_drums, tmp_path, Scripted([2.0]), max_epochs=4)
    trainer.fit(model, datamodule=data, ckpt_path=tmp_path / "checkpoints" / "last.ckpt", weights_only=True)
    assert epoch_of(tmp_path / "checkpoints" / "best.ckpt") == 2


def make_evaluation(**settings):
    return Evaluation(
        vocoder=partial(GriffinLim, n_iter=2, n_inversion_iter=5),
        judge=partial(Classifier, width=8, n_features=8, n_steps=2),
        device="cpu",
        **settings,
    )


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


def test_training_goes_on_without_recordings(tiny_drums, tmp_path, caplog):
    trainer, model, data = make_run(tiny_drums, tmp_path, make_evaluation(), max_epochs=2)
    data.prepare_data()
    data.prepare_data = lambda: None
    data.setup("fit")
    data.train.sources[0] = "/gone.wav"
    data.setup = lambda stage: None
    trainer.fit(model, datamodule=data)
    assert "gone.wav" in caplog.text
    assert model.n_steps == 4
    assert "val/fad" not in trainer.callback_metrics
    assert (tmp_path / "checkpoints" / "last.ckpt").exists()
    assert not (tmp_path / "checkpoints" / "best.ckpt").exists()
