"""task=survey and the first lines of a training: what is measured, found, advised and shown."""

import csv
import json
import math
import re
import shlex
import shutil
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import soundfile
import soxr
from folders import contents
from hydra import compose, initialize_config_dir
from hydra.core.override_parser.overrides_parser import OverridesParser
from pages import Page

from specgan.audio import open_audio
from specgan.clips.listing import list_clips
from specgan.command_line.arguments import as_typed, typed
from specgan.data.manifest import write_manifest
from specgan.spectrogram import SpectrogramParams
from specgan.survey import first_look as looks
from specgan.survey import recording
from specgan.survey.advice import advise, training_settings
from specgan.survey.excerpts import spread
from specgan.survey.findings import findings
from specgan.survey.first_look import first_look
from specgan.survey.presets import choose, fit, fit_all, next_better, read_presets
from specgan.survey.recording import measure
from specgan.tasks.survey import _measure, _table, survey

CONF = Path(__file__).parents[1] / "conf"
SMALL = SpectrogramParams()  # 1.02 s, 8000 Hz, 64 x 64
PHONE = SpectrogramParams(sample_rate=8000, n_fft=512, win_length=512, hop_length=128)  # 1.02 s, 4000 Hz, 64 x 64
LONG = SpectrogramParams(n_frames=256)  # 4.10 s
HIGH = SpectrogramParams(sample_rate=44100, n_fft=2048, win_length=1024, hop_length=512, n_mels=128, n_frames=128)
PRESETS = {"small": SMALL, "phone": PHONE, "long": LONG, "high": HIGH}  # high: 1.49 s, 22050 Hz


def noise(duration_s, rate, *, rms=0.1, seed=0, channels=1):
    return np.random.default_rng(seed).normal(0, rms, (round(duration_s * rate), channels))


def tone(duration_s, rate, *, hz=1000.0, peak=0.5):
    return peak * np.sin(2 * np.pi * hz * np.arange(round(duration_s * rate)) / rate)[:, None]


def write(path, samples, rate, subtype="FLOAT"):
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, samples, rate, subtype=subtype)
    return path


def resampled(samples, rate, to_rate):
    return soxr.resample(samples, rate, to_rate, quality="HQ")


# --- one recording


def test_level_length_and_silence_of_a_tone_between_silences(tmp_path):
    rate = 16000
    silence = np.zeros((rate, 2))
    stereo = np.concatenate([silence[:4000], np.repeat(tone(1, rate), 2, axis=1), silence[:8000]])
    found = measure(write(tmp_path / "x.wav", stereo, rate))
    assert (found.sample_rate, found.n_channels, found.duration_s) == (rate, 2, 1.75)
    assert found.start_silence_s == pytest.approx(0.25, abs=0.003)
    assert found.end_silence_s == pytest.approx(0.5, abs=0.003)
    assert found.sound_s == pytest.approx(1, abs=0.006)
    assert found.peak_dbfs == pytest.approx(20 * math.log10(0.5), abs=0.01)
    assert found.rms_dbfs == pytest.approx(20 * math.log10(0.5) - 3.01, abs=0.03)
    assert found.downmix_db == pytest.approx(0, abs=1e-6)
    assert found.audible_hz == pytest.approx(1000, abs=70)
    assert found.clipped_share == 0


def test_a_quiet_tail_is_sound_down_to_60_db_below_the_peak(tmp_path):
    rate, peak = 8000, 0.5
    fall = np.exp(-np.arange(2 * rate) / rate * np.log(10))[:, None]  # 20 dB a second
    found = measure(write(tmp_path / "x.wav", tone(2, rate, peak=peak) * fall**2, rate))  # 40 dB a second
    assert found.sound_s == pytest.approx(1.5, abs=0.01)


@pytest.mark.parametrize(("rate", "to_rate"), [(16000, 44100), (8000, 48000), (22050, 96000), (32000, 44100)])
def test_a_resampled_file_shows_where_its_sound_ends_not_its_rate(tmp_path, rate, to_rate):
    found = measure(write(tmp_path / "x.wav", resampled(noise(1, rate), rate, to_rate), to_rate, "PCM_16"))
    assert found.sample_rate == to_rate
    assert found.band_hz == pytest.approx(rate / 2, rel=0.04)
    assert found.cut_hz == found.band_hz
    assert found.audible_hz <= found.band_hz


