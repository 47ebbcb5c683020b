"""specgan.codec.coding: pictures that turn back into the sound."""

import io
import json
import math
import re
import struct
import zlib
from dataclasses import asdict, replace

import cv2
import matplotlib.image
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from specgan.codec.coding import PHASE_ENCODINGS, TOP_DB, CodecError, CodecParams, decode_spectrum, encode_slice
from specgan.codec.fitting import fit_picture
from specgan.codec.joining import JoinedSlices
from specgan.codec.png import SliceInfo, from_png, read_info, to_png
from specgan.codec.slices import segments

SMALL = CodecParams(size=64)
INFO = SliceInfo(
    SMALL, 44100, "söng \U0001f941", 12345, number=3, offset=7, n_trimmed=9, channel=1, n_channels=2, gain=0.5
)
SEEDED = settings(deadline=None, max_examples=60, derandomize=True)


def noise(n_samples: int, amplitude: float = 0.3) -> torch.Tensor:
    return amplitude * (2 * torch.rand(n_samples, generator=torch.Generator().manual_seed(0)) - 1)


def tone(hz: float, n_samples: int, rate: int = 44100) -> torch.Tensor:
    return torch.sin(2 * torch.pi * hz / rate * torch.arange(n_samples, dtype=torch.float64)).float()


def round_trip(waveform: torch.Tensor, params: CodecParams, *, block_size: int = 10**9, without=()) -> torch.Tensor:
    song = JoinedSlices(len(waveform), params)
    for number, segment in enumerate(segments(waveform[None].split(block_size, dim=1), params)):
        if number not in without:
            info = SliceInfo(params, 44100, "a", len(waveform), number)
            picture, info = from_png(to_png(encode_slice(segment[0], params), info))
            picture, fitted, remarks = fit_picture(picture, info.params)
            assert (fitted, remarks) == (params, [])
            song.add(number, decode_spectrum(picture, fitted))
    assert song.numbers == set(range(song.n_slices)) - set(without)
    return song.waveform()


def snr(decoded: torch.Tensor, waveform: torch.Tensor) -> float:
    assert decoded.shape == waveform.shape
    return float(10 * torch.log10(waveform.square().sum() / (decoded - waveform).square().sum()))


@pytest.mark.parametrize("size", [4, 6, 16, 250, 256, 1024])
def test_every_size(size):
    waveform = noise(min(20_000, 100 * size**2))  # a picture of 4 rows stands for 8 samples
    assert snr(round_trip(waveform, CodecParams(size=size)), waveform) > 75


@pytest.mark.parametrize("phase_encoding", PHASE_ENCODINGS)
@pytest.mark.parametrize(("bit_depth", "least"), [(16, 75), (8, 30)])
@pytest.mark.parametrize(("range_db", "quietest"), [(100, 0.3), (100.0, 0.1), (200.0, 1e-6), (240.0, 1e-8)])
def test_every_range(range_db, quietest, bit_depth, least, phase_encoding):
    params = CodecParams(64, bit_depth, phase_encoding, range_db)
    for amplitude in (1.0, quietest):
        assert snr(round_trip(noise(9000, amplitude), params), noise(9000, amplitude)) > least
    assert round_trip(torch.zeros(3000), params).eq(0).all()


@pytest.mark.parametrize(("bit_depth", "least"), [(16, 71), (8, 22.5)])
def test_half_the_sample_rate_has_half_the_codes(bit_depth, least):
    for level_db in torch.linspace(-20, 0, 21):
        alternating = 10 ** (level_db / 20) * torch.tensor([1.0, -1.0]).repeat(2000)
        assert snr(round_trip(alternating, replace(SMALL, bit_depth=bit_depth)), alternating) > least


