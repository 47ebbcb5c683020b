"""specgan.clips.files: the files of a recording are its spectrogram, cut, pooled and painted as asked for."""

import io
import math
import os
import weakref
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path

import matplotlib
import matplotlib.image
import numpy as np
import pytest
import soundfile
import torch
from folders import contents as files

from specgan.audio import AudioStream, open_audio
from specgan.batch.executors import serial
from specgan.batch.failures import Failure, UnitError
from specgan.batch.journal import made_from
from specgan.batch.runner import Batch
from specgan.clips import files as files_module
from specgan.clips import levels as levels_module
from specgan.clips import on_device as device_module
from specgan.clips.clip import Clip, ClipEntry
from specgan.clips.files import make_clips, write_clips
from specgan.clips.levels import Loaded, levels_of
from specgan.clips.on_device import run_on_device
from specgan.clips.recipe import Recipe
from specgan.data.manifest import read_manifest
from specgan.files import atomic_path
from specgan.spectrogram import Spectrogram, SpectrogramParams
from specgan.tasks.spectrograms import make_spectrograms

RATE = 8000
PARAMS = SpectrogramParams(sample_rate=RATE, n_fft=256, win_length=256, hop_length=128, n_mels=16, n_frames=None)
LINEAR = replace(PARAMS, kind="linear")  # 129 bins, 31.25 Hz each
SLICES = replace(PARAMS, n_frames=10)


def noise(n_samples: int, *, channels: int = 1, seed: int = 0) -> np.ndarray:
    """(n_samples, channels), each channel another sound of another loudness."""
    samples = np.random.default_rng(seed).uniform(-0.9, 0.9, (n_samples, channels))
    return samples * 0.5 ** np.arange(channels)


def sine(hz: float, n_samples: int, *, amplitude: float = 1.0) -> np.ndarray:
    return amplitude * np.sin(2 * np.pi * hz * np.arange(n_samples) / RATE)


def write(path: Path, samples: np.ndarray, *, rate: int = RATE, subtype: str = "FLOAT") -> Clip:
    """A recording of label `a`, as a file that keeps the samples as they are."""
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, samples, rate, subtype=subtype)
    return Clip(path, "a", f"a/{path.stem}")


def make_clip(clip: Clip, *, recipe: Recipe, output: Path) -> ClipEntry:
    """The entry of one clip, whose files are made."""
    return only(make_clips([clip], recipe=recipe, output=output))


def make_long(clip: Clip, *, recipe: Recipe, output: Path) -> ClipEntry:
    """The same for a clip that is read block by block, as if it were long."""
    levels = levels_of(Loaded(clip, made_from(clip.sources), None), recipe=recipe)
    return only(write_clips([levels], recipe=recipe, output=output))


def only(outcomes: list[ClipEntry | UnitError]) -> ClipEntry:
    (outcome,) = outcomes
    if isinstance(outcome, UnitError):
        raise outcome
    return outcome


both_ways = pytest.mark.parametrize("make", [make_long, make_clip], ids=["long", "short"])


def tensor(folder: Path, name: str) -> torch.Tensor:
    return torch.load(folder / f"{name}.pt", weights_only=True)


def tensors(folder: Path) -> dict[str, torch.Tensor]:
    return {name: torch.load(folder / name, weights_only=True) for name in sorted(files(folder)) if ".pt" in name}


def pixels(path: Path) -> np.ndarray:
    """(height, width[, 3]) uint8, read by another library than the one that wrote it."""
    return (matplotlib.image.imread(io.BytesIO(path.read_bytes()), format="png") * 255).round().astype(np.uint8)


def colour(cmap: str, value: float) -> np.ndarray:
    return np.round(np.array(matplotlib.colormaps[cmap](value)[:3]) * 255).astype(np.uint8)


def power_of(samples: np.ndarray, params: SpectrogramParams = PARAMS) -> np.ndarray:
    """(channels, bins, frames); test_spectrogram.py holds it against librosa and torchaudio."""
    waveform = torch.from_numpy(np.atleast_2d(samples.T).astype(np.float32))
    return Spectrogram(params).power(waveform).double().numpy()


def decibels(power: np.ndarray, params: SpectrogramParams = PARAMS) -> np.ndarray:
    """By the definition: re the power of a sine of amplitude 1, with the floor added before the logarithm."""
    n = np.arange(params.win_length)
    window = 0.5 - 0.5 * np.cos(2 * np.pi * n / params.win_length)
    return 10 * np.log10(power / (window.sum() / 2) ** 2 + 10 ** (params.floor_db / 10))


