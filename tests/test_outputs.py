"""A command replaces the files of its own earlier runs, and no others: specgan.files.Outputs and batch.journal."""

from functools import partial

import pytest
import soundfile
import torch
from folders import contents

from specgan import SpectrogramParams
from specgan.captions.caption import Caption
from specgan.data.drums import write_drums
from specgan.files import OUTPUTS_NAME, Outputs
from specgan.tasks.caption import caption_songs
from specgan.tasks.compare import compare_pictures
from specgan.tasks.decode import decode_pictures
from specgan.tasks.encode import encode_songs
from specgan.tasks.render import render_file
from specgan.tasks.spectrograms import make_spectrograms

RATE = 8000
PARAMS = SpectrogramParams(sample_rate=RATE, n_fft=256, win_length=256, hop_length=128, n_mels=16, f_max=4000.0)


class OneWord:
    sample_rate = RATE
    batch_size = 4

    def load(self):
        pass

    def __call__(self, waveforms):
        return [Caption("A sound.") for _ in waveforms]


def compare(input, output):
    return compare_pictures(input / "kick", output, reconstructed=input / "more" / "kick")


COMMANDS = {
    "encode": partial(encode_songs, size=64),
    "decode": lambda folder, output: decode_pictures(folder.parent / "pictures", output),
    "compare": lambda folder, output: compare(folder.parent / "pictures", output),
    "caption": partial(caption_songs, captioner=OneWord(), tempo=False, size=64),
    "spectrograms": partial(make_spectrograms, params=PARAMS),
    "drums": lambda _, output: write_drums(output, n_per_class=1, sample_rate=RATE),
    "render": lambda folder, output: render_file(folder / "kick" / "a.wav", output / "a.png"),
    "decode one": lambda folder, output: decode_pictures(
        folder.parent / "pictures" / "kick" / "a_0000.png", output / "a.wav"
    ),
}
IN_THE_WAY = {
    "encode": ["kick/a_0000.png", "failures.csv"],
    "decode": ["kick/a.wav", "failures.csv"],
    "compare": ["index.html", "comparison.csv", "pictures/a_0000.png"],
    "caption": ["kick/a_0000.txt", "metadata.jsonl", "scores.jsonl"],
    "spectrograms": ["manifest.csv", "params.yaml", "kick/a.pt", "failures.csv"],
    "render": ["a.png"],
    "decode one": ["a.wav"],
}


@pytest.fixture
def sounds(tmp_path):
    """sounds/kick/a.wav, and its pictures twice."""
    path = tmp_path / "sounds" / "kick" / "a.wav"
    path.parent.mkdir(parents=True)
    soundfile.write(path, torch.randn(3000, generator=torch.Generator().manual_seed(0)).numpy() / 8, RATE)
    for folder in ("pictures", "pictures/more"):
        encode_songs(tmp_path / "sounds", tmp_path / folder, size=64)
    return tmp_path / "sounds"


@pytest.mark.parametrize(("command", "path"), [(name, path) for name, paths in IN_THE_WAY.items() for path in paths])
def test_a_file_of_others_stops_the_command_before_anything_is_replaced(sounds, tmp_path, command, path):
    output = tmp_path / "out"
    (output / path).parent.mkdir(parents=True)
    (output / path).write_text("path,label\nmine")
    with pytest.raises(ValueError, match=f"{path}.*: is in the way, .*; move it, or give another output"):
        COMMANDS[command](sounds, output)
    left = {name for name in contents(output) if not name.startswith(".")}
    assert left == {path}
    assert (output / path).read_text() == "path,label\nmine"
    (output / path).unlink()
    COMMANDS[command](sounds, output)  # nothing was noted that is in the way now


@pytest.mark.parametrize("command", COMMANDS)
def test_a_second_run_replaces_what_the_first_wrote(sounds, tmp_path, command):
    output = tmp_path / "out"
    COMMANDS[command](sounds, output)
    first = contents(output)
    (sounds / "kick" / "a.wav").touch()
    COMMANDS[command](sounds, output)
    assert contents(output).keys() == first.keys()


def test_a_song_of_which_a_part_is_damaged_is_decoded_again(sounds, tmp_path):
    pictures = tmp_path / "pictures" / "kick"
    soundfile.write(sounds / "kick" / "b.wav", torch.randn(9000).numpy() / 8, RATE)
    encode_songs(sounds, tmp_path / "pictures", size=64)
    picture = pictures / "b_0001.png"
    picture.write_bytes(picture.read_bytes()[:-40])
    for _ in range(2):
        report = decode_pictures(pictures, tmp_path / "out")
        assert len(report.failures) == 1
        assert (tmp_path / "out" / "kick" / "b.wav").is_file()


def test_what_a_killed_run_noted_is_its_own_and_half_a_line_counts_for_nothing(tmp_path):
    Outputs(tmp_path, "render").claim(["a.png"])
    with (tmp_path / OUTPUTS_NAME).open("a") as file:
        file.write('{"command": "render", "outp')
    (tmp_path / "a.png").write_text("half")
    Outputs(tmp_path, "render").require_free(["a.png", "b.png"])
    with pytest.raises(ValueError, match=r"a\.png: is in the way"):
        Outputs(tmp_path, "frames").require_free(["a.png", "b.png"])
    with pytest.raises(ValueError, match=r"a\.png: is a file, and a folder is to be written there"):
        Outputs(tmp_path / "a.png", "frames").require_free([])
