"""specgan.audio: what goes in comes out, and every bad file says what is wrong with it."""

import io
import logging
import os
import re
import struct
from pathlib import Path

import av
import numpy as np
import pytest
import soundfile
import torch

from specgan.audio import (
    AUDIO_SUFFIXES,
    BLOCK_FRAMES,
    AudioError,
    encode_flac,
    find_audio,
    load_audio,
    open_audio,
    save_wav,
)

FORMATS = Path(__file__).parents[2] / "shared" / "data" / "formats"


def tone(hz: float, rate: int, *, seconds: float = 1.0, amplitude: float = 0.5) -> np.ndarray:
    """(n_samples,) float64; the zero crossing at 0 keeps the start free of a click."""
    return amplitude * np.sin(2 * np.pi * hz * np.arange(round(rate * seconds)) / rate)


def noise(n_samples: int, *, channels: int = 1, seed: int = 0) -> np.ndarray:
    """(n_samples, channels) float64, well inside full scale."""
    return np.random.default_rng(seed).uniform(-0.5, 0.5, (n_samples, channels))


def level_at(waveform: np.ndarray, hz: float, rate: int) -> float:
    """Amplitude of the tone at `hz`, by projection on it."""
    phase = 2j * np.pi * hz * np.arange(len(waveform)) / rate
    return float(2 * np.abs(np.mean(waveform * np.exp(-phase))))


