import logging
import math
from functools import partial
from types import SimpleNamespace

import lightning as L
import pytest
import torch

from specgan.data.datamodule import SpectrogramDataModule
from specgan.models.augmentation import Augmentation, probability_for
from specgan.models.cgan import CGAN
from specgan.models.discriminators import ChannelDiscriminator, ProjectionDiscriminator
from specgan.models.generators import DCGANGenerator
from specgan.models.losses import BCELoss, HingeLoss, RelativisticPairingLoss
from specgan.models.schedule import Schedule
from specgan.models.starting import Start
from specgan.models.trained import TrainedGenerator
from specgan.models.variation import Variation
from specgan.spectrogram import LevelRange, SpectrogramParams
from specgan.tasks.spectrograms import make_spectrograms

PARAMS = SpectrogramParams(hop_length=512, n_mels=32, n_frames=32)
RECIPES = {
    "relativistic": (RelativisticPairingLoss(gamma=1.0, penalty_every=2), "pixel", ProjectionDiscriminator),
    "bce": (BCELoss(), "batch", partial(ChannelDiscriminator, norm="batch")),
    "hinge": (HingeLoss(), "pixel", partial(ProjectionDiscriminator, spectral_norm=True)),
}


def make_model(recipe="relativistic", *, built=True, **settings):
    loss, norm, discriminator = RECIPES[recipe]
    model = CGAN(
        generator=partial(DCGANGenerator, width=16, norm=norm),
        discriminator=partial(discriminator, width=16),
        loss=loss,
        optimizer_g=partial(torch.optim.Adam, lr=2e-3, betas=(0.0, 0.99)),
        optimizer_d=partial(torch.optim.Adam, lr=2e-3, betas=(0.0, 0.99)),
        **{"latent_dim": 16, **settings},
    )
    if built:
        model.build(params=PARAMS, level_range=LevelRange(-80.0, 0.0), class_names=["a", "b"])
    return model


def one_batch():
    """Class a is a low band, class b a high one."""
    labels = torch.tensor([0, 1] * 4)
    real = torch.full((8, 1, 32, 32), -1.0)
    real[0::2, :, :8] = 0.5
    real[1::2, :, 24:] = 0.5
    return real, labels


def weights(module):
    return torch.cat([p.detach().flatten() for p in module.parameters()]).clone()


def discriminator_step(model, optimizer, monkeypatch):
    monkeypatch.setattr(model, "manual_backward", lambda loss: loss.backward())
    real, labels = one_batch()
    with torch.no_grad():
        fake = model.generator(torch.randn(8, model.latent_dim), labels)
    return model._discriminator_step(real, fake, labels, optimizer)


def generator_step(model, optimizer, monkeypatch):
    monkeypatch.setattr(model, "manual_backward", lambda loss: loss.backward())
    monkeypatch.setattr(model, "toggle_optimizer", lambda _: model.discriminator.requires_grad_(False))
    monkeypatch.setattr(model, "untoggle_optimizer", lambda _: model.discriminator.requires_grad_(True))
    real, labels = one_batch()
    fake = model.generator(torch.randn(8, model.latent_dim), labels)
    with torch.no_grad():
        real_logits = model.discriminator(real, labels)
    return model._generator_step(real_logits, fake, labels, optimizer)


@pytest.mark.parametrize("player", ["generator", "discriminator"])
@pytest.mark.parametrize("recipe", RECIPES)
def test_a_step_changes_its_own_network_only(recipe, player, monkeypatch):
    model = make_model(recipe)
    before = weights(model.generator), weights(model.discriminator)
    step, optimizer = {"generator": (generator_step, 0), "discriminator": (discriminator_step, 1)}[player]
    scalars = step(model, model.configure_optimizers()[optimizer], monkeypatch)
    assert torch.equal(weights(model.generator), before[0]) == (player != "generator")
    assert torch.equal(weights(model.discriminator), before[1]) == (player != "discriminator")
    assert not any(value.requires_grad for value in scalars.values())


@pytest.mark.parametrize("recipe", RECIPES)
def test_discriminator_loss_falls_on_a_fixed_batch(recipe, monkeypatch):
    model = make_model(recipe)
    optimizer = model.configure_optimizers()[1]
    losses = [float(discriminator_step(model, optimizer, monkeypatch)["loss_d"]) for _ in range(15)]
    assert losses[-1] < 0.7 * losses[0]


@pytest.mark.parametrize("recipe", RECIPES)
def test_generator_loss_falls_against_a_fixed_discriminator(recipe, monkeypatch):
    model = make_model(recipe)
    optimizer_g, optimizer_d = model.configure_optimizers()
    for _ in range(5):
        discriminator_step(model, optimizer_d, monkeypatch)
    losses = [float(generator_step(model, optimizer_g, monkeypatch)["loss_g"]) for _ in range(30)]
    assert losses[-1] < losses[0] - 0.05