def pooled_by_hand(power: np.ndarray, freq_pool: int, time_pool: int, how) -> np.ndarray:
    """(channels, bins, frames) -> fewer, window by window; the last ones may be smaller."""
    channels, bins, frames = power.shape
    result = np.empty((channels, math.ceil(bins / freq_pool), math.ceil(frames / time_pool)))
    for channel in range(channels):
        for row in range(result.shape[1]):
            for column in range(result.shape[2]):
                rows = slice(row * freq_pool, min((row + 1) * freq_pool, bins))
                columns = slice(column * time_pool, min((column + 1) * time_pool, frames))
                result[channel, row, column] = how(power[channel, rows, columns])
    return result


def assert_levels(actual: torch.Tensor, expected: np.ndarray, *, atol: float = 1e-4) -> None:
    assert actual.dtype == torch.float32
    assert tuple(actual.shape) == expected.shape
    np.testing.assert_allclose(actual.numpy(), expected, rtol=0, atol=atol)


# Tensors


@both_ways
def test_a_tensor_is_the_level_of_the_whole_recording(tmp_path, make):
    samples = noise(3001)
    clip = write(tmp_path / "x.wav", samples)
    entry = make(clip, recipe=Recipe(PARAMS), output=tmp_path / "out")
    assert set(files(tmp_path / "out")) == {"a/x.pt"}
    assert_levels(tensor(tmp_path / "out", "a/x"), decibels(power_of(samples))[0])
    status = clip.source.stat()
    assert entry["made_from"] == [[str(clip.source), status.st_size, status.st_mtime_ns]]
    assert entry["outputs"] == ["a/x.pt"]
    (row,) = entry["rows"]
    assert (row["path"], row["start_s"], row["n_frames"]) == ("a/x.pt", 0.0, 24)  # 3001 samples, 128 a frame
    assert row["duration_s"] == pytest.approx(3001 / RATE, abs=1e-6)


@both_ways
def test_slices_are_the_pieces_of_the_whole_spectrogram_and_the_last_is_filled_with_silence(tmp_path, make):
    samples = noise(3 * 1280 + 500)  # 10 frames of 128 samples a slice; 500 samples are 4 frames
    clip = write(tmp_path / "x.wav", samples)
    entry = make(clip, recipe=Recipe(SLICES), output=tmp_path / "out")
    whole = decibels(power_of(samples))[0]
    assert whole.shape[1] == 34
    names = [f"a/x_000{i}.pt" for i in range(4)]
    assert sorted(files(tmp_path / "out")) == names == entry["outputs"]
    for i, (name, row) in enumerate(zip(names, entry["rows"], strict=True)):
        assert (row["path"], row["n_frames"], row["start_s"]) == (name, 10, pytest.approx(i * 0.16))
        assert row["duration_s"] == pytest.approx(0.16 if i < 3 else 500 / RATE)
        piece = whole[:, 10 * i : 10 * i + 10]
        level = torch.load(tmp_path / "out" / name, weights_only=True)
        assert level.shape == (16, 10)
        assert_levels(level[:, : piece.shape[1]], piece)
        assert level[:, piece.shape[1] :].eq(PARAMS.floor_db).all()


@pytest.mark.parametrize(("n_samples", "n_slices"), [(1, 1), (1279, 1), (1280, 1), (1281, 2), (2560, 2)])
def test_there_is_a_slice_for_each_begun(tmp_path, n_samples, n_slices):
    clip = write(tmp_path / "x.wav", noise(n_samples))
    entry = make_clip(clip, recipe=Recipe(SLICES), output=tmp_path / "out")
    assert len(entry["outputs"]) == len(entry["rows"]) == n_slices
    assert sum(row["duration_s"] for row in entry["rows"]) == pytest.approx(n_samples / RATE, abs=1e-5)


@pytest.mark.parametrize("silence", [{"floor_db": -60.0}, {"level": "log1p"}])
def test_slices_are_filled_with_the_silence_of_their_settings(tmp_path, silence):
    params = replace(SLICES, **silence)
    clip = write(tmp_path / "x.wav", noise(500))
    make_clip(clip, recipe=Recipe(params), output=tmp_path / "out")
    filled = tensor(tmp_path / "out", "a/x_0000")[:, 4:]
    assert filled.unique().tolist() == [-60.0 if "floor_db" in silence else 0.0]


def test_a_source_that_became_shorter_leaves_no_old_slices(tmp_path):
    audio, specs = tmp_path / "audio", tmp_path / "specs"
    write(audio / "a" / "x.wav", noise(5000))
    write(audio / "a" / "y.wav", noise(2000, seed=1))
    make_spectrograms(audio, specs, params=SLICES)
    assert {f"a/x_000{i}.pt" for i in range(4)} | {"a/y_0000.pt", "a/y_0001.pt"} == set(tensors(specs))
    write(audio / "a" / "x.wav", noise(1500, seed=2))
    assert make_spectrograms(audio, specs, params=SLICES).n_done == 1
    assert set(tensors(specs)) == {"a/x_0000.pt", "a/x_0001.pt", "a/y_0000.pt", "a/y_0001.pt"}
    table = read_manifest(specs)
    assert sorted(table["path"]) == sorted(tensors(specs))
    assert table.groupby("recording")["start_s"].apply(list).to_dict() == {"a/x": [0, 0.16], "a/y": [0, 0.16]}


