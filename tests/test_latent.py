"""Sounds like a recording: the encoder, the search, the arcs, and generate.py like=..., on a tiny generator."""

import logging
import re
from dataclasses import replace
from functools import partial
from pathlib import Path

import pandas as pd
import pytest
import soundfile
import torch
from checkpoints import CLASSES, PARAMS, save_checkpoint, tiny_gan
from folders import contents
from hydra.utils import instantiate
from test_config import composed

import specgan
from specgan.audio import AudioError, save_wav
from specgan.command_line.arguments import as_typed
from specgan.files import OUTPUTS_NAME
from specgan.generation import generate
from specgan.latent import LatentSpace, Point
from specgan.latent.fitting import affordable_steps, fit_encoder
from specgan.latent.kept import encoder_path, load_encoder, load_or_train_encoder, train_encoder
from specgan.latent.recording import Recording, Typical, onset_frame, read_recording
from specgan.latent.search import differences
from specgan.models.generators import DCGANGenerator, noise
from specgan.models.trained import TrainedGenerator
from specgan.spectrogram import LevelRange, Spectrogram, normalise
from specgan.vocoders.griffin_lim import GriffinLim

RATE = PARAMS.sample_rate


def loud_checkpoint(path):
    """Of a generator whose sounds differ by class and noise, as if it had learned something."""
    save_checkpoint(path)
    checkpoint = torch.load(path, weights_only=True)
    for name, weight in checkpoint["state_dict"].items():
        if name.endswith("weight"):
            weight.mul_(3)
    torch.save(checkpoint, path)
    return path


@pytest.fixture(scope="module")
def ckpt_path(tmp_path_factory):
    path = loud_checkpoint(tmp_path_factory.mktemp("run") / "last.ckpt")
    train_encoder(TrainedGenerator.load(path), path, n_steps=40)
    return path


@pytest.fixture(scope="module")
def space(ckpt_path):
    return LatentSpace.open(ckpt_path)


def point_of(space, label="kick", seed=5):
    index = space.trained.class_names.index(label)
    embedding = space.trained.network.embedding(torch.tensor(index)).detach()
    return Point(noise(space.trained.network, seed), embedding, label, f"{label}, seed {seed}")


def hit(path, *, n_before=0, n_after=2000, amplitude=0.5, rate=RATE, channels=1):
    sound = amplitude * torch.sin(torch.arange(n_after) * 0.5) * torch.linspace(1, 0, n_after)
    waveform = torch.cat([torch.zeros(n_before), sound])
    save_wav(path, waveform if channels == 1 else waveform.expand(channels, -1), rate, subtype="FLOAT")
    return path


# --- the encoder


def test_the_encoder_learns_classes_and_comes_nearer_and_the_random_state_stays(space):
    trained = space.trained
    state = torch.get_rng_state()
    encoder, losses = fit_encoder(trained, n_steps=40, shows_progress=False)
    assert torch.get_rng_state().equal(state)
    assert sum(losses[-5:]) < 0.95 * sum(losses[:5])
    for name, weight in encoder.state_dict().items():
        assert weight.equal(space.encoder.state_dict()[name]), name
    labels = torch.arange(3).repeat(20)
    drawn = trained.sample_indices(labels.tolist(), range(1000, 1060))
    assert (encoder.classify(drawn).argmax(dim=1) == labels).float().mean() > 0.8
    with pytest.raises(ValueError, match="n_steps is 0; a whole number, at least 1"):
        fit_encoder(trained, n_steps=0)


def test_larger_generators_get_fewer_steps(ckpt_path):
    trained = TrainedGenerator.load(ckpt_path)
    large = tiny_gan()
    large.make_generator = partial(DCGANGenerator, width=256)
    large.build(params=replace(PARAMS, n_frames=512), level_range=trained.level_range, class_names=CLASSES)
    assert 60 <= affordable_steps(large.trained) < affordable_steps(trained)


def test_an_encoder_is_trained_once_and_again_for_other_weights(tmp_path, caplog):
    caplog.set_level(logging.INFO)
    path = loud_checkpoint(tmp_path / "last.ckpt")
    trained = TrainedGenerator.load(path)
    first = train_encoder(trained, path, n_steps=2)
    assert encoder_path(path) == tmp_path / "last.encoder.safetensors"
    before = encoder_path(path).read_bytes()
    kept = load_or_train_encoder(trained, path)
    assert encoder_path(path).read_bytes() == before
    assert all(weight.equal(kept.state_dict()[name]) for name, weight in first.state_dict().items())
    carrying = replace(trained, vocoder={"weights": {"a": torch.ones(1)}})  # which the encoder has nothing to do with
    assert load_encoder(carrying, encoder_path(path)) is not None

    with torch.no_grad():
        next(trained.network.parameters()).add_(1e-3)  # the training went on
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("specgan.latent.fitting.affordable_steps", lambda _: 1)
        load_or_train_encoder(trained, path)
    assert "of other weights than" in caplog.text
    assert encoder_path(path).read_bytes() != before