def encode(path: Path, samples: np.ndarray, rate: int, *, codec: str, options: dict | None = None) -> Path:
    """Writes (channels, n_samples) through one of FFmpeg's encoders; the container goes by the suffix."""
    layout = {1: "mono", 2: "stereo"}[len(samples)]
    with av.open(str(path), "w", options=options or {}) as container:
        stream = container.add_stream(codec, rate=rate, layout=layout)
        for start in range(0, samples.shape[1], 1024):
            block = np.ascontiguousarray(samples[:, start : start + 1024], dtype=np.float32)
            frame = av.AudioFrame.from_ndarray(block, format="fltp", layout=layout)
            frame.sample_rate, frame.pts = rate, start
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def write_video(path: Path) -> Path:
    """A film of four black pictures, without sound."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=4)
        stream.width = stream.height = 32
        for _ in range(4):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(np.zeros((32, 32, 3), np.uint8), format="rgb24")))
        container.mux(stream.encode(None))
    return path


def cut(path: Path, fraction: float) -> Path:
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * fraction)])
    return path


# --- decode: level, length, channels


@pytest.mark.parametrize(("name", "tolerance"), [("a.wav", 0.002), ("a.flac", 0.002), ("a.ogg", 0.05)])
def test_resampled_tone_keeps_frequency_level_and_duration(tmp_path, name, tolerance):
    soundfile.write(tmp_path / name, tone(1000, 44100), 44100)
    waveform, rate = load_audio(tmp_path / name, sample_rate=16000)
    assert waveform.shape == (1, 16000)
    assert (waveform.dtype, rate) == (torch.float32, 16000)
    spectrum = np.abs(np.fft.rfft(waveform[0].numpy()))  # one second: one bin a Hz
    assert int(spectrum.argmax()) == 1000
    assert level_at(waveform[0].numpy(), 1000, 16000) == pytest.approx(0.5, rel=tolerance)


def test_resampling_removes_what_the_new_rate_cannot_hold(tmp_path):
    soundfile.write(tmp_path / "high.wav", tone(10000, 44100), 44100, subtype="FLOAT")
    waveform, _ = load_audio(tmp_path / "high.wav", sample_rate=16000)
    assert waveform[0, 1000:-1000].abs().max() < 0.5e-3  # 60 dB below the tone; unfiltered it would fold to 6 kHz


@pytest.mark.parametrize(("n_samples", "rate", "sample_rate"), [(22050, 22050, 44100), (12345, 48000, 16000)])
def test_resampled_length_is_the_same_duration(tmp_path, n_samples, rate, sample_rate):
    soundfile.write(tmp_path / "a.wav", noise(n_samples), rate)
    waveform, _ = load_audio(tmp_path / "a.wav", sample_rate=sample_rate)
    assert abs(waveform.shape[1] - n_samples * sample_rate / rate) < 1


def test_without_sample_rate_the_file_keeps_its_own(tmp_path):
    soundfile.write(tmp_path / "a.wav", noise(100), 11025)
    waveform, rate = load_audio(tmp_path / "a.wav")
    assert (tuple(waveform.shape), rate) == ((1, 100), 11025)


def test_mono_false_keeps_the_channels_apart_and_in_order(tmp_path):
    samples = noise(500, channels=3)
    soundfile.write(tmp_path / "a.wav", samples, 8000, subtype="FLOAT")
    waveform, _ = load_audio(tmp_path / "a.wav", mono=False)
    np.testing.assert_array_equal(waveform.numpy(), samples.T.astype(np.float32))
    assert waveform.is_contiguous()


def test_mono_is_the_mean_of_the_channels(tmp_path):
    soundfile.write(tmp_path / "a.wav", [[0.5, 0.25], [0.5, -0.25], [-1.0, 0.0], [0.0, 0.75]], 8000, subtype="FLOAT")
    waveform, _ = load_audio(tmp_path / "a.wav")
    assert waveform.tolist() == [[0.375, 0.125, -0.5, 0.375]]


def test_antiphase_downmix_warns_and_names_the_file(tmp_path, caplog):
    left = noise(4000)
    soundfile.write(tmp_path / "anti.wav", np.hstack([left, -left]), 8000)
    waveform, _ = load_audio(tmp_path / "anti.wav")
    assert waveform.abs().max() < 1e-4
    assert len(caplog.records) == 1
    assert "anti.wav" in caplog.text
    assert "antiphase" in caplog.text


@pytest.mark.parametrize(
    "right_of_left",
    [lambda x: 0 * x, lambda x: -0.9 * x, lambda x: noise(len(x), seed=1)],
    ids=["one", "-0.9", "other"],
)
def test_other_stereo_does_not_warn(tmp_path, caplog, right_of_left):
    left = noise(4000)
    soundfile.write(tmp_path / "a.wav", np.hstack([left, right_of_left(left)]), 8000)
    load_audio(tmp_path / "a.wav")
    assert not caplog.records


def test_downmix_left_and_max_energy_take_one_channel(tmp_path, caplog):
    samples = noise(4000, channels=3) * [0.5, 0.1, 0.7]
    soundfile.write(tmp_path / "a.wav", samples, 8000, subtype="FLOAT")
    for downmix, channel in (("left", 0), ("max_energy", 2)):
        waveform, _ = load_audio(tmp_path / "a.wav", downmix=downmix)
        np.testing.assert_array_equal(waveform.numpy()[0], samples[:, channel].astype(np.float32))
    soundfile.write(tmp_path / "anti.wav", np.hstack([samples[:, :1], -samples[:, :1]]), 8000)
    assert load_audio(tmp_path / "anti.wav", downmix="max_energy")[0].abs().max() > 0.2
    assert not caplog.records


def test_the_loudest_channel_is_that_of_the_whole_file(tmp_path):
    samples = noise(4000, channels=2)
    samples[:1000, 0] = samples[1000:, 1] = 0
    soundfile.write(tmp_path / "a.wav", samples, 8000, subtype="FLOAT")
    with open_audio(tmp_path / "a.wav", downmix="max_energy", block_frames=500) as stream:
        waveform = torch.cat(list(stream.blocks), dim=1)
    np.testing.assert_array_equal(waveform.numpy()[0], samples[:, 0].astype(np.float32))


def test_unknown_downmix_is_refused(tmp_path):
    with pytest.raises(ValueError, match="downmix is 'right'; one of mean, left, max_energy"):
        load_audio(tmp_path / "a.wav", downmix="right")


def test_silence_in_stereo_is_no_antiphase(tmp_path, caplog):
    soundfile.write(tmp_path / "a.wav", np.zeros((100, 2)), 8000)
    assert load_audio(tmp_path / "a.wav")[0].abs().max() == 0
    assert not caplog.records


def test_float_file_beyond_full_scale_is_kept(tmp_path):
    soundfile.write(tmp_path / "a.wav", [2.5, -3.0, 0.0], 8000, subtype="FLOAT")
    assert load_audio(tmp_path / "a.wav")[0].tolist() == [[2.5, -3.0, 0.0]]


@pytest.mark.parametrize(("subtype", "step"), [("PCM_U8", 2**-7), ("PCM_24", 2**-23), ("DOUBLE", 2**-24)])
def test_bit_depths_agree_within_their_step(tmp_path, subtype, step):
    samples = noise(1000)
    soundfile.write(tmp_path / "a.wav", samples, 8000, subtype=subtype)
    np.testing.assert_allclose(load_audio(tmp_path / "a.wav")[0].numpy(), samples.T, rtol=0, atol=step)


# --- decode: what soundfile cannot read


@pytest.mark.parametrize(
    ("name", "codec", "rate"),
    [
        ("a.m4a", "aac", 44100),
        ("a.aac", "aac", 44100),
        ("a.mka", "aac", 44100),
        ("a.opus", "libopus", 48000),
        ("a.webm", "libopus", 48000),
        ("alac.m4a", "alac", 44100),
    ],
)
def test_ffmpeg_formats_keep_frequency_level_and_duration(tmp_path, name, codec, rate):
    samples = np.stack([tone(1000, rate, seconds=2), tone(3000, rate, seconds=2, amplitude=0.25)])
    waveform, loaded_rate = load_audio(encode(tmp_path / name, samples, rate, codec=codec), mono=False)
    assert loaded_rate == rate
    assert waveform.shape[0] == 2
    assert waveform.shape[1] / rate == pytest.approx(2, abs=0.06)  # bare AAC keeps the codec's padding at both ends
    middle = waveform.numpy()[:, rate // 2 : rate // 2 + rate]
    assert level_at(middle[0], 1000, rate) == pytest.approx(0.5, rel=0.05)
    assert level_at(middle[1], 3000, rate) == pytest.approx(0.25, rel=0.05)
    assert level_at(middle[1], 1000, rate) < 0.01


def test_m4a_has_the_length_that_its_header_says(tmp_path):
    encode(tmp_path / "a.m4a", tone(1000, 44100)[None], 44100, codec="aac")
    assert load_audio(tmp_path / "a.m4a")[0].shape == (1, 44100)


def test_lossless_m4a_is_in_its_place(tmp_path):
    samples = noise(20000, channels=2).T
    encode(tmp_path / "a.m4a", samples, 44100, codec="alac")
    np.testing.assert_allclose(load_audio(tmp_path / "a.m4a", mono=False)[0].numpy(), samples, rtol=0, atol=2**-15)


@pytest.mark.parametrize("real_format", ["MP3", "FLAC"])
def test_content_decides_not_the_suffix(tmp_path, real_format):
    soundfile.write(tmp_path / "true", tone(1000, 44100), 44100, format=real_format)
    (tmp_path / "true").rename(tmp_path / "a.wav")
    waveform, rate = load_audio(tmp_path / "a.wav")
    assert (tuple(waveform.shape), rate) == ((1, 44100), 44100)
    assert level_at(waveform[0].numpy(), 1000, 44100) == pytest.approx(0.5, rel=0.02)


@pytest.mark.parametrize("name", ["a.mp3", "a.raw", "a"])
def test_m4a_under_another_name_loads(tmp_path, name):
    encode(tmp_path / "a.m4a", tone(1000, 44100)[None], 44100, codec="aac").rename(tmp_path / name)
    assert load_audio(tmp_path / name)[0].shape == (1, 44100)


def test_flac_without_length_in_its_header_loads(tmp_path):
    samples = noise(30000)
    soundfile.write(tmp_path / "a.flac", samples, 44100)
    content = bytearray((tmp_path / "a.flac").read_bytes())
    content[21] &= 0xF0  # the 36 bits of STREAMINFO that hold the number of frames: 0 is "unknown"
    content[22:26] = bytes(4)
    (tmp_path / "a.flac").write_bytes(content)
    np.testing.assert_allclose(load_audio(tmp_path / "a.flac")[0].numpy(), samples.T, rtol=0, atol=2**-15)


# --- block by block


def read_blocks(path, block_frames, **settings):
    with open_audio(path, block_frames=block_frames, **settings) as stream:
        blocks = list(stream.blocks)
    assert all(block.shape[0] == stream.n_channels for block in blocks)
    return torch.cat(blocks, dim=1), len(blocks)


@pytest.mark.parametrize("block_frames", [1, 999, 4096, 10**6])
def test_blocks_together_are_the_whole_file(tmp_path, block_frames):
    soundfile.write(tmp_path / "a.wav", noise(9000 if block_frames > 1 else 50, channels=2), 44100)
    for settings in ({}, {"mono": False}, {"sample_rate": 16000}, {"sample_rate": 96000, "mono": False}):
        whole, _ = load_audio(tmp_path / "a.wav", **settings)
        blocks, _ = read_blocks(tmp_path / "a.wav", block_frames, **settings)
        torch.testing.assert_close(blocks, whole, rtol=0, atol=1e-6)


@pytest.mark.parametrize(("name", "codec"), [("a.m4a", "aac"), ("a.webm", "libopus")])
def test_blocks_of_ffmpeg_files_are_the_whole_file(tmp_path, name, codec):
    encode(tmp_path / name, noise(100000).T, 48000, codec=codec)
    whole, _ = load_audio(tmp_path / name)
    blocks, n_blocks = read_blocks(tmp_path / name, 10000)
    assert n_blocks > 5
    torch.testing.assert_close(blocks, whole, rtol=0, atol=0)


def test_a_flac_that_breaks_off_in_a_late_block_gives_the_same_as_in_one_block(tmp_path):
    soundfile.write(tmp_path / "a.flac", noise(88200), 44100)
    content = bytearray((tmp_path / "a.flac").read_bytes())
    content[len(content) // 2 :] = bytes(len(content) - len(content) // 2)
    (tmp_path / "a.flac").write_bytes(content)
    whole, _ = load_audio(tmp_path / "a.flac")
    assert 20000 < whole.shape[1] < 60000
    torch.testing.assert_close(read_blocks(tmp_path / "a.flac", 5000)[0], whole, rtol=0, atol=0)


def test_nan_in_a_late_block_is_refused_with_its_place(tmp_path):
    samples = noise(9000)
    samples[8500] = np.nan
    soundfile.write(tmp_path / "a.wav", samples, 1000, subtype="FLOAT")
    with pytest.raises(AudioError, match=r"1 of 1000 samples are NaN or infinite \(from 8\.0 s on\)"):
        read_blocks(tmp_path / "a.wav", 1000)


# --- damaged files: keep what is there, and say so


@pytest.mark.parametrize("name", ["a.wav", "a.aiff", "a.au", "a.flac", "a.mp3"])
def test_cut_file_keeps_its_beginning_and_warns(tmp_path, caplog, name):
    soundfile.write(tmp_path / name, noise(88200), 44100)
    whole, _ = load_audio(tmp_path / name)
    assert not caplog.records
    part, _ = load_audio(cut(tmp_path / name, 0.6))
    n_part = part.shape[1]
    assert 0.3 * 88200 < n_part < 0.61 * 88200
    torch.testing.assert_close(part[:, : n_part - 4608], whole[:, : n_part - 4608])  # but for the last packet
    assert len(caplog.records) == 1
    message = caplog.records[0].getMessage()
    assert name in message
    n_decoded, n_announced = map(int, re.search(r"decoded (\d+) of about (\d+) frames", message).groups())
    assert n_decoded == n_part
    assert n_announced == pytest.approx(88200, abs=8)


@pytest.mark.parametrize(
    ("name", "codec", "rate", "options"),
    [("a.m4a", "aac", 44100, {"movflags": "faststart"}), ("a.aac", "aac", 44100, {}), ("a.webm", "libopus", 48000, {})],
)
def test_cut_ffmpeg_file_keeps_its_beginning_and_warns(tmp_path, caplog, name, codec, rate, options):
    path = encode(tmp_path / name, tone(1000, rate, seconds=2)[None], rate, codec=codec, options=options)
    whole, _ = load_audio(path)
    assert not caplog.records
    part, _ = load_audio(cut(path, 0.6))
    assert 0.3 * whole.shape[1] < part.shape[1] < 0.7 * whole.shape[1]
    torch.testing.assert_close(part[:, :20000], whole[:, :20000])
    assert len(caplog.records) == 1
    assert re.search(rf"{name}.*decoded {part.shape[1]}\b", caplog.text)


def test_channels_that_change_midway_keep_the_first_part_and_warn(tmp_path, caplog):
    mono = encode(tmp_path / "mono.aac", tone(1000, 44100)[None], 44100, codec="aac")
    n_mono = load_audio(mono)[0].shape[1]
    stereo = encode(tmp_path / "stereo.aac", noise(44100, channels=2).T, 44100, codec="aac")
    (tmp_path / "mix.aac").write_bytes(mono.read_bytes() + stereo.read_bytes())
    assert load_audio(tmp_path / "mix.aac", mono=False)[0].shape == (1, n_mono)
    assert re.search(r"mix\.aac.*channels or the sample rate change", caplog.text)


def test_streamed_wav_without_sizes_is_no_cut_file(tmp_path, caplog):
    soundfile.write(tmp_path / "a.wav", noise(1000), 8000)
    content = (tmp_path / "a.wav").read_bytes()
    assert content[36:40] == b"data"
    unknown = struct.pack("<I", 0xFFFFFFFF)  # what a program that writes to a pipe leaves in both size fields
    (tmp_path / "a.wav").write_bytes(content[:4] + unknown + content[8:40] + unknown + content[44:])
    assert load_audio(tmp_path / "a.wav")[0].shape == (1, 1000)
    assert not caplog.records


# --- refusals


def wav_of(samples) -> dict:
    return {"data": samples, "samplerate": 8000, "format": "WAV", "subtype": "FLOAT"}


@pytest.mark.parametrize(
    ("name", "samples", "match"),
    [
        ("nan.wav", [0.0, np.nan, 0.5, np.inf, -np.inf], r"nan\.wav: 3 of 5 samples are NaN or infinite"),
        ("empty.wav", [], r"empty\.wav: holds no samples"),
    ],
)
def test_wav_without_usable_samples_is_refused(tmp_path, name, samples, match):
    soundfile.write(tmp_path / name, **wav_of(np.array(samples)))
    with pytest.raises(AudioError, match=match):
        load_audio(tmp_path / name)


@pytest.mark.parametrize(
    ("name", "content", "match"),
    [
        ("zero.wav", b"", r"zero\.wav: has zero bytes"),
        ("text.wav", b"not a sound", r"text\.wav: not readable as audio \(soundfile: .+; PyAV: .+\); check"),
        (
            "noise.mp3",
            np.random.default_rng(0).bytes(20000),
            r"noise\.mp3: not readable as audio \(soundfile: .+; PyAV",
        ),
        ("head.wav", b"RIFF\x24\x00\x00\x00WAVE", r"head\.wav: not readable as audio"),
    ],
)
def test_unreadable_bytes_are_refused_with_both_reasons(tmp_path, name, content, match):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(AudioError, match=match) as caught:
        load_audio(tmp_path / name)
    assert content == b"" or isinstance(caught.value.__cause__, av.FFmpegError)


def test_mp4_without_its_index_is_refused(tmp_path):
    path = encode(tmp_path / "cut.m4a", tone(1000, 44100)[None], 44100, codec="aac")  # the index stands at the end
    with pytest.raises(AudioError, match=r"cut\.m4a: not readable as audio"):
        load_audio(cut(path, 0.6))


def test_video_without_sound_is_refused(tmp_path):
    with pytest.raises(AudioError, match=r"film\.mp4: has no audio stream"):
        load_audio(write_video(tmp_path / "film.mp4"))


def test_too_few_samples_for_the_new_rate_are_refused(tmp_path):
    soundfile.write(tmp_path / "one.wav", [0.5], 192000)
    assert load_audio(tmp_path / "one.wav")[0].shape == (1, 1)
    with pytest.raises(AudioError, match=r"one\.wav: its 1 samples at 192000 Hz.*8000 Hz"):
        load_audio(tmp_path / "one.wav", sample_rate=8000)


def test_missing_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"gone\.wav"):
        load_audio(tmp_path / "gone.wav")


def test_folder_is_refused(tmp_path):
    with pytest.raises(AudioError, match=rf"{re.escape(tmp_path.name)}: is a folder.*find_audio"):
        load_audio(tmp_path)


@pytest.mark.parametrize("sample_rate", [0, -16000])
def test_sample_rate_must_be_positive(tmp_path, sample_rate):
    soundfile.write(tmp_path / "a.wav", noise(100), 8000)
    with pytest.raises(ValueError, match=f"sample_rate is {sample_rate}"):
        load_audio(tmp_path / "a.wav", sample_rate=sample_rate)
    with pytest.raises(ValueError, match=rf"b\.wav.*sample_rate is {sample_rate}"):
        save_wav(tmp_path / "b.wav", torch.zeros(10), sample_rate)


# --- save_wav


@pytest.mark.parametrize(("subtype", "dtype", "n_bits"), [("PCM_16", np.int16, 16), ("PCM_24", np.int32, 24)])
def test_values_of_16_and_24_bits_survive_read_and_write(tmp_path, caplog, subtype, dtype, n_bits):
    most = 2 ** (n_bits - 1)
    values = np.append(np.random.default_rng(0).integers(-most, most, 65534), [-most, most - 1])
    pcm = (values.reshape(-1, 2) << (8 * dtype().itemsize - n_bits)).astype(dtype)
    soundfile.write(tmp_path / "a.wav", pcm, 44100, subtype=subtype)
    save_wav(tmp_path / "b.wav", *load_audio(tmp_path / "a.wav", mono=False), subtype=subtype)
    again, rate = soundfile.read(tmp_path / "b.wav", dtype=dtype.__name__)
    np.testing.assert_array_equal(again, pcm)
    assert rate == 44100
    assert soundfile.info(tmp_path / "b.wav").subtype == subtype
    assert not caplog.records


@pytest.mark.parametrize(("subtype", "advice"), [("PCM_16", ""), ("PCM_24", "; subtype FLOAT keeps its level")])
def test_save_wav_scales_instead_of_clipping_and_says_so(tmp_path, caplog, subtype, advice):
    save_wav(tmp_path / "loud.wav", torch.tensor([[2.0, -4.0, 1.0], [0.0, 0.5, -1.0]]), 8000, subtype=subtype)
    samples, _ = soundfile.read(tmp_path / "loud.wav")
    assert samples.T.tolist() == [[0.5, -1.0, 0.25], [0, 0.125, -0.25]]
    assert [record.levelno for record in caplog.records] == [logging.WARNING]
    assert re.search(rf"loud\.wav: peak 4 .*gain of 0\.25.*{advice}", caplog.text)


def test_save_wav_takes_one_dimension_and_makes_the_folder(tmp_path):
    path = tmp_path / "new" / "deeper" / "a.wav"
    save_wav(path, torch.tensor([0.5, -0.25, 1.0, -1.0], requires_grad=True), 8000)
    assert soundfile.read(path, dtype="int16")[0].tolist() == [16384, -8192, 32767, -32768]
    assert os.listdir(path.parent) == ["a.wav"]


def test_float_is_written_as_it_is(tmp_path, caplog):
    waveform = torch.tensor([[1e-30, 3.7, -100.0], [1 / 3, -0.0, 1.0]])
    save_wav(tmp_path / "a.wav", waveform, 8000, subtype="FLOAT")
    torch.testing.assert_close(load_audio(tmp_path / "a.wav", mono=False)[0], waveform, rtol=0, atol=0)
    assert soundfile.info(tmp_path / "a.wav").subtype == "FLOAT"
    assert not caplog.records


@pytest.mark.parametrize(("subtype", "step"), [("PCM_16", 2**-15), ("PCM_24", 2**-23), ("FLOAT", 0)])
def test_a_sound_of_several_blocks_is_written_whole(tmp_path, subtype, step):
    waveform = torch.from_numpy(noise(BLOCK_FRAMES + 1000, channels=2).T).float()
    save_wav(tmp_path / "a.wav", waveform, 8000, subtype=subtype)
    torch.testing.assert_close(load_audio(tmp_path / "a.wav", mono=False)[0], waveform, rtol=0, atol=step / 2)


@pytest.mark.parametrize(("subtype", "n_samples"), [("PCM_16", 100), ("PCM_24", 101), ("FLOAT", 99)])
def test_info_goes_behind_the_samples_and_others_read_it(tmp_path, subtype, n_samples):
    waveform = torch.from_numpy(noise(n_samples)[:, 0]).float()
    save_wav(tmp_path / "plain.wav", waveform, 8000, subtype=subtype)
    info = {"INAM": "Trommel é, seed 7", "IGNR": "Trommel é", "IPRD": "best.ckpt", "ICMT": "odd", "ISFT": "specgan 1"}
    save_wav(tmp_path / "a.wav", waveform, 8000, subtype=subtype, info=info)
    plain, content = ((tmp_path / name).read_bytes() for name in ("plain.wav", "a.wav"))
    assert content[8 : len(plain)] == plain[8:]
    assert content[len(plain) :].startswith(b"LIST")
    assert int.from_bytes(content[4:8], "little") == len(content) - 8
    with soundfile.SoundFile(tmp_path / "a.wav") as file:
        texts = dict(zip(info, (file.title, file.genre, file.album, file.comment, file.software), strict=True))
        assert file.frames == n_samples
    assert texts == info
    with av.open(str(tmp_path / "a.wav")) as file:
        names = ("title", "genre", "album", "comment", "encoder")
        assert {name: file.metadata[name] for name in names} == dict(zip(names, info.values(), strict=True))
    assert load_audio(tmp_path / "a.wav")[0].equal(load_audio(tmp_path / "plain.wav")[0])


def test_an_unknown_subtype_is_named(tmp_path):
    with pytest.raises(ValueError, match=r"a\.wav: subtype is 'PCM_8'; one of PCM_16, PCM_24, FLOAT"):
        save_wav(tmp_path / "a.wav", torch.zeros(10), 8000, subtype="PCM_8")
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("subtype", ["PCM_16", "PCM_24", "FLOAT"])
@pytest.mark.parametrize(
    ("waveform", "match"),
    [
        (torch.tensor([0.0, float("nan"), float("inf")]), r"bad\.wav: 2 of 3 samples are NaN or infinite"),
        (torch.zeros(0), r"bad\.wav: .*shape \(0,\)"),
        (torch.zeros(2, 0), r"bad\.wav: .*shape \(2, 0\)"),
        (torch.zeros(1, 1, 10), r"bad\.wav: .*shape \(1, 1, 10\)"),
        (torch.zeros(10, dtype=torch.int16), r"bad\.wav: waveform is torch\.int16"),
    ],
)
def test_save_wav_refuses_and_writes_nothing(tmp_path, waveform, match, subtype):
    with pytest.raises(ValueError, match=match):
        save_wav(tmp_path / "bad.wav", waveform, 8000, subtype=subtype)
    assert os.listdir(tmp_path) == []


# --- encode_flac


def test_every_16_bit_value_survives_flac():
    pcm = np.random.default_rng(0).permutation(np.arange(-32768, 32768)).astype(np.int16)
    content = encode_flac(torch.from_numpy(pcm / 2**15).float().requires_grad_(), 44100)
    again, rate = soundfile.read(io.BytesIO(content), dtype="int16")
    np.testing.assert_array_equal(again, pcm)
    assert rate == 44100
    assert soundfile.info(io.BytesIO(content)).format == "FLAC"


def test_encode_flac_scales_instead_of_clipping():
    content = encode_flac(torch.tensor([2.0, -4.0, 1.0, 0.0]), 8000)
    assert soundfile.read(io.BytesIO(content), dtype="int16")[0].tolist() == [16384, -32768, 8192, 0]


@pytest.mark.parametrize(
    ("waveform", "sample_rate", "match"),
    [
        (torch.tensor([0.0, float("nan")]), 8000, "1 of 2 samples are NaN or infinite"),
        (torch.zeros(0), 8000, r"shape \(0,\)"),
        (torch.zeros(9, 10), 8000, r"shape \(9, 10\)"),
        (torch.zeros(10), 0, "sample_rate is 0"),
        (torch.zeros(10), 700_000, "sample_rate is 700000"),
    ],
)
def test_encode_flac_refuses(waveform, sample_rate, match):
    with pytest.raises(ValueError, match=match):
        encode_flac(waveform, sample_rate)


# --- find_audio


def touch(root: Path, *names: str) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()


def test_find_audio_is_sorted_by_suffix_and_skips_what_is_hidden(tmp_path):
    touch(tmp_path, "b/z.wav", "b/a.FLAC", "a.mp3", "notes.txt", ".hidden.wav", ".cache/x.wav", "b/._z.wav", "wav")
    (tmp_path / "folder.wav").mkdir()
    assert find_audio(tmp_path) == [tmp_path / "a.mp3", tmp_path / "b/a.FLAC", tmp_path / "b/z.wav"]
    assert find_audio(tmp_path, recursive=False) == [tmp_path / "a.mp3"]
    assert find_audio(str(tmp_path)) == find_audio(tmp_path)


def test_find_audio_of_one_file_is_that_file(tmp_path):
    touch(tmp_path, "a.bin")
    assert find_audio(tmp_path / "a.bin") == [tmp_path / "a.bin"]


def test_find_audio_without_audio_says_what_it_looked_for(tmp_path):
    touch(tmp_path, "empty/notes.txt", "empty/sub/a.wav")
    with pytest.raises(AudioError, match=r"empty: no audio file directly in it, but 1 other file \(.txt 1\)"):
        find_audio(tmp_path / "empty", recursive=False)
    with pytest.raises(FileNotFoundError, match="gone"):
        find_audio(tmp_path / "gone")


def test_suffixes_are_lower_case_and_dotted():
    assert all(re.fullmatch(r"\.[a-z0-9]+", suffix) for suffix in AUDIO_SUFFIXES)
    assert {".wav", ".flac", ".ogg", ".opus", ".mp3", ".m4a", ".aac", ".mp4", ".aiff"} <= AUDIO_SUFFIXES


# --- real and deliberately broken files, where they stand beside the checkout

READABLE = {  # channels, Hz, seconds
    "gen.m4a": (1, 44100, 3.0),
    "gen.mp3": (2, 44100, 3.0),
    "gen.opus": (1, 48000, 3.0),
    "gen_192k.wav": (1, 192000, 3.0),
    "gen_1frame.wav": (1, 22050, 1 / 22050),
    "gen_51.flac": (6, 22050, 3.0),
    "gen_51.m4a": (6, 48000, 3.0),
    "gen_51.wav": (6, 22050, 3.0),
    "gen_adts.aac": (2, 44100, 131 * 1024 / 44100),  # no container, no trimming: every packet of the stream
    "gen_antiphase_stereo.wav": (2, 22050, 3.0),
    "gen_av.mp4": (2, 44100, 3.0),
    "gen_float32.wav": (1, 22050, 3.0),
    "gen_float64.wav": (1, 22050, 3.0),
    "gen_mp3_named.wav": (2, 32000, 10.0095),
    "gen_pcm24.wav": (1, 22050, 3.0),
    "gen_silence.wav": (1, 22050, 1.0),
    "gen_truncated.mp3": (2, 32000, 3.2775),
    "gen_truncated_half.wav": (1, 22050, 1.4996),
    "gen_u8.wav": (1, 22050, 3.0),
    "pydub_8bit.wav": (2, 32000, 10.0095),
    "pydub_bach.ogg": (1, 44100, 29 * 4608 / 44100),  # 29 FLAC blocks are in it, though its last page claims 3.055 s
    "pydub_creative_common.mp4": (2, 48000, 2.2613),
    "pydub_format_test.m4a": (1, 44100, 9.6595),
    "pydub_test1.mp3": (2, 32000, 10.0095),
    "pydub_wrong_extension.aac": (1, 44100, 9.6595),
}
REFUSED = {
    "gen_nan_inf_float32.wav": r": 11 of 66150 samples are NaN or infinite",
    "gen_noise_named.mp3": r": not readable as audio",
    "gen_text_named.wav": r": not readable as audio",
    "gen_truncated.mp4": r": not readable as audio",  # its index was at the end that is gone
    "gen_video_only.mp4": r": has no audio stream",
    "gen_zero_bytes.wav": r": has zero bytes",
    "pydub_empty_44bytes.wav": r": holds no samples",
}
WARNS_CUT_SHORT = {"gen_truncated.mp3": "320303", "gen_truncated_half.wav": "661[45]."}  # frames announced

needs_formats = pytest.mark.skipif(not FORMATS.is_dir(), reason="needs shared/data/formats beside the checkout")


@needs_formats
def test_every_format_file_has_an_expectation():
    assert {path.name for path in find_audio(FORMATS)} == set(READABLE) | set(REFUSED)


@needs_formats
@pytest.mark.parametrize("name", READABLE)
def test_format_file_is_read(name, caplog):
    channels, rate, duration_s = READABLE[name]
    waveform, loaded_rate = load_audio(FORMATS / name, mono=False)
    assert (waveform.shape[0], loaded_rate) == (channels, rate)
    assert waveform.shape[1] / rate == pytest.approx(duration_s, abs=0.002)
    assert (waveform.abs().max() == 0) == (name == "gen_silence.wav")
    if name in WARNS_CUT_SHORT:
        assert re.search(rf"{name}.*decoded {waveform.shape[1]} of about {WARNS_CUT_SHORT[name]} frames", caplog.text)
    else:
        assert not caplog.records


@needs_formats
@pytest.mark.parametrize("name", READABLE)
def test_format_file_in_blocks_is_the_whole_file(name):
    whole, _ = load_audio(FORMATS / name, mono=False, sample_rate=16000)
    blocks, _ = read_blocks(FORMATS / name, 5000, mono=False, sample_rate=16000)
    torch.testing.assert_close(blocks, whole, rtol=0, atol=1e-6)


@needs_formats
@pytest.mark.parametrize("name", REFUSED)
def test_format_file_is_refused(name):
    with pytest.raises(AudioError, match=re.escape(name) + REFUSED[name]):
        load_audio(FORMATS / name)


@needs_formats
def test_format_file_in_antiphase_warns(caplog):
    load_audio(FORMATS / "gen_antiphase_stereo.wav")
    assert re.search(r"gen_antiphase_stereo\.wav.*antiphase", caplog.text)


@needs_formats
@pytest.mark.parametrize(
    "name", ["gen.m4a", "gen.mp3", "gen.opus", "gen_192k.wav", "gen_av.mp4", "gen_float64.wav", "gen_u8.wav"]
)
def test_format_files_of_one_recording_agree_in_time_and_level(name):
    reference = load_audio(FORMATS / "gen_pcm24.wav")[0][0]
    waveform, _ = load_audio(FORMATS / name, sample_rate=22050, mono=False)  # the second channel is quieter by design
    assert waveform.shape[1] == len(reference)
    error = waveform[0] - reference
    assert error.square().mean() < 0.01 * reference.square().mean()  # one sample of shift or 1 dB would go beyond