def sound(kind: str, n_samples: int, level_db: float, radians: float, seed: int) -> torch.Tensor:
    """(n_samples,), its peak, or that of the full wave, at `level_db`; `radians` from sample to sample."""
    generator = torch.Generator().manual_seed(seed)
    t = torch.arange(n_samples, dtype=torch.float64)
    wave = torch.sin(radians * t + seed)
    click = torch.zeros(n_samples, dtype=torch.float64)
    click[seed % n_samples] = 1
    waveform = {
        "noise": 2 * torch.rand(n_samples, generator=generator, dtype=torch.float64) - 1,
        "silence": torch.zeros(n_samples),
        "constant": torch.full((n_samples,), -1.0 if seed % 2 else 1.0),
        "square wave": torch.where(wave < 0, -1.0, 1.0),
        "clipped sine": (3 * wave).clamp(-1, 1),
        "click": click,
        "tones": (wave + torch.sin(0.61 * radians * t) + torch.sin(0.13 * radians * t + 1)) / 3,
    }[kind]
    return (10 ** (level_db / 20) * waveform).float()


@SEEDED
@given(
    kind=st.sampled_from(["noise", "silence", "constant", "square wave", "clipped sine", "click", "tones"]),
    n_samples=st.integers(1, 6000),
    level_db=st.just(0.0) | st.floats(-60, 0) | st.floats(-160, 0),
    radians=st.floats(0.001, 0.9 * math.pi),  # half the sample rate has its own test
    seed=st.integers(0, 2**32),
    size=st.sampled_from([16, 64]),
    bit_depth=st.sampled_from([8, 16]),
    phase_encoding=st.sampled_from(PHASE_ENCODINGS),
)
def test_any_sound_of_any_length_comes_back(kind, n_samples, level_db, radians, seed, size, bit_depth, phase_encoding):
    waveform = sound(kind, n_samples, level_db, radians, seed)
    params = CodecParams(size, bit_depth, phase_encoding)
    decoded = round_trip(waveform, params)
    assert decoded.shape == waveform.shape
    if kind == "silence":
        assert decoded.eq(0).all()
    # In 8 bits a step is 0.59 dB: a tone or a click that stands just between two codes has no more than 29 dB.
    least = 75 if bit_depth == 16 else 28.5
    # Each of `size` bins may lose what is below its first code.
    lost = size * 10 ** ((TOP_DB - params.range_db) / 20)
    error, level = (float(each.double().square().mean().sqrt()) for each in (decoded - waveform, waveform))
    assert error <= level * 10 ** (-least / 20) + lost


@pytest.mark.parametrize(("n_samples", "n_slices"), [(1, 1), (31, 1), (2048, 1), (2049, 2), (4096, 2)])
def test_every_length_has_a_slice_for_each_2048_samples_begun(n_samples, n_slices):
    assert JoinedSlices(n_samples, SMALL).n_slices == n_slices
    assert snr(round_trip(noise(n_samples), SMALL), noise(n_samples)) > 75


@pytest.mark.parametrize("block_size", [1000, 2048, 3000])
def test_pictures_do_not_depend_on_the_blocks(block_size):
    whole, blocks = (round_trip(noise(9000), SMALL, block_size=size) for size in (10**9, block_size))
    torch.testing.assert_close(blocks, whole, rtol=0, atol=0)


@pytest.mark.parametrize("without", [[0], [2], [4], [1, 2], [0, 2, 4], [0, 1, 2, 3, 4]])
def test_missing_slices_are_silence_in_their_places_and_the_rest_stays(without):
    p = SMALL
    waveform = noise(5 * p.slice_samples)
    decoded = round_trip(waveform, p, without=without)
    assert decoded.abs().max() < 0.4  # the edges of a gap too
    for number in range(5):
        inside = slice(number * p.slice_samples + p.n_fft, (number + 1) * p.slice_samples - p.n_fft)
        if number in without:
            assert decoded[inside].eq(0).all()
        else:
            assert snr(decoded[inside], waveform[inside]) > 75


@pytest.mark.parametrize("number", [-1, 5, 2])
def test_a_song_takes_each_of_its_slices_once(number):
    song = JoinedSlices(9000, SMALL)
    song.add(2, torch.zeros(65, 64, dtype=torch.complex64))
    with pytest.raises(ValueError, match=f"slice number is {number}; each of the song's 5, from 0 on, once"):
        song.add(number, torch.zeros(65, 64, dtype=torch.complex64))


# --- what a picture knows of itself


