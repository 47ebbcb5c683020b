"""The listening page, its key, and what listeners save: rated by keyboard in a headless Chromium, joined, scored."""

import base64
import csv
import io
import json
import os
from collections import Counter
from contextlib import contextmanager
from itertools import product
from pathlib import Path

import pytest
import soundfile
import torch
from names import ODD_NAMES
from pages import Page

from specgan.batch.failures import UnitError
from specgan.evaluation import listening
from specgan.evaluation.listening import at_one_level, loudest_rms, write_listening
from specgan.evaluation.ratings import Key, read_key
from specgan.evaluation.scores import SCORES, Rating, score
from specgan.tasks.listening import join_listeners

RATE = 8000
ROWS = ("real", "vocoded", "generated")


def some_sounds(n=2, *, names=("kick", "snare"), seed=0, length=400):
    """Another noise for each sound."""
    generator = torch.Generator().manual_seed(seed)
    return {name: {row: 0.2 * torch.randn(n, length, generator=generator) for row in ROWS} for name in names}


def written(folder, sounds, *, seed=0) -> tuple[dict, Key]:
    """The content of the page, and its key."""
    write_listening(folder, sounds, checkpoint="runs/a/best.ckpt", sample_rate=RATE, seed=seed)
    content = Page(folder / "listening.html").texts["script"][0]
    return json.loads(content), read_key(folder / "listening_key.json")


# --- the page


def test_every_sound_is_there_once_and_the_key_alone_knows_which(tmp_path):
    sounds = some_sounds(3)
    content, key = written(tmp_path, sounds)
    assert [of_class["name"] for of_class in content["classes"]] == ["kick", "snare"]
    assert [of_class["sounds"] for of_class in content["classes"]] == [list(map(str, range(*ends))) for ends in
                                                                      ((1, 10), (10, 19))]  # fmt: skip
    assert Counter((origin.label, origin.row) for origin in key.sounds.values()) == dict.fromkeys(
        product(sounds, ROWS), 3
    )
    found = {}
    for number, encoded in content["audio"].items():
        heard, rate = soundfile.read(io.BytesIO(base64.b64decode(encoded)), dtype="float32")
        origin = key.sounds[number]
        kin = torch.nn.functional.normalize(sounds[origin.label][origin.row]) @ torch.from_numpy(heard)
        found[number] = int(kin.argmax())
        assert rate == RATE and kin.max() > 0.99 * torch.from_numpy(heard).norm()
    for of_class in content["classes"]:
        assert [each["letter"] for each in of_class["sets"]] == ["A", "B", "C"]
        assert sorted(key.sets[each["number"]].row for each in of_class["sets"]) == sorted(ROWS)
        for each in of_class["sets"]:
            origins = {key.sounds[number] for number in each["sounds"]}
            assert origins == {key.sets[each["number"]]}
            assert sorted(found[number] for number in each["sounds"]) == [0, 1, 2]

    html = (tmp_path / "listening.html").read_text()
    assert not any(word in html for word in (*ROWS, "best.ckpt"))
    assert {path.name for path in tmp_path.iterdir()} == {"listening.html", "listening_key.json"}


def test_the_same_sounds_give_the_same_page_and_others_another_order(tmp_path):
    first = written(tmp_path / "a", some_sounds(4))
    assert written(tmp_path / "b", some_sounds(4)) == first
    keys = [written(tmp_path / f"{seed}", some_sounds(4, seed=seed))[1] for seed in range(5)]
    assert len({tuple(origin.row for origin in key.sounds.values()) for key in keys}) == 5
    assert written(tmp_path / "c", some_sounds(4), seed=1)[1].page != first[1].page


def test_stereo_stays_stereo(tmp_path):
    sounds = {"kick": {row: 0.2 * torch.randn(2, 2, 400) for row in ROWS}}
    content, _ = written(tmp_path, sounds)
    assert {soundfile.read(io.BytesIO(base64.b64decode(flac)))[0].shape for flac in content["audio"].values()} == {
        (400, 2)
    }


def test_a_new_page_in_the_folder_keeps_the_key_of_the_one_before(tmp_path):
    _, old = written(tmp_path, some_sounds(seed=0))
    _, new = written(tmp_path, some_sounds(seed=1))
    assert read_key(tmp_path / f"listening_key-{old.page}.json") == old
    assert read_key(tmp_path / "listening_key.json") == new != old


