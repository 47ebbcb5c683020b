"""specgan.files: files are written whole or not at all, found once, removed only where allowed, and named apart."""

import json
import os
import subprocess
import sys
import tempfile
import unicodedata
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from names import HOSTILE_NAMES, ODD_NAMES

from specgan.files import (
    MOST_BYTES,
    atomic_path,
    find_files,
    is_inside,
    remove_files,
    safe_name,
    unique_names,
    walk_folders,
    write_bytes,
    write_json,
    write_text,
)

few = settings(max_examples=50, deadline=None)


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


def test_what_another_run_is_writing_stays(tmp_path):
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    with atomic_path(tmp_path / "own.pt") as own:
        touch(own)
        host = own.name.split("-")[1]
    living, killed = (tmp_path / f".partial-{host}-{pid}-0a0b0c0d7.pt" for pid in (os.getppid(), ended.pid))
    far, forgotten = (tmp_path / f".partial-01234567-1-0a0b0c0d{i}.pt" for i in range(2))  # of another machine
    touch(own, living, killed, far, forgotten)
    os.utime(forgotten, (0, 0))
    remove_files(["none"], tmp_path)
    assert set(tmp_path.iterdir()) == {tmp_path / "own.pt", living, far}


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


# --- names


def assert_is_one_visible_component(name: str) -> None:
    assert name.isprintable() and name[0] not in ".-" and not set(name) & set('/\\\\:*?"<>|')
    assert len(os.fsencode(name)) <= MOST_BYTES
    assert Path("folder", name).parts == ("folder", name)
    assert safe_name(name) == name


def test_names_that_windows_changes_or_takes_for_a_device_become_others():
    odd = ["CON", "nul", "Aux.wav", "com1", "LPT9 .x", "a.", "a ", "...", "context", "a. b"]
    assert [safe_name(name) for name in odd] == [
        "_CON", "_nul", "_Aux.wav", "_com1", "_LPT9 .x", "a_", "a_", "_._", "context", "a. b",
    ]  # fmt: skip


@few
@given(st.text(max_size=20) | st.builds(str.__mul__, st.text(max_size=4), st.integers(0, 200)))
def test_any_text_becomes_one_visible_path_component(text):
    assert_is_one_visible_component(safe_name(text))


def test_hostile_and_odd_names_become_one_visible_path_component():
    for name in [*HOSTILE_NAMES, *ODD_NAMES]:
        assert_is_one_visible_component(safe_name(name))


@few
@given(st.text(min_size=MOST_BYTES + 1), st.text(min_size=MOST_BYTES + 1))
def test_long_names_that_differ_are_cut_to_different_names(first, second):
    assert (safe_name(first) == safe_name(second)) == (first == second)


def variants(text: str) -> list[str]:
    return [text, text.upper(), text.lower(), *(unicodedata.normalize(form, text) for form in ("NFC", "NFD"))]


def canonical(name: str) -> str:
    """Equal for names that a file system may take for one: without case, accents taken apart."""
    return unicodedata.normalize("NFD", unicodedata.normalize("NFD", name).casefold())


names = st.text("aAéÅßẞıİΐΪ\u0301\u0308-_0", max_size=3).flatmap(lambda text: st.sampled_from(variants(text)))


@few
@given(st.lists(names, max_size=8), st.randoms())
def test_each_file_has_a_name_of_its_own_that_depends_on_no_order_or_place(wanted, random):
    by_file = {Path("root", f"{i}", "x.wav"): safe_name(name) for i, name in enumerate(wanted)}
    given_names = unique_names(by_file, Path("root"))
    assert len({canonical(name) for name in given_names.values()}) == len(wanted)
    shuffled = list(by_file.items())
    random.shuffle(shuffled)
    assert unique_names(dict(shuffled), Path("root")) == given_names
    moved = {Path("moved") / file: name for file, name in by_file.items()}
    assert list(unique_names(moved, Path("moved/root")).values()) == list(given_names.values())
    alone = [
        file for file, name in by_file.items() if [canonical(n) for n in by_file.values()].count(canonical(name)) == 1
    ]
    assert all(given_names[file] == by_file[file] for file in alone)


# --- whole or not at all


