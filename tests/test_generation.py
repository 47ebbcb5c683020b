from functools import partial
from zipfile import ZipFile

import pandas as pd
import pytest
import soundfile
import torch
from checkpoints import save_checkpoint
from folders import contents
from vocoders import Fails

import specgan
from specgan.audio import WavSettings, save_wav
from specgan.batch.executors import Processes, serial
from specgan.batch.failures import UnitError
from specgan.files import OUTPUTS_NAME
from specgan.generation import generate, vocode
from specgan.models.trained import TrainedGenerator
from specgan.vocoders.griffin_lim import GriffinLim


@pytest.fixture(scope="module")
def ckpt_path(tmp_path_factory):
    return save_checkpoint(tmp_path_factory.mktemp("run") / "last.ckpt")


def draw(ckpt_path, output, **settings):
    vocoder = partial(GriffinLim, n_iter=2, n_inversion_iter=5)
    return generate(
        ckpt_path,
        output=output,
        **{"vocoder": vocoder, "label": "kick", "n_samples": 1, "seed": 0, "device": "cpu", **settings},
    )


def never():
    raise AssertionError("workers were started")


def test_writes_a_sound_and_a_picture_for_each_seed_and_a_page(ckpt_path, tmp_path):
    index = draw(ckpt_path, tmp_path / "out", n_samples=2, seed=5)
    sounds = {"kick/kick_5.wav", "kick/kick_5.png", "kick/kick_6.wav", "kick/kick_6.png"}
    names = {*sounds, "index.html", "manifest.csv"}
    assert set(contents(tmp_path / "out")) - {OUTPUTS_NAME} == names
    assert index == tmp_path / "out" / "index.html"
    page = index.read_text()
    assert all(name in page for name in sounds)
    info = soundfile.info(tmp_path / "out" / "kick" / "kick_5.wav")
    assert (info.samplerate, info.frames, info.channels, info.subtype) == (8000, 32 * 128, 1, "PCM_16")


def test_a_class_and_seed_give_the_same_bytes_however_many_are_drawn_beside_it(ckpt_path, tmp_path):
    draw(ckpt_path, tmp_path / "one", seed=7)
    draw(ckpt_path, tmp_path / "many", label="all", seed=0, n_samples=11)
    one, many = contents(tmp_path / "one"), contents(tmp_path / "many")
    assert one["kick/kick_7.wav"] == many["kick/kick_7.wav"]
    assert one["kick/kick_7.png"] == many["kick/kick_7.png"]
    assert len({data for name, data in many.items() if name.endswith(".wav")}) == 33  # and all differ


def test_a_whole_sound_has_the_samples_that_the_vocoder_makes_of_it_alone(ckpt_path, tmp_path):
    """Those of versions that neither trimmed nor kept texts in the file."""
    trained = TrainedGenerator.load(ckpt_path)
    vocoder = GriffinLim(trained.params, trained.level_range, n_iter=2, n_inversion_iter=5)
    save_wav(tmp_path / "alone.wav", vocoder(trained.sample(["kick"], [3]), seeds=[3])[0], 8000)
    draw(ckpt_path, tmp_path / "out", n_samples=5, wav=WavSettings(trim_db=None))
    alone, drawn = (tmp_path / "alone.wav").read_bytes(), (tmp_path / "out" / "kick" / "kick_3.wav").read_bytes()
    assert drawn[8 : len(alone)] == alone[8:]
    with soundfile.SoundFile(tmp_path / "out" / "kick" / "kick_3.wav") as file:
        assert (file.title, file.genre, file.album) == ("kick, seed 3", "kick", "last.ckpt")
        assert file.comment == "kick, seed 3, checkpoint last.ckpt after 12 steps"
        assert file.software == f"specgan {specgan.__version__}"


class Hit(torch.nn.Module):
    """A steady sound of a tenth of a second, and silence."""

    def __init__(self, params, level_range):
        super().__init__()
        self.n_samples = params.n_samples

    def forward(self, spectrogram, *, seeds):
        waveforms = torch.zeros(len(spectrogram), self.n_samples)
        waveforms[:, :800] = 0.5
        return waveforms