def test_the_discriminator_learns_the_classes_of_real_spectrograms(monkeypatch):
    model = make_model()
    optimizer = model.configure_optimizers()[1]
    losses = [float(discriminator_step(model, optimizer, monkeypatch)["class_loss"]) for _ in range(15)]
    assert losses[0] == pytest.approx(math.log(2), abs=0.3)
    assert losses[-1] < 0.8 * losses[0]
    real, labels = one_batch()
    logits, class_logits = model.discriminator(real, labels, with_classes=True)
    assert class_logits.argmax(dim=1).equal(labels)
    torch.testing.assert_close(logits, model.discriminator(real, labels))


def test_without_a_weight_nothing_is_classified(monkeypatch):
    model = make_model()
    model.discriminator.class_weight = 0.0
    assert "class_loss" not in discriminator_step(model, model.configure_optimizers()[1], monkeypatch)
    with pytest.raises(ValueError, match="class_weight is -1; at least 0"):
        ProjectionDiscriminator(n_classes=2, n_mels=32, n_frames=32, class_weight=-1)


def test_penalty_comes_every_kth_step_and_is_multiplied(monkeypatch):
    model = make_model()  # penalty_every=2
    optimizer = model.configure_optimizers()[1]
    with_penalty = []
    for model.n_steps in range(4):
        with_penalty.append("r1" in discriminator_step(model, optimizer, monkeypatch))
    assert with_penalty == [True, False, True, False]


def test_average_follows_the_generator_and_forgets_the_start():
    model = make_model(ema_decay=0.9)
    start = weights(model.ema)
    with torch.no_grad():
        for parameter in model.generator.parameters():
            parameter.add_(1.0)
    model.n_steps = 10**6  # past the warm-up
    model._update_ema()
    torch.testing.assert_close(weights(model.ema), start + 0.1)
    for _ in range(200):
        model._update_ema()
    torch.testing.assert_close(weights(model.ema), start + 1.0)


def test_no_average_samples_from_the_generator_itself():
    model = make_model("bce", ema_decay=0.0)
    with torch.no_grad():
        for tensor in [*model.generator.parameters(), *model.generator.buffers()]:
            if tensor.is_floating_point():
                tensor.mul_(1.1)
    model._update_ema()
    for averaged, current in zip(model.ema.state_dict().values(), model.generator.state_dict().values(), strict=True):
        assert torch.equal(averaged, current)


def test_ema_decay_out_of_range():
    with pytest.raises(ValueError, match=r"ema_decay is 1\.0"):
        make_model(ema_decay=1.0)


def make_data(tiny_drums, folder, **settings):
    return SpectrogramDataModule(
        params=PARAMS,
        audio_dir=str(tiny_drums),
        datasets_dir=str(folder),
        make_dataset=make_spectrograms,
        splits=[80, 10, 10],
        batch_size=4,
        epoch_size=12,
        **settings,
    )