def test_the_slices_of_a_song_share_what_was_kept():
    infos = [SliceInfo(SMALL, 8000, "a", 10_000, number, offset=900, n_trimmed=100) for number in range(5)]
    assert {(info.n_kept, info.n_slices) for info in infos} == {(9000, 5)}
    assert [info.slice_length for info in infos] == [2048, 2048, 2048, 2048, 9000 - 4 * 2048]
    assert SliceInfo(SMALL, 8000, "a", 2 * 2048, 1).slice_length == 2048
    assert SliceInfo(SMALL, 8000, "a", 10**30 + 1, 1).n_slices == 10**30 // 2048 + 1


WRONG_FIELDS = [
    ({"sample_rate": 0}, "sample_rate is 0; an integer of at least 1"),
    ({"sample_rate": "44100"}, "sample_rate is '44100'; an integer"),
    ({"n_samples": 0}, "n_samples is 0; an integer of at least 1"),
    ({"offset": -1}, "offset is -1; an integer of at least 0"),
    ({"n_trimmed": -1}, "n_trimmed is -1; an integer of at least 0"),
    ({"n_trimmed": 12338}, "offset is 7 and n_trimmed is 12338; together below n_samples, which is 12345"),
    ({"number": -1}, "number is -1; an integer of at least 0"),
    ({"number": True}, "number is True; an integer"),
    ({"number": 7}, "number is 7; the song's 7 slices are numbered from 0"),
    ({"channel": 2}, "channel is 2; the song's 2 channels are numbered from 0"),
    ({"n_channels": 0}, "n_channels is 0; an integer of at least 1"),
    ({"song": ""}, "song is ''; a name"),
    ({"song": ["a"]}, r"song is \['a'\]; a name"),
    ({"gain": 0}, "gain is 0; a finite number above 0"),
    ({"gain": math.inf}, "gain is inf; a finite number"),
    ({"gain": math.nan}, "gain is nan; a finite number"),
    ({"gain": 10**400}, "gain is 10*; a finite number"),
    ({"gain": "1"}, "gain is '1'; a finite number"),
]


@pytest.mark.parametrize(("wrong", "message"), WRONG_FIELDS)
def test_impossible_fields_are_named(wrong, message):
    with pytest.raises(ValueError, match=message):
        replace(INFO, **wrong)


def with_text(text: bytes, before: bytes = b"tEXtspecgan-codec\0") -> bytes:
    """A picture whose text comes after its pixels."""
    plain = cv2.imencode(".png", encode_slice(noise(2048 + 96), SMALL)[..., ::-1])[1].tobytes()
    content = before + text
    chunk = struct.pack(">I", len(content) - 4) + content + struct.pack(">I", zlib.crc32(content))
    return plain[:-12] + chunk + plain[-12:]  # IEND has 12 bytes


FIELDS = {"version": 1, **asdict(INFO)}
PARAMS = FIELDS["params"]
DAMAGED = {
    "nothing": (b"", "Expecting value"),
    "half of it": (json.dumps(FIELDS).encode()[:100], "line 1 column"),
    "no UTF-8": (b'{"version": "\xff"}', "utf-8"),
    "brackets in brackets": (b"[" * 100_000, "recursion"),
    "a list": ([FIELDS], "version is None, not 1"),
    "no version": (asdict(INFO), "version is None, not 1"),
    "a wordy version": ({**FIELDS, "version": "2"}, "version is '2', not 1"),
    "a missing field": ({k: v for k, v in FIELDS.items() if k != "gain"}, "missing or unknown in SliceInfo: gain"),
    "an unknown field": ({**FIELDS, "tempo": 120}, "missing or unknown in SliceInfo: tempo"),
    "an unknown setting": ({**FIELDS, "params": {**PARAMS, "hop": 1}}, "missing or unknown in CodecParams: hop"),
    "no settings": ({**FIELDS, "params": [1]}, r"CodecParams is \[1\]; an object with bit_depth, phase_encoding, "),
    "an impossible setting": ({**FIELDS, "params": {**PARAMS, "size": 63}}, "size is 63; an even number"),
    "an impossible field": ({**FIELDS, "number": 99}, "number is 99; the song's 7 slices"),
}


@pytest.mark.parametrize("name", DAMAGED)
def test_a_damaged_text_says_what_is_wrong(name):
    text, reason = DAMAGED[name]
    png = with_text(text if isinstance(text, bytes) else json.dumps(text).encode())
    for read in (from_png, lambda png: read_info(io.BytesIO(png))):
        with pytest.raises(
            CodecError, match=rf"^its specgan-codec text is damaged \(.*{reason}.*\); encode the picture"
        ):
            read(png)


