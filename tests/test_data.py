"""specgan.data.dataset and specgan.data.datamodule: examples of one length, dealt the same way by the same seed."""

import logging
import shutil
import subprocess
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import soundfile
import torch
from torch.utils.data import DataLoader

from specgan.audio import AudioError, open_audio, resample, save_wav
from specgan.data.datamodule import SpectrogramDataModule
from specgan.data.dataset import SpectrogramDataset, as_batched
from specgan.data.fingerprint import fingerprint
from specgan.data.folder import read_info
from specgan.data.manifest import REQUIRED_COLUMNS, read_manifest, write_manifest
from specgan.spectrogram import LevelRange, Spectrogram, SpectrogramParams, denormalise, normalise
from specgan.tasks.spectrograms import make_spectrograms

# 16 frames of 128 samples: an example is 2048 samples
PARAMS = SpectrogramParams(sample_rate=8000, n_fft=256, win_length=256, hop_length=128, n_mels=16, n_frames=16)
WHOLE = replace(PARAMS, n_frames=None)  # as clips are made to be cut while training


def noise(n_samples: int, *, seed: int = 0, peak: float = 0.5) -> torch.Tensor:
    samples = torch.rand(n_samples, generator=torch.Generator().manual_seed(seed)) * 2 - 1
    return peak * samples / samples.abs().max()


def make_one(root: Path, waveform: torch.Tensor, params: SpectrogramParams = PARAMS, **settings) -> SpectrogramDataset:
    """A dataset of one recording."""
    save_wav(root / "audio" / "a" / "0.wav", waveform, PARAMS.sample_rate)
    settings = {"params": replace(params, n_frames=None), "keep_sounds": 1, **settings}
    make_spectrograms(root / "audio", root / "specs", **settings)
    return SpectrogramDataset(root / "specs", "train", params)


def sound_of(dataset: SpectrogramDataset, index: int) -> torch.Tensor:
    return dataset.waveforms([(index, 0.0)])


@pytest.fixture(scope="module")
def audio(tmp_path_factory) -> Path:
    """Ten recordings of each of two classes: half shorter, half much longer than an example."""
    root = tmp_path_factory.mktemp("sounds") / "audio"
    for k, label in enumerate(("hiss", "rush")):
        for i in range(10):
            waveform = noise(1000 if i % 2 else 9000, seed=100 * k + i, peak=0.1 + 0.05 * i)
            save_wav(root / label / f"{i}.wav", waveform, PARAMS.sample_rate)
    return root


