"""specgan.evaluation.page: one page that holds every figure and sound, and asks nothing of the net."""

import base64
import copy
import io
import re
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import soundfile
import torch
from pages import Page

from specgan.evaluation.glossary import METRICS
from specgan.evaluation.page import Example, write_overview, write_report
from specgan.evaluation.remarks import remarks

RATE = 8000
CLASSES = ["kick", "snare", "hat"]
EVIL = ["<script>alert(1)</script>", '"quo\'ted" & $x_1$', "caf\udce9 {0} {body}"]


def of(value, low=None, high=None, n=700):
    return {"value": value, "low": low, "high": high, "n": n}


@pytest.fixture
def report():
    generated = {
        "conditional_accuracy": of(0.9876, 0.971, 0.996, n=701),
        "frechet_distance": of(6.3, 5.75, 7.25, n=702),
        "muq_frechet_distance": of(21.2),
        "kernel_distance": of(0.0123, 0.0111, 0.0134),
        "inception_score": of(2.87),
        "precision": of(0.515),
        "recall": of(0.525),
        "density": of(0.4321),
        "coverage": of(0.535),
        "diversity": of(0.876),
        "classification_accuracy_score": of(0.545),
        "near_copy_share": of(0.002),
        "near_copy_share_shifted": of(0.003),
        "near_copy_share_judge": of(0.004),
        "log_spectral_distance_db": of(7.25),
        "attack_error_db": of(2.25),
        "silent_share": of(0.055),
        "clipped_share": of(0.33),
    }
    real = {name: of(figure["value"] / 2, n=351) for name, figure in generated.items()}
    real |= {"conditional_accuracy": of(1.0, 0.99, 1.0, n=351), "frechet_distance": of(3.5, 3.1, 3.9, n=351)}
    return {
        "checkpoint": "runs/a/last.ckpt",
        "dataset": "data/drums",
        "seed": 42,
        "n_steps": 12345,
        "class_names": CLASSES,
        "judge": {
            "val_accuracy": of(0.961),
            "test_accuracy": of(0.952),
            "vocoded_test_accuracy": of(0.943),
            "trusted": True,
        },
        "rows": {"real": real, "vocoded": copy.deepcopy(real), "generated": generated},
        "per_class": {
            "real": {"kick": of(0.111), "snare": of(0.122), "hat": of(0.133)},
            "generated": {"kick": of(0.211), "snare": of(0.222), "hat": of(0.233, 0.2, 0.3, n=77)},
        },
        "confusion": {"real": [[91, 2, 0], [0, 92, 0], [0, 0, 93]], "generated": [[81, 7, 0], [6, 82, 12], [0, 0, 0]]},
        "warnings": ["hats sound alike"],
        "curve": [{"epoch": i, "time_s": 60.0 * i, "fad": 9.0 / i, "conditional_accuracy": 0.2 * i} for i in (1, 2, 3)],
    }


def example(caption="seed 7", *, peak=0.5, nearest=(), n_samples=1000):
    waveform = peak * torch.sin(torch.arange(n_samples) ** 2 / 999)
    waveform[-1] = -peak
    return Example(caption, waveform, torch.linspace(-1, 1, 12).reshape(3, 4), nearest)


def written(tmp_path, report, examples=None):
    write_report(tmp_path / "report.html", report, examples=examples or {}, sample_rate=RATE)
    return Page(tmp_path / "report.html")


def table_rows(page, index):
    """The rows of a table by their heading, each a list of cell texts with the small print split off by " | "."""
    table = re.findall(r"<tbody.*?</tbody>", page.html, re.S)[index]
    rows = re.findall(r"<tr>\s*<th>(.*?)</th>(.*?)</tr>", table, re.S)
    plain = [[re.sub(r"\s*(<[^>]*>\s*)+", "|", part).replace("\xa0", " ") for part in row] for row in rows]
    return {head.strip("|").split("|")[0]: [cell for cell in cells.split("|") if cell] for head, cells in plain}