def test_slices_of_a_recording_stay_in_one_split(tmp_path):
    for i in range(6):
        write(tmp_path / "audio" / "a" / f"{i}.wav", noise(4000, seed=i))
    make_spectrograms(tmp_path / "audio", tmp_path / "specs", params=SLICES, splits=(50, 25, 25))
    table = read_manifest(tmp_path / "specs")
    assert len(table) == 6 * 4
    assert table.groupby("recording")["split"].nunique().eq(1).all()
    assert set(table["split"]) == {"train", "val", "test"}


# Pooling


@both_ways
@pytest.mark.parametrize("pool_mode", ["avg", "max"])
@pytest.mark.parametrize(("freq_pool", "time_pool"), [(1, 4), (5, 7), (16, 1)], ids=str)
def test_pooling_is_of_the_power_before_it_becomes_decibels(tmp_path, make, pool_mode, freq_pool, time_pool):
    samples = noise(3001)  # 24 frames: the last window of 7 has 3, and that of 5 bands has 1
    clip = write(tmp_path / "x.wav", samples)
    recipe = Recipe(PARAMS, freq_pool=freq_pool, time_pool=time_pool, pool_mode=pool_mode)
    entry = make(clip, recipe=recipe, output=tmp_path / "out")
    how = {"avg": np.mean, "max": np.max}[pool_mode]
    expected = decibels(pooled_by_hand(power_of(samples), freq_pool, time_pool, how))[0]
    assert_levels(tensor(tmp_path / "out", "a/x"), expected)
    assert entry["rows"][0]["n_frames"] == math.ceil(24 / time_pool)
    assert entry["rows"][0]["duration_s"] == pytest.approx(3001 / RATE, abs=1e-6)  # of the sound, as ever


@pytest.mark.parametrize("pool_mode", ["avg", "max"])
def test_pooled_slices_are_the_pieces_of_the_pooled_whole(tmp_path, pool_mode):
    samples = noise(3 * 1280 + 500)
    clip = write(tmp_path / "x.wav", samples)
    recipe = Recipe(SLICES, time_pool=5, freq_pool=3, pool_mode=pool_mode)
    entry = make_clip(clip, recipe=recipe, output=tmp_path / "out")
    how = {"avg": np.mean, "max": np.max}[pool_mode]
    whole = decibels(pooled_by_hand(power_of(samples), 3, 5, how))[0]
    assert whole.shape == (6, 7)  # 34 frames: the last window has 4
    levels = torch.cat(list(tensors(tmp_path / "out").values()), dim=1)
    assert_levels(levels[:, :7], whole)
    assert levels[:, 7:].eq(PARAMS.floor_db).all()
    assert [row["n_frames"] for row in entry["rows"]] == [2] * 4
    assert [row["start_s"] for row in entry["rows"]] == pytest.approx([0, 0.16, 0.32, 0.48])


@both_ways
@pytest.mark.parametrize(
    "settings",
    [
        {"time_pool": 4, "freq_pool": 2},
        {"time_pool": 9, "pool_mode": "max"},
        {"params": SLICES},
        {"params": SLICES, "time_pool": 5},
        {"mono": False},
    ],
    ids=["avg", "max", "slices", "pooled slices", "channels"],
)
def test_nothing_depends_on_how_many_frames_are_transformed_at_a_time(tmp_path, monkeypatch, make, settings):
    clip = write(tmp_path / "x.wav", noise(6005, channels=2))
    recipe = Recipe(**{"params": PARAMS, **settings})
    make(clip, recipe=recipe, output=tmp_path / "whole")
    monkeypatch.setattr("specgan.spectrogram.power.MOST_FRAMES", 7)
    make(clip, recipe=recipe, output=tmp_path / "pieces")
    whole, pieces = tensors(tmp_path / "whole"), tensors(tmp_path / "pieces")
    assert list(whole) == list(pieces)
    for name in whole:
        torch.testing.assert_close(pieces[name], whole[name], rtol=0, atol=1e-5)


# Channels


