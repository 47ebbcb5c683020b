"""specgan.tasks.slice: clips are where the sounds are, to the sample, and those of a recording stay in one split."""

import csv
import os
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from folders import contents
from pages import Page

from specgan.audio import load_audio, origin_of, recording_id, save_wav
from specgan.clips.listing import grouped, list_clips
from specgan.cutting.scan import scan
from specgan.data.dealing import deal_groups
from specgan.data.drums import drum
from specgan.data.manifest import read_manifest
from specgan.spectrogram import SpectrogramParams
from specgan.tasks.slice import cut_recordings
from specgan.tasks.spectrograms import make_spectrograms
from specgan.tasks.splits import make_splits

RATE = 16000
HITS_S = (0.0, 0.5, 0.9, 1.6, 2.4)  # the first one at once
BARE = {"fade_in_ms": 0, "fade_out_ms": 0}  # clips as they are in the recording
PARAMS = SpectrogramParams(sample_rate=8000, n_fft=256, win_length=256, hop_length=128, n_mels=16, n_frames=None)


def hits(seed: int = 0, *, starts=HITS_S, length_s: float = 3.0) -> torch.Tensor:
    """Kicks of 0.2 s, over noise 66 dB below full scale."""
    generator = torch.Generator().manual_seed(seed)
    waveform = 5e-4 * torch.randn(round(length_s * RATE), generator=generator)
    for number, start in enumerate(starts):
        kick = drum("kick", seed=10 * seed + number, sample_rate=RATE)[: RATE // 5].clone()
        kick[-800:] *= torch.linspace(1, 0, 800)
        first = round(start * RATE)
        waveform[first : first + len(kick)] += kick[: len(waveform) - first]
    return 0.9 * waveform / waveform.abs().max()


@pytest.fixture
def recordings(tmp_path):
    root = tmp_path / "recordings"
    for seed in range(6):
        save_wav(root / ("kick", "tom")[seed // 3] / f"take{seed % 3}.wav", hits(seed), RATE)
    return root


def table(output: Path) -> list[dict[str, str]]:
    with (output / "clips.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def joined(output: Path) -> torch.Tensor:
    return torch.cat([load_audio(output / row["path"], mono=False)[0] for row in table(output)], dim=1)


def test_a_clip_begins_just_before_each_onset(recordings, tmp_path):
    report = cut_recordings(recordings, tmp_path / "clips", at="onsets", **BARE)
    assert (report.n_done, report.failures) == (6, [])
    rows = table(tmp_path / "clips")
    assert len(rows) == 6 * len(HITS_S)
    for number, row in enumerate(rows):
        early = HITS_S[number % len(HITS_S)] - float(row["start_s"])
        assert 0 <= early < 0.03
        assert 0.15 < float(row["duration_s"]) < 0.3  # until it falls silent, not until the next
        assert row["path"] == f"{row['label']}/take{number // 5 % 3}_{number % 5 + 1:04d}.wav"
        whole, _ = load_audio(row["source"])
        first = round(float(row["start_s"]) * RATE)
        clip, rate = load_audio(tmp_path / "clips" / row["path"])
        assert rate == RATE
        assert torch.equal(clip, whole[:, first : first + clip.shape[1]])


def test_onsets_do_not_depend_on_the_blocks_that_are_read(tmp_path, monkeypatch):
    save_wav(tmp_path / "x.wav", torch.stack([hits(1), -hits(1)]), RATE)  # whose mean is silent
    whole = scan(tmp_path / "x.wav", sensitivity=0.07)
    monkeypatch.setattr("specgan.cutting.scan._BLOCK_FRAMES", 777)
    blocks = scan(tmp_path / "x.wav", sensitivity=0.07)
    assert blocks.onsets == whole.onsets
    assert len(whole.onsets) == len(HITS_S)
    np.testing.assert_array_equal(blocks.levels, whole.levels)
    assert (whole.n_samples, whole.n_channels, blocks.peak) == (3 * RATE, 2, whole.peak)


def test_in_pauses(recordings, tmp_path):
    cut_recordings(recordings, tmp_path / "clips", at="silence", pause_s=0.1, silence_db=-45, **BARE)
    assert len(table(tmp_path / "clips")) == 6 * len(HITS_S)
    cut_recordings(recordings, tmp_path / "clips", at="silence", pause_s=0.4, silence_db=-45, **BARE)
    starts = [float(row["start_s"]) for row in table(tmp_path / "clips")][:3]
    assert starts == pytest.approx([0.0, 1.6, 2.4], abs=0.02)  # the first three are 0.2 to 0.3 s apart


@pytest.mark.parametrize(
    ("subtype", "channels", "settings"),
    [
        ("PCM_U8", 1, {"at": "length", "most_s": 0.7}),
        ("PCM_16", 2, {"at": "length", "most_s": 0.7, "format": "flac"}),
        ("PCM_24", 3, {"at": "length", "most_s": 2.999}),  # a rest of 1 ms stays with the last clip
        ("FLOAT", 1, {"at": "silence", "trim": False, "pause_s": 0.1, "silence_db": -45}),
    ],
)
def test_clips_behind_each_other_are_the_recording(tmp_path, subtype, channels, settings):
    root, output = tmp_path / "in", tmp_path / "out"
    root.mkdir()
    sound = np.stack([hits(seed).numpy() for seed in range(channels)], axis=1)
    soundfile.write(root / "x.wav", sound * (3 if subtype == "FLOAT" else 1), RATE, subtype=subtype)
    cut_recordings(root, output, **settings, **BARE)
    assert torch.equal(joined(output), load_audio(root / "x.wav", mono=False)[0])
    assert len(table(output)) > 1 or settings["most_s"] == 2.999
    kept = {"PCM_U8": "PCM_16"}.get(subtype, subtype)
    assert {soundfile.info(str(path)).subtype for path in output.rglob(f"x_*.{settings.get('format', 'wav')}")} == {
        kept
    }


def test_fades_change_the_ends_alone(tmp_path):
    save_wav(tmp_path / "in" / "x.wav", 0.5 * torch.ones(RATE), RATE, subtype="FLOAT")
    cut_recordings(tmp_path / "in", tmp_path / "out", at="length", most_s=0.5, fade_in_ms=10, fade_out_ms=20)
    clip = load_audio(tmp_path / "out" / "in" / "x_0002.wav")[0][0]
    assert len(clip) == 8000
    assert torch.all(clip[160:-320] == 0.5)
    assert clip[0] == 0
    assert clip[-1].abs() < 1e-6
    assert torch.all(clip[:160].diff() > 0)
    assert torch.all(clip[-320:].diff() < 0)
    assert clip[80] == pytest.approx(0.25)


def test_what_gives_no_clip_says_why(tmp_path, caplog):
    root, output = tmp_path / "in", tmp_path / "out"
    time = torch.arange(2 * RATE) / RATE
    save_wav(root / "silent.wav", torch.zeros(RATE), RATE)
    save_wav(root / "short.wav", torch.ones(5), RATE)
    save_wav(root / "drone.wav", 0.5 * torch.sin(2 * torch.pi * 220 * time) * (time / 2), RATE)  # fades in
    (root / "broken.wav").write_bytes(b"RIFF")
    report = cut_recordings(root, output, sensitivity=1.0, most_s=1.5)
    assert [Path(failure.path).name for failure in report.failures] == ["broken.wav"]
    assert "silent.wav: no clip: it is silent" in caplog.text
    assert "short.wav: no clip: it has 5 samples at 16000 Hz, and least_s is 0.1" in caplog.text
    assert "drone.wav: no onset in it: one clip, from where it can be heard" in caplog.text
    assert [(row["path"], row["duration_s"]) for row in table(output)] == [("in/drone_0001.wav", "1.5")]
    assert any("it is silent" in text for text in Page(output / "index.html").texts["figcaption"])
    (root / "drone.wav").unlink()
    with pytest.raises(ValueError, match="no clip in 2 recordings"):
        cut_recordings(root, output)


def test_what_was_deleted_or_moved_stays_so(recordings, tmp_path):
    output = tmp_path / "clips"
    cut_recordings(recordings, output)
    (output / "kick" / "take0_0001.wav").unlink()
    (output / "good").mkdir()
    (output / "kick" / "take0_0002.wav").rename(output / "good" / "take0_0002.wav")
    (output / "kick" / "mine.wav").write_bytes(b"mine")
    before = contents(output / "kick")
    save_wav(recordings / "kick" / "new.wav", hits(9), RATE)
    report = cut_recordings(recordings, output)
    assert (report.n_done, report.n_skipped) == (1, 6)
    assert "33 clips of 7 recordings, 2 deleted or moved since" in str(report)
    assert {name: content for name, content in contents(output / "kick").items() if "new" not in name} == before
    assert cut_recordings(recordings, output, remake=True).n_done == 7
    assert (output / "kick" / "take0_0001.wav").exists()
    assert (output / "kick" / "mine.wav").read_bytes() == b"mine"
    (recordings / "kick" / "new.wav").unlink()
    cut_recordings(recordings, output)
    assert not list(output.glob("kick/new*"))


def test_the_page_shows_some_clips_of_each_recording(recordings, tmp_path):
    output = tmp_path / "clips"
    cut_recordings(recordings, output, n_shown=12)
    page = Page(output / "index.html")
    shown = page.values("src", "audio")
    assert len(shown) == 12
    assert {os.path.basename(path)[:5] for path in shown} == {"take0", "take1", "take2"}
    assert all((output / path).is_file() for path in page.values("src"))
    cut_recordings(recordings, output, n_shown=0)
    assert not list((output / ".pictures").rglob("*.png"))


@pytest.mark.parametrize("place", ["recordings", "recordings/clips", "."])
def test_clips_are_not_put_where_they_would_become_recordings(recordings, tmp_path, place):
    with pytest.raises(ValueError, match="give a folder elsewhere"):
        cut_recordings(recordings, tmp_path / place)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"at": "beats"}, "at is 'beats'"),
        ({"most_s": 0.05}, "most_s is 0.05; seconds, above least_s"),
        ({"silence_db": 3}, "silence_db is 3"),
        ({"pause_s": 0}, "pause_s is 0"),
        ({"fade_in_ms": -1}, "fade_in_ms is -1"),
        ({"sensitivity": 2}, "sensitivity is 2"),
        ({"format": "mp3"}, "format is 'mp3'"),
        ({"n_shown": -1}, "n_shown is -1"),
    ],
)
def test_impossible_settings(recordings, tmp_path, settings, message):
    with pytest.raises(ValueError, match=message):
        cut_recordings(recordings, tmp_path / "clips", **settings)
    assert not (tmp_path / "clips").exists()


