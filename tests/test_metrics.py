"""specgan.evaluation.metrics and .fidelity: known answers."""

import math

import pytest
import scipy.linalg
import scipy.stats
import torch

from specgan.audio import resample
from specgan.evaluation import fidelity, metrics
from specgan.evaluation.asked import against_asked
from specgan.spectrogram import LevelRange, Spectrogram, SpectrogramParams, normalise


def normal(n: int, n_features: int = 4, *, seed: int = 0, scale: float = 1.0, mean: float = 0.0) -> torch.Tensor:
    return mean + scale * torch.randn(n, n_features, generator=torch.Generator().manual_seed(seed))


# --- levels


def test_silent_and_clipped_go_by_the_peak_of_each_sound():
    peaks = torch.tensor([0.0, 9e-4, 1.1e-3, 1.0, 1.01])
    waveforms = torch.zeros(5, 100)
    waveforms[:, 40] = -peaks  # either sign counts
    assert metrics.silent(waveforms).tolist() == [True, True, False, False, False]
    assert metrics.clipped(waveforms).tolist() == [False, False, False, False, True]


# --- distances


def test_frechet_distance_of_known_gaussians():
    """|m1 - m2|^2 + the sum of (s1 - s2)^2 for independent features."""
    scales = torch.tensor([1.0, 2.0, 0.5, 1.0])
    features = normal(40_000) * scales + torch.tensor([0.0, 3.0, 0.0, 0.0])
    distance = metrics.frechet_distance(features, normal(40_000, seed=1))
    assert distance == pytest.approx(9 + 0 + 1 + 0.25, rel=0.03)


def test_frechet_distance_of_a_set_to_itself_and_to_itself_moved():
    features = normal(200, 8) @ normal(8, 8, seed=1)  # features that depend on each other
    shift = torch.arange(8.0) / 4
    assert metrics.frechet_distance(features, features) == pytest.approx(0, abs=1e-4)
    moved = metrics.frechet_distance(features + shift, features)
    assert moved == pytest.approx(shift.square().sum().item(), rel=1e-4)
    assert metrics.frechet_distance(features, features + shift) == pytest.approx(moved, rel=1e-6)


@pytest.mark.parametrize("n", [50, 6])  # 6 sounds of 8 features: covariances without full rank
def test_frechet_distance_equals_scipys_square_root_of_a_matrix(n):
    features, reference = (normal(n, 8, seed=s, scale=1 + s, mean=s) @ normal(8, 8, seed=9) for s in (0, 1))
    a, b = features.double().numpy(), reference.double().numpy()
    first, second = ((x - x.mean(axis=0)).T @ (x - x.mean(axis=0)) / (n - 1) for x in (a, b))
    # sqrtm of the symmetric form, which singular matrices do not harm
    root = scipy.linalg.sqrtm(first + 1e-12 * torch.eye(8).numpy())
    middle = scipy.linalg.sqrtm(root @ second @ root + 1e-12 * torch.eye(8).numpy()).real
    expected = ((a.mean(axis=0) - b.mean(axis=0)) ** 2).sum() + (first + second - 2 * middle).trace()
    assert metrics.frechet_distance(features, reference) == pytest.approx(expected, rel=1e-3)


def test_kernel_distance_is_about_0_for_the_same_distribution_and_grows_with_a_shift():
    same, near, far = (
        [metrics.kernel_distance(normal(150, seed=i, mean=mean), normal(150, seed=9), seed=0) for i in range(5)]
        for mean in (0, 0.5, 1)
    )
    assert min(same) < 0 < max(same)  # unbiased
    assert max(abs(value) for value in same) < min(near) / 3
    assert max(near) < min(far) / 2


def test_kernel_distance_of_two_points_by_hand():
    """Unbiased estimate with k(x, y) = (x y / d + 1)^3: mean k within each set less twice that across."""
    features, reference = torch.tensor([[1.0, 1.0], [1.0, -1.0]]), torch.tensor([[2.0, 0.0], [0.0, 2.0]])
    # within: (0 + 1)^3 = 1 in both; across: (2 / 2 + 1)^3 = 8 three times, and (-2 / 2 + 1)^3 = 0
    assert metrics.kernel_distance(features, reference, seed=0) == pytest.approx(1 + 1 - 2 * (3 * 8 + 0) / 4)