@both_ways
@pytest.mark.parametrize("n_channels", [1, 2, 6])
def test_mono_false_keeps_the_channels_in_order(tmp_path, make, n_channels):
    samples = noise(2000, channels=n_channels)
    clip = write(tmp_path / "x.wav", samples)
    entry = make(clip, recipe=Recipe(PARAMS, mono=False, format="both"), output=tmp_path / "out")
    pictures = [f"a/x_ch{channel}.png" for channel in range(n_channels)]
    assert entry["outputs"] == ["a/x.pt", *pictures]
    assert set(files(tmp_path / "out")) == {"a/x.pt", *pictures}
    assert [row["path"] for row in entry["rows"]] == ["a/x.pt"]
    level = tensor(tmp_path / "out", "a/x")
    assert level.shape == (n_channels, 16, 16)
    assert_levels(level, decibels(power_of(samples)))  # by channel
    for channel, name in enumerate(pictures):
        alone = write(tmp_path / "one" / f"{channel}.wav", samples[:, channel])
        make_clip(alone, recipe=Recipe(PARAMS, format="png"), output=tmp_path / "one")
        assert (tmp_path / "out" / name).read_bytes() == (tmp_path / "one" / f"a/{channel}.png").read_bytes()


def test_channels_of_slices_are_named_after_the_slice(tmp_path):
    clip = write(tmp_path / "x.wav", noise(2000, channels=2))
    entry = make_clip(clip, recipe=Recipe(SLICES, mono=False, format="png"), output=tmp_path / "out")
    names = [f"a/x_000{i}_ch{channel}.png" for i in range(2) for channel in range(2)]
    assert [row["path"] for row in entry["rows"]] == entry["outputs"] == names
    assert [row["start_s"] for row in entry["rows"]] == pytest.approx([0, 0, 0.16, 0.16])


@both_ways
@pytest.mark.parametrize(
    ("downmix", "mix"),
    [
        ("mean", lambda samples: samples.mean(axis=1)),
        ("left", lambda samples: samples[:, 0]),
        ("max_energy", lambda samples: samples[:, 1]),
    ],
)
def test_downmix_of_channels(tmp_path, make, downmix, mix):
    samples = noise(2000, channels=3)[:, [1, 0, 2]]  # the second is the loudest
    clip = write(tmp_path / "x.wav", samples)
    make(clip, recipe=Recipe(PARAMS, downmix=downmix), output=tmp_path / "out")
    assert_levels(tensor(tmp_path / "out", "a/x"), decibels(power_of(mix(samples)))[0])


# Kind and peak


@both_ways
@pytest.mark.parametrize("mono", [True, False])
def test_peak_is_of_all_channels_of_the_recording(tmp_path, make, mono):
    samples = noise(2000, channels=2)
    clip = write(tmp_path / "x.wav", samples)
    make(clip, recipe=Recipe(PARAMS, peak=0.5, mono=mono), output=tmp_path / "out")
    kept = samples if not mono else samples.mean(axis=1, keepdims=True)
    expected = decibels(power_of(kept * 0.5 / np.abs(kept).max()))
    assert_levels(tensor(tmp_path / "out", "a/x"), expected[0] if mono else expected)


@both_ways
def test_silence_stays_silence_when_it_is_scaled(tmp_path, make):
    clip = write(tmp_path / "x.wav", np.zeros(2000))
    make(clip, recipe=Recipe(PARAMS, peak=0.5), output=tmp_path / "out")
    assert tensor(tmp_path / "out", "a/x").unique().tolist() == [PARAMS.floor_db]


# Pictures


@pytest.mark.parametrize("grayscale", [False, True])
@pytest.mark.parametrize("image_scale", [1, 3, 0.5])
@pytest.mark.parametrize(("params", "pool"), [(PARAMS, 1), (LINEAR, 1), (SLICES, 1), (PARAMS, 2)])
def test_a_picture_has_a_pixel_a_value_times_scale(tmp_path, params, pool, image_scale, grayscale):
    recipe = Recipe(params, format="png", image_scale=image_scale, time_pool=pool, freq_pool=pool, grayscale=grayscale)
    clip = write(tmp_path / "x.wav", noise(2560))  # 20 frames
    entry = make_clip(clip, recipe=recipe, output=tmp_path / "out")
    bins, frames = {"mel": 16, "linear": 129}[params.kind] // pool, (params.n_frames or 20) // pool
    size = (round(bins * image_scale), round(frames * image_scale))
    assert len(entry["rows"]) == (1 if params.n_frames is None else 2)
    for row in entry["rows"]:
        assert row["path"].endswith(".png")
        assert row["n_frames"] == frames
        assert pixels(tmp_path / "out" / row["path"]).shape == (size if grayscale else (*size, 3))