# Clips of one recording are never in different splits


def test_a_clip_says_its_recording_wherever_it_is(recordings, tmp_path):
    for format in ("wav", "flac"):
        cut_recordings(recordings, tmp_path / format, format=format)
        rows = table(tmp_path / format)
        assert len({row["recording"] for row in rows}) == 6
        for row in rows:
            moved = (tmp_path / format / row["path"]).rename(tmp_path / f"renamed.{format}")
            assert origin_of(moved) == recording_id(moved) == row["recording"] == recording_id(row["source"])
    assert origin_of(recordings / "kick" / "take0.wav") is None
    # and so do clips of the clip
    cut_recordings(moved, tmp_path / "again", at="length", most_s=0.05, least_s=0.01)
    assert {origin_of(path) for path in (tmp_path / "again").rglob("*.wav")} == {rows[-1]["recording"]}


def test_no_recording_is_on_both_sides(recordings, tmp_path):
    cut_recordings(recordings, tmp_path / "clips")
    specs, again = tmp_path / "specs", tmp_path / "again"
    make_spectrograms(tmp_path / "clips", specs, params=PARAMS, splits=(34, 33, 33))
    make_splits(specs, again, splits=(34, 33, 33), seed=1)
    make_splits(tmp_path / "clips", tmp_path / "dealt", ext="wav", splits=(34, 33, 33))
    for folder in (specs, again, tmp_path / "dealt"):
        rows = read_manifest(folder)
        assert len(rows) == 30
        assert sorted(rows.groupby("split").size()) == [10, 10, 10]
        rows["origin"] = [Path(path).name[:5] for path in rows["path"]]
        assert rows.groupby(["label", "origin"])["split"].nunique().max() == 1


