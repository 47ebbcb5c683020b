"""specgan.audio.joined: of files that are several sounds, one behind the other, all is read."""

import io
import struct

import numpy as np
import pytest
import soundfile
from test_audio import encode, level_at, tone

from specgan.audio import load_audio, open_audio
from specgan.audio.joined import find_parts, open_part

RATE = 44100
FORMATS = {
    "wav": ("WAV", "PCM_16"),
    "float.wav": ("WAV", "FLOAT"),
    "wavex.wav": ("WAVEX", "PCM_24"),
    "rf64": ("RF64", "PCM_16"),
    "w64": ("W64", "PCM_16"),
    "aiff": ("AIFF", "PCM_16"),
    "au": ("AU", "PCM_16"),
    "caf": ("CAF", "PCM_16"),
    "flac": ("FLAC", "PCM_16"),
    "mp3": ("MP3", "MPEG_LAYER_III"),
    "ogg": ("OGG", "VORBIS"),
    "opus": ("OGG", "OPUS"),
}


def content(name: str, hz: float, *, rate: int = RATE, channels: int = 1, seconds: float = 1.0) -> bytes:
    """One tone as the bytes of a file; Opus has 48 kHz."""
    container, subtype = FORMATS[name]
    buffer, rate = io.BytesIO(), 48000 if name == "opus" else rate
    samples = np.repeat(tone(hz, rate, seconds=seconds)[:, None], channels, axis=1)
    soundfile.write(buffer, samples, rate, format=container, subtype=subtype)
    return buffer.getvalue()


def assert_tones(path, *tones, rate=RATE):
    """That the file holds a second of each of the tones, one behind the other."""
    waveform, loaded_rate = load_audio(path)
    assert loaded_rate == rate
    assert waveform.shape == (1, len(tones) * rate)
    for second, hz in zip(waveform[0].view(len(tones), rate).numpy(), tones, strict=True):
        assert level_at(second, hz, rate) == pytest.approx(0.5, rel=0.05)


@pytest.mark.parametrize("name", FORMATS)
def test_all_of_three_joined_files_is_read(tmp_path, name, caplog):
    path = tmp_path / f"joined.{name}"
    path.write_bytes(content(name, 440) + content(name, 880) + content(name, 1320))
    assert_tones(path, 440, 880, 1320, rate=48000 if name == "opus" else RATE)
    assert not caplog.records


def test_a_file_joined_with_itself_is_read_twice(tmp_path):
    (tmp_path / "twice.ogg").write_bytes(2 * content("ogg", 440))  # its streams have one serial number
    assert_tones(tmp_path / "twice.ogg", 440, 440)


def test_joined_mp4_is_read(tmp_path):
    parts = [encode(tmp_path / f"{hz}.m4a", tone(hz, RATE)[None], RATE, codec="aac") for hz in (440, 880)]
    (tmp_path / "joined.m4a").write_bytes(b"".join(part.read_bytes() for part in parts))
    assert_tones(tmp_path / "joined.m4a", 440, 880)


@pytest.mark.parametrize("name", ["wav", "flac", "mp3", "ogg"])
def test_other_rates_and_channels_become_those_of_the_first(tmp_path, name, caplog):
    path = tmp_path / f"joined.{name}"
    path.write_bytes(content(name, 440, channels=2) + content(name, 880, rate=22050))
    assert_tones(path, 440, 880)
    assert load_audio(path, mono=False)[0].shape == (2, 2 * RATE)
    assert "number 2 has 1 channels at 22050 Hz, converted to the first one's 2 at 44100 Hz" in caplog.text


def test_other_kinds_behind_each_other_are_read(tmp_path):
    (tmp_path / "a.wav").write_bytes(content("wav", 440) + content("flac", 880))
    assert_tones(tmp_path / "a.wav", 440, 880)


