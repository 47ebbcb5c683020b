"""specgan.audio.listing and results: recordings are found by what they are, and specgan's own sounds are none."""

import json
import logging
import os
from pathlib import Path

import pytest
import soundfile
from test_audio import encode, noise, tone

from specgan.audio import AudioError, find_audio, note_results
from specgan.audio.kinds import is_sound
from specgan.files import OUTPUTS_NAME, noted_outputs
from specgan.pictures.gallery import Entry, write_gallery
from specgan.tasks.splits import make_splits


def wav(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, noise(800), 8000, format="WAV")
    return path


def names(root: Path, **settings) -> set[str]:
    return {path.relative_to(root).as_posix() for path in find_audio(root, **settings)}


@pytest.fixture
def clips(tmp_path):
    wav(tmp_path / "kick/a.wav")
    return tmp_path


# --- by content where the suffix says nothing


@pytest.mark.parametrize("name", ["kick", "KICK.TXT", "a.1", "b.wav.part", "c.bwf"])
def test_a_wav_of_any_name_is_a_recording(tmp_path, name):
    wav(tmp_path / name)
    assert names(tmp_path) == {name}


@pytest.mark.parametrize(
    ("name", "codec"),
    list(
        zip(
            ["a.3gp", "a.mkv", "a.mov", "a.avi", "a.rm", "a.mpg", "a.ts", "a.flv", "a.asf", "a.wv", "a.tta", "a.dts"],
            ["aac", "aac", "aac", "mp2", "real_144", "mp2", "aac", "aac", "mp2", "wavpack", "tta", "mp2"],
            strict=True,
        )
    ),
)
def test_the_sound_of_a_film_or_an_uncommon_kind_is_a_recording(tmp_path, name, codec):
    if name == "a.dts":  # another kind's suffix
        encode(tmp_path / "a.mp2", tone(440, 44100)[None], 44100, codec=codec).rename(tmp_path / name)
    else:
        rate = 8000 if codec == "real_144" else 44100
        encode(tmp_path / name, tone(440, rate)[None], rate, codec=codec)
    assert names(tmp_path) == {name}


NO_SOUND = {
    "notes.txt": b"Good morning",
    "utf16.txt": "Hallo".encode("utf-16"),
    "kick.wav.asd": b"\xab\x1e\x56\x78" + bytes(600),
    "kick.reapeaks": b"RPKN" + bytes(600),
    "Thumbs.db": b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(600),
    "photo.jpg": b"\xff\xd8\xff\xe0" + bytes(600),
    "photo.webp": b"RIFF\x64\0\0\0WEBPVP8 " + bytes(600),
    "photo.heic": b"\0\0\0\x18ftypheic" + bytes(600),
    "song.mid": b"MThd" + bytes(20),
    "bank.sf2": b"RIFF\x64\0\0\0sfbk" + bytes(600),
    "gs.txt": b"G" * 100 + b"g" * 500,
    "empty": b"",
}


def test_other_files_are_left_out_and_counted_in_one_line(clips, caplog):
    for name, content in NO_SOUND.items():
        (clips / "kick" / name).write_bytes(content)
    wav(clips / "kick/._a.wav")
    wav(clips / "__MACOSX/kick/a.wav")
    (clips / "kick/.DS_Store").touch()
    os.symlink(clips / "gone", clips / "kick/dangling")
    os.mkfifo(clips / "kick/pipe")
    with caplog.at_level(logging.INFO):
        assert names(clips) == {"kick/a.wav"}
    (line,) = caplog.messages
    assert "left out what is not sound: 14 files (.txt 3, no suffix 3, " in line


def test_is_sound_of_any_beginning_does_not_fail():
    assert not any(is_sound(bytes(n)) for n in range(600))
    assert is_sound(b"RIFF\0\0\0\0WAVE")
    assert not is_sound(b"RIFF\0\0\0\0")


def test_of_an_empty_folder_no_other_files_are_told(tmp_path):
    with pytest.raises(AudioError, match=r"no audio file in it or its subfolders; check the path$"):
        find_audio(tmp_path)


# --- sounds that specgan wrote


