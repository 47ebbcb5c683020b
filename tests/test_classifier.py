"""specgan.models.classifier: what the judge hears, how it learns, and that it judges each sound by itself."""

import math

import pytest
import torch

from specgan.data.drums import drum
from specgan.evaluation.fitting import fit_classifier
from specgan.models.classifier import FLOOR_DB, MOST_FRAMES, Classifier, analysis_params
from specgan.spectrogram import mel_filters

NAMES = ("clap", "kick", "open_hat")


def make_judge(*, sample_rate: int = 16000, n_samples: int = 16384, **settings) -> Classifier:
    torch.manual_seed(0)
    return Classifier(
        sample_rate=sample_rate, n_samples=n_samples, class_names=NAMES, **{"width": 8, "n_features": 16, **settings}
    )


def drums(seeds, *, n_samples: int = 16384) -> tuple[torch.Tensor, torch.Tensor]:
    """Waveforms (N, n_samples) and labels (N,) of drums with these seeds."""
    sounds = [drum(name, seed=seed, sample_rate=16000)[:n_samples] for name in NAMES for seed in seeds]
    waveforms = torch.stack([torch.nn.functional.pad(sound, (0, n_samples - len(sound))) for sound in sounds])
    return waveforms, torch.arange(len(NAMES)).repeat_interleave(len(seeds))


def tone(frequency: float, *, sample_rate: int, n_samples: int, peak: float = 1.0) -> torch.Tensor:
    return peak * torch.sin(2 * math.pi * frequency / sample_rate * torch.arange(n_samples)).unsqueeze(0)


def learn(judge: Classifier, waveforms: torch.Tensor, labels: torch.Tensor, *, n_steps: int) -> list[float]:
    """As Lightning would train it, on one batch."""
    judge.log = lambda *_, **__: None
    optimizer = judge.configure_optimizers()
    levels = judge.analyse_all(waveforms)
    judge.train()
    losses = []
    for step in range(n_steps):
        loss = judge.training_step((levels, labels), step)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


@pytest.fixture(scope="module")
def trained() -> tuple[Classifier, list[float]]:
    """A judge that has seen six drums of each class, and its losses."""
    judge = make_judge(n_steps=40)
    return judge, learn(judge, *drums(range(6)), n_steps=40)


# --- the analysis


@pytest.mark.parametrize("duration_s", [0.1, 1.0, 6.0, 30.0])
@pytest.mark.parametrize("sample_rate", [8000, 11025, 16000, 22050, 24000, 44100, 48000, 96000])
def test_the_analysis_fits_every_rate_and_length(sample_rate, duration_s):
    n_samples = round(duration_s * sample_rate)
    params = analysis_params(sample_rate, n_samples)  # would refuse an empty band
    assert params.sample_rate == sample_rate
    assert mel_filters(params).shape[0] == 64
    assert mel_filters(params).amax(dim=1).gt(0).all()
    assert n_samples / params.hop_length <= MOST_FRAMES
    assert params.hop_length >= round(0.01 * sample_rate)  # and no finer than speech is analysed
    assert params.win_length >= params.hop_length  # nothing is skipped
    judge = make_judge(sample_rate=sample_rate, n_samples=n_samples)
    features, logits = judge.judge(0.1 * torch.randn(3, n_samples))
    assert (features.shape, logits.shape) == ((3, 16), (3, 3))
    assert features.isfinite().all()


def test_short_sounds_are_analysed_every_10_ms_in_windows_of_25_ms():
    params = analysis_params(16000, 16000)
    assert (params.hop_length, params.win_length, params.n_mels) == (160, 400, 64)


@pytest.mark.parametrize("sample_rate", [8000, 16000, 44100])
def test_silence_is_heard_as_0_and_a_tone_at_full_scale_as_about_1(sample_rate):
    judge = make_judge(sample_rate=sample_rate, n_samples=sample_rate)
    assert judge.analyse(torch.zeros(1, sample_rate)).eq(0).all()
    full = judge.analyse(tone(1000, sample_rate=sample_rate, n_samples=sample_rate))
    assert full.shape[:3] == (1, 1, 64)
    assert full.max().item() == pytest.approx(1, abs=0.1)
    assert full.min() >= 0
    softer = judge.analyse(tone(1000, sample_rate=sample_rate, n_samples=sample_rate, peak=0.1))
    assert (full.max() - softer.max()).item() == pytest.approx(20 / -FLOOR_DB, abs=0.01)  # 20 dB


def test_the_analysis_puts_a_higher_tone_in_a_higher_band():
    judge = make_judge()
    bands = [
        judge.analyse(tone(hertz, sample_rate=16000, n_samples=16384))[0, 0].mean(dim=1).argmax().item()
        for hertz in (200, 800, 3000, 7000)
    ]
    assert bands == sorted(set(bands))


# --- judging


