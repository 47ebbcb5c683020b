"""model=vocoder and vocoder=learned: a network learns from sounds, and its file makes the same sounds again."""

import json
from functools import partial
from pathlib import Path

import pytest
import soundfile
import torch
import torch.nn.functional as F
from checkpoints import CLASSES, save_checkpoint, tiny_gan
from checkpoints import PARAMS as OF_CHECKPOINT
from folders import contents
from hydra import compose, initialize_config_dir
from hydra.core.hydra_config import HydraConfig
from hydra.utils import instantiate
from omegaconf import OmegaConf
from pages import Page
from torch import Tensor

import specgan
from specgan.audio import resample
from specgan.data.drums import drum
from specgan.evaluation.vocoder_page import write_vocoders
from specgan.generation import generate
from specgan.models.mixtures import Mixtures, synthesised
from specgan.models.sound_losses import envelope_loss, spectral_loss
from specgan.models.trained import CHECKPOINT_KEY, VOCODER_KEY, TrainedGenerator, is_vocoder
from specgan.models.vocoder import VocoderTraining
from specgan.server.sounds import SoundGenerator
from specgan.spectrogram import LevelRange, Spectrogram, SpectrogramParams, normalise
from specgan.training.carrying import CarryVocoder
from specgan.training.comparison import on_generated
from specgan.vocoders.griffin_lim import GriffinLim
from specgan.vocoders.learned import Learned
from specgan.vocoders.refinement import Refiner
from specgan.vocoders.weights import BASES, new_network, read_vocoder, write_safetensors

PARAMS = SpectrogramParams(sample_rate=8000, n_fft=512, win_length=512, hop_length=128, n_mels=32, n_frames=24)
RANGE = LevelRange(-80.0, 0.0)
CONF = Path(__file__).parents[1] / "conf"
TINY = {"width": 16, "n_blocks": 1, "n_bands": 12, "n_steps": 1, "n_iter": 2}


def network(params: SpectrogramParams = PARAMS, **settings: int) -> Refiner:
    torch.manual_seed(0)
    return new_network(params, **{**TINY, **settings})


def training(**settings) -> VocoderTraining:
    torch.manual_seed(0)
    model = VocoderTraining(
        network=lambda params: new_network(params, **TINY),
        optimizer=lambda weights: torch.optim.Adam(weights, lr=2e-3),
        resample=resample,
        **settings,
    )
    model.build(params=PARAMS, level_range=RANGE, class_names=["hit"])
    return model


def hits(n: int, n_frames: int = 24) -> Tensor:
    """Noise and a tone that start at once in the middle and decay."""
    n_samples = n_frames * PARAMS.hop_length
    t = torch.arange(n_samples) / PARAMS.sample_rate - 0.1
    noise = torch.randn(n, n_samples, generator=torch.Generator().manual_seed(0))
    tones = torch.sin(2 * torch.pi * t * torch.linspace(300, 900, n)[:, None])
    return 0.2 * (t >= 0) * torch.exp(-20 * t.clamp_min(0)) * (tones + 0.5 * noise)


def spectrograms(waveforms: Tensor) -> Tensor:
    return normalise(Spectrogram(PARAMS)(waveforms), PARAMS, RANGE).unsqueeze(1)


def test_the_loss_falls_on_one_fixed_batch_and_the_average_follows():
    model, wanted = training(jitter_db=0.0), hits(4)
    optimizer = model.configure_optimizers()
    losses, before = [], [weight.clone() for weight in model.ema.parameters()]
    for _ in range(40):
        values = model.losses(wanted)
        optimizer.zero_grad()
        values["loss"].backward()
        optimizer.step()
        model.on_train_batch_end(None, None, 0)
        losses.append(values["loss"].item())
    assert sum(losses[-5:]) < 0.85 * sum(losses[:5])
    assert all(weight.grad is not None for weight in model.network.parameters())
    assert not any(one.equal(other) for one, other in zip(before, model.ema.parameters(), strict=True))