def test_kernel_distance_depends_on_its_seed_alone():
    features, reference = normal(300), normal(300, seed=1)  # more than a subset, so that chance chooses
    torch.manual_seed(5)
    state = torch.get_rng_state()
    one, other = (metrics.kernel_distance(features, reference, seed=seed) for seed in (3, 4))
    assert torch.get_rng_state().equal(state)
    torch.manual_seed(6)
    assert metrics.kernel_distance(features, reference, seed=3) == one
    assert one != other


@pytest.mark.parametrize(
    ("logits", "score"),
    [
        (50 * torch.eye(3).repeat(4, 1), 3),  # certain, and each class as often
        (torch.zeros(12, 3), 1),  # no idea
        (50 * torch.eye(3)[:1].repeat(12, 1), 1),  # certain, and always the same
        (50 * torch.eye(3)[[0, 1]].repeat(6, 1), 2),  # one of three classes never comes up
    ],
)
def test_inception_score_of_known_logits(logits, score):
    torch.manual_seed(5)
    state = torch.get_rng_state()
    assert metrics.inception_score(logits) == pytest.approx(score, rel=1e-4)
    assert torch.get_rng_state().equal(state)


# --- precision, recall, density, coverage


def of(features: torch.Tensor, reference: torch.Tensor, **settings) -> tuple[float, float, float, float]:
    return metrics.precision_recall_density_coverage(features, reference, **settings)


def test_a_set_against_itself_has_all_and_one_far_away_nothing():
    points = normal(60)
    precision, recall, _, coverage = of(points, points)
    assert (precision, recall, coverage) == (1, 1, 1)
    assert of(points + 100, points) == (0, 0, 0, 0)


def test_four_points_on_a_line_by_hand():
    """The nearest neighbour of each reference point is 1 away, of the sounds 2, 2, 95 and 95."""
    reference = torch.tensor([[0.0], [1.0], [10.0], [11.0]])
    sounds = torch.tensor([[0.5], [2.5], [100.0], [195.0]])
    precision, recall, density, coverage = of(sounds, reference, n_neighbors=1)
    assert precision == 1 / 4  # 0.5 alone lies within 1 of a reference point
    assert recall == 1  # 100 lies within 97.5 of all of them
    assert density == 2 / 4  # 0.5 lies within 1 of two
    assert coverage == 2 / 4  # 0 and 1 have 0.5 beside them


def test_a_generator_of_one_of_two_modes_is_precise_but_recalls_half():
    one, other = normal(100), normal(100, seed=1, mean=50)
    precision, recall, density, coverage = of(normal(200, seed=2), torch.cat([one, other]))
    assert precision > 0.9
    assert density > 0.7
    assert 0.4 < recall < 0.51
    assert 0.4 < coverage < 0.51


def test_a_generator_that_adds_a_mode_recalls_all_but_half_is_not_precise():
    one, other = normal(100), normal(100, seed=1, mean=50)
    precision, recall, *_ = of(torch.cat([one, other]), normal(200, seed=2))
    assert 0.4 < precision < 0.51
    assert recall > 0.9


@pytest.mark.parametrize("n_neighbors", [2, 5])
def test_coverage_and_density_of_the_same_distribution_are_what_theory_says(n_neighbors):
    features, reference = normal(1000, 8), normal(1000, 8, seed=1)
    _, _, density, coverage = of(features, reference, n_neighbors=n_neighbors)
    assert coverage == pytest.approx(1 - 2**-n_neighbors, abs=0.03)
    assert density == pytest.approx(1, abs=0.05)


def test_a_set_that_is_too_small_is_named_with_its_size():
    with pytest.raises(ValueError, match=r"a set has 5 sounds; .* need more than n_neighbors=5"):
        of(normal(5), normal(100))
    with pytest.raises(ValueError, match="a set has 3 sounds"):
        of(normal(100), normal(3))
    assert all(math.isfinite(value) for value in of(normal(6), normal(6, seed=1)))


# --- distances in a class and to the nearest


def test_mean_distance_in_class_by_hand():
    features = torch.tensor([[0.0, 0.0], [9.0, 9.0], [3.0, 4.0], [9.0, 8.0], [7.0, 7.0], [6.0, 8.0]])
    # class 0: (0, 0), (3, 4), (6, 8) with distances 5, 5 and 10; class 1: two sounds, 1 apart; class 2: one sound
    labels = torch.tensor([0, 1, 0, 1, 2, 0])
    assert metrics.mean_distance_in_class(features, labels) == pytest.approx((20 / 3 + 1) / 2)
    assert metrics.mean_distance_in_class(torch.ones(4, 2), torch.tensor([0, 0, 1, 1])) == 0