def test_sounds_end_where_they_fall_silent_and_are_listed_and_packed(ckpt_path, tmp_path):
    settings = {"vocoder": Hit, "wav": WavSettings(sample_rate=16000, subtype="PCM_24", peak=0.9)}
    pack = tmp_path / "packs" / "new.zip"
    draw(ckpt_path, tmp_path / "out", label="all", seed=4, **settings)
    draw(ckpt_path, tmp_path / "out", label="kick", seed=5, zip_path=pack, **settings)
    table = pd.read_csv(tmp_path / "out" / "manifest.csv", dtype={"label": str})
    assert table["path"].tolist() == ["_._evil/_._evil_4.wav", "7/7_4.wav", "kick/kick_4.wav", "kick/kick_5.wav"]
    assert table["label"].tolist() == ["../evil", "7", "kick", "kick"]
    assert set(table["checkpoint"]) == {"last.ckpt"}
    for row in table.itertuples():
        info = soundfile.info(tmp_path / "out" / row.path)
        assert (info.duration, info.samplerate, info.subtype) == (0.12, 16000, "PCM_24")
        assert (row.duration_s, row.sample_rate, row.channels, row.peak) == (0.12, 16000, 1, 0.9)
    with ZipFile(pack) as file:
        assert file.namelist() == ["manifest.csv", "kick/kick_5.wav"]
        assert file.read("kick/kick_5.wav") == (tmp_path / "out" / "kick" / "kick_5.wav").read_bytes()


def test_a_zip_of_others_is_in_the_way_and_our_own_is_replaced(ckpt_path, tmp_path):
    pack = tmp_path / "pack.zip"
    pack.write_text("mine")
    with pytest.raises(ValueError, match=r"pack\.zip: is in the way"):
        draw(ckpt_path, tmp_path / "out", zip_path=pack)
    assert contents(tmp_path) == {"pack.zip": b"mine"}
    pack.unlink()
    draw(ckpt_path, tmp_path / "out", zip_path=pack)
    first = pack.read_bytes()
    draw(ckpt_path, tmp_path / "out", zip_path=pack)
    assert pack.read_bytes() == first
    with pytest.raises(ValueError, match="other than output"):
        draw(ckpt_path, tmp_path / "x.zip", zip_path=tmp_path / "x.zip")


def test_a_vocoder_gets_batches_of_one_size_and_each_sound_is_as_in_any_other_batch(ckpt_path):
    trained = TrainedGenerator.load(ckpt_path)
    vocoder, sizes = GriffinLim(trained.params, trained.level_range, n_iter=2, n_inversion_iter=5), []
    vocoder.register_forward_pre_hook(lambda _, args: sizes.append(len(args[0])))
    seeds = range(6)
    spectrograms = trained.sample(["kick"] * 6, seeds)
    together = list(vocode(spectrograms, vocoder, seeds=seeds, batch_size=4))
    (alone,) = vocode(spectrograms[5:], vocoder, seeds=seeds[5:], batch_size=4)
    assert sizes == [4, 4, 4]
    assert together[5].equal(alone)
    for one, other in zip(together, vocode(spectrograms, vocoder, seeds=seeds), strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-4)
    assert sizes[3:] == [1] * 6


def test_workers_write_the_same_bytes_and_page(ckpt_path, tmp_path):
    for name, executor in (("here", serial), ("there", Processes(2))):
        draw(ckpt_path, tmp_path / name, label="all", n_samples=7, executor=executor, workers_from=1)
    here, there = contents(tmp_path / "here"), contents(tmp_path / "there")
    assert len(here) == 3 * 7 * 2 + 3
    assert here == there


def test_few_sounds_or_a_single_worker_start_no_process(ckpt_path, tmp_path, monkeypatch):
    draw(ckpt_path, tmp_path / "few", n_samples=3, executor=never, workers_from=4)
    with pytest.raises(AssertionError, match="workers were started"):
        draw(ckpt_path, tmp_path / "many", n_samples=3, executor=never, workers_from=3)
    one = Processes(1)
    monkeypatch.setattr(one, "warm_up", never)
    draw(ckpt_path, tmp_path / "one", n_samples=3, executor=one, workers_from=1)