@pytest.mark.parametrize("rate", [8000, 44100, 192000])
def test_noise_of_all_frequencies_reaches_half_the_sample_rate(tmp_path, rate):
    found = measure(write(tmp_path / "x.wav", noise(0.5, rate), rate))
    assert found.band_hz == found.cut_hz == rate / 2
    assert min(20000, 0.47 * rate) <= found.audible_hz <= rate / 2


def test_a_band_that_fades_out_is_not_cut(tmp_path):
    rate = 44100
    spectrum = np.fft.rfft(noise(2, rate)[:, 0])
    hz = np.fft.rfftfreq(2 * rate, 1 / rate)
    spectrum *= (np.maximum(hz, 500) / 500) ** -3.0  # 18 dB an octave: 60 dB at ten times 500 Hz
    found = measure(write(tmp_path / "x.wav", np.fft.irfft(spectrum), rate))
    assert found.band_hz == pytest.approx(5000, rel=0.1)
    assert found.cut_hz is None
    assert found.audible_hz < found.band_hz


def test_clipping_is_counted_in_runs_at_full_scale(tmp_path):
    rate = 44100
    loud = tone(1, rate, hz=440, peak=2.0).clip(-1, 1)  # a third of a half-wave is below: asin(1/2) / 90 degrees
    assert measure(write(tmp_path / "x.wav", loud, rate, "PCM_16")).clipped_share == pytest.approx(2 / 3, abs=0.03)
    for hz in (40, 440, 5000):  # to full scale, and no further
        full = tone(1, rate, hz=hz, peak=1.0)
        assert measure(write(tmp_path / "y.wav", full, rate, "PCM_16")).clipped_share == 0, hz


def test_digital_silence_has_no_level_and_no_band(tmp_path):
    found = measure(write(tmp_path / "x.wav", np.zeros(4000), 8000))
    assert found.is_silent
    assert (found.peak_dbfs, found.rms_dbfs, found.band_hz, found.audible_hz, found.cut_hz) == (None,) * 5
    assert (found.duration_s, found.start_silence_s, found.end_silence_s, found.shape) == (0.5, 0, 0, [])


def test_one_sample_is_measured(tmp_path):
    found = measure(write(tmp_path / "x.wav", np.full(1, 0.5), 8000))
    assert (found.duration_s, found.start_silence_s, found.end_silence_s) == (1 / 8000, 0, 0)
    assert found.peak_dbfs == pytest.approx(-6.02, abs=0.01)


def test_figures_do_not_depend_on_the_blocks_that_are_read(tmp_path, monkeypatch):
    path = write(tmp_path / "x.wav", np.concatenate([np.zeros((3000, 2)), noise(1, 22050, channels=2)]), 22050)
    whole = measure(path)
    monkeypatch.setattr(recording, "open_audio", partial(open_audio, block_frames=1000))
    blocks = measure(path)
    assert blocks.digest == whole.digest
    assert blocks.shape == pytest.approx(whole.shape, abs=1e-3)
    for name in ("duration_s", "peak_dbfs", "rms_dbfs", "band_hz", "audible_hz", "downmix_db"):
        assert getattr(blocks, name) == pytest.approx(getattr(whole, name), rel=1e-3), name
    assert blocks.start_silence_s == pytest.approx(whole.start_silence_s, abs=0.002)


# --- a folder


def run(audio, output, **settings):
    return survey(audio, output, **{"presets": lambda: PRESETS, **settings})


def rows(output):
    with (output / "survey.csv").open(newline="", encoding="utf-8", errors="surrogateescape") as file:
        return {row["path"]: row for row in csv.DictReader(file)}


@pytest.fixture
def clips(tmp_path):
    """Two classes of three sounds each at 16 kHz: half a second of noise, and tones."""
    for i in range(3):
        write(tmp_path / "clips" / "hiss" / f"{i}.wav", noise(0.5, 16000, seed=i), 16000)
        write(tmp_path / "clips" / "beep" / f"{i}.wav", tone(0.5, 16000, hz=500 + 300 * i), 16000)
    return tmp_path / "clips"


