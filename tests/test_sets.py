"""specgan.sets: tiny copies in the published layout are found, fetched, listed, and dealt as published."""

import io
import shutil
import tarfile
import zipfile
from collections import Counter
from pathlib import Path

import pytest
import torch
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate
from omegaconf import OmegaConf

from specgan.audio import save_wav
from specgan.data.dealing import deal_groups
from specgan.data.manifest import read_manifest
from specgan.sets.archives import Archive, MissingSetError, fetch
from specgan.sets.esc50 import fetch_esc50, list_esc50
from specgan.sets.hub import fetch_hub_set, list_hub_set
from specgan.sets.nsynth import fetch_nsynth, list_nsynth
from specgan.sets.speech_commands import fetch_speech_commands, list_speech_commands

CONF = Path(__file__).parents[1] / "conf"
RATE = 16000


def sound(path: Path, number: int) -> None:
    generator = torch.Generator().manual_seed(number)
    save_wav(path, 0.3 * torch.randn(800, generator=generator).clamp(-3, 3), RATE)


@pytest.fixture
def speech_commands(tmp_path):
    root = tmp_path / "speech_commands_v0.02"
    lists: dict[str, list[str]] = {"testing_list.txt": [], "validation_list.txt": []}
    for number, word in enumerate(("yes", "no")):
        for speaker in range(5):
            for take in range(2):
                path = f"{word}/{speaker:08x}_nohash_{take}.wav"
                sound(root / path, 100 * number + 10 * speaker + take)
                if speaker < 2:
                    lists[("testing_list.txt", "validation_list.txt")[speaker]].append(path)
    sound(root / "_background_noise_" / "rain.wav", 999)
    for name, lines in lists.items():
        (root / name).write_text("\n".join(lines) + "\n")
    (root / "LICENSE").write_text("CC BY 4.0")
    return root


@pytest.fixture
def esc50(tmp_path):
    root = tmp_path / "ESC-50-master"
    rows = ["filename,fold,target,category,esc10,src_file,take"]
    for number, category in enumerate(("dog", "rain")):
        for fold in range(1, 6):
            for take in "AB":
                name = f"{fold}-{1000 * fold + number}-{take}-{number}.wav"
                sound(root / "audio" / name, 10 * fold + number)
                rows.append(f"{name},{fold},{number},{category},False,{1000 * fold + number},{take}")
    (root / "meta").mkdir()
    (root / "meta" / "esc50.csv").write_text("\n".join(rows) + "\n")
    return root


@pytest.fixture
def nsynth(tmp_path):
    root = tmp_path / "nsynth"
    for part, number in (("train", 0), ("train", 1), ("valid", 2), ("test", 3)):
        for family in ("bass_synthetic", "synth_lead_electronic"):
            for pitch in (60, 61):
                sound(root / f"nsynth-{part}" / "audio" / f"{family}_{number:03d}-{pitch:03d}-100.wav", pitch)
    return root


def test_speech_commands_as_published(speech_commands):
    fetch_speech_commands(speech_commands.parent)  # it is there: nothing is fetched
    listed = list(list_speech_commands(speech_commands.parent))
    assert len(listed) == 20
    assert {each.label for each in listed} == {"yes", "no"}  # noise is no word
    assert Counter(each.split for each in listed) == {"train": 12, "val": 4, "test": 4}
    assert {each.group for each in listed if each.split == "test"} == {"00000000"}
    assert {each.group for each in listed if each.split == "val"} == {"00000001"}


def test_esc50_as_published(esc50):
    fetch_esc50(esc50)
    listed = list(list_esc50(esc50))
    assert Counter((each.label, each.split) for each in listed) == {
        (label, split): n for label in ("dog", "rain") for split, n in (("train", 6), ("val", 2), ("test", 2))
    }
    assert all(each.path.is_file() and each.group == each.path.name.split("-")[1] for each in listed)