def test_distances_of_a_sound_to_itself_are_0_and_a_step_of_ten_decibels_is_a_bel():
    sounds = hits(2)
    assert float(spectral_loss(sounds, sounds, n_ffts=(256, 64))) < 1e-6
    assert float(envelope_loss(sounds, sounds, sample_rate=8000)) < 1e-6
    steady = torch.sin(torch.arange(4000) / 3).unsqueeze(0)
    assert float(envelope_loss(steady * 10**-0.5, steady, sample_rate=8000)) == pytest.approx(1, abs=0.01)


def test_examples_are_repeatable_audible_and_within_full_scale():
    mixtures = Mixtures(torch.cat([hits(3), torch.zeros(1, 3072)]), sample_rate=8000, n_samples=2000)
    drawn = mixtures.draw(40, torch.Generator().manual_seed(3))
    assert drawn.shape == (40, 2000)
    assert drawn.equal(mixtures.draw(40, torch.Generator().manual_seed(3)))
    peaks = drawn.abs().amax(1)
    assert float(peaks.max()) <= 0.9 + 1e-6
    assert float(peaks.min()) >= 0.9 * 10**-1.5 - 1e-6
    assert float(peaks.std()) > 0.1  # levels differ
    with pytest.raises(ValueError, match="silent"):
        Mixtures(torch.zeros(2, 100), sample_rate=8000, n_samples=100)
    assert synthesised(5, n_samples=900, sample_rate=8000, generator=torch.Generator()).isfinite().all()


# --- the vocoder


def test_a_sound_depends_on_its_own_spectrogram_and_seed_alone():
    vocoder = Learned(PARAMS, RANGE, held=network().contents())
    batch = spectrograms(hits(3))
    together = vocoder(batch, seeds=[1, 2, 3])
    assert together.shape == (3, 24 * 128)
    for i in range(3):
        torch.testing.assert_close(vocoder(batch[i : i + 1], seeds=[i + 1])[0], together[i], atol=1e-4, rtol=1e-3)
    assert vocoder(batch, seeds=[1, 2, 3]).equal(together)
    assert not vocoder(batch[:1], seeds=[9])[0].equal(together[0])


@pytest.mark.parametrize("n_frames", [1, 2, 7, 50])
def test_any_length(n_frames):
    vocoder = Learned(PARAMS, RANGE, held=network().contents())
    made = vocoder(torch.zeros(2, 1, 32, n_frames), seeds=[0, 1])
    assert made.shape == (2, n_frames * 128)
    assert made.isfinite().all()


def test_silence_stays_silent_and_a_louder_spectrogram_is_the_same_sound_louder():
    vocoder = Learned(PARAMS, RANGE, held=network().contents())
    assert float(vocoder(torch.full((1, 1, 32, 24), -1.0), seeds=[0]).abs().max()) < 1e-6
    power = Spectrogram(PARAMS).power(hits(1))
    torch.testing.assert_close(
        vocoder.waveform(100 * power, [0]), 10 * vocoder.waveform(power, [0]), rtol=1e-3, atol=1e-4
    )


def test_two_channels_of_one_spectrogram_are_one_sound_twice():
    vocoder = Learned(PARAMS, RANGE, held=network().contents())
    batch = spectrograms(hits(2))
    both = vocoder(batch.expand(-1, 2, -1, -1), seeds=[1, 2])
    assert both.shape == (2, 2, 24 * 128)
    torch.testing.assert_close(both[:, 0], both[:, 1], atol=1e-4, rtol=1e-3)
    torch.testing.assert_close(both[:, 0], vocoder(batch, seeds=[1, 2]), atol=1e-4, rtol=1e-3)