def test_rows_are_cut_to_the_shortest_and_a_set_has_at_least_two_sounds(tmp_path):
    sounds = some_sounds(4)
    sounds["kick"]["real"] = sounds["kick"]["real"][:1]
    content, key = written(tmp_path, {**sounds, "hat": {"generated": sounds["kick"]["generated"]}})
    assert [len(of_class["sounds"]) for of_class in content["classes"]] == [3, 12, 4]
    assert [len(of_class["sets"]) for of_class in content["classes"]] == [0, 3, 1]
    assert {origin.row for number, origin in key.sounds.items() if origin.label == "hat"} == {"generated"}


def test_a_page_that_would_be_too_large_has_fewer_sounds(tmp_path, monkeypatch, caplog):
    content, _ = written(tmp_path / "a", some_sounds(4))
    n_bytes = sum(len(base64.b64decode(encoded)) for encoded in content["audio"].values())
    monkeypatch.setattr(listening, "MOST_BYTES", round(0.6 * n_bytes))
    content, _ = written(tmp_path / "b", some_sounds(4))
    assert len(content["audio"]) == 2 * 3 * 2
    assert "has 2 sounds of each class and row instead of 4" in caplog.text


def test_names_stay_text(tmp_path):
    content, key = written(tmp_path, some_sounds(1, names=ODD_NAMES, length=10))
    assert [of_class["name"] for of_class in content["classes"]] == ODD_NAMES
    page = Page(tmp_path / "listening.html")
    assert len(page.texts["script"]) == 2 and not {"b", "i", "img"} & set(page.texts)
    assert not page.values("src")
    saved(tmp_path / "in", key, "=1+1 <b>", lambda *_: 5)
    join_listeners(tmp_path / "in", tmp_path / "out")
    assert list(table(tmp_path / "out")) == [(label, row) for label in [*ODD_NAMES, "all"] for row in ROWS]


def test_a_sound_that_cannot_be_encoded_leaves_no_page(tmp_path):
    sounds = some_sounds()
    sounds["snare"]["generated"][1, 3] = float("nan")
    with pytest.raises(ValueError, match="1 of 400 samples are NaN"):
        written(tmp_path, sounds)
    assert list(tmp_path.iterdir()) == []


# --- level


def tone(peak, *, length=RATE, channels=()):
    return (peak * torch.sin(2 * torch.pi * 100 * torch.arange(length) / RATE)).expand(*channels, length)


def test_loudness_is_that_of_the_loudest_part():
    sound = torch.zeros(5 * RATE)
    sound[7000 : 7000 + RATE] = tone(0.5)
    assert loudest_rms(sound, RATE) == pytest.approx(0.5 / 2**0.5, rel=1e-3)
    assert loudest_rms(tone(0.5, length=800), RATE) == pytest.approx(0.5 / 2**0.5, rel=1e-3)
    stereo = torch.stack([tone(0.5), torch.zeros(RATE)])
    assert loudest_rms(stereo, RATE) == pytest.approx(0.5 / 2, rel=1e-3)


@pytest.mark.parametrize("channels", [(), (2,)])
def test_all_rows_of_a_class_have_one_level(channels):
    rows = {
        "real": torch.stack([tone(0.9, channels=channels), tone(0.01, channels=channels)]),
        "generated": torch.stack([tone(3.0, channels=channels), tone(5e-4, channels=channels)]),
    }
    level = at_one_level(rows, RATE)
    for sound in (*level["real"], level["generated"][0]):
        assert loudest_rms(sound, RATE) == pytest.approx(10 ** (-23 / 20), rel=1e-3)
    torch.testing.assert_close(level["generated"][1], rows["generated"][1])  # is not heard


@pytest.mark.parametrize(("n_pulses", "expected_db"), [(16, -23.0), (8, -26.02), (2, -32.04), (1, -33.0)])
def test_high_peaks_lower_the_level_of_the_whole_class(n_pulses, expected_db):
    """Pulses of 1 among 3200 samples, 0.4 s, that are 0.25 elsewhere silent: peak re RMS is 3200 / n."""
    click = torch.zeros(RATE)
    click[100 : 100 + n_pulses] = 0.25
    level = at_one_level({"real": tone(0.5).unsqueeze(0), "generated": click.unsqueeze(0)}, RATE)
    assert 20 * torch.log10(torch.tensor(loudest_rms(level["real"][0], RATE))) == pytest.approx(expected_db, abs=0.02)
    assert float(level["generated"].abs().max()) <= 1