@pytest.fixture(scope="module")
def specs(audio, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("specs")
    make_spectrograms(audio, folder, params=WHOLE, splits=(80, 10, 10))
    return folder


# SpectrogramDataset


def test_splits_share_out_the_clips_and_know_their_labels(specs):
    splits = {split: SpectrogramDataset(specs, split, PARAMS) for split in ("train", "val", "test")}
    assert {split: len(dataset) for split, dataset in splits.items()} == {"train": 16, "val": 2, "test": 2}
    sources = [source for dataset in splits.values() for source in dataset.sources]
    assert len(set(sources)) == 20
    for dataset in splits.values():
        assert dataset.class_names == ["hiss", "rush"]
        assert [dataset.class_names[label] for label in dataset.labels] == [
            Path(s).parent.name for s in dataset.sources
        ]


def test_items_have_one_shape_and_range(specs):
    dataset = SpectrogramDataset(specs, "train", PARAMS)
    items = torch.stack([spectrogram for spectrogram, _ in dataset])
    assert items.shape == (16, 1, 16, 16)
    assert items.dtype == torch.float32
    assert items.min() == -1  # the silence behind short clips
    whole = SpectrogramDataset(specs, "train", replace(PARAMS, n_frames=71))
    assert max(spectrogram.max() for spectrogram, _ in whole) == pytest.approx(1)  # the loudest of the training split


def test_clips_louder_than_the_training_split_stay_in_range(audio, tmp_path):
    shutil.copytree(audio, tmp_path / "audio")
    make = partial(make_spectrograms, tmp_path / "audio", tmp_path / "specs", params=WHOLE, splits=(50, 25, 25))
    make()
    for source in SpectrogramDataset(tmp_path / "specs", "val", PARAMS).sources:
        save_wav(source, torch.sin(torch.arange(9000.0)), 8000)  # nearly all in one band
    make()
    for spectrogram, _ in SpectrogramDataset(tmp_path / "specs", "val", PARAMS):
        assert spectrogram.max() == 1
        assert spectrogram.min() >= -1


@pytest.mark.parametrize("level", ["db", "log1p"])
def test_a_batch_is_its_examples_one_by_one(audio, tmp_path, level):
    make_spectrograms(audio, tmp_path, params=replace(WHOLE, level=level))
    dataset = SpectrogramDataset(tmp_path, "train", replace(PARAMS, level=level))
    items = [(i, position) for position in (0.0, 0.123, 0.5, 1.0) for i in (0, 7, 19, 7, 4)]  # longer and shorter
    spectrograms, labels = dataset.__getitems__(items)
    assert spectrograms.shape == (20, 1, 16, 16)
    assert spectrograms.is_contiguous()
    assert (spectrograms.dtype, labels.dtype) == (torch.float32, torch.int64)
    for item, spectrogram, label in zip(items, spectrograms, labels, strict=True):
        alone, its_label = dataset[item]
        assert torch.equal(spectrogram, alone)
        assert label == its_label
        start = round(item[1] * max(0, int(dataset.n_frames_of[item[0]]) - 16))  # and by hand
        whole = dataset.level(item[0])[:, start : start + 16]
        padded = torch.nn.functional.pad(whole, (0, 16 - whole.shape[1]), value=dataset.params.silence)
        torch.testing.assert_close(alone[0], normalise(padded, dataset.params, dataset.level_range), rtol=0, atol=1e-6)
    assert as_batched((spectrograms, labels)) == (spectrograms, labels)


def test_indices_alone_are_examples_from_their_start(specs):
    dataset = SpectrogramDataset(specs, "train", PARAMS)
    (batch,) = DataLoader(dataset, 16, collate_fn=as_batched)
    assert torch.equal(batch[0], torch.stack([dataset[i, 0.0][0] for i in range(16)]))
    assert torch.equal(batch[1], dataset.labels)


def test_the_order_is_a_permutation_that_the_generator_decides(specs):
    dataset = SpectrogramDataset(specs, "train", PARAMS)
    order = dataset.order(torch.Generator().manual_seed(2))
    assert torch.equal(order, torch.randperm(16, generator=torch.Generator().manual_seed(2)))


def test_an_empty_split_has_no_examples(audio, tmp_path):
    make_spectrograms(audio, tmp_path, params=WHOLE)
    for folder in (tmp_path, make_few(tmp_path / "few", format="shards")):
        dataset = SpectrogramDataset(folder, "val", PARAMS)
        assert (len(dataset), dataset.sources) == (0, [])
        assert dataset.order(torch.Generator()).tolist() == []


def test_frames_are_held_once(audio, tmp_path):
    """Also where the manifest does not say how many there are."""
    make_spectrograms(audio, tmp_path, params=WHOLE)
    told = SpectrogramDataset(tmp_path, "train", PARAMS)
    assert told._frames.untyped_storage().nbytes() == int(told.n_frames_of.sum()) * 16 * 4
    write_manifest(read_manifest(tmp_path)[list(REQUIRED_COLUMNS)], tmp_path)
    untold = SpectrogramDataset(tmp_path, "train", PARAMS)
    assert torch.equal(untold._frames, told._frames)
    assert untold._frames.untyped_storage().nbytes() == told._frames.untyped_storage().nbytes()
    assert torch.equal(untold.n_frames_of, told.n_frames_of)


@pytest.mark.parametrize("shape", [(8, 20), (20,), (1, 16, 20)])
def test_a_tensor_of_another_shape_is_named(audio, tmp_path, shape):
    make_spectrograms(audio, tmp_path, params=WHOLE)
    torch.save(torch.zeros(shape), tmp_path / "hiss" / "3.pt")
    with pytest.raises(ValueError, match=r"3\.pt: a tensor of shape"):
        SpectrogramDataset(tmp_path, "train", PARAMS)


def test_log1p_scales_each_item_by_itself(tmp_path):
    params = replace(PARAMS, level="log1p")
    for i, peak in enumerate((0.01, 0.9)):
        save_wav(tmp_path / "audio" / "a" / f"{i}.wav", noise(9000, seed=i, peak=peak), 8000)
    make_spectrograms(tmp_path / "audio", tmp_path / "specs", params=replace(params, n_frames=None))
    dataset = SpectrogramDataset(tmp_path / "specs", "train", params)
    for item in (0, 1, (0, 1.0), (1, 0.5)):
        spectrogram, _ = dataset[item]
        assert spectrogram.min() == pytest.approx(-1)
        assert spectrogram.max() == pytest.approx(1)


@pytest.mark.parametrize(
    ("change", "old", "new"), [({"hop_length": 64}, "128", "64"), ({"level": "log1p"}, "'db'", "'log1p'")]
)
def test_other_settings_are_refused_with_both_values(specs, change, old, new):
    (name,) = change
    with pytest.raises(ValueError, match=f"{name}: the folder has {old}, the settings {new}"):
        SpectrogramDataset(specs, "train", replace(PARAMS, **change))


def test_all_differing_settings_are_named(specs):
    with pytest.raises(ValueError, match=r"n_mels.*16.*8.*floor_db.*-80.*-60"):
        SpectrogramDataset(specs, "train", replace(PARAMS, n_mels=8, floor_db=-60.0))


def test_n_frames_may_differ(specs):
    longer = SpectrogramDataset(specs, "train", replace(PARAMS, n_frames=48))
    shorter = SpectrogramDataset(specs, "train", PARAMS)
    assert longer[0][0].shape == (1, 16, 48)
    for i in range(len(shorter)):
        torch.testing.assert_close(longer[i][0][..., :16], shorter[i][0])


def test_n_frames_none_is_refused(specs):
    with pytest.raises(ValueError, match="n_frames is None"):
        SpectrogramDataset(specs, "train", replace(PARAMS, n_frames=None))


def test_no_dataset_folder(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no dataset folder.*preprocess\.py"):
        SpectrogramDataset(tmp_path, "train", PARAMS)


@pytest.mark.parametrize("peak", [None, 0.8])
@pytest.mark.parametrize("n_samples", [1000, 2048, 9000])
def test_waveform_is_the_sound_that_the_example_shows(tmp_path, n_samples, peak):
    sound = noise(n_samples, peak=0.25)
    dataset = make_one(tmp_path, sound, peak=peak)
    waveform = sound_of(dataset, 0)
    assert waveform.shape == (1, 2048)
    n_there = min(n_samples, 2048)
    expected = sound[:n_there] * (1 if peak is None else peak / 0.25)
    torch.testing.assert_close(waveform[0, :n_there], expected, rtol=0, atol=4 / 32768)
    assert waveform[0, n_there:].eq(0).all()
    shown = denormalise(dataset[0][0][0], dataset.level_range)
    heard = Spectrogram(PARAMS)(waveform)[0]
    # Only windows that lie in the example and in the clip; beyond its end the example is silence at once.
    n_inside = (n_there - PARAMS.win_length // 2) // PARAMS.hop_length + 1
    assert n_inside >= 7
    torch.testing.assert_close(shown[:, :n_inside], heard[:, :n_inside], rtol=0, atol=1e-3)


@pytest.mark.parametrize("n_frames", [None, 48])
def test_waveforms_are_the_sounds_that_the_examples_at_these_places_show(tmp_path, n_frames):
    """Of recordings kept whole, and of slices of them that are longer than an example."""
    specs = make_few(tmp_path, params=replace(WHOLE, n_frames=n_frames), peak=0.8)
    dataset = SpectrogramDataset(specs, "train", PARAMS)
    places = [(i, position) for i in range(len(dataset)) for position in (0.0, 0.3, 1.0, 0.3)]
    waveforms = dataset.waveforms(places)
    assert waveforms.shape == (len(places), 2048)
    recordings = {"long": noise(9000, peak=0.8), "short": noise(1500, seed=1, peak=0.8)}
    for (i, position), waveform in zip(places, waveforms, strict=True):
        recording = recordings[Path(dataset.sources[i]).stem]
        surplus = max(0, int(dataset.n_frames_of[i]) - 16)
        first_frame = round(dataset.starts_s[i] * 8000 / 128) + round(position * surplus)
        expected = recording[first_frame * 128 :][:2048]
        torch.testing.assert_close(waveform[: len(expected)], expected, rtol=0, atol=4 / 32768)
        assert waveform[len(expected) :].eq(0).all()
        shown = denormalise(dataset[i, position][0][0], dataset.level_range)
        heard = Spectrogram(PARAMS)(waveform.unsqueeze(0))[0]
        n_inside = (len(expected) - PARAMS.win_length // 2) // PARAMS.hop_length + 1  # windows within the clip
        torch.testing.assert_close(shown[:, 1:n_inside], heard[:, 1:n_inside], rtol=0, atol=0.1)  # WAV of 16 bits


def test_waveforms_come_in_the_order_of_their_places(tmp_path):
    dataset = SpectrogramDataset(make_few(tmp_path), "train", PARAMS)
    places = [(1, 0.0), (0, 1.0), (1, 0.0), (0, 0.0)]
    together = dataset.waveforms(places)
    assert all(dataset.waveforms([place])[0].equal(waveform) for place, waveform in zip(places, together, strict=True))
    assert together[0].equal(together[2])
    assert together[3].equal(sound_of(dataset, 0)[0])
    assert not together[1].equal(together[3])


# Kept sounds


def flacs(folder: Path) -> dict[str, int]:
    return {path.name: path.stat().st_mtime_ns for path in (folder / "sounds").glob("*")}


def test_sounds_outlive_the_recordings_and_the_place_of_the_folder(tmp_path):
    before = sound_of(make_one(tmp_path / "a", noise(3000)), 0)
    shutil.rmtree(tmp_path / "a" / "audio")
    (tmp_path / "a" / "specs").rename(tmp_path / "b")
    dataset = SpectrogramDataset(tmp_path / "b", "train", PARAMS)
    assert dataset.with_sound.tolist() == [0]
    assert sound_of(dataset, 0).equal(before)


@pytest.mark.parametrize("peak", [None, 0.5])
@pytest.mark.parametrize("loudest", [3.0, 0.0, 1e-4])
def test_levels_are_kept_above_full_scale_and_far_below_it(tmp_path, loudest, peak):
    sound = loudest * noise(2048, peak=1.0)
    save_wav(tmp_path / "audio" / "a" / "0.wav", sound, PARAMS.sample_rate, subtype="FLOAT")
    save_wav(tmp_path / "audio" / "a" / "1.wav", noise(2048), PARAMS.sample_rate)  # a data set of silence is refused
    make_spectrograms(tmp_path / "audio", tmp_path / "specs", params=WHOLE, peak=peak, keep_sounds=2)
    expected = sound if peak is None or not loudest else sound * peak / loudest
    waveform = sound_of(SpectrogramDataset(tmp_path / "specs", "train", PARAMS), 0)[0]
    torch.testing.assert_close(waveform, expected, rtol=0, atol=float(expected.abs().max()) / 2**15)


def test_the_kept_channel_is_that_of_the_spectrograms(tmp_path):
    channels = torch.stack([noise(2048, peak=0.1), noise(2048, seed=1, peak=0.5)])
    save_wav(tmp_path / "audio" / "a" / "0.wav", channels, PARAMS.sample_rate)
    for downmix, expected in (("mean", channels.mean(dim=0)), ("left", channels[0]), ("max_energy", channels[1])):
        make_spectrograms(tmp_path / "audio", tmp_path / "specs", params=WHOLE, downmix=downmix, keep_sounds=1)
        waveform = sound_of(SpectrogramDataset(tmp_path / "specs", "train", PARAMS), 0)[0]
        torch.testing.assert_close(waveform, expected, rtol=0, atol=2 / 2**15)
        assert len(flacs(tmp_path / "specs")) == 1  # none of the other mixes


def test_long_recordings_are_kept_block_by_block(tmp_path, monkeypatch):
    sound = noise(9000)
    sound[8500] = 0.9  # in the last block
    whole = sound_of(make_one(tmp_path / "a", sound), 0)
    monkeypatch.setattr("specgan.data.sounds.open_audio", partial(open_audio, block_frames=1000))
    assert sound_of(make_one(tmp_path / "b", sound), 0).equal(whole)


def write_at(root: Path, rates_of: dict[str, list[int]]) -> Path:
    """A tenth of a second of noise for each rate of each class."""
    for label, rates in rates_of.items():
        for i, rate in enumerate(rates):
            save_wav(root / label / f"{i}.wav", noise(rate // 10, seed=i), rate)
    return root


def sound_rate(audio: Path, folder: Path, **settings) -> int:
    make_spectrograms(audio, folder, **{"params": WHOLE, "keep_sounds": 9, **settings})
    dataset = SpectrogramDataset(folder, "train", PARAMS)
    rates = {soundfile.info(path).samplerate for path in (folder / "sounds").glob("*")}
    assert rates == {dataset.sound_rate}
    return dataset.sound_rate


@pytest.mark.parametrize(
    ("rates", "expected"),
    [
        ([16000, 16000, 44100], 16000),
        ([16000, 44100], 44100),  # the higher of two that are as frequent
        ([96000, 192000, 32000], 48000),  # at most
        ([4000, 6000, 6000], 8000),  # at least that of the spectrograms
    ],
)
def test_sounds_have_the_rate_of_most_recordings(tmp_path, rates, expected):
    assert sound_rate(write_at(tmp_path / "audio", {"a": rates}), tmp_path / "specs") == expected


def test_the_rate_follows_a_growing_folder_and_outlives_a_killed_run(tmp_path):
    audio = write_at(tmp_path / "audio", {"a": [16000]})
    assert sound_rate(audio, tmp_path / "specs") == 16000
    write_at(audio, {"b": [32000, 32000]})
    assert sound_rate(audio, tmp_path / "specs") == 32000
    assert len(flacs(tmp_path / "specs")) == 3
    make_spectrograms(audio, tmp_path / "specs", params=WHOLE, keep_sounds=0)
    assert "sound_rate" not in read_info(tmp_path / "specs")
    assert sound_rate(audio, tmp_path / "specs") == 32000


def test_classes_of_different_rates_are_named_with_their_numbers(tmp_path, caplog):
    sound_rate(write_at(tmp_path / "audio", {"hat": [8000, 8000], "kick": [16000] * 3}), tmp_path / "specs")
    (line,) = (message for message in caplog.messages if "different rates" in message)
    assert line.endswith("Clips by class and rate: hat 8000 Hz (2), kick 16000 Hz (3)")
    caplog.clear()
    for name, same in (("few", {"a": [16000, 16000, 8000], "b": [16000]}), ("high", {"a": [48000], "b": [192000]})):
        sound_rate(write_at(tmp_path / name / "audio", same), tmp_path / name / "specs")
    assert "different rates" not in caplog.text


def test_sounds_of_an_older_version_stay_at_the_rate_of_the_spectrograms(tmp_path, caplog):
    """A run that goes on after an update measures by the same judge, whose name is a digest of these files."""
    audio = write_at(tmp_path / "audio", {"a": [8000] * 3})
    specs = tmp_path / "specs"
    make_spectrograms(audio, specs, params=WHOLE, keep_sounds=9)
    info = (specs / "params.yaml").read_text()
    older = info.replace("sound_rate: 8000\n", "")
    assert older != info
    (specs / "params.yaml").write_text(older)
    before = flacs(specs)
    with caplog.at_level(logging.INFO, logger="specgan.data.sounds"):
        make_spectrograms(audio, specs, params=WHOLE, keep_sounds=9)
    assert (specs / "params.yaml").read_text() == older
    assert flacs(specs) == before
    assert "its sounds stay at the spectrograms' 8000 Hz" in caplog.text
    write_at(audio, {"a": [8000] * 3, "b": [16000] * 9})
    assert sound_rate(audio, specs) == 8000


@pytest.mark.parametrize("peak", [None, 0.8])
def test_sounds_at_a_higher_rate_are_the_same_places_at_the_same_level(tmp_path, peak):
    """`peak` is of what the spectrograms show: the sound, which has more band, may exceed it."""
    rate, ratio = 22050, 22050 / 8000
    recording = noise(20_000)
    save_wav(tmp_path / "audio" / "a" / "0.wav", recording, rate)
    make_spectrograms(tmp_path / "audio", tmp_path / "specs", params=WHOLE, peak=peak, keep_sounds=1)
    dataset = SpectrogramDataset(tmp_path / "specs", "train", PARAMS)
    shown = resample(recording.unsqueeze(0), rate, 8000)
    gain = 1 if peak is None else peak / float(shown.abs().max())
    surplus = int(dataset.n_frames_of[0]) - 16
    for position in (0.0, 0.5, 1.0):
        start = round(round(position * surplus) * 128 * ratio)
        expected = gain * recording[start : start + round(2048 * ratio)]
        (waveform,) = dataset.waveforms([(0, position)])
        assert waveform.shape == (round(2048 * ratio),)
        torch.testing.assert_close(waveform[: len(expected)], expected, rtol=0, atol=6 / 32768)


def test_each_label_and_split_keeps_its_share(audio, tmp_path):
    few = partial(make_spectrograms, params=WHOLE, splits=(80, 10, 10), merge={"rush": "hiss"}, min_recordings=1)
    for i in range(4):
        save_wav(tmp_path / "audio" / "rare" / f"{i}.wav", noise(1000, seed=i), PARAMS.sample_rate)
    shutil.copytree(audio, tmp_path / "audio", dirs_exist_ok=True)
    few(tmp_path / "audio", tmp_path / "specs", keep_sounds=9)
    table = read_manifest(tmp_path / "specs")
    kept = table[table["sound"] != ""].groupby(["split", "label"]).size()
    assert kept.to_dict() == {
        **{("train", "hiss"): 8, ("train", "rare"): 1},  # of 16 and 2
        **{(split, "hiss"): 2 for split in ("val", "test")},
        **{(split, "rare"): 1 for split in ("val", "test")},
    }
    few(tmp_path / "audio", tmp_path / "other", keep_sounds=9, seed=1)
    other = read_manifest(tmp_path / "other")
    assert set(other["recording"][other["sound"] != ""]) != set(table["recording"][table["sound"] != ""])


def test_a_second_run_writes_what_is_missing_and_removes_what_is_stale(audio, tmp_path):
    shutil.copytree(audio, tmp_path / "audio")
    make = partial(make_spectrograms, tmp_path / "audio", tmp_path / "specs", params=WHOLE, splits=(80, 10, 10))
    make(keep_sounds=4)
    first = flacs(tmp_path / "specs")
    assert len(first) == 4 + 2 + 2
    make(keep_sounds=4)
    assert flacs(tmp_path / "specs") == first
    lost = min(first)
    (tmp_path / "specs" / "sounds" / lost).unlink()
    make(keep_sounds=4)
    again = flacs(tmp_path / "specs")
    assert set(again) == set(first) and {name for name in first if again[name] != first[name]} == {lost}
    dataset = SpectrogramDataset(tmp_path / "specs", "train", PARAMS)
    source = dataset.sources[int(dataset.with_sound[0])]
    save_wav(source, noise(3000, seed=99), PARAMS.sample_rate)
    make(keep_sounds=4)
    assert len(set(flacs(tmp_path / "specs")) - set(first)) == len(set(first) - set(flacs(tmp_path / "specs"))) == 1
    (tmp_path / "specs" / "sounds" / "mine.flac").touch()
    make(keep_sounds=0)
    assert set(flacs(tmp_path / "specs")) == {"mine.flac"}  # which no run made
    assert len(SpectrogramDataset(tmp_path / "specs", "train", PARAMS).with_sound) == 0


def test_clips_without_sound_are_named(audio, tmp_path):
    make_spectrograms(audio, tmp_path / "specs", params=WHOLE, keep_sounds=5)
    dataset = SpectrogramDataset(tmp_path / "specs", "train", PARAMS)
    without = next(i for i in range(20) if i not in dataset.with_sound)
    with pytest.raises(FileNotFoundError, match=f"specs: the sound of clip {without} is not kept"):
        dataset.waveforms([(without, 0.0)])
    damaged = tmp_path / "specs" / read_manifest(tmp_path / "specs")["sound"][int(dataset.with_sound[0])]
    damaged.write_bytes(b"no sound")
    with pytest.raises(AudioError, match=f"{damaged.name}: damaged"):
        sound_of(dataset, int(dataset.with_sound[0]))
    shutil.rmtree(tmp_path / "specs" / "sounds")
    assert len(SpectrogramDataset(tmp_path / "specs", "train", PARAMS).with_sound) == 0


def test_a_manifest_whose_sounds_lead_out_of_the_folder_is_refused(tmp_path):
    make_one(tmp_path, noise(1000))
    table = read_manifest(tmp_path / "specs")
    write_manifest(table.assign(sound="../audio/a/0.wav"), tmp_path / "specs")
    with pytest.raises(ValueError, match="do not trust this data"):
        SpectrogramDataset(tmp_path / "specs", "train", PARAMS)


@pytest.mark.parametrize("keep_sounds", [-1, 0.5])
def test_impossible_numbers_of_sounds(audio, tmp_path, keep_sounds):
    with pytest.raises(ValueError, match=f"keep_sounds is {keep_sounds}; an integer of at least 0"):
        make_spectrograms(audio, tmp_path / "specs", params=WHOLE, keep_sounds=keep_sounds)
    assert not (tmp_path / "specs").exists()


# SpectrogramDataModule


def open_data(specs: Path, **settings) -> SpectrogramDataModule:
    data = SpectrogramDataModule(**{"params": PARAMS, "dataset_dir": str(specs), "batch_size": 4, **settings})
    data.prepare_data()
    data.setup("fit")
    return data


def epoch_of(data: SpectrogramDataModule) -> list[list[torch.Tensor]]:
    return [list(batch) for batch in data.train_dataloader()]


def same(epoch: list, other: list) -> bool:
    return len(epoch) == len(other) and all(
        torch.equal(a, b) for batch, twin in zip(epoch, other, strict=True) for a, b in zip(batch, twin, strict=True)
    )


def places_of(data: SpectrogramDataModule) -> list[tuple[int, float]]:
    """What an epoch is made of: the index of each clip and where it is cut."""
    plan = data.train_dataloader().batch_sampler
    places = [place for batch in plan for place in batch]
    plan.n_given = len(plan)  # as if a training had had them
    return places


def test_prepare_data_makes_and_setup_opens(audio, tmp_path):
    calls = []
    data = SpectrogramDataModule(
        params=PARAMS,
        audio_dir=str(audio),
        datasets_dir=str(tmp_path / "datasets"),
        make_audio=calls.append,
        make_dataset=make_spectrograms,
        batch_size=4,
        seed=3,
        splits=[80, 10, 10],
        merge={"hiss": "noise"},
    )
    assert not (tmp_path / "datasets").exists()
    data.prepare_data()
    assert calls == [str(audio)]
    assert data.dataset_dir.parent == tmp_path / "datasets"
    data.setup("fit")
    assert data.class_names == ["noise", "rush"]
    assert (len(data.train), len(data.val)) == (16, 2)
    assert data.level_range == data.train.level_range
    spectrograms, labels = next(iter(data.train_dataloader()))
    assert spectrograms.shape == (4, 1, 16, 16)
    assert labels.dtype == torch.int64
    written = {path: path.stat().st_mtime_ns for path in data.dataset_dir.rglob("*.pt")}
    data.prepare_data()
    assert {path: path.stat().st_mtime_ns for path in data.dataset_dir.rglob("*.pt")} == written


def test_setup_opens_all_three_splits_of_a_manifest_that_is_read_once(specs, monkeypatch):
    reads = []
    monkeypatch.setattr(
        "specgan.data.dataset.read_manifest", lambda *args, **kw: reads.append(args) or read_manifest(*args, **kw)
    )
    data = open_data(specs)
    assert len(reads) == 1
    assert (len(data.train), len(data.val), len(data.test)) == (16, 2, 2)
    sources = {source for split in (data.train, data.val, data.test) for source in split.sources}
    assert len(sources) == 20


def moved(specs: Path, to: Path, label: str, split: str) -> SpectrogramDataModule:
    """The dataset folder with all rows of a label in one split, as by hand."""
    shutil.copytree(specs, to)
    table = read_manifest(to)
    table.loc[table["label"] == label, "split"] = split
    write_manifest(table, to)
    return SpectrogramDataModule(params=PARAMS, dataset_dir=str(to))


def test_a_class_without_training_clips_is_named_with_the_way_out(specs, tmp_path):
    with pytest.raises(ValueError, match=r"no clip of 'rush' is in the training split; .*split=train in manifest.csv"):
        moved(specs, tmp_path / "a", "rush", "val").setup("fit")


def test_a_class_in_the_training_split_alone_is_named(specs, tmp_path, caplog):
    moved(specs, tmp_path / "a", "rush", "train").setup("fit")
    assert [message.split(": ")[1] for message in caplog.messages] == [
        f"no clip of 'rush' is in {split}, so it is not measured there" for split in ("val", "test")
    ]


def test_a_split_of_an_unknown_name_is_refused(specs, tmp_path):
    with pytest.raises(ValueError, match=r"has the splits 'Train'; write train, val, test"):
        moved(specs, tmp_path / "a", "rush", "Train").setup("fit")


def test_splits_that_nobody_asked_for_are_not_missed(audio, tmp_path, caplog):
    make_spectrograms(audio, tmp_path / "a", params=WHOLE, splits=(100, 0, 0))
    SpectrogramDataModule(params=PARAMS, dataset_dir=str(tmp_path / "a")).setup("fit")
    assert not caplog.messages


def test_unreadable_files_are_counted_in_a_warning(audio, tmp_path, caplog):
    save_wav(tmp_path / "audio" / "a" / "good.wav", noise(1000), 8000)
    (tmp_path / "audio" / "a" / "bad.wav").write_bytes(b"no sound at all")
    data = open_data(tmp_path / "specs", audio_dir=str(tmp_path / "audio"), make_dataset=make_spectrograms)
    assert len(data.train) == 1
    assert "without 1 files" in caplog.text
    assert "failures.csv" in caplog.text


def test_a_seed_gives_the_same_batches_and_another_gives_others(specs):
    epoch = epoch_of(open_data(specs, seed=5))
    torch.manual_seed(1234)  # which does not matter
    assert same(epoch, epoch_of(open_data(specs, seed=5)))
    assert not same(epoch, epoch_of(open_data(specs, seed=6)))


def test_epochs_differ_and_continue_from_a_saved_state(specs, tmp_path):
    data = open_data(specs, seed=5)
    first = epoch_of(data)
    torch.save(data.state_dict(), tmp_path / "state.pt")
    second, third = epoch_of(data), epoch_of(data)
    assert not same(first, second)
    assert not same(second, third)

    resumed = open_data(specs, seed=99)
    resumed.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    assert same(epoch_of(resumed), second)
    assert same(epoch_of(resumed), third)


def test_each_clip_is_in_an_epoch_once(specs):
    for settings in ({"epoch_size": 16}, {"batch_size": 1}):  # a large folder by default
        assert sorted(index for index, _ in places_of(open_data(specs, **settings))) == list(range(16))
    epoch = epoch_of(open_data(specs, epoch_size=16))
    assert len(epoch) == 4
    assert sorted(label for _, labels in epoch for label in labels.tolist()) == [0] * 8 + [1] * 8


def test_small_folders_are_repeated_to_sixteen_batches(specs):
    data = open_data(specs, batch_size=8)
    assert [len(labels) for _, labels in epoch_of(data)] == [8] * 16
    indices = [index for index, _ in places_of(data)]
    assert sorted(indices) == sorted(list(range(16)) * 8)
    assert all(sorted(indices[i : i + 16]) == list(range(16)) for i in range(0, 128, 16))  # whole rounds


def test_large_folders_are_dealt_over_epochs_of_thirty_two_batches(specs):
    data = open_data(specs, batch_size=1)
    data.train.labels = torch.zeros(40)  # as if it had so many clips
    indices = [index for _ in range(5) for index, _ in places_of(data)]
    assert len(indices) == 5 * 32
    assert [sorted(indices[i : i + 40]) for i in range(0, 160, 40)] == [list(range(40))] * 4


def test_fewer_clips_than_a_batch_still_give_whole_batches(specs):
    assert [len(labels) for _, labels in epoch_of(open_data(specs, batch_size=20))] == [20] * 16


def test_a_limit_of_clips_leaves_out_training_clips_alone(specs):
    whole, some, few = (open_data(specs, max_clips_per_class=n) for n in (None, 5, 2))
    assert (len(few.train), len(few.val), len(few.test), len(few.whole_train)) == (4, 2, 2, 16)
    assert few.train.labels.bincount().tolist() == [2, 2]
    assert set(few.train.sources) < set(some.train.sources) < set(whole.train.sources)
    assert open_data(specs, max_clips_per_class=2).train.sources == few.train.sources
    assert len(open_data(specs, max_clips_per_class=100).train) == 16
    for index, source in enumerate(few.train.sources):
        twin = whole.train.sources.index(source)
        assert torch.equal(few.train.level(index), whole.train.level(twin))
        assert torch.equal(few.train[index][0], whole.train[twin][0])
        assert few.train[index][1] == whole.train[twin][1]
    assert {index for batch in few.train_dataloader().batch_sampler for index, _ in batch} == {0, 1, 2, 3}
    # About half of the clips are as long as 71 / 16 examples.
    assert whole.n_clips_of_classes == [4 + 4 * 71 / 16, 3 + 5 * 71 / 16]
    assert few.n_clips_of_classes == [1 + 71 / 16, 2 * 71 / 16]
    assert open_data(specs, crop="start").n_clips_of_classes == [8, 8]
    with pytest.raises(ValueError, match="max_clips_per_class is 0; at least 1"):
        open_data(specs, max_clips_per_class=0)


def test_balance_draws_each_class_as_often_as_it_says_and_each_of_its_clips_in_turn(specs):
    shares = {}
    for balance in (0.0, 0.5, 1.0):
        data = open_data(specs, balance=balance, epoch_size=4000)
        data.train.labels = torch.tensor([0] * 4 + [1] * 12)  # as if one class had fewer clips
        indices = torch.tensor([index for index, _ in places_of(data)])
        drawn = indices.bincount(minlength=16)
        shares[balance] = float(drawn[:4].sum() / len(indices))
        for clips in (drawn[:4], drawn[4:]):
            assert clips.max() - clips.min() <= 0.1 * clips.max()
    expected = {0.0: 4 / 16, 0.5: 4**0.5 / (4**0.5 + 12**0.5), 1.0: 1 / 2}
    assert shares == pytest.approx(expected, abs=0.02)
    with pytest.raises(ValueError, match=r"data.balance is 1.5; from 0 \(each clip equally often\) to 1"):
        open_data(specs, balance=1.5)


def test_balanced_batches_go_on_where_a_training_stopped(specs):
    whole, resumed = (open_data(specs, balance=1.0, max_clips_per_class=3) for _ in range(2))
    first, second = places_of(whole), places_of(whole)
    assert first != second
    plan = resumed.train_dataloader().batch_sampler
    plan.epoch, plan.n_given = 1, 5
    assert [place for batch in plan for place in batch] == second[5 * 4 :]


@pytest.mark.parametrize(("epoch_size", "sizes"), [(3, [4]), (4, [4]), (10, [4, 4]), (24, [4] * 6)])
def test_epoch_size_is_kept_in_whole_batches_where_there_is_one(specs, epoch_size, sizes):
    assert [len(labels) for _, labels in epoch_of(open_data(specs, epoch_size=epoch_size))] == sizes


def test_random_crops_lie_anywhere_and_differ_from_epoch_to_epoch(specs):
    data = open_data(specs, epoch_size=400)
    places = torch.tensor([place for _, place in places_of(data)])
    assert places.min() >= 0
    assert places.max() < 1
    assert places.histc(bins=4, min=0, max=1).min() > 50  # 100 are expected in each quarter
    assert not torch.equal(places, torch.tensor([place for _, place in places_of(data)]))


def test_crop_start_gives_the_beginning_of_every_clip(specs):
    data = open_data(specs, crop="start", epoch_size=16)
    beginnings = {spectrogram.numpy().tobytes() for spectrogram, _ in data.train}
    assert len(beginnings) == 16
    assert {s.numpy().tobytes() for spectrograms, _ in epoch_of(data) for s in spectrograms} == beginnings
    random = {s.numpy().tobytes() for batch, _ in epoch_of(open_data(specs, epoch_size=16)) for s in batch}
    assert len(random & beginnings) < 16


def decaying(folder: Path, *, n_hits: int, n_steady: int, n_short: int = 0) -> Path:
    """A dataset of hits that are over within an example, of steady sounds, and of shorter ones, all of one class."""
    for i in range(n_hits + n_steady + n_short):
        waveform = noise(9000 if i < n_hits + n_steady else 1500, seed=i)
        fade = torch.exp(-torch.arange(len(waveform)) / 300) if i < n_hits else 1.0
        save_wav(folder / "audio" / "a" / f"{i}.wav", waveform * fade, PARAMS.sample_rate)
    make_spectrograms(folder / "audio", folder / "specs", params=WHOLE, splits=(100, 0, 0))
    return folder / "specs"


@pytest.mark.parametrize(
    ("counts", "crop"),
    [
        ({"n_hits": 8, "n_steady": 2}, "start"),
        ({"n_hits": 7, "n_steady": 3}, "random"),
        ({"n_hits": 1, "n_steady": 0, "n_short": 19}, "random"),  # hardly any is longer
        ({"n_hits": 0, "n_steady": 0, "n_short": 2}, "random"),
    ],
)
def test_the_beginning_is_taken_where_most_longer_clips_are_hits(tmp_path, counts, crop):
    specs = decaying(tmp_path, **counts)
    assert open_data(specs, crop=None).crop == crop
    assert {open_data(specs, crop=given).crop for given in ("random", "start")} == {"random", "start"}


def test_a_choice_of_crop_reads_few_shards(audio, tmp_path):
    make_spectrograms(audio, tmp_path, params=WHOLE, format="shards", shard_size=4, splits=(100, 0, 0))
    clips = SpectrogramDataset(tmp_path, "train", PARAMS, n_open=2)
    some, every = clips.some_of(torch.arange(20), 20), clips._shard_of
    assert every.unique().numel() > 4
    assert every[some].unique().tolist() == [0, int(every.max())]
    assert clips.some_of(torch.tensor([3, 5, 8]), 2).tolist() == [3, 8]


def test_a_training_that_goes_on_keeps_its_crop(tmp_path):
    specs = decaying(tmp_path, n_hits=10, n_steady=0)
    data = open_data(specs, crop=None)
    data.train_dataloader()
    state = data.state_dict()
    for crop, kept, expected in ((None, {**state, "crop": "random"}, "random"), ("start", state, "start")):
        resumed = open_data(specs, crop=crop)
        resumed.load_state_dict(kept)
        assert resumed.crop == expected
    earlier = open_data(specs, crop=None)
    earlier.load_state_dict({"loader": state["loader"]})  # from before it could be chosen
    assert earlier.crop == "random"


def test_the_crop_does_not_change_the_order(specs):
    start, random = (places_of(open_data(specs, crop=crop)) for crop in ("start", "random"))
    assert [index for index, _ in start] == [index for index, _ in random]


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded")
def test_workers_give_the_same_batches(specs):
    none, two = open_data(specs, epoch_size=16), open_data(specs, epoch_size=16, num_workers=2)
    assert same(epoch_of(none), epoch_of(two))
    assert same(epoch_of(none), epoch_of(two))  # and the next epoch


def test_other_settings_use_another_dataset_folder(audio, tmp_path):
    name = partial(SpectrogramDataModule, datasets_dir=str(tmp_path))
    same_settings = {"params": PARAMS, "audio_dir": str(audio), "peak": 0.5}
    base = name(**same_settings).dataset_dir
    assert base.parent == tmp_path
    assert base.name.startswith("audio-")
    # What does not change the data does not change the folder.
    unchanging = {"batch_size": 3, "crop": "start", "epoch_size": 9, "num_workers": 1, "seed": 7, "on_error": "raise"}
    shorter = replace(PARAMS, n_frames=8)
    assert name(**{**same_settings, **unchanging, "params": shorter}).dataset_dir == base
    others = [
        {"params": replace(PARAMS, n_mels=8)},
        {"peak": None},
        {"split_seed": 1},
        {"splits": [60, 20, 20]},
        {"label_from": "prefix"},
        {"merge": {"hiss": "rush"}},
        {"keep_sounds": 3},
        {"audio_dir": str(tmp_path / "audio")},  # of the same name, elsewhere
    ]
    folders = {name(**(same_settings | other)).dataset_dir for other in others}
    assert len(folders) == len(others)
    assert base not in folders


def test_a_fingerprint_is_the_same_in_every_process_and_tells_settings_apart():
    settings = [
        {"a": 1, "b": [1, 2.5, None, "x"]},
        {"a": PARAMS},
        {"a": replace(PARAMS, n_mels=8)},
        {"a": save_wav},
        {"a": partial(save_wav, subtype="FLOAT")},
        {"a": partial(save_wav, subtype="PCM_24")},
        {"a": partial(save_wav, Path("x.wav"))},
        {"a": SpectrogramParams},
    ]
    code = (
        "from functools import partial\nfrom pathlib import Path\n"
        "from specgan.data.fingerprint import fingerprint\nfrom specgan.audio import save_wav\n"
        "print(fingerprint(b=Path('x'), a=partial(save_wav, subtype='FLOAT')))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == fingerprint(a=partial(save_wav, subtype="FLOAT"), b=Path("x"))
    assert len({fingerprint(**some) for some in settings}) == len(settings)
    assert fingerprint(a=1, b=2) == fingerprint(b=2, a=1)
    assert fingerprint(a=(1, 2)) == "0bf464f8"
    assert fingerprint(a=(1, 2), n_digits=16).startswith("0bf464f8")
    with pytest.raises(TypeError, match="no fingerprint of"):
        fingerprint(a=torch.nn.Identity())


def test_the_dataset_folder_is_the_same_from_wherever_it_is_asked_for(audio, monkeypatch):
    absolute = SpectrogramDataModule(params=PARAMS, audio_dir=str(audio)).dataset_dir
    monkeypatch.chdir(audio.parent)
    assert SpectrogramDataModule(params=PARAMS, audio_dir="audio").dataset_dir == absolute


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"dataset_dir": None}, r"data\.audio_dir"),
        ({"batch_size": 0}, "batch_size is 0"),
        ({"crop": "middle"}, "crop is 'middle'; random or start, or null: chosen"),
        ({"epoch_size": 0}, "epoch_size is 0"),
        ({"epoch_size": -1}, "epoch_size is -1"),
    ],
)
def test_arguments_that_cannot_work_are_named(settings, message):
    with pytest.raises(ValueError, match=message):
        SpectrogramDataModule(**{"params": PARAMS, "dataset_dir": "specs", **settings})


def test_an_empty_training_split_is_an_error(specs, tmp_path):
    (tmp_path / "params.yaml").write_bytes((specs / "params.yaml").read_bytes())
    rows = (specs / "manifest.csv").read_text().splitlines(keepends=True)
    (tmp_path / "manifest.csv").write_text(rows[0])
    with pytest.raises(ValueError, match="training split is empty"):
        open_data(tmp_path)


# Folders that were made in other ways


def make_few(root: Path, **settings) -> Path:
    """A dataset folder of two recordings, of 9000 and of 1500 samples: 71 and 12 frames."""
    for name, waveform in (("long", noise(9000)), ("short", noise(1500, seed=1))):
        save_wav(root / "audio" / "a" / f"{name}.wav", waveform, PARAMS.sample_rate)
    make_spectrograms(root / "audio", root / "specs", **{"params": WHOLE, "keep_sounds": 2, **settings})
    return root / "specs"


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"time_pool": 4}, "made with task.time_pool=4; training needs task.time_pool=1"),
        ({"freq_pool": 2}, "made with task.freq_pool=2; training needs task.freq_pool=1"),
        ({"mono": False}, "made with task.mono=false; training needs task.mono=true"),
        ({"format": "png"}, "made with task.format=png; training needs task.format=pt or both"),
        (
            {"params": replace(WHOLE, n_frames=8)},
            "slices of n_frames 8, the settings say 16; make it with spectrogram.n_frames=null",
        ),
    ],
)
def test_folders_that_cannot_be_trained_on_are_refused_with_both_values(tmp_path, settings, message):
    specs = make_few(tmp_path, **settings)
    with pytest.raises(ValueError, match=message) as info:
        SpectrogramDataset(specs, "train", PARAMS)
    assert str(specs) in str(info.value)
    with pytest.raises(ValueError, match=message):
        open_data(specs)