@pytest.mark.parametrize("sample_rate", [16000, 44100])
def test_the_base_of_the_package_finds_sounds_of_a_spectrogram(sample_rate):
    sizes = {16000: (1024, 256), 44100: (2048, 689)}[sample_rate]
    params = SpectrogramParams(
        sample_rate=sample_rate, n_fft=sizes[0], win_length=sizes[0], hop_length=sizes[1], n_frames=32
    )
    assert sum(path.stat().st_size for path in BASES.glob("*")) < 4e6
    drums = [drum(name, seed=7, sample_rate=sample_rate)[: params.n_samples] for name in ("snare", "tom")]
    sound = torch.stack([F.pad(each, (0, params.n_samples - len(each))) for each in drums])
    power = Spectrogram(params).power(sound)
    for settings, most in (({"n_iter": 0}, 0.25), ({"n_iter": 0, "n_steps": 4}, 0.25), ({}, 0.08)):
        found = Spectrogram(params).power(Learned(params, RANGE, **settings).waveform(power, [0, 0]))
        assert float((found.sqrt() - power.sqrt()).norm() / power.sqrt().norm()) < most
    loudest = power.amax((1, 2))[:, None]
    errors = []  # of the levels in short windows, which the spectrogram does not show
    for of in (Learned(params, RANGE).network, new_network(params)):
        said = of.predict((power / loudest.unsqueeze(2)).mT).clamp_min(-60)
        errors.append((said - of.short_levels(sound / loudest.sqrt()).clamp_min(-60)).abs().mean().item())
    assert errors[0] < 0.7 * errors[1]
    for name, least in (("n_steps", 1), ("n_iter", 0)):
        with pytest.raises(ValueError, match=f"{name} is {least - 1}; at least {least}"):
            Learned(params, RANGE, **{name: least - 1})


def test_a_search_follows_unless_the_file_is_from_before_there_was_one():
    held, batch = network().contents(), spectrograms(hits(2))
    without, with_search = (Learned(PARAMS, RANGE, held=held, n_iter=n)(batch, seeds=[1, 2]) for n in (0, 16))
    assert not without.equal(with_search)
    del held["settings"]["n_iter"]
    assert Learned(PARAMS, RANGE, held=held)(batch, seeds=[1, 2]).equal(without)
    errors = [(spectrograms(found) - batch).abs().mean().item() for found in (without, with_search)]
    assert errors[1] < 0.7 * errors[0]


def test_linear_spectrograms_too():
    params = SpectrogramParams(sample_rate=8000, n_fft=512, win_length=512, hop_length=128, kind="linear", f_min=50.0)
    made = Learned(params, RANGE, held=network(params).contents())(torch.zeros(1, 1, params.n_bins, 9), seeds=[0])
    assert made.shape == (1, 9 * 128)


def test_a_hop_without_a_suitable_divisor_is_refused():
    with pytest.raises(ValueError, match="hop_length is 127"):
        network(SpectrogramParams(sample_rate=8000, n_fft=512, win_length=512, hop_length=127, n_mels=32))


# --- its files


def saved(model: VocoderTraining, path) -> dict:
    checkpoint = {"state_dict": model.state_dict()}
    model.on_save_checkpoint(checkpoint)
    torch.save(checkpoint, path)
    return checkpoint


def test_a_checkpoint_and_safetensors_make_the_same_sounds_again(tmp_path):
    model, batch = training(), spectrograms(hits(2))
    saved(model, tmp_path / "last.ckpt")
    assert is_vocoder(tmp_path / "last.ckpt")
    wanted = model.sound(batch, seeds=[1, 2])
    assert Learned(PARAMS, RANGE, path=tmp_path / "last.ckpt")(batch, seeds=[1, 2]).equal(wanted)
    write_safetensors(tmp_path / "x.safetensors", read_vocoder(tmp_path / "last.ckpt"))
    made = Learned(PARAMS, RANGE, path=tmp_path / "x.safetensors")(batch, seeds=[1, 2])
    assert float((made - wanted).norm() / wanted.norm()) < 0.02  # half precision
    begun = new_network(PARAMS, start=tmp_path / "x.safetensors", **TINY | {"n_iter": 5})  # no matter of its weights
    assert begun.n_iter == 5
    assert all(weight.requires_grad for weight in begun.parameters())
    assert begun.to_short.weight.equal(model.ema.to_short.weight.half().float())


