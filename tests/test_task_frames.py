import math
from fractions import Fraction
from functools import partial
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
import soundfile
import torch
from folders import contents
from runs import run

from specgan.audio import AudioError, load_audio, open_audio, save_wav
from specgan.files import OUTPUTS_NAME
from specgan.pictures import streams
from specgan.pictures.render import render
from specgan.pictures.scale import Scale, to_db
from specgan.pictures.settings import PictureSettings
from specgan.pictures.streams import AudioFile, mean_power
from specgan.pictures.video import even_hop, frame_names, stft_columns, write_pngs
from specgan.tasks.frames import write_frames

ROOT = Path(__file__).parents[1]
RATE = 16000
SMALL = {"n_fft": 512, "n_mels": 32, "width_px": 32, "height_px": 32, "cmap": "gray"}


@pytest.fixture
def in_small_blocks(monkeypatch):
    monkeypatch.setattr(streams, "open_audio", partial(open_audio, block_frames=777))
    monkeypatch.setattr(streams, "KEPT_SAMPLES", 0)


def tone(duration_s, amplitude=0.5, frequency=1000):
    return amplitude * torch.sin(2 * math.pi * frequency * torch.arange(round(duration_s * RATE)) / RATE)


def wav(tmp_path, *parts, rate=RATE):
    save_wav(tmp_path / "sound.wav", torch.cat(parts, dim=-1), rate)
    return tmp_path / "sound.wav"


def colour_pictures(folder):
    return np.array([cv2.imread(str(path))[..., ::-1] for path in sorted(folder.glob("[!.]*"))], int)


def pictures(folder):
    return list(colour_pictures(folder)[..., 0])


def test_every_stretch_has_a_picture_of_exactly_the_size(tmp_path):
    """The last one is followed by silence, on the same time scale."""
    sound = wav(tmp_path, tone(1.25))
    report = write_frames(sound, tmp_path / "out", frame_s=0.5, **SMALL | {"width_px": 40})
    assert (report.n_done, sorted(path.name for path in (tmp_path / "out").glob("[!.]*"))) == (
        3,
        ["frame_0000.png", "frame_0001.png", "frame_0002.png"],
    )
    *_, middle, last = made = pictures(tmp_path / "out")
    assert [picture.shape for picture in made] == [(32, 40)] * 3
    assert middle.max(axis=0).min() > 200
    assert last[:, :18].max(axis=0).min() > 200
    assert last[:, 24:].max() == 0


@pytest.mark.parametrize(
    ("n_samples", "frame_s", "n"), [(8000, 0.1, 5), (8001, 0.1, 6), (1, 0.1, 1), (8000, "1/24", 12), (2, "0.0001", 1)]
)
def test_the_number_of_pictures(tmp_path, n_samples, frame_s, n):
    report = write_frames(wav(tmp_path, torch.ones(n_samples) / 2), tmp_path / "out", frame_s=frame_s, **SMALL)
    assert report.n_done == n == len(pictures(tmp_path / "out"))


def test_names_have_more_digits_where_there_are_more_than_10000(tmp_path):
    for n_pictures, first in ((10_000, "frame_0000.png"), (10_001, "frame_00000.png")):
        assert next(write_pngs(tmp_path / str(n_pictures), [b"png"], frame_names(n_pictures))) == b"png"
        assert [path.name for path in (tmp_path / str(n_pictures)).iterdir()] == [first]


@pytest.mark.parametrize("frame_s", ["0.1", "1/3", "0.0437"])
def test_a_click_is_in_the_picture_of_its_time(tmp_path, frame_s):
    """In its middle the window does not reach the neighbours; the pictures before and after are dark."""
    n = 7
    at = round((n + 0.5) * Fraction(frame_s) * RATE)
    click = torch.zeros(3 * RATE)
    click[at] = 0.5
    settings = SMALL | {"n_fft": 256, "win_length": 256, "n_mels": 8}
    write_frames(wav(tmp_path, click), tmp_path / "out", frame_s=frame_s, **settings)
    made = pictures(tmp_path / "out")
    assert [number for number, picture in enumerate(made) if picture.max()] == [n]
    assert made[n].max(axis=0).argmax() / 32 == pytest.approx(0.5, abs=0.15)


@pytest.mark.parametrize(
    ("frame_s", "rate", "longest", "n_columns"),
    [("0.1", 44100, 512, {9}), ("1/24", 44100, 512, {4, 5}), ("1", 16000, 512, {32})],
)
def test_the_default_hop_gives_every_picture_the_same_number_of_columns(frame_s, rate, longest, n_columns):
    length = Fraction(frame_s) * rate
    hop = even_hop(length, longest)
    spans = [stft_columns(round(n * length), round((n + 1) * length), hop, 10**9) for n in range(1000)]
    assert longest / 2 <= hop <= longest
    assert {end - first for first, end in spans} == n_columns
    assert [first for first, _ in spans[1:]] == [end for _, end in spans[:-1]]


