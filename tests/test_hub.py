"""specgan.hub: a model's files are found, or the message says how to get them."""

import re

import huggingface_hub
import pytest

from specgan.hub import MissingWeightsError, fetch_file, fetch_folder

HOW = "It takes 54 MB: hf download some/model"


@pytest.fixture
def cached(empty_hub):
    """The folder of some/model in the hub's cache, with its weights."""
    revision = "0" * 40
    folder = empty_hub / "models--some--model"
    (folder / "refs").mkdir(parents=True)
    (folder / "refs/main").write_text(revision)
    snapshot = folder / "snapshots" / revision
    snapshot.mkdir(parents=True)
    (snapshot / "weights.bin").write_text("numbers")
    return snapshot


def test_the_first_file_that_a_folder_has_is_taken(tmp_path):
    (tmp_path / "b.bin").touch()
    assert fetch_file(str(tmp_path), "a.bin", "b.bin", how=HOW) == tmp_path / "b.bin"
    (tmp_path / "a.bin").touch()
    assert fetch_file(str(tmp_path), "a.bin", "b.bin", how=HOW) == tmp_path / "a.bin"
    assert fetch_folder(str(tmp_path), how=HOW) == tmp_path


def test_what_is_in_the_cache_is_not_asked_for_on_the_hub(cached, monkeypatch):
    asked, download = [], huggingface_hub.hf_hub_download

    def noted(model, name, *, revision, local_files_only):
        asked.append((name, local_files_only))
        return download(model, name, revision=revision, local_files_only=local_files_only)

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", noted)
    assert fetch_file("some/model", "weights.safetensors", "weights.bin", how=HOW) == cached / "weights.bin"
    assert asked == [("weights.safetensors", True), ("weights.bin", True)]
    assert fetch_folder("some/model", how=HOW) == cached


def test_what_is_not_in_the_cache_is_downloaded(empty_hub, tmp_path, monkeypatch):
    def download(model, name, *, revision, local_files_only):
        if local_files_only:
            raise huggingface_hub.errors.LocalEntryNotFoundError("not here")
        return str(tmp_path / model / name)

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
    assert fetch_file("some/model", "weights.bin", how=HOW) == tmp_path / "some/model/weights.bin"


def test_a_folder_without_the_files_is_named_with_how_to_get_them(tmp_path):
    with pytest.raises(MissingWeightsError) as caught:
        fetch_file(str(tmp_path), "a.bin", "b.bin", how=HOW)
    assert str(caught.value) == f"{tmp_path}: no a.bin or b.bin in this folder.\n{HOW}"


@pytest.mark.parametrize("fetch", [fetch_folder, lambda model, how: fetch_file(model, "weights.bin", how=how)])
@pytest.mark.parametrize("model", ["some/model", "./no folder/here", "/no/such/folder"])
def test_a_model_that_cannot_be_fetched_is_named_with_how_to_get_it(empty_hub, fetch, model):
    with pytest.raises(MissingWeightsError) as caught:
        fetch(model, how=HOW)
    reason, how = str(caught.value).split("\n")
    assert reason.startswith(f"{model}: no such folder, and ")
    assert re.search(
        r"cannot be fetched from huggingface\.co \(.*([Rr]epo id|cache).*\)\.$", reason
    )  # the hub's own words
    assert how == HOW
    assert caught.value.__context__ is None  # the hub's own stack trace is not shown
