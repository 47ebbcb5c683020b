"""Audio <-> 16-bit PNG that holds magnitude and phase, and loses nothing that can be heard.

    waveform --STFT, n_fft = 2 * size, hop = size / 2--> frames --cut--> slices of `size` frames --> square pictures

The hop and the FFT follow from the size, so no picture is ever resized. Slice s stands for the samples from
s * size * hop_length on, as many as that; its frame t is centred on sample (s * size + t) * hop_length.

A picture has one row a bin, low frequencies at the bottom, and three channels:

    red     magnitude in dB re a full-scale sine: 0 is none, the other codes go from TOP_DB - range_db to TOP_DB
    green   cosine of the phase (phase_encoding "cos_sin"); or what the phase advances from frame to frame beyond the
            bin's own frequency, over pi, -1..1, of which a steady tone has 0 ("instantaneous_frequency")
    blue    sine of the phase ("cos_sin"); or nothing

The lowest row is bin 0, which is real: its green is the sign. Its blue holds the Nyquist bin, which is real too, and
would be one row more: the middle is 0, above are positive values, below negative ones, each by its dB like red.
"""

import json
import math
import struct
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

CODEC_VERSION = 1
TOP_DB = 6.5  # a constant at full scale has 6.02 dB
BIT_DEPTHS = (8, 16)
PHASE_ENCODINGS = ("cos_sin", "instantaneous_frequency")

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_KEYWORD = b"specgan-codec"


class CodecError(ValueError):
    """A picture that cannot be decoded. The message names what is wrong and what to do."""


@dataclass(frozen=True)
class CodecParams:
    """How pictures hold sound.

    Args:
        size: rows and columns of a picture, an even number of at least 4.
        bit_depth: 16, or 8 for trainers that take no more.
        phase_encoding: "cos_sin" or "instantaneous_frequency", see the module.
        range_db: dB from the quietest to the loudest magnitude, at least 100.

    Raises:
        ValueError: an impossible setting.
    """

    size: int = 1024
    bit_depth: int = 16
    phase_encoding: str = "cos_sin"
    range_db: float = 150.0

    def __post_init__(self) -> None:
        if not isinstance(self.size, int) or self.size < 4 or self.size % 2:
            raise ValueError(f"size is {self.size!r}; an even number of at least 4, e.g. 1024")
        if self.bit_depth not in BIT_DEPTHS:
            raise ValueError(f"bit_depth is {self.bit_depth}; 16 or 8")
        if self.phase_encoding not in PHASE_ENCODINGS:
            raise ValueError(f"phase_encoding is {self.phase_encoding!r}; one of {', '.join(PHASE_ENCODINGS)}")
        if self.range_db < 100:
            raise ValueError(f"range_db is {self.range_db}; at least 100, or quiet sounds are lost")

    @property
    def n_fft(self) -> int:
        """Samples in an FFT and its Hann window."""
        return 2 * self.size

    @property
    def hop_length(self) -> int:
        """Samples from frame to frame."""
        return self.size // 2

    @property
    def slice_samples(self) -> int:
        """Samples that a picture stands for."""
        return self.size * self.hop_length

    @property
    def most(self) -> int:
        """The highest code of a channel."""
        return 2**self.bit_depth - 1


@dataclass(frozen=True)
class SliceInfo:
    """What a picture knows of itself, in its text.

    Args:
        params: how it holds sound.
        sample_rate: Hz.
        song: name of the song, without suffix.
        number: of the slice, from 0.
        n_samples: of the whole song, in this channel.
        offset: samples of silence that were cut off before the first slice.
        n_trimmed: samples of silence that were cut off behind the last one.
        channel: from 0.
        n_channels: of the song.
        gain: what the waveform was multiplied by, 1 unless it went beyond full scale.
    """

    params: CodecParams
    sample_rate: int
    song: str
    number: int = 0
    n_samples: int = 0
    offset: int = 0
    n_trimmed: int = 0
    channel: int = 0
    n_channels: int = 1
    gain: float = 1.0