def test_a_low_tone_is_at_the_bottom_and_time_runs_to_the_right(tmp_path):
    samples = np.zeros(20 * 128)
    samples[10 * 128 :] = sine(250, 10 * 128)  # bin 8
    clip = write(tmp_path / "x.wav", samples)
    make_clip(clip, recipe=Recipe(LINEAR, format="png", grayscale=True), output=tmp_path / "out")
    picture = pixels(tmp_path / "out" / "a" / "x.png")
    assert picture[:, 15].argmax() == 129 - 1 - 8
    assert (picture[:, :8] == 0).all()
    assert picture[129 - 1 - 8, 12:19].min() >= 254


@pytest.mark.parametrize("cmap", ["magma", "viridis", "tab10"])
@pytest.mark.parametrize("floor_db", [-80.0, -40.0])
def test_colours_reach_from_the_floor_to_a_full_scale_sine_whatever_else_is_in_the_folder(tmp_path, cmap, floor_db):
    samples = np.concatenate([np.zeros(1280), sine(1000, 1280), np.zeros(1280)])
    clip = write(tmp_path / "x.wav", samples)
    recipe = Recipe(replace(LINEAR, floor_db=floor_db), format="png", cmap=cmap)
    make_clip(clip, recipe=recipe, output=tmp_path / "out")
    picture = pixels(tmp_path / "out" / "a" / "x.png")
    np.testing.assert_array_equal(picture[:, 2], np.tile(colour(cmap, 0.0), (129, 1)))
    np.testing.assert_array_equal(picture[129 - 1 - 32, 15], colour(cmap, 1.0))
    quiet = write(tmp_path / "quiet.wav", samples * 0.1)  # -20 dB
    make_clip(quiet, recipe=replace(recipe, grayscale=True), output=tmp_path / "out")
    grey = int(pixels(tmp_path / "out" / "a" / "quiet.png")[129 - 1 - 32, 15])
    assert grey == pytest.approx(255 * (1 - 20 / -floor_db), abs=1.1)


@pytest.mark.parametrize("grayscale", [False, True])
def test_log1p_pictures_reach_from_their_lowest_to_their_highest_value(tmp_path, grayscale):
    params = replace(LINEAR, level="log1p")
    recipe = Recipe(params, format="both", grayscale=grayscale)
    for name, amplitude in (("loud", 1.0), ("quiet", 0.01)):
        clip = write(tmp_path / f"{name}.wav", amplitude * noise(2000))
        make_clip(clip, recipe=recipe, output=tmp_path / "out")
        level = tensor(tmp_path / "out", f"a/{name}")
        picture = pixels(tmp_path / "out" / "a" / f"{name}.png")[::-1]
        for extreme, value in ((level.argmin(), 0.0), (level.argmax(), 1.0)):
            place = np.unravel_index(int(extreme), level.shape)
            expected = round(255 * value) if grayscale else colour("magma", value)
            np.testing.assert_array_equal(picture[place], expected)


def test_formats_hold_the_same(tmp_path):
    clip = write(tmp_path / "x.wav", noise(2000))
    entries = {
        name: make_clip(clip, recipe=Recipe(SLICES, format=name), output=tmp_path / name)
        for name in ("pt", "png", "both")
    }
    made = {name: files(tmp_path / name) for name in entries}
    assert set(made["pt"]) == {"a/x_0000.pt", "a/x_0001.pt"}
    assert set(made["png"]) == {"a/x_0000.png", "a/x_0001.png"}
    assert made["both"] == made["pt"] | made["png"]
    rows = {name: [row["path"] for row in entry["rows"]] for name, entry in entries.items()}
    assert rows["both"] == rows["pt"] == sorted(made["pt"])
    assert rows["png"] == sorted(made["png"])


def test_a_tensor_file_is_no_larger_than_its_values(tmp_path):
    clip = write(tmp_path / "x.wav", noise(128 * 1000))
    make_clip(clip, recipe=Recipe(SLICES), output=tmp_path / "out")
    assert max(len(content) for content in files(tmp_path / "out").values()) < 16 * 10 * 4 + 4000


