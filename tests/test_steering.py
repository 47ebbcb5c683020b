"""Sounds that are moved, and mixes of classes."""

import math
from functools import partial

import librosa
import numpy as np
import pandas as pd
import pytest
import soundfile
import torch
from checkpoints import save_checkpoint
from folders import contents
from torch import nn

import specgan
from specgan.generation import generate
from specgan.generation.steered import mix_of
from specgan.latent import Point
from specgan.latent.descriptors import CLARITY, DESCRIPTORS, Descriptors
from specgan.latent.mixing import class_points, class_shares, mix_name
from specgan.latent.steering import Steering, checked_move
from specgan.models.trained import TrainedGenerator
from specgan.spectrogram import LevelRange, Spectrogram, SpectrogramParams, normalise
from specgan.vocoders.griffin_lim import GriffinLim

RATE = 16000
PARAMS = SpectrogramParams(sample_rate=RATE, n_fft=1024, win_length=1024, hop_length=128, n_mels=64, n_frames=128)
RANGE = LevelRange(-80.0, 0.0)
VOCODER = partial(GriffinLim, n_iter=2, n_inversion_iter=5)
TIME = torch.arange(PARAMS.n_samples) / RATE


def spectrograms(*waveforms, params=PARAMS):
    return normalise(Spectrogram(params)(torch.stack(waveforms)), params, RANGE)[:, None]


def described(*waveforms, params=PARAMS):
    rows = Descriptors(params, RANGE)(spectrograms(*waveforms, params=params)).tolist()
    return [dict(zip([*DESCRIPTORS, "clarity"], row, strict=True)) for row in rows]


def tone(hz, amplitude=0.5):
    return amplitude * torch.sin(2 * math.pi * hz * TIME)


def noise(seed=0):
    return 0.1 * torch.randn(len(TIME), generator=torch.Generator().manual_seed(seed))


def voice(hz):
    return sum(tone(n * hz, 0.3 / n) for n in range(1, 12))


# --- descriptors


def test_a_tone_has_its_frequency_and_its_level_and_noise_is_noisier():
    low, high, hiss = described(tone(500), tone(1000, 0.25), noise())
    assert low["brightness"] == pytest.approx(-1, abs=0.1)
    assert high["brightness"] == pytest.approx(0, abs=0.1)
    assert hiss["brightness"] > 1.5
    assert low["loudness"] == pytest.approx(20 * math.log10(0.5), abs=0.5)
    assert high["loudness"] == pytest.approx(20 * math.log10(0.25), abs=0.5)
    assert low["noisiness"] < -20 < -6 < hiss["noisiness"] < 0
    assert hiss["clarity"] < 0.25 < low["clarity"]


@pytest.mark.parametrize("params", [PARAMS, SpectrogramParams(**{**vars(PARAMS), "kind": "linear"})])
def test_a_voice_has_the_pitch_of_its_fundamental(params):
    for hz, sound in zip((110, 155, 220), described(voice(110), voice(155), voice(220), params=params), strict=True):
        assert sound["pitch"] == pytest.approx(12 * math.log2(hz / 440), abs=1)
        assert sound["clarity"] > 0.4


def test_a_sound_is_as_long_as_it_takes_to_fall_by_40_db_whatever_its_level():
    decay_s = 0.08
    long = tone(1000) * (-TIME / decay_s).exp()
    whole, soft, short = described(long, 0.1 * long, tone(1000) * (-2 * TIME / decay_s).exp())
    length_s = 40 / (20 * math.log10(math.e)) * decay_s
    assert whole["length"] == pytest.approx(length_s, abs=0.03)
    assert soft["length"] == pytest.approx(whole["length"], abs=0.01)
    assert short["length"] == pytest.approx(length_s / 2, abs=0.03)


def test_an_attack_takes_from_20_to_3_db_below_the_loudest_frame():
    rise_s = 0.4  # a tenth of the amplitude is 20 dB, 0.708 of it 3 dB
    slow, fast = described(tone(1000) * (TIME / rise_s).clamp(max=1), tone(1000))
    assert slow["attack"] == pytest.approx((0.708 - 0.1) * rise_s, abs=0.03)
    assert fast["attack"] < 0.05


