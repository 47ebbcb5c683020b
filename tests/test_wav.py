"""How generated sounds are finished: their end, rate, level; and a folder of them as others use it."""

import csv
import math
from zipfile import ZipFile

import numpy as np
import pytest
import soundfile
import torch

from specgan.audio import WavFacts, WavSettings, save_wav
from specgan.audio.pack import MANIFEST_NAME, PackedSound, write_manifest, write_zip
from specgan.audio.wav import SHORTEST_S, trimmed
from specgan.files import OUTPUTS_NAME

RATE = 16000


def ringing(seconds=1.0, *, decay_db=120.0, floor_db=-70.0, rate=RATE):
    """A tone that falls by `decay_db` in a second, and behind it noise this far below its start."""
    t = torch.arange(round(seconds * rate)) / rate
    noise = torch.randn(len(t), generator=torch.Generator().manual_seed(0)) * 10 ** (floor_db / 20)
    return 0.5 * (torch.sin(2 * math.pi * 440 * t) * 10 ** (-decay_db * t / 20) + noise)


@pytest.mark.parametrize(("trim_db", "end_s"), [(-30, 0.25), (-50, 50 / 120)])
@pytest.mark.parametrize("rate", [8000, 44100])
def test_a_sound_ends_where_it_is_so_much_quieter_than_its_loudest_part(trim_db, end_s, rate):
    sound = ringing(rate=rate)
    kept = trimmed(sound, rate, trim_db=trim_db, fade_ms=20)
    assert len(kept) / rate == pytest.approx(end_s + 0.02, abs=0.011)
    n_fade = round(0.02 * rate)
    assert kept[:-n_fade].equal(sound[: len(kept) - n_fade])
    assert kept[-1].abs() < 1e-7
    assert (kept.abs() <= sound[: len(kept)].abs()).all()


def test_single_samples_that_stick_out_of_the_noise_do_not_keep_it():
    sound = ringing()
    sound[15000] = 0.5 * 10 ** (-45 / 20)
    assert len(trimmed(sound, RATE, trim_db=-50, fade_ms=20)) < RATE // 2


def test_channels_end_together_with_the_longest():
    short, long = ringing(decay_db=240), ringing(decay_db=100)
    kept = trimmed(torch.stack([short, long]), RATE, trim_db=-50, fade_ms=10)
    assert kept.shape == (2, len(trimmed(long, RATE, trim_db=-50, fade_ms=10)))
    alone = trimmed(torch.stack([long]), RATE, trim_db=-50, fade_ms=10)
    assert alone[0].equal(trimmed(long, RATE, trim_db=-50, fade_ms=10))


def test_silence_and_sounds_that_last_stay_whole_and_clicks_keep_the_shortest_length():
    silence, steady, click = torch.zeros(2, RATE), torch.ones(RATE), torch.zeros(RATE)
    click[3] = 0.5
    for sound in (silence, steady, click[:100]):
        assert trimmed(sound, RATE, trim_db=-50, fade_ms=20).equal(sound)
    for fade_ms in (0, 20):
        kept = trimmed(click, RATE, trim_db=-50, fade_ms=fade_ms)
        assert kept.equal(click[: round(SHORTEST_S * RATE)])


def test_settings_that_change_nothing_write_the_bytes_of_save_wav(tmp_path):
    sound = ringing()
    save_wav(tmp_path / "a.wav", sound, RATE)
    facts = WavSettings(trim_db=None).write(tmp_path / "b.wav", sound, RATE)
    assert (tmp_path / "a.wav").read_bytes() == (tmp_path / "b.wav").read_bytes()
    assert facts == WavFacts(1.0, RATE, 1, pytest.approx(float(sound.abs().max()), abs=1e-6))


def test_a_sound_is_resampled_scaled_and_written_in_another_subtype(tmp_path):
    stereo = torch.stack([ringing(floor_db=-300), 0.5 * ringing(floor_db=-300)])
    settings = WavSettings(trim_db=None, sample_rate=48000, subtype="PCM_24", peak=0.9)
    assert settings.write(tmp_path / "a.wav", stereo, RATE) == WavFacts(1.0, 48000, 2, 0.9)
    samples, rate = soundfile.read(tmp_path / "a.wav")
    assert (rate, samples.shape, soundfile.info(tmp_path / "a.wav").subtype) == (48000, (48000, 2), "PCM_24")
    assert np.abs(samples).max() == pytest.approx(0.9, abs=1e-6)
    scale = 0.9 / float(ringing(floor_db=-300, rate=48000).abs().max())
    expected = ringing(floor_db=-300, rate=48000).numpy() * scale  # the same tone at that rate
    np.testing.assert_allclose(samples[200:-200, 0], expected[200:-200], atol=2e-3)
    np.testing.assert_allclose(samples[:, 1], samples[:, 0] / 2, atol=1e-6)


