"""specgan.spectrogram: the numbers mean what the settings say, and every step has its documented way back."""

import math
import re

import librosa
import numpy as np
import pytest
import torch

from specgan.spectrogram import (
    LevelRange,
    Spectrogram,
    SpectrogramParams,
    denormalise,
    mel_filters,
    normalise,
    power_blocks,
)

BANKS = [("htk", None), ("htk", "slaney"), ("slaney", None), ("slaney", "slaney")]
SIZES = [
    {},
    {"win_length": 400, "hop_length": 160, "n_mels": 40},
    {"sample_rate": 22050, "n_fft": 2048, "win_length": 1024, "n_mels": 128},
    {"f_min": 50.0, "f_max": 7000.0},
]


def noise(n_items: int, n_samples: int, *, seed: int = 0) -> torch.Tensor:
    return 0.3 * torch.randn(n_items, n_samples, generator=torch.Generator().manual_seed(seed))


def sine(hz: float, n_samples: int, *, rate: int = 16000, amplitude: float = 1.0) -> torch.Tensor:
    """(1, n_samples)."""
    return (amplitude * torch.sin(2 * math.pi * hz / rate * torch.arange(n_samples, dtype=torch.float64))).float()[None]


# --- references


@pytest.mark.parametrize("sizes", SIZES)
@pytest.mark.parametrize(("mel_scale", "norm"), BANKS)
def test_mel_power_is_librosas(mel_scale, norm, sizes):
    params = SpectrogramParams(mel_scale=mel_scale, norm=norm, **sizes)
    n_frames = 20
    waveform = noise(1, n_frames * params.hop_length)
    ours = Spectrogram(params).power(waveform)[0].numpy()
    theirs = librosa.feature.melspectrogram(
        y=waveform[0].numpy(),
        sr=params.sample_rate,
        n_fft=params.n_fft,
        hop_length=params.hop_length,
        win_length=params.win_length,
        window="hann",
        center=True,
        pad_mode="constant",
        power=2,
        n_mels=params.n_mels,
        fmin=params.f_min,
        fmax=params.f_max,
        htk=mel_scale == "htk",
        norm=norm,
    )
    np.testing.assert_allclose(ours, theirs[:, :n_frames], rtol=1e-4)


# --- known answers


def test_a_sine_of_amplitude_1_at_a_bin_centre_is_0_db_before_the_mel_filters():
    mel = Spectrogram(SpectrogramParams())
    frame = sine(1000.0, 1024)[0].numpy()  # 1000 Hz is bin 64 of 1024 at 16 kHz
    power = np.abs(np.fft.rfft(frame * librosa.filters.get_window("hann", 1024))) ** 2
    level = mel.to_level(torch.from_numpy(power).float())
    assert level.argmax() == 64
    assert level[64] == pytest.approx(0, abs=1e-3)


@pytest.mark.parametrize("mel_scale", ["htk", "slaney"])
@pytest.mark.parametrize("hz", [250.0, 1000.0, 4000.0])
def test_a_tones_energy_is_in_its_mel_band(hz, mel_scale):
    params = SpectrogramParams(mel_scale=mel_scale)
    level = Spectrogram(params)(sine(hz, params.n_samples))[0]
    edges = librosa.mel_frequencies(params.n_mels + 2, fmin=0, fmax=8000, htk=mel_scale == "htk")
    centres = edges[1:-1]
    loudest = int(level[:, 32].argmax())
    assert loudest == np.abs(centres - hz).argmin()
    assert edges[loudest] < hz < edges[loudest + 2]
    far = (edges[:-2] > hz + 32) | (
        edges[2:] < hz - 32
    )  # bands that miss the Hann window's main lobe, two bins each way
    assert level[torch.from_numpy(far), 32].max() < level[loudest, 32] - 50


def test_a_tones_mel_power_is_that_of_the_hann_windows_main_lobe():
    # Triangles of height 1 sum to 1 at every frequency; the Hann window puts 1/4, 1 and 1/4 of the power in three bins.
    params = SpectrogramParams()
    mel = Spectrogram(params)
    total = mel.power(sine(2000.0, params.n_samples))[0].sum(0)[4:-4]
    torch.testing.assert_close(total / mel.full_scale, torch.full_like(total, 1.5), rtol=1e-3, atol=0)


@pytest.mark.parametrize("norm", [None, "slaney"])
def test_half_the_amplitude_is_6_db_less(norm):
    params = SpectrogramParams(norm=norm, floor_db=-140.0)
    waveform = noise(1, params.n_samples)
    mel = Spectrogram(params)
    difference = mel(waveform) - mel(waveform / 2)
    torch.testing.assert_close(difference, torch.full_like(difference, 20 * math.log10(2)), rtol=0, atol=1e-3)


