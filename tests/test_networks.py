"""specgan.models: losses with known answers, networks of every size, and samples that depend on their seed alone."""

import math
from functools import partial

import pytest
import torch
from torch import nn

from specgan.models.discriminators import ChannelDiscriminator, ProjectionDiscriminator, SpreadInClass
from specgan.models.generators import DCGANGenerator, PixelNorm, sample
from specgan.models.losses import BCELoss, HingeLoss, RelativisticPairingLoss, gradient_penalty
from specgan.models.sizes import depth_for

LOSSES = [BCELoss, HingeLoss, RelativisticPairingLoss]
DISCRIMINATORS = [ProjectionDiscriminator, ChannelDiscriminator]
SIZES = [(64, 64), (128, 128), (128, 512), (16, 32), (100, 63), (40, 16), (80, 250), (7, 3)]


def log(*values: float) -> torch.Tensor:
    return torch.tensor([math.log(value) for value in values])


def generator(n_mels: int = 16, n_frames: int = 32, **settings) -> DCGANGenerator:
    settings = {"n_classes": 3, "latent_dim": 8, "width": 32} | settings
    return DCGANGenerator(n_mels=n_mels, n_frames=n_frames, **settings)


def batch(n_items: int = 4, *, n_mels: int = 16, n_frames: int = 32) -> tuple[torch.Tensor, torch.Tensor]:
    """Spectrograms (B, 1, n_mels, n_frames) and labels (B,)."""
    draw = torch.Generator().manual_seed(1)
    return 2 * torch.rand(n_items, 1, n_mels, n_frames, generator=draw) - 1, torch.arange(n_items) % 3


# --- losses: worked out by hand. softplus(log a) = log(1 + a)


def test_bce_loss():
    real, fake = log(1, 3), log(1 / 3, 7)
    # real: log 2 and log 4/3; fake: log 4/3 and log 8
    expected_d = (math.log(2) + math.log(4 / 3)) / 2 + (math.log(4 / 3) + math.log(8)) / 2
    expected_g = (math.log(4) + math.log(8 / 7)) / 2
    assert BCELoss().discriminator_loss(real, fake).item() == pytest.approx(expected_d)
    assert BCELoss().generator_loss(None, fake).item() == pytest.approx(expected_g)


def test_hinge_loss():
    real, fake = torch.tensor([0.5, 2.0, -1.0]), torch.tensor([-2.0, 0.0, 1.0])
    # real: 0.5, 0 and 2; fake: 0, 1 and 2
    assert HingeLoss().discriminator_loss(real, fake).item() == pytest.approx(2.5 / 3 + 1)
    assert HingeLoss().generator_loss(None, fake).item() == pytest.approx(1 / 3)


def test_relativistic_pairing_loss():
    real, fake = log(1, 3), log(3, 3)
    # fake - real: log 3 and 0
    expected_d = (math.log(4) + math.log(2)) / 2
    expected_g = (math.log(4 / 3) + math.log(2)) / 2
    assert RelativisticPairingLoss().discriminator_loss(real, fake).item() == pytest.approx(expected_d)
    assert RelativisticPairingLoss().generator_loss(real, fake).item() == pytest.approx(expected_g)


def test_relativistic_pairing_judges_pair_by_pair_and_only_the_difference():
    loss = RelativisticPairingLoss()
    real, fake = torch.tensor([0.0, 4.0]), torch.tensor([0.0, 4.0])
    paired = loss.discriminator_loss(real, fake)
    assert paired.item() == pytest.approx(math.log(2))
    assert loss.discriminator_loss(real.flip(0), fake) > paired + 1
    torch.testing.assert_close(loss.discriminator_loss(real + 100, fake + 100), paired)


@pytest.mark.parametrize("loss", LOSSES)
def test_a_loss_stays_finite_on_extreme_logits(loss):
    real, fake = torch.tensor([-1e4, 1e4], requires_grad=True), torch.tensor([1e4, -1e4], requires_grad=True)
    total = loss().discriminator_loss(real, fake) + loss().generator_loss(real, fake)
    total.backward()
    assert total.isfinite() and real.grad.isfinite().all() and fake.grad.isfinite().all()


