"""specgan.vocoder: a sound has its spectrogram's pitch, level and length, and depends on its own seed alone."""

import math

import pytest
import torch

from specgan.spectrogram import LevelRange, Spectrogram, SpectrogramParams, mel_filters, normalise
from specgan.vocoder import GriffinLim, griffin_lim

RANK_DEFICIENT = SpectrogramParams(sample_rate=22050, n_mels=128)  # n_fft 1024: two bands share their only bin
BANKS = [
    SpectrogramParams(),
    SpectrogramParams(n_mels=128),
    SpectrogramParams(mel_scale="slaney", norm="slaney"),
    SpectrogramParams(sample_rate=22050, n_fft=2048, win_length=1024, n_mels=128),
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


# --- mel inversion


def test_the_rank_deficient_bank_is_one():
    assert torch.linalg.matrix_rank(mel_filters(RANK_DEFICIENT)) < RANK_DEFICIENT.n_mels


@pytest.mark.parametrize("params", BANKS)
def test_mel_inversion_is_non_negative_and_close(params):
    mel_power = Spectrogram(params).power(notes(params))
    power = vocoder(params).invert_mel(mel_power)
    assert power.shape == (3, params.n_fft // 2 + 1, 32)
    assert power.isfinite().all() and power.min() >= 0
    residual = (mel_filters(params) @ power - mel_power).norm(dim=(1, 2)) / mel_power.norm(dim=(1, 2))
    assert residual.max() < 0.03


def test_mel_inversion_gets_closer_with_more_updates():
    params = SpectrogramParams()
    mel_power = Spectrogram(params).power(notes(params))
    residuals = [
        (mel_filters(params) @ vocoder(n_inversion_iter=n).invert_mel(mel_power) - mel_power).norm()
        for n in (1, 10, 100)
    ]
    assert residuals[0] > residuals[1] > residuals[2]


def test_bins_that_no_filter_covers_stay_silent():
    params = SpectrogramParams(f_min=1000.0, f_max=4000.0)  # bins of 15.625 Hz: 64 to 256
    power = vocoder(params).invert_mel(Spectrogram(params).power(notes(params)))
    assert power[:, :65].eq(0).all() and power[:, 256:].eq(0).all()
    assert power[:, 65:256].sum() > 0


# --- sound


@pytest.mark.parametrize("params", BANKS)
def test_a_sound_keeps_its_length_and_level(params):
    waveform = notes(params)
    spectrogram, level_range = encode(waveform, params)
    sound = GriffinLim(params, level_range)(spectrogram, seeds=[1, 2, 3])
    assert sound.shape == waveform.shape == (3, 32 * params.hop_length)
    assert (level_db(sound) - level_db(waveform)).abs().max() < 1


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
def test_a_tone_keeps_its_pitch(hz):
    params = SpectrogramParams(n_mels=128)
    waveform = 0.5 * torch.sin(2 * math.pi * hz / 16000 * torch.arange(params.n_samples))[None]
    spectrogram, level_range = encode(waveform, params)
    sound = GriffinLim(params, level_range)(spectrogram, seeds=[0])
    pitch = stft_magnitude(sound, params).mean(-1).argmax() * 16000 / 1024
    assert abs(pitch - hz) <= 16000 / 1024


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


def test_more_iterations_are_more_consistent():
    params = SpectrogramParams()
    magnitude = stft_magnitude(notes(params), params)[..., :32]
    errors = []
    for n_iter in (0, 4, 32):
        found = stft_magnitude(vocoder(n_iter=n_iter).find_phase(magnitude, seeds=[1, 2, 3]), params)[..., :32]
        errors.append((found - magnitude).norm(dim=(1, 2)) / magnitude.norm(dim=(1, 2)))
    assert (errors[0] > 1.5 * errors[1]).all() and (errors[1] > 1.5 * errors[2]).all()


def test_momentum_converges_faster():
    params = SpectrogramParams()
    magnitude = stft_magnitude(notes(params), params)[..., :32]
    errors = {}
    for momentum in (0.0, 0.99):
        sound = vocoder(n_iter=32, momentum=momentum).find_phase(magnitude, seeds=[1, 2, 3])
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


@pytest.mark.parametrize("params", [SpectrogramParams(), RANK_DEFICIENT])
def test_a_batch_gives_each_spectrogram_the_sound_it_gets_alone(params):
    spectrogram, level_range = encode(notes(params), params)
    spectrogram[1] *= 0.3
    draw = GriffinLim(params, level_range)
    batch = draw(spectrogram, seeds=[5, 6, 7])
    alone = torch.cat([draw(item[None], seeds=[seed]) for item, seed in zip(spectrogram, (5, 6, 7), strict=True)])
    # Griffin-Lim enlarges the rounding of a batched product.
    torch.testing.assert_close(batch, alone, rtol=0, atol=1e-3 * batch.abs().max().item())


def test_the_phases_start_over_the_full_circle(monkeypatch):
    spectra = []
    istft = torch.istft
    monkeypatch.setattr(
        torch, "istft", lambda spectrum, *args, **kw: spectra.append(spectrum) or istft(spectrum, *args, **kw)
    )
    vocoder(n_iter=0).find_phase(torch.ones(1, 513, 64), seeds=[0])
    phase = spectra[0][..., :64].angle().flatten()
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


@pytest.mark.parametrize("seeds", [[], [1], [1, 2, 3]])
def test_every_spectrogram_needs_its_seed(seeds):
    with pytest.raises(ValueError, match=f"{len(seeds)} seeds for 2 spectrograms; give one seed for each"):
        vocoder()(torch.zeros(2, 1, 64, 8), seeds=seeds)
