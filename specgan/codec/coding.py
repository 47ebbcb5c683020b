"""Waveform <-> 16-bit picture that holds magnitude and phase, and loses nothing that can be heard.

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

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

TOP_DB = 6.5  # a constant at full scale has 6.02 dB
BIT_DEPTHS = (8, 16)
PHASE_ENCODINGS = ("cos_sin", "instantaneous_frequency")

_MAX_RANGE_DB = 240  # float32 holds the quietest sample beside the loudest, and silence stays below code 1


class CodecError(ValueError):
    """A picture that cannot be decoded. The message names what is wrong and what to do."""


@dataclass(frozen=True)
class CodecParams:
    """How pictures hold sound.

    Args:
        size: rows and columns of a picture, an even number of at least 4.
        bit_depth: 16, or 8 for trainers that take no more.
        phase_encoding: "cos_sin" or "instantaneous_frequency", see the module.
        range_db: dB from the quietest to the loudest magnitude, 100 to 240.

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
        if not isinstance(self.bit_depth, int) or self.bit_depth not in BIT_DEPTHS:
            raise ValueError(f"bit_depth is {self.bit_depth!r}; 16 or 8")
        if self.phase_encoding not in PHASE_ENCODINGS:
            raise ValueError(f"phase_encoding is {self.phase_encoding!r}; one of {', '.join(PHASE_ENCODINGS)}")
        if not isinstance(self.range_db, int | float) or not 100 <= self.range_db <= _MAX_RANGE_DB:
            raise ValueError(f"range_db is {self.range_db!r}; 100 to {_MAX_RANGE_DB}; below, quiet sounds are lost")

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