@pytest.mark.parametrize("loss", LOSSES)
def test_a_loss_pulls_the_logits_the_right_way(loss):
    real, fake = torch.zeros(2, requires_grad=True), torch.zeros(2, requires_grad=True)
    loss().discriminator_loss(real, fake).backward()
    assert (real.grad < 0).all() and (fake.grad > 0).all()  # descent: real up, fake down
    fake.grad = None
    loss().generator_loss(real.detach(), fake).backward()
    assert (fake.grad < 0).all()


@pytest.mark.parametrize("loss", LOSSES)
def test_an_impossible_loss_setting_is_named_with_its_value_and_the_fix(loss):
    with pytest.raises(ValueError, match=r"gamma is -0\.5; at least 0"):
        loss(gamma=-0.5)
    with pytest.raises(ValueError, match="penalty_every is 0; at least 1"):
        loss(penalty_every=0)


# --- gradient penalty: closed forms


def test_the_gradient_penalty_of_a_linear_discriminator_is_half_its_weights_squared():
    weight = torch.randn(1, 4, 4, requires_grad=True)
    spectrogram = torch.randn(3, 1, 4, 4, requires_grad=True)
    penalty = gradient_penalty((weight * spectrogram).sum((1, 2, 3)), spectrogram)
    torch.testing.assert_close(penalty, weight.square().sum() / 2)
    (gradient,) = torch.autograd.grad(penalty, weight)  # it can be trained on
    torch.testing.assert_close(gradient, weight)


def test_the_gradient_penalty_of_a_quadratic_discriminator_is_the_mean_over_the_batch():
    spectrogram = torch.stack([torch.full((1, 2, 2), 1.0), torch.full((1, 2, 2), 3.0)]).requires_grad_()
    logits = 5 * spectrogram.square().sum((1, 2, 3)) / 2  # gradient 5 x, squared norms 25 * 4 and 25 * 36
    assert gradient_penalty(logits, spectrogram).item() == pytest.approx((100 + 900) / 2 / 2)


# --- sizes


@pytest.mark.parametrize(("n_mels", "n_frames"), SIZES)
@pytest.mark.parametrize("norm", ["pixel", "batch"])
def test_a_generator_makes_spectrograms_of_its_size_within_the_range(n_mels, n_frames, norm):
    network = generator(n_mels, n_frames, norm=norm)
    spectrogram = network(10 * torch.randn(2, 8), torch.tensor([0, 2]))
    assert spectrogram.shape == (2, 1, n_mels, n_frames)
    assert spectrogram.dtype == torch.float32
    assert spectrogram.abs().max() <= 1
    assert spectrogram.std() > 0


@pytest.mark.parametrize(("n_mels", "n_frames"), SIZES)
@pytest.mark.parametrize("spectral_norm", [False, True])
@pytest.mark.parametrize("discriminator", DISCRIMINATORS)
def test_a_discriminator_gives_one_logit_a_spectrogram(discriminator, spectral_norm, n_mels, n_frames):
    network = discriminator(n_classes=3, n_mels=n_mels, n_frames=n_frames, width=32, spectral_norm=spectral_norm)
    logits = network(*batch(n_mels=n_mels, n_frames=n_frames))
    assert logits.shape == (4,)
    assert logits.isfinite().all() and logits.std() > 0