def test_noted_sounds_are_no_recordings_and_are_said_once(clips, caplog):
    note_results(clips / "new", ["kick/kick_0.wav", "kick/kick_1.wav"])
    wav(clips / "new/kick/kick_0.wav")
    wav(clips / "new/kick/kick_1.wav")
    wav(clips / "new/kick/of_mine.wav")
    note_results(clips, ["kick/kick_0.wav", "wandb"])  # as of generate.py output=.
    wav(clips / "kick/kick_0.wav")
    wav(clips / "wandb/run-1/media/x.wav")
    assert names(clips) == {"kick/a.wav", "new/kick/of_mine.wav"}
    (line,) = caplog.messages
    assert "left out 4 sounds (new/kick 2, kick 1, wandb/run-1/media 1), which specgan wrote" in line


def test_the_note_goes_where_the_folder_goes(clips):
    note_results(clips / "new", ["kick_0.wav"])
    wav(clips / "new/kick_0.wav")
    (clips / "new").rename(clips / "renamed")
    assert names(clips) == {"kick/a.wav"}


def test_a_folder_of_nothing_but_results_can_be_given_itself(clips):
    note_results(clips / "runs/a/previews", ["kick/epoch_1.wav"])
    wav(clips / "runs/a/previews/kick/epoch_1.wav")
    assert names(clips / "runs/a/previews") == {"kick/epoch_1.wav"}
    assert names(clips / "runs/a/previews/kick") == {"epoch_1.wav"}
    with pytest.raises(AudioError, match=r"no audio file .* \(sounds that specgan wrote 1\)"):  # not meant, perhaps
        find_audio(clips / "runs")


def test_results_of_earlier_versions_are_known_by_the_files_beside_them(clips):
    for title, folder in (("New sounds", "new"), ("Training preview", "runs/a/previews")):
        write_gallery(
            clips / folder / "index.html",
            title=title,
            note="",
            sections={"what?": [Entry("1", "wh%t/0 é.png", "wh%t/0 é.wav")]},
        )
        wav(clips / folder / "wh%t/0 é.wav")
        wav(clips / folder / "kick/mine.wav")
    wav(clips / "runs/a/wandb/x.wav")
    (clips / "runs/a/.hydra").mkdir()
    (clips / "runs/a/.hydra/config.yaml").write_text("_target_: specgan.training.stages.fit")
    wav(clips / "data/sounds/0123456789abcdef.flac")
    wav(clips / "data/sounds/mine.wav")
    (clips / "data/params.yaml").write_text("spectrogram:\n  n_fft: 512\n")
    mine = {"kick/a.wav", "new/kick/mine.wav", "data/sounds/mine.wav"}  # previews: the whole folder
    assert names(clips) == mine


@pytest.mark.parametrize("marker", ["{}\n", '{"version": 1, "n_per_class": 1}'])  # {}: killed before its end
def test_the_built_in_drums_are_no_recordings_unless_their_folder_is_given(clips, marker):
    wav(clips / "data/drums/tom/tom_0000.wav")
    (clips / "data/drums/drums.json").write_text(marker)
    wav(clips / "of_mine/snare/b.wav")
    (clips / "of_mine/drums.json").write_text('{"name": "my drums"}')
    assert names(clips) == {"kick/a.wav", "of_mine/snare/b.wav"}
    (clips / "data/drums").rename(clips / "data/moved")
    assert names(clips) == {"kick/a.wav", "of_mine/snare/b.wav"}
    wav(clips / "data/moved/tom/of_mine.wav")
    assert names(clips / "data/moved") == {"tom/tom_0000.wav", "tom/of_mine.wav"}


def test_a_strangers_note_reaches_no_further_than_its_folder(clips):
    lines = ["../kick/a.wav", str(clips / "kick/a.wav"), ".."]
    (clips / "x").mkdir()
    note = json.dumps({"command": "sounds", "outputs": [*lines, 5]})
    (clips / "x" / OUTPUTS_NAME).write_text(note + '\n{"a": 1}\n5\n{"command": "half')
    assert names(clips) == {"kick/a.wav"}


def test_a_note_names_each_sound_once(tmp_path):
    for _ in range(2):
        note_results(tmp_path, ["b\n.wav", "a.wav"])
    assert list(noted_outputs(tmp_path)) == [("sounds", "a.wav"), ("sounds", "b\n.wav")]


def test_copies_that_task_splits_deals_are_no_recordings(clips):
    for i in range(3):
        wav(clips / f"kick/{i}.wav")
    recordings = names(clips)
    make_splits(clips, clips / "dealt", ext="wav", splits=(50, 25, 25))
    wav(clips / "dealt/train/kick/mine.wav")
    assert names(clips) == {*recordings, "dealt/train/kick/mine.wav"}
    assert len(names(clips / "dealt/train")) == 3