def test_descriptors_order_sounds_as_librosa_does():
    sounds = [
        voice(hz) * (-TIME / decay).exp() + level * noise()
        for hz in (120, 240)
        for decay in (0.1, 0.4)
        for level in (0.01, 0.3)
    ]
    own = Descriptors(PARAMS, RANGE)(spectrograms(*sounds))
    for name, column in (("brightness", 0), ("loudness", 4)):
        theirs = []
        for sound in sounds:
            magnitude = np.abs(librosa.stft(sound.numpy(), n_fft=1024, hop_length=128))
            weight = np.square(magnitude).sum(axis=0)
            centroid = np.log2(librosa.feature.spectral_centroid(S=magnitude, sr=RATE)[0] / 1000)
            rms = librosa.feature.rms(y=sound.numpy(), frame_length=800, hop_length=100, center=False).max()
            values = {"brightness": (weight * centroid).sum() / weight.sum(), "loudness": 20 * np.log10(rms * 2**0.5)}
            theirs.append(values[name])
        np.testing.assert_allclose(own[:, column], theirs, atol=0.3 if name == "brightness" else 1.0)


def test_each_sound_of_a_batch_is_described_as_alone_and_silence_has_slopes():
    batch = spectrograms(tone(500), noise(), torch.zeros(len(TIME)))
    describe = Descriptors(PARAMS, RANGE)
    together = describe(batch)
    for i in range(3):
        torch.testing.assert_close(together[i], describe(batch[i : i + 1])[0])
    (slopes,) = torch.autograd.grad(describe(batch.requires_grad_()).sum(), batch)
    assert slopes.isfinite().all()


# --- steering


class Bumps(nn.Module):
    """A generator of bands of noise whose z is known: place, width, decay, level; class 1 decays twice as fast."""

    latent_dim, settings = 32, {}

    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding.from_pretrained(torch.tensor([[1.0], [2.0]]))

    def forward(self, z, labels):
        return self.from_embedding(z, self.embedding(labels))

    def from_embedding(self, z, embedding):
        place, width, decay, level = (z[:, i, None, None] for i in range(4))
        bands, frames = torch.arange(64.0)[None, :, None], torch.arange(128.0)[None, None, :]
        bump = -((bands - 40 - 2 * place) / (9 + 0.7 * width)).square()
        decibels = -15 + 3 * level + 5 * bump - 0.8 * frames * embedding[..., None] * (1 + 0.2 * decay)
        return (decibels.clamp(-79, 0) / 40 + 1)[:, None]


def bumps():
    return TrainedGenerator(Bumps(), PARAMS, RANGE, ["slow", "fast"], 1)


@pytest.mark.parametrize(("name", "parts"), [("brightness", [0]), ("length", [2]), ("loudness", [3])])
def test_a_sound_moves_as_asked_and_stays_in_other_respects(name, parts):
    steering = Steering(bumps())
    for point in class_points(steering.trained, "slow", [1, 2]):
        before, spread = steering.describe(point), steering.spread(point.embedding)
        for amount in (-1.0, 1.0):
            steered = steering.steer(point, {name: amount})
            after = steering.describe(steered.point)
            change = {each: (after[each] - before[each]) / spread.std[each] for each in spread.steerable}
            assert change.pop(name) == pytest.approx(amount, abs=0.2)
            assert max(map(abs, change.values())) < 0.2
            assert steered.moved[name] == pytest.approx(amount, abs=0.2)
            assert steered.point.z.norm() == pytest.approx(float(point.z.norm()), rel=1e-4)
            assert (steered.point.z - point.z)[:4].abs().argmax() in parts
            assert steered.point.origin == f"{point.label}, seed {point.seed}, {name} {amount:+g}"
            assert steering.steer(point, {name: amount}).point.z.equal(steered.point.z)