@pytest.mark.parametrize(("n_mels", "n_frames"), [(100, 63), (40, 16), (16, 17), (7, 3)])
@pytest.mark.parametrize("discriminator", DISCRIMINATORS)
def test_every_value_of_a_spectrogram_reaches_the_logit_and_the_generator(discriminator, n_mels, n_frames):
    """Sizes that the doublings do not divide are filled up or cut off; the last row and column count all the same."""
    network = discriminator(n_classes=3, n_mels=n_mels, n_frames=n_frames, width=32)
    real, labels = batch(n_mels=n_mels, n_frames=n_frames)
    real.requires_grad_()
    network(real, labels).sum().backward()
    assert real.grad.ne(0).all()
    made = generator(n_mels, n_frames)
    network(made(torch.randn(4, 8), labels), labels).sum().backward()
    gradients = [parameter.grad for parameter in made.parameters()]
    assert all(gradient is not None and gradient.isfinite().all() for gradient in gradients)
    assert all(gradient.ne(0).any() for gradient in gradients)


def test_a_size_that_16_does_not_divide_is_part_of_the_next_larger_one():
    """A generator cuts off what is too much, a discriminator puts silence there."""
    small, large = generator(12, 30), generator(16, 32)
    small.load_state_dict(large.state_dict())
    z, (spectrogram, labels) = torch.randn(4, 8), batch(n_mels=12, n_frames=30)
    torch.testing.assert_close(small(z, labels), large(z, labels)[..., :12, :30])

    small, large = (
        ProjectionDiscriminator(n_classes=3, n_mels=n, n_frames=m, width=32) for n, m in ((12, 30), (16, 32))
    )
    small.load_state_dict(large.state_dict())
    filled = nn.functional.pad(spectrogram, (0, 2, 0, 4), value=-1.0)
    torch.testing.assert_close(small(spectrogram, labels), large(filled, labels))