# Settings


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"downmix": "right"}, "downmix is 'right'; one of mean, left, max_energy"),
        ({"pool_mode": "median"}, "pool_mode is 'median'; one of avg, max"),
        ({"format": "jpg"}, "format is 'jpg'; one of pt, png, both"),
        ({"time_pool": 0}, "time_pool is 0"),
        ({"time_pool": 1.5}, r"time_pool is 1\.5"),
        ({"freq_pool": 17}, "freq_pool is 17; .* to 16"),
        ({"params": SLICES, "time_pool": 11}, "time_pool is 11; .* to 10"),
        ({"params": SLICES, "time_pool": 4}, r"time_pool is 4; n_frames \(10\) must be a multiple"),
        ({"params": LINEAR, "freq_pool": 130}, "freq_pool is 130; .* to 129"),
        ({"peak": 0}, "peak is 0"),
        ({"peak": 1.01}, r"peak is 1\.01"),
        ({"peak": math.nan}, "peak is nan"),
        ({"image_scale": 0}, "image_scale is 0"),
        ({"format": "png", "image_scale": math.nan}, "image_scale is nan"),
        ({"format": "png", "image_scale": math.inf}, "image_scale is inf"),
        ({"format": "png", "cmap": "magmaa"}, "cmap is 'magmaa'"),
        ({"device": "gpu"}, "device is 'gpu'"),
        ({"device": "meta"}, "device is 'meta'"),
    ],
)
def test_an_impossible_setting_is_named_with_its_value_and_nothing_is_written(tmp_path, settings, message):
    write(tmp_path / "audio" / "a" / "x.wav", noise(2000))
    with pytest.raises(ValueError, match=message):
        make_spectrograms(tmp_path / "audio", tmp_path / "specs", **{"params": PARAMS, **settings})
    assert not (tmp_path / "specs").exists()


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_device_that_is_not_there_is_refused_before_anything_is_written(tmp_path):
    write(tmp_path / "audio" / "a" / "x.wav", noise(2000))
    with pytest.raises(ValueError, match="device is 'cuda'"):
        make_spectrograms(tmp_path / "audio", tmp_path / "specs", params=PARAMS, device="cuda")
    assert not (tmp_path / "specs").exists()


# Failures


@both_ways
@pytest.mark.parametrize("channels", [1, 2])
def test_nan_late_in_a_long_file_leaves_none_of_its_slices(tmp_path, monkeypatch, make, channels):
    samples = noise(50_000, channels=channels)
    samples[49_000] = np.nan
    clip = write(tmp_path / "x.wav", samples)
    fine = write(tmp_path / "fine.wav", noise(50_000, channels=channels))
    monkeypatch.setattr(levels_module, "open_audio", partial(open_audio, block_frames=4000))
    recipe = Recipe(SLICES, format="both")
    make(fine, recipe=recipe, output=tmp_path / "out")
    before = files(tmp_path / "out")
    assert len(before) == 2 * 40
    with pytest.raises(UnitError, match=r"x\.wav: .*NaN.*6\.0 s") as info:  # the block from sample 48,000 on
        make(clip, recipe=recipe, output=tmp_path / "out")
    assert info.value.stage == "decode"
    assert files(tmp_path / "out") == before  # hidden files included


@both_ways
@pytest.mark.parametrize("peak", [None, 0.5])
@pytest.mark.parametrize("block_frames", [2**20, 1000])
def test_what_is_wrong_with_a_file_is_said_once(tmp_path, monkeypatch, caplog, make, peak, block_frames):
    samples = noise(20_000)
    clip = write(tmp_path / "x.wav", np.concatenate([samples, -samples], axis=1))  # antiphase
    clip.source.write_bytes(clip.source.read_bytes()[:-80_000])  # and cut in half
    monkeypatch.setattr(levels_module, "open_audio", partial(open_audio, block_frames=block_frames))
    make(clip, recipe=Recipe(PARAMS, peak=peak), output=tmp_path / "out")
    messages = [record.getMessage() for record in caplog.records]
    assert sorted(("cut short" in text, "antiphase" in text) for text in messages) == [(False, True), (True, False)]


@both_ways
def test_a_full_disk_leaves_none_of_the_files(tmp_path, monkeypatch, make):
    clip = write(tmp_path / "x.wav", noise(50_000))
    calls = []

    @contextmanager
    def fill_up(path):
        with atomic_path(path) as temporary:
            yield temporary
            calls.append(path)
            if len(calls) == 7:
                os.truncate(temporary, 100)
                raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch, pytest.raises(UnitError, match="No space left") as info:
        patch.setattr(files_module, "atomic_path", fill_up)
        make(clip, recipe=Recipe(SLICES, format="both"), output=tmp_path / "out")
    assert info.value.stage == "write"
    assert files(tmp_path / "out") == {}


def test_a_group_gives_each_clip_what_it_gets_alone_and_goes_on_past_bad_ones(tmp_path, monkeypatch):
    monkeypatch.setattr(levels_module, "_GROUP_SAMPLES", 5000)  # several groups
    clips = [write(tmp_path / f"{i}.wav", noise(700 * i, seed=i, channels=1 + i % 2)) for i in range(1, 9)]
    (tmp_path / "2.wav").write_bytes(b"no sound at all")
    (tmp_path / "8.wav").write_bytes(b"")
    clips.insert(3, Clip(tmp_path / "gone.wav", "a", "a/gone"))
    recipe = Recipe(SLICES, format="both", mono=False)
    outcomes = make_clips(clips, recipe=recipe, output=tmp_path / "group")
    errors = {clip.source.name: o.stage for clip, o in zip(clips, outcomes, strict=True) if isinstance(o, UnitError)}
    assert errors == {"2.wav": "decode", "8.wav": "decode", "gone.wav": "decode"}
    for clip, outcome in zip(clips, outcomes, strict=True):
        if not isinstance(outcome, UnitError):
            assert make_clip(clip, recipe=recipe, output=tmp_path / "alone") == outcome
    assert files(tmp_path / "group") == files(tmp_path / "alone")