def test_a_stretch_shorter_than_the_hop_shows_the_nearest_column(tmp_path):
    sound = wav(tmp_path, torch.zeros(8000), tone(0.5))
    settings = SMALL | {"hop_length": 4000}
    write_frames(sound, tmp_path / "out", frame_s=0.1, **settings)  # columns at 0, 4000, 8000 and 12000
    bright = [picture.max() > 0 for picture in pictures(tmp_path / "out")]
    assert bright == [False] * 4 + [True] * 6  # the middle of the fifth, 7200, is nearest to 8000


def test_one_scale_for_all_keeps_a_quiet_part_dark(tmp_path):
    sound = wav(tmp_path, tone(0.5), tone(0.5, amplitude=0.005))
    for per_frame, brightest in ((False, 255 * 40 / 80), (True, 255)):
        write_frames(sound, tmp_path / "out", frame_s=0.25, per_frame=per_frame, top_db=80, **SMALL)
        loud, *_, quiet = pictures(tmp_path / "out")
        assert loud.max() == pytest.approx(255, abs=2)
        assert quiet.max() == pytest.approx(brightest, abs=2)  # 40 dB below


def test_one_noise_threshold_for_all(tmp_path):
    """Half of the values lie below the median of all, none of them in the loud half; per_frame it is half of each."""
    noise = torch.randn(RATE)
    sound = wav(tmp_path, 0.001 * noise, 0.1 * noise)
    for per_frame, shares in ((False, (1, 0)), (True, (0.5, 0.5))):
        write_frames(
            sound, tmp_path / "out", frame_s=1, per_frame=per_frame, noise_percentile=50, hop_length=500, **SMALL
        )
        for picture, share in zip(pictures(tmp_path / "out"), shares, strict=True):
            assert (picture < 100).mean() == pytest.approx(share, abs=0.06)


def test_silence_after_the_end_does_not_lower_the_threshold(tmp_path):
    """The picture of 1 s of noise on a 2 s scale keeps the half of it that the picture on a 1 s scale keeps."""
    sound = wav(tmp_path, 0.1 * torch.randn(RATE))
    shares = []
    for frame_s, width_px in ((1, 32), (2, 64)):
        settings = SMALL | {"width_px": width_px, "hop_length": 500, "noise_percentile": 50}
        write_frames(sound, tmp_path / "out", frame_s=frame_s, **settings)
        shares.append((pictures(tmp_path / "out")[0][:, :30] < 100).mean())
    assert shares == pytest.approx([0.5, 0.5], abs=0.05)