def test_no_class_with_two_sounds_has_no_distance_in_it():
    assert math.isnan(metrics.mean_distance_in_class(normal(3), torch.tensor([0, 1, 2])))


def test_nearest_names_the_nearest_of_many():
    reference = normal(40)
    chosen = torch.randint(40, (600,), generator=torch.Generator().manual_seed(2))  # several batches
    distances, indices = metrics.nearest(reference[chosen] + torch.tensor([0.0, 0.003, 0.0, 0.004]), reference)
    assert indices.equal(chosen)
    torch.testing.assert_close(distances, torch.full((600,), 0.005), rtol=0, atol=2e-3)


# --- intervals


@pytest.mark.parametrize(
    ("n_hits", "n", "low", "high"),
    [
        (8, 10, 0.4902, 0.9433),
        (0, 10, 0.0, 0.2775),
        (10, 10, 0.7225, 1.0),
        (50, 100, 0.4038, 0.5962),
        (0, 1, 0, 0.7935),
    ],
)
def test_share_interval_is_wilsons(n_hits, n, low, high):
    assert metrics.share_interval(n_hits, n) == (pytest.approx(low, abs=1e-4), pytest.approx(high, abs=1e-4))


def test_a_share_interval_holds_the_share():
    for n in (1, 2, 7, 8, 24, 50, 333):
        for n_hits in range(n + 1):
            low, high = metrics.share_interval(n_hits, n)
            assert 0 <= low <= n_hits / n <= high <= 1, (n_hits, n)


def test_a_share_interval_is_wider_the_surer_it_must_be():
    low, high = metrics.share_interval(30, 100, confidence=0.99)
    assert low < metrics.share_interval(30, 100)[0] < 0.3 < metrics.share_interval(30, 100)[1] < high


def mean_interval(values: torch.Tensor, *, seed: int = 0, **settings) -> tuple[float, float]:
    """The interval of the mean, which has a known error: its standard deviation over sqrt(n)."""

    def figures(index: torch.Tensor) -> list[float]:
        return [values[index].mean().item()]

    return metrics.subset_interval(figures, figures(torch.arange(len(values))), len(values), seed=seed, **settings)[0]


def test_subset_interval_holds_the_true_mean_as_often_as_it_says():
    intervals = [mean_interval(normal(200, 1, seed=100 + i), seed=i) for i in range(200)]
    share = sum(low <= 0 <= high for low, high in intervals) / 200
    assert 0.85 <= share <= 0.995  # 0.95 was asked for; the spread of ten subsets is itself rough
    widths = torch.tensor([high - low for low, high in intervals])
    assert widths.mean().item() == pytest.approx(2 * 1.96 / math.sqrt(200), rel=0.15)


def test_subset_interval_is_wider_for_fewer_sounds_and_for_more_confidence():
    def width(n: int, **settings) -> float:
        intervals = [mean_interval(normal(n, 1, seed=i), seed=i, **settings) for i in range(20)]
        return sum(high - low for low, high in intervals) / 20

    assert width(20) > 2 * width(200) > 4 * width(2000)
    # Student, 9 degrees of freedom
    assert width(200, confidence=0.99) == pytest.approx(width(200) * 3.250 / 2.262, rel=1e-3)


def test_subset_interval_lies_about_each_value_and_is_seeded():
    values = normal(50, 1)

    def figures(index: torch.Tensor) -> list[float]:
        assert len(index) == len(set(index.tolist())) == 40  # without repetition: no sound twice
        return [values[index].mean().item(), 7.0]

    state = torch.get_rng_state()
    first, constant = metrics.subset_interval(figures, [0.25, 7.0], 50, seed=1)
    assert torch.get_rng_state().equal(state)
    assert sum(first) / 2 == pytest.approx(0.25)
    assert first[0] < first[1]
    assert constant == (7.0, 7.0)
    assert metrics.subset_interval(figures, [0.25, 7.0], 50, seed=1)[0] == first
    assert metrics.subset_interval(figures, [0.25, 7.0], 50, seed=2)[0] != first


def test_frechet_distance_of_one_sound_is_not_known():
    one, two = torch.randn(1, 4), torch.randn(2, 4)
    assert math.isnan(metrics.frechet_distance(one, two))
    assert math.isnan(metrics.frechet_distance(two, one))
    assert metrics.frechet_distance(two, two) == pytest.approx(0, abs=1e-6)


# --- what is lost against a recording

RATE = 44100