@pytest.mark.parametrize("floor_db", [-60.0, -80.0, -100.0])
def test_digital_silence_is_the_floor_and_nothing_is_below(floor_db):
    params = SpectrogramParams(floor_db=floor_db)
    mel = Spectrogram(params)
    silent = mel(torch.zeros(1, 2048))
    torch.testing.assert_close(silent, torch.full_like(silent, floor_db), rtol=0, atol=1e-4)
    assert params.silence == floor_db
    assert mel(1e-6 * noise(1, 2048)).min() >= floor_db - 1e-4


def test_digital_silence_is_0_with_log1p():
    params = SpectrogramParams(level="log1p")
    assert Spectrogram(params)(torch.zeros(1, 2048)).eq(0).all()
    assert params.silence == 0


@pytest.mark.parametrize("hop_length", [160, 256])
@pytest.mark.parametrize("n_fft", [1024, 1023])
def test_a_clip_has_one_frame_for_each_hop_begun(n_fft, hop_length):
    mel = Spectrogram(SpectrogramParams(n_fft=n_fft, win_length=512, hop_length=hop_length, n_mels=40))
    expected = {1: 1, 2: 1, hop_length - 1: 1, hop_length: 1, hop_length + 1: 2, 2 * hop_length: 2, 10 * hop_length: 10}
    expected[10 * hop_length + 1] = 11
    assert {n: mel(torch.zeros(2, n)).shape for n in expected} == {n: (2, 40, f) for n, f in expected.items()}


def test_frame_t_is_centred_on_sample_t_times_hop():
    params = SpectrogramParams()
    click = torch.zeros(1, params.n_samples)
    click[0, 10 * params.hop_length] = 1
    energy = Spectrogram(params).power(click)[0].sum(0)
    assert energy.argmax() == 10
    assert energy[9] == pytest.approx(energy[11].item(), rel=1e-3)
    assert energy[:8].eq(0).all() and energy[13:].eq(0).all()  # a window reaches two hops


def test_lengths_follow_from_the_settings():
    assert SpectrogramParams(n_frames=10, hop_length=100).n_samples == 1000
    assert SpectrogramParams(n_frames=None).n_samples is None
    assert SpectrogramParams(sample_rate=22050).upper_hz == 11025
    assert SpectrogramParams(f_max=4000.0).upper_hz == 4000


# --- round trips


@pytest.mark.parametrize("level", ["db", "log1p"])
def test_level_and_back_keeps_the_power(level):
    mel = Spectrogram(SpectrogramParams(level=level))
    power = mel.power(noise(2, 8192))
    torch.testing.assert_close(mel.to_power(mel.to_level(power)), power, rtol=1e-4, atol=0)


def test_level_and_back_keeps_the_power_at_the_floor_and_silence():
    mel = Spectrogram(SpectrogramParams(floor_db=-80.0))
    floor = mel.full_scale * 1e-8
    power = torch.tensor([floor, 10 * floor, 1e4 * floor, mel.full_scale])
    torch.testing.assert_close(mel.to_power(mel.to_level(power)), power, rtol=1e-4, atol=0)
    assert mel.to_power(mel.to_level(torch.zeros(3))).max() < 1e-4 * floor


def test_levels_below_silence_have_no_power():
    for level in ("db", "log1p"):
        params = SpectrogramParams(level=level)
        assert Spectrogram(params).to_power(torch.tensor([params.silence - 1.0, params.silence - 50])).eq(0).all()


def test_normalise_and_back_keeps_the_level():
    params, level_range = SpectrogramParams(), LevelRange(-80.0, -5.0)
    level = torch.linspace(-80, -5, 64 * 64).reshape(1, 64, 64)
    spectrogram = normalise(level, params, level_range)
    assert spectrogram.min() == -1 and spectrogram.max() == 1
    torch.testing.assert_close(denormalise(spectrogram, level_range), level, rtol=0, atol=1e-4)


def test_normalise_gives_the_known_values_and_cuts_at_both_ends():
    level = torch.tensor([[[-100.0, -80.0, -60.0], [-40.0, 0.0, 10.0]]])
    spectrogram = normalise(level, SpectrogramParams(), LevelRange(-80.0, 0.0))
    torch.testing.assert_close(spectrogram, torch.tensor([[[-1.0, -1.0, -0.5], [0.0, 1.0, 1.0]]]))
    torch.testing.assert_close(
        denormalise(torch.tensor([-1.0, -0.5, 0.0, 1.0]), LevelRange(-80.0, 0.0)),
        torch.tensor([-80.0, -60.0, -40.0, 0.0]),
    )


