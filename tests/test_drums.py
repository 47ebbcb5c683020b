"""The built-in drums: repeatable, varied, true to their class, and written so that a second run has nothing to do."""

import itertools
import json

import librosa
import numpy as np
import pytest
import soundfile
import torch
from folders import contents
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from specgan.data import drums
from specgan.data.drums import CLASSES, drum, write_drums

SAMPLE_RATE = 44100
N_SOUNDS = 40


@pytest.fixture(scope="module")
def sounds() -> dict[str, list[np.ndarray]]:
    return {name: [drum(name, seed=seed).numpy() for seed in range(N_SOUNDS)] for name in CLASSES}


def energy_share(sound: np.ndarray, low: float, high: float) -> float:
    """Share of the energy between `low` and `high` Hz."""
    power, frequency = np.abs(np.fft.rfft(sound)) ** 2, np.fft.rfftfreq(sound.size, 1 / SAMPLE_RATE)
    return power[(frequency >= low) & (frequency < high)].sum() / power.sum()


def centroid(sound: np.ndarray) -> float:
    power, frequency = np.abs(np.fft.rfft(sound)) ** 2, np.fft.rfftfreq(sound.size, 1 / SAMPLE_RATE)
    return (power * frequency).sum() / power.sum()


def decay_s(sound: np.ndarray) -> float:
    """Seconds until 99.9 % of the energy has passed."""
    energy = np.cumsum(sound.astype(np.float64) ** 2)
    return np.searchsorted(energy, 0.999 * energy[-1]) / SAMPLE_RATE


def strongest_partials(sound: np.ndarray, n: int) -> list[float]:
    """Hz of the n strongest partials, at least 12 % apart."""
    spectrum = np.abs(np.fft.rfft(sound * np.hanning(2 * sound.size)[sound.size :], 1 << 17))
    frequency = np.fft.rfftfreq(1 << 17, 1 / SAMPLE_RATE)
    partials = []
    for _ in range(n):
        partials.append(frequency[spectrum.argmax()])
        spectrum[np.abs(frequency / partials[-1] - 1) < 0.12] = 0
    return partials