# Long recordings


LONG = {
    "whole": {},
    "peak": {"peak": 0.5},
    "slices": {"params": SLICES},
    "pooled": {"time_pool": 7, "freq_pool": 3},
    "pooled slices, peak": {"params": SLICES, "time_pool": 5, "pool_mode": "max", "peak": 1.0},
    "channels": {"mono": False, "peak": 0.25},
    "loudest channel": {"downmix": "max_energy"},
    "pictures": {"params": SLICES, "format": "both"},
}


@both_ways
@pytest.mark.parametrize("rate", [RATE, 22050], ids=["same rate", "resampled"])
@pytest.mark.parametrize("settings", LONG.values(), ids=LONG)
def test_a_file_in_several_blocks_gives_the_same_as_in_one(tmp_path, monkeypatch, make, rate, settings):
    clip = write(tmp_path / "x.wav", noise(round(2.5 * rate), channels=2), rate=rate)
    recipe = Recipe(**{"params": PARAMS, **settings})
    one = make(clip, recipe=recipe, output=tmp_path / "one")
    monkeypatch.setattr(levels_module, "open_audio", partial(open_audio, block_frames=3001))
    several = make(clip, recipe=recipe, output=tmp_path / "several")
    assert set(files(tmp_path / "one")) == set(files(tmp_path / "several"))
    levels = tensors(tmp_path / "several")
    for name, level in tensors(tmp_path / "one").items():
        torch.testing.assert_close(levels[name], level, rtol=0, atol=1e-5)
    for row, expected in zip(several.pop("rows"), one.pop("rows"), strict=True):
        assert row.pop("peak_level") == pytest.approx(expected.pop("peak_level"), abs=1e-5)
        assert row == expected
    assert several == one
    for path in sorted(tmp_path.glob("one/a/*.png")):
        steps = pixels(path).astype(int) - pixels(tmp_path / "several" / "a" / path.name)
        assert np.abs(steps).max() <= 4  # a neighbour in the palette


@both_ways
@pytest.mark.parametrize("settings", [{}, {"mono": False}, {"params": SLICES, "format": "both"}])
def test_a_long_tensor_has_the_bytes_of_a_short_one(tmp_path, monkeypatch, make, settings):
    """Long ones are put together, and written, in parts."""
    clip = write(tmp_path / "x.wav", noise(20_000, channels=2))
    recipe = Recipe(**{"params": PARAMS, **settings})
    make(clip, recipe=recipe, output=tmp_path / "short")
    monkeypatch.setattr("specgan.spectrogram.power.MOST_FRAMES", 7)  # parts of that many frames
    make(clip, recipe=recipe, output=tmp_path / "pieces")
    for module in (files_module, levels_module):
        monkeypatch.setattr(module, "PART_BYTES", 1000)
    make(clip, recipe=recipe, output=tmp_path / "long")
    assert files(tmp_path / "long") == files(tmp_path / "pieces")
    assert {name: len(content) for name, content in files(tmp_path / "short").items() if ".pt" in name} == {
        name: len(content) for name, content in files(tmp_path / "long").items() if ".pt" in name
    }


@both_ways
@pytest.mark.parametrize("peak", [None, 0.5])
def test_blocks_of_a_long_file_are_not_kept(tmp_path, monkeypatch, make, peak):
    alive: set[int] = set()
    counts: list[int] = []

    @contextmanager
    def open_hours(path, **settings):
        def read():
            for i in range(40):
                memory = noise(4000, seed=i).T.astype(np.float32)
                alive.add(i)
                weakref.finalize(memory, alive.discard, i)  # when no tensor uses it any more
                counts.append(len(alive))
                yield torch.from_numpy(memory)
                del memory

        yield AudioStream(RATE, 1, read())

    monkeypatch.setattr(levels_module, "open_audio", open_hours)
    (tmp_path / "x.wav").touch()
    entry = make(Clip(tmp_path / "x.wav", "a", "a/x"), recipe=Recipe(SLICES, peak=peak), output=tmp_path / "out")
    assert len(entry["outputs"]) == math.ceil(160_000 / 1280)
    assert len(counts) >= 40
    assert max(counts) <= 4


# Batches on a device


