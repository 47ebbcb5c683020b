"""specgan.captions.tempo: right where there is a beat, None where there is none."""

import numpy as np
import pytest
import torch

from specgan.captions.tempo import _slope, find_tempo
from specgan.data.drums import drum

SAMPLE_RATE = 22050


def clicks(tempo, *, duration_s=15.0, sample_rate=SAMPLE_RATE, missing=()):
    """(n_samples,): a short tone on each beat, without the beats of these numbers."""
    t = np.arange(round(0.03 * sample_rate)) / sample_rate
    click = np.sin(2 * np.pi * 1000 * t) * np.exp(-150 * t)
    waveform = np.zeros(round(duration_s * sample_rate))
    for beat in range(int((duration_s - 0.3) * tempo / 60)):
        if beat not in missing:
            start = round((0.25 + beat * 60 / tempo) * sample_rate)
            waveform[start : start + len(click)] += click
    return waveform.astype(np.float32)


def drum_track(tempo, *, duration_s=15.0, seed=0):
    """(n_samples,): kick on every beat, snare on 2 and 4, closed hat on eighths."""
    kick, snare, hat = (drum(name, seed=seed, sample_rate=SAMPLE_RATE) for name in ("kick", "snare", "closed_hat"))
    n_samples = round(duration_s * SAMPLE_RATE)
    waveform = torch.zeros(n_samples + 2 * SAMPLE_RATE)
    for eighth in range(int(duration_s * tempo / 30)):
        start = round(eighth * 30 / tempo * SAMPLE_RATE)
        for sound, level, sounds in ((hat, 0.3, True), (kick, 0.9, eighth % 2 == 0), (snare, 0.7, eighth % 4 == 2)):
            if sounds:
                waveform[start : start + len(sound)] += level * sound
    return waveform[:n_samples]


def noise(seed, *, colour, duration_s=10.0):
    """(n_samples,): power falls with frequency to the `colour`: 0 white, 1 pink, 2 brown."""
    spectrum = np.fft.rfft(np.random.default_rng(seed).standard_normal(round(duration_s * SAMPLE_RATE)))
    frequency = np.maximum(np.arange(len(spectrum)), 1)
    waveform = np.fft.irfft(spectrum * frequency ** (-colour / 2))
    return (0.5 * waveform / np.abs(waveform).max()).astype(np.float32)


def octave_error(found, tempo):
    return min(abs(found * octave / tempo - 1) for octave in (0.25, 0.5, 1, 2, 4))


@pytest.mark.parametrize("tempo", [60, 97, 120, 143.5, 200])
@pytest.mark.parametrize("track", [clicks, drum_track])
def test_a_steady_beat_is_within_a_fifth_of_a_percent(track, tempo):
    found = find_tempo(track(tempo), SAMPLE_RATE)
    assert octave_error(found, tempo) < 0.002
    assert 70 <= found < 180


def test_it_is_finer_than_the_tracker_s_own_tempo():
    import librosa

    plain, _ = librosa.beat.beat_track(y=clicks(120), sr=SAMPLE_RATE)
    assert octave_error(plain.item(), 120) > 0.01
    assert octave_error(find_tempo(clicks(120), SAMPLE_RATE), 120) < 0.001


@pytest.mark.parametrize("sample_rate", [8000, 16000, 48000])
def test_the_sample_rate_does_not_matter(sample_rate):
    assert find_tempo(clicks(110, sample_rate=sample_rate), sample_rate) == pytest.approx(110, rel=0.002)


def test_missed_beats_do_not_matter():
    assert octave_error(find_tempo(clicks(100, missing=(5, 11, 12, 18)), SAMPLE_RATE), 100) < 0.002


def test_numpy_and_torch_are_the_same():
    waveform = clicks(130)
    assert find_tempo(waveform, SAMPLE_RATE) == find_tempo(torch.from_numpy(waveform), SAMPLE_RATE)


def test_loudness_does_not_matter():
    assert find_tempo(0.01 * clicks(100), SAMPLE_RATE) == pytest.approx(find_tempo(clicks(100), SAMPLE_RATE), rel=1e-3)


@pytest.mark.parametrize(("lowest", "highest"), [(40, 80), (70, 180), (100, 200), (150, 300)])
def test_the_octave_is_folded_into_the_range(lowest, highest):
    found = find_tempo(clicks(90), SAMPLE_RATE, lowest=lowest, highest=highest)
    assert lowest <= found < highest
    assert octave_error(found, 90) < 0.002


@pytest.mark.parametrize("colour", [0, 1, 2])
@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("duration_s", [3.0, 10.0])
def test_noise_has_no_tempo(colour, seed, duration_s):
    assert find_tempo(noise(seed, colour=colour, duration_s=duration_s), SAMPLE_RATE) is None


def one_hit():
    return torch.cat([drum("tom", seed=0, sample_rate=SAMPLE_RATE), torch.zeros(3 * SAMPLE_RATE)])


@pytest.mark.parametrize(
    "waveform",
    [
        torch.zeros(10 * SAMPLE_RATE),
        torch.zeros(0),
        torch.full((5 * SAMPLE_RATE,), 0.5),
        0.5 * torch.sin(torch.arange(10 * SAMPLE_RATE) * 0.1),
        drum("open_hat", seed=0, sample_rate=SAMPLE_RATE),
        one_hit(),
        torch.from_numpy(clicks(100, duration_s=2.0)),
    ],
    ids=["silence", "nothing", "constant", "tone", "drum", "one hit", "three clicks"],
)
def test_what_has_no_beat_has_no_tempo(waveform):
    assert find_tempo(waveform, SAMPLE_RATE) is None


def test_quiet_noise_under_a_beat_does_not_hide_it():
    waveform = clicks(128) + 0.05 * noise(0, colour=1, duration_s=15.0)
    assert octave_error(find_tempo(waveform, SAMPLE_RATE), 128) < 0.005


def test_the_slope_forgives_beats_missed_and_astray():
    beats = 20.25 * np.arange(40)
    jitter = np.random.default_rng(0).uniform(-0.5, 0.5, 40)
    played = np.round(beats + jitter)
    played[[33, 36, 38]] += 8  # all near the end, where they tilt a line of least squares by 0.4 %
    assert _slope(np.delete(played, [3, 15, 16, 30])) == pytest.approx(20.25, rel=1e-3)


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"lowest": 100, "highest": 199}, "highest=199"),
        ({"lowest": 0}, "lowest=0"),
        ({"lowest": 70, "highest": float("nan")}, "highest=nan"),
        ({"sample_rate": 0}, "sample_rate=0"),
    ],
)
def test_impossible_settings_are_named(settings, named):
    with pytest.raises(ValueError, match=named):
        find_tempo(np.zeros(100), **{"sample_rate": SAMPLE_RATE} | settings)


def test_two_channels_are_refused():
    with pytest.raises(ValueError, match=r"\(2, 100\)"):
        find_tempo(np.zeros((2, 100)), SAMPLE_RATE)
