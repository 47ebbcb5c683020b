"""specgan.tasks.caption and pipeline: caption N is of picture N, none is made twice, and trainers can read them."""

import json
import os
import pty
import signal
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest
import torch

from specgan.audio import save_wav
from specgan.batch.executors import Processes
from specgan.captions.caption import SILENCE, Caption
from specgan.codec.png import from_png
from specgan.hub import MissingWeightsError
from specgan.tasks.caption import caption_songs
from specgan.tasks.encode import encode_songs
from specgan.tasks.pipeline import make_pairs

ROOT = Path(__file__).parents[1]
RATE = 8000
SIZE = 64  # slices of 2048 samples


class LoudnessCaptioner:
    """Says how long and how loud a sound is: enough to know which one it was given."""

    sample_rate = RATE
    batch_size = 3

    def __init__(self, word: str = "sound") -> None:
        self.word = word
        self._batches: list[int] = []

    def load(self):
        pass

    def __call__(self, waveforms):
        self._batches.append(len(waveforms))
        return [self._describe(waveform) for waveform in waveforms]

    def _describe(self, waveform):
        peak = float(waveform.abs().max())
        if peak == 0:
            return Caption(SILENCE)
        return Caption(f"A {self.word} of {len(waveform)} at {peak:.2f}.", {"kind": {self.word: 1.0}})


@pytest.fixture
def songs(tmp_path):
    """Slices at levels of their own: .1, .2, ..."""
    for name, n_samples in (("a.wav", 5000), ("sub/b.wav", 2048), ("c.wav", 9000)):
        waveform = torch.zeros(n_samples)
        for number, part in enumerate(waveform.split(2048)):
            part[:] = (0.1 + 0.1 * number) * torch.sign(torch.sin(torch.arange(len(part)) * 0.3) + 1e-3)
        save_wav(tmp_path / "songs" / name, waveform, RATE)
    return tmp_path / "songs"


def caption(songs, output, captioner=None, **settings):
    settings = {"size": SIZE, "tempo": False, **settings}
    return caption_songs(songs, output, captioner=captioner or LoudnessCaptioner(), **settings)


def texts(folder) -> dict:
    return {path.relative_to(folder).as_posix(): path.read_text() for path in sorted(folder.rglob("*.txt"))}