def test_db_keeps_how_loud_a_clip_was():
    params = SpectrogramParams()
    mel, level_range = Spectrogram(params), LevelRange(-80.0, 10.0)
    loud = noise(1, params.n_samples)
    levels = mel(torch.cat([loud, loud / 10]))
    back = denormalise(normalise(levels, params, level_range), level_range)
    difference = back[0].amax() - back[1].amax()
    assert difference == pytest.approx(20, abs=0.1)


def test_log1p_loses_how_loud_a_clip_was():
    # The documented loss: loud and quiet come back with the same loudest level, the one of the range.
    params = SpectrogramParams(level="log1p")
    mel, level_range = Spectrogram(params), LevelRange(0.0, 4.0)
    loud = noise(1, params.n_samples)
    spectrogram = normalise(mel(torch.cat([loud, loud / 10])), params, level_range)
    for item in spectrogram:
        assert item.min() == -1 and item.max() == pytest.approx(1, abs=1e-6)
    assert denormalise(spectrogram, level_range).amax((1, 2)).tolist() == pytest.approx([4, 4])


def test_log1p_of_one_single_level_becomes_silence():
    spectrogram = normalise(torch.full((1, 4, 4), 3.0), SpectrogramParams(level="log1p"), LevelRange(0.0, 4.0))
    assert spectrogram.eq(-1).all()


# --- batch = loop


@pytest.mark.parametrize("level", ["db", "log1p"])
def test_a_batch_gives_each_clip_what_it_gets_alone(level):
    params = SpectrogramParams(level=level)
    mel, level_range = Spectrogram(params), LevelRange(params.silence, 20.0)
    waveforms = noise(5, params.n_samples) * torch.tensor([1.0, 1e-3, 0.0, 0.1, 2.0])[:, None]
    power = mel.power(waveforms)
    torch.testing.assert_close(power, torch.cat([mel.power(w[None]) for w in waveforms]), rtol=1e-5, atol=0)
    levels = mel.to_level(power)
    batch = normalise(levels, params, level_range)
    assert batch.equal(torch.cat([normalise(item[None], params, level_range) for item in levels]))


# --- errors


@pytest.mark.parametrize("name", ["sample_rate", "n_fft", "win_length", "hop_length", "n_mels", "n_frames"])
@pytest.mark.parametrize("value", [0, -1, 16.0, "64"])
def test_counts_must_be_integers_of_at_least_1(name, value):
    with pytest.raises(ValueError, match=re.escape(f"{name} is {value!r}; it must be an integer of at least 1")):
        SpectrogramParams(**{name: value})


@pytest.mark.parametrize(
    ("settings", "parts"),
    [
        ({"win_length": 1025}, ["win_length is 1025", "at most n_fft", "1024"]),
        ({"hop_length": 513, "win_length": 512}, ["hop_length is 513", "1..win_length", "512"]),
        ({"f_max": 8000.5}, ["f_max is 8000.5 Hz", "Nyquist", "16000", "at most 8000", "null"]),
        ({"f_min": -1.0}, ["f_min is -1.0 Hz", "at least 0"]),
        ({"f_min": 8000.0}, ["f_min is 8000.0 Hz", "below f_max", "8000"]),
        ({"f_min": 500.0, "f_max": 500.0}, ["f_min is 500.0 Hz", "below f_max", "500"]),
        ({"mel_scale": "bark"}, ["mel_scale is 'bark'", "htk or slaney"]),
        ({"norm": "area"}, ["norm is 'area'", "null or slaney"]),
        ({"level": "dB"}, ["level is 'dB'", "db or log1p"]),
        ({"floor_db": 0.0}, ["floor_db is 0.0", "below 0 dB", "-80"]),
        ({"floor_db": 80.0}, ["floor_db is 80.0", "below 0 dB", "-80"]),
    ],
)
def test_an_impossible_setting_is_named_with_its_value_and_the_fix(settings, parts):
    with pytest.raises(ValueError, match=".*".join(re.escape(part) for part in parts)):
        SpectrogramParams(**settings)


