"""Two channels, from the recordings to generated sounds; of one channel the other modules tell."""

import io
import json
import logging
import math
import re
from dataclasses import replace
from fractions import Fraction
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import av
import cv2
import lightning as L
import numpy as np
import pytest
import soundfile
import torch
import yaml
from checkpoints import save_checkpoint, tiny_gan

from specgan.audio import AudioError, encode_flac, load_audio, open_audio, save_wav
from specgan.clips.recipe import Recipe
from specgan.data.datamodule import SpectrogramDataModule
from specgan.data.dataset import SpectrogramDataset
from specgan.evaluation.evaluator import Evaluation
from specgan.evaluation.page import write_overview, write_report
from specgan.generation import generate
from specgan.models.classifier import Classifier
from specgan.models.discriminators import ChannelDiscriminator, ProjectionDiscriminator
from specgan.models.generators import DCGANGenerator
from specgan.models.trained import CHECKPOINT_KEY, TrainedGenerator
from specgan.pictures.figures import to_png
from specgan.server.sounds import SoundGenerator
from specgan.spectrogram import LevelRange, Spectrogram, SpectrogramParams, normalise, normalise_channels
from specgan.tasks.spectrograms import make_spectrograms
from specgan.training.dashboards import Exhibit, TensorBoardDashboard
from specgan.training.measure import Measure
from specgan.training.preview import Preview
from specgan.training.testing import require_same_data
from specgan.vocoders.griffin_lim import GriffinLim
from specgan.vocoders.vocoder import Vocoder

RATE = 8000
WHOLE = SpectrogramParams(sample_rate=RATE, n_fft=512, win_length=512, hop_length=128, n_mels=32, n_frames=None)
PARAMS = replace(WHOLE, n_frames=32)
VOCODER = partial(GriffinLim, n_iter=4, n_inversion_iter=5)


def place(seed: int, side: float, *, n_samples: int = PARAMS.n_samples) -> torch.Tensor:
    """(2, n_samples): a short noise, as loud on the right as `side` says of 0 (all is left) to 1."""
    sound = torch.randn(n_samples, generator=torch.Generator().manual_seed(seed)) * torch.linspace(1, 0, n_samples)
    return 0.2 * torch.stack([math.cos(side * math.pi / 2) * sound, math.sin(side * math.pi / 2) * sound])


def correlation(sounds: torch.Tensor) -> torch.Tensor:
    """(..., 2, T) -> (...)"""
    left, right = sounds.double().unbind(-2)
    return (left * right).sum(-1) / (left.norm(dim=-1) * right.norm(dim=-1))


@pytest.fixture(scope="module")
def audio(tmp_path_factory) -> Path:
    """Sounds on the left and on the right, of which two recordings are mono and one is 5.1."""
    root = tmp_path_factory.mktemp("audio")
    for label, side in (("left", 0.2), ("right", 0.8)):
        for i in range(6):
            save_wav(root / label / f"{i}.wav", place(i, side, n_samples=3000 + 500 * i), RATE)
    save_wav(root / "left" / "mono_1.wav", place(10, 0.0)[0], RATE)
    save_wav(root / "left" / "mono_2.wav", place(11, 0.0)[0], RATE)
    save_wav(root / "right" / "cinema.wav", place(12, 0.8).repeat(3, 1), RATE)
    return root


def make(audio, folder, **settings):
    settings = {"params": WHOLE, "splits": (60, 20, 20), "channels": 2, "peak": 0.5, "keep_sounds": 20, **settings}
    return make_spectrograms(audio, folder, **settings)