def hits(n: int = 3) -> torch.Tensor:
    """Noise that decays from 0.1 s on, over silence."""
    t = torch.arange(RATE // 2) / RATE
    generator = torch.Generator().manual_seed(0)
    return 0.3 * torch.randn(n, len(t), generator=generator) * torch.where(t < 0.1, 0, torch.exp(-(t - 0.1) / 0.05))


def test_a_gain_is_as_many_decibels_of_loss_and_silence_has_none():
    sounds = torch.cat([hits(), torch.zeros(1, RATE // 2)])
    for gain_db in (0.0, -6.0):
        others = sounds * 10 ** (gain_db / 20)
        distance = fidelity.log_spectral_distance(sounds, others)
        attack = fidelity.attack_error(sounds, others, sample_rate=RATE)
        assert distance[:3].tolist() == pytest.approx([-gain_db] * 3, abs=0.6)  # frames that fade reach the floor
        assert attack[:3].tolist() == pytest.approx([-gain_db] * 3, abs=0.1)
        assert distance[3].isnan() and attack[3].isnan()
        found = fidelity.losses(sounds, others, sample_rate=RATE)
        assert {name: figure["n"] for name, figure in found.items()} == dict.fromkeys(found, 3)
        assert found["attack_error_db"]["value"] == pytest.approx(float(attack[:3].mean()))
    assert fidelity.losses(sounds[3:], sounds[3:], sample_rate=RATE) == {}


def test_what_a_spectrogram_asks_for_is_missed_by_nothing_in_its_own_sound_and_by_6_db_in_half_of_it():
    params, level_range = SpectrogramParams(sample_rate=RATE, n_frames=None), LevelRange(-80.0, 0.0)
    noise = 0.3 * torch.randn(2, 40 * params.hop_length, generator=torch.Generator().manual_seed(0))
    asked = normalise(Spectrogram(params)(noise), params, level_range).unsqueeze(1)
    own, half = (against_asked(factor * noise, asked, params, level_range) for factor in (1, 0.5))
    assert max(float(errors.max()) for errors in own.values()) < 0.01
    assert half["spectrogram_error"].tolist() == pytest.approx([0.5, 0.5], abs=0.01)
    for name in ("spectrogram_error_db", "envelope_error_db"):
        assert half[name].tolist() == pytest.approx([6.02, 6.02], abs=0.05)


def test_the_onset_is_where_a_sound_comes_within_20_db_of_its_loudest():
    sound = torch.cat(
        [torch.full((1, 3000), 1e-3), torch.randn(1, 5000, generator=torch.Generator().manual_seed(0))], 1
    )
    assert int(fidelity.onsets(sound, sample_rate=RATE)) == pytest.approx(3000, abs=0.001 * RATE)


def test_a_band_that_is_missing_is_a_loss_of_band_and_hardly_one_of_attack():
    sounds = hits()
    cut = resample(resample(sounds, RATE, 16000), 16000, RATE)[:, : sounds.shape[1]]
    distance = fidelity.log_spectral_distance(sounds, cut)
    assert (distance > 20).all()  # from about -50 dB down to the floor, in two thirds of the bins
    half = torch.cat([sounds[:, : RATE // 5], cut[:, RATE // 5 :]], dim=1)
    assert (fidelity.log_spectral_distance(sounds, half) < distance).all()
    assert (fidelity.attack_error(sounds, cut, sample_rate=RATE) < distance / 3).all()


def test_attack_is_lost_by_blur_not_by_phase_nor_by_what_comes_later():
    t = torch.arange(RATE // 2) / RATE
    envelope = torch.where(t < 0.1, 0, torch.exp(-(t - 0.1) / 0.05))
    tone, other_phase = (envelope * torch.sin(2 * math.pi * 200 * t + phase) for phase in (0, 1.5))

    def error(other):
        return float(fidelity.attack_error(tone.unsqueeze(0), other.unsqueeze(0), sample_rate=RATE))

    blurred = torch.where(t < 0.1, 0, torch.clamp((t - 0.1) / 0.02, max=1)) * tone
    later = torch.where(t > 0.2, 0, tone)
    assert error(later) < 0.1
    assert error(other_phase) < 2 < 4 < error(blurred)


def test_the_interval_of_an_average_is_students():
    values = normal(20)[:, 0]
    figure = metrics.average(values)
    expected = scipy.stats.t.interval(0.95, 19, loc=float(values.mean()), scale=float(values.std() / 20**0.5))
    assert (figure["low"], figure["high"]) == pytest.approx(expected, rel=1e-5)
    assert metrics.average(values[:1]) == {"value": values[0], "low": values[0], "high": values[0], "n": 1}
