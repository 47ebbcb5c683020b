"""specgan.vocoders: a sound has its spectrogram's pitch, level and length, and depends on its own seed alone."""

import math
from itertools import pairwise

import pytest
import torch

from specgan.spectrogram import LevelRange, Spectrogram, SpectrogramParams, mel_filters, normalise
from specgan.vocoders import first_phase
from specgan.vocoders.envelope import shape
from specgan.vocoders.griffin_lim import STARTS, GriffinLim, griffin_lim
from specgan.vocoders.mel_inversion import MelInversion
from specgan.vocoders.vocoder import edge_fade

RANK_DEFICIENT = SpectrogramParams(sample_rate=22050, n_mels=128)  # n_fft 1024: two bands share their only bin
BANKS = [
    SpectrogramParams(),
    SpectrogramParams(n_mels=128),
    SpectrogramParams(mel_scale="slaney", norm="slaney"),
    SpectrogramParams(sample_rate=22050, n_fft=2048, win_length=1024, n_mels=128),
    SpectrogramParams(sample_rate=24000, n_mels=100),  # filters are applied 16 at a time: the last ones are fewer
    RANK_DEFICIENT,
]


def notes(params: SpectrogramParams, *, n_frames: int = 32) -> torch.Tensor:
    """(3, n_frames * hop_length): decaying harmonic notes with a little noise, one of them backwards."""
    t = torch.arange(n_frames * params.hop_length) / params.sample_rate
    generator = torch.Generator().manual_seed(0)
    sounds = []
    for pitch in (110.0, 220.0, 441.0):
        harmonics = sum(torch.sin(2 * math.pi * pitch * k * t + k) / k for k in range(1, 15))
        sounds.append(0.2 * harmonics * torch.exp(-3 * t) + 0.02 * torch.randn(t.shape, generator=generator))
    sounds[2] = sounds[2].flip(0)
    return torch.stack(sounds)


def encode(waveform: torch.Tensor, params: SpectrogramParams) -> tuple[torch.Tensor, LevelRange]:
    """(B, 1, n_mels, n_frames) in [-1, 1], and what that means."""
    level = Spectrogram(params)(waveform)
    level_range = LevelRange(params.silence, level.max().item())
    return normalise(level, params, level_range).unsqueeze(1), level_range


def vocoder(params: SpectrogramParams | None = None, **settings) -> GriffinLim:
    return GriffinLim(params or SpectrogramParams(), LevelRange(-80.0, 0.0), **settings)


def level_db(waveform: torch.Tensor) -> torch.Tensor:
    return 10 * waveform.square().mean(-1).log10()


def stft_magnitude(waveform: torch.Tensor, params: SpectrogramParams) -> torch.Tensor:
    window = torch.hann_window(params.win_length)
    return torch.stft(
        waveform,
        params.n_fft,
        params.hop_length,
        params.win_length,
        window,
        pad_mode="constant",
        return_complex=True,
    ).abs()


def mel_error(waveform: torch.Tensor, mel_power: torch.Tensor, params: SpectrogramParams) -> torch.Tensor:
    """(B,): spectral convergence of the mel bands' magnitude."""
    found = Spectrogram(params).power(waveform).sqrt()
    return (found - mel_power.sqrt()).norm(dim=(1, 2)) / mel_power.sqrt().norm(dim=(1, 2))


# --- mel inversion


def residuals(power: torch.Tensor, mel_power: torch.Tensor, params: SpectrogramParams) -> torch.Tensor:
    return (mel_filters(params) @ power - mel_power).norm(dim=(1, 2)) / mel_power.norm(dim=(1, 2))


def test_the_rank_deficient_bank_is_one():
    assert torch.linalg.matrix_rank(mel_filters(RANK_DEFICIENT)) < RANK_DEFICIENT.n_mels


