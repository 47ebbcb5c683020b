"""What the discriminator sees: known answers of each change, gradients, draws that a checkpoint goes on with."""

import pytest
import torch
from torch.autograd import gradcheck, gradgradcheck

from specgan.models.augmentation import Augmentation, probability_for

N, N_MELS, N_FRAMES = 1000, 16, 32
SAME = torch.zeros(4000, dtype=torch.int64)  # labels: all of one class
OFF = {"time_shift": 0, "band_shift": 0, "hidden_bands": 0, "hidden_frames": 0, "gain": 0}


def augmentation(*, probability=1.0, rise=0.0, over=1.0, **settings):
    made = Augmentation(probability=probability, rise=rise, **settings)
    made.advance(over, n_steps=1)
    return made


def alone(**settings):
    """One operation, applied to all."""
    return augmentation(**{**OFF, **settings})


def peaks():
    """One value that is not silent in each spectrogram (N, 1, N_MELS, N_FRAMES): band 5, frame 12."""
    spectrogram = torch.full((N, 1, N_MELS, N_FRAMES), -1.0)
    spectrogram[:, :, 5, 12] = 0.5
    return spectrogram


@pytest.mark.parametrize(("setting", "dim", "start", "most"), [("time_shift", 3, 12, 8), ("band_shift", 2, 5, 4)])
def test_a_shift_moves_a_peak_and_silence_comes_in(setting, dim, start, most):
    changed = alone(**{setting: 0.25})(peaks(), SAME[:N])
    assert changed.unique().tolist() == [-1.0, 0.5]
    places = (changed == 0.5).nonzero()
    assert len(places) == N
    assert places[:, 5 - dim].unique().tolist() == [{2: 12, 3: 5}[dim]]  # the other axis stays
    steps = places[:, dim] - start
    assert set(steps.tolist()) == set(range(-most, most + 1))
    loud = alone(**{setting: 0.25})(torch.full((N, 1, N_MELS, N_FRAMES), 0.5), SAME[:N])
    silent = (loud == -1).all(dim=5 - dim).sum(dim=(1, 2))  # whole rows or columns
    assert torch.equal(silent, steps.abs())  # by the same seed