def metadata(folder) -> list:
    return [json.loads(line) for line in (folder / "metadata.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("settings", [{}, {"trim_db": -19}, {"mono": False}, {"sample_rate": 6000}])
def test_caption_n_is_of_picture_n(songs, tmp_path, settings):
    out = tmp_path / "out"
    encode_songs(songs, out, size=SIZE, **settings)
    report = caption(songs, out, **settings)
    pictures = sorted(out.rglob("*.png"))
    assert [path.with_suffix(".txt") for path in pictures] == sorted(out.rglob("*.txt"))
    assert report.n_done == len(pictures)
    captioner = LoudnessCaptioner()
    for path in pictures:
        _, info = from_png(path.read_bytes())
        words = path.with_suffix(".txt").read_text().split()
        if "sample_rate" not in settings:  # the filter rings
            assert int(words[3]) == info.slice_length
            first = (info.offset + info.number * 2048) // 2048
            levels = {round(0.1 + 0.1 * n, 2) for n in (first, first + 1)} if info.offset else {0.1 + 0.1 * first}
            assert any(abs(float(words[5].rstrip(".")) - level) < 0.011 for level in levels)
        else:
            assert abs(int(words[3]) - info.slice_length * RATE / 6000) <= 1
    assert captioner.batch_size == 3


def test_the_table_is_what_trainers_read(songs, tmp_path):
    out = tmp_path / "out"
    report = make_pairs(songs, out, captioner=LoudnessCaptioner(), size=SIZE, tempo=False, artist="Ann", title="Tune")
    assert report.failures == []
    rows = metadata(out)
    assert [row["file_name"] for row in rows] == sorted(path.relative_to(out).as_posix() for path in out.rglob("*.png"))
    assert all((out / row["file_name"]).with_suffix(".txt").read_text() == row["text"] + "\n" for row in rows)
    row = next(row for row in rows if row["file_name"] == "c_0001.png")
    assert row["text"] == "style of Ann. A sound of 2048 at 0.20."
    assert (row["title"], row["artist"], row["tags"], row["bpm"]) == ("Tune", "Ann", ["sound"], None)
    assert (row["start_s"], row["duration_s"]) == (0.256, 0.256)
    assert json.loads((out / "scores.jsonl").read_text().splitlines()[0])["kind"] == {"sound": 1.0}


def test_the_data_set_loads_as_an_image_folder(songs, tmp_path):
    datasets = pytest.importorskip("datasets")
    out = tmp_path / "out"
    make_pairs(songs, out, captioner=LoudnessCaptioner(), size=SIZE, tempo=False, bit_depth=8)
    files = {"train": str(out / "**")}  # not data_dir, by which a song called test would make a split
    loaded = datasets.load_dataset("imagefolder", data_files=files, split="train", cache_dir=str(tmp_path / "cache"))
    assert len(loaded) == 9
    assert {row["text"] for row in loaded} == {row["text"] for row in metadata(out)}
    assert loaded[0]["image"].size == (SIZE, SIZE)


def test_batches_go_over_songs(songs, tmp_path):
    captioner = LoudnessCaptioner()
    caption(songs, tmp_path / "out", captioner)
    assert captioner._batches == [3, 3, 3]


def test_a_run_that_was_killed_captions_nothing_twice(songs, tmp_path):
    class Dies(LoudnessCaptioner):
        def __call__(self, waveforms):
            if len(self._batches) == 2:
                raise KeyboardInterrupt
            return super().__call__(waveforms)

    with pytest.raises(KeyboardInterrupt):
        caption(songs, tmp_path / "out", Dies())
    assert len(texts(tmp_path / "out")) == 6
    captioner = LoudnessCaptioner()
    settings = {"captioner": captioner}
    captioner.__class__.__name__, name = "Dies", captioner.__class__.__name__
    try:
        report = caption(songs, tmp_path / "out", **settings)
    finally:
        captioner.__class__.__name__ = name
    assert (report.n_done, report.n_skipped, captioner._batches) == (3, 6, [3])
    caption(songs, tmp_path / "whole")
    assert texts(tmp_path / "out") == texts(tmp_path / "whole")


def test_a_model_that_is_not_there_is_missed_before_the_work(songs, tmp_path):
    class Missing(LoudnessCaptioner):
        def load(self):
            raise MissingWeightsError("fetch it")

    with pytest.raises(MissingWeightsError, match="fetch it"):
        caption(songs, tmp_path / "out", Missing())
    assert not (tmp_path / "out").exists()


def test_another_word_captions_again_and_another_title_does_not(songs, tmp_path):
    out = tmp_path / "out"
    caption(songs, out)
    assert caption(songs, out, title="Tune").n_skipped == 9
    assert metadata(out)[0]["title"] == "Tune"
    assert caption(songs, out, LoudnessCaptioner("noise")).n_done == 9
    assert all("noise" in text for text in texts(out).values())
    save_wav(songs / "sub" / "b.wav", torch.full((3000,), 0.5), RATE)
    report = caption(songs, out, LoudnessCaptioner("noise"))
    assert (report.n_done, report.n_skipped) == (2, 8)


def test_silence_has_no_tempo_and_a_beat_has(tmp_path):
    clicks = torch.zeros(30 * RATE)
    clicks[:: RATE // 2] = 0.9  # 120 a minute
    clicks[16 * RATE :] = 0  # the second slice of 16.4 s is silent
    save_wav(tmp_path / "songs" / "x.wav", clicks, RATE)
    caption(tmp_path / "songs", tmp_path / "out", size=512, tempo=True)
    said = list(texts(tmp_path / "out").values())
    assert said[0].endswith("0.90. 120 BPM.\n")
    assert said[1] == "Silence.\n"
    assert metadata(tmp_path / "out")[0]["bpm"] == pytest.approx(120, rel=0.01)


def test_a_bad_song_costs_that_song_and_workers_change_nothing(songs, tmp_path):
    (songs / "bad.wav").write_bytes(b"no sound")
    for executor in ({}, {"executor": Processes(2)}):
        out = tmp_path / f"out{len(executor)}"
        report = make_pairs(songs, out, captioner=LoudnessCaptioner(), size=SIZE, tempo=True, **executor)
        assert [failure.path for failure in report.failures] == [str(songs / "bad.wav")]
        assert "bad.wav" in (out / "failures.csv").read_text()
        assert len(metadata(out)) == 9
    assert texts(tmp_path / "out0") == texts(tmp_path / "out1")


def test_without_a_captioner_there_are_pictures_alone_or_a_clear_word(songs, tmp_path):
    make_pairs(songs, tmp_path / "out", captioner=None, size=SIZE)
    assert len(list((tmp_path / "out").rglob("*.png"))) == 9
    assert not (tmp_path / "out" / "metadata.jsonl").exists()
    with pytest.raises(ValueError, match="captioner=muq or captioner=qwen2_audio"):
        caption_songs(songs, tmp_path / "captions", captioner=None)


# The questions of task=pipeline


def pipeline(cwd, *arguments, answers=None):
    """Runs the command, on a terminal where there are answers."""
    command = [sys.executable, str(ROOT / "preprocess.py"), "task=pipeline", f"task.size={SIZE}", *map(str, arguments)]
    if answers is None:
        return subprocess.run(command, cwd=cwd, stdin=subprocess.DEVNULL, capture_output=True, text=True)
    ours, theirs = pty.openpty()
    os.write(ours, answers)
    heeds_interrupts = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)  # background jobs do not
    done = subprocess.Popen(command, cwd=cwd, stdin=theirs, stdout=theirs, stderr=theirs, preexec_fn=heeds_interrupts)
    os.close(theirs)
    said = b""
    try:
        while block := os.read(ours, 4096):
            said += block
            if not answers and b"Folder for the data set: " in said:
                done.send_signal(signal.SIGINT)
    except OSError:  # its end is closed
        pass
    os.close(ours)
    return subprocess.CompletedProcess(command, done.wait(), said.decode(), "")


def test_what_is_missing_is_named_without_a_terminal(songs):
    done = pipeline(songs.parent, f"input={songs}")
    assert done.returncode == 1
    assert "output" in done.stderr


def test_what_is_missing_is_asked_for_on_a_terminal(songs):
    done = pipeline(songs.parent, f"input={songs}", answers=b"\nout put\nAnn\n\n")
    assert done.returncode == 0, done.stdout
    assert "Folder for the data set" in done.stdout and "Artist" in done.stdout
    assert len(list((songs.parent / "out put").rglob("*.png"))) == 9


def test_ctrl_c_at_a_question_leaves_nothing(songs):
    before = sorted(songs.parent.rglob("*"))
    done = pipeline(songs.parent, f"input={songs}", answers=b"")
    assert done.returncode != 0
    assert sorted(songs.parent.rglob("*")) == before