# --- scores


def ratings_of(rated, *, row="generated"):
    """From (listener, class, item, name): points."""
    return [Rating(listener, label, row, item, name, points) for (listener, label, item, name), points in rated.items()]


def test_the_interval_has_the_spread_of_listeners_and_that_of_sounds():
    """Points 5 + a listener's -1, 0 or 1 + a sound's -1, 0 or 1: each mean has a variance of 1 / 3, with 2 degrees of
    freedom, so both together of 2 / 3 with 4; Student's quantile is 2.776."""
    points = {(f"l{a}", "kick", f"{b}", "quality"): 5 + a + b for a in (-1, 0, 1) for b in (-1, 0, 1)}
    found = score(ratings_of(points), SCORES["quality"])
    assert found.value == 5
    assert (found.low, found.high) == pytest.approx((5 - 2.776445 * (2 / 3) ** 0.5, 5 + 2.776445 * (2 / 3) ** 0.5))
    alone = {place: value for place, value in points.items() if place[0] == "l0"}
    found = score(ratings_of(alone), SCORES["quality"])  # of one listener: 3 sounds, 2 degrees of freedom
    assert (found.low, found.high) == pytest.approx((5 - 4.302653 * 3**-0.5, 5 + 4.302653 * 3**-0.5))


def test_the_total_weighs_2_2_1_and_each_class_the_same():
    points = {}
    for label, n_sounds, (quality, fit, diversity) in (("kick", 1, (4, 6, 10)), ("snare", 3, (8, 10, 0))):
        for listener in ("a", "b"):
            points |= {(listener, label, f"{label}{i}", "quality"): quality for i in range(n_sounds)}
            points |= {(listener, label, f"{label}{i}", "fit"): fit for i in range(n_sounds)}
            points |= {(listener, label, f"{label}A", "diversity"): diversity}
    found = {name: score(ratings_of(points), weights) for name, weights in SCORES.items()}
    assert [each.value for each in found.values()] == pytest.approx([6, 8, 5, ((8 + 12 + 10) / 5 + (16 + 20) / 5) / 2])
    assert all(each.low == each.value == each.high for each in found.values())  # all are of one opinion


def test_what_is_missing_does_not_shift_a_score():
    """A severe listener who skipped the good sound: each sound counts once; without diversity there is no total."""
    points = {("a", "kick", "1", "quality"): 8, ("a", "kick", "2", "quality"): 4, ("b", "kick", "2", "quality"): 2}
    assert score(ratings_of(points), SCORES["quality"]).value == pytest.approx((8 + 3) / 2)
    assert score(ratings_of(points), SCORES["total"]) is None
    assert score(ratings_of({("a", "kick", "A", "diversity"): 7}), SCORES["diversity"]).low is None


# --- joining


def saved(folder, key, listener, points, *, browser=None, at="2026-01-01T10:00:00.000Z", **changed):
    """The file of a listener: `points` maps an origin and what is rated to a number, or None."""
    sounds = {
        number: {name: points(origin, name) for name in ("quality", "fit")} for number, origin in key.sounds.items()
    }
    sets = {number: {"diversity": points(origin, "diversity")} for number, origin in key.sets.items()}
    known = [
        {number: {name: n for name, n in each.items() if n is not None} for number, each in rated.items()}
        for rated in (sounds, sets)
    ]
    content = dict(zip(("sounds", "sets"), known, strict=True))
    content |= {"page": key.page, "listener": listener, "browser": browser or f"of {listener}", "saved": at, **changed}
    path = folder / f"{listener}-{at[11:13]}.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(content))
    return path


def table(folder):
    with (folder / "table.csv").open(newline="", encoding="utf-8", errors="surrogateescape") as file:
        return {(row["label"], row["row"]): row for row in csv.DictReader(file)}


@pytest.fixture
def key(tmp_path):
    return written(tmp_path, some_sounds())[1]


BY_ROW = {"real": 9, "vocoded": 7, "generated": 4}