@pytest.mark.parametrize(
    ("executor", "fault", "error", "message"),
    [
        (serial, "full", OSError, "No space left on device"),
        (Processes(2), "full", OSError, "No space left on device"),
        (Processes(2), "killed", UnitError, "kick_9.wav: the worker that had it died"),
    ],
)
def test_a_failure_ends_with_its_cause_and_what_was_written_stays(ckpt_path, tmp_path, executor, fault, error, message):
    with pytest.raises(error, match=message):
        draw(ckpt_path, tmp_path, n_samples=12, executor=executor, workers_from=1, vocoder=partial(Fails, fault=fault))
    written = contents(tmp_path)
    assert "kick/kick_0.wav" in written
    assert not {"kick/kick_9.wav", "index.html"} & set(written)


def test_labels_are_a_class_a_list_or_all(ckpt_path, tmp_path):
    folders = {}
    for label in (7, ["kick", 7], "all"):
        output = tmp_path / str(label)
        draw(ckpt_path, output, label=label)
        folders[str(label)] = {name.split("/")[0] for name in contents(output)} - {
            "index.html",
            "manifest.csv",
            OUTPUTS_NAME,
        }
    assert folders == {"7": {"7"}, "['kick', 7]": {"kick", "7"}, "all": {"7", "kick", "_._evil"}}
    assert not (tmp_path / "evil").exists()


@pytest.mark.parametrize("path", ["index.html", "manifest.csv", "kick/kick_1.wav"])
def test_files_of_others_are_in_the_way_and_those_of_an_earlier_run_are_replaced(ckpt_path, tmp_path, path):
    (tmp_path / path).parent.mkdir(exist_ok=True)
    (tmp_path / path).write_text("mine")
    with pytest.raises(ValueError, match=f"{path}: is in the way, .*; move it, or give another output"):
        draw(ckpt_path, tmp_path, n_samples=2)
    assert contents(tmp_path) == {path: b"mine"}
    (tmp_path / path).unlink()
    draw(ckpt_path, tmp_path, n_samples=1)
    draw(ckpt_path, tmp_path, n_samples=2)
    assert (tmp_path / "kick" / "kick_1.wav").is_file()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"label": "gong"}, "gong: not a class of this checkpoint; choose all or some of: 7, kick"),
        ({"label": ["kick", "gong"]}, "gong"),
        ({"label": []}, "label is empty"),
        ({"n_samples": 0}, "n_samples is 0"),
        ({"n_samples": 1e6}, "n_samples is 1000000.0; a whole number, at least 1"),
        ({"device": "cuda:99"}, "device is 'cuda:99', which torch cannot use here"),
        ({"device": "tpu"}, "device is 'tpu', which torch cannot use here"),
        ({"zip_path": "pack"}, "zip is .*pack; a file whose name ends in .zip"),
        ({"seed": -1}, "seed is -1"),
        ({"seed": 0.5}, "seed is 0.5; a whole number"),
        ({"seed": 2**64 - 1, "n_samples": 2}, "seed is 18446744073709551615; .* 18446744073709551615 at most"),
    ],
)
def test_impossible_wishes_are_refused_and_nothing_is_written(ckpt_path, tmp_path, settings, message):
    with pytest.raises(ValueError, match=message):
        draw(ckpt_path, tmp_path / "out", **settings)
    assert not (tmp_path / "out").exists()


def test_a_missing_checkpoint_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"nowhere\.ckpt"):
        draw(tmp_path / "nowhere.ckpt", tmp_path / "out")
    with pytest.raises(ValueError, match="ckpt_path is null"):
        draw(None, tmp_path / "out")


def test_a_class_can_be_named_by_its_index_too(ckpt_path):
    trained = TrainedGenerator.load(ckpt_path)
    assert trained.n_steps == 12
    by_name = trained.sample(["kick", "7", "kick"], [3, 3, 4])
    assert trained.sample_indices([1, 0, 1], [3, 3, 4]).equal(by_name)
    assert by_name.shape == (3, 1, 32, 32)
    assert len({tuple(spectrogram.flatten().tolist()) for spectrogram in by_name}) == 3


@pytest.mark.parametrize("content", [b"", b"not a checkpoint", None])
def test_a_file_that_is_no_checkpoint_is_refused(tmp_path, content):
    path = tmp_path / "x.ckpt"
    if content is None:
        torch.save({"state_dict": {}}, path)
    else:
        path.write_bytes(content)
    with pytest.raises(ValueError, match=r"x\.ckpt: (not a checkpoint|was not written by torch\.save)"):
        TrainedGenerator.load(path)
