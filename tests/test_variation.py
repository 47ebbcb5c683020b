"""Variations of real clips: known answers of each change, strengths, draws that a checkpoint goes on with."""

import pytest
import torch

from specgan.models.variation import Variation

N, N_MELS, N_FRAMES = 500, 32, 64
OFF = {"stretch": 0, "band_shift": 0, "tilt": 0, "gain": 0}


def alone(**settings):
    """One change, at its whole strength."""
    return Variation(strength=1.0, **{**OFF, **settings})


def ridge():
    """Spectrograms (N, 1, N_MELS, N_FRAMES) of one band, 15 and 16, from frame 16 to 47; silence else."""
    spectrogram = torch.full((N, 1, N_MELS, N_FRAMES), -1.0)
    spectrogram[:, :, 15:17, 16:48] = 0.5
    return spectrogram


def centres(spectrogram, dim):
    """(N,), of what is heard along an axis."""
    weight = (spectrogram + 1).sum(dim=(1, 5 - dim))
    return (weight * torch.arange(weight.shape[1])).sum(dim=1) / weight.sum(dim=1)


def test_it_becomes_faster_or_slower_from_its_start_on():
    changed = alone(stretch=0.25)(ridge())
    places = centres(changed, 3) + 0.5  # from the start of the first frame
    assert places.min() == pytest.approx(32 / 1.25, abs=0.5)
    assert places.max() == pytest.approx(32 * 1.25, abs=0.5)
    torch.testing.assert_close(centres(changed, 2), torch.full((N,), 15.5))
    assert changed.amax(dim=(1, 2, 3)).min() > 0.45  # and keeps its level


def test_it_moves_by_bands_and_silence_comes_in():
    changed = alone(band_shift=0.25)(ridge())
    places = centres(changed, 2)
    assert [float(places.min()), float(places.max())] == pytest.approx([15.5 - 8, 15.5 + 8], abs=0.2)
    torch.testing.assert_close(centres(changed, 3), torch.full((N,), 31.5))
    moved = alone(band_shift=0.5)(torch.full((N, 1, N_MELS, N_FRAMES), 0.5))
    share_silent = (moved < -0.9).float().mean(dim=(1, 2, 3))
    assert share_silent.max() == pytest.approx(0.5, abs=0.05)


def test_tilt_raises_one_end_of_the_bands_as_much_as_it_lowers_the_other():
    added = alone(tilt=0.2)(torch.zeros(N, 1, N_MELS, N_FRAMES))[:, 0, :, 0]
    torch.testing.assert_close(added, -added.flip(1))
    assert [float(added[:, -1].min()), float(added[:, -1].max())] == pytest.approx([-0.2, 0.2], abs=0.01)


def test_gain_changes_what_is_heard_and_silence_stays():
    levels = torch.linspace(-1, 1, N_FRAMES).expand(N, 1, N_MELS, N_FRAMES).contiguous()
    changed = alone(gain=0.1)(levels)
    assert changed.amin(dim=(1, 2, 3)).eq(-1).all()
    added = (changed - levels)[:, 0, 0, 30]
    assert [float(added.min()), float(added.max())] == pytest.approx([-0.1, 0.1], abs=0.01)
    assert changed.max() == 1


def test_both_channels_are_changed_alike():
    stereo = torch.rand(8, 1, N_MELS, N_FRAMES).expand(-1, 2, -1, -1)
    left, right = Variation(strength=1.0)(stereo).unbind(1)
    assert torch.equal(left, right)
    assert not torch.equal(left, stereo[:, 0])


def test_strength_scales_all_changes():
    half = Variation(strength=0.5, **(OFF | {"gain": 0.2}))(torch.zeros(N, 1, N_MELS, N_FRAMES))
    assert [float(half.min()), float(half.max())] == pytest.approx([-0.1, 0.1], abs=0.01)
    assert str(Variation(strength=0.5)).startswith("up to 5 % faster or slower")


def test_without_strength_nothing_changes_and_nothing_is_drawn():
    spectrogram = torch.rand(8, 1, N_MELS, N_FRAMES)
    off = Variation(strength=0.0)
    before = off.draws.state()
    assert off(spectrogram) is spectrogram
    assert torch.equal(off.draws.state(), before)


def test_processes_have_their_parts_of_the_same_draws():
    spectrogram = torch.rand(8, 1, N_MELS, N_FRAMES)
    whole = Variation(strength=1.0)(spectrogram)
    parts = [Variation(strength=1.0)(half, n_processes=2, rank=rank) for rank, half in enumerate(spectrogram.split(4))]
    torch.testing.assert_close(torch.cat(parts), whole)


def test_a_checkpoint_goes_on_with_the_same_draws():
    spectrogram = torch.rand(8, 1, N_MELS, N_FRAMES)
    first, again = Variation(), Variation()
    first(spectrogram)
    kept = first.state_dict()
    expected = first(spectrogram)
    again.load_state_dict(None)  # of a run from before there was any
    again.load_state_dict(kept)
    assert torch.equal(again(spectrogram), expected)


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"strength": 1.5}, r"variation.strength is 1\.5; from 0 to 1"),
        ({"tilt": -0.1}, r"variation.tilt is -0\.1; from 0 to 1"),
    ],
)
def test_impossible_settings_are_refused(setting, message):
    with pytest.raises(ValueError, match=message):
        Variation(**setting)