def said(caplog, part):
    lines = [message for message in caplog.messages if part in message]
    assert len(lines) == 1, caplog.messages
    return lines[0]


def test_a_table_a_page_and_the_command(clips, tmp_path, caplog, capsys):
    caplog.set_level("INFO")
    report = run(clips, tmp_path / "out")
    assert (report.n_done, report.n_skipped, report.failures) == (6, 0, [])
    assert set(contents(tmp_path / "out")) == {"survey.csv", "survey.html", ".survey.jsonl"}
    table = rows(tmp_path / "out")
    assert set(table) == {f"{label}/{i}.wav" for label in ("beep", "hiss") for i in range(3)}
    assert table["hiss/0.wav"]["label"] == "hiss"
    assert float(table["hiss/0.wav"]["band_hz"]) == 8000
    assert float(table["beep/0.wav"]["audible_hz"]) == pytest.approx(500, abs=70)
    page = Page(tmp_path / "out" / "survey.html")
    assert len(page.values("src", "audio")) == len(page.values("src", "img")) == 6
    assert all(source.startswith("data:") for source in page.values("src"))
    assert page.texts["figcaption"][0].startswith("beep/0.wav, 0.50 s, 16000 Hz, to ")
    assert page.texts["h1"] == ["6 recordings of 2 classes, 0.1 minutes in all"]
    (line,) = page.texts["pre"]
    assert line.endswith(f"train.py data=folder data.audio_dir={clips} spectrogram=small")
    assert line == said(caplog, "data=folder")
    assert "spectrogram=small suits: 1.02 s and up to 8000 Hz" in page.text
    printed = capsys.readouterr().out
    assert [row.split()[0] for row in printed.splitlines() if " 0.50 / 0.50 / 0.50" in row] == ["beep", "hiss", "all"]


def test_a_second_run_measures_only_what_is_new(clips, tmp_path):
    run(clips, tmp_path / "out")
    write(clips / "hiss" / "0.wav", noise(0.25, 16000, seed=9), 16000)
    (clips / "hiss" / "1.wav").unlink()
    report = run(clips, tmp_path / "out")
    assert (report.n_done, report.n_skipped) == (1, 4)
    table = rows(tmp_path / "out")
    assert float(table["hiss/0.wav"]["duration_s"]) == 0.25
    assert len(table) == 5


def test_bad_files_are_listed_and_the_rest_is_measured(clips, tmp_path):
    (clips / "hiss" / "bad.wav").write_bytes(b"no sound in here")
    report = run(clips, tmp_path / "out")
    assert (report.n_done, [Path(failure.path).name for failure in report.failures]) == (6, ["bad.wav"])
    assert "bad.wav" in (tmp_path / "out" / "failures.csv").read_text()
    page = Page(tmp_path / "out" / "survey.html")
    assert "1 file could not be read" in page.text
    assert "bad.wav: not readable as audio" in page.text


def test_a_page_of_somebody_else_is_in_the_way(clips, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "survey.html").write_text("mine")
    with pytest.raises(ValueError, match=r"survey\.html: is in the way"):
        run(clips, tmp_path / "out")
    assert contents(tmp_path / "out") == {"survey.html": b"mine"}


def test_the_commands_label_options_are_those_of_the_survey(tmp_path, caplog):
    caplog.set_level("INFO")
    for name in ("bd-1", "sn-1", "1e5-1", "x-1"):
        for i in range(3):
            write(tmp_path / "my clips" / f"{name}{i}.wav", noise(0.1, 8000, seed=i + len(name)), 8000)
    chosen = {
        "label_from": "prefix",
        "separator": "-",
        "classes": ["a, b", "1e5"],
        "merge": {"bd": "a, b", "sn": "a, b"},
    }
    run(tmp_path / "my clips", tmp_path / "out", **chosen, recursive=False, min_recordings=2)
    assert {row["label"] for row in rows(tmp_path / "out").values()} == {"a, b", "1e5"}
    words = shlex.split(said(caplog, "data=folder"))
    parsed = OverridesParser.create().parse_overrides(as_typed(words[2:]))
    values = {override.key_or_group: override.value() for override in parsed}
    assert values == {
        "data": "folder",
        "data.audio_dir": str(tmp_path / "my clips"),
        "data.recursive": False,
        "data.label_from": "prefix",
        "data.separator": "-",
        "data.classes": ["a, b", "1e5"],
        "data.merge": [["bd", "a, b"], ["sn", "a, b"]],
        "data.min_recordings": 2,
        "spectrogram": "phone",
    }