@pytest.fixture(scope="module")
def specs(audio, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("specs")
    make(audio, folder)
    return folder


def open_data(folder, **settings) -> SpectrogramDataModule:
    data = SpectrogramDataModule(
        dataset_dir=str(folder), **{"params": PARAMS, "channels": 2, "batch_size": 4, "epoch_size": 8, **settings}
    )
    data.setup("test")
    return data


# --- files of any number of channels


@pytest.mark.parametrize("layout", ["mono", "stereo", "3.0", "quad", "5.0", "5.1", "6.1", "7.1"])
def test_left_and_right_are_those_of_ffmpeg(layout, tmp_path):
    n_channels = av.AudioLayout(layout).nb_channels
    samples = np.random.default_rng(0).uniform(-0.9, 0.9, (n_channels, 4000)).astype(np.float32)
    soundfile.write(tmp_path / "x.wav", samples.T, RATE, subtype="FLOAT")
    frame = av.AudioFrame.from_ndarray(samples.T.reshape(1, -1), format="flt", layout=layout)
    frame.sample_rate, frame.time_base = RATE, Fraction(1, RATE)
    resampler = av.AudioResampler("s16p", "stereo", RATE)  # 16 bits, where FFmpeg keeps to full scale
    expected = np.concatenate(
        [part.to_ndarray() for part in (*resampler.resample(frame), *resampler.resample(None))], 1
    )
    waveform, _ = load_audio(tmp_path / "x.wav", channels=2)
    if layout == "mono":  # FFmpeg turns it down by 3 dB, so that the sum of both sides keeps its power
        expected = expected * math.sqrt(2)
    np.testing.assert_allclose(waveform.numpy(), expected / 2**15, atol=2e-4)


def test_channels_whose_places_are_not_known_are_refused(tmp_path):
    soundfile.write(tmp_path / "x.wav", np.zeros((100, 9), np.float32), RATE)
    with pytest.raises(AudioError, match=r"x\.wav: has 9 channels, .* write it with two channels"):
        load_audio(tmp_path / "x.wav", channels=2)
    with pytest.raises(ValueError, match="channels is 3; 1, or 2 for left and right"), open_audio(tmp_path, channels=3):
        pass


def test_a_flac_has_both_channels():
    sound = place(0, 0.3)
    samples, _ = soundfile.read(io.BytesIO(encode_flac(sound, RATE)), dtype="float32")
    np.testing.assert_allclose(samples.T, sound, atol=2**-15)


# --- dataset folders


@pytest.mark.parametrize("file_format", ["pt", "shards"])
def test_an_example_has_the_spectrogram_and_the_sound_of_each_channel(audio, tmp_path, file_format, caplog):
    with caplog.at_level(logging.INFO):
        make(audio, tmp_path, format=file_format)
        make(audio, tmp_path, format=file_format)
    for said in ("2 of 15 recordings are mono", "1 of 15 recordings have more than two channels"):
        assert len([record for record in caplog.records if said in record.message]) == 2  # once in each run
    dataset = SpectrogramDataset(tmp_path, "train", PARAMS, channels=2)
    spectrograms, _ = dataset.__getitems__([(i, 0.5) for i in range(len(dataset))])
    assert spectrograms.shape == (len(dataset), 2, 32, 32)
    waveforms = dataset.waveforms([(i, 0.0) for i in range(len(dataset))])
    assert waveforms.shape == (len(dataset), 2, PARAMS.n_samples)
    for i, source in enumerate(dataset.sources):
        waveform, _ = load_audio(source, channels=2)
        waveform *= 0.5 / waveform.abs().max()  # both alike: the place of a sound stays
        level = Spectrogram(WHOLE)(waveform)
        torch.testing.assert_close(dataset.level(i), level, rtol=0, atol=1e-3)
        start = round(0.5 * max(0, level.shape[-1] - 32))
        piece = normalise(level[..., start : start + 32], PARAMS, dataset.level_range)
        torch.testing.assert_close(spectrograms[i, ..., : piece.shape[-1]], piece, rtol=0, atol=1e-4)
        n_samples = min(PARAMS.n_samples, waveform.shape[1])
        torch.testing.assert_close(waveforms[i, :, :n_samples], waveform[:, :n_samples], rtol=0, atol=1e-4)


def test_with_log1p_the_channels_of_an_example_share_their_scale(audio, tmp_path):
    params = replace(PARAMS, level="log1p")
    make(audio, tmp_path, params=replace(params, n_frames=None))
    dataset = SpectrogramDataset(tmp_path, "train", params, channels=2)
    longest = int(dataset.n_frames_of.argmax())
    spectrogram, _ = dataset[longest]
    quieter, louder = sorted(float(channel.max()) for channel in spectrogram)
    assert quieter < louder == 1
    level = dataset.level(longest)[..., :32]
    torch.testing.assert_close(normalise_channels(level, params, dataset.level_range), spectrogram)


def test_a_folder_of_one_channel_says_nothing_of_channels(audio, tmp_path):
    make(audio, tmp_path, channels=1)
    assert "channels" not in yaml.safe_load((tmp_path / "params.yaml").read_text())
    assert "n_channels" not in (tmp_path / ".journal.jsonl").read_text()
    mono = SpectrogramDataModule(params=PARAMS, audio_dir="clips", splits=[80, 10, 10])
    stereo = SpectrogramDataModule(params=PARAMS, audio_dir="clips", splits=[80, 10, 10], channels=2)
    assert mono.dataset_dir.name != stereo.dataset_dir.name
    assert "channels" not in mono.dataset_settings


def test_a_folder_of_other_channels_is_refused_with_both_values(audio, specs, tmp_path):
    make(audio, tmp_path, channels=1)
    with pytest.raises(ValueError, match=r"made with task.channels=1, data.channels is 2; give data.channels=1"):
        open_data(tmp_path)
    with pytest.raises(ValueError, match=r"made with task.channels=2, data.channels is 1; give data.channels=2"):
        open_data(specs, channels=1)


@pytest.mark.parametrize(
    ("settings", "message"),
    [({"channels": 3}, "channels is 3; 1, or 2"), ({"channels": 2, "mono": False}, "channels is 2, and mono is False")],
)
def test_impossible_channels_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        Recipe(PARAMS, **settings)


# --- networks


@pytest.mark.parametrize("discriminator", [ProjectionDiscriminator, ChannelDiscriminator])
def test_networks_make_and_look_at_both_channels(discriminator):
    sizes = {"n_classes": 3, "n_mels": 16, "n_frames": 32, "channels": 2, "width": 16}
    network, labels = DCGANGenerator(**sizes, latent_dim=8), torch.tensor([0, 1, 2])
    spectrograms = network(torch.randn(3, 8), labels)
    assert spectrograms.shape == (3, 2, 16, 32)
    assert spectrograms[:, 0].equal(spectrograms[:, 1])  # they start alike
    spectrograms = 2 * torch.rand(3, 2, 16, 32) - 1
    critic = discriminator(**sizes)
    logits = critic(spectrograms, labels)
    assert logits.shape == (3,)
    assert not torch.allclose(critic(spectrograms.flip(1), labels), logits)


def test_a_network_of_your_own_that_knows_one_channel_is_named():
    model = tiny_gan()
    model.make_discriminator = lambda *, n_classes, n_mels, n_frames: None
    model.networks(PARAMS, n_classes=2)
    with pytest.raises(ValueError, match=r"data.channels is 2, and a network takes no channels \(.*lambda"):
        model.networks(PARAMS, n_classes=2, channels=2)


def test_the_judge_hears_on_which_side_a_sound_is():
    """Of the mean of both channels it could not tell."""
    waveforms = torch.stack([place(i, side) for side in (0.2, 0.8) for i in range(16)])
    labels = torch.arange(2).repeat_interleave(16)
    judge = Classifier(sample_rate=RATE, n_samples=PARAMS.n_samples, class_names=["l", "r"], channels=2, width=8)
    judge.log = lambda *_, **__: None
    optimizer, levels = judge.configure_optimizers(), judge.analyse_all(waveforms)
    assert levels.shape[:3] == (32, 2, 64)
    for step in range(40):
        optimizer.zero_grad()
        judge.train().training_step((levels, labels), step).backward()
        optimizer.step()
    unheard = torch.stack([place(100 + i, side) for side in (0.2, 0.8) for i in range(8)])
    assert judge.predict(unheard).tolist() == [0] * 8 + [1] * 8


def test_augmentation_treats_the_channels_alike():
    judge = Classifier(sample_rate=RATE, n_samples=PARAMS.n_samples, class_names=["l", "r"], channels=2, shift=0.3)
    levels = torch.rand(8, 1, 64, 50).expand(-1, 2, -1, -1)
    changed = judge._augment(levels)
    assert changed[:, 0].equal(changed[:, 1])
    assert not changed.equal(levels)


# --- the vocoder


def test_what_is_alike_in_both_channels_sounds_alike():
    spectrogram = 2 * torch.rand(2, 1, 32, 32) - 1
    vocoder = VOCODER(PARAMS, LevelRange(-80.0, 0.0))
    alone = vocoder(spectrogram, seeds=[1, 2])
    both = vocoder(spectrogram.expand(-1, 2, -1, -1), seeds=[1, 2])
    assert both.shape == (2, 2, PARAMS.n_samples)
    assert both[:, 0].equal(both[:, 1])
    torch.testing.assert_close(both[:, 0], alone, rtol=0, atol=1e-2 * float(alone.abs().max()))
    for i in range(2):  # and a batch is its sounds
        one = vocoder(spectrogram[i : i + 1].expand(-1, 2, -1, -1), seeds=[i + 1])[0]
        torch.testing.assert_close(both[i], one, rtol=0, atol=1e-2 * float(one.abs().max()))


def test_channels_that_differ_a_little_stay_alike():
    """With a start for each channel they would have a correlation of about 0, with the same random numbers 0.6."""
    mid, side = torch.randn(2, 4, PARAMS.n_samples, generator=torch.Generator().manual_seed(0))
    sounds = 0.1 * torch.stack([mid + 0.2 * side, mid - 0.2 * side], dim=1)
    level = Spectrogram(PARAMS)(sounds)
    level_range = LevelRange(-80.0, float(level.max()))
    made = GriffinLim(PARAMS, level_range)(normalise(level, PARAMS, level_range), seeds=[0, 1, 2, 3])
    assert correlation(sounds).min() > 0.9
    assert correlation(made).min() > 0.85


def test_a_vocoder_that_knows_waveforms_alone_goes_channel_by_channel():
    class Steps(Vocoder):
        def waveform(self, power, seeds):
            return power.mean(1).repeat_interleave(128, 1) + torch.tensor(seeds)[:, None]

    spectrogram = 2 * torch.rand(3, 2, 32, 32) - 1
    vocoder = Steps(PARAMS, LevelRange(-80.0, 0.0))
    made = vocoder(spectrogram, seeds=[5, 6, 7])
    for channel in range(2):
        assert made[:, channel].equal(vocoder(spectrogram[:, channel : channel + 1], seeds=[5, 6, 7]))


# --- pictures


def test_a_picture_has_the_first_channel_above_the_second():
    spectrogram = torch.full((2, 3, 4), -1.0)
    spectrogram[0, 0, 0], spectrogram[1, 2, 3] = 0.0, 0.5  # lowest on the left, highest on the right
    png = np.frombuffer(to_png(spectrogram, grayscale=True), np.uint8)
    expected = np.zeros((7, 4), np.uint8)
    expected[2, 0], expected[3], expected[4, 3] = 128, 255, 191
    np.testing.assert_array_equal(cv2.imdecode(png, cv2.IMREAD_UNCHANGED), expected)


# --- a run


@pytest.fixture(scope="module")
def run(specs, tmp_path_factory):
    """A tiny training with previews and measurements, and its checkpoint."""
    folder, data = tmp_path_factory.mktemp("run"), open_data(specs)
    judge = partial(Classifier, width=8, n_features=16, n_steps=30)
    evaluation = Evaluation(vocoder=VOCODER, judge=judge, n_samples=6, n_neighbors=1, n_shown=1, classifier_steps=2)
    preview = Preview(folder / "previews", VOCODER, evaluation=evaluation, every_n_epochs=1, n_samples=2)
    measure = Measure(evaluation, folder / "curve.json", every_n_epochs=1, n_samples=2)
    options = {"accelerator": "cpu", "logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    trainer = L.Trainer(max_epochs=1, enable_model_summary=False, callbacks=[measure, preview], **options)
    model = tiny_gan()
    trainer.fit(model, datamodule=data)
    trainer.save_checkpoint(folder / "last.ckpt")
    return SimpleNamespace(folder=folder, data=data, model=model, evaluation=evaluation, ckpt_path=folder / "last.ckpt")


def test_a_run_shows_and_measures_both_channels(run):
    names = {f"{label}/{kind}" for label in ("left", "right") for kind in ("real", "real_vocoded", "epoch_1")}
    for name in names:
        assert soundfile.info(run.folder / "previews" / f"{name}.wav").channels == 2
        picture = cv2.imread(str(run.folder / "previews" / f"{name}.png"))
        assert picture.shape[:2] == (400, 400)  # one channel has a height of 300
    assert math.isfinite(json.loads((run.folder / "curve.json").read_text())[-1]["fad"])


def test_the_checkpoint_gives_sounds_of_two_channels_and_between_them(run, tmp_path):
    trained = TrainedGenerator.load(run.ckpt_path)
    assert trained.channels == 2
    generate(run.ckpt_path, label="all", n_samples=2, seed=3, output=tmp_path, vocoder=VOCODER)
    sound, rate = soundfile.read(tmp_path / "left" / "left_3.wav")
    assert (sound.shape, rate) == ((PARAMS.n_samples, 2), RATE)
    assert not np.array_equal(sound[:, 0], sound[:, 1])
    sounds = SoundGenerator(run.ckpt_path, vocoder=VOCODER)
    points = sounds.morph(sounds.point("left", seed=3), sounds.point("right", seed=4), 3)
    between = sounds.draw(points, tmp_path / "morph")
    assert between[0].wav.read_bytes() == (tmp_path / "left" / "left_3.wav").read_bytes()
    assert between[2].png.read_bytes() == (tmp_path / "right" / "right_4.png").read_bytes()
    assert soundfile.info(between[1].wav).channels == 2


def test_a_report_shows_and_plays_both_channels(run, tmp_path):
    report, examples = run.evaluation.of(run.data).report(run.model.sample)
    report |= {"checkpoint": "x", "n_steps": 1}
    write_report(tmp_path / "report.html", report, examples=examples, sample_rate=RATE)
    write_overview(tmp_path / "report.png", examples, kinds=["real", "generated"])
    assert set(report["rows"]) == {"real", "vocoded", "generated"}
    shown = [example for of_class in examples.values() for kind in of_class.values() for example in kind]
    assert len(shown) == 2 * (1 + 1 + 1)
    shown += [clip for example in shown for clip in example.nearest]
    assert len(shown) > 2 * (1 + 1 + 1)
    for example in shown:
        assert (example.waveform.shape, example.spectrogram.shape) == ((2, PARAMS.n_samples), (2, 32, 32))
    assert len(re.findall("data:audio/flac", (tmp_path / "report.html").read_text())) == len(shown)


def test_a_checkpoint_of_other_channels_is_refused_with_both_values(run, tmp_path):
    mono, stereo = (torch.load(path, weights_only=True) for path in (save_checkpoint(tmp_path / "x"), run.ckpt_path))
    model = tiny_gan()
    model.build(params=PARAMS, level_range=LevelRange(-80.0, -10.0), class_names=["7", "kick", "../evil"])
    with pytest.raises(ValueError, match="channels: checkpoint 2, this run 1"):
        model.on_load_checkpoint(stereo)
    run.model.on_load_checkpoint(stereo)
    with pytest.raises(ValueError, match="channels: checkpoint 1, this run 2"):
        run.model.on_load_checkpoint(mono)
    with pytest.raises(ValueError, match="channels: checkpoint 1, data set 2"):
        require_same_data(TrainedGenerator.load(tmp_path / "x"), run.data)
    del mono[CHECKPOINT_KEY]["generator"]["channels"]  # as checkpoints from before there were others
    torch.save(mono, tmp_path / "old")
    assert TrainedGenerator.load(tmp_path / "old").channels == 1
    mono[CHECKPOINT_KEY].update(class_names=model.class_names)
    model.on_load_checkpoint(mono)
    with pytest.raises(ValueError, match="channels: checkpoint 1, this run 2"):
        run.model.on_load_checkpoint(mono)


def test_tensorboard_plays_both_channels(tmp_path):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    sound = place(0, 0.3)
    save_wav(tmp_path / "x.wav", sound, RATE)
    (tmp_path / "x.png").write_bytes(to_png(torch.rand(2, 4, 4)))
    board = TensorBoardDashboard(save_dir=str(tmp_path), name="", version="")
    files = {"sound": tmp_path / "x.wav", "picture": tmp_path / "x.png"}
    exhibit = Exhibit("kick", "real", None, "kick", "x", **files, waveform=sound, sample_rate=RATE)
    board.log_exhibits([exhibit], epoch=3)
    board.finalize("success")
    events = EventAccumulator(str(tmp_path))
    events.Reload()
    (shown,) = events.Audio("audio/kick")
    assert (shown.encoded_audio_string, shown.step) == ((tmp_path / "x.wav").read_bytes(), 3)