def count_slices(n_samples: int, params: CodecParams) -> int:
    """How many pictures n_samples take: the last one is filled up with silence."""
    return -(-n_samples // params.slice_samples)  # rounded up, exact at any size


def encode_slice(segment: Tensor, params: CodecParams) -> np.ndarray:
    """Turns a piece of sound into a picture.

    Args:
        segment: (slice_samples + n_fft - hop_length,), full scale 1.0: the samples of the slice with n_fft / 2 before
            and n_fft / 2 - hop_length behind them, silence where the song has none.
    Returns:
        (size, size, 3) uint8 or uint16, low frequencies in the last row; red, green, blue.
    """
    frames = segment.unfold(0, params.n_fft, params.hop_length) * _window(params)
    spectrum = torch.fft.rfft(frames)  # (size, n_fft / 2 + 1)
    magnitude = spectrum.abs()
    most, half = params.most, (params.most + 1) // 2

    red = _to_code(magnitude[:, :-1], most, params)
    if params.phase_encoding == "cos_sin":
        # Faster than by way of the angle. What has no magnitude has the phase 0.
        unit = torch.view_as_real(spectrum[:, :-1]) / magnitude[:, :-1, None]
        unit = torch.where((red > 0)[..., None], unit, torch.tensor([1.0, 0.0]))
        green, blue = ((unit + 1) * (most / 2)).round().unbind(-1)
    else:
        green = _advance_codes(spectrum[:, :-1].angle(), red > 0, most)
        blue = torch.full_like(green, half)
    green[:, 0] = torch.where(spectrum[:, 0].real < 0, 0, most)
    blue[:, 0] = half + spectrum[:, -1].real.sign() * _to_code(magnitude[:, -1], half - 1, params)
    dtype = np.uint16 if params.bit_depth == 16 else np.uint8
    picture = cv2.merge([channel.numpy().astype(dtype) for channel in (red, green, blue)])
    return cv2.rotate(picture, cv2.ROTATE_90_COUNTERCLOCKWISE)


def decode_spectrum(picture: np.ndarray, params: CodecParams) -> Tensor:
    """Turns a picture (size, size, 3) back into its complex STFT (n_fft / 2 + 1, size).

    Pictures that a model made may hold any values: cosine and sine are brought to length 1, and where both vanish the
    phase is 0.
    """
    channels = cv2.split(cv2.rotate(picture, cv2.ROTATE_90_CLOCKWISE))  # (frames, bins)
    red, green, blue = (torch.from_numpy(channel.astype(np.float32)) for channel in channels)
    most, half = params.most, (params.most + 1) // 2
    magnitude = _to_magnitude(red, most, params)
    if params.phase_encoding == "cos_sin":
        cosine, sine = green - most / 2, blue - most / 2  # never both 0: most is odd
        scale = magnitude / torch.hypot(cosine, sine)
        spectrum = torch.complex(cosine * scale, sine * scale)
    else:
        spectrum = torch.polar(magnitude, _phase_of_advances(green, most))
    spectrum[:, 0] = torch.where(green[:, 0] < half, -1.0, 1.0) * magnitude[:, 0]
    nyquist = blue[:, :1] - half
    level = nyquist.sign() * _to_magnitude(nyquist.abs(), half - 1, params)
    return torch.cat([spectrum, torch.complex(level, torch.zeros_like(level))], dim=1).T


def _window(params: CodecParams) -> Tensor:
    return torch.hann_window(params.n_fft)


def _to_code(magnitude: Tensor, most: int, params: CodecParams) -> Tensor:
    """0 for what is too quiet, 1..most for TOP_DB - range_db..TOP_DB, re half the sum of the window."""
    bottom = TOP_DB - params.range_db
    level = 20 * torch.log10((magnitude / (params.size / 2)).clamp_min(1e-12))
    code = ((level - bottom) / params.range_db * (most - 1)).round() + 1
    return code.clamp(0, most)


def _to_magnitude(code: Tensor, most: int, params: CodecParams) -> Tensor:
    level = TOP_DB - params.range_db + (code - 1) / (most - 1) * params.range_db
    return torch.where(code > 0, 10 ** (level / 20) * (params.size / 2), 0.0)


def _advance_codes(phase: Tensor, is_heard: Tensor, most: int) -> Tensor:
    """Codes of the phase advance (n_frames, n_bins), each from the phase that the codes before it decode to.

    So their rounding does not add up. Where nothing is heard the advance is 0.
    """
    expected = _expected_advance(phase.shape[1])
    codes = torch.empty_like(phase)
    decoded = torch.zeros(phase.shape[1])
    for t in range(len(phase)):
        predicted = decoded + (expected if t else 0)
        advance = torch.remainder(phase[t] - predicted + math.pi, 2 * math.pi) - math.pi
        code = ((advance / math.pi + 1) / 2 * (most + 1)).round()
        # -1 and 1 are the same advance; the code of 0 is the middle, which a steady tone has exactly.
        codes[t] = torch.where(is_heard[t], torch.remainder(code, most + 1), (most + 1) // 2)
        decoded = predicted + (codes[t] / (most + 1) * 2 - 1) * math.pi
    return codes


def _phase_of_advances(codes: Tensor, most: int) -> Tensor:
    advance = (codes.double() / (most + 1) * 2 - 1) * math.pi
    advance[1:] += _expected_advance(codes.shape[1])
    return torch.remainder(advance.cumsum(0), 2 * math.pi).float()


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
    for _ in range(n_slices, count_slices(n_samples, params)):
        yield F.pad(waiting, (0, max(0, length - waiting.shape[1])))[:, :length]
        waiting = waiting[:, params.slice_samples :]


class Song:
    """One channel of a song, put together from the spectra of its slices, in any order. Missing ones are silence.

    Args:
        n_samples: of the song, as far as slices stand for it.
        params: of its slices.
    """

    def __init__(self, n_samples: int, params: CodecParams) -> None:
        self.params, self.n_samples = params, n_samples
        self.numbers: set[int] = set()
        self._sum = torch.zeros(self.n_slices * params.slice_samples + params.n_fft - params.hop_length)

    @property
    def n_slices(self) -> int:
        """Slices of the whole song."""
        return count_slices(self.n_samples, self.params)

    def add(self, number: int, spectrum: Tensor) -> None:
        """Adds slice `number`, the complex STFT (n_fft / 2 + 1, size).

        Raises:
            ValueError: the song has no such slice, or it was added before.
        """
        if not 0 <= number < self.n_slices or number in self.numbers:
            raise ValueError(f"slice number is {number}; each of the song's {self.n_slices}, from 0 on, once")
        p = self.params
        frames = torch.fft.irfft(spectrum.T, n=p.n_fft) * _window(p)
        start = number * p.slice_samples
        self._sum[start : start + p.slice_samples + p.n_fft - p.hop_length] += _overlap_add(frames, p.hop_length)
        self.numbers.add(number)

    def waveform(self) -> Tensor:
        """Returns (n_samples,): the least-squares inverse of the spectra that were added.

        To be called once, at the end: it works in place, for an hour of sound is long.
        """
        p, total = self.params, self._sum
        del self._sum  # rather no second call than one that divides again
        # Of one slice: its own samples, then the overlap with the next.
        weights = _overlap_add(_window(p).square().expand(p.size, p.n_fft), p.hop_length).split(p.slice_samples)
        for number, part in enumerate(total.split(p.slice_samples)):
            weight = torch.zeros_like(part)
            for before, each in enumerate(weights):
                if number - before in self.numbers:
                    weight[: len(each)] += each
            # Samples of a slice stand under weights of a quarter and more; beyond is the edge of a missing one.
            part.copy_(torch.where(weight > 0.2, part / weight.clamp_min(0.2), 0.0))
        return total[p.n_fft // 2 :][: self.n_samples]


def _overlap_add(frames: Tensor, hop_length: int) -> Tensor:
    """(n_frames, n) -> ((n_frames - 1) * hop_length + n,); n is a multiple of hop_length."""
    n_frames, n = frames.shape
    total = torch.zeros((n_frames - 1) * hop_length + n)
    for start in range(0, n, hop_length):  # F.fold takes five times as long
        total[start : start + n_frames * hop_length] += frames[:, start : start + hop_length].flatten()
    return total


def fit_picture(
    picture: np.ndarray,
    params: CodecParams | None,
    *,
    phase_encoding: str = CodecParams.phase_encoding,
    range_db: float = CodecParams.range_db,
    griffin_lim: bool = False,
) -> tuple[np.ndarray, CodecParams, list[str]]:
    """Brings a picture, as `from_png` returns it, to what `decode_spectrum` takes. It is never resized.

    Args:
        picture: (height, width) or (height, width, channels) uint8 or uint16.
        params: of its text; None where it has none, then size and bit depth are the picture's own.
        phase_encoding, range_db: of a picture without text.
        griffin_lim: whether the phase will be searched, and so a grey picture is enough: it becomes the magnitude,
            beside a phase that means nothing.
    Returns:
        The picture (size, size, 3), its settings, and a remark on each thing that was done to it.
    Raises:
        CodecError: a picture that was resized, is not square or of an odd size; a grey one without `griffin_lim`; one
            of 16 bits whose text says 8.
        ValueError: an impossible `phase_encoding` or `range_db`.
    """
    height, width = picture.shape[:2]
    if params is not None and (height, width) != (params.size, params.size):
        raise CodecError(
            f"has {width} x {height} pixels, its text says {params.size} x {params.size}; pictures must not be resized "
            "or cropped: make it again"
        )
    if height != width or height % 2 or height < 4:
        raise CodecError(
            f"has {width} x {height} pixels; a picture of sound is square, of an even size of at least 4, and must not "
            "be resized or cropped"
        )
    remarks = []
    if picture.ndim == 3 and picture.shape[2] == 4:
        picture = picture[..., :3]
        remarks.append("alpha is left out")
    bit_depth = 8 * picture.dtype.itemsize
    if params is None:
        params = CodecParams(height, bit_depth, phase_encoding, range_db)
    if bit_depth < params.bit_depth:
        picture = picture.astype(np.uint16) * 257
        # The phase of an instantaneous frequency is a sum over the frames, and so is its rounding.
        is_sum = params.phase_encoding == "instantaneous_frequency"
        rest = "magnitudes hold about 30 dB, the phase drifts" if is_sum else "holds about 30 dB only"
        remarks.append(f"was reduced to 8 bits from the 16 of its text: {rest}")
    elif bit_depth > params.bit_depth:
        if (picture % 257).any():
            raise CodecError("has values of 16 bits, its text says 8; somebody changed it, make it again")
        picture = (picture // 257).astype(np.uint8)
        remarks.append("was widened to 16 bits from the 8 of its text: brought back")
    # OpenCV makes three equal channels of grey with alpha.
    if picture.ndim == 2 or (picture == picture[..., :1]).all():
        if not griffin_lim:
            raise CodecError("grey: it has no phase; phase=griffin_lim looks for one")
        red = picture if picture.ndim == 2 else picture[..., 0]
        # Griffin-Lim gets on worse from equal phases than from random ones.
        phase = np.random.default_rng(0).integers(0, params.most, (*red.shape, 2), red.dtype, endpoint=True)
        phase[-1, :, 1] = (params.most + 1) // 2  # no Nyquist bin
        picture = np.concatenate([red[..., None], phase], axis=-1)
        remarks.append("grey: magnitude alone, with a phase to start from that means nothing")
    return picture, params, remarks