def test_numbers_and_lists_are_typed_as_a_script_reads_them():
    assert (typed("x", 3), typed("x", False), typed("data.splits", [80, 10, 10])) == (
        "x=3",
        "x=false",
        "data.splits=[80,10,10]",
    )


def test_a_class_too_small_to_split_is_left_out_by_the_command(clips):
    (clips / "beep" / "0.wav").unlink()
    table = table_of(clips)
    advice = advise(table, PRESETS, has_gpu=False)
    assert training_settings(table, advice) == {"spectrogram": "small", "data.min_recordings": 3}
    assert "Too few recordings to be in train, val and test: beep (2)." in "\n".join(findings(table))
    of_two = table.groupby("label").head(2)
    assert training_settings(of_two, advice) == {"spectrogram": "small", "data.splits": [100, 0, 0]}


# --- findings


def table_of(folder):
    """As the task makes it of a folder of classes."""
    listed = list_clips(folder)
    return _table(listed, {clip.recording: _measure(clip) for clip in listed}, folder)


def sentences(folder):
    return "\n".join(findings(table_of(folder)))


def test_a_folder_in_order_has_no_findings(tmp_path):
    for i in range(20):
        for k, label in enumerate(("a", "b")):
            write(tmp_path / label / f"{i}.wav", noise(0.2 + 0.01 * i, 16000, seed=100 * k + i), 16000)
    assert sentences(tmp_path) == ""


def test_copies_are_found_also_at_another_level_and_across_classes(clips):
    shutil.copy(clips / "hiss" / "0.wav", clips / "beep" / "of_hiss.wav")
    quiet = 0.05 * soundfile.read(clips / "hiss" / "1.wav")[0]
    write(clips / "hiss" / "quiet.wav", quiet, 16000, "PCM_16")
    text = sentences(clips)
    assert "2 recordings are copies (the same sound, sample by sample) in 1 group, 1 of them across classes: " in text
    assert text.count("beep/of_hiss.wav = hiss/0.wav") == 1
    assert "2 recordings are copies (the same sound at another level or in another format) in 1 group: " in text
    assert "hiss/1.wav = hiss/quiet.wav" in text


def test_silence_clipping_and_channels_that_cancel_are_found(clips):
    write(clips / "none" / "0.wav", np.zeros(8000), 16000)
    write(clips / "beep" / "late.wav", np.concatenate([np.zeros((24000, 1)), tone(0.4, 16000)]), 16000)
    write(clips / "hiss" / "clipped.wav", noise(0.5, 16000, rms=2.0).clip(-1, 1), 16000, "PCM_16")
    one = noise(0.5, 16000, seed=7)
    write(clips / "hiss" / "anti.wav", np.concatenate([one, -one], axis=1), 16000)
    text = sentences(clips)
    assert "Every recording of none is silent" in text
    assert "1 of 10 recordings is digital silence: none/0.wav." in text
    assert "1 of 10 recordings has more silence (60 dB below the peak) at the ends than sound, 1.50 s" in text
    assert "1 of 10 recordings is clipped" in text
    assert "most of all hiss/clipped.wav with " in text
    assert "channels that cancel each other when they are mixed to one: hiss/anti.wav;" in text


def test_stereo_is_named_with_the_setting_that_keeps_it(clips):
    left, right = noise(0.5, 16000, seed=7), noise(0.5, 16000, seed=8)
    for path in sorted(clips.rglob("*.wav")):
        write(path, np.concatenate([left, left], axis=1), 16000)
    assert "stereo" not in sentences(clips)  # both channels are the same
    for path in sorted(clips.rglob("*.wav"))[1:]:
        write(path, np.concatenate([left, right], axis=1), 16000)
    text = sentences(clips)
    assert re.search(r"(\d) of (\d) recordings are stereo, with channels that differ\. .*data\.channels=2", text)