def test_a_training_goes_on_where_it_was(tmp_path):
    model = training()
    model.losses(hits(2))
    model.n_steps = 7
    checkpoint = saved(model, tmp_path / "last.ckpt")
    other = training(seed=5)
    other.on_load_checkpoint(checkpoint)
    assert (other.n_steps, other.rate_scale) == (7, 1.0)
    assert torch.rand(3, generator=other.generator).equal(torch.rand(3, generator=model.generator))
    del checkpoint[CHECKPOINT_KEY][VOCODER_KEY]["settings"]["n_iter"]  # from before a search followed
    training().on_load_checkpoint(checkpoint)
    checkpoint[CHECKPOINT_KEY][VOCODER_KEY]["settings"]["width"] = 17
    with pytest.raises(ValueError, match="width: checkpoint 17, this run 16"):
        other.on_load_checkpoint(checkpoint)


def _other_rate(held):
    held["params"]["sample_rate"] = 16000


def _other_size(held):
    held["weights"]["to_short.weight"] = torch.zeros(2, 2)


def _missing(held):
    del held["weights"]["skip.bias"]


def _not_finite(held):
    held["weights"]["skip.bias"][0] = float("nan")


def _huge(held):
    held["settings"]["width"] = 10**6


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (_other_rate, "sample_rate: trained on 16000, these are 8000"),
        (_other_size, r"to_short\.weight differs"),
        (_missing, r"skip\.bias differs"),
        (_not_finite, r"skip\.bias is not finite"),
        (_huge, "impossible settings"),
        (dict.clear, "it has no 'params'"),
    ],
)
def test_a_foreign_vocoder_is_refused(change, message, tmp_path):
    held = network().contents()
    change(held)
    torch.save({CHECKPOINT_KEY: {VOCODER_KEY: held}}, tmp_path / "x.ckpt")
    with pytest.raises(ValueError, match=message):
        Learned(PARAMS, RANGE, path=tmp_path / "x.ckpt")


def test_a_file_without_a_vocoder_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"vocoder\.path is .*none\.ckpt: no such file"):
        Learned(PARAMS, RANGE, path=tmp_path / "none.ckpt")
    torch.save({"state_dict": {}}, tmp_path / "x.ckpt")
    with pytest.raises(ValueError, match="it holds no vocoder"):
        Learned(PARAMS, RANGE, path=tmp_path / "x.ckpt")
    (tmp_path / "x.safetensors").write_bytes(b"no tensors in here")
    with pytest.raises(ValueError, match="not a vocoder that specgan wrote"):
        Learned(PARAMS, RANGE, path=tmp_path / "x.safetensors")
    with pytest.raises(ValueError, match=r"vocoder\.path is null, and the package has no trained vocoder"):
        Learned(PARAMS, RANGE)


# --- checkpoints that carry a vocoder


@pytest.fixture
def held():
    return network(OF_CHECKPOINT).contents()


def carrying(path, held):
    save_checkpoint(path)
    checkpoint = torch.load(path, weights_only=True)
    checkpoint[CHECKPOINT_KEY][VOCODER_KEY] = held
    torch.save(checkpoint, path)
    return path


def draw(ckpt_path, output, **settings):
    settings = {"vocoder": partial(GriffinLim, n_iter=1), "label": "kick", "n_samples": 1, "seed": 3, **settings}
    generate(ckpt_path, output=output, device="cpu", **settings)
    return contents(output)["kick/kick_3.wav"]


