"""specgan.batch.journal: what a killed run has noted is there in the next, and nothing of what it half noted."""

import itertools
import json

import pytest

from specgan.batch.journal import JOURNAL_NAME, Journal, made_from

ENTRIES = {f"kick/{name}": {"size": i, "outputs": [f"kick/{name}.pt"]} for i, name in enumerate("abc")}


def noted(folder) -> Journal:
    """A journal whose run was killed after the entries, with two units begun and not done."""
    journal = Journal(folder)
    journal.begin([*ENTRIES, "kick/d", "kick/e"])
    for key, entry in ENTRIES.items():
        journal.add(key, entry)
    return journal


def test_no_file_is_an_empty_journal_and_makes_none(tmp_path):
    journal = Journal(tmp_path)
    assert (journal.entries, journal.begun) == ({}, set())
    assert list(tmp_path.iterdir()) == []


def test_what_was_noted_is_there_without_an_end(tmp_path):
    noted(tmp_path)  # never closed, never written: as after kill -9
    journal = Journal(tmp_path)
    assert journal.entries == ENTRIES
    assert journal.begun == {"kick/d", "kick/e"}


def test_a_line_that_was_cut_anywhere_counts_for_nothing_and_spoils_nothing(tmp_path):
    noted(tmp_path)
    path = tmp_path / JOURNAL_NAME
    content = path.read_bytes()
    start = content.rindex(b"\n", 0, -1) + 1  # of the last line
    for length in range(start, len(content) - 1):
        path.write_bytes(content[:length])
        journal = Journal(tmp_path)
        assert list(journal.entries) == ["kick/a", "kick/b"]
        assert journal.begun == {"kick/c", "kick/d", "kick/e"}
        journal.begin(["kick/c"])
        journal.add("kick/c", ENTRIES["kick/c"])  # the next line is one of its own
        assert Journal(tmp_path).entries == ENTRIES


def test_a_journal_that_was_cut_in_its_first_line_is_empty(tmp_path):
    noted(tmp_path)
    path = tmp_path / JOURNAL_NAME
    path.write_bytes(path.read_bytes()[:10])
    assert (Journal(tmp_path).entries, Journal(tmp_path).begun) == ({}, set())


def test_begin_forgets_entries_of_what_is_made_again_and_keeps_the_others(tmp_path):
    noted(tmp_path)
    Journal(tmp_path).begin(["kick/a", "kick/x"])
    journal = Journal(tmp_path)
    assert journal.entries == {key: ENTRIES[key] for key in ("kick/b", "kick/c")}
    assert {"kick/a", "kick/x"} <= journal.begun


def test_units_that_killed_runs_had_begun_are_known_until_they_are_done(tmp_path):
    Journal(tmp_path).begin(["kick/a", "kick/b"])
    Journal(tmp_path).begin(["kick/c"])
    journal = Journal(tmp_path)
    assert journal.begun == {"kick/a", "kick/b", "kick/c"}
    journal.begin([])
    journal.add("kick/b", {"outputs": []})
    assert Journal(tmp_path).begun == {"kick/a", "kick/c"}


@pytest.mark.parametrize("order", list(itertools.permutations(ENTRIES)))
def test_the_written_file_does_not_show_the_order_in_which_units_were_done(tmp_path, order):
    for folder, keys in (("one", list(ENTRIES)), ("other", order)):
        (tmp_path / folder).mkdir()
        journal = Journal(tmp_path / folder)
        journal.begin(keys)
        for key in keys:
            journal.add(key, ENTRIES[key])
        journal.write()
    contents = [(tmp_path / folder / JOURNAL_NAME).read_bytes() for folder in ("one", "other")]
    assert contents[0] == contents[1]