def test_float_keeps_what_is_beyond_full_scale_and_the_facts_are_those_of_the_file(tmp_path):
    for subtype, peak in (("FLOAT", 2.0), ("PCM_16", 1.0)):
        facts = WavSettings(trim_db=None, subtype=subtype).write(tmp_path / "a.wav", torch.full((RATE,), 2.0), RATE)
        assert facts.peak == peak
        assert np.abs(soundfile.read(tmp_path / "a.wav")[0]).max() == pytest.approx(peak, abs=1e-4)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *[("trim_db", value) for value in (0, 3.0, math.nan, True, "low")],
        *[("fade_ms", value) for value in (-1, math.inf, None)],
        *[("sample_rate", value) for value in (7999, 192001, 44100.0, "44100", True)],
        ("subtype", "PCM_8"),
        *[("peak", value) for value in (0, -0.5, 1.01, math.nan)],
    ],
)
def test_an_impossible_setting_is_named(name, value):
    with pytest.raises(ValueError, match=f"{name} is '?{value}'?; "):
        WavSettings(**{name: value})


def pack(folder, *sounds):
    for label, seed in sounds:
        (folder / label).mkdir(exist_ok=True)
        save_wav(folder / label / f"{seed}.wav", torch.full((800,), 0.5), 8000)
        yield PackedSound.of(f"{label}/{seed}.wav", label, seed, WavFacts(0.1, 8000, 1, 0.5), "x.ckpt")


def rows(path):
    with open(path, newline="", encoding="utf-8") as file:
        return [(row["label"], int(row["seed"]), row["path"]) for row in csv.DictReader(file)]


def test_the_manifest_goes_on_with_what_is_there(tmp_path):
    odd = 'a, "b"\r\udce9\ud800'
    write_manifest(tmp_path, pack(tmp_path, ("kick", 10), ("kick", 9)))
    first = (tmp_path / MANIFEST_NAME).read_bytes()
    assert first.splitlines()[1] == b'"kick/9.wav","kick",9,0.1,8000,1,0.5,"x.ckpt"'
    (tmp_path / "kick" / "10.wav").unlink()
    (other,) = pack(tmp_path, ("o", 2**64 - 1))
    write_manifest(tmp_path, [other._replace(label=odd)])
    write_manifest(tmp_path, pack(tmp_path, ("kick", 9)))
    assert rows(tmp_path / MANIFEST_NAME) == [
        ('a, "b"\r??', 2**64 - 1, "o/18446744073709551615.wav"),
        ("kick", 9, "kick/9.wav"),
    ]


def test_a_manifest_that_was_changed_is_written_anew_and_that_is_said(tmp_path, caplog):
    (tmp_path / MANIFEST_NAME).write_text("path;label\nkick/1.wav;kick\n")
    write_manifest(tmp_path, pack(tmp_path, ("kick", 1)))
    assert rows(tmp_path / MANIFEST_NAME) == [("kick", 1, "kick/1.wav")]
    assert "manifest.csv: was changed" in caplog.text


def test_a_zip_holds_the_sounds_and_their_manifest_in_the_same_bytes(tmp_path):
    sounds = list(pack(tmp_path, ("snare", 1), ("kick", 0), ("kick", 1)))
    write_zip(tmp_path / "a.zip", tmp_path, sounds[:2])
    (tmp_path / "kick" / "0.wav").touch()
    write_zip(tmp_path / "b.zip", tmp_path, sounds[1::-1])
    assert (tmp_path / "a.zip").read_bytes() == (tmp_path / "b.zip").read_bytes()
    with ZipFile(tmp_path / "a.zip") as file:
        assert file.testzip() is None
        file.extractall(tmp_path / "out")
    assert rows(tmp_path / "out" / MANIFEST_NAME) == [("kick", 0, "kick/0.wav"), ("snare", 1, "snare/1.wav")]
    assert (tmp_path / "out" / "snare" / "1.wav").read_bytes() == (tmp_path / "snare" / "1.wav").read_bytes()
    assert not (tmp_path / OUTPUTS_NAME).exists()