def on_device(
    clips: list[Clip], output: Path, recipe: Recipe, *, device: str, on_error: str = "skip", executor=serial
) -> dict:
    batch = Batch(executor, on_error, "spectrograms")
    results = run_on_device(clips, batch=batch, recipe=recipe, output=output, device=device, shard_size=1)
    return {clip.recording: outcome for clip, outcome in results}


# "cpu:0" is the CPU, but as a device of its own: it has batches, where "cpu" has none
devices = pytest.mark.parametrize("device", ["cpu", "cpu:0", *(["cuda"] if torch.cuda.is_available() else [])])


@devices
@pytest.mark.parametrize("batch_samples", [1, 20_000, 2**23])
@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"mono": False},
        {"peak": 0.5},
        {"time_pool": 3, "freq_pool": 4},
        {"params": SLICES},
        {"params": SLICES, "time_pool": 5, "pool_mode": "max", "mono": False},
        {"params": LINEAR},
        {"params": replace(PARAMS, level="log1p")},
    ],
    ids=["mono", "channels", "peak", "pooled", "slices", "pooled slices of channels", "linear", "log1p"],
)
def test_batches_on_a_device_give_each_clip_what_it_gets_alone(tmp_path, monkeypatch, device, batch_samples, settings):
    monkeypatch.setattr(device_module, "_BATCH_SAMPLES", batch_samples)
    monkeypatch.setattr(levels_module, "open_audio", partial(open_audio, block_frames=10_000))
    lengths = [1, 127, 5000, 128, 25_000, 3000, 900, 10_000, 4001]  # the fifth is long: it comes in three blocks
    clips = [
        write(tmp_path / f"{i}.wav", noise(length, channels=1 + i % 2, seed=i)) for i, length in enumerate(lengths)
    ]
    recipe = Recipe(**{"params": PARAMS, **settings})
    entries = on_device(clips, tmp_path / "device", recipe, device=device)
    assert set(entries) == {clip.recording for clip in clips}
    for clip in clips:
        expected, entry = make_clip(clip, recipe=recipe, output=tmp_path / "alone"), entries[clip.recording]
        for row, twin in zip(expected.pop("rows"), entry.pop("rows"), strict=True):
            assert row.pop("peak_level") == pytest.approx(twin.pop("peak_level"), abs=1e-4)
            assert row == twin
        assert entry == expected
    alone = tensors(tmp_path / "alone")
    assert set(files(tmp_path / "device")) == set(alone)
    for name, level in tensors(tmp_path / "device").items():
        torch.testing.assert_close(level, alone[name], rtol=0, atol=1e-4)


@devices
def test_a_bad_file_among_batches_fails_alone(tmp_path, monkeypatch, device):
    monkeypatch.setattr(device_module, "_BATCH_SAMPLES", 3000)
    monkeypatch.setattr(levels_module, "open_audio", partial(open_audio, block_frames=10_000))
    clips = [write(tmp_path / f"{i}.wav", noise(1000 + i, seed=i)) for i in range(8)]
    (tmp_path / "3.wav").write_bytes(b"no sound at all")
    samples = noise(25_000)
    samples[24_000] = np.nan
    write(tmp_path / "5.wav", samples)  # which is found when the blocks are read
    outcomes = on_device(clips, tmp_path / "out", Recipe(SLICES), device=device)
    failures = {name: outcome for name, outcome in outcomes.items() if isinstance(outcome, Failure)}
    assert set(failures) == {"a/3", "a/5"}
    assert {(failure.path, failure.stage) for failure in failures.values()} == {
        (str(tmp_path / "3.wav"), "decode"),
        (str(tmp_path / "5.wav"), "decode"),
    }
    assert set(files(tmp_path / "out")) == {f"a/{i}_0000.pt" for i in (0, 1, 2, 4, 6, 7)}


@devices
@pytest.mark.parametrize("long", [False, True])
def test_a_bad_file_among_batches_is_raised_where_asked_for(tmp_path, monkeypatch, device, long):
    monkeypatch.setattr(levels_module, "open_audio", partial(open_audio, block_frames=10_000))
    clips = [write(tmp_path / f"{i}.wav", noise(1000 + i, seed=i)) for i in range(4)]
    (tmp_path / "1.wav").write_bytes(b"no sound at all")
    if long:
        samples = noise(25_000)
        samples[24_000] = np.nan
        write(tmp_path / "1.wav", samples)
    ended = []

    @contextmanager
    def workers():
        try:
            with serial() as pool:
                yield pool
        finally:
            ended.append(True)

    with pytest.raises(UnitError, match=r"1\.wav") as info:
        on_device(clips, tmp_path / "out", Recipe(SLICES), device=device, on_error="raise", executor=workers)
    assert ended == [True]  # at once, though `info` still holds the frames of the call
    assert info.value.stage == "decode"
    assert not list(tmp_path.glob("out/a/1_*"))