def test_listeners_are_joined_by_class_and_row(key, tmp_path, capsys):
    def points(shift):
        return lambda origin, name: BY_ROW[origin.row] + shift - 2 * (name == "fit") * (origin.label == "kick")

    saved(tmp_path / "in", key, "Anna", points(0))
    saved(tmp_path / "in", key, "Ben", points(1))
    report = join_listeners(tmp_path / "in", tmp_path / "out")  # the key is beside the folder
    assert (report.n_done, report.failures) == (2, [])
    found = table(tmp_path / "out")
    assert list(found) == [(label, row) for label in ("kick", "snare", "all") for row in ROWS]
    kick = found["kick", "generated"]
    values = [float(kick[name]) for name in SCORES]
    assert values == pytest.approx([4.5, 2.5, 4.5, (2 * 4.5 + 2 * 2.5 + 4.5) / 5])
    assert float(found["all", "real"]["fit"]) == pytest.approx((7.5 + 9.5) / 2)
    # two listeners who are 1 apart: a variance of 1 / 4, one degree of freedom, 12.706
    assert (float(kick["quality_low"]), float(kick["quality_high"])) == pytest.approx((0, 10))
    assert (kick["listeners"], kick["ratings"]) == ("2", "10")
    printed = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["kick", "generated", "4.5", "(0.0", "to", "10.0)", "2.5"] in [line[:7] for line in printed]
    with (tmp_path / "out" / "ratings.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 2 * (12 * 2 + 6)
    assert {row["listener"] for row in rows} == {"Anna", "Ben"}


def test_files_that_are_no_ratings_of_this_page_are_refused_by_name(key, tmp_path):
    folder = tmp_path / "in"
    saved(folder, key, "good", lambda *_: 5)
    saved(folder, key, "other", lambda *_: 5, page="0123456789ab")
    saved(folder, key, "eleven", lambda *_: 11)
    saved(folder, key, "stranger", lambda *_: 5, sounds={"99": {"fit": 3}})
    saved(folder, key, "empty", lambda *_: None)
    (folder / "cut.json").write_bytes((folder / "good-10.json").read_bytes()[:-9])
    (folder / "list.json").write_text("[1, 2]")
    (folder / "utf.json").write_bytes(b"\xff\xfe")
    report = join_listeners(folder, tmp_path / "out")
    assert report.n_done == 1
    errors = {Path(failure.path).stem: failure.error for failure in report.failures}
    assert f"rates the page '0123456789ab', and the key is of the page '{key.page}'" in errors["other-10"]
    assert "quality of 1 is 11; a whole number from 0 to 10" in errors["eleven-10"]
    assert "'99' is not on the page" in errors["stranger-10"]
    assert "nothing is rated" in errors["empty-10"]
    assert all("is damaged" in errors[name] for name in ("cut", "list", "utf"))
    assert len((tmp_path / "out" / "failures.csv").read_text().splitlines()) == 1 + len(errors)
    with pytest.raises(UnitError, match=r"cut\.json"):
        join_listeners(folder, tmp_path / "other", on_error="raise")
    (folder / "good-10.json").unlink()
    with pytest.raises(ValueError, match="none of its files can be used"):
        join_listeners(folder, tmp_path / "out")
    assert not (tmp_path / "out" / "table.csv").exists()  # which would be of other files than failures.csv


def test_the_last_file_of_a_listener_counts(key, tmp_path, caplog):
    folder = tmp_path / "in"
    saved(folder, key, "Anna", lambda *_: 9, at="2026-01-02T12:00:00.000Z", browser="phone")
    saved(folder, key, "Anna", lambda *_: 1, at="2026-01-02T11:00:00.000Z", browser="laptop")
    saved(folder, key, "", lambda *_: 2, at="2026-01-02T13:00:00.000Z", browser="somebody")
    saved(folder, key, "Ben", lambda *_: 3, at="2026-01-02T14:00:00.000Z", browser="somebody")  # has signed since
    saved(folder, key, "Cem", lambda origin, name: None if name == "fit" else 6)
    join_listeners(folder, tmp_path / "out")
    assert {row["listeners"] for row in table(tmp_path / "out").values()} == {"3"}
    assert float(table(tmp_path / "out")["kick", "real"]["quality"]) == pytest.approx((9 + 3 + 6) / 3)
    said = [record.getMessage() for record in caplog.records]
    assert any("Anna-11.json and" in text and "both of Anna: the second counts" in text for text in said)
    assert any("both of Ben" in text for text in said)
    assert "Cem: 12 of 30 ratings are missing" in said


def test_without_ratings_or_a_key_it_says_what_to_give(key, tmp_path):
    (tmp_path / "in").mkdir()
    with pytest.raises(FileNotFoundError, match=r"no \.json in it"):
        join_listeners(tmp_path / "in", tmp_path / "out")
    path = saved(tmp_path / "in", key, "Anna", lambda *_: 5)
    (tmp_path / "listening_key.json").rename(tmp_path / "key.json")
    with pytest.raises(FileNotFoundError, match=r"task\.key=<run>/listening_key\.json"):
        join_listeners(tmp_path / "in", tmp_path / "out")
    with pytest.raises(ValueError, match="is not the key of a listening page"):
        join_listeners(tmp_path / "in", tmp_path / "out", key=path)
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "table.csv").write_text("mine")
    with pytest.raises(ValueError, match=r"table\.csv: is in the way"):
        join_listeners(tmp_path / "in", tmp_path / "out", key=tmp_path / "key.json")
    assert join_listeners(path, tmp_path / "new", key=tmp_path / "key.json").n_done == 1