def test_tags_and_pads_between_the_files_do_not_matter(tmp_path):
    id3v2, id3v1 = b"ID3\4\0\0\0\0\0\x14" + bytes(20), b"TAG" + bytes(125)
    (tmp_path / "tags.mp3").write_bytes(id3v2 + content("mp3", 440) + id3v1 + id3v2 + content("mp3", 880) + id3v1)
    assert_tones(tmp_path / "tags.mp3", 440, 880)
    (tmp_path / "pad.wav").write_bytes(content("wav", 440) + b"\0" + content("wav", 880))
    assert_tones(tmp_path / "pad.wav", 440, 880)
    (tmp_path / "tags.flac").write_bytes(id3v2 + content("flac", 440) + id3v2 + content("flac", 880))
    assert_tones(tmp_path / "tags.flac", 440, 880)


def test_streamed_wavs_which_do_not_know_their_size_are_told_apart(tmp_path):
    parts = [bytearray(content("wav", hz)) for hz in (440, 880)]
    for part in parts:
        part[4:8] = part[40:44] = struct.pack("<I", 2**32 - 1)
    (tmp_path / "piped.wav").write_bytes(b"".join(parts))
    assert_tones(tmp_path / "piped.wav", 440, 880)


def test_what_follows_and_cannot_be_decoded_is_named(tmp_path, caplog):
    first = content("wav", 440)
    (tmp_path / "a.wav").write_bytes(first + b"RIFF\x64\0\0\0WAVE" + bytes(100))
    assert_tones(tmp_path / "a.wav", 440)
    assert f"a.wav: recordings one behind the other; number 2 of 2 (bytes {len(first)} to " in caplog.text
    assert "is left out" in caplog.text


@pytest.mark.parametrize("tail", [b"garbage" * 3000, bytes(3000), b"TAG" + bytes(125)], ids=["text", "zeros", "tag"])
@pytest.mark.parametrize("name", ["wav", "mp3", "aiff", "caf"])
def test_other_bytes_behind_a_sound_are_nothing(tmp_path, name, tail, caplog):
    (tmp_path / "a").write_bytes(content(name, 440) + tail)
    assert_tones(tmp_path / "a", 440)
    assert not caplog.records


@pytest.mark.parametrize("name", FORMATS)
def test_one_sound_is_one_part(tmp_path, name):
    whole = content(name, 440, channels=2, seconds=0.3)
    assert find_parts(io.BytesIO(whole)) == [(0, len(whole))]
    for size in (0, 3, 11, 30, 60, len(whole) // 2):  # cut short anywhere
        assert find_parts(io.BytesIO(whole[:size])) == [(0, size)]


def test_a_film_whose_picture_and_sound_begin_together_is_one_part(tmp_path):
    pages = [bytearray(b"OggS\0" + bytes([flag]) + bytes(20) + b"\1\x0a" + bytes(10)) for flag in (2, 2, 0, 0)]
    assert find_parts(io.BytesIO(b"".join(pages))) == [(0, 4 * 38)]
    assert find_parts(io.BytesIO(b"".join(pages * 2))) == [(0, 152), (152, 304)]


def test_a_beginning_across_two_searched_blocks_is_found(monkeypatch):
    joined = content("flac", 440, seconds=0.1) + content("flac", 880, seconds=0.1)
    middle = joined.index(b"fLaC", 1)
    for block in (97, 101, 103):
        monkeypatch.setattr("specgan.audio.joined._BLOCK", block)
        assert find_parts(io.BytesIO(joined)) == [(0, middle), (middle, len(joined))]


def test_the_samples_do_not_depend_on_the_block(tmp_path):
    path = tmp_path / "joined.wav"
    path.write_bytes(content("wav", 440, seconds=0.1) + content("wav", 880, rate=22050, seconds=0.1))
    whole, _ = load_audio(path)
    with open_audio(path, block_frames=1000) as stream:
        pieces = np.concatenate([block.numpy() for block in stream.blocks], axis=1)
    np.testing.assert_allclose(pieces, whole.numpy(), atol=1e-6)


def test_a_part_is_a_file_of_its_own():
    part = open_part(io.BytesIO(b"0123456789"), 3, 7)
    assert part.read() == b"3456"
    assert part.seek(-3, io.SEEK_END) == 1
    assert part.read(2) == b"45"
    assert part.seek(100) == 100
    assert part.read() == b""
