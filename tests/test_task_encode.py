"""specgan.tasks.encode: songs become pictures that know themselves; none is lost, none twice."""

import numpy as np
import pytest
import soundfile
import torch
from folders import contents

from specgan.audio import save_wav
from specgan.codec import slices
from specgan.codec.coding import decode_spectrum
from specgan.codec.joining import JoinedSlices
from specgan.codec.png import from_png
from specgan.tasks.encode import encode_songs

RATE = 8000
SIZE = 64  # slices of 2048 samples


def noise(n_samples: int, channels: int = 1, amplitude: float = 0.3, seed: int = 0) -> torch.Tensor:
    return amplitude * (2 * torch.rand(channels, n_samples, generator=torch.Generator().manual_seed(seed)) - 1)


def pictures(folder) -> dict:
    """What from_png gives, by path in the folder."""
    paths = sorted(folder.rglob("*.png"))
    return {path.relative_to(folder).as_posix(): from_png(path.read_bytes()) for path in paths}


@pytest.fixture
def songs(tmp_path):
    root = tmp_path / "songs"
    save_wav(root / "long.wav", noise(5000), RATE)
    save_wav(root / "album" / "stereo.wav", noise(2048, channels=2), RATE)
    save_wav(root / "one sample.wav", noise(1), RATE)
    return root


def test_every_slice_of_every_song_has_a_picture(songs, tmp_path):
    report = encode_songs(songs, tmp_path / "out", size=SIZE)
    assert (report.n_done, report.n_skipped, report.failures) == (3, 0, [])
    made = pictures(tmp_path / "out")
    assert list(made) == ["album/stereo_0000.png", *(f"long_000{n}.png" for n in range(3)), "one sample_0000.png"]
    for picture, info in made.values():
        assert (picture.shape, picture.dtype) == ((SIZE, SIZE, 3), np.uint16)
        assert (info.params.size, info.sample_rate) == (SIZE, RATE)
    assert [made[f"long_000{n}.png"][1].number for n in range(3)] == [0, 1, 2]
    assert made["long_0002.png"][1].n_samples == 5000
    assert made["album/stereo_0000.png"][1].song == "album/stereo"


def test_channels_have_pictures_of_their_own(songs, tmp_path):
    encode_songs(songs / "album", tmp_path / "out", size=SIZE, mono=False)
    made = pictures(tmp_path / "out")
    assert {path: (info.channel, info.n_channels) for path, (_, info) in made.items()} == {
        "stereo_0000_ch0.png": (0, 2),
        "stereo_0000_ch1.png": (1, 2),
    }


@pytest.mark.parametrize(("bit_depth", "dtype"), [(8, np.uint8), (16, np.uint16)])
@pytest.mark.parametrize("phase_encoding", ["cos_sin", "instantaneous_frequency"])
def test_settings_reach_the_pictures(songs, tmp_path, bit_depth, dtype, phase_encoding):
    encode_songs(songs, tmp_path / "out", size=32, bit_depth=bit_depth, phase_encoding=phase_encoding, range_db=120)
    for picture, info in pictures(tmp_path / "out").values():
        assert picture.dtype == dtype
        params = info.params
        assert (params.bit_depth, params.phase_encoding, params.range_db) == (bit_depth, phase_encoding, 120)


def test_resampling(songs, tmp_path):
    encode_songs(songs / "long.wav", tmp_path / "out", size=SIZE, sample_rate=4000)
    assert {(info.sample_rate, info.n_samples) for _, info in pictures(tmp_path / "out").values()} == {(4000, 2500)}


def test_silence_at_both_ends_is_cut_and_known(tmp_path):
    quiet = noise(10_000, amplitude=1e-4)
    quiet[:, 3000:7000] = noise(4000)
    quiet[:, [3000, 6999]] = 0.3
    soundfile.write(tmp_path / "song.wav", quiet[0].numpy(), RATE, subtype="FLOAT")
    encode_songs(tmp_path / "song.wav", tmp_path / "out", size=SIZE, trim_db=-60)
    made = pictures(tmp_path / "out")
    assert len(made) == 2
    assert {(i.n_samples, i.offset, i.n_trimmed, i.n_kept) for _, i in made.values()} == {(10_000, 3000, 3000, 4000)}


def test_a_silent_song_stays_whole(tmp_path):
    save_wav(tmp_path / "song.wav", torch.zeros(3000), RATE)
    encode_songs(tmp_path / "song.wav", tmp_path / "out", size=SIZE, trim_db=-60)
    made = pictures(tmp_path / "out")
    assert len(made) == 2
    assert {info.n_kept for _, info in made.values()} == {3000}