@pytest.mark.parametrize("params", BANKS)
def test_mel_inversion_is_non_negative_and_close(params):
    mel_power = Spectrogram(params).power(notes(params))
    power = MelInversion(params, n_iter=30)(mel_power)
    assert power.shape == (3, params.n_fft // 2 + 1, 32)
    assert power.isfinite().all() and power.min() >= 0
    assert residuals(power, mel_power, params).max() < 0.02


@pytest.mark.parametrize("params", BANKS)
def test_mel_inversion_of_what_no_sound_has_is_no_worse_than_least_squares_cut_at_0(params):
    mel_power = Spectrogram(params).power(notes(params))
    noise = torch.randn(mel_power.shape, generator=torch.Generator().manual_seed(0))
    mel_power = mel_power * (0.3 * noise).exp()  # as a network might draw it
    power = MelInversion(params, n_iter=30)(mel_power)
    cut = (torch.linalg.pinv(mel_filters(params)) @ mel_power).clamp_min(0)
    assert power.isfinite().all() and power.min() >= 0
    assert (residuals(power, mel_power, params) < 1.05 * residuals(cut, mel_power, params)).all()


def test_mel_inversion_gets_closer_with_more_updates():
    params = SpectrogramParams()
    mel_power = Spectrogram(params).power(notes(params))
    errors = [residuals(MelInversion(params, n_iter=n)(mel_power), mel_power, params) for n in (0, 1, 10, 100)]
    assert all((before > after).all() for before, after in pairwise(errors))


def test_bins_that_no_filter_covers_stay_silent():
    params = SpectrogramParams(f_min=1000.0, f_max=4000.0)  # bins of 15.625 Hz: 64 to 256
    power = MelInversion(params, n_iter=30)(Spectrogram(params).power(notes(params)))
    assert power[:, :65].eq(0).all() and power[:, 256:].eq(0).all()
    assert power[:, 65:256].sum() > 0


# --- sound


@pytest.mark.parametrize("params", BANKS)
def test_a_sound_keeps_length_level_and_mel_spectrogram(params):
    waveform = notes(params)
    spectrogram, level_range = encode(waveform, params)
    sound = GriffinLim(params, level_range)(spectrogram, seeds=[1, 2, 3])
    assert sound.shape == waveform.shape == (3, 32 * params.hop_length)
    assert (level_db(sound) - level_db(waveform)).abs().max() < 0.2
    assert mel_error(sound, Spectrogram(params).power(waveform), params).max() < 0.08


def test_aiming_at_mel_bands_comes_closer_to_them_than_aiming_at_one_magnitude():
    params = SpectrogramParams()
    mel_power = Spectrogram(params).power(notes(params))
    draw = vocoder(params)
    power = draw.inversion(mel_power)
    fixed = draw.find_phase(power, seeds=[1, 2, 3])
    free = draw.find_phase(power, seeds=[1, 2, 3], mel_power=mel_power)
    assert (mel_error(free, mel_power, params) < 0.7 * mel_error(fixed, mel_power, params)).all()


@pytest.mark.parametrize(
    "settings",
    [
        {"hop_length": 512},
        {"hop_length": 500},
        {"hop_length": 384},
        {"hop_length": 128},
        {"n_fft": 2048, "win_length": 2048, "hop_length": 1024},
        {"n_fft": 1023, "win_length": 801, "hop_length": 200, "n_mels": 40},
    ],
)
def test_the_level_is_kept_up_to_the_last_sample_at_any_overlap_of_the_windows(settings):
    params = SpectrogramParams(**settings)
    waveform = notes(params)
    spectrogram, level_range = encode(waveform, params)
    sound = GriffinLim(params, level_range)(spectrogram, seeds=[1, 2, 3])
    assert (level_db(sound) - level_db(waveform)).abs().max() < 1
    hop = params.hop_length
    assert (sound[:, -hop:].abs().amax(1) < 2 * waveform[:, -4 * hop :].abs().amax(1)).all()


@pytest.mark.parametrize("n_frames", [1, 2, 3, 16])
def test_n_frames_become_n_frames_times_hop_samples(n_frames):
    spectrogram = torch.zeros(2, 1, 64, n_frames)
    sound = vocoder(n_iter=2)(spectrogram, seeds=[0, 1])
    assert sound.shape == (2, n_frames * 256)
    assert sound.isfinite().all()


@pytest.mark.parametrize("hz", [200.0, 440.0, 1000.0])
@pytest.mark.parametrize("n_iter", [0, 32])
def test_a_tone_keeps_its_pitch(hz, n_iter):
    params = SpectrogramParams(n_mels=128)
    waveform = 0.5 * torch.sin(2 * math.pi * hz / 16000 * torch.arange(params.n_samples))[None]
    spectrogram, level_range = encode(waveform, params)
    sound = GriffinLim(params, level_range, n_iter=n_iter)(spectrogram, seeds=[0])
    pitch = stft_magnitude(sound, params).mean(-1).argmax() * 16000 / 1024
    assert abs(pitch - hz) <= 16000 / 1024
    if n_iter:
        assert (level_db(sound) - level_db(waveform)).abs().max() < 0.2


@pytest.fixture
def spectra(monkeypatch):
    """What is turned into sound, in order: (B, n_frames + 1, bins)."""
    spectra = []
    irfft = torch.fft.irfft
    monkeypatch.setattr(torch.fft, "irfft", lambda spectrum, n: spectra.append(spectrum) or irfft(spectrum, n))
    return spectra


@pytest.mark.parametrize("start", STARTS)
@pytest.mark.parametrize("hz", [437.5, 441.0, 997.0])
def test_the_phase_of_a_tone_starts_steady(hz, start, spectra):
    params = SpectrogramParams()
    waveform = 0.5 * torch.sin(2 * math.pi * hz / 16000 * torch.arange(params.n_samples))[None]
    power = stft_magnitude(waveform, params)[..., :64].square()
    vocoder(n_iter=0, start=start).find_phase(power, seeds=[0])
    of_tone = spectra[0][0, 4:-5, round(hz * 1024 / 16000)]
    advance = torch.polar(torch.tensor(1.0), torch.tensor(2 * math.pi * hz * 256 / 16000))
    error = (of_tone[1:] * of_tone[:-1].conj() * advance.conj()).angle()
    assert error.abs().max() < 0.2


@pytest.mark.parametrize("place", [0, 3000, 3100, 3217, 8000])
@pytest.mark.parametrize(("start", "reach"), [("gradient", 80), ("envelope", 160)])
def test_a_click_starts_in_its_place(place, start, reach, monkeypatch):
    if start == "gradient":  # without the random part of noise, which a click is alike by its even power
        monkeypatch.setattr(first_phase, "_noisy", lambda power, params: torch.zeros_like(power))
    params = SpectrogramParams()
    waveform = torch.zeros(1, params.n_samples)
    waveform[0, place] = 1
    power = stft_magnitude(waveform, params)[..., :64].square()
    sound = vocoder(n_iter=0, start=start).find_phase(power, seeds=[0])[0]
    near = slice(max(0, place - reach), place + reach)  # 5 or 10 ms; the window has 64
    assert sound[near].square().sum() > 0.5 * sound.square().sum()


def test_a_tone_is_louder_when_its_bins_start_together():
    params = SpectrogramParams()
    waveform = 0.5 * torch.sin(2 * math.pi * 441 / 16000 * torch.arange(params.n_samples))[None]
    power = stft_magnitude(waveform, params)[..., :64].square()
    steady, gradient = (
        level_db(vocoder(n_iter=0, start=start).find_phase(power, seeds=[0])) for start in ("steady", "gradient")
    )
    assert (gradient - level_db(waveform)).abs() < 0.5
    assert steady < level_db(waveform) - 2


def test_a_sound_gets_the_envelope_of_a_spectrogram():
    params = SpectrogramParams()
    noise = 0.1 * torch.randn(2, 2, params.n_samples, generator=torch.Generator().manual_seed(0))
    gated, even = noise
    gated[:, :8000] = 0
    power = stft_magnitude(gated, params)[..., :64].square().mT
    shaped = shape(even, power, params)
    assert shaped.shape == even.shape
    assert (level_db(shaped[:, :7400]) < level_db(even[:, :7400]) - 20).all()
    assert (level_db(shaped[:, 8400:]) - level_db(gated[:, 8400:])).abs().max() < 1
    alone = torch.cat([shape(even[i : i + 1], power[i : i + 1], params) for i in range(2)])
    torch.testing.assert_close(shaped, alone, rtol=0, atol=1e-6)


@pytest.mark.parametrize("start", ["gradient", "envelope"])
def test_an_attack_in_a_frame_is_sharper_than_of_a_steady_start(start):
    params = SpectrogramParams()
    t = torch.arange(params.n_samples - 5000) / params.sample_rate
    hit = torch.exp(-t / 0.05) * torch.sin(2 * math.pi * 300 * t)
    waveform = torch.nn.functional.pad(hit, (5000, 0))[None]
    spectrogram, level_range = encode(waveform, params)
    before = {
        name: level_db(GriffinLim(params, level_range, n_iter=0, start=name)(spectrogram, seeds=[0])[:, :4900])
        for name in ("steady", start)
    }
    assert before[start] < before["steady"] - 3


@pytest.mark.parametrize("params", [SpectrogramParams(n_frames=128), SpectrogramParams(n_frames=128, hop_length=128)])
def test_noise_does_not_repeat_itself(params):
    steady = Spectrogram(params).power(
        0.1 * torch.randn(1, params.n_samples, generator=torch.Generator().manual_seed(0))
    )
    steady = steady.mean(-1, keepdim=True).expand(-1, -1, params.n_frames)
    level = Spectrogram(params).to_level(steady)
    level_range = LevelRange(params.silence, level.max().item())
    sound = GriffinLim(params, level_range)(normalise(level, params, level_range)[:, None], seeds=[0])
    n_samples = sound.shape[-1]
    likeness = torch.fft.irfft(torch.fft.rfft(sound, 2 * n_samples).abs().square())[0, : n_samples // 2]
    assert likeness[100:].abs().max() < 0.1 * likeness[0]  # steady phases: 0.9 after n_fft samples


# --- ends


def test_a_sound_that_is_cut_ends_without_a_click():
    params = SpectrogramParams()
    waveform = 0.5 * torch.sin(2 * math.pi * 440 / 16000 * torch.arange(params.n_samples) + 1.5)[None]
    spectrogram, level_range = encode(waveform, params)
    sound = GriffinLim(params, level_range)(spectrogram, seeds=[0])[0]
    assert sound[[0, -1]].abs().max() < 1e-6
    steepest = waveform.diff().abs().max()
    assert sound[-200:].diff().abs().max() < 1.5 * steepest
    assert sound[:3].abs().max() < 0.02  # the recording starts at 0.5


def test_a_hit_at_the_start_keeps_its_attack():
    params = SpectrogramParams()
    t = torch.arange(params.n_samples) / params.sample_rate
    waveform = (torch.randn(4, len(t), generator=torch.Generator().manual_seed(0)) * 0.2 * torch.exp(-t / 0.02)).float()
    spectrogram, level_range = encode(waveform, params)
    sound = GriffinLim(params, level_range)(spectrogram, seeds=range(4))
    for n in (80, 320):  # 5 and 20 ms
        assert (level_db(sound[:, :n]) - level_db(waveform[:, :n])).abs().max() < 2.5


@pytest.mark.parametrize("sample_rate", [8000, 44100])
def test_the_fade_is_over_after_a_millisecond_and_starts_5_before_the_end(sample_rate):
    gain = edge_fade(sample_rate, sample_rate)
    assert gain[0] == 0 and gain[-1].abs() < 1e-6
    assert gain.min() >= 0 and gain.max() == 1
    assert gain[sample_rate // 1000 : -sample_rate * 5 // 1000 - 1].eq(1).all()


@pytest.mark.parametrize("n_samples", [1, 2, 5])
def test_the_shortest_sounds_have_a_fade_too(n_samples):
    assert edge_fade(n_samples, 16000).shape == (n_samples,)


def test_a_quieter_spectrogram_is_a_quieter_sound():
    level_range = LevelRange(-80.0, 0.0)
    spectrogram = torch.full((2, 1, 64, 32), 0.5)
    spectrogram[1] = 0.25  # 10 dB of 80 less
    sound = vocoder()(spectrogram, seeds=[3, 3])
    assert level_range.high - level_range.low == 80
    assert (level_db(sound[0]) - level_db(sound[1])).item() == pytest.approx(10, abs=0.1)


@pytest.mark.parametrize("level", ["db", "log1p"])
def test_silence_stays_silence(level):
    params = SpectrogramParams(level=level)
    sound = GriffinLim(params, LevelRange(params.silence, 10.0))(torch.full((2, 1, 64, 16), -1.0), seeds=[0, 1])
    assert sound.abs().max() < 1e-6


@pytest.mark.parametrize("n_iter", [0, 2])
def test_a_linear_spectrogram_becomes_sound_too(n_iter):
    params = SpectrogramParams(kind="linear", f_min=100.0, f_max=4000.0)
    spectrogram, level_range = encode(notes(params), params)
    sound = GriffinLim(params, level_range, n_iter=n_iter)(spectrogram, seeds=[1, 2, 3])
    assert sound.shape == (3, 32 * params.hop_length)
    assert (level_db(sound) - level_db(notes(params))).abs().max() < 6


def test_no_spectrograms_are_no_sounds():
    assert vocoder()(torch.zeros(0, 1, 64, 8), seeds=[]).shape == (0, 8 * 256)


def test_more_iterations_are_more_consistent():
    params = SpectrogramParams()
    magnitude = stft_magnitude(notes(params), params)[..., :32]
    errors = []
    for n_iter in (0, 4, 32):
        found = stft_magnitude(vocoder(n_iter=n_iter).find_phase(magnitude.square(), seeds=[1, 2, 3]), params)[..., :32]
        errors.append((found - magnitude).norm(dim=(1, 2)) / magnitude.norm(dim=(1, 2)))
    assert (errors[0] > 1.5 * errors[1]).all() and (errors[1] > 1.5 * errors[2]).all()


def test_momentum_converges_faster():
    params = SpectrogramParams()
    magnitude = stft_magnitude(notes(params), params)[..., :32]
    errors = {}
    for momentum in (0.0, 0.99):
        sound = vocoder(n_iter=32, momentum=momentum).find_phase(magnitude.square(), seeds=[1, 2, 3])
        errors[momentum] = (stft_magnitude(sound, params)[..., :32] - magnitude).norm()
    assert errors[0.99] < errors[0.0]


# --- from a phase that is known

STFT = {"n_fft": 256, "hop_length": 64}


def tones_in_noise(n_frames: int = 40) -> torch.Tensor:
    """(2, n_frames * 64), silent in the last 128 samples: the frame behind the end has nothing of it."""
    t = torch.arange(n_frames * 64)
    tones = 0.3 * torch.sin(0.1 * t) + 0.2 * torch.sin(0.77 * t + 1)
    waveform = tones + 0.05 * torch.randn(2, len(t), generator=torch.Generator().manual_seed(0))
    waveform[:, -128:] = 0
    return waveform


def stft(waveform: torch.Tensor) -> torch.Tensor:
    window = torch.hann_window(256)
    return torch.stft(waveform, **STFT, window=window, pad_mode="constant", return_complex=True)[..., :-1]


@pytest.mark.parametrize("momentum", [0.0, 0.99])
@pytest.mark.parametrize("n_iter", [0, 1, 8])
def test_from_the_true_phase_the_waveform_stays(n_iter, momentum):
    waveform = tones_in_noise()
    found = griffin_lim(stft(waveform), **STFT, n_iter=n_iter, momentum=momentum)
    assert found.shape == waveform.shape
    snr = 10 * torch.log10(waveform.square().sum(-1) / (found - waveform).square().sum(-1))
    assert (snr > 60).all()


def test_a_disturbed_phase_gets_more_consistent():
    spectrum = stft(tones_in_noise())
    disturbance = torch.randn(spectrum.shape, generator=torch.Generator().manual_seed(1))
    disturbed = torch.polar(spectrum.abs(), spectrum.angle() + disturbance)
    errors = []
    for n_iter in (0, 4, 32):
        found = stft(griffin_lim(disturbed, **STFT, n_iter=n_iter)).abs()
        errors.append((found - spectrum.abs()).norm(dim=(1, 2)) / spectrum.abs().norm(dim=(1, 2)))
    assert (errors[0] > 1.5 * errors[1]).all() and (errors[1] > 1.5 * errors[2]).all()


# --- seeds


def test_the_same_seed_gives_the_same_bytes_and_another_seed_another_phase():
    params = SpectrogramParams()
    spectrogram, level_range = encode(notes(params)[:1], params)
    draw = GriffinLim(params, level_range, n_iter=4)
    torch.manual_seed(1)
    first = draw(spectrogram, seeds=[7])
    torch.manual_seed(2)  # the global generator must not matter
    assert draw(spectrogram, seeds=[7]).equal(first)
    other = draw(spectrogram, seeds=[8])
    assert (other - first).norm() > 0.1 * first.norm()
    assert (level_db(other) - level_db(first)).abs().max() < 1


@pytest.mark.parametrize("start", STARTS)
@pytest.mark.parametrize("params", [SpectrogramParams(), RANK_DEFICIENT])
def test_a_batch_gives_each_spectrogram_the_sound_it_gets_alone(params, start):
    spectrogram, level_range = encode(notes(params), params)
    spectrogram[1] *= 0.3
    draw = GriffinLim(params, level_range, start=start)
    batch = draw(spectrogram, seeds=[5, 6, 7])
    alone = torch.cat([draw(item[None], seeds=[seed]) for item, seed in zip(spectrogram, (5, 6, 7), strict=True)])
    # Griffin-Lim enlarges the rounding of a batched product.
    torch.testing.assert_close(batch, alone, rtol=0, atol=1e-3 * batch.abs().max().item())


def test_noise_starts_from_phases_over_the_full_circle(spectra):
    vocoder(n_iter=0).find_phase(torch.ones(1, 513, 64), seeds=[0])
    phase = spectra[0][:, :64].angle().flatten()
    share = torch.histc(phase, bins=8, min=-math.pi, max=math.pi) / len(phase)
    torch.testing.assert_close(share, torch.full((8,), 1 / 8), rtol=0, atol=0.01)


# --- errors


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"n_iter": -1}, "n_iter is -1; at least 0"),
        ({"momentum": 1.0}, r"momentum is 1.0; it must be at least 0 and below 1"),
        ({"momentum": -0.1}, r"momentum is -0.1; it must be at least 0 and below 1"),
    ],
)
def test_an_impossible_setting_is_named_with_its_value_and_the_fix(settings, message):
    with pytest.raises(ValueError, match=message):
        vocoder(**settings)
    with pytest.raises(ValueError, match=message):
        griffin_lim(torch.zeros(1, 129, 4, dtype=torch.complex64), **STFT, **settings)


def test_an_unknown_start_is_named():
    with pytest.raises(ValueError, match="start is 'random'; steady, gradient or envelope"):
        vocoder(start="random")


def test_an_impossible_number_of_updates_is_named():
    with pytest.raises(ValueError, match="n_inversion_iter is -1; at least 0"):
        vocoder(n_inversion_iter=-1)


@pytest.mark.parametrize("seeds", [[], [1], [1, 2, 3]])
def test_every_spectrogram_needs_its_seed(seeds):
    with pytest.raises(ValueError, match=f"{len(seeds)} seeds for 2 spectrograms; give one seed for each"):
        vocoder()(torch.zeros(2, 1, 64, 8), seeds=seeds)