def test_the_headline_says_what_was_found(tmp_path, report):
    assert written(tmp_path, report).texts["h1"] == [
        "98.8 % of the generated sounds are classified as their own class (real clips: 100 %). "
        "Their Fréchet distance is 1.8 times that of real test clips."
    ]


def test_the_headline_leaves_out_what_is_not_known(tmp_path, report):
    report["rows"] = {"generated": {"conditional_accuracy": of(0.25), "frechet_distance": of(3.0)}}
    page = written(tmp_path, report)
    assert page.texts["h1"] == ["25 % of the generated sounds are classified as their own class."]
    report["rows"] = {"generated": {"conditional_accuracy": of(float("nan"))}}
    assert written(tmp_path, report).texts["h1"] == ["The generated sounds were not measured."]


def test_every_figure_of_the_report_is_on_the_page(tmp_path, report):
    page = written(tmp_path, report)
    figures = table_rows(page, 0)
    assert figures["Conditional accuracy"] == [
        *("98.8 %", "97.1 to 99.6 %", "n = 701", "-1.2 points", "-2.9 to +0.1", "good"),
        *("100 %", "99 to 100 %", "n = 351", "100 %", "99 to 100 %", "n = 351"),
    ]
    assert figures["Fréchet distance"][:5] == ["6.3", "5.75 to 7.25", "n = 702", "1.8 times", "1.6 to 2.2"]
    assert list(figures) == [metric.label for metric in METRICS.values()]
    first = ["98.8 %", "6.3", "21.2", "0.0123", "2.87", "51.5 %", "52.5 %", "0.432", "53.5 %", "0.876", "54.5 %"]
    first += ["0.2 %", "0.3 %", "0.4 %"]
    assert [cells[0] for cells in figures.values()] == [*first, "7.25", "2.25", "5.5 %", "33 %"]
    assert all(metric.about in page.text for metric in METRICS.values())

    by_class = table_rows(page, 1)
    assert by_class["kick"] == ["21.1 %", "n = 700", "11.1 %", "n = 700", "–"]
    assert by_class["hat"] == ["23.3 %", "20 to 30 %", "n = 77", "13.3 %", "n = 700", "–"]
    assert table_rows(page, 2) == {"kick": ["81", "7"], "snare": ["6", "82", "12"], "hat": []}
    assert table_rows(page, 3) == {"kick": ["91", "2"], "snare": ["92"], "hat": ["93"]}
    assert (
        "Most often confused: snare as hat (12 of 100), kick as snare (7 of 88), snare as kick (6 of 100)." in page.text
    )

    for text in ("96.1 %", "95.2 %", "94.3 %", "runs/a/last.ckpt", "data/drums", "42", "12345", "hats sound alike"):
        assert text in page.text
    assert page.texts["dd"][-3:] == ["351", "351", "702"]


@pytest.mark.parametrize(
    ("name", "generated", "real", "expected"),
    [
        ("recall", 0.95, 1.0, ["-5.0 points", "good"]),
        ("recall", 0.9, 1.0, ["-10.0 points", "middling"]),
        ("recall", 0.7, 1.0, ["-30.0 points", "poor"]),
        ("silent_share", 0.3, 0.0, ["+30.0 points", "poor"]),
        ("near_copy_share", 0.0, 0.3, ["-30.0 points", "good"]),
        ("frechet_distance", 30.0, 2.0, ["15 times", "poor"]),
        ("frechet_distance", 1.0, 2.0, ["0.5 times", "good"]),
        ("density", 0.0, 1.0, ["0 times", "poor"]),
        ("density", 2.5, 1.0, ["2.5 times", "good"]),
        ("diversity", 2.5, 1.0, ["2.5 times", "poor"]),
        ("diversity", 0.6, 1.0, ["0.6 times", "middling"]),
        ("kernel_distance", 0.5, -0.25, ["+0.75"]),  # no multiple of what is not above 0
    ],
)
def test_generated_is_compared_with_real(tmp_path, report, name, generated, real, expected):
    report["rows"] = {"generated": {name: of(generated, n=5)}, "real": {name: of(real, n=6)}}
    cells = table_rows(written(tmp_path, report), 0)[METRICS[name].label]
    assert cells[cells.index("n = 5") + 1 : -3] == expected