def test_nsynth_as_published(nsynth):
    fetch_nsynth(nsynth)
    listed = list(list_nsynth(nsynth))
    assert Counter(each.split for each in listed) == {"train": 8, "val": 4, "test": 4}
    assert {each.label for each in listed} == {"bass", "synth_lead"}
    assert {each.group for each in listed if each.split == "test"} == {
        "bass_synthetic_003",
        "synth_lead_electronic_003",
    }
    assert {each.label for each in list_nsynth(nsynth, label="pitch")} == {"060", "061"}
    assert {each.label for each in list_nsynth(nsynth, label="source")} == {"synthetic", "electronic"}
    with pytest.raises(ValueError, match=r"data\.listing\.label is 'velocity'"):
        list(list_nsynth(nsynth, label="velocity"))
    with pytest.raises(ValueError, match=r"parts is \['val'\]"):
        fetch_nsynth(nsynth, parts=["val"])


def packed(root: Path, kind: str) -> Path:
    path = root.with_name(f"packed.{kind}")
    if kind == "zip":
        with zipfile.ZipFile(path, "w") as file:
            for each in sorted(root.rglob("*")):
                file.write(each, each.relative_to(root.parent))
    else:
        with tarfile.open(path, "w:gz") as file:
            file.add(root, ".")
    return path


@pytest.mark.parametrize("kind", ["zip", "tar.gz"])
def test_an_archive_is_fetched_once(speech_commands, tmp_path, kind, caplog):
    caplog.set_level("INFO")
    url = packed(speech_commands, kind).as_uri()
    archive = Archive(url, "5 kB", folder="v2", marker="testing_list.txt")
    fetch("Words", [archive], tmp_path / "data", licence="CC BY 4.0")
    assert f"Words: fetching {url} (5 kB)" in caplog.text
    assert "licence: CC BY 4.0" in caplog.text
    assert [path.name for path in (tmp_path / "data").iterdir()] == ["v2"]  # no archive, nothing half-written
    assert len(list(list_speech_commands(tmp_path / "data"))) == 20
    (tmp_path / f"packed.{kind}").unlink()
    fetch("Words", [archive], tmp_path / "data", licence="CC BY 4.0")


@pytest.mark.parametrize("fault", ["absent", "digest", "no archive", "other content"])
def test_what_cannot_be_fetched_is_said_with_another_way(speech_commands, tmp_path, fault):
    path = packed(speech_commands, "tar.gz")
    if fault == "absent":
        path.unlink()
    elif fault == "no archive":
        path.write_bytes(b"<html>sign in</html>")
    marker = "absent.txt" if fault == "other content" else "testing_list.txt"
    digest = 64 * "0" if fault == "digest" else ""
    archive = Archive(path.as_uri(), "5 kB", folder="v2", marker=marker, sha256=digest)
    with pytest.raises(
        MissingSetError, match=r"It would be 5 kB from file://.*, licence: CC BY 4\.0\. .*data\.audio_dir="
    ):
        fetch("Words", [archive], tmp_path / "data", licence="CC BY 4.0")
    assert not (tmp_path / "data").exists()


def test_an_archive_writes_nowhere_else(tmp_path):
    with tarfile.open(tmp_path / "evil.tar.gz", "w:gz") as file:
        file.addfile(tarfile.TarInfo("../../escaped"), io.BytesIO())
    archive = Archive((tmp_path / "evil.tar.gz").as_uri(), "1 kB", folder="v2", marker="x")
    with pytest.raises(MissingSetError, match="escaped"):
        fetch("Words", [archive], tmp_path / "data" / "words", licence="CC BY 4.0")
    assert not list(tmp_path.rglob("escaped"))


def test_a_folder_of_something_else_is_left_alone(tmp_path):
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "cat.jpg").write_bytes(b"")
    with pytest.raises(ValueError, match=r"photos: holds something, but no ESC-50"):
        fetch_esc50(tmp_path / "photos")


def module(tmp_path, *overrides: str):
    small = ["spectrogram=mel_8k_64x64", f"paths.data_dir={tmp_path / 'data'}", "data.keep_sounds=0"]
    with initialize_config_dir(str(CONF), version_base="1.3"):
        cfg = compose("train", overrides=[*small, *overrides])
    OmegaConf.set_struct(cfg, True)
    data = instantiate(cfg.data, _convert_="all")
    data.prepare_data()
    data.setup("fit")
    return data


