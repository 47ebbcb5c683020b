import math
import subprocess
import sys
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import pytest
import soundfile
import torch

import specgan
from specgan.audio import AudioError, load_audio, open_audio, save_wav
from specgan.pictures import streams
from specgan.pictures.render import render
from specgan.pictures.scale import Scale, to_db
from specgan.pictures.settings import PictureSettings
from specgan.pictures.streams import AudioFile, mean_power
from specgan.spectrogram import power_blocks
from specgan.tasks.render import render_file

RATE = 16000


@pytest.fixture(scope="module")
def tone(tmp_path_factory):
    """Half a second of silence, then half a second of 1 kHz."""
    path = tmp_path_factory.mktemp("tone") / "tone.wav"
    t = torch.arange(RATE) / RATE
    save_wav(path, torch.where(t >= 0.5, 0.5 * torch.sin(2 * math.pi * 1000 * t), 0.0), RATE)
    return path


def pixels(png):
    return cv2.imdecode(np.frombuffer(png, np.uint8), cv2.IMREAD_UNCHANGED)


def grey(path, **settings):
    return pixels(render(path, cmap="gray", **settings))[..., 0].astype(float)


@pytest.mark.parametrize(("width", "height"), [(1024, 256), (7, 301), (1, 1)])
@pytest.mark.parametrize("axis", ["mel", "log", "linear"])
def test_the_picture_has_exactly_the_size_asked_for(tone, width, height, axis):
    assert pixels(render(tone, width_px=width, height_px=height, frequency_axis=axis)).shape == (height, width, 3)


def test_axes_are_drawn_inside_the_same_size(tone):
    plain, labelled = (pixels(render(tone, width_px=600, height_px=300, axes=axes)) for axes in (False, True))
    assert labelled.shape[:2] == plain.shape[:2] == (300, 600)
    assert (labelled[:20, :5, :3] == 255).all()  # a white margin


@pytest.mark.parametrize(
    ("axis", "f_min", "place"),
    [
        ("linear", 0, 1000 / 8000),
        ("linear", 500, 500 / 7500),
        ("log", 125, math.log(1000 / 125) / math.log(8000 / 125)),
        ("mel", 0, math.log(1 + 1000 / 700) / math.log(1 + 8000 / 700)),
    ],
)
def test_a_tone_stands_at_its_place_on_the_axis(tone, axis, f_min, place):
    picture = grey(tone, frequency_axis=axis, f_min=f_min, f_max=8000, height_px=400, width_px=100)
    row = picture[:, 75].argmax()  # counted from the top
    assert 1 - (row + 0.5) / 400 == pytest.approx(place, abs=0.012)


def test_silence_is_darkest_and_the_loudest_value_is_brightest(tone):
    picture = grey(tone, width_px=100, frequency_axis="linear")
    assert picture[:, :40].max() == 0  # window and resizing reach 6.4 + 3.2 pixels before the tone at 50
    assert picture[:, 60:90].max(axis=0).min() >= 230  # all along the steady tone


def test_top_db_sets_the_range(tone):
    """A tone 20 dB below another is grey by its share of the range."""
    both = tone.with_name("both.wav")
    t = torch.arange(RATE) / RATE
    save_wav(both, 0.5 * torch.sin(2 * math.pi * 1000 * t) + 0.05 * torch.sin(2 * math.pi * 4000 * t), RATE)
    for top_db in (40, 80):
        picture = grey(both, top_db=top_db, frequency_axis="linear", height_px=1025, width_px=20)
        loud, soft = (picture[1025 - round(f / 8000 * 1025) - 3 :][:6, 10].max() for f in (1000, 4000))
        assert (loud - soft) / 255 * top_db == pytest.approx(20, abs=1.5)


def test_noise_threshold_darkens_that_share_of_the_values(tmp_path):
    noise = tmp_path / "noise.wav"
    save_wav(noise, 0.1 * torch.randn(RATE), RATE)
    settings = {"frequency_axis": "mel", "height_px": 128, "width_px": 32, "hop_length": 512}
    share = {p: (grey(noise, noise_percentile=p, **settings) < 20).mean() for p in (None, 75)}
    assert share[None] < 0.02
    assert 0.6 < share[75] < 0.8


@pytest.mark.parametrize("axis", ["mel", "log", "linear"])
def test_silence_alone_is_one_dark_picture(tmp_path, axis):
    save_wav(tmp_path / "silence.wav", torch.zeros(RATE), RATE)
    assert grey(tmp_path / "silence.wav", frequency_axis=axis, noise_percentile=50).max() == 0


