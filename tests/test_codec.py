"""specgan.codec: pictures that turn back into the sound."""

import io
from dataclasses import replace

import matplotlib.image
import numpy as np
import pytest
import torch

from specgan.codec import (
    CodecError,
    CodecParams,
    SliceInfo,
    Song,
    decode_spectrum,
    encode_slice,
    from_png,
    segments,
    to_png,
)

SMALL = CodecParams(size=64)
INFO = SliceInfo(
    SMALL, 44100, "söng \U0001f941", number=3, n_samples=12345, offset=7, channel=1, n_channels=2, gain=0.5
)


def noise(n_samples: int, amplitude: float = 0.3) -> torch.Tensor:
    return amplitude * (2 * torch.rand(n_samples, generator=torch.Generator().manual_seed(0)) - 1)


def tone(hz: float, n_samples: int, rate: int = 44100) -> torch.Tensor:
    return torch.sin(2 * torch.pi * hz / rate * torch.arange(n_samples, dtype=torch.float64)).float()


def round_trip(waveform: torch.Tensor, params: CodecParams, *, block_size: int = 10**9, without=()) -> torch.Tensor:
    song = Song(len(waveform), params)
    for number, segment in enumerate(segments(waveform[None].split(block_size, dim=1), params)):
        if number not in without:
            picture, _ = from_png(to_png(encode_slice(segment[0], params), SliceInfo(params, 44100, "a", number)))
            song.add(number, decode_spectrum(picture, params))
    assert song.numbers == set(range(song.n_slices)) - set(without)
    return song.waveform()


def snr(decoded: torch.Tensor, waveform: torch.Tensor) -> float:
    assert decoded.shape == waveform.shape
    return float(10 * torch.log10(waveform.square().sum() / (decoded - waveform).square().sum()))


SOUNDS = {
    "noise": noise(9000),
    "quiet noise": noise(9000, 1e-4),
    "tone": 0.5 * tone(1000, 9000),
    "full-scale square wave": torch.sign(tone(441.5, 9000) + 1e-9),
    "constant": torch.full((9000,), 0.7),
    "negative constant": torch.full((9000,), -1.0),
    "every other sample": 0.9 * torch.tensor([1.0, -1.0]).repeat(4500),
    "one click": torch.nn.functional.one_hot(torch.tensor(4321), 9000).float(),
}


@pytest.mark.parametrize("phase_encoding", ["cos_sin", "instantaneous_frequency"])
@pytest.mark.parametrize(("bit_depth", "least"), [(16, 75), (8, 30)])
@pytest.mark.parametrize("sound", SOUNDS)
def test_a_round_trip_loses_nothing_that_can_be_heard(sound, bit_depth, least, phase_encoding):
    params = replace(SMALL, bit_depth=bit_depth, phase_encoding=phase_encoding)
    assert snr(round_trip(SOUNDS[sound], params), SOUNDS[sound]) > least


@pytest.mark.parametrize("size", [4, 16, 256, 1024])
def test_every_size(size):
    assert snr(round_trip(noise(20_000), CodecParams(size=size)), noise(20_000)) > 75


@pytest.mark.parametrize("n_samples", [1, 2, 31, 32, 33, 2047, 2048, 2049, 4096, 5000])
def test_every_length_comes_back_exactly(n_samples):
    assert snr(round_trip(noise(n_samples), SMALL), noise(n_samples)) > 75


def test_silence_is_silence():
    assert round_trip(torch.zeros(3000), SMALL).eq(0).all()


@pytest.mark.parametrize("block_size", [1000, 2048, 3000])
def test_pictures_do_not_depend_on_the_blocks(block_size):
    whole, blocks = (round_trip(noise(9000), SMALL, block_size=size) for size in (10**9, block_size))
    torch.testing.assert_close(blocks, whole, rtol=0, atol=0)


def test_a_missing_slice_is_silence_in_its_place_and_the_rest_stays():
    waveform, p = noise(9000), SMALL
    decoded = round_trip(waveform, p, without=[2])
    gap = slice(2 * p.slice_samples + p.n_fft, 3 * p.slice_samples - p.n_fft)
    assert decoded[gap].eq(0).all()
    for kept in (slice(0, 2 * p.slice_samples - p.n_fft), slice(3 * p.slice_samples + p.n_fft, None)):
        assert snr(decoded[kept], waveform[kept]) > 75


def test_low_frequencies_are_at_the_bottom_and_a_full_scale_tone_is_near_the_top_of_red():
    params = CodecParams(size=64)
    segment = tone(44100 / 128 * 10, params.slice_samples + params.n_fft - params.hop_length)  # in the middle of bin 10
    picture = encode_slice(segment, params)
    assert picture.shape == (64, 64, 3)
    red = picture[:, 32, 0]
    assert red.argmax() == 63 - 10
    level = (red.max() - 1) / 65534 * params.range_db + 6.5 - params.range_db
    assert level == pytest.approx(0, abs=0.01)  # dB re a full-scale sine


def test_a_steady_tone_has_an_even_instantaneous_frequency():
    params = CodecParams(size=64, phase_encoding="instantaneous_frequency")
    segment = tone(44100 / 128 * 10, params.slice_samples + params.n_fft - params.hop_length)
    green = encode_slice(segment, params)[63 - 10, 1:, 1].astype(int)
    assert np.abs(green - 32768).max() <= 2


def test_the_picture_is_a_16_bit_png_that_others_read():
    picture = encode_slice(noise(2048 + 96), SMALL)
    theirs = matplotlib.image.imread(io.BytesIO(to_png(picture, INFO)), format="png")
    assert theirs.shape == (64, 64, 3)
    np.testing.assert_allclose(theirs, picture / 65535, atol=1 / 255)  # matplotlib reads 8 of the bits


def test_a_picture_knows_itself():
    picture = encode_slice(noise(2048 + 96), SMALL)
    decoded, info = from_png(to_png(picture, INFO))
    np.testing.assert_array_equal(decoded, picture)
    assert decoded.dtype == np.uint16
    assert info == INFO


def test_a_picture_without_text_is_read_without_info():
    buffer = io.BytesIO()
    matplotlib.image.imsave(buffer, np.zeros((8, 8, 3)), format="png")
    picture, info = from_png(buffer.getvalue())
    assert info is None
    assert picture.shape == (8, 8, 4)


def test_what_is_no_whole_png_is_refused():
    png = to_png(encode_slice(noise(2048 + 96), SMALL), INFO)
    damaged = bytearray(png)
    damaged[len(png) // 2] ^= 1
    for content in (b"", b"no picture", png[: len(png) // 2], png[:-5], bytes(damaged)):
        with pytest.raises(CodecError, match="not a whole PNG"):
            from_png(content)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"size": 63}, "size is 63; an even number"),
        ({"size": 2}, "size is 2"),
        ({"bit_depth": 12}, "bit_depth is 12; 16 or 8"),
        ({"phase_encoding": "polar"}, "phase_encoding is 'polar'; one of"),
        ({"range_db": 60.0}, "range_db is 60.0; at least 100"),
    ],
)
def test_impossible_settings_are_named(settings, message):
    with pytest.raises(ValueError, match=message):
        CodecParams(**settings)