@pytest.mark.parametrize("name", ["speech_commands", "esc50", "nsynth"])
def test_data_by_name_has_the_published_splits(request, tmp_path, name):
    root = request.getfixturevalue(name)
    data = module(tmp_path, f"data={name}", f"data.audio_dir={root}")
    n = {"speech_commands": (12, 4, 4), "esc50": (12, 4, 4), "nsynth": (8, 4, 4)}[name]
    assert (len(data.train), len(data.val), len(data.test)) == n
    assert not data.is_built_in
    table = read_manifest(data.dataset_dir)
    assert table.groupby("group")["split"].nunique().max() == 1
    own = module(tmp_path, f"data={name}", f"data.audio_dir={root}", "data.own_splits=false", "data.splits=[40,30,30]")
    assert own.dataset_dir != data.dataset_dir
    assert read_manifest(own.dataset_dir).groupby("group")["split"].nunique().max() == 1


def test_a_split_that_is_not_published_comes_from_train():
    groups, labels = [f"{number}" for number in range(40)], ["a", "b"] * 20
    own = ["train"] * 32 + ["test"] * 8
    dealt = deal_groups(groups, labels, percentages=(80, 10, 10), seed=0, own=own)
    assert dealt[32:] == ["test"] * 8
    assert Counter(dealt[:32]) == {"train": 28, "val": 4}
    assert deal_groups(groups, labels, percentages=(80, 0, 20), seed=0, own=own) == own


# The Hugging Face hub


@pytest.fixture
def hub_set(tmp_path):
    pytest.importorskip("datasets", reason="needs the extra datasets")
    root = tmp_path / "set"
    for split in ("train", "test"):
        for number, label in enumerate(("cat", "dog")):
            for take in range(4):
                sound(root / split / label / f"{take}.wav", 10 * number + take + (split == "test") * 100)
    return root


def test_a_folder_of_the_hubs_form(hub_set, tmp_path):
    data = module(tmp_path, "data=hf", f"data.name={hub_set}", "data.splits=[50,25,25]")
    assert data.train.class_names == ["cat", "dog"]
    assert len(data.test) == 8
    assert 0 < len(data.val) < len(data.train)
    listed = list(list_hub_set(Path(data.audio_dir)))
    assert Counter((each.label, each.split) for each in listed) == {
        (label, split): 4 for label in ("cat", "dog") for split in ("train", "test")
    }
    originals = {path.read_bytes() for path in hub_set.rglob("*.wav")}
    assert {each.path.read_bytes() for each in listed} == originals
    shutil.rmtree(hub_set)  # it was written out, and is not needed again
    module(tmp_path, "data=hf", f"data.name={hub_set}", "data.splits=[50,25,25]")


def test_columns_of_a_table(tmp_path):
    datasets = pytest.importorskip("datasets", reason="needs the extra datasets")
    sound(tmp_path / "x.wav", 0)
    kept = {"bytes": (tmp_path / "x.wav").read_bytes(), "path": "x.wav"}
    table = {"clip": [kept, kept, None, kept], "word": ["yes", "no", "no", None], "who": ["a", "b", "c", "d"]}
    (tmp_path / "set").mkdir()
    datasets.Dataset.from_dict(table).to_parquet(tmp_path / "set" / "train.parquet")
    out, which = tmp_path / "out", {"name": str(tmp_path / "set"), "label_column": "word", "group_column": "who"}
    with pytest.raises(ValueError, match="no column 'audio' in its split 'train'; there are clip, word, who"):
        fetch_hub_set(out, **which)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["set", "x.wav"]
    fetch_hub_set(out, **which, audio_column="clip")
    listed = list(list_hub_set(out))
    assert [(each.label, each.group, each.split) for each in listed] == [("yes", "a", ""), ("no", "b", "")]
    assert all(each.path.read_bytes() == kept["bytes"] for each in listed)
    with pytest.raises(ValueError, match="was made with"):
        fetch_hub_set(out, **which, audio_column="other")


def test_without_network_the_error_says_where_it_is(tmp_path, monkeypatch):
    datasets = pytest.importorskip("datasets", reason="needs the extra datasets")

    def refuse(*_, **__):
        raise ConnectionError("Couldn't reach the hub")

    monkeypatch.setattr(datasets, "load_dataset", refuse)
    with pytest.raises(
        MissingSetError, match=r"https://huggingface\.co/datasets/me/set .*hf download me/set --repo-type"
    ):
        fetch_hub_set(tmp_path / "out", name="me/set")
    assert not (tmp_path / "out").exists()