def test_too_few_recordings_is_said_with_the_way_out(recordings, tmp_path):
    (recordings / "tom" / "take2.wav").unlink()
    cut_recordings(recordings, tmp_path / "clips")
    with pytest.raises(ValueError, match=r"'tom' has 2; .*25 clips of 5 recordings.*recording_pattern='\^\(\.\+\)\$'"):
        make_spectrograms(tmp_path / "clips", tmp_path / "specs", params=PARAMS, splits=(80, 10, 10))
    assert not (tmp_path / "specs").exists()
    each_alone = {"params": PARAMS, "splits": (80, 10, 10), "recording_pattern": "^(.+)$"}
    assert make_spectrograms(tmp_path / "clips", tmp_path / "specs", **each_alone).n_done == 25


def test_names_say_it_by_a_pattern(tmp_path):
    for label in ("a", "b"):
        for number in range(4):
            for part in range(2):
                save_wav(tmp_path / "in" / label / f"x{number}_{part}.wav", hits(number, length_s=0.5), RATE)
    clips = grouped(list_clips(tmp_path / "in"), tmp_path / "in", recording_pattern=r"^(.+)_\d+$")
    assert {clip.group for clip in clips} == {f"{label}/x{number}" for label in "ab" for number in range(4)}


@pytest.mark.parametrize("n_groups", [3, 10, 40])
def test_recordings_with_clips_of_several_classes_are_dealt(n_groups):
    """As if one had cut recordings of a whole drum kit and sorted the clips by hand."""
    generator = np.random.default_rng(n_groups)
    pairs = [
        (f"take{number}", label)
        for number in range(n_groups)
        for label in ("kick", "snare", "tom")
        for _ in range(generator.integers(1, 6))
    ]
    groups, labels = zip(*pairs, strict=True)
    dealt = deal_groups(groups, labels, percentages=(80, 10, 10), seed=0)
    by_group = {}
    for group, split in zip(groups, dealt, strict=True):
        assert by_group.setdefault(group, split) == split
    assert {(label, split) for label, split in zip(labels, dealt, strict=True)} == {
        (label, split) for label in ("kick", "snare", "tom") for split in ("train", "val", "test")
    }
    if n_groups == 40:
        assert 0.7 < dealt.count("train") / len(dealt) < 0.9
    with pytest.raises(ValueError, match="too few recordings for 3 splits: 'rare' has clips of 1"):
        deal_groups([*groups, "take0"], [*labels, "rare"], percentages=(80, 10, 10), seed=0)