def fit(model, data, folder, *, max_epochs, ckpt_path=None):
    checkpoint = L.pytorch.callbacks.ModelCheckpoint(folder, "last", enable_version_counter=False)
    trainer = L.Trainer(
        max_epochs=max_epochs,
        accelerator="cpu",
        logger=False,
        callbacks=[checkpoint],
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(model, datamodule=data, ckpt_path=ckpt_path, weights_only=True)
    return folder / "last.ckpt"


@pytest.fixture
def compiled_by(monkeypatch):
    """Compiles with a backend of the test instead of the default, which needs a C++ compiler and a minute."""
    real_compile = torch.compile

    def use(backend):
        monkeypatch.setattr(torch, "compile", lambda function: real_compile(function, backend=backend))

    yield use
    torch.compiler.set_stance("default")
    torch.compiler.reset()


def test_compiled_networks_are_used_where_they_can_be_and_change_nothing(tiny_drums, tmp_path, compiled_by):
    calls = []

    def backend(graph, inputs):
        is_generator = any("conv_transpose2d" in str(node.target) for node in graph.graph.nodes)

        def run(*inputs):
            calls.append("generator" if is_generator else "discriminator")
            return graph(*inputs)

        return run

    compiled_by(backend)
    plain, compiled = make_model(built=False), make_model(built=False, compile=True)
    for model, name in ((plain, "a"), (compiled, "b")):
        torch.manual_seed(1)
        fit(model, make_data(tiny_drums, tmp_path / "data"), tmp_path / name, max_epochs=2)
    assert torch.equal(weights(plain.ema), weights(compiled.ema))
    # A trial of the generator, and of the discriminator with classes and without; then 6 steps of the generator and of
    # the discriminator on its output, and 2 more passes of the discriminator in each of the 3 steps without a penalty.
    assert calls.count("generator") == 1 + 6
    assert calls.count("discriminator") == 2 + 6 + 2 * 3
    assert plain.state_dict().keys() == compiled.state_dict().keys()


def test_if_compiling_fails_training_goes_on_without(tiny_drums, tmp_path, compiled_by, caplog):
    def backend(graph, inputs):
        raise RuntimeError("no compiler found\nand a long tale")

    compiled_by(backend)
    model = make_model(built=False, compile=True)
    with caplog.at_level(logging.WARNING, "specgan"):
        fit(model, make_data(tiny_drums, tmp_path / "data"), tmp_path, max_epochs=1)
    assert model.n_steps == 3
    (message,) = [r.message for r in caplog.records if "compile" in r.message]
    assert message.startswith("torch.compile failed, so training goes on without (model.compile=false): ")
    assert message.endswith("no compiler found")


@pytest.mark.parametrize("recipe", ["relativistic", "bce"])
def test_a_resumed_run_ends_where_an_uninterrupted_one_ends(recipe, tiny_drums, tmp_path):
    whole, first, second = (make_model(recipe, built=False) for _ in range(3))
    torch.manual_seed(1)
    fit(whole, make_data(tiny_drums, tmp_path / "data"), tmp_path / "whole", max_epochs=4)
    torch.manual_seed(1)
    half = fit(first, make_data(tiny_drums, tmp_path / "data"), tmp_path / "half", max_epochs=2)
    torch.manual_seed(99)  # a new process has another global state
    fit(second, make_data(tiny_drums, tmp_path / "data"), tmp_path / "rest", max_epochs=4, ckpt_path=half)
    assert half.exists()  # going on elsewhere leaves the checkpoint that it came from
    assert second.n_steps == whole.n_steps == 12
    for (name, there), here in zip(whole.state_dict().items(), second.state_dict().values(), strict=True):
        torch.testing.assert_close(here, there, rtol=0, atol=0, msg=name)


def test_a_training_starts_from_the_average_and_the_discriminator_of_another(tiny_drums, tmp_path, caplog):
    first, second = make_model(built=False), make_model(built=False)
    path = fit(first, make_data(tiny_drums, tmp_path / "data"), tmp_path / "first", max_epochs=2)
    second.start = Start.read(path)
    for make in (second.make_optimizer_g, second.make_optimizer_d):
        make.keywords["lr"] = 1e-9
    with caplog.at_level(logging.INFO, "specgan"):
        last = fit(second, make_data(tiny_drums, tmp_path / "data"), tmp_path / "second", max_epochs=1)
    for player in (second.generator, second.ema):
        torch.testing.assert_close(weights(player), weights(first.ema), rtol=0, atol=1e-6)
    torch.testing.assert_close(weights(second.discriminator), weights(first.discriminator), rtol=0, atol=1e-6)
    assert not weights(first.generator).allclose(weights(first.ema), atol=1e-6)
    assert second.n_steps == 3  # it goes on from nothing but weights
    assert caplog.messages.count("classes that go on: clap, kick, open_hat; new classes: none") == 1
    going_on = make_model(built=False)
    fit(going_on, make_data(tiny_drums, tmp_path / "data"), tmp_path / "third", max_epochs=2, ckpt_path=last)
    assert going_on.n_steps == 6


def test_checkpoint_is_plain_and_brings_the_generator_back(tiny_drums, tmp_path):
    model = make_model("bce", built=False)
    path = fit(model, make_data(tiny_drums, tmp_path / "data"), tmp_path, max_epochs=1)
    torch.load(path, weights_only=True)  # would refuse a pickled class
    trained = TrainedGenerator.load(path)
    assert trained.class_names == ["clap", "kick", "open_hat"]
    assert trained.params == PARAMS
    assert trained.level_range == model.level_range
    assert torch.equal(trained.sample(["kick", "clap"], [5, 6]), model.sample([1, 0], [5, 6]))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"latent_dim": 8}, "latent_dim: checkpoint 16, this run 8"),
        (
            {"params": SpectrogramParams(hop_length=500, n_mels=32, n_frames=32)},
            "hop_length: checkpoint 512, this run 500",
        ),
        ({"class_names": ["a", "c"]}, r"class_names: checkpoint \['a', 'b'\], this run \['a', 'c'\]"),
    ],
)
def test_a_checkpoint_of_another_run_is_refused_with_both_values(change, message):
    checkpoint = {}
    make_model().on_save_checkpoint(checkpoint)
    other = make_model(built=False, **{k: v for k, v in change.items() if k == "latent_dim"})
    here = {"params": PARAMS, "level_range": LevelRange(-80.0, 0.0), "class_names": ["a", "b"]}
    other.build(**(here | {k: v for k, v in change.items() if k in here}))
    with pytest.raises(ValueError, match=message):
        other.on_load_checkpoint(checkpoint)