def test_classes_that_a_sample_rate_tells_apart_are_named(tmp_path):
    for i in range(3):
        write(tmp_path / "old" / f"{i}.wav", noise(0.3, 8000, seed=i), 8000)
        write(tmp_path / "new" / f"{i}.wav", noise(0.3, 44100, seed=9 + i), 44100)
    assert "Classes have different sample rates (8000 Hz: old, 44100 Hz: new)." in sentences(tmp_path)
    for path in (tmp_path / "old").iterdir():  # which hides it, but for the band
        write(path, resampled(soundfile.read(path)[0], 8000, 44100), 44100)
    text = sentences(tmp_path)
    assert "different sample rates" not in text
    stop = re.search(r"All or nearly all recordings of old stop at about (\d+) Hz", text)
    assert int(stop[1]) == pytest.approx(4000, rel=0.04)
    assert "while new reach 22050 Hz: the network and the judge may learn that" in text


def test_very_unequal_and_single_classes_are_named(tmp_path):
    for i in range(30):
        write(tmp_path / "many" / f"{i}.wav", noise(0.1, 8000, seed=i), 8000)
    assert "All recordings are of one class, many." in sentences(tmp_path)
    for i in range(3):
        write(tmp_path / "few" / f"{i}.wav", noise(0.1, 8000, seed=50 + i), 8000)
    assert "many has 10 times the recordings of few (30 and 3)" in sentences(tmp_path)


# --- presets


def test_what_a_preset_keeps_is_counted_by_hand():
    kept = fit("small", SMALL, np.array([0.5, 2.048]), np.array([4000.0, 8000.0, 16000.0]))
    assert (kept.n_longer, kept.n_higher, kept.values) == (1, 1, 64 * 64)
    assert kept.length == pytest.approx((1 + 0.5) / 2)
    of_16000 = math.log10(1 + 8000 / 700) / math.log10(1 + 16000 / 700)
    assert kept.band == pytest.approx((2 + of_16000) / 3)


@pytest.mark.parametrize(
    ("sound_s", "audible_hz", "most_values", "chosen", "better"),
    [
        (0.5, 3000, None, "phone", None),  # both are of one size: the lower rate has the finer bands
        (0.5, 7000, None, "small", None),
        (0.5, 20000, None, "high", None),
        (0.5, 20000, 2 * 64 * 64, "small", "high"),
        (3.0, 7000, None, "long", None),
        (3.0, 7000, 2 * 64 * 64, "small", "long"),
        (600.0, 7000, None, "long", None),  # of which no example holds much
        (600.0, 20000, 2 * 64 * 64, "small", None),
    ],
)
def test_the_smallest_preset_that_keeps_enough_is_chosen(sound_s, audible_hz, most_values, chosen, better):
    fits = fit_all(PRESETS, np.full(10, sound_s), np.full(10, float(audible_hz)))
    best = choose(fits, most_values=most_values)
    following = next_better(fits, best)
    assert (best.name, following and following.name) == (chosen, better)


def test_a_few_recordings_that_are_longer_do_not_decide():
    fits = fit_all(PRESETS, np.array([0.5] * 97 + [4.0] * 3), np.full(100, 7000.0))
    assert choose(fits).name == "small"


def test_presets_are_those_of_the_configuration_that_have_a_length():
    with initialize_config_dir(str(CONF), version_base="1.3"):
        presets = read_presets()
        assert presets["mel_64x64"] == SMALL
        assert (
            compose("train", overrides=["spectrogram=mel_128x128"]).spectrogram.n_mels == presets["mel_128x128"].n_mels
        )
    assert set(presets) == {path.stem for path in (CONF / "spectrogram").glob("*.yaml")} - {"mel_80"}


