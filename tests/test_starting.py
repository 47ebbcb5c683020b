from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch
from checkpoints import CLASSES, PARAMS, save_checkpoint, tiny_gan
from hydra import compose, initialize_config_dir
from hydra.core.hydra_config import HydraConfig
from hydra.utils import instantiate
from omegaconf import OmegaConf

from specgan.models.discriminators import ChannelDiscriminator, ProjectionDiscriminator
from specgan.models.generators import DCGANGenerator
from specgan.models.starting import Start
from specgan.spectrogram import LevelRange

CONF = Path(__file__).parents[1] / "conf"


@pytest.fixture
def z():
    return torch.randn(3, 16, generator=torch.Generator().manual_seed(5))


def networks(classes, *, params=PARAMS, channels=1, generator=None, discriminator=None):
    sizes = {"n_classes": len(classes), "n_mels": params.n_bins, "n_frames": params.n_frames, "channels": channels}
    make_generator = partial(DCGANGenerator, width=16, latent_dim=16, **(generator or {}))
    return make_generator(**sizes), (discriminator or partial(ProjectionDiscriminator, width=16))(**sizes)


def saved(path, classes, **settings):
    """A checkpoint of networks with random weights in all places, and the two networks."""
    model = tiny_gan()
    torch.manual_seed(1)
    generator, discriminator = networks(classes, **settings)
    model.make_generator, model.make_discriminator = (lambda **_: generator), (lambda **_: discriminator)
    params = settings.get("params", PARAMS)
    model.build(params=params, level_range=LevelRange(-80.0, 0.0), class_names=classes)
    with torch.no_grad():
        for weight in [*model.ema.parameters(), *model.discriminator.parameters()]:
            if not weight.equal(torch.eye(len(classes))):
                weight.copy_(torch.rand(weight.shape) * 0.4 - 0.1)
        for network in (model.ema, model.discriminator):
            for name, buffer in network.named_buffers():
                buffer.add_(0.5 if "running" in name else 0)
    checkpoint = {"state_dict": model.state_dict()}
    model.on_save_checkpoint(checkpoint)
    torch.save(checkpoint, path)
    return model.ema.eval(), model.discriminator.eval()


def started(path, classes, *, params=PARAMS, **settings):
    torch.manual_seed(2)
    generator, discriminator = networks(classes, params=params, **settings)
    sentences = Start.read(path).into(generator, discriminator, params=params, class_names=classes)
    return generator.eval(), discriminator.eval(), sentences


@pytest.mark.parametrize("recipe", ["embedding", "one-hot"])
def test_a_class_of_the_same_name_keeps_its_sounds(recipe, tmp_path, z):
    settings = {
        "embedding": {},
        "one-hot": {
            "generator": {"embedding_dim": None, "norm": "batch"},
            "discriminator": partial(ChannelDiscriminator, width=16, norm="batch"),
        },
    }[recipe]
    old, judging = saved(tmp_path / "x.ckpt", ["a", "caf\u00e9", "c", "d"], **settings)
    new, judging_too, sentences = started(tmp_path / "x.ckpt", ["cafe\u0301", "new", "a"], **settings)
    fake = old(z, torch.tensor([1, 0, 0]))
    torch.testing.assert_close(new(z, torch.tensor([0, 2, 2])), fake)
    logits = judging(fake, torch.tensor([1, 0, 0]))
    torch.testing.assert_close(judging_too(fake, torch.tensor([0, 2, 2])), logits)
    assert sentences == [
        f"init_from {tmp_path}/x.ckpt (0 steps): generator and discriminator taken over as a whole",
        "classes that go on: cafe\u0301, a; new classes: new",
    ]


def test_new_classes_begin_among_the_old_ones_and_apart_from_each_other(tmp_path):
    old, judging = saved(tmp_path / "x.ckpt", ["a", "b", "c"])
    new, judging_too, sentences = started(tmp_path / "x.ckpt", ["k", "l", "m", "n"])
    rows, before = new.embedding.weight, old.embedding.weight
    assert torch.pdist(rows).min() > 0.3 * torch.pdist(before).min()
    distance = (rows - before.mean(0)).norm(dim=1)
    assert distance.max() < 2 * (before - before.mean(0)).norm(dim=1).max()
    expected = judging.embedding.weight.mean(0).expand(4, -1)
    torch.testing.assert_close(judging_too.embedding.weight, expected)
    assert "classes that go on: none; new classes: k, l, m, n" in sentences


@pytest.mark.parametrize("n_frames", [32, 96])
def test_of_another_length_the_beginning_stays(n_frames, tmp_path, z):
    of_64 = replace(PARAMS, n_mels=64, n_frames=64)
    old, _ = saved(tmp_path / "x.ckpt", ["a", "b", "c"], params=of_64)
    other = replace(of_64, n_frames=n_frames)
    new, judging, sentences = started(tmp_path / "x.ckpt", ["a", "b", "c"], params=other)
    labels = torch.tensor([2, 0, 1])
    n_same = 12 if n_frames == 32 else 40  # what the four doublings of the last frames reach
    spectrogram = new(z, labels)
    torch.testing.assert_close(spectrogram[..., :n_same], old(z, labels)[..., :n_same])
    assert judging(spectrogram, labels).isfinite().all()
    assert sentences[-1] == f"other spectrograms, from which a start is weaker: n_frames 64, here {n_frames}"