@pytest.mark.parametrize("n_samples", [1, 10, 3000])
def test_short_files_have_a_picture_too(tmp_path, n_samples):
    save_wav(tmp_path / "short.wav", 0.5 * torch.ones(n_samples), RATE)
    assert pixels(render(tmp_path / "short.wav", width_px=64, height_px=32)).shape == (32, 64, 3)


@pytest.mark.parametrize("name", ["greys", "BLUES", "gray_r", "Viridis", "plasma", "oranges", "purples", "reds"])
def test_colormaps_are_found_in_any_case(tone, name):
    assert pixels(render(tone, cmap=name, width_px=8, height_px=8)).shape == (8, 8, 3)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"cmap": "nope"}, "cmap is 'nope'"),
        ({"f_min": 5000, "f_max": 4000}, "f_min is 5000 and f_max 4000"),
        ({"f_max": 9000}, "half the sample rate"),
        ({"frequency_axis": "bark"}, "frequency_axis is 'bark'"),
        ({"top_db": 0}, "top_db is 0"),
        ({"noise_percentile": 101}, "noise_percentile is 101"),
        ({"win_length": 4096}, "win_length is 4096"),
        ({"width_px": 0}, "width_px is 0"),
        ({"n_mels": 1000}, "n_mels is 1000"),
        ({"n_fft": 1}, "n_fft is 1; at least 2"),
        ({"hop_length": 0}, "hop_length is 0"),
        ({"sample_rate": 0}, "sample_rate is 0"),
        ({"downmix": "sum"}, "downmix is 'sum'"),
        ({"frequency_axis": "log", "f_max": 5}, "f_max is 5; above the first FFT bin"),
    ],
)
def test_impossible_settings_name_the_argument(tone, settings, message):
    with pytest.raises(ValueError, match=message):
        render(tone, **settings)


def picture_power(path, settings, n_columns):
    return next(mean_power(AudioFile(path, settings), settings, [(0, n_columns)], n_columns))


@pytest.mark.parametrize(("hop_length", "width_px"), [(100, 37), (100, 500), (37, 432), (3000, 4), (5000, 9)])
def test_a_column_is_the_mean_power_of_the_frames_it_touches(tmp_path, monkeypatch, hop_length, width_px):
    """In blocks of any size, as adaptive average pooling of the whole; the hop may be longer than the window."""
    save_wav(tmp_path / "noise.wav", 0.1 * torch.randn(RATE), RATE)
    settings = PictureSettings(
        n_fft=1024, hop_length=hop_length, width_px=width_px, frequency_axis="linear", height_px=513
    )
    waveform, _ = load_audio(tmp_path / "noise.wav")
    blocks = power_blocks([waveform], n_fft=1024, win_length=1024, hop_length=hop_length)
    power = torch.cat(list(blocks), dim=-1)
    rows = settings.rows(RATE) @ power[0]
    expected = torch.nn.functional.adaptive_avg_pool1d(rows, min(width_px, rows.shape[1]))
    monkeypatch.setattr(streams, "KEPT_SAMPLES", 0)
    for block_frames in (2**20, 5000, 333):
        monkeypatch.setattr(streams, "open_audio", partial(open_audio, block_frames=block_frames))
        level = to_db(picture_power(tmp_path / "noise.wav", settings, rows.shape[1]))
        torch.testing.assert_close(level, to_db(expected.double()), atol=1e-4, rtol=0)


@pytest.mark.parametrize("axis", ["mel", "log", "linear"])
def test_blocks_do_not_show(tmp_path, monkeypatch, axis):
    path, t = tmp_path / "sound.wav", torch.arange(3 * RATE) / RATE
    save_wav(path, torch.where(t < 1, 0.1 * torch.randn(len(t)), 0.5 * torch.sin(2 * math.pi * 440 * t)), RATE)
    settings = {"frequency_axis": axis, "width_px": 50, "noise_percentile": 30}
    whole = grey(path, **settings)
    monkeypatch.setattr(streams, "open_audio", partial(open_audio, block_frames=1001))
    assert np.array_equal(grey(path, **settings), whole)  # kept in memory
    monkeypatch.setattr(streams, "KEPT_SAMPLES", 20000)
    assert np.array_equal(grey(path, **settings), whole)  # decoded twice