def test_a_real_interval_that_reaches_0_gives_no_multiple(tmp_path, report):
    report["rows"] = {
        "generated": {"kernel_distance": of(0.5)},
        "real": {"kernel_distance": of(0.001, -0.01, 0.01)},
    }
    page = written(tmp_path, report)
    assert table_rows(page, 0)["Kernel distance"][2] == "+0.499"
    assert "times" not in table_rows(page, 0)["Kernel distance"]


def test_missing_metrics_and_parts_leave_a_dash_or_nothing(tmp_path, report):
    report["rows"] = {"generated": {"recall": of(0.5), "density": of(None)}, "real": {"precision": of(0.75)}}
    for part in ("per_class", "confusion", "warnings", "curve"):
        del report[part]
    page = written(tmp_path, report)
    assert table_rows(page, 0) == {
        "Precision": ["–", "–", "75 %", "n = 700", "–"],
        "Recall": ["50 %", "n = 700", "–", "–", "–"],
        "Density": ["–", "–", "–", "–"],
    }
    assert page.texts["h2"] == ["Figures", "Settings"]


def test_a_metric_that_the_page_does_not_know_is_shown_by_its_name(tmp_path, report):
    report["rows"]["generated"]["new_<i>"] = of(17.5)
    assert table_rows(written(tmp_path, report), 0)["new_&lt;i&gt;"] == ["17.5", "n = 700", "–", "–", "–"]


def test_the_curve_is_drawn_from_two_points_on(tmp_path, report):
    page = written(tmp_path, report)
    drawings = re.findall(r"<svg.*?</svg>", page.html, re.S)
    assert ["Fréchet distance" in svg for svg in drawings] == [True, False]
    assert ["conditional accuracy" in svg for svg in drawings] == [False, True]
    assert all("minutes of training" in svg for svg in drawings)
    report["curve"][1]["fad"], report["curve"][2]["fad"] = None, float("nan")
    assert written(tmp_path, report).html.count("<svg") == 1
    report["curve"] = report["curve"][:1]
    assert "<svg" not in written(tmp_path, report).html


def test_the_accuracy_by_cross_validation_is_named_as_that(tmp_path, report):
    assert "cross-validation" not in written(tmp_path, report).text
    report["judge"] |= {"cross_validated_accuracy": of(0.87, 0.83, 0.9, n=300), "n_folds": 5}
    text = written(tmp_path, report).text
    assert "Accuracy by 5-fold cross-validation: 87 % (83 to 90 %). So many of all 300 recordings" in text


def test_what_is_compared_has_an_interval_of_both():
    """Known answers: independent errors add up in squares, of a ratio those of the logarithms."""
    share, distance, odd = METRICS["recall"], METRICS["frechet_distance"], METRICS["kernel_distance"]
    assert share.compare(of(0.5, 0.47, 0.53), of(0.7, 0.66, 0.74)).interval == "-25.0 to -15.0"
    assert odd.compare(of(5, 2, 8), of(1, -3, 5)).interval == "-1 to +9"
    assert distance.compare(of(4, 2, 8), of(2, 2, 2)).interval == "1 to 4"
    assert distance.compare(of(4, 0, 8), of(2, 2, 2)).interval == "0 to 4"
    assert distance.compare(of(4, 2, 8), of(2, 0, 2)).interval == "at least 1"
    assert distance.compare(of(4, 2, 8), of(2)).interval == ""


def test_a_judge_that_is_not_trusted_is_said_before_any_table(tmp_path, report):
    assert "not to be trusted" not in written(tmp_path, report).text
    report["judge"] |= {"trusted": False, "test_accuracy": of(0.412)}
    page = written(tmp_path, report)
    assert "it classifies only 96.1 % of the validation clips, 41.2 % of the test clips, " in page.text
    assert page.text.index("not to be trusted") < page.text.index("Metric")