@pytest.mark.parametrize(
    ("n_mels", "n_frames", "depth"),
    [
        (64, 64, 4),
        (16, 32, 4),
        (7, 3, 4),
        (80, 250, 4),
        (100, 63, 4),
        (100, 128, 5),
        (128, 128, 5),
        (128, 512, 5),
        (256, 256, 6),
    ],
)
def test_networks_are_as_deep_as_the_shorter_side_asks_for(n_mels, n_frames, depth):
    assert depth_for(n_mels, n_frames) == depth
    layers = generator(n_mels, n_frames).layers
    assert sum(isinstance(layer, nn.ConvTranspose2d) for layer in layers) == depth
    assert layers[1].unflattened_size == (32, -(-n_mels // 2**depth), -(-n_frames // 2**depth))
    for discriminator in DISCRIMINATORS:
        network = discriminator(n_classes=3, n_mels=n_mels, n_frames=n_frames, width=32)
        assert sum(isinstance(layer, nn.Conv2d) for layer in network.modules()) == depth
        assert network.logit.in_features == 32 * -(-n_mels // 2**depth) * -(-n_frames // 2**depth)


@pytest.mark.parametrize("network", [DCGANGenerator, *DISCRIMINATORS])
def test_the_depth_can_be_chosen_and_more_of_it_adds_maps_of_full_width(network):
    settings = {"n_classes": 3, "n_mels": 64, "n_frames": 64, "width": 32}
    channels = {
        depth: [layer.out_channels for layer in network(**settings, depth=depth).modules() if hasattr(layer, "stride")]
        for depth in (4, 6)
    }
    last = [16, 8, 4, 1] if network is DCGANGenerator else [4, 8, 16, 32]
    assert channels[4] == last
    assert channels[6] == ([32, 32, *last] if network is DCGANGenerator else [*last, 32, 32])
    for depth in (3, 7, 10**9):
        with pytest.raises(ValueError, match=f"depth is {depth}; 4 to 6 for 64 x 64, or null"):
            network(**settings, depth=depth)


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ({"n_frames": None}, "n_frames is None; networks need one length: choose a spectrogram preset that has one"),
        ({"width": 36}, "width is 36; this network needs a multiple of 8"),
        ({"norm": "layer"}, "norm is 'layer'; (pixel|null) or batch"),
    ],
)
@pytest.mark.parametrize("network", [partial(DCGANGenerator, latent_dim=8), *DISCRIMINATORS])
def test_an_impossible_network_is_named_with_its_value_and_the_fix(network, sizes, message):
    with pytest.raises(ValueError, match=message):
        network(**{"n_classes": 3, "n_mels": 16, "n_frames": 16, **sizes})


# How the convolutions and norms of four halvings were numbered until there were stages; in layers, and the last in last
NUMBERS = {None: [0, 2, 4, 6], "batch": [0, 2, 3, 5, 6, 8, 9]}


@pytest.mark.parametrize("spectral_norm", [False, True])
@pytest.mark.parametrize("norm", NUMBERS)
@pytest.mark.parametrize("discriminator", DISCRIMINATORS)
def test_a_checkpoint_with_numbered_layers_is_read(discriminator, norm, spectral_norm):
    make = partial(discriminator, n_classes=3, n_mels=16, n_frames=32, width=32, norm=norm, spectral_norm=spectral_norm)
    network, other = make().eval(), make().eval()
    numbers = iter(NUMBERS[norm])
    number_of, earlier = {}, {}
    for name, value in network.state_dict().items():
        if name.startswith("stages."):
            _, stage, layer, rest = name.split(".", 3)
            if (stage, layer) not in number_of:
                number_of[stage, layer] = next(numbers)
            is_last = discriminator is ProjectionDiscriminator and stage == "3"
            name = f"{'last' if is_last else 'layers'}.{number_of[stage, layer]}.{rest}"
        earlier[f"discriminator.{name}"] = value
    outer = nn.ModuleDict({"discriminator": other})
    outer.load_state_dict(earlier)
    assert other(*batch()).equal(network(*batch()))


def test_settings_make_the_same_generator_again():
    network = generator(embedding_dim=None, norm="batch")
    again = DCGANGenerator(**network.settings)
    again.load_state_dict(network.state_dict())
    z, labels = torch.randn(2, 8), torch.tensor([0, 1])
    assert again.eval()(z, labels).equal(network.eval()(z, labels))


def test_pixel_norm_gives_each_position_a_mean_square_of_1():
    normalised = PixelNorm()(torch.tensor([3.0, 4.0]).reshape(1, 2, 1, 1))
    torch.testing.assert_close(normalised.flatten(), torch.tensor([3.0, 4.0]) / math.sqrt(12.5))
    many = PixelNorm()(50 * torch.randn(2, 16, 3, 5))
    torch.testing.assert_close(many.square().mean(1), torch.ones(2, 3, 5))


def test_pixel_norm_has_the_right_first_and_second_derivatives():
    x = torch.randn(2, 5, 2, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).requires_grad_()
    assert torch.autograd.gradcheck(PixelNorm(), x)
    assert torch.autograd.gradgradcheck(PixelNorm(), x)


# --- labels


def test_a_one_hot_label_is_not_trained_and_an_embedding_is():
    one_hot = generator(embedding_dim=None)
    assert one_hot.embedding(torch.tensor([0, 2])).tolist() == [[1, 0, 0], [0, 0, 1]]
    assert not any(parameter.requires_grad for parameter in one_hot.embedding.parameters())
    learned = generator(embedding_dim=5)
    assert learned.embedding.weight.shape == (3, 5)
    assert learned.embedding.weight.requires_grad


@pytest.mark.parametrize("embedding_dim", [None, 8])
def test_the_label_changes_what_a_generator_makes(embedding_dim):
    network = generator(embedding_dim=embedding_dim)
    one, two, same = network(torch.randn(1, 8).repeat(3, 1), torch.tensor([0, 1, 0]))
    assert (one - two).abs().max() > 1e-3
    torch.testing.assert_close(one, same)


@pytest.mark.parametrize("spectral_norm", [False, True])
@pytest.mark.parametrize("discriminator", DISCRIMINATORS)
def test_the_label_changes_the_logit(discriminator, spectral_norm):
    network = discriminator(n_classes=3, n_mels=16, n_frames=32, width=32, spectral_norm=spectral_norm).eval()
    spectrogram = batch(1)[0].repeat(3, 1, 1, 1)
    logits = network(spectrogram, torch.tensor([0, 1, 2]))
    assert min((a - b).abs() for a, b in zip(logits, logits.roll(1), strict=True)) > 1e-5


def test_the_projection_is_the_features_product_with_the_classs_embedding():
    network = ProjectionDiscriminator(n_classes=3, n_mels=16, n_frames=32, width=32, compare_in_class=False)
    spectrogram, labels = batch()
    with torch.no_grad():
        network.embedding.weight.zero_()
        without = network(spectrogram, labels)
        assert without.equal(network(spectrogram, (labels + 1) % 3))  # the label has no other way in
        network.embedding.weight[1] = network.logit.weight[0]  # doubles the product, leaves the bias
        doubled = network(spectrogram, torch.ones(4, dtype=torch.int64))
    torch.testing.assert_close(doubled, 2 * without - network.logit.bias)


def test_the_discriminator_sees_how_much_the_sounds_of_a_class_differ():
    network = ProjectionDiscriminator(n_classes=3, n_mels=16, n_frames=32, width=32)
    (spectrogram, _), labels = batch(6), torch.tensor([0, 1, 0, 1, 0, 1])
    seen = []
    network.stages[-1].register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0][:, -1]))
    collapsed = spectrogram[:2].repeat(3, 1, 1, 1)  # one sound for each class
    half = torch.cat([collapsed[:, :, :, :16], spectrogram[:, :, :, 16:]], dim=-1)
    with torch.no_grad():
        for some in (collapsed, half, spectrogram):
            network(some, labels)
        network(spectrogram, torch.tensor([0, 1, 2, 0, 1, 2]))
    collapsed, half, varied, otherwise = seen
    assert collapsed.shape == (6, 2, 4)
    assert collapsed.max() < 1e-3 < half.min() < varied.min()
    assert varied[0].unique().numel() == 1 and varied[0].equal(varied[2])  # one number for each class
    assert not varied.equal(otherwise)