# --- in a browser

SPY = """window.played = [];
const play = HTMLMediaElement.prototype.play;
HTMLMediaElement.prototype.play = function () { played.push(this.src.split(",")[1]); return play.call(this); };"""


@contextmanager
def opened(context, path):
    """Errors of the script, words on the console (what the policy of the page refuses), and requests fail the test."""
    page = context.new_page()
    faults = []
    page.on("pageerror", lambda error: faults.append(str(error)))
    page.on("console", lambda message: faults.append(message.text))
    address = path.as_uri()
    page.on("request", lambda request: request.url.startswith((address, "data:")) or faults.append(request.url))
    page.add_init_script(SPY)
    page.goto(address)
    yield page
    page.close()
    assert faults == []


@pytest.fixture
def context(browser):
    context = browser.new_context(accept_downloads=True)
    yield context
    context.close()


def type_in(page, text):
    for letter in text:
        page.keyboard.press({">": "ArrowRight", "<": "ArrowLeft", "^": "ArrowUp", " ": "Space"}.get(letter, letter))


def save(page, folder):
    with page.expect_download() as download:
        page.get_by_role("button", name="Save ratings").click()
    path = folder / download.value.suggested_filename
    download.value.save_as(path)
    return path


def test_two_listeners_rate_a_page_by_keyboard_and_are_joined(context, tmp_path):
    content, key = written(tmp_path, some_sounds(2, names=("kick <b>",)))
    path = tmp_path / "listening.html"
    with opened(context, path) as page:
        page.keyboard.press("Tab")
        page.keyboard.press("Tab")
        page.keyboard.type("Änne B.")
        page.keyboard.press("Enter")  # not yet: it is in a line of text
        page.keyboard.press("Tab")
        page.keyboard.press("Enter")
        assert page.get_by_role("heading", level=1).inner_text() == "kick <b>"
        assert "sound 1 of 6" in page.locator("#place").inner_text()
        type_in(page, "73")
        assert page.get_by_role("group", name="Quality").get_by_role("button", pressed=True).inner_text() == "7"
        assert page.get_by_role("group", name="Fit").get_by_role("button", pressed=True).inner_text() == "3"
        type_in(page, "^9 >t0 >>")  # 9 and 3; 10 and 0; nothing
        assert page.evaluate("played") == [content["audio"][number] for number in "112234"]
        type_in(page, "4")
        page.reload()
        assert "sound 4 of 6" in page.locator("#place").inner_text()
        assert page.get_by_role("group", name="Quality").get_by_role("button", pressed=True).inner_text() == "4"
        type_in(page, "5n66>78<>>")  # the fifth has 6 and 6, the sixth 7 and 8
        assert [page.get_by_role("group", name=f"Set {letter}").count() for letter in "ABC"] == [1, 1, 1]
        played = page.evaluate("played.length")
        type_in(page, " ")
        page.wait_for_function("n => played.length === n + 2", arg=played)  # the two of set A, one after another
        first_set = content["classes"][0]["sets"][0]["sounds"]
        assert page.evaluate("played")[played:] == [content["audio"][number] for number in first_set]
        type_in(page, "12t>")
        assert page.get_by_role("heading", level=1).inner_text() == "Not all is rated yet"
        assert "6 of 7 steps" in page.locator("#sum").inner_text()
        page.get_by_role("button", name="Go to the first that is missing").click()
        assert "sound 3 of 6" in page.locator("#place").inner_text()
        page.get_by_role("group", name="Quality").get_by_role("button", name="5", exact=True).click()
        type_in(page, "6")
        page.get_by_role("button", name="Save and stop here").click()
        assert page.get_by_role("heading", level=1).inner_text() == "Thank you"
        first = save(page, tmp_path / "in")
        assert first.name == "ratings-Änne-B-.json"

        page.once("dialog", lambda dialog: dialog.accept())
        page.get_by_role("button", name="Clear all").click()
        page.get_by_role("button", name="Start").click()
        for _ in range(6):
            type_in(page, "8t>")
        type_in(page, "555>")
        second = save(page, tmp_path / "in")

    ratings = json.loads(first.read_text())
    assert (ratings["page"], ratings["listener"]) == (key.page, "Änne B.")
    points = {"1": (9, 3), "2": (10, 0), "3": (5, 6), "4": (4, 5), "5": (6, 6), "6": (7, 8)}
    assert ratings["sounds"] == {number: {"quality": q, "fit": f} for number, (q, f) in points.items()}
    assert ratings["sets"] == {"1A": {"diversity": 1}, "1B": {"diversity": 2}, "1C": {"diversity": 10}}
    other = json.loads(second.read_text())
    assert other["listener"] == "" and other["browser"] != ratings["browser"]
    assert second.name == f"ratings-{other['browser'][:6]}.json"

    report = join_listeners(tmp_path / "in", tmp_path / "out")
    assert (report.n_done, report.failures) == (2, [])
    for row in ROWS:
        numbers = [number for number, origin in key.sounds.items() if origin.row == row]
        (letter,) = [number for number, origin in key.sets.items() if origin.row == row]
        quality, fit = ([(points[number][i] + (8, 10)[i]) / 2 for number in numbers] for i in (0, 1))
        diversity = (ratings["sets"][letter]["diversity"] + 5) / 2
        expected = [sum(quality) / 2, sum(fit) / 2, diversity, (sum(quality) + sum(fit) + diversity) / 5]
        found = table(tmp_path / "out")["kick <b>", row]
        assert [float(found[name]) for name in SCORES] == pytest.approx(expected, abs=1e-4)