@pytest.mark.parametrize("n", [1, 2, 7, 5000])
def test_percentiles_are_those_of_numpy(n):
    power = 10 ** (4 * torch.randn(3, n, dtype=torch.float64))
    power[0, : n // 2] = 0
    scale = Scale()
    for piece in power.split(1000, dim=1):
        scale.add(piece)
    level = to_db(power)
    assert scale.loudest == level.max()
    for percent in (0, 12.5, 50, 75, 99.9, 100):
        assert scale.percentile(percent) == pytest.approx(np.percentile(level, percent), abs=0.02)


@pytest.mark.parametrize("axis", ["mel", "log", "linear"])
def test_a_sound_of_one_stretch_has_the_picture_of_render(tmp_path, axis):
    sound = wav(tmp_path, tone(1) + 0.1 * torch.randn(RATE))
    settings = SMALL | {"frequency_axis": axis, "noise_percentile": 60, "hop_length": 100, "cmap": "magma"}
    write_frames(sound, tmp_path / "out", frame_s=1, **settings)
    assert (tmp_path / "out" / "frame_0000.png").read_bytes() == render(sound, **settings)


def test_the_power_of_stretches_is_the_same_in_blocks_and_covers_each_column_once(tmp_path, request):
    path = wav(tmp_path, torch.randn(RATE) / 10)
    settings = PictureSettings(n_fft=512, n_mels=32, hop_length=100)
    whole = next(mean_power(AudioFile(path, settings), settings, [(0, 160)], 160))
    request.getfixturevalue("in_small_blocks")
    parts = list(mean_power(AudioFile(path, settings), settings, [(0, 50), (50, 51), (51, 160)], 160))
    assert [part.shape[1] for part in parts] == [50, 1, 109]
    torch.testing.assert_close(to_db(torch.cat(parts, dim=1)), to_db(whole), atol=1e-4, rtol=0)


def test_a_second_run_leaves_no_older_frames_and_nothing_else_goes(tmp_path):
    out, sound = tmp_path / "out", wav(tmp_path, tone(1))
    write_frames(sound, out, frame_s=0.1, **SMALL)
    others = ["frame_0001.png.txt", "frame_a.png", "frame_.png", "my_frame_0007.png", "frame_0008.PNG", ".frame_1.png"]
    for name in others:
        (out / name).touch()
    write_frames(sound, out, frame_s=0.4, **SMALL)
    assert {path.name for path in out.iterdir()} - {OUTPUTS_NAME} == {f"frame_000{n}.png" for n in range(3)} | {*others}


@pytest.mark.parametrize("others", ["out/frame_0001.png", "v.mp4"])
def test_frames_and_videos_of_others_are_in_the_way(tmp_path, others):
    sound, others = wav(tmp_path, tone(1)), tmp_path / others
    others.parent.mkdir(exist_ok=True)
    others.write_bytes(b"mine")
    before = contents(tmp_path)
    with pytest.raises(ValueError, match=f"{others}: is in the way, .*; move it, or give another output"):
        write_frames(sound, tmp_path / "out", frame_s=0.4, video=tmp_path / "v.mp4", **SMALL)
    assert contents(tmp_path) == before


def test_a_run_that_breaks_off_leaves_only_its_own_frames(tmp_path, monkeypatch):
    out, sound = tmp_path / "out", wav(tmp_path, tone(1))
    write_frames(sound, out, frame_s=0.1, **SMALL)
    png, made = PictureSettings.png, []

    def break_at_third(settings, level):
        made.append(png(settings, level))
        return made[-1] if len(made) < 3 else 1 / 0

    with monkeypatch.context() as patch, pytest.raises(ZeroDivisionError):
        patch.setattr(PictureSettings, "png", break_at_third)
        write_frames(sound, out, frame_s=0.2, video=tmp_path / "v.mp4", **SMALL)
    assert [path.read_bytes() for path in sorted(out.glob("[!.]*"))] == made[:2]
    assert not list(tmp_path.glob("*.mp4"))
    write_frames(sound, out, frame_s=0.2, **SMALL)
    assert len(pictures(out)) == 5


def decoded(path, kind):
    with av.open(str(path)) as container:
        return list(container.decode(**{kind: 0}))


@pytest.mark.parametrize(
    ("rate", "n_channels", "channels_in_video", "rate_in_video"),
    [(16000, 1, 1, 16000), (44100, 2, 2, 44100), (192000, 1, 1, 48000), (48000, 3, 1, 48000)],
)
def test_the_video_has_the_pictures_and_the_sound_in_time(tmp_path, rate, n_channels, channels_in_video, rate_in_video):
    """Silence, 1.5 s of noise below 5 kHz from 0.8 s on, silence: to be seen and heard at the same time."""
    noise = torch.zeros(n_channels, 3 * rate)
    envelope = torch.repeat_interleave(torch.randn(n_channels, 24000), rate // 8000, dim=1)[:, : int(1.5 * rate)] / 10
    noise[:, int(0.8 * rate) : int(0.8 * rate) + envelope.shape[1]] = envelope
    sound = wav(tmp_path, noise, rate=rate)
    video, size = (
        tmp_path / "v.mp4",
        {"width_px": 48, "height_px": 32, "f_max": 5000, "n_mels": 16, "n_fft": 4096, "cmap": "magma"},
    )
    write_frames(sound, tmp_path / "out", frame_s="1/25", video=video, downmix="left", **SMALL | size)

    shown, made = decoded(video, "video"), colour_pictures(tmp_path / "out")
    assert len(shown) == len(made) == 75
    assert [frame.time for frame in shown] == pytest.approx([n / 25 for n in range(75)], abs=1e-6)
    colours = np.array([frame.to_ndarray(format="rgb24") for frame in shown], int)
    assert colours.shape == made.shape == (75, 32, 48, 3)
    assert np.abs(colours.mean(axis=(1, 2)) - made.mean(axis=(1, 2))).max() < 4  # each at its time
    assert np.abs(colours - made).mean() < 3
    with av.open(str(video)) as container:
        assert container.duration / 1e6 == pytest.approx(3, abs=1 / 25)
        stream = container.streams.audio[0]
        heard_as = (stream.codec_context.name, stream.codec_context.sample_rate, stream.codec_context.channels)
        assert container.streams.video[0].codec_context.pix_fmt == "yuv420p"
        assert container.streams.video[0].average_rate == 25
    assert heard_as == ("aac", rate_in_video, channels_in_video)

    blocks = decoded(video, "audio")
    assert blocks[0].time == 0
    heard = np.concatenate([block.to_ndarray() for block in blocks], axis=1)[:, : 3 * rate_in_video]
    source, _ = load_audio(sound, sample_rate=rate_in_video, mono=n_channels > 2, downmix="left")
    source = source.numpy()
    assert heard.shape == source.shape
    for ours, theirs in zip(heard, source, strict=True):
        correlation = np.fft.irfft(np.fft.rfft(ours, 2**19) * np.conj(np.fft.rfft(theirs, 2**19)))
        assert correlation.argmax() == 0
        assert correlation.max() / np.linalg.norm(ours) / np.linalg.norm(theirs) > 0.9


@pytest.mark.parametrize("frame_s", [0.001, "1001/30000", 2.5])
def test_the_video_keeps_its_frame_rate(tmp_path, frame_s):
    sound = wav(tmp_path, tone(0.5))
    report = write_frames(sound, tmp_path / "out", frame_s=frame_s, video=tmp_path / "v.mp4", **SMALL)
    times = [Fraction(frame.pts) * frame.time_base for frame in decoded(tmp_path / "v.mp4", "video")]
    assert times == [n * Fraction(str(frame_s)) for n in range(report.n_done)]
    assert sum(block.samples for block in decoded(tmp_path / "v.mp4", "audio")) >= 8000


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"frame_s": 0}, "frame_s is 0; .*above 0"),
        ({"frame_s": -1}, "frame_s is -1"),
        ({"frame_s": "soon"}, "frame_s is soon"),
        ({"frame_s": math.inf}, "frame_s is inf"),
        ({"frame_s": 0.00005}, "frame_s is 5e-05; at least one sample, 1/16000"),
        ({"video": "v.avi"}, r"video is v\.avi; .*\.mp4"),
        ({"video": "v.mp4", "width_px": 33}, "width_px is 33; an even number"),
        ({"video": "v.mp4", "height_px": 31}, "height_px is 31; an even number"),
        ({"f_max": 9000}, "half the sample rate"),
        ({"n_mels": 128, "per_frame": True}, "n_mels is 128"),
        ({"downmix": "sum"}, "downmix is 'sum'"),
        ({"cmap": "nope"}, "cmap is 'nope'"),
    ],
)
def test_impossible_settings_are_named_and_nothing_is_touched(tmp_path, settings, message):
    sound, out = wav(tmp_path, tone(0.1)), tmp_path / "out"
    out.mkdir()
    (out / "frame_0000.png").touch()
    with pytest.raises(ValueError, match=message):
        write_frames(sound, out, **{"frame_s": 0.1} | SMALL | settings)
    assert sorted(path.name for path in tmp_path.rglob("[!.]*")) == ["frame_0000.png", "out", "sound.wav"]