def test_shown_are_the_shortest_the_longest_and_those_between():
    table = pd.DataFrame({"duration_s": [5.0, 1.0, 4.0, 2.0, 3.0], "path": list("eadbc")})
    assert [list(spread(table, n)["path"]) for n in (1, 2, 3, 9)] == [["c"], ["a", "e"], ["a", "c", "e"], list("abcde")]


# --- the first lines of a training


@pytest.fixture
def dataset(tmp_path):
    """A dataset folder's manifest, of 12 recordings at 44.1 kHz whose sound reaches 20 kHz."""
    table = []
    for i in range(12):
        source = write(tmp_path / "clips" / f"{i}.wav", noise(0.2, 44100, seed=i), 44100)
        row = {"path": f"{i}.pt", "label": "ab"[i % 2], "split": "train", "recording": f"{i}", "source": str(source)}
        table.append(row | {"n_frames": 10 if i < 6 else 120})
    (tmp_path / "data").mkdir()
    write_manifest(pd.DataFrame(table), tmp_path / "data")
    frames = np.array([row["n_frames"] for row in table])

    def look(params=SMALL, presets=PRESETS, *, crop="random", may_read):
        folder = tmp_path / "data"
        return first_look(folder, params, presets, n_frames=frames, crop=crop, local_dir=folder, may_read=may_read)

    return look


def test_what_a_preset_cuts_is_said_with_numbers(dataset, tmp_path):
    look = dataset(may_read=True)
    assert look.summary.startswith(
        f"{tmp_path}/data: 12 clips of 12 recordings, 2 classes of 6; 0.16 to 1.92 s long, 1.04 s in the median; "
    )
    assert "(12 recordings)" in look.summary
    assert look.warnings == [
        "6 of 12 clips are longer than the 1.02 s of spectrogram=small: pieces of that length are taken from them, "
        "each time others (data.crop=start takes their beginnings); spectrogram=long keeps 4.10 s, with 4.0 times the "
        "values",
        "12 of 12 recordings have audible sound above 8000 Hz, which spectrogram=small leaves out; spectrogram=high "
        "reaches 22050 Hz, with 4.0 times the values",
    ]
    of_length = dataset(crop="start", may_read=True).warnings[0]
    assert "of spectrogram=small: their beginnings are taken (data.crop=random takes any piece of them); " in of_length


def test_a_band_without_sound_is_said_with_the_preset_that_ends_earlier(dataset, tmp_path):
    for i in range(12):
        write(tmp_path / "clips" / f"{i}.wav", tone(0.2, 44100), 44100)
    wide = replace(SMALL, sample_rate=44100, hop_length=706)
    (said,) = (text for text in dataset(wide, {**PRESETS, "wide": wide}, may_read=True).warnings if "goes on" in text)
    assert "and spectrogram=wide goes on to 22050 Hz; spectrogram=phone ends at 4000 Hz" in said


def test_the_band_is_measured_once_and_printed_from_then_on(dataset, tmp_path, monkeypatch):
    before = dataset(may_read=True)
    shutil.rmtree(tmp_path / "clips")
    monkeypatch.setattr(looks, "measure_band", None)  # is not called
    assert dataset(may_read=True) == before == dataset(may_read=False)
    assert len(json.loads((tmp_path / "data" / ".bands.json").read_text())["audible_hz"]) == 12


def test_of_recordings_that_are_elsewhere_nothing_is_said_of_the_band(dataset, tmp_path):
    unread = dataset(may_read=False)
    shutil.rmtree(tmp_path / "clips")
    assert dataset(may_read=True) == unread
    assert "Hz" not in unread.summary
    assert [cut.partition(" clips")[0] for cut in unread.warnings] == ["6 of 12"]
    assert not (tmp_path / "data" / ".bands.json").exists()


def test_of_many_recordings_some_of_each_class_are_measured():
    table = pd.DataFrame({"recording": [f"{i}" for i in range(1000)], "label": ["rare"] * 10 + ["many"] * 990})
    sample = looks._sample(table)
    assert sample["label"].value_counts().to_dict() == {"many": 90, "rare": 10}
    grown = pd.concat([table, pd.DataFrame({"recording": ["new"], "label": ["many"]})], ignore_index=True)
    assert len(set(looks._sample(grown)["recording"]) - set(sample["recording"])) <= 1