@pytest.mark.parametrize(("setting", "dim", "n"), [("hidden_bands", 2, N_MELS), ("hidden_frames", 3, N_FRAMES)])
def test_one_piece_is_hidden_and_the_rest_stays(setting, dim, n):
    spectrogram = torch.rand(N, 2, N_MELS, N_FRAMES)
    changed = alone(**{setting: 0.25})(spectrogram, SAME[:N])
    hidden = (changed == -1).all(dim=1).all(dim=4 - dim)  # in both channels
    lengths = hidden.sum(dim=1)
    assert set(lengths.tolist()) == set(range(1, n // 4 + 1))
    assert (hidden.diff(dim=1).sum(dim=1) <= 2).all()  # together
    assert (hidden.any(dim=0)).all()  # anywhere
    kept = ~hidden.view(N, 1, *((-1, 1) if dim == 2 else (1, -1))).expand_as(changed)
    assert torch.equal(changed[kept], spectrogram[kept])


def test_gain_is_added_to_what_is_heard_and_silence_stays():
    levels = torch.linspace(-1, 1, N_FRAMES).expand(N, 1, N_MELS, N_FRAMES).contiguous()
    added = alone(gain=0.1)(levels, SAME[:N]) - levels
    assert added[..., 0].eq(0).all()
    heard = added[:, 0, 0, levels[0, 0, 0] >= -0.75]
    torch.testing.assert_close(heard, heard[:, :1].expand_as(heard))  # one gain for each
    assert [float(heard.min()), float(heard.max())] == pytest.approx([-0.1, 0.1], abs=0.01)
    assert (alone(gain=0.2)(levels, SAME[:N]).diff(dim=3) > 0).all()  # what was louder stays louder


def test_mixing_puts_another_sound_of_the_class_in_softer_or_as_loud():
    labels = torch.tensor([0, 0, 0, 1, 2, 2])
    spectrogram = torch.full((6, 1, N_MELS, N_FRAMES), -1.0)
    spectrogram[range(6), 0, range(6)] = torch.linspace(0.1, 0.6, 6).unsqueeze(1)  # a band each
    mixing, partners = alone(mixing=True), [set() for _ in labels]
    for _ in range(60):
        changed = mixing(spectrogram, labels)
        for index, (mixed, plain) in enumerate(zip(changed, spectrogram, strict=True)):
            added = (mixed != plain).any(dim=2).nonzero()[:, 1].tolist()
            assert len(added) == (index != 3)  # alone in its class
            for other in added:
                partners[index].add(other)
                softer = spectrogram[other, 0, other] - mixed[0, other]
                torch.testing.assert_close(softer, softer[:1].expand(N_FRAMES))
                assert 0 <= softer[0] <= 0.5
    assert partners == [{1, 2}, {0, 2}, {0, 1}, set(), {5}, {4}]


def test_nothing_changes_at_probability_0():
    spectrogram = torch.randn(8, 1, N_MELS, N_FRAMES).tanh()
    at_start = augmentation(rise=0.5, over=0.0)
    at_start.advance(0.0, n_steps=0)
    assert torch.equal(at_start(spectrogram, SAME[:8]), spectrogram)
    off = augmentation(probability=0.0)
    before = off.draws.state()
    assert off(spectrogram, SAME[:8]) is spectrogram
    assert torch.equal(off.draws.state(), before)  # nothing was drawn either


def test_each_spectrogram_decides_for_itself_by_the_probability():
    spectrogram = torch.zeros(4000, 1, 2, 2)
    is_changed = (alone(probability=0.3, gain=0.1)(spectrogram, SAME) != 0).any(dim=(1, 2, 3))
    assert is_changed.float().mean() == pytest.approx(0.3, abs=0.03)


def test_the_probability_rises_along_half_a_cosine_and_stays():
    made = Augmentation(probability=0.4, rise=0.5)
    values = []
    for over in (0.0, 0.125, 0.25, 0.5, 1.0):
        made.advance(over, n_steps=100 if over else 0)
        values.append(made.probability)
    assert values == pytest.approx([0, 0.4 * (1 - 0.5**0.5) / 2, 0.2, 0.4, 0.4])
    made.advance(0.0, n_steps=10_000)  # a training without an end
    assert made.probability == pytest.approx(0.4)


def test_gradients_and_gradients_of_gradients_are_right():
    """So the generator learns through it, and penalties go through it."""
    made = augmentation(time_shift=0.5, band_shift=0.5, hidden_bands=0.5, hidden_frames=0.5)
    drawn, probability = torch.rand(3, 12), torch.tensor([[0.7]])
    spectrogram = (0.9 * torch.randn(3, 2, 4, 4, dtype=torch.double).tanh()).requires_grad_()
    assert gradcheck(lambda x: made._changed(x, drawn, probability), spectrogram)
    assert gradgradcheck(lambda x: made._changed(x, drawn, probability) ** 2, spectrogram)


def test_real_and_generated_spectrograms_are_changed_alike():
    """Two draws of the same spectrograms cannot be told apart by their statistics."""
    made = augmentation(probability=0.5, seed=3)
    spectrogram = torch.rand(1, 1, N_MELS, N_FRAMES).expand(4000, -1, -1, -1)
    real, fake = (made(spectrogram, SAME) for _ in range(2))
    assert not torch.equal(real, fake)
    for statistic in (torch.mean, torch.std):
        torch.testing.assert_close(statistic(real, dim=0), statistic(fake, dim=0), rtol=0, atol=0.06)


def test_processes_have_their_parts_of_the_same_draws():
    spectrogram = torch.rand(8, 1, N_MELS, N_FRAMES)
    whole = augmentation(probability=0.5, seed=3)(spectrogram, SAME[:8])
    parts = [
        augmentation(probability=0.5, seed=3)(half, SAME[:4], n_processes=2, rank=rank)
        for rank, half in enumerate(spectrogram.split(4))
    ]
    assert torch.equal(torch.cat(parts), whole)
    assert not torch.equal(augmentation(probability=0.5, seed=4)(spectrogram, SAME[:8]), whole)


def test_a_checkpoint_goes_on_with_the_same_draws_and_the_same_choice():
    spectrogram = torch.rand(8, 1, N_MELS, N_FRAMES)
    chosen = Augmentation(rise=0.0)
    chosen.choose([10, 10])
    assert chosen.final == probability_for(10) > 0
    chosen.advance(1.0, n_steps=1)
    chosen(spectrogram, SAME[:8])
    kept = chosen.state_dict()
    expected = chosen(spectrogram, SAME[:8])
    again = Augmentation(rise=0.0)
    again.choose([1000, 1000])  # the data set has grown
    again.load_state_dict(kept)
    again.advance(1.0, n_steps=1)
    assert torch.equal(again(spectrogram, SAME[:8]), expected)
    given = Augmentation(probability=0.2)
    given.load_state_dict(kept)
    assert given.final == 0.2  # what is given on going on counts


def test_each_class_is_changed_as_often_as_suits_its_number_of_clips():
    spectrogram, labels = torch.zeros(9000, 1, 2, 2), torch.arange(9000) % 3
    chosen = Augmentation(rise=0.0, **OFF | {"gain": 0.1})
    chosen.choose([60, 30, 200])
    chosen.advance(1.0, n_steps=1)
    kept = chosen.state_dict()
    again = Augmentation(rise=0.0, **OFF | {"gain": 0.1})
    again.choose([1000, 1000, 1000])
    again.load_state_dict(kept)
    again.advance(1.0, n_steps=1)
    for made in (chosen, again):
        is_changed = (made(spectrogram, labels) != 0).any(dim=(1, 2, 3)).float()
        found = [is_changed[labels == label].mean().item() for label in range(3)]
        assert found == pytest.approx([probability_for(60), probability_for(30), 0.0], abs=0.03)
        assert f"rises to {probability_for(30):.2g}" in str(made) and "to 0 for that of the most" in str(made)
    chosen.choose([1000, 200, 200])
    assert (chosen.final, str(chosen)) == (0.0, "none")
    given = Augmentation(probability=0.2)
    given.choose([60, 30, 200])
    assert (given.final, given.shares) == (0.2, None)


def test_mixing_goes_by_the_class_too():
    spectrogram, labels = torch.rand(4, 1, N_MELS, N_FRAMES), torch.tensor([0, 1, 0, 1])
    mixing = Augmentation(rise=0.0, mixing=True, **OFF)
    mixing.choose([30, 200])
    mixing.advance(1.0, n_steps=1)
    changed = torch.stack([(mixing(spectrogram, labels) != spectrogram).any(dim=(1, 2, 3)) for _ in range(20)])
    assert changed.any(dim=0).tolist() == [True, False, True, False]


def test_a_run_from_before_there_was_augmentation_goes_on_without():
    chosen = Augmentation()
    chosen.choose([10, 10])
    chosen.load_state_dict(None)
    assert (chosen.final, str(chosen)) == (0.0, "none")


def test_few_clips_are_augmented_and_many_are_not():
    probabilities = [probability_for(n) for n in (1, 10, 30, 100, 300, 10_000)]
    assert probabilities == sorted(probabilities, reverse=True)
    assert 0.3 <= probabilities[0] <= 0.55
    assert probabilities[-1] == 0.0


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"probability": 1.5}, r"augmentation.probability is 1\.5; from 0 to 1"),
        ({"hidden_bands": -0.1}, r"augmentation.hidden_bands is -0\.1; a share"),
        ({"gain": 0.3}, r"augmentation.gain is 0\.3; at least 0 and below 0\.25"),
    ],
)
def test_impossible_settings_are_refused(setting, message):
    with pytest.raises(ValueError, match=message):
        Augmentation(**setting)