def test_clips_of_another_split_are_called_by_its_name(tmp_path, report):
    report |= {"split": "val", "judge": {"val_accuracy": of(0.961), "trusted": True}}
    page = written(tmp_path, report, {"kick": {"real": [example()]}})
    assert page.texts["h1"][0].endswith("1.8 times that of real val clips.")
    assert page.texts["h3"] == ["Real val clips, as recorded"]
    assert "classifies 96.1 % of the validation clips correctly" in page.text
    assert "test clips" not in page.text


def test_an_interval_that_is_not_known_is_left_out(tmp_path, report):
    report["rows"] = {"generated": {"recall": of(0.5, float("nan"), float("nan"))}}
    assert table_rows(written(tmp_path, report), 0)["Recall"] == ["50 %", "n = 700", "–", "–", "–"]


def test_names_stay_text(tmp_path, report):
    report |= {"class_names": EVIL, "checkpoint": EVIL[0], "dataset": EVIL[1], "warnings": EVIL}
    report["per_class"] = {"generated": {name: of(0.5) for name in EVIL}}
    examples = {name: {"generated": [example(name, nearest=[example(name)])]} for name in EVIL}
    page = written(tmp_path, report, examples)
    shown = [name.replace("\udce9", "?") for name in EVIL]
    assert page.texts["h2"][-4:] == [*shown, "Settings"]
    assert page.texts["figcaption"][0::2] == shown
    assert page.texts["title"] == [f"Evaluation of {EVIL[0]}"]
    assert not set(page.texts) & {"script", "iframe", "link", "object", "embed", "base", "form"}
    assert not any(name.startswith("on") for _, attributes in page.tags for name in attributes)


def test_links_lead_to_the_sections_of_classes(tmp_path, report):
    page = written(tmp_path, report, {"snare": {"real": [example()]}, "kick": {}})
    assert page.values("href", "a") == ["#class-1", "#class-0"]  # kick, snare
    assert page.values("id", "section") == ["class-0", "class-1"]


def test_the_page_needs_nothing_from_elsewhere(tmp_path, report):
    page = written(tmp_path, report, {"kick": {"real": [example()], "generated": [example(nearest=[example()])]}})
    assert len(page.values("src", "audio")) == len(page.values("src", "img")) == 3
    assert all(source.startswith("data:") for tag in ("audio", "img") for source in page.values("src", tag))
    addresses = [value for _, attributes in page.tags for name, value in attributes.items() if name.endswith("href")]
    assert all(address.startswith("#") for address in addresses)
    assert not re.search(r"https?://|url\((?!#)|@import", page.html)
    assert sum(" src" in f" {name}" for _, attributes in page.tags for name in attributes) == 6


def test_sounds_and_pictures_come_out_of_the_page_as_they_went_in(tmp_path, report):
    sound = example()
    page = written(tmp_path, report, {"kick": {"generated": [sound]}})
    kind, _, content = page.values("src", "audio")[0].partition(";base64,")
    heard, rate = soundfile.read(io.BytesIO(base64.b64decode(content)), dtype="float32")
    assert (kind, rate) == ("data:audio/flac", RATE)
    np.testing.assert_allclose(heard, sound.waveform.numpy(), rtol=0, atol=2**-16)
    picture = base64.b64decode(page.values("src", "img")[0].removeprefix("data:image/png;base64,"))
    assert cv2.imdecode(np.frombuffer(picture, np.uint8), cv2.IMREAD_COLOR).shape == (3, 4, 3)


def test_a_sound_beyond_full_scale_is_turned_down_and_its_caption_says_so(tmp_path, report):
    page = written(tmp_path, report, {"kick": {"generated": [example("loud", peak=2.5), example("soft", peak=1.0)]}})
    assert page.texts["figcaption"] == ["loud (turned down to full scale, its peak was 2.5)", "soft"]
    content = base64.b64decode(page.values("src", "audio")[0].partition(",")[2])
    heard, _ = soundfile.read(io.BytesIO(content), dtype="float32")
    np.testing.assert_allclose(heard, example(peak=1.0).waveform.numpy(), rtol=0, atol=2**-15)