def test_generate_uses_the_vocoder_that_a_checkpoint_carries_unless_it_is_told_not_to(held, tmp_path):
    path = carrying(tmp_path / "best.ckpt", held)
    used = draw(path, tmp_path / "carried")
    assert used == draw(path, tmp_path / "named", vocoder=partial(Learned, path=path), carried_vocoder=False)
    assert used != draw(path, tmp_path / "other", carried_vocoder=False)
    service = SoundGenerator(path, vocoder=partial(GriffinLim, n_iter=1))
    (tmp_path / "service").mkdir()
    assert service.generate("kick", [3], tmp_path / "service")[0].wav.read_bytes() == used
    written = torch.from_numpy(soundfile.read(tmp_path / "carried" / "kick" / "kick_3.wav", dtype="float32")[0])
    assert float((specgan.load(path).draw("kick", seed=3)[0] - written).abs().max()) < 2**-15


def test_a_carried_vocoder_of_other_spectrograms_is_refused(held, tmp_path):
    held["params"]["hop_length"] = 64
    with pytest.raises(ValueError, match=r"the vocoder of the checkpoint: .*hop_length: trained on 64, these are 128"):
        draw(carrying(tmp_path / "best.ckpt", held), tmp_path / "out")


def test_a_gan_keeps_the_vocoder_that_it_is_given_also_when_it_goes_on(held, tmp_path):
    model, other = tiny_gan(), tiny_gan()
    for gan in (model, other):
        gan.build(params=OF_CHECKPOINT, level_range=RANGE, class_names=CLASSES)
    CarryVocoder(partial(Learned, held=held)).on_fit_start(None, model)
    checkpoint = {"state_dict": model.state_dict()}
    model.on_save_checkpoint(checkpoint)
    torch.save(checkpoint, tmp_path / "last.ckpt")
    assert TrainedGenerator.load(tmp_path / "last.ckpt").vocoder["settings"] == held["settings"]
    assert not is_vocoder(tmp_path / "last.ckpt")
    other.on_load_checkpoint(checkpoint)
    CarryVocoder(partial(GriffinLim, n_iter=1)).on_fit_start(None, other)
    assert other.trained.vocoder["settings"] == held["settings"]


def composed(overrides, folder):
    cfg = compose("train", overrides=[*overrides, f"hydra.runtime.output_dir={folder}"], return_hydra_config=True)
    HydraConfig.instance().set_config(cfg)
    cfg = OmegaConf.masked_copy(cfg, [key for key in cfg if key != "hydra"])  # as a script gets it
    OmegaConf.set_struct(cfg, True)
    return cfg


def run(overrides, folder):
    """What train.py does, in this process."""
    with initialize_config_dir(str(CONF), version_base="1.3"):
        cfg = composed(overrides, folder)
        return instantiate(cfg.stage)(cfg)


def test_stage_carry_puts_a_vocoder_into_a_checkpoint(held, tmp_path):
    path = save_checkpoint(tmp_path / "best.ckpt")
    torch.save({CHECKPOINT_KEY: {VOCODER_KEY: held}}, tmp_path / "vocoder.ckpt")
    before = torch.load(path, weights_only=True)
    run(["stage=carry", f"ckpt_path={path}", "vocoder=learned", f"vocoder.path={tmp_path}/vocoder.ckpt"], tmp_path)
    after = torch.load(path, weights_only=True)
    assert after[CHECKPOINT_KEY].pop(VOCODER_KEY)["weights"]["skip.bias"].equal(held["weights"]["skip.bias"])
    assert after["state_dict"].keys() == before["state_dict"].keys()
    assert after[CHECKPOINT_KEY].keys() == before[CHECKPOINT_KEY].keys()
    with pytest.raises(ValueError, match="no weights that a checkpoint could carry"):
        run(["stage=carry", f"ckpt_path={path}"], tmp_path)