@few
@given(st.binary(), st.binary(), st.integers(0, 20), st.sampled_from([OSError, KeyboardInterrupt]))
def test_an_interrupted_write_leaves_the_old_content_alone(old, new, n_written, error):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "new", "file.bin")
        write_bytes(path, old)
        with pytest.raises(error), atomic_path(path) as temporary:
            temporary.write_bytes(new[:n_written])
            assert path.read_bytes() == old
            raise error
        assert path.read_bytes() == old and os.listdir(path.parent) == ["file.bin"]
        write_bytes(path, new)
        assert path.read_bytes() == new and os.listdir(path.parent) == ["file.bin"]


def test_two_writers_of_one_file_do_not_meet(tmp_path):
    path = tmp_path / "new" / "a.csv"
    with atomic_path(path) as first, atomic_path(path) as second:
        assert first != second
        for temporary in (first, second):
            assert (temporary.parent, temporary.suffix, temporary.name[0]) == (path.parent, ".csv", ".")
            temporary.write_text(temporary.name)
        assert not path.exists()
    assert path.read_text() == first.name  # the outer block ends last
    assert os.listdir(path.parent) == ["a.csv"]


def test_a_block_that_writes_nothing_is_an_error(tmp_path):
    with pytest.raises(FileNotFoundError), atomic_path(tmp_path / "a.txt"):
        pass
    assert os.listdir(tmp_path) == []


def test_text_and_json_are_utf_8_with_their_own_line_ends(tmp_path):
    write_text(tmp_path / "a.txt", "é\r\n\udc80", errors="replace")
    assert (tmp_path / "a.txt").read_bytes() == "é\r\n?".encode()
    with pytest.raises(UnicodeEncodeError):
        write_text(tmp_path / "a.txt", "\udc80")
    write_json(tmp_path / "a.json", {"x": [1, None]}, indent=2)
    assert (tmp_path / "a.json").read_text() == json.dumps({"x": [1, None]}, indent=2) + "\n"
    with pytest.raises(ValueError, match="JSON"):
        write_json(tmp_path / "a.json", float("nan"), allow_nan=False)
    assert sorted(os.listdir(tmp_path)) == ["a.json", "a.txt"]


# --- found once


@few
@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), max_size=6))
def test_each_real_folder_is_visited_once_however_links_lead(links):
    with tempfile.TemporaryDirectory() as folder:
        places = [Path(folder), *(Path(folder, name) for name in ("a", "a/b", "c", "c/d"))]
        for place in places:
            place.mkdir(exist_ok=True)
            touch(place / "x.WAV", place / ".hidden.wav", place / "x.txt")
        for number, (at, to) in enumerate(links):
            (places[at] / f"link{number}").symlink_to(places[to], target_is_directory=True)
        found = find_files(folder, {".wav"})
        assert sorted(path.resolve() for path in found) == sorted((place / "x.WAV").resolve() for place in places)
        assert found == sorted(found)
        assert find_files(folder, {".wav"}, recursive=False) == [places[0] / "x.WAV"]


def test_a_folder_to_avoid_is_not_entered_by_its_link_either(tmp_path):
    touch(tmp_path / "in" / "a" / "1.wav", tmp_path / "in" / "out" / "2.wav", tmp_path / ".hidden" / "3.wav")
    (tmp_path / "in" / "link").symlink_to(tmp_path / "in" / "out" / "sub", target_is_directory=True)
    (tmp_path / "in" / "out" / "sub").mkdir()
    walked = list(walk_folders(tmp_path / "in", avoid=tmp_path / "in" / "out"))
    assert walked == [(tmp_path / "in", []), (tmp_path / "in" / "a", ["1.wav"])]
    assert list(walk_folders(tmp_path / ".hidden")) == [(tmp_path / ".hidden", ["3.wav"])]


def test_inside_is_what_a_link_leads_to(tmp_path):
    touch(tmp_path / "a" / "b" / "1.wav")
    (tmp_path / "link").symlink_to(tmp_path / "a" / "b", target_is_directory=True)
    inside = ["a", "a/b/1.wav", "link", "link/new/file", "x/../a/b"]
    assert [
        path for path in [*inside, "", "ab", "a/../b", "link/../../c"] if is_inside(tmp_path / path, tmp_path / "a")
    ] == inside