def test_the_written_file_is_the_same_after_an_interruption(tmp_path):
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    for folder in (whole, killed):
        folder.mkdir()
    journal = Journal(whole)
    journal.begin(ENTRIES)
    for key, entry in ENTRIES.items():
        journal.add(key, entry)
    journal.write()

    journal = Journal(killed)
    journal.begin(ENTRIES)
    journal.add("kick/c", ENTRIES["kick/c"])
    journal = Journal(killed)  # the next run
    journal.begin(["kick/a", "kick/b"])
    for key in ("kick/b", "kick/a"):
        journal.add(key, ENTRIES[key])
    journal.write()
    assert (killed / JOURNAL_NAME).read_bytes() == (whole / JOURNAL_NAME).read_bytes()


def test_the_file_is_one_json_object_a_line(tmp_path):
    noted(tmp_path).write()
    lines = [json.loads(line) for line in (tmp_path / JOURNAL_NAME).read_text().splitlines()]
    assert lines == [{"settings": {}}, *({"key": key, **entry} for key, entry in ENTRIES.items())]


# Which units are to be made


def started(folder, settings=None):
    """A journal of one unit, made from `folder`/a.txt, after its run."""
    (folder / "a.txt").write_text("a")
    journal = Journal(folder / "out", settings)
    assert journal.start({"x/a": [folder / "a.txt"]}) == ["x/a"]
    (folder / "out" / "x").mkdir()
    (folder / "out" / "x" / "a.pt").write_text("made")
    journal.add("x/a", {"made_from": made_from([folder / "a.txt"]), "outputs": ["x/a.pt"]})
    journal.write()
    return Journal(folder / "out", settings)


def test_what_is_fresh_is_not_made_again(tmp_path):
    assert started(tmp_path).start({"x/a": [tmp_path / "a.txt"]}) == []
    assert (tmp_path / "out" / "x" / "a.pt").exists()


def change_source(folder):
    (folder / "a.txt").write_text("another")


def remove_output(folder):
    (folder / "out" / "x" / "a.pt").unlink()


@pytest.mark.parametrize("change", [change_source, remove_output])
def test_what_is_not_as_it_was_is_made_again(tmp_path, change):
    journal = started(tmp_path)
    change(tmp_path)
    assert journal.start({"x/a": [tmp_path / "a.txt"]}) == ["x/a"]
    assert not (tmp_path / "out" / "x").exists()


def test_other_settings_make_all_stale_and_a_kill_between_does_not_hide_it(tmp_path):
    started(tmp_path, {"size": (1, 2)})
    assert Journal(tmp_path / "out", {"size": [1, 2]}).start({"x/a": [tmp_path / "a.txt"]}) == []  # a list is a tuple
    for _ in range(2):  # the first is killed after it began
        journal = Journal(tmp_path / "out", {"size": [1, 3]})
        assert journal.start({"x/a": [tmp_path / "a.txt"]}) == ["x/a"]
        assert not (tmp_path / "out" / "x").exists()


def test_a_unit_that_is_gone_takes_its_outputs_along(tmp_path):
    final = tmp_path / "out" / "final.txt"
    journal = started(tmp_path)
    final.write_text("complete")
    assert journal.start({}, final=final) == []
    assert [path.name for path in (tmp_path / "out").iterdir()] == [JOURNAL_NAME]


def test_what_a_killed_run_was_at_goes_with_its_slices_and_channels(tmp_path):
    (tmp_path / "a.txt").write_text("a")
    out = tmp_path / "out"
    endings = r"(_\d{4,})?(_ch\d+)?\.(pt|png)"
    Journal(out, endings=endings).start({"x/a": [tmp_path / "a.txt"], "x/b_0001": [tmp_path / "a.txt"]})
    (out / "x").mkdir()
    names = ["a.pt", "a_0000.png", "a_0001_ch1.png", "b_0001.pt", "ab.pt", "a_00.png", "a.wav", ".partial-1-2.png"]
    for name in names:
        (out / "x" / name).write_text("x")
    assert Journal(out, endings=endings).start({}) == []
    assert {path.name for path in (out / "x").iterdir()} == {"ab.pt", "a_00.png", "a.wav"}