@pytest.mark.parametrize("content", [b"", b"mine", b"\x10\0\0\0\0\0\0\0not really JSON.."])
def test_a_file_that_is_no_encoder_is_refused_and_stays(ckpt_path, tmp_path, content):
    path = tmp_path / "last.ckpt"
    encoder_path(path).write_bytes(content)
    trained = TrainedGenerator.load(ckpt_path)
    for attempt in (load_or_train_encoder, train_encoder):
        with pytest.raises(ValueError, match=r"last\.encoder\.safetensors: not an encoder .* move it away"):
            attempt(trained, path)
    assert encoder_path(path).read_bytes() == content


def test_a_folder_that_cannot_be_written_to_is_told_and_the_encoder_used(ckpt_path, monkeypatch, caplog):
    def refuse(*_):
        raise PermissionError("read-only")

    monkeypatch.setattr("specgan.latent.kept.write_bytes", refuse)
    encoder = train_encoder(TrainedGenerator.load(ckpt_path), ckpt_path, n_steps=1)
    assert "cannot be written (read-only), so the encoder is used without being kept" in caplog.text
    assert encoder.classify(torch.zeros(2, 1, 32, 32)).shape == (2, 3)


# --- recordings


def test_a_recording_that_begins_as_the_generators_sounds_do_is_what_training_would_see(space, tmp_path):
    typical = Typical((0, 0), (-1.0, 1.0))
    read = read_recording(hit(tmp_path / "a.wav", amplitude=0.2), space.trained, typical)
    waveform, _ = soundfile.read(tmp_path / "a.wav", dtype="float32")
    level = Spectrogram(PARAMS)(torch.from_numpy(waveform)[None])
    expected = normalise(level, PARAMS, space.trained.level_range)
    torch.testing.assert_close(read.spectrograms[0][..., : level.shape[-1]], expected, atol=1e-5, rtol=0)
    assert (read.spectrograms[..., level.shape[-1] + 2 :] < -0.999).all()
    assert (read.starts_s, read.duration_s, read.gain_db) == ([0.0], 2000 / RATE, 0.0)


def test_a_late_quiet_or_stereo_recording_of_another_rate_is_moved_and_made_as_loud(space, tmp_path):
    typical = Typical((0, 1), (0.5, 0.5))
    here = read_recording(hit(tmp_path / "a.wav"), space.trained, typical)
    late = hit(tmp_path / "b.wav", n_before=RATE, amplitude=0.005, channels=2)
    there = read_recording(late, space.trained, typical)
    assert min(there.starts_s) < 1.0 < max(there.starts_s)
    assert there.starts_s == pytest.approx([1.0] * len(there.starts_s), abs=3 * PARAMS.hop_length / RATE)
    assert there.gain_db > here.gain_db + 10
    assert float(there.spectrograms.max()) == pytest.approx(0.5, abs=0.1)
    assert min(differences(there.spectrograms, here.spectrograms)) < 0.02
    fast = read_recording(hit(tmp_path / "c.wav", n_after=12000, rate=48000), space.trained, typical)
    assert fast.duration_s == pytest.approx(0.25, abs=1e-3)
    assert onset_frame(fast.spectrograms[0], 70.0) <= 1


@pytest.mark.parametrize(
    ("samples", "error", "message"),
    [
        (torch.zeros(4000), ValueError, r"x\.wav: is silent"),
        (torch.zeros(61 * RATE), ValueError, r"x\.wav: the first 60 s are silent, and more is not read"),
        (torch.zeros(0), AudioError, r"x\.wav: holds no samples"),
        (b"no sound", AudioError, r"x\.wav"),
        (None, FileNotFoundError, r"x\.wav: no such file"),
    ],
)
def test_what_cannot_be_heard_is_refused_before_an_encoder_is_trained(tmp_path, samples, error, message):
    path = save_checkpoint(tmp_path / "last.ckpt")
    if isinstance(samples, bytes):
        (tmp_path / "x.wav").write_bytes(samples)
    elif samples is not None:
        soundfile.write(tmp_path / "x.wav", samples.numpy(), RATE)
    with pytest.raises(error, match=message):
        draw(path, tmp_path / "out", like=tmp_path / "x.wav")
    assert not encoder_path(path).exists()
    assert not (tmp_path / "out").exists()


def test_more_than_a_minute_is_not_looked_at(space, tmp_path, caplog):
    read = read_recording(hit(tmp_path / "x.wav", n_after=61 * RATE), space.trained, space.typical)
    assert read.duration_s == 60
    assert "is longer than 60 s" in caplog.text


