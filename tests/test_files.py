"""specgan.files: what goes, what stays, and names that stay apart."""

import os
from pathlib import Path

from specgan.files import remove_files, unique_names


def touch(*paths: Path) -> None:
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("x")


def test_listed_files_go_and_the_folders_that_this_empties(tmp_path):
    touch(tmp_path / "train" / "kick" / "1.pt", tmp_path / "train" / "snare" / "1.pt")
    (tmp_path / "val" / "dead.pt").parent.mkdir()
    (tmp_path / "val" / "dead.pt").symlink_to("nowhere.pt")
    (tmp_path / "half" / "removed").mkdir(parents=True)
    touch(tmp_path / "val" / "2.pt", tmp_path / "val" / ".partial-12-0a0b0c0d.pt")
    touch(tmp_path / "val" / "mine.txt", tmp_path / "mine.txt")
    gone = ["train/gone/1.pt", "half/removed/already/1.pt", "old/gone/1.pt"]
    remove_files(["train/kick/1.pt", "train/snare/1.pt", *gone, "val/2.pt", "val/dead.pt"], tmp_path)
    assert sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*")) == [
        "mine.txt",
        "val",
        "val/mine.txt",
    ]


def test_what_lies_outside_the_folder_stays(tmp_path):
    folder, elsewhere = tmp_path / "folder", tmp_path / "elsewhere"
    touch(elsewhere / "1.pt", folder / "a" / "2.pt", folder / "a" / "3.pt")
    (folder / "linked").symlink_to(elsewhere, target_is_directory=True)
    (folder / "a" / "link.pt").symlink_to(elsewhere / "1.pt")
    paths = ["../elsewhere/1.pt", str(elsewhere / "1.pt"), "linked/1.pt", "a/../../elsewhere/1.pt"]
    no_paths = ["", ".", "..", "x\0.pt", "x\0/y.pt", "\ud800/x.pt", "a" * 5000 + "/x.pt"]
    remove_files([*paths, *no_paths, "a/link.pt", "a/2.pt", "a"], folder)
    assert (elsewhere / "1.pt").exists()
    assert sorted(os.listdir(folder / "a")) == ["3.pt"]  # a link goes, what it leads to does not


def test_a_folder_reached_by_a_link_is_cleared_all_the_same(tmp_path):
    touch(tmp_path / "real" / "a" / "1.pt")
    (tmp_path / "link").symlink_to(tmp_path / "real", target_is_directory=True)
    remove_files(["a/1.pt"], tmp_path / "link")
    assert os.listdir(tmp_path / "real") == []


def test_names_that_are_wanted_once_stay_and_others_get_a_digest(tmp_path):
    wanted = {tmp_path / "a" / "x.wav": "x", tmp_path / "b" / "X.wav": "X", tmp_path / "a" / "y.wav": "y"}
    names = unique_names(wanted, tmp_path)
    assert names[tmp_path / "a" / "y.wav"] == "y"
    assert len({name.casefold() for name in names.values()}) == 3
    assert unique_names(dict(reversed(wanted.items())), tmp_path) == names
    (tmp_path / "moved").mkdir()
    moved = {tmp_path / "moved" / file.relative_to(tmp_path): name for file, name in wanted.items()}
    assert set(unique_names(moved, tmp_path / "moved").values()) == set(names.values())