def test_a_vocoder_is_tried_on_what_a_generator_draws(held, tmp_path):
    torch.save({CHECKPOINT_KEY: {VOCODER_KEY: held}}, tmp_path / "vocoder.ckpt")
    generator = save_checkpoint(tmp_path / "best.ckpt")
    beside = {"griffin_lim": partial(GriffinLim, n_iter=32)}
    tried = on_generated(TrainedGenerator.load(generator), tmp_path / "vocoder.ckpt", beside, n_sounds=1)
    assert set(tried.rows) == {"learned", "griffin_lim"}
    assert 0 < tried.rows["griffin_lim"]["spectrogram_error"] < tried.rows["learned"]["spectrogram_error"]  # untrained
    assert [(shown.name, *shown.sounds) for shown in tried.shown] == [(name, *tried.rows) for name in CLASSES]
    write_vocoders(tmp_path / "x.html", {"<b>": tried}, checkpoint="x.ckpt", sample_rate=8000)
    page = Page(tmp_path / "x.html")
    assert page.texts["h2"] == ["<b>"]
    assert len(page.values("src", "audio")) == 2 * len(CLASSES)
    assert len(set(page.values("src", "img"))) == 2 * len(CLASSES)
    held["params"]["hop_length"] = 64
    torch.save({CHECKPOINT_KEY: {VOCODER_KEY: held}}, tmp_path / "vocoder.ckpt")
    with pytest.raises(ValueError, match=r"hop_length: trained on 64, these are 128"):
        on_generated(TrainedGenerator.load(generator), tmp_path / "vocoder.ckpt", beside)
    with pytest.raises(ValueError, match=r"stage\.generator is x\.ckpt, but .*best\.ckpt holds no vocoder"):
        run(["stage=test", f"ckpt_path={generator}", "stage.generator=x.ckpt"], tmp_path)


def test_a_run_trains_previews_and_measures_goes_on_and_is_tested(tiny_drums, tmp_path):
    settings = ["model=vocoder", "spectrogram=mel_64x64", "spectrogram.n_mels=32", "spectrogram.n_frames=32"]
    settings += ["model.network.width=8", "model.network.n_blocks=1", "model.batch_size=2", "model.n_frames=8"]
    settings += ["data=folder", f"data.audio_dir={tiny_drums}", "data.splits=[50,17,33]", "data.batch_size=4"]
    settings += [f"data.datasets_dir={tmp_path / 'sets'}", "data.epoch_size=8", "vocoder.n_iter=1", "logger=none"]
    settings += ["trainer.accelerator=cpu", "trainer.precision=bf16-mixed", "+trainer.enable_progress_bar=false"]
    settings += ["~callbacks.progress", "callbacks.preview.every_n_epochs=1"]
    last = tmp_path / "checkpoints" / "last.ckpt"
    for n_epochs, going_on in ((1, []), (2, [f"ckpt_path={last}"])):
        run([*settings, f"trainer.max_epochs={n_epochs}", *going_on], tmp_path)
        assert torch.load(last, weights_only=True)[CHECKPOINT_KEY]["n_steps"] == 2 * n_epochs
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    assert min(metrics["val/log_spectral_distance_db"], metrics["val/attack_error_db"]) > 0
    pages = [path.name for path in (tmp_path / "previews" / "kick").glob("*.wav")]
    assert sorted(pages) == ["epoch_1.wav", "epoch_2.wav", "real.wav", "real_vocoded.wav"]

    assert run(["stage=test", f"ckpt_path={tmp_path / 'checkpoints' / 'best.ckpt'}"], tmp_path) is None
    rows = json.loads((tmp_path / "vocoder.json").read_text())["rows"]
    page = Page(tmp_path / "vocoder.html")
    players = [text for text in page.texts["figcaption"] if text.startswith("learned, attack error ")]
    assert len(page.values("src", "audio")) == len(page.values("src", "img")) == 3 * len(players) > 0
    assert set(rows) == {"learned", "griffin_lim"}
    assert rows["learned"]["n"] == 6
    assert read_vocoder(tmp_path / "vocoder.safetensors")["settings"]["width"] == 8
    assert rows["griffin_lim"]["log_spectral_distance_db"] > 0