def test_rows_stand_in_order_and_the_nearest_clip_beside_its_sound(tmp_path, report):
    rows = {
        "generated": [example("seed 1", nearest=[example("kick_3.wav"), example("kick_5.wav")]), example("seed 2")],
        "vocoded": [example("v")],
        "real": [example("r")],
    }
    page = written(tmp_path, report, {"kick": rows})
    assert page.texts["h3"] == ["Real test clips, as recorded", "The same through the vocoder", "Generated"]
    assert page.texts["figcaption"] == [
        *("r", "v", "seed 1", "nearest training clip: kick_3.wav", "nearest training clip: kick_5.wav", "seed 2")
    ]


def test_a_page_that_cannot_be_finished_leaves_what_was_there(tmp_path, report):
    bad = example()
    bad.waveform[3] = float("nan")
    with pytest.raises(ValueError, match="1 of 1000 samples are NaN"):
        written(tmp_path, report, {"kick": {"real": [bad]}})
    assert list(tmp_path.iterdir()) == []
    old = written(tmp_path, report).html
    with pytest.raises(ValueError, match="shape"):
        written(
            tmp_path, report, {"kick": {"real": [example(n_samples=1), Example("", torch.zeros(0), bad.spectrogram)]}}
        )
    assert [path.name for path in tmp_path.iterdir()] == ["report.html"]
    assert (tmp_path / "report.html").read_text(encoding="utf-8") == old


def test_the_overview_has_a_column_for_each_class_and_a_row_for_each_sound(tmp_path):
    def of(level):
        return Example("", torch.zeros(10), torch.full((8, 8), level))

    examples = {
        "kick": {"real": [of(-1.0), of(-1.0)], "generated": [of(1.0)]},
        "caf\udce9 $x_1$": {"real": [of(-1.0)], "generated": []},
    }
    write_overview(tmp_path / "a.png", examples, kinds=["real", "generated"], n_each=2)
    picture = cv2.imread(str(tmp_path / "a.png"))
    brightest = cv2.applyColorMap(np.uint8([[255]]), cv2.COLORMAP_MAGMA)[0, 0].astype(int)
    is_bright = (abs(picture.astype(int) - brightest) <= 8).all(axis=2)
    is_black = (picture < 10).all(axis=2)
    height, width = picture.shape[:2]
    # quarters of the height: real, real, generated, generated; halves of the width: the classes
    bright = [is_bright[row * height // 4 : (row + 1) * height // 4].mean() for row in range(4)]
    assert bright[2] > 0.2
    assert max(bright[0], bright[1], bright[3]) < 0.05
    left, right = is_black[:, : width // 2], is_black[:, width // 2 :]
    assert left[: height // 2].mean() > 0.5
    assert left[: height // 2].mean() > 1.5 * right[: height // 2].mean() > 0.2


def remarks_on(*, n_measured, **n_of_class):
    """The warnings about real test clips, n of each class, of which distances were measured on some."""
    none = {"value": 0.0, "low": 0.0, "high": 0.05, "n": n_measured}
    return remarks(
        {"real": {"frechet_distance": none}, "generated": {"silent_share": none, "clipped_share": none}},
        real="real",
        split="test",
        n_of_class=n_of_class,
        accuracy=SimpleNamespace(tells_classes=True),
        copies=SimpleNamespace(found_by=(), real={"near_copy_share": none}),
    )


@pytest.mark.parametrize(
    ("n_real", "why"), [(70, "there are no more real test clips"), (140, "evaluation.n_samples is so small")]
)
def test_a_remark_says_why_distances_are_rough(n_real, why):
    found = remarks_on(n_measured=70, kick=n_real // 2, snare=n_real // 2)
    assert [sentence.split(":")[0] for sentence in found] == [f"Distances are measured on 70 sounds, because {why}"]


@pytest.mark.parametrize(
    ("n_of_class", "named"),
    [({"kick": 40, "clap": 3, "rim": 9}, "'clap' (3), 'rim' (9)"), ({"kick": 3, "clap": 9}, "each class")],
)
def test_a_remark_names_the_classes_of_few_test_clips(n_of_class, named):
    (sentence,) = remarks_on(n_measured=50, **n_of_class)
    assert sentence.startswith(f"Fewer than 10 test clips of {named}: the distances are rough")