def test_pages_of_one_browser_do_not_mix(context, tmp_path):
    for seed in (0, 1):
        written(tmp_path / str(seed), some_sounds(1, seed=seed))
    for points in ("3", "4"):
        with opened(context, tmp_path / str(int(points) - 3) / "listening.html") as page:
            assert page.locator("#begin").inner_text() == "Start"
            page.locator("#begin").click()
            type_in(page, points)
    for points in ("3", "4"):
        with opened(context, tmp_path / str(int(points) - 3) / "listening.html") as page:
            assert page.get_by_role("button", pressed=True).inner_text() == points


def test_it_fits_a_phone(browser, tmp_path):
    width = 360
    written(tmp_path, some_sounds(2, names=("a class with a long name, without end" * 3,)))
    context = browser.new_context(viewport={"width": width, "height": 740}, has_touch=True)
    with opened(context, tmp_path / "listening.html") as page:
        page.locator("#begin").tap()
        for step in range(8):
            assert page.evaluate("document.documentElement.scrollWidth") == width
            edges = "parts => Math.max(...parts.map(part => part.getBoundingClientRect().right))"
            assert page.locator("main button:visible").evaluate_all(edges) <= width
            sizes = page.locator(".marks button:visible").evaluate_all(
                "parts => parts.map(part => Math.min(part.offsetWidth, part.offsetHeight))"
            )
            assert min(sizes, default=44) >= 40  # of a finger
            if folder := os.environ.get("SHOTS"):  # to look at
                page.screenshot(path=f"{folder}/listening_{step}.png")
            if step < 7:
                page.locator("#next").tap()
    context.close()