def test_a_sound_is_judged_the_same_whatever_stands_beside_it(trained):
    judge, _ = trained
    waveforms, _ = drums(range(3))
    features, logits = judge.judge(waveforms)
    for batch_size in (1, 2, 5):
        some_features, some_logits = judge.judge(waveforms, batch_size=batch_size)
        torch.testing.assert_close(some_features, features, rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(some_logits, logits, rtol=1e-4, atol=1e-4)
    alone, _ = judge.judge(waveforms[4:5])
    torch.testing.assert_close(alone, features[4:5], rtol=1e-4, atol=1e-4)
    assert torch.pdist(features).min() > 0.01  # and each sound in its own way


def test_judging_is_not_training():
    """No dropout, no augmentation, no new statistics, though the network was left in training."""
    judge = make_judge(dropout=0.5).train()
    before = {name: value.clone() for name, value in judge.state_dict().items()}
    waveforms, _ = drums(range(2))
    first, second = judge.judge(waveforms), judge.judge(waveforms)
    assert first[0].equal(second[0]) and first[1].equal(second[1])
    torch.testing.assert_close(judge.eval()(waveforms), first[1], rtol=1e-4, atol=1e-4)
    assert not first[0].requires_grad
    assert all(value.equal(before[name]) for name, value in judge.state_dict().items())


def test_a_state_brings_the_same_judge_back():
    judge = make_judge()
    waveforms, _ = drums(range(2))
    judge.train()(waveforms)  # statistics that are not the initial ones
    again = make_judge()
    torch.manual_seed(5)
    torch.nn.init.normal_(again.embedding[0].weight)
    assert not again.judge(waveforms)[0].equal(judge.judge(waveforms)[0])
    again.load_state_dict(judge.state_dict())
    for here, there in zip(again.judge(waveforms), judge.judge(waveforms), strict=True):
        assert here.equal(there)


# --- augmentation


def test_augmentation_keeps_shape_and_floor_and_changes_what_is_heard():
    judge = make_judge()
    heard = judge.analyse(drums(range(4))[0])
    augmented = judge._augment(heard)
    assert augmented.shape == heard.shape
    assert augmented.dtype == heard.dtype
    assert augmented.min() >= 0
    assert all((one - other).abs().max() > 0.01 for one, other in zip(augmented, heard, strict=True))


def test_augmentation_leaves_silence_silent():
    judge = make_judge(gain_db=30)
    assert judge._augment(torch.zeros(8, 1, 64, 100)).eq(0).all()
    sound = torch.zeros(200, 1, 64, 100)
    sound[:, :, 10:50, 20:80] = 0.5
    augmented = judge._augment(sound).squeeze(1)
    assert augmented[:, :10].eq(0).all() and augmented[:, 50:].eq(0).all()  # no band is moved
    assert augmented[:, :, :15].eq(0).all() and augmented[:, :, 85:].eq(0).all()  # 5 % of the length is 5 frames
    assert augmented[:, :, 15:20].gt(0).any() and augmented[:, :, 80:85].gt(0).any()


def test_augmentation_is_drawn_for_each_item():
    augmented = make_judge()._augment(torch.full((30, 1, 64, 100), 0.5)).squeeze(1)
    gains = augmented.amax(dim=(1, 2))
    assert len(set(gains.tolist())) == 30
    assert gains.min() < 0.5 < gains.max()
    assert (gains - 0.5).abs().max() <= 6 / 80 + 1e-6
    hidden_bands = {tuple(item.amax(dim=1).eq(0).nonzero().flatten().tolist()) for item in augmented}
    hidden_frames = {tuple(item.amax(dim=0).eq(0).nonzero().flatten().tolist()) for item in augmented}
    assert len(hidden_bands) > 15 and len(hidden_frames) > 15
    assert max(len(bands) for bands in hidden_bands) <= 64 // 8
    assert max(len(frames) for frames in hidden_frames) <= 100 // 8 + 5  # the stretch, and what the shift left empty


# --- learning


def test_it_learns_three_drums_in_dozens_of_steps(trained):
    judge, losses = trained
    assert losses[0] == pytest.approx(math.log(3), abs=0.5)
    assert sum(losses[-5:]) / 5 < losses[0] / 3
    waveforms, labels = drums(range(100, 110))  # none of them was trained on
    features, logits = judge.judge(waveforms)
    softer, _ = judge.judge(0.1 * waveforms)
    assert (features - softer).abs().amax(dim=1).min() > 0.05  # loudness is heard too
    assert (logits.argmax(dim=1) == labels).float().mean() > 0.85
    assert 0.3 < features.std() < 3  # features of one scale, whatever the data
    within = torch.stack([torch.pdist(features[labels == label]).mean() for label in range(3)]).mean()
    assert within < 0.7 * torch.pdist(features).mean()


@pytest.mark.parametrize(("has_validation", "n_steps"), [(True, 500), (False, 500), (True, 40)])
def test_it_trains_until_its_loss_is_flat_or_its_steps_are_over(monkeypatch, has_validation, n_steps):
    taken = []
    step = Classifier.training_step
    monkeypatch.setattr(Classifier, "training_step", lambda self, *args: taken.append(1) or step(self, *args))
    judge = make_judge(n_steps=n_steps, learning_rate=1e-2)
    validation = drums(range(100, 104)) if has_validation else None
    fit_classifier(judge, *drums(range(6)), seed=0, device=torch.device("cpu"), validation=validation)
    assert 100 < len(taken) <= 400 if n_steps == 500 else len(taken) == n_steps
    assert not judge.training
    waveforms, labels = drums(range(200, 210))
    assert (judge.predict(waveforms) == labels).float().mean() > 0.85