def test_what_goes_beyond_full_scale_is_made_quieter_by_a_gain_that_is_known(tmp_path):
    loud = noise(2048, amplitude=8.0)
    soundfile.write(tmp_path / "song.wav", loud[0].numpy(), RATE, subtype="FLOAT")
    encode_songs(tmp_path / "song.wav", tmp_path / "out", size=SIZE)
    ((picture, info),) = pictures(tmp_path / "out").values()
    assert info.gain == pytest.approx(1 / float(loud.abs().max()))
    song = JoinedSlices(2048, info.params)
    song.add(0, decode_spectrum(picture, info.params))
    torch.testing.assert_close(song.waveform() / info.gain, loud[0], rtol=0, atol=8e-3)


def test_long_files_are_read_in_blocks_with_the_same_result(songs, tmp_path, monkeypatch):
    encode_songs(songs, tmp_path / "whole", size=SIZE, sample_rate=6000, trim_db=-40)
    opened = slices.open_audio
    monkeypatch.setattr(slices, "open_audio", lambda *args, **kwargs: opened(*args, block_frames=700, **kwargs))
    encode_songs(songs, tmp_path / "blocks", size=SIZE, sample_rate=6000, trim_db=-40)
    whole, blocks = pictures(tmp_path / "whole"), pictures(tmp_path / "blocks")
    assert list(whole) == list(blocks)
    for (a, info), (b, info_b) in zip(whole.values(), blocks.values(), strict=True):
        assert info == info_b
        assert np.abs(a[..., 0].astype(int) - b[..., 0]).max() < 600  # of 65535; resampled in parts, so not bit-equal


def test_a_bad_file_costs_that_file(songs, tmp_path):
    (songs / "bad.wav").write_bytes(b"no sound")
    report = encode_songs(songs, tmp_path / "out", size=SIZE)
    assert [failure.path for failure in report.failures] == [str(songs / "bad.wav")]
    assert "bad.wav" in (tmp_path / "out" / "failures.csv").read_text()
    assert report.n_done == 3
    with pytest.raises(Exception, match=r"bad\.wav"):
        encode_songs(songs, tmp_path / "other", size=SIZE, on_error="raise")


def test_nothing_but_bad_files_is_an_error(tmp_path):
    (tmp_path / "songs").mkdir()
    (tmp_path / "songs" / "bad.wav").write_bytes(b"no sound")
    with pytest.raises(ValueError, match=r"nothing could be made.*bad\.wav"):
        encode_songs(tmp_path / "songs", tmp_path / "out", size=SIZE)


def test_a_second_run_makes_what_is_missing_or_changed(songs, tmp_path):
    out = tmp_path / "out"
    encode_songs(songs, out, size=SIZE)
    first = contents(out)
    assert encode_songs(songs, out, size=SIZE).n_skipped == 3
    (out / "long_0001.png").unlink()
    save_wav(songs / "one sample.wav", noise(3000, seed=1), RATE)
    (songs / "album" / "stereo.wav").unlink()
    report = encode_songs(songs, out, size=SIZE)
    assert (report.n_done, report.n_skipped) == (2, 0)
    again = contents(out)
    assert again["long_0001.png"] == first["long_0001.png"]
    assert {path for path in again if path.startswith("one")} == {"one sample_0000.png", "one sample_0001.png"}
    assert not (out / "album").exists()


def test_other_settings_replace_the_pictures_and_files_of_others_stay(songs, tmp_path):
    out = tmp_path / "out"
    encode_songs(songs, out, size=SIZE)
    (out / "cover.png").write_bytes(b"mine")
    encode_songs(songs, out, size=128)
    fresh = tmp_path / "fresh"
    encode_songs(songs, fresh, size=128)
    assert contents(out) == {**contents(fresh), "cover.png": b"mine"}


def test_a_killed_run_costs_nothing_that_stood_in_the_folder(songs, monkeypatch):
    (songs / "long.png").write_bytes(b"cover")
    (songs / "long_0000.txt").write_text("caption")
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(slices, "open_audio", lambda *_, **__: (_ for _ in ()).throw(KeyboardInterrupt))
        encode_songs(songs, songs, size=SIZE)
    assert encode_songs(songs, songs, size=SIZE).n_done == 3  # beside their pictures, the songs are still there
    assert (songs / "long.png").read_bytes() == b"cover"
    assert (songs / "long_0000.txt").read_text() == "caption"


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"size": 63}, "size is 63"),
        ({"trim_db": 0}, "trim_db is 0; dB re full scale, below 0"),
        ({"bit_depth": 24}, "bit_depth is 24"),
        ({"on_error": "ignore"}, "on_error is 'ignore'"),
    ],
)
def test_impossible_settings_are_named_and_write_nothing(songs, tmp_path, settings, message):
    with pytest.raises(ValueError, match=message):
        encode_songs(songs, tmp_path / "out", **settings)
    assert not (tmp_path / "out").exists()