def test_a_text_of_a_newer_version_names_both():
    with pytest.raises(CodecError, match="its text is of codec version 2, this is 1; update specgan"):
        from_png(with_text(json.dumps({**FIELDS, "version": 2, "tempo": 120}).encode()))


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=5,
)
a_field = st.sampled_from([*((name,) for name in FIELDS), *(("params", name) for name in PARAMS)])


@SEEDED
@given(place=a_field, value=json_values)
def test_any_value_in_any_field_is_taken_or_refused(place, value):
    fields = json.loads(json.dumps(FIELDS))
    (fields["params"] if len(place) == 2 else fields)[place[-1]] = value
    try:
        info = read_info(io.BytesIO(with_text(json.dumps(fields).encode())))
    except CodecError:
        return
    assert json.loads(json.dumps({"version": 1, **asdict(info)})) == fields


@SEEDED
@given(content=st.binary(max_size=200))
def test_any_bytes_as_text_are_refused(content):
    with pytest.raises(CodecError, match="text is damaged"):
        read_info(io.BytesIO(with_text(content)))


class CountingBytes(io.BytesIO):
    n_read = 0

    def read(self, size=-1):
        content = super().read(size)
        self.n_read += len(content)
        return content


def test_the_text_is_read_without_the_pixels():
    before = to_png(encode_slice(noise(2048 + 96), SMALL), INFO)
    behind = with_text(json.dumps(FIELDS).encode())
    for png in (before, behind):
        assert from_png(png)[1] == INFO
        file = CountingBytes(png)
        assert read_info(file) == INFO
        assert file.n_read < 1000 < len(png) / 10


JSON = json.dumps(FIELDS).encode()
PACKED = zlib.compress(JSON)
KINDS = {
    "zTXt": (PACKED, b"zTXtspecgan-codec\0\0"),
    "iTXt": (JSON, b"iTXtspecgan-codec\0\0\0\0\0"),
    "iTXt in a language": (JSON, b"iTXtspecgan-codec\0\0\0en\0specgan-codec\0"),
    "iTXt, compressed": (PACKED, b"iTXtspecgan-codec\0\1\0\0\0"),
    "with line ends": (json.dumps(FIELDS, indent=1).replace("\n", "\r\n").encode() + b"\r\n\0", b"tEXtspecgan-codec\0"),
}


@pytest.mark.parametrize("kind", KINDS)
def test_text_as_other_programs_write_it_is_read(kind):
    png = with_text(*KINDS[kind])
    assert from_png(png)[1] == read_info(io.BytesIO(png)) == INFO


@pytest.mark.parametrize(
    ("text", "before"),
    [
        (PACKED[:40], KINDS["zTXt"][1]),
        (JSON, KINDS["zTXt"][1]),
        (b"", KINDS["zTXt"][1]),
        (zlib.compress(b" " * 2**24), KINDS["zTXt"][1]),
        (PACKED[:40], KINDS["iTXt, compressed"][1]),
        (b"", b"iTXtspecgan-codec\0\0"),
    ],
)
def test_a_compressed_text_that_is_damaged_says_so(text, before):
    with pytest.raises(CodecError, match="its specgan-codec text is damaged"):
        from_png(with_text(text, before))