@pytest.mark.parametrize("n_classes", [3, 1000])
def test_the_spread_is_the_mean_standard_deviation_of_the_items_of_the_class(n_classes):
    maps = torch.randn(7, 5, 2, 3, generator=torch.Generator().manual_seed(0))
    labels = n_classes - 1 - torch.tensor([0, 2, 0, 1, 2, 0, 0])
    seen = SpreadInClass(n_classes)(maps, labels)
    assert seen.shape == (7, 1, 2, 3)
    for item, label in zip(seen, labels, strict=True):
        expected = maps[labels == label].std(dim=0, correction=0).mean()
        torch.testing.assert_close(item, expected.expand(1, 2, 3), atol=1e-4, rtol=1e-4)


def test_a_class_with_one_sound_in_the_batch_differs_by_nothing():
    network = ProjectionDiscriminator(n_classes=4, n_mels=16, n_frames=32, width=32)
    spectrogram = batch(4)[0].requires_grad_(True)
    logits = network(spectrogram, torch.arange(4))
    logits.sum().backward()
    assert logits.isfinite().all() and spectrogram.grad.isfinite().all()


# --- spectral norm


@pytest.mark.parametrize("discriminator", DISCRIMINATORS)
def test_spectral_norm_bounds_every_weight_matrix_however_large_it_grows(discriminator):
    network = discriminator(n_classes=3, n_mels=16, n_frames=32, width=32, spectral_norm=True)
    layers = [layer for layer in network.modules() if hasattr(layer, "parametrizations")]
    assert sum(isinstance(layer, nn.Conv2d) for layer in layers) == 4
    assert sum(isinstance(layer, nn.Linear) for layer in layers) == 1
    with torch.no_grad():
        for layer in layers:
            layer.parametrizations.weight.original.mul_(50)
        for _ in range(30):  # each pass in training is a step of the power iteration
            network(*batch())
    for layer in layers:
        assert torch.linalg.matrix_norm(layer.weight.flatten(1), 2).item() == pytest.approx(1, abs=0.02)