def encode_slice(segment: Tensor, params: CodecParams) -> np.ndarray:
    """Turns a piece of sound into a picture.

    Args:
        segment: (slice_samples + n_fft - hop_length,), full scale 1.0: the samples of the slice with n_fft / 2 before
            and n_fft / 2 - hop_length behind them, silence where the song has none.
    Returns:
        (size, size, 3) uint8 or uint16, low frequencies in the last row; red, green, blue.
    """
    frames = segment.unfold(0, params.n_fft, params.hop_length) * _window(params)
    spectrum = torch.fft.rfft(frames).T  # (n_fft / 2 + 1, size)
    most, full_scale = params.most, params.size / 2  # of the magnitude: half the sum of the window
    magnitude, phase = spectrum.abs() / full_scale, spectrum.angle()

    red = _to_code(magnitude[:-1], most, params)
    if params.phase_encoding == "cos_sin":
        green = ((phase[:-1].cos() + 1) / 2 * most).round()
        blue = ((phase[:-1].sin() + 1) / 2 * most).round()
    else:
        green = _advance_codes(phase[:-1], red > 0, most)
        blue = torch.full_like(green, (most + 1) // 2)
    green[0] = torch.where(spectrum[0].real < 0, 0, most)
    half = (most + 1) // 2
    blue[0] = half + spectrum[-1].real.sign() * _to_code(magnitude[-1], half - 1, params)
    picture = torch.stack([red, green, blue], dim=-1).flip(0).numpy()
    return picture.astype(np.uint16 if params.bit_depth == 16 else np.uint8)


def decode_spectrum(picture: np.ndarray, params: CodecParams) -> Tensor:
    """Turns a picture (size, size, 3) back into its complex STFT (n_fft / 2 + 1, size).

    Pictures that a model made may hold any values: cosine and sine are brought to length 1, and where both vanish the
    phase is 0.
    """
    red, green, blue = torch.from_numpy(picture.astype(np.float32)).flip(0).unbind(-1)
    most, full_scale = params.most, params.size / 2
    half = (most + 1) // 2
    magnitude = _to_magnitude(red, most, params) * full_scale
    if params.phase_encoding == "cos_sin":
        phase = torch.atan2(2 * blue / most - 1, 2 * green / most - 1)
    else:
        phase = _phase_of_advances(green, most)
    spectrum = torch.polar(magnitude, phase)
    spectrum[0] = torch.where(green[0] < half, -1.0, 1.0) * magnitude[0]
    nyquist = blue[0] - half
    level = _to_magnitude(nyquist.abs(), half - 1, params) * full_scale
    return torch.cat([spectrum, torch.complex(nyquist.sign() * level, torch.zeros_like(level))[None]])


def _window(params: CodecParams) -> Tensor:
    return torch.hann_window(params.n_fft)


def _to_code(magnitude: Tensor, most: int, params: CodecParams) -> Tensor:
    """0 for what is too quiet, 1..most for TOP_DB - range_db..TOP_DB."""
    bottom = TOP_DB - params.range_db
    level = 20 * torch.log10(magnitude.clamp_min(1e-12))
    code = ((level - bottom) / params.range_db * (most - 1)).round() + 1
    return code.clamp(0, most)


def _to_magnitude(code: Tensor, most: int, params: CodecParams) -> Tensor:
    level = TOP_DB - params.range_db + (code - 1) / (most - 1) * params.range_db
    return torch.where(code > 0, 10 ** (level / 20), 0.0)


def _advance_codes(phase: Tensor, is_heard: Tensor, most: int) -> Tensor:
    """Codes of the phase advance (n_bins, n_frames), each from the phase that the codes before it decode to.

    So their rounding does not add up. Where nothing is heard the advance is 0.
    """
    expected = _expected_advance(len(phase))
    codes = torch.empty_like(phase)
    decoded = torch.zeros(len(phase))
    for t in range(phase.shape[1]):
        predicted = decoded + (expected if t else 0)
        advance = torch.remainder(phase[:, t] - predicted + math.pi, 2 * math.pi) - math.pi
        code = ((advance / math.pi + 1) / 2 * (most + 1)).round()
        # -1 and 1 are the same advance; the code of 0 is the middle, which a steady tone has exactly.
        codes[:, t] = torch.where(is_heard[:, t], torch.remainder(code, most + 1), (most + 1) // 2)
        decoded = predicted + (codes[:, t] / (most + 1) * 2 - 1) * math.pi
    return codes


def _phase_of_advances(codes: Tensor, most: int) -> Tensor:
    advance = (codes.double() / (most + 1) * 2 - 1) * math.pi
    advance[:, 1:] += _expected_advance(len(codes))[:, None]
    return torch.remainder(advance.cumsum(1), 2 * math.pi).float()


def _expected_advance(n_bins: int) -> Tensor:
    """What the phase of a tone in the middle of each bin advances by, a quarter of a turn for each bin, in radians."""
    return (torch.arange(n_bins) % 4).double() * (math.pi / 2)


def segments(blocks: Iterable[Tensor], params: CodecParams) -> Iterator[Tensor]:
    """Cuts a waveform that comes in blocks into what `encode_slice` takes: overlapping, with silence around.

    Args:
        blocks: (channels, any length).
    Yields:
        (channels, slice_samples + n_fft - hop_length), one for each slice_samples that were begun.
    """
    length = params.slice_samples + params.n_fft - params.hop_length
    waiting = None
    n_samples = n_slices = 0
    for block in blocks:
        n_samples += block.shape[1]
        waiting = F.pad(block, (params.n_fft // 2, 0)) if waiting is None else torch.cat([waiting, block], dim=1)
        while waiting.shape[1] >= length:
            yield waiting[:, :length]
            waiting = waiting[:, params.slice_samples :]
            n_slices += 1
    for _ in range(n_slices, math.ceil(n_samples / params.slice_samples)):
        yield F.pad(waiting, (0, max(0, length - waiting.shape[1])))[:, :length]
        waiting = waiting[:, params.slice_samples :]


class Song:
    """One channel of a song, put together from the spectra of its slices, in any order. Missing ones are silence.

    Args:
        n_samples: of the song.
        params: of its slices.
    """

    def __init__(self, n_samples: int, params: CodecParams) -> None:
        self.params, self.n_samples = params, n_samples
        self.numbers: set[int] = set()
        self._sum = torch.zeros(self.n_slices * params.slice_samples + 2 * params.n_fft)
        self._weight = torch.zeros_like(self._sum)

    @property
    def n_slices(self) -> int:
        """Slices of the whole song."""
        return math.ceil(self.n_samples / self.params.slice_samples)

    def add(self, number: int, spectrum: Tensor) -> None:
        """Adds slice `number`, the complex STFT (n_fft / 2 + 1, size)."""
        p, window = self.params, _window(self.params)
        frames = torch.fft.irfft(spectrum.T, n=p.n_fft) * window
        start = number * p.slice_samples
        for total, each in ((self._sum, frames), (self._weight, window.square().expand_as(frames))):
            total[start : start + p.slice_samples + p.n_fft - p.hop_length] += _overlap_add(each, p.hop_length)
        self.numbers.add(number)

    def waveform(self) -> Tensor:
        """Returns (n_samples,): the least-squares inverse of the spectra that were added."""
        start = self.params.n_fft // 2
        whole = slice(start, start + self.n_samples)
        # Samples of a slice stand under weights of a quarter and more; what lies beyond is the edge of a missing one.
        weight = self._weight[whole]
        return torch.where(weight > 0.2, self._sum[whole] / weight.clamp_min(0.2), 0.0)


def _overlap_add(frames: Tensor, hop_length: int) -> Tensor:
    """(n_frames, n) -> ((n_frames - 1) * hop_length + n,)"""
    n_frames, n = frames.shape
    total = (n_frames - 1) * hop_length + n
    return F.fold(frames.T[None], (1, total), (1, n), stride=(1, hop_length)).flatten()


def to_png(picture: np.ndarray, info: SliceInfo) -> bytes:
    """Encodes a picture (size, size, 3) of red, green and blue as a PNG whose text holds `info`."""
    png = cv2.imencode(".png", picture[..., ::-1])[1].tobytes()
    text = json.dumps({"version": CODEC_VERSION, **asdict(info)}, ensure_ascii=True).encode()
    after_header = len(_SIGNATURE) + 25  # IHDR: length, type, 13 bytes, checksum
    return png[:after_header] + _chunk(b"tEXt", _KEYWORD + b"\0" + text) + png[after_header:]


def from_png(png: bytes) -> tuple[np.ndarray, SliceInfo | None]:
    """Decodes a PNG into its picture, as it is, and what it knows of itself; None: it has no text of this codec.

    Returns:
        (height, width) or (height, width, channels) uint8 or uint16; red, green, blue, perhaps alpha.
    Raises:
        CodecError: no PNG, a damaged one, or the text of a newer version.
    """
    picture = None
    if png.startswith(_SIGNATURE) and _is_whole(png):
        picture = cv2.imdecode(np.frombuffer(png, np.uint8), cv2.IMREAD_UNCHANGED)
    if picture is None:
        raise CodecError("not a whole PNG; fetch or make it again")
    if picture.ndim == 3:
        picture = cv2.cvtColor(picture, cv2.COLOR_BGRA2RGBA if picture.shape[2] == 4 else cv2.COLOR_BGR2RGB)
    return picture, _read_info(png)


def _chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def _chunks(png: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Yields the kind and the content of each chunk, as far as they are whole."""
    place = len(_SIGNATURE)
    while place + 12 <= len(png):
        (length,) = struct.unpack(">I", png[place : place + 4])
        end = place + 12 + length
        if end > len(png):
            return
        kind, content = png[place + 4 : place + 8], png[place + 8 : end - 4]
        if struct.unpack(">I", png[end - 4 : end])[0] != zlib.crc32(kind + content):
            return
        yield kind, content
        place = end


def _is_whole(png: bytes) -> bool:
    """Whether each chunk is there, with the right checksum: OpenCV would fill what is missing with black."""
    return any(kind == b"IEND" for kind, _ in _chunks(png))


def _read_info(png: bytes) -> SliceInfo | None:
    for kind, content in _chunks(png):
        keyword, _, text = content.partition(b"\0")
        if kind == b"tEXt" and keyword == _KEYWORD:
            fields = json.loads(text)
            version = fields.pop("version")
            if version != CODEC_VERSION:
                raise CodecError(f"its text is of codec version {version}, this is {CODEC_VERSION}; update specgan")
            return SliceInfo(**{**fields, "params": CodecParams(**fields["params"])})
    return None