def test_the_text_needs_only_what_stands_before_it():
    before = to_png(encode_slice(noise(2048 + 96), SMALL), INFO)
    assert read_info(io.BytesIO(before[: len(before) // 2])) == INFO
    behind = with_text(json.dumps(FIELDS).encode())
    place = behind.index(b"tEXt")
    for end in (0, 5, 8, 20, place // 2, place - 4, place, place + 4, place + 50, behind.index(b"IEND") - 5):
        with pytest.raises(CodecError, match="not a whole PNG; fetch or encode it again"):
            read_info(io.BytesIO(behind[:end]))
    changed = behind.replace(b"44100", b"48000")
    for read in (from_png, lambda png: read_info(io.BytesIO(png))):
        with pytest.raises(CodecError, match="not a whole PNG"):
            read(changed)


# --- pictures


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


def test_the_picture_is_a_16_bit_png_that_we_and_others_read():
    picture = encode_slice(noise(2048 + 96), SMALL)
    png = to_png(picture, INFO)
    decoded, info = from_png(png)
    np.testing.assert_array_equal(decoded, picture)
    assert (decoded.dtype, info) == (np.uint16, INFO)
    theirs = matplotlib.image.imread(io.BytesIO(png), format="png")
    assert theirs.shape == (64, 64, 3)
    np.testing.assert_allclose(theirs, picture / 65535, atol=1 / 255)  # matplotlib reads 8 of the bits


def test_a_picture_without_text_is_read_without_info():
    buffer = io.BytesIO()
    matplotlib.image.imsave(buffer, np.zeros((8, 8, 3)), format="png")  # has a text of its own
    picture, info = from_png(buffer.getvalue())
    assert info is read_info(io.BytesIO(buffer.getvalue())) is None
    assert picture.shape == (8, 8, 4)


def test_what_is_no_whole_png_is_refused():
    png = to_png(encode_slice(noise(2048 + 96), SMALL), INFO)
    damaged = bytearray(png)
    damaged[len(png) // 2] ^= 1
    header = b"IHDR" + struct.pack(">II", 100_000, 100_000) + png[24:29]  # more than OpenCV takes
    huge = png[:12] + header + struct.pack(">I", zlib.crc32(header)) + png[33:]
    for content in (b"", b"no picture", png[: len(png) // 2], png[:-5], bytes(damaged), huge):
        with pytest.raises(CodecError, match="not a whole PNG"):
            from_png(content)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"size": 63}, "size is 63; an even number"),
        ({"size": 2}, "size is 2"),
        ({"size": True}, "size is True"),
        ({"bit_depth": 12}, "bit_depth is 12; 16 or 8"),
        ({"phase_encoding": "polar"}, "phase_encoding is 'polar'; one of"),
        ({"phase_encoding": ["cos_sin"]}, r"phase_encoding is \['cos_sin'\]; one of"),
        ({"range_db": 60.0}, "range_db is 60.0; 100 to 240"),
        ({"range_db": 241}, "range_db is 241; 100 to 240"),
        ({"range_db": math.nan}, "range_db is nan; 100 to 240"),
        ({"range_db": "150"}, "range_db is '150'; 100 to 240"),
    ],
)
def test_impossible_settings_are_named(wrong, message):
    with pytest.raises(ValueError, match=message):
        CodecParams(**wrong)


# --- pictures as others left them


def picture_of_noise(params: CodecParams = SMALL) -> np.ndarray:
    return encode_slice(noise(2048 + 96), params)


@pytest.mark.parametrize("bit_depth", [8, 16])
def test_a_picture_without_text_brings_size_and_bit_depth(bit_depth):
    picture = picture_of_noise(replace(SMALL, bit_depth=bit_depth))
    for given_settings in ({}, {"phase_encoding": "instantaneous_frequency", "range_db": 120.0}):
        fitted, params, remarks = fit_picture(picture, None, **given_settings)
        np.testing.assert_array_equal(fitted, picture)
        assert params == CodecParams(64, bit_depth, **given_settings)
        assert remarks == []
    with pytest.raises(ValueError, match="range_db is 1;"):
        fit_picture(picture, None, range_db=1)


@pytest.mark.parametrize("params", [SMALL, None])
def test_alpha_is_left_out(params):
    picture = picture_of_noise()
    fitted, _, remarks = fit_picture(np.dstack([picture, np.full((64, 64), 65535, np.uint16)]), params)
    np.testing.assert_array_equal(fitted, picture)
    assert remarks == ["alpha is left out"]


@pytest.mark.parametrize("reduce", [lambda x: x >> 8, lambda x: np.rint(x / 257)])
def test_a_picture_reduced_to_8_bits_holds_about_30_db(reduce):
    picture, params, remarks = fit_picture(reduce(picture_of_noise()).astype(np.uint8), SMALL)
    assert (picture.dtype, picture.shape, params) == (np.uint16, (64, 64, 3), SMALL)
    assert remarks == ["was reduced to 8 bits from the 16 of its text: holds about 30 dB only"]
    song = JoinedSlices(2048, params)
    song.add(0, decode_spectrum(picture, params))
    # The picture begins n_fft / 2 before its slice; at the slice's end the next one would take part.
    assert snr(song.waveform()[:1900], noise(2048 + 96)[64:1964]) > 28


def test_of_a_reduced_instantaneous_frequency_it_says_that_the_phase_drifts():
    params = replace(SMALL, phase_encoding="instantaneous_frequency")
    _, _, remarks = fit_picture((picture_of_noise(params) >> 8).astype(np.uint8), params)
    assert remarks == ["was reduced to 8 bits from the 16 of its text: magnitudes hold about 30 dB, the phase drifts"]


def test_a_picture_widened_to_16_bits_is_brought_back():
    params = replace(SMALL, bit_depth=8)
    picture = picture_of_noise(params)
    fitted, fitted_params, remarks = fit_picture(picture.astype(np.uint16) * 257, params)
    np.testing.assert_array_equal(fitted, picture)
    assert (fitted.dtype, fitted_params) == (np.uint8, params)
    assert remarks == ["was widened to 16 bits from the 8 of its text: converted back to 8"]
    with pytest.raises(CodecError, match="has values of 16 bits, its text says 8"):
        fit_picture(picture_of_noise(), params)


@pytest.mark.parametrize("shape", [(32, 32, 3), (64, 63, 3), (128, 64, 4), (62, 64)])
def test_a_picture_of_another_size_than_its_text_names_both(shape):
    message = f"has {shape[1]} x {shape[0]} pixels, its text says 64 x 64; pictures must not be resized"
    with pytest.raises(CodecError, match=message):
        fit_picture(np.zeros(shape, np.uint16), SMALL, griffin_lim=True)


@pytest.mark.parametrize("shape", [(64, 62, 3), (63, 63, 3), (2, 2, 3), (1, 1), (0, 0, 3)])
def test_a_picture_that_no_settings_make_names_its_size(shape):
    with pytest.raises(CodecError, match=f"has {shape[1]} x {shape[0]} pixels; a picture of sound is square"):
        fit_picture(np.zeros(shape, np.uint8), None)


@pytest.mark.parametrize("params", [SMALL, None])
@pytest.mark.parametrize("phase_encoding", PHASE_ENCODINGS)
def test_grey_is_a_magnitude_without_phase(phase_encoding, params):
    params = params and replace(params, phase_encoding=phase_encoding)
    grey = picture_of_noise()[..., 0]
    grey_with_alpha = np.dstack([grey, grey, grey, np.full_like(grey, 65535)])  # as from_png returns it
    for picture, alpha in ((grey, []), (grey_with_alpha, ["alpha is left out"])):
        with pytest.raises(CodecError, match="grey: it has no phase"):
            fit_picture(picture, params)
        fitted, fitted_params, remarks = fit_picture(picture, params, phase_encoding=phase_encoding, griffin_lim=True)
        assert fitted.shape == (64, 64, 3)
        assert remarks[:-1] == alpha
        assert remarks[-1].startswith("grey: it has the magnitude only")
        spectrum = decode_spectrum(fitted, fitted_params)
        known = decode_spectrum(picture_of_noise(), SMALL)
        torch.testing.assert_close(spectrum[:-1].abs(), known[:-1].abs())
        assert spectrum[-1].eq(0).all()  # grey has no Nyquist bin


def test_grey_of_8_bits_whose_text_says_16_is_widened_first():
    grey = (picture_of_noise()[..., 0] >> 8).astype(np.uint8)
    picture, params, remarks = fit_picture(grey, SMALL, griffin_lim=True)
    np.testing.assert_array_equal(picture[..., 0], grey.astype(np.uint16) * 257)
    assert [re.split("[ :]", remark)[0] for remark in remarks] == ["was", "grey"]
    assert decode_spectrum(picture, params)[-1].eq(0).all()


def test_noise_is_not_compressed_and_silence_is():
    params = CodecParams(size=256)
    whole = params.size**2 * 6
    loud, silent = (encode_slice(x, params) for x in (noise(33_000 + 256), torch.zeros(33_000 + 256)))
    sizes = [len(to_png(picture, SliceInfo(params, 44100, "a", 33_000))) for picture in (loud, silent)]
    assert whole < sizes[0] < 1.01 * whole
    assert sizes[1] < 0.01 * whole
