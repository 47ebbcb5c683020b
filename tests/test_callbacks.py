import logging
from functools import partial
from types import SimpleNamespace

import pytest
import soundfile
import torch

from specgan.callbacks import Preview, mean_distance
from specgan.data.dataset import SpectrogramDataset
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