@pytest.mark.parametrize("n", [128, 32])
def test_of_another_depth_all_but_the_deepest_layers_are_taken_over(n, tmp_path):
    deep, flat = (replace(PARAMS, n_fft=2048, win_length=2048, n_mels=k, n_frames=k) for k in (128, 32))
    there, here = (flat, deep) if n == 128 else (deep, flat)
    old, judging = saved(tmp_path / "x.ckpt", ["a", "b"], params=there)
    new, judging_too, sentences = started(tmp_path / "x.ckpt", ["a", "b"], params=here)
    for module in (-2, -5, -8):
        assert torch.equal(new.layers[module].weight, old.layers[module].weight)
    for stage in (0, 1, 2):
        assert torch.equal(judging_too.stages[stage][0].weight, judging.stages[stage][0].weight)
    if n == 128:
        assert "generator taken over but for layers.4, which start anew" in sentences[0]
        assert "discriminator taken over but for stages.4.0, which start anew" in sentences[0]


def test_stereo_begins_as_twice_the_mono_sound(tmp_path, z):
    old, judging = saved(tmp_path / "x.ckpt", ["a", "b"])
    new, judging_too, _ = started(tmp_path / "x.ckpt", ["a", "b"], channels=2)
    labels = torch.tensor([0, 1, 1])
    mono = old(z, labels)
    torch.testing.assert_close(new(z, labels), mono.expand(-1, 2, -1, -1))
    torch.testing.assert_close(judging_too(mono.expand(-1, 2, -1, -1), labels), judging(mono, labels))


def test_spectral_norm_is_that_of_the_weights_that_were_taken_over(tmp_path):
    _, judging = saved(tmp_path / "x.ckpt", ["a", "b"])
    spectral = partial(ProjectionDiscriminator, width=16, spectral_norm=True)
    _, judging_too, sentences = started(tmp_path / "x.ckpt", ["a", "new"], discriminator=spectral)
    assert sentences[0].endswith("generator and discriminator taken over as a whole")
    before, after = (of.stages[1][0].weight.flatten(1) for of in (judging, judging_too))
    torch.testing.assert_close(after, before / torch.linalg.matrix_norm(before, 2), rtol=0.02, atol=1e-4)


def test_what_does_not_fit_is_said_and_nothing_that_fits_is_refused(tmp_path):
    path = save_checkpoint(tmp_path / "x.ckpt")
    wide = partial(ProjectionDiscriminator, width=32)
    *_, sentences = started(path, CLASSES, discriminator=wide)
    assert sentences[0].endswith("generator taken over as a whole; discriminator new")
    *_, sentences = started(path, CLASSES, generator={"embedding_dim": 8})
    assert "generator taken over but for embedding, layers.0, which start anew" in sentences[0]
    generator = DCGANGenerator(n_classes=3, n_mels=32, n_frames=32, latent_dim=16, width=32)
    before = {name: weight.clone() for name, weight in generator.state_dict().items()}
    with pytest.raises(ValueError, match=r"init_from is .*x\.ckpt.*'width': 16.*'width': 32.*leave init_from out"):
        Start.read(path).into(generator, networks(CLASSES)[1], params=PARAMS, class_names=CLASSES)
    assert all(before[name].equal(weight) for name, weight in generator.state_dict().items())


def test_what_is_no_checkpoint_of_a_generator_is_refused(tmp_path):
    torch.save({"specgan": {"vocoder": {}}, "state_dict": {}}, tmp_path / "vocoder.ckpt")
    with pytest.raises(ValueError, match=r"init_from is .*vocoder\.ckpt: not a checkpoint of train\.py model=cgan"):
        Start.read(tmp_path / "vocoder.ckpt")
    with pytest.raises(FileNotFoundError, match=r"init_from is .*none\.ckpt: no such file"):
        Start.read(tmp_path / "none.ckpt")
    path = save_checkpoint(tmp_path / "x.ckpt")
    assert Start.read(f"file://{path}").class_names == CLASSES


def test_another_kind_of_model_is_refused(tmp_path):
    with initialize_config_dir(str(CONF), version_base="1.3"):
        overrides = ["model=vocoder", "init_from=x.ckpt", f"hydra.runtime.output_dir={tmp_path}"]
        cfg = compose("train", overrides, return_hydra_config=True)
        HydraConfig.instance().set_config(cfg)
        cfg = OmegaConf.masked_copy(cfg, [key for key in cfg if key != "hydra"])  # as a script gets it
        with pytest.raises(ValueError, match=r"init_from is x\.ckpt, and a VocoderTraining does not start from"):
            instantiate(cfg.stage)(cfg)