@pytest.mark.parametrize("mel_scale", ["htk", "slaney"])
@pytest.mark.parametrize("n_fft", [128, 256])
def test_too_many_mel_bands_name_the_largest_number_that_works(n_fft, mel_scale):
    settings = {"n_fft": n_fft, "win_length": n_fft, "hop_length": n_fft // 4, "mel_scale": mel_scale}
    with pytest.raises(
        ValueError, match=rf"n_mels is 120: .*empty at n_fft {n_fft}; at most \d+, or a larger n_fft"
    ) as e:
        SpectrogramParams(n_mels=120, **settings)
    most = int(re.search(r"at most (\d+)", str(e.value))[1])
    assert mel_filters(SpectrogramParams(n_mels=most, **settings)).amax(1).min() > 0
    with pytest.raises(ValueError, match=f"n_mels is {most + 1}: .*at most {most},"):
        SpectrogramParams(n_mels=most + 1, **settings)


@pytest.mark.parametrize("n_mels", [1, 3])
def test_a_range_between_two_bins_does_not_advise_a_number_of_bands_that_fails(n_mels):
    # Bins are 250 Hz apart: between 10 and 100 Hz there is none, so no number of bands works.
    with pytest.raises(ValueError, match=f"n_mels is {n_mels}: .*a wider range from f_min to f_max, or a larger n_fft"):
        SpectrogramParams(n_fft=64, win_length=64, hop_length=16, f_min=10.0, f_max=100.0, n_mels=n_mels)


@pytest.mark.parametrize(("low", "high"), [(-80.0, -80.0), (-80.0, -90.0)])
def test_a_level_range_of_silent_clips_says_so(low, high):
    with pytest.raises(ValueError, match=rf"reach level {high:g}, silence is {low:g}.*all silent.*lower floor_db"):
        LevelRange(low, high)


def test_settings_are_equal_only_if_all_fields_are_and_cannot_change():
    assert SpectrogramParams() == SpectrogramParams()
    assert SpectrogramParams() != SpectrogramParams(floor_db=-81.0)
    with pytest.raises(AttributeError):
        SpectrogramParams().n_mels = 32


# Block by block


def power_spectrum(waveform: torch.Tensor, **sizes: int) -> torch.Tensor:
    """Of a waveform in one block."""
    return torch.cat(list(power_blocks([waveform], **sizes)), dim=-1)


@pytest.mark.parametrize(("n_fft", "win_length", "hop_length"), [(512, 512, 128), (255, 200, 200), (64, 32, 300)])
@pytest.mark.parametrize("block_size", [1, 77, 512, 5000])
def test_power_does_not_depend_on_the_blocks(n_fft, win_length, hop_length, block_size, monkeypatch):
    waveform = torch.randn(2, 3000 if block_size > 1 else 600)
    sizes = {"n_fft": n_fft, "win_length": win_length, "hop_length": hop_length}
    whole = power_spectrum(waveform, **sizes)
    assert whole.shape == (2, n_fft // 2 + 1, math.ceil(waveform.shape[1] / hop_length))
    monkeypatch.setattr("specgan.spectrogram.power.MOST_FRAMES", 5)
    blocks = list(power_blocks(waveform.split(block_size, dim=1), **sizes))
    assert max(block.shape[-1] for block in blocks) <= 5
    torch.testing.assert_close(torch.cat(blocks, dim=-1), whole, rtol=1e-5, atol=1e-5)


def test_power_is_that_of_torch_stft():
    waveform = torch.randn(2, 3000)
    theirs = torch.stft(
        waveform, 512, 100, 300, torch.hann_window(300), center=True, pad_mode="constant", return_complex=True
    )
    ours = power_spectrum(waveform, n_fft=512, win_length=300, hop_length=100)
    torch.testing.assert_close(ours, theirs[..., :30].abs().square(), rtol=1e-4, atol=1e-4)


# Linear frequency


def test_linear_kind_is_the_fft_bins_of_the_range():
    params = SpectrogramParams(kind="linear", f_min=1000.0, f_max=4000.0, sample_rate=16000, n_fft=512, win_length=512)
    waveform = torch.randn(1, 4000)
    assert params.n_bins == 97  # 31.25 Hz each, both ends included
    whole = power_spectrum(waveform, n_fft=512, win_length=512, hop_length=256)
    torch.testing.assert_close(Spectrogram(params).power(waveform), whole[:, 32:129], rtol=0, atol=0)


def test_linear_kind_reaches_from_zero_to_nyquist():
    assert SpectrogramParams(kind="linear", n_fft=512, win_length=512).n_bins == 257
    assert SpectrogramParams(kind="linear", n_fft=511, win_length=511, hop_length=100).n_bins == 256


def test_linear_kind_needs_a_bin():
    with pytest.raises(ValueError, match=r"f_min is 1001.0 Hz and f_max 1010: no FFT bin"):
        SpectrogramParams(kind="linear", f_min=1001.0, f_max=1010.0)


def test_unknown_kind_is_refused():
    with pytest.raises(ValueError, match="kind is 'cqt'; mel or linear"):
        SpectrogramParams(kind="cqt")