def test_several_parts_of_a_move_are_reached_together():
    steering = Steering(bumps())
    (point,) = class_points(steering.trained, {"slow": 1, "fast": 1}, [3])
    moved = steering.steer(point, {"brightness": 1, "length": -1, "loudness": 0}).moved
    assert moved["brightness"] == pytest.approx(1, abs=0.2)
    assert moved["length"] == pytest.approx(-1, abs=0.2)
    assert moved["loudness"] == pytest.approx(0, abs=0.2)


def test_what_cannot_be_steered_is_refused_with_the_reason():
    steering = Steering(bumps())
    (point,) = class_points(steering.trained, "slow", [0])
    with pytest.raises(
        ValueError, match=r"attack cannot be steered in slow: its sounds are alike in it .*; what can be"
    ):
        steering.steer(point, {"attack": 1})
    with pytest.raises(ValueError, match="pitch cannot be steered in slow: most of its sounds have no clear pitch"):
        steering.steer(point, {"brightness": 1, "pitch": 1})
    logarithmic = SpectrogramParams(**{**vars(PARAMS), "level": "log1p"})
    drawn = torch.rand(8, CLARITY + 1)
    assert "log1p" in Descriptors(logarithmic, LevelRange(0.0, 10.0)).refusals(drawn)["loudness"]


@pytest.mark.parametrize(
    ("move", "message"),
    [
        ({"warmth": 1}, "there is no warmth; there are brightness, length, pitch, noisiness, loudness, attack"),
        ({"brightness": "much"}, "brightness is 'much'; a number of standard deviations, -4 to 4"),
        ({"brightness": 4.1}, "brightness is 4.1"),
        ({"brightness": math.nan}, "brightness is nan"),
        ({"brightness": True}, "brightness is True"),
        ("brightness", "move is 'brightness'; amounts by name"),
    ],
)
def test_impossible_moves_are_refused(move, message):
    with pytest.raises(ValueError, match=message):
        checked_move(move)


def test_a_generator_of_ones_own_needs_from_embedding():
    class Bare(nn.Module):
        latent_dim, settings = 2, {}

    bare = TrainedGenerator(Bare(), PARAMS, RANGE, ["a"], 1)
    with pytest.raises(ValueError, match=r"a Bare, which has no from_embedding\(z, embedding\); steering needs one"):
        Steering(bare)
    with pytest.raises(ValueError, match=r"a Bare, which has no from_embedding"):
        class_points(bare, {"a": 1}, [0])


# --- mixes


def test_the_shares_of_a_mix_are_its_weights_by_their_sum():
    assert class_shares({"kick": 7, "tom": 3.0, "snare": 0}, ["tom", "kick", "snare"]) == {"kick": 0.7, "tom": 0.3}
    assert mix_name({"kick": 2 / 3, "tom": 1 / 3}) == "kick 0.667 + tom 0.333"
    assert mix_name(class_shares("tom", ["tom"])) == "tom"
    assert mix_of([["kick", 0.7], ["tom", 0.3]]) == mix_of({"kick": 0.7, "tom": 0.3}) == {"kick": 0.7, "tom": 0.3}
    assert mix_of(["kick", "tom"]) is mix_of("kick") is mix_of([]) is None
    with pytest.raises(ValueError, match="a class has two weights"):
        mix_of([["kick", 0.7], ["kick", 0.3]])


@pytest.mark.parametrize(
    ("label", "message"),
    [
        ({"gong": 1}, "gong is not a class of this checkpoint; kick, tom are"),
        ({"kick": -1, "tom": 2}, "the weight of kick is -1; a number of at least 0"),
        ({"kick": "half"}, "the weight of kick is 'half'"),
        ({"kick": 0}, "no class has a weight above 0"),
        ({}, "no class has a weight above 0"),
    ],
)
def test_impossible_mixes_are_refused(label, message):
    with pytest.raises(ValueError, match=message):
        class_shares(label, ["kick", "tom"])