def test_bad_files_and_places_are_named(tmp_path):
    sound, bad = wav(tmp_path, tone(0.1)), tmp_path / "bad.wav"
    bad.write_bytes(b"no sound")
    with pytest.raises(AudioError, match=r"bad\.wav"):
        write_frames(bad, tmp_path / "out", frame_s=0.1)
    with pytest.raises(FileNotFoundError, match=r"none\.wav"):
        write_frames(tmp_path / "none.wav", tmp_path / "out", frame_s=0.1)
    with pytest.raises(ValueError, match=r"bad\.wav, which is a file"):
        write_frames(sound, bad, frame_s=0.1)
    with pytest.raises(ValueError, match=r"film\.mp4, which is the input"):
        write_frames(tmp_path / "film.mp4", tmp_path / "out", frame_s=0.1, video=tmp_path / "film.mp4")
    assert not (tmp_path / "out").exists()


def test_as_a_user_runs_it_on_an_mp3(tmp_path):
    soundfile.write(tmp_path / "song.mp3", tone(1.1).numpy(), RATE, format="MP3")
    options = ["task/look=noise_gated", "input=song.mp3", "output=frames/", "task.frame_s=1/4", "task.video=v.mp4"]
    said = run("preprocess.py", "task=frames", *options, "task.width_px=64", cwd=tmp_path)
    assert "frames: 5 pictures of song.mp3, 0.25 s each, and v.mp4 (5 made" in said
    made = pictures(tmp_path / "frames")
    assert [picture.shape for picture in made] == [(256, 64)] * 5
    dark = [256 - picture.min(axis=1).argmin() for picture in made[:4]]  # 1 kHz of 5, dark on white, from below
    assert dark == pytest.approx([51] * 4, abs=3)
    assert len(decoded(tmp_path / "v.mp4", "video")) == 5
    assert {path.name for path in tmp_path.glob("[!.]*")} == {"frames", "song.mp3", "v.mp4"}