@pytest.mark.parametrize("n_fft", [2, 64, 65, 2048])
@pytest.mark.parametrize("axis", ["log", "linear"])
def test_rows_are_means_of_the_bins(axis, n_fft):
    """Of equal power everywhere a row has that power."""
    rows = PictureSettings(n_fft=n_fft, frequency_axis=axis, height_px=50, f_min=1).rows(RATE)
    assert rows.shape == (50, n_fft // 2 + 1)
    assert rows.min() >= 0
    torch.testing.assert_close(rows.sum(dim=1), torch.ones(50))


def float_wav(path, amplitude):
    """Silence, then a constant."""
    samples = np.zeros(4000, np.float32)
    samples[2000:] = amplitude
    soundfile.write(path, samples, RATE, subtype="FLOAT")
    return path


@pytest.mark.parametrize("amplitude", [0, 1e-30, 1e-15, 1, 1e15])
def test_levels_are_finite_and_in_their_range(tmp_path, amplitude):
    settings = PictureSettings(n_fft=512, n_mels=32, noise_percentile=20)
    power = picture_power(float_wav(tmp_path / "float.wav", amplitude), settings, 32)
    level = settings.level(power, Scale(power))
    assert level.isfinite().all()
    assert level.min() == -80
    assert level.max() == pytest.approx(0 if amplitude > 1e-30 else -80, abs=0.1)


def test_samples_too_large_for_their_square_are_refused(tmp_path):
    with pytest.raises(AudioError, match=r"float\.wav: .*beyond full scale"):
        render(float_wav(tmp_path / "float.wav", 1e25))


def test_downmix_takes_the_channel_asked_for(tmp_path):
    t = torch.arange(RATE) / RATE
    left, right = (a * torch.sin(2 * math.pi * f * t) for a, f in ((0.1, 1000), (0.5, 4000)))
    save_wav(tmp_path / "stereo.wav", torch.stack([left, right]), RATE)
    for downmix, frequency in (("left", 1000), ("max_energy", 4000), ("mean", 4000)):
        picture = grey(tmp_path / "stereo.wav", downmix=downmix, frequency_axis="linear", height_px=160, width_px=9)
        assert (160 - picture[:, 4].argmax()) / 160 * 8000 == pytest.approx(frequency, abs=100)
        assert (picture[120:140, 4].max() > 100) == (downmix != "max_energy")  # around 1 kHz


@pytest.mark.parametrize("name", ["out.jpg", "out", "out.png.gz"])
def test_only_png_is_written(tone, tmp_path, name):
    with pytest.raises(ValueError, match=rf"output is .*{name}; the picture is a PNG"):
        render_file(tone, tmp_path / name)
    assert not list(tmp_path.iterdir())


def test_a_bad_file_writes_nothing(tmp_path):
    (tmp_path / "bad.wav").write_bytes(b"no sound")
    with pytest.raises(AudioError, match=r"bad\.wav"):
        render_file(tmp_path / "bad.wav", tmp_path / "out.png")
    assert not (tmp_path / "out.png").exists()


def test_the_task_writes_what_the_function_returns(tone, tmp_path):
    """To a file or, byte for byte alone, to standard output."""
    script = Path(__file__).parents[1] / "preprocess.py"
    command = [sys.executable, str(script), "task=render", "task/look=noise_gated", f"input={tone}", "task.width_px=50"]
    run = {"check": True, "capture_output": True, "cwd": tmp_path}
    printed = subprocess.run([*command, "output=-"], **run).stdout
    subprocess.run([*command, "output=a.png"], **run)
    expected = specgan.render(
        tone, frequency_axis="linear", f_max=5000, noise_percentile=75, cmap="gray_r", width_px=50
    )
    assert printed == (tmp_path / "a.png").read_bytes() == expected
    assert [path.name for path in tmp_path.glob("[!.]*")] == ["a.png"]


def test_mel_spectrogram_db_of_one_and_of_many():
    params = specgan.SpectrogramParams(sample_rate=22050, n_mels=128)
    waveforms = torch.randn(2, 22050)
    many = specgan.mel_spectrogram_db(waveforms, params)
    assert many.shape == (2, 128, 87)
    torch.testing.assert_close(specgan.mel_spectrogram_db(waveforms[1], params), many[1], atol=1e-3, rtol=1e-4)
    with pytest.raises(ValueError, match="level is 'log1p'"):
        specgan.mel_spectrogram_db(waveforms, specgan.SpectrogramParams(level="log1p"))


def test_the_package_has_no_other_names():
    with pytest.raises(AttributeError, match="nothing"):
        specgan.nothing  # noqa: B018