@pytest.mark.parametrize("discriminator", DISCRIMINATORS)
def test_without_spectral_norm_weights_are_free(discriminator):
    network = discriminator(n_classes=3, n_mels=16, n_frames=32, width=32)
    assert not any(hasattr(layer, "parametrizations") for layer in network.modules())


# --- learning


def descend(parameters, compute_loss, *, n_steps: int = 8) -> list[float]:
    optimizer = torch.optim.Adam(parameters, lr=1e-3)
    values = []
    for _ in range(n_steps):
        loss = compute_loss()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        values.append(loss.item())
    return values


@pytest.mark.parametrize("discriminator", DISCRIMINATORS)
def test_the_gradient_penalty_falls_when_it_is_trained_on(discriminator):
    network = discriminator(n_classes=3, n_mels=16, n_frames=32, width=32)
    spectrogram, labels = batch(8)
    spectrogram.requires_grad_()
    values = descend(
        network.parameters(), lambda: 100 * gradient_penalty(network(spectrogram, labels), spectrogram), n_steps=5
    )
    assert values[-1] < values[0]


# --- samples


def big_generator(norm: str, memory_format: torch.memory_format) -> DCGANGenerator:
    """Wide enough that convolutions round differently at other batch sizes."""
    network = generator(64, 64, width=128, latent_dim=32, norm=norm)
    with torch.no_grad():
        network(torch.randn(16, 32), torch.arange(16) % 3)  # batch statistics that are not the initial ones
    return network.to(memory_format=memory_format)


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("norm", ["pixel", "batch"])
def test_a_sample_is_the_same_bytes_whatever_stands_beside_it(norm, memory_format):
    network = big_generator(norm, memory_format)
    alone = sample(network, [1], [7])
    assert alone.shape == (1, 1, 64, 64)
    for position in range(8):  # of a full chunk
        labels, seeds = [2, 0, 1, 0, 2, 1, 0, 2], list(range(100, 108))
        labels[position], seeds[position] = 1, 7
        assert sample(network, labels, seeds)[position].equal(alone[0])
    for n_items in (2, 5, 9, 17):  # chunks that are not full, and several of them
        beside = sample(network, [*[0] * (n_items - 1), 1], [*range(200, 200 + n_items - 1), 7])
        assert beside.shape == (n_items, 1, 64, 64)
        assert beside[-1].equal(alone[0])


def test_a_sample_is_what_the_network_makes_of_its_seeds_noise():
    network = generator().eval()
    z = torch.stack([torch.randn(8, generator=torch.Generator().manual_seed(seed)) for seed in (3, 4)])
    with torch.no_grad():
        expected = network(z, torch.tensor([2, 0]))
    torch.testing.assert_close(sample(network, [2, 0], [3, 4]), expected)


def test_labels_and_seeds_matter_and_the_global_generator_does_not():
    network = generator()
    one, other_label, other_seed, same = sample(network, [0, 1, 0, 0], [5, 5, 6, 5])
    assert (one - other_label).abs().max() > 1e-3
    assert (one - other_seed).abs().max() > 1e-3
    assert one.equal(same)
    torch.manual_seed(99)
    state = torch.get_rng_state()
    assert sample(network, [0], [5])[0].equal(one)
    assert torch.get_rng_state().equal(state)


@pytest.mark.parametrize("training", [True, False])
def test_sampling_leaves_the_network_as_it_was(training):
    network = generator(norm="batch").train(training)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    spectrograms = sample(network, [0, 1, 2], [1, 2, 3])
    assert not spectrograms.requires_grad
    assert all(module.training is training for module in network.modules())
    assert any(name.endswith("running_mean") for name in before)
    assert all(value.equal(before[name]) for name, value in network.state_dict().items())


def test_every_label_needs_its_seed():
    with pytest.raises(ValueError, match="2 labels and 3 seeds; give one seed for each label"):
        sample(generator(), [0, 1], [1, 2, 3])