def test_the_seed_decides_the_noise():
    real, _ = one_batch()
    alone = SimpleNamespace(world_size=1, global_rank=0)
    first = make_model(seed=3)._draw_noise(real, alone)
    assert torch.equal(make_model(seed=3)._draw_noise(real, alone), first)
    assert not torch.equal(make_model(seed=4)._draw_noise(real, alone), first)
    parts = [make_model(seed=3)._draw_noise(real[:4], SimpleNamespace(world_size=2, global_rank=i)) for i in (0, 1)]
    assert torch.equal(torch.cat(parts), first)  # of one noise, each process has its part


class Watch(L.Callback):
    """The generator's learning rate at the end of each epoch."""

    def __init__(self):
        self.rates = []

    def on_train_epoch_end(self, trainer, pl_module):
        self.rates.append(pl_module.optimizers()[0].param_groups[0]["lr"])


@pytest.mark.parametrize("limit", [{"max_epochs": 4}, {"max_epochs": -1, "max_time": {"minutes": 10}}])
def test_learning_rates_fall_to_0_over_the_last_part_of_the_training(limit, tiny_drums, tmp_path, monkeypatch):
    watch = Watch()
    trainer = L.Trainer(
        **limit,
        accelerator="cpu",
        logger=False,
        callbacks=[watch],
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    if "max_time" in limit:  # a clock that counts batches, 50 s each
        monkeypatch.setattr(
            L.pytorch.callbacks.Timer, "time_elapsed", lambda *_: 50.0 * trainer.fit_loop.total_batch_idx
        )
    trainer.fit(make_model(built=False, decay_from=0.5), datamodule=make_data(tiny_drums, tmp_path / "data"))
    # 3 batches an epoch; the last of the third epoch begins when 8 of 12 are over, that of the fourth at 11
    assert watch.rates[:4] == pytest.approx([2e-3, 2e-3, 2e-3 * 2 / 3, 2e-3 / 6], rel=1e-6)


def open_adam():
    return partial(torch.optim.Adam, lr=None, betas=(0.0, 0.99))


def test_the_schedule_is_chosen_from_the_length_and_kept(tiny_drums, tmp_path, caplog):
    caplog.set_level(logging.INFO)

    def fit(max_epochs, ckpt_path=None):
        watch = Watch()
        model = make_model(built=False, decay_from=None, ema_decay=None)
        model.make_optimizer_g = model.make_optimizer_d = open_adam()
        settings = {"accelerator": "cpu", "logger": False, "callbacks": [watch], "enable_progress_bar": False}
        trainer = L.Trainer(**settings, max_epochs=max_epochs, enable_checkpointing=False, enable_model_summary=False)
        data = make_data(tiny_drums, tmp_path / "data")
        trainer.fit(model, datamodule=data, ckpt_path=ckpt_path, weights_only=True)
        trainer.save_checkpoint(tmp_path / "last.ckpt")
        return model.schedule, watch.rates

    chosen, rates = fit(4)  # 12 steps, chosen when 10 are over
    assert chosen == Schedule.for_length(12, n_values=32 * 32)
    assert "a training of about 12 steps: learning rate" in caplog.text
    first, last = Schedule.for_length(math.inf, n_values=32 * 32), chosen.learning_rate * chosen.scale(11 / 12)
    assert [rates[0], rates[3]] == pytest.approx([first.learning_rate, last])
    kept, rates = fit(6, ckpt_path=tmp_path / "last.ckpt")
    assert kept == chosen  # though the training is longer now
    assert rates[-1] == pytest.approx(chosen.learning_rate * chosen.scale(17 / 18))


def test_what_is_given_is_not_chosen(tiny_drums):
    model = make_model(decay_from=0.75, ema_decay=None)
    schedule = model._schedule_for(1000)
    assert (schedule.learning_rate, schedule.decay_from) == (2e-3, 0.75)
    assert schedule.ema_decay == Schedule.for_length(1000, n_values=32 * 32).ema_decay


def test_what_is_given_on_going_on_counts():
    model, again = make_model(decay_from=None, ema_decay=0.9), make_model(decay_from=0.75, ema_decay=None)
    checkpoint = {}
    model.on_save_checkpoint(checkpoint)
    again.on_load_checkpoint(checkpoint)
    assert (again.schedule.decay_from, again.schedule.ema_decay) == (0.75, 0.9)


def test_short_trainings_and_small_spectrograms_get_larger_steps():
    def rate(n_steps, n_values=64 * 64):
        return Schedule.for_length(n_steps, n_values=n_values).learning_rate

    by_length = [rate(n) for n in (1, 500, 4000, 8000, 20_000, math.inf)]
    assert by_length == sorted(by_length, reverse=True)
    assert by_length[0] > 2 * by_length[-1]
    assert rate(2000, 128 * 128) == pytest.approx(rate(2000) / 2)
    assert rate(2000, 32 * 32) == rate(2000)


def test_decay_from_out_of_range():
    with pytest.raises(ValueError, match=r"decay_from is 1\.5"):
        make_model(decay_from=1.5)


def augmented(**settings):
    return make_model(built=False, augmentation=Augmentation(**settings))


def test_few_clips_are_augmented_by_themselves_and_the_log_says_so(tiny_drums, tmp_path, caplog):
    caplog.set_level(logging.INFO)
    torch.manual_seed(1)
    plain, few, off = make_model(built=False), augmented(), augmented(probability=0.0)
    for model, name in ((plain, "a"), (few, "b"), (off, "c")):
        torch.manual_seed(1)
        fit(model, make_data(tiny_drums, tmp_path / "data"), tmp_path / name, max_epochs=4)
    assert torch.equal(weights(plain.ema), weights(off.ema))
    assert not torch.equal(weights(plain.ema), weights(few.ema))
    assert few.augmentation.final == few.augmentation.probability == probability_for(4)
    said = [r.message.partition(": ")[2] for r in caplog.records if r.message.startswith("augmentation of what")]
    assert said == ["none", str(few.augmentation), "none"]
    assert few.trainer.callback_metrics["train/augmentation"] == pytest.approx(few.augmentation.final)
    assert "train/augmentation" not in off.trainer.callback_metrics


def test_an_augmented_run_that_is_resumed_ends_where_an_uninterrupted_one_ends(tiny_drums, tmp_path):
    whole, first, second, old = (
        make_model(built=False, augmentation=Augmentation(rise=0.0), variation=Variation()) for _ in range(4)
    )
    torch.manual_seed(1)
    fit(whole, make_data(tiny_drums, tmp_path / "data"), tmp_path / "whole", max_epochs=4)
    torch.manual_seed(1)
    half = fit(first, make_data(tiny_drums, tmp_path / "data"), tmp_path / "half", max_epochs=2)
    fit(second, make_data(tiny_drums, tmp_path / "data"), tmp_path / "rest", max_epochs=4, ckpt_path=half)
    assert torch.equal(weights(second.ema), weights(whole.ema))
    kept = torch.load(half, weights_only=True)
    del kept["specgan"]["augmentation"], kept["specgan"]["variation"]  # a run from before there were any
    torch.save(kept, tmp_path / "old.ckpt")
    fit(old, make_data(tiny_drums, tmp_path / "data"), tmp_path / "old", max_epochs=4, ckpt_path=tmp_path / "old.ckpt")
    assert (old.n_steps, old.augmentation.final) == (12, 0.0)


def test_the_discriminator_learns_varied_clips_and_the_log_says_so(tiny_drums, tmp_path, caplog):
    caplog.set_level(logging.INFO)
    plain, varied = make_model(built=False), make_model(built=False, variation=Variation())
    for model, name in ((plain, "a"), (varied, "b")):
        torch.manual_seed(1)
        fit(model, make_data(tiny_drums, tmp_path / "data"), tmp_path / name, max_epochs=1)
    assert not torch.equal(weights(plain.ema), weights(varied.ema))
    said = [r.message.partition(": ")[2] for r in caplog.records if r.message.startswith("variation of the real")]
    assert said == [str(Variation())]


@pytest.mark.parametrize("hides", [False, True])
def test_penalties_and_the_generator_go_through_the_augmentation(hides, monkeypatch):
    model = make_model()
    monkeypatch.setattr(model, "_augmented", lambda x, labels: 0 * x if hides else x)
    optimizer_g, optimizer_d = model.configure_optimizers()
    scalars = discriminator_step(model, optimizer_d, monkeypatch)
    assert [float(scalars[name]) == 0 for name in ("r1", "r2")] == [hides, hides]
    before = weights(model.generator)
    generator_step(model, optimizer_g, monkeypatch)
    assert torch.equal(weights(model.generator), before) == hides