def test_a_folder_of_tensors_and_pictures_is_opened_as_one_of_tensors(tmp_path):
    both, tensors = (
        SpectrogramDataset(make_few(tmp_path / name, format=name), "train", PARAMS) for name in ("both", "pt")
    )
    assert len(both) == len(tensors) == 2
    for item, twin in zip(both, tensors, strict=True):
        assert torch.equal(item[0], twin[0])
        assert item[1] == twin[1]


@pytest.mark.parametrize("n_frames", [16, 32])
def test_slices_are_examples_of_their_own_with_the_sound_that_they_show(tmp_path, n_frames):
    """Of slices as long as an example, and of longer ones, of which a piece is cut."""
    dataset = SpectrogramDataset(make_few(tmp_path, params=replace(WHOLE, n_frames=n_frames)), "train", PARAMS)
    starts = [i * n_frames for i in range(-(-71 // n_frames))]
    assert sorted(zip(map(Path, dataset.sources), dataset.starts_s, strict=True)) == sorted(
        [(tmp_path / "audio" / "a" / "long.wav", start * 128 / 8000) for start in starts]
        + [(tmp_path / "audio" / "a" / "short.wav", 0.0)]
    )
    whole = Spectrogram(WHOLE)(noise(9000)[None])[0]
    for i, (source, start_s) in enumerate(zip(dataset.sources, dataset.starts_s, strict=True)):
        if Path(source).stem == "short":
            continue
        start = round(start_s * 8000)
        expected = torch.nn.functional.pad(noise(9000)[start : start + 2048], (0, max(0, start + 2048 - 9000)))
        torch.testing.assert_close(sound_of(dataset, i)[0], expected, rtol=0, atol=1 / 32768)
        shown = denormalise(dataset[i][0][0], dataset.level_range)
        piece = whole[:, start // 128 : start // 128 + 16]
        torch.testing.assert_close(shown[:, : piece.shape[1]], piece, rtol=0, atol=0.1)  # WAV of 16 bits
        assert dataset[i][0][..., piece.shape[1] :].eq(-1).all()


def test_the_range_of_a_checkpoint_takes_the_place_of_the_datas_and_is_said(specs):
    own = SpectrogramDataset(specs, "train", PARAMS)
    louder = LevelRange(low=own.level_range.low, high=own.level_range.high + 20)
    for fixed in (louder, own.level_range, None):
        data = SpectrogramDataModule(params=PARAMS, dataset_dir=str(specs))
        data.fixed_range = fixed
        data.setup("fit")
        assert data.level_range == (fixed or own.level_range)
        expected = normalise(own.level(0)[:, :16], PARAMS, data.level_range)
        assert torch.equal(data.train[0][0][0, :, : expected.shape[1]], expected)
        assert bool(data.range_note) == (fixed == louder)
        for level in (own.level_range.high, louder.high) if fixed == louder else ():
            assert f"{level:g}" in data.range_note