# --- points


def test_a_drawn_sound_is_found_again_nearer_than_any_of_a_hundred(space):
    target = space.draw([point_of(space)])
    recording = Recording("x.wav", target, [0.0], 0.5, 0.0)
    found = space.encode_recording(recording)
    again = space.encode_recording(recording)
    assert found.point.z.equal(again.point.z)
    assert (found.point.label, found.point.origin) == ("kick", "nearest to x.wav")
    assert 0.5 < found.probability <= 1
    random = space.trained.sample(["kick"] * 100, range(100, 200))
    assert differences(space.draw([found.point]), target) < 0.5 * differences(random, target).min()
    assert space.encode_recording(recording, label="7").point.label == "7"
    with pytest.raises(ValueError, match=r"label is gong: not a class of this checkpoint; one of: 7, kick"):
        space.encode_recording(recording, label="gong")


def test_variations_go_from_the_sound_itself_to_any_of_its_class_in_even_steps(space):
    start = point_of(space)
    origin = space.draw([start])
    (same,) = space.vary(start, distance=0, seeds=[3])
    assert space.draw([same]).equal(origin)
    ends = space.trained.sample(["kick"] * 8, range(8))
    far = int(differences(ends, origin).argmax())  # of near ones a sound beyond is drawn
    (other,) = space.vary(start, distance=1, seeds=[far])
    assert space.draw([other])[0].equal(ends[far])
    distances = [0.2, 0.4, 0.6, 0.8, 1.0]
    heard = torch.stack(
        [differences(space.draw(space.vary(start, distance=each, seeds=range(8))), origin).mean() for each in distances]
    )
    torch.testing.assert_close(heard / heard[-1], torch.tensor(distances), atol=0.06, rtol=0)
    assert other.origin == f"variation of kick, seed 5, distance 1, seed {far}"
    for impossible in (-0.1, 1.5, "far", True):
        with pytest.raises(ValueError, match=f"distance is {impossible!r}; a number from 0"):
            space.vary(start, distance=impossible, seeds=[0])


def test_a_morph_begins_and_ends_with_its_sounds(space):
    ends = point_of(space), point_of(space, "7", 6)
    points = space.morph(*ends, n_positions=3)
    drawn = space.draw(points)
    assert drawn[0].equal(space.draw(ends[:1])[0])
    torch.testing.assert_close(drawn[2], space.draw(ends[1:])[0], atol=1e-5, rtol=0)
    assert [point.label for point in points] == ["kick to 7"] * 3
    assert points[1].origin == "morph of kick, seed 5 to 7, seed 6, 2 of 3"
    with pytest.raises(ValueError, match="n_positions is 1"):
        space.morph(*ends, n_positions=1)


class Plain(torch.nn.Module):
    """A network of one's own, without embeddings."""

    latent_dim, settings = 16, {}

    def forward(self, z, labels):
        return torch.zeros(len(z), 1, 32, 32)


def test_a_generator_without_embeddings_is_told_what_it_lacks(space):
    trained = TrainedGenerator(Plain(), PARAMS, LevelRange(-80.0, -10.0), CLASSES, 1)
    for attempt in (lambda: LatentSpace(trained, space.encoder), lambda: fit_encoder(trained)):
        with pytest.raises(ValueError, match="the generator is a Plain, which has no from_embedding"):
            attempt()


# --- the command


def draw(ckpt_path, output, **settings):
    vocoder = partial(GriffinLim, n_iter=2, n_inversion_iter=5)
    usual = {"vocoder": vocoder, "label": "all", "n_samples": 2, "seed": 0, "device": "cpu"}
    return generate(ckpt_path, output=output, **{**usual, **settings})