def tone(sound: np.ndarray) -> float:
    """Hz of the strongest partial once the hit and its sweep are over."""
    return strongest_partials(sound[sound.size // 3 :], 1)[0]


def deepest_gap(sound: np.ndarray) -> float:
    """Softest millisecond of the first 40 over the loudest after it."""
    level = np.array([np.abs(ms).max() for ms in np.array_split(sound[: SAMPLE_RATE // 25], 40)])
    return min(level[i] / level[i:].max() for i in range(35))


# One sound


@pytest.mark.parametrize("name", CLASSES)
def test_same_seed_same_samples_and_other_seed_other_samples(name):
    first = drum(name, seed=3)
    assert torch.equal(first, drum(name, seed=3))
    other = drum(name, seed=4)
    assert first.shape != other.shape or not torch.equal(first, other)


@pytest.mark.parametrize("sample_rate", [8000, 16000, 44100, 48000])
@pytest.mark.parametrize("name", CLASSES)
def test_level_start_end_and_dc_at_any_rate(name, sample_rate):
    for seed in range(5):
        sound = drum(name, seed=seed, sample_rate=sample_rate)
        assert sound.dtype == torch.float32 and sound.ndim == 1
        assert torch.isfinite(sound).all()
        assert 0.04 < sound.numel() / sample_rate <= 1.0
        peak = sound.abs().max().item()
        assert 0.5 <= peak <= 0.9 + 1e-6
        assert sound[: sample_rate // 100].abs().max() > 0.3 * peak, "the hit comes within 10 ms"
        assert sound[-1].abs() < 1e-6
        assert sound[-sample_rate // 500 :].abs().max() < 1e-3, "silent in the last 2 ms"
        assert sound.mean().abs() < 1e-3


def test_the_global_random_state_plays_no_part():
    np.random.seed(0)
    torch.manual_seed(0)
    first = drum("snare", seed=1)
    state = torch.get_rng_state()
    np.random.seed(1)
    torch.manual_seed(1)
    assert torch.equal(first, drum("snare", seed=1))
    torch.manual_seed(0)
    assert torch.equal(state, torch.get_rng_state())


def test_unknown_name_lists_the_classes():
    with pytest.raises(ValueError, match=r"'gong'.*kick, snare, closed_hat, open_hat, clap, tom, cowbell"):
        drum("gong", seed=0)


@pytest.mark.parametrize("settings", [{"seed": -1}, {"seed": 0, "sample_rate": 4000}])
def test_impossible_settings_of_a_sound(settings):
    argument, value = list(settings.items())[-1]
    with pytest.raises(ValueError, match=f"{argument}={value}.*use"):
        drum("kick", **settings)


# Variety


@pytest.mark.parametrize("name", CLASSES)
def test_sounds_of_a_class_differ_in_decay_colour_and_waveform(sounds, name):
    short, long = np.quantile([decay_s(s) for s in sounds[name]], [0.1, 0.9])
    assert long > 1.5 * short
    dark, bright = np.quantile([centroid(s) for s in sounds[name]], [0.1, 0.9])
    assert bright > 1.15 * dark
    padded = np.stack([np.pad(s, (0, SAMPLE_RATE - s.size)) for s in sounds[name]])
    padded /= np.linalg.norm(padded, axis=1, keepdims=True)
    correlation = np.abs(padded @ padded.T)[np.triu_indices(N_SOUNDS, k=1)]
    assert np.median(correlation) < 0.5
    assert correlation.max() < 0.98, "two sounds are all but the same"


# Classes


def test_a_kick_is_low(sounds):
    assert np.median([energy_share(s, 0, 200) for s in sounds["kick"]]) > 0.9
    assert min(energy_share(s, 0, 200) for s in sounds["kick"]) > 0.5


def test_toms_ring_higher_and_longer_than_kicks_and_come_in_sizes(sounds):
    kicks, toms = ([tone(s) for s in sounds[name]] for name in ("kick", "tom"))
    assert max(kicks) < 75
    assert min(toms) > 100
    assert max(toms) > 2 * min(toms)
    assert np.median([decay_s(s) for s in sounds["tom"]]) > 1.25 * np.median([decay_s(s) for s in sounds["kick"]])


def test_hats_are_high_and_only_the_open_one_rings(sounds):
    for name in ("closed_hat", "open_hat"):
        assert min(energy_share(s, 3000, SAMPLE_RATE / 2) for s in sounds[name]) > 0.85
    assert max(s.size for s in sounds["closed_hat"]) <= 0.15 * SAMPLE_RATE
    assert min(s.size for s in sounds["open_hat"]) >= 0.3 * SAMPLE_RATE
    assert np.median([decay_s(s) for s in sounds["open_hat"]]) > 3 * np.median(
        [decay_s(s) for s in sounds["closed_hat"]]
    )


def test_a_snare_has_skin_and_wires(sounds):
    assert np.median([energy_share(s, 120, 500) for s in sounds["snare"]]) > 0.2
    assert np.median([energy_share(s, 1000, SAMPLE_RATE / 2) for s in sounds["snare"]]) > 0.3


def test_a_clap_is_several_bursts_of_mid_noise(sounds):
    assert min(energy_share(s, 400, 5000) for s in sounds["clap"]) > 0.85
    # the hands part between two bursts: the level falls far and comes back, which that of a snare does not
    assert max(deepest_gap(s) for s in sounds["clap"]) < 0.2
    assert min(deepest_gap(s) for s in sounds["snare"]) > 0.25


def test_the_two_strongest_partials_of_a_cowbell_are_its_pair(sounds):
    for sound in sounds["cowbell"]:
        low, high = sorted(strongest_partials(sound, 2))
        assert 380 < low < 760
        assert 1.40 < high / low < 1.56


def test_a_simple_classifier_tells_the_classes_apart(sounds):
    def features(sound):
        mel = librosa.feature.melspectrogram(y=sound, sr=SAMPLE_RATE, n_fft=1024, hop_length=256, n_mels=32)
        return [*np.log(mel.mean(axis=1) + 1e-6), np.log(decay_s(sound))]

    def table(part):
        rows = [(features(sound), name) for name in CLASSES for sound in sounds[name][part]]
        return [row[0] for row in rows], [row[1] for row in rows]

    classifier = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))
    classifier.fit(*table(slice(0, N_SOUNDS // 2)))
    assert classifier.score(*table(slice(N_SOUNDS // 2, None))) > 0.95


# The folder


def times(folder) -> dict:
    return {p: p.stat().st_mtime_ns for p in folder.rglob("*")}


def test_write_drums_writes_every_class_and_the_marker(tmp_path):
    assert write_drums(tmp_path / "drums", n_per_class=3, seed=5, sample_rate=16000) == tmp_path / "drums"
    expected = {f"{name}/{name}_{i:04d}.wav" for name, i in itertools.product(CLASSES, range(3))}
    assert set(contents(tmp_path / "drums")) == expected | {"drums.json"}
    settings = json.loads((tmp_path / "drums" / "drums.json").read_text())
    assert settings == {"version": drums.SYNTHESIS_VERSION, "n_per_class": 3, "seed": 5, "sample_rate": 16000}
    for path in expected:
        samples, sample_rate = soundfile.read(tmp_path / "drums" / path)
        assert sample_rate == 16000 and samples.ndim == 1
        assert 0.49 < np.abs(samples).max() < 0.91


def test_a_second_run_writes_nothing(tmp_path):
    write_drums(tmp_path, n_per_class=2)
    before = times(tmp_path)
    write_drums(tmp_path, n_per_class=2)
    assert times(tmp_path) == before


def test_sounds_depend_on_seed_class_and_number_alone(tmp_path):
    small, large, other = (
        contents(write_drums(tmp_path / folder, n_per_class=n, seed=seed))
        for folder, n, seed in [("small", 2, 0), ("large", 4, 0), ("other", 4, 1)]
    )
    assert all(large[path] == data for path, data in small.items() if path.endswith(".wav"))
    wavs = [data for files in (large, other) for path, data in files.items() if path.endswith(".wav")]
    assert len(set(wavs)) == len(wavs) == 2 * 4 * len(CLASSES)


def test_a_killed_run_is_completed_by_the_next(tmp_path, monkeypatch):
    whole = contents(write_drums(tmp_path / "whole", n_per_class=2))
    save_wav, n_saved = drums.save_wav, itertools.count()

    def killed_at_the_sixth(*args, **kwargs):
        if next(n_saved) == 5:
            raise KeyboardInterrupt
        save_wav(*args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(drums, "save_wav", killed_at_the_sixth)
        with pytest.raises(KeyboardInterrupt):
            write_drums(tmp_path / "killed", n_per_class=2)
    assert json.loads((tmp_path / "killed" / "drums.json").read_text()) == {}  # not finished
    assert contents(write_drums(tmp_path / "killed", n_per_class=2)) == whole


def test_a_rewrite_that_is_killed_leaves_no_settings_of_the_earlier_set(tmp_path, monkeypatch):
    write_drums(tmp_path, n_per_class=2)

    def killed(*args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr(drums, "save_wav", killed)
    with pytest.raises(KeyboardInterrupt):
        write_drums(tmp_path, n_per_class=3)
    assert json.loads((tmp_path / "drums.json").read_text()) == {}


@pytest.mark.parametrize("change", [{"n_per_class": 1}, {"seed": 9}, {"sample_rate": 16000}, {"version": 0}])
def test_changed_settings_make_the_set_anew_and_leave_foreign_files(tmp_path, monkeypatch, change):
    write_drums(tmp_path / "changed", n_per_class=2)
    foreign = {"kick/my_kick.wav": b"mine", "kick/kick_0000.txt": b"notes", "gong/gong_0000.wav": b"gong"}
    for path, data in foreign.items():
        (tmp_path / "changed" / path).parent.mkdir(exist_ok=True)
        (tmp_path / "changed" / path).write_bytes(data)
    if "version" in change:
        monkeypatch.setattr(drums, "SYNTHESIS_VERSION", drums.SYNTHESIS_VERSION + 1)
        change = {}
    settings = {"n_per_class": 2} | change
    expected = contents(write_drums(tmp_path / "fresh", **settings))
    assert contents(write_drums(tmp_path / "changed", **settings)) == expected | foreign


@pytest.mark.parametrize("path", ["clips/kick/mine.wav", "clips/notes.txt", "clips"])
def test_the_drums_are_not_mixed_into_other_files(tmp_path, path):
    file = tmp_path / path
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(b"mine")
    with pytest.raises(ValueError, match=f"{tmp_path}/clips: holds something else.*data=folder data.audio_dir="):
        write_drums(tmp_path / "clips", n_per_class=1)
    assert [found for found in tmp_path.rglob("*") if found.is_file()] == [file]


@pytest.mark.parametrize("settings", [{"n_per_class": 0}, {"seed": -2}, {"sample_rate": 7999}])
def test_impossible_settings_of_a_set_write_nothing(tmp_path, settings):
    ((argument, value),) = settings.items()
    with pytest.raises(ValueError, match=f"{argument}={value}.*use"):
        write_drums(tmp_path / "drums", **settings)
    assert not (tmp_path / "drums").exists()