def test_a_mix_lies_between_its_classes():
    (point,) = class_points(bumps(), {"fast": 1, "slow": 3}, [5])
    assert isinstance(point, Point)
    assert point.embedding.tolist() == [1.25]
    assert (point.label, point.origin, point.seed) == ("fast 0.25 + slow 0.75", "fast 0.25 + slow 0.75, seed 5", 5)


# --- generate.py


@pytest.fixture(scope="module")
def ckpt_path(tmp_path_factory):
    return save_checkpoint(tmp_path_factory.mktemp("run") / "last.ckpt")


def draw_into(output, ckpt_path, **settings):
    settings = {"label": "kick", "n_samples": 1, "seed": 3, "device": "cpu", **settings}
    return generate(ckpt_path, output=output, vocoder=VOCODER, **settings)


def test_a_mix_of_one_class_has_the_bytes_of_the_class_and_so_has_a_move_by_nothing(ckpt_path, tmp_path):
    draw_into(tmp_path / "class", ckpt_path)
    draw_into(tmp_path / "mix", ckpt_path, label={"kick": 5, "7": 0})
    draw_into(tmp_path / "move", ckpt_path, move={"brightness": 0})
    alone, mix, moved = (contents(tmp_path / name) for name in ("class", "mix", "move"))
    assert alone["kick/kick_3.wav"] == mix["kick/kick_3.wav"] == moved["kick/kick_3.wav"]
    assert alone == moved


def test_names_page_table_and_file_say_the_mix_and_the_move(ckpt_path, tmp_path):
    trained = TrainedGenerator.load(ckpt_path)
    (point,) = class_points(trained, {"kick": 1, "7": 3}, [3])
    name = Steering(trained).spread(point.embedding).steerable[0]
    index = draw_into(tmp_path, ckpt_path, label=[["kick", 1], ["7", 3]], n_samples=2, move={name: 1})
    path = f"kick_0.25_7_0.75/kick_0.25_7_0.75_3_{name}+1.wav"
    origin = f"kick 0.25 + 7 0.75, seed 3, {name} +1"
    assert f"seed 3, {name} +1" in index.read_text()
    row = pd.read_csv(tmp_path / "manifest.csv").iloc[0]
    assert (row.path, row.label, row.seed, row.origin) == (path, "kick 0.25 + 7 0.75", 3, origin)
    with soundfile.SoundFile(tmp_path / path) as file:
        assert (file.title, file.genre) == (origin, "kick 0.25 + 7 0.75")


def test_python_draws_what_the_files_hold(ckpt_path, tmp_path):
    loaded = specgan.load(ckpt_path, vocoder=VOCODER)
    (point,) = class_points(loaded.trained, {"kick": 1, "7": 1}, [3])
    name = loaded.steering.spread(point.embedding).steerable[-1]
    index = draw_into(tmp_path, ckpt_path, label={"kick": 1, "7": 1}, move={name: -1})
    (file,) = index.parent.glob("*/*.wav")
    waveform, rate = loaded.draw({"kick": 1, "7": 1}, seed=3, move={name: -1})
    written, written_rate = soundfile.read(file, dtype="float32")
    assert rate == written_rate
    np.testing.assert_allclose(written, waveform, atol=2**-14)
    assert not loaded.draw({"kick": 1, "7": 1}, seed=3)[0].equal(waveform)
    assert loaded.draw("kick", seed=3)[0].equal(loaded.draw({"kick": 2}, seed=3)[0])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"move": {"warmth": 1}}, "there is no warmth"),
        ({"label": {"gong": 1}}, "gong is not a class"),
        ({"label": {"kick": 1}, "like": "x.wav"}, "a mix is of new sounds, and like is x.wav"),
    ],
)
def test_what_is_refused_leaves_nothing(ckpt_path, tmp_path, settings, message):
    with pytest.raises(ValueError, match=message):
        draw_into(tmp_path / "out", ckpt_path, **settings)
    assert not (tmp_path / "out").exists()