def test_generate_writes_the_nearest_sound_and_its_variations_and_says_what_they_are(ckpt_path, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    hit(tmp_path / "my [1] snare.wav", n_before=3000)
    arguments = [f"ckpt_path={ckpt_path}", "like=my [1] snare.wav", "n_samples=2", "seed=4", "distance=0.5"]
    arguments += ["label=kick", "vocoder.n_iter=2", "executor=serial"]
    for output in ("one", "two"):
        cfg = composed("generate", as_typed([*arguments, f"output={output}"]), tmp_path)
        instantiate(cfg.generate, _convert_="all")()
    one, two = contents(tmp_path / "one"), contents(tmp_path / "two")
    assert one == two
    stems = ["my [1] snare_0.5_4", "my [1] snare_0.5_5", "my [1] snare_nearest"]
    files = {f"kick/{stem}.{kind}" for stem in stems for kind in ("wav", "png")}
    assert set(one) - {OUTPUTS_NAME} == {*files, "index.html", "manifest.csv"}
    assert len({one[f"kick/{stem}.wav"] for stem in stems}) == 3
    origins = [f"variation of my [1] snare.wav, distance 0.5, seed {seed}" for seed in (4, 5)]
    table = pd.read_csv("one/manifest.csv").set_index("path")
    assert table.loc["kick/my [1] snare_0.5_5.wav", ["label", "seed", "origin"]].tolist() == ["kick", 5, origins[1]]
    assert soundfile.SoundFile("one/kick/my [1] snare_0.5_4.wav").title == origins[0]
    page = Path("one/index.html").read_text()
    assert all(text in page for text in [*origins, "my [1] snare.wav: the nearest sound of kick differs by"])


def test_generate_morphs_between_two_recordings_and_guesses_what_is_not_given(ckpt_path, tmp_path, caplog):
    caplog.set_level(logging.INFO)
    sounds = {"like": hit(tmp_path / "a.wav"), "to": hit(tmp_path / "b.wav", amplitude=0.1)}
    draw(ckpt_path, tmp_path / "out", n_samples=3, label=["kick", "7"], **sounds)
    table = pd.read_csv(tmp_path / "out" / "manifest.csv")
    assert table["path"].tolist() == [f"kick_to_7/a_to_b_{i}.wav" for i in (1, 2, 3)]
    assert table["origin"].tolist() == [f"morph of a.wav to b.wav, {i} of 3" for i in (1, 2, 3)]
    assert "probability" not in caplog.text
    draw(ckpt_path, tmp_path / "nearest", distance=0, like=sounds["like"])
    assert len(list((tmp_path / "nearest").rglob("*.wav"))) == 1
    assert "its class was guessed, with a probability of" in caplog.text


def test_python_needs_no_encoder_for_classes_and_draws_what_is_drawn_by_name(tmp_path):
    path = save_checkpoint(tmp_path / "last.ckpt")
    sounds = specgan.load(path, vocoder=partial(GriffinLim, n_iter=2, n_inversion_iter=5))
    near = sounds.vary("kick", distance=0.5, n=2, seed=4)
    assert [point.seed for point in near] == [4, 5]
    way = sounds.morph(near[0], {"7": 1}, n=3)
    named, _ = sounds.draw("7", seed=0)
    assert sounds.draw(way[-1])[0].equal(named)
    assert sounds.draw(near[0])[0].equal(sounds.draw(way[0])[0])
    name = sounds.spread("kick").steerable[0]
    steered = sounds.steer(sounds.point("kick", seed=3), {name: 1})
    assert sounds.draw(steered)[0].equal(sounds.draw("kick", seed=3, move={name: 1})[0])
    save_wav(tmp_path / "silent.wav", torch.zeros(4000), RATE)
    with pytest.raises(ValueError, match=r"silent\.wav: is silent"):
        sounds.encode(tmp_path / "silent.wav")
    assert not encoder_path(path).exists()
    with pytest.raises(ValueError, match=r"no encoder, so x\.wav cannot be found"):
        sounds.space.encode(hit(tmp_path / "x.wav"))


def test_the_example_of_the_documentation_runs(ckpt_path, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    hit(tmp_path / "my_snare.wav")
    page = (Path(__file__).parents[1] / "docs" / "how-to" / "own-sounds.md").read_text()
    (code,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    exec(code.replace("best.ckpt", str(ckpt_path)), {})
    assert "my_snare.wav: the nearest sound of" in capsys.readouterr().out
    waveforms = [soundfile.read(f"{number}.wav")[0] for number in range(8)]
    assert (waveforms[1] == waveforms[5]).all()  # the morph begins with the first variation


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"distance": 2}, "distance is 2; a number from 0"),
        ({"to": "b.wav", "n_samples": 1}, "n_samples is 1; at least 2 with to="),
        ({"to": "b.wav", "like": None}, "to is b.wav, and like is not given"),
        ({"label": "gong"}, "gong: not a class of this checkpoint"),
        ({"label": ["kick", "7"]}, "label is kick, 7; one class"),
        ({"label": []}, "label is empty"),
    ],
)
def test_impossible_wishes_are_refused_and_nothing_is_written(ckpt_path, tmp_path, settings, message):
    with pytest.raises(ValueError, match=message):
        draw(ckpt_path, tmp_path / "out", **{"like": hit(tmp_path / "a.wav"), **settings})
    assert not (tmp_path / "out").exists()


def test_a_stage_of_train_trains_the_encoder_anew(tmp_path, caplog):
    caplog.set_level(logging.INFO)
    path = loud_checkpoint(tmp_path / "last.ckpt")
    cfg = composed("train", ["stage=encoder", f"ckpt_path={path}", "stage.n_steps=1", "threads=1"], tmp_path)
    instantiate(cfg.stage)(cfg)
    assert encoder_path(path).is_file()
    assert "generate.py" in caplog.text
