"""Slice of a waveform <-> 16-bit picture that holds magnitude and phase, and loses nothing that can be heard.

    waveform --STFT, n_fft = 2 * size, hop = size / 2--> frames --cut--> slices of `size` frames --> square pictures

The hop and the FFT follow from the size, so no picture is ever resized. Slice s stands for the samples from
s * size * hop_length on, as many as that; its frame t is centred on sample (s * size + t) * hop_length.

A picture has one row a bin, low frequencies at the bottom, and three channels:

    red     magnitude in dB re a full-scale sine: code 0 is silence, the others go from TOP_DB - range_db to TOP_DB
    green   cosine of the phase (phase_encoding "cos_sin"); or how far the phase advances from frame to frame beyond the
            bin's own frequency, divided by pi, -1..1, which is 0 for a steady tone ("instantaneous_frequency")
    blue    sine of the phase ("cos_sin"); or unused

The lowest row is bin 0, which is real: its green is the sign. Its blue holds the Nyquist bin, which is real too, and
would be one row more: the middle is 0, above are positive values, below negative ones, each by its dB like red.
"""

import math
from dataclasses import dataclass

import cv2
import numpy as np
import torch
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
        bit_depth: 16, or 8 for trainers that read no 16-bit PNG.
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

    def window(self) -> Tensor:
        """Returns the Hann window, (n_fft,)."""
        return torch.hann_window(self.n_fft)


def count_slices(n_samples: int, params: CodecParams) -> int:
    """Returns how many slices n_samples need: the last one is filled up with silence."""
    return -(-n_samples // params.slice_samples)  # rounded up, exact at any size


def encode_slice(segment: Tensor, params: CodecParams) -> np.ndarray:
    """Turns a slice of sound into a picture.

    Args:
        segment: (slice_samples + n_fft - hop_length,), full scale 1.0: the samples of the slice with n_fft / 2 before
            and n_fft / 2 - hop_length behind them, silence beyond the ends of the song.
    Returns:
        (size, size, 3) uint8 or uint16, low frequencies in the last row; red, green, blue.
    """
    frames = segment.unfold(0, params.n_fft, params.hop_length) * params.window()
    spectrum = torch.fft.rfft(frames)  # (size, n_fft / 2 + 1)
    magnitude = spectrum.abs()
    most, half = params.most, (params.most + 1) // 2

    red = _to_code(magnitude[:, :-1], most, params)
    if params.phase_encoding == "cos_sin":
        # Faster than the angle's cosine and sine. Silence has the phase 0.
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

    Pictures from an image model may hold any values: cosine and sine are scaled to length 1.
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


def _to_code(magnitude: Tensor, most: int, params: CodecParams) -> Tensor:
    """0 below the range, 1..most for TOP_DB - range_db..TOP_DB, re half the sum of the window."""
    bottom = TOP_DB - params.range_db
    level = 20 * torch.log10((magnitude / (params.size / 2)).clamp_min(1e-12))
    code = ((level - bottom) / params.range_db * (most - 1)).round() + 1
    return code.clamp(0, most)


def _to_magnitude(code: Tensor, most: int, params: CodecParams) -> Tensor:
    level = TOP_DB - params.range_db + (code - 1) / (most - 1) * params.range_db
    return torch.where(code > 0, 10 ** (level / 20) * (params.size / 2), 0.0)


def _advance_codes(phase: Tensor, is_audible: Tensor, most: int) -> Tensor:
    """Codes of the phase advance (n_frames, n_bins), each from the phase that the codes before it decode to.

    So rounding errors do not add up. In silence the advance is 0.
    """
    expected = _expected_advance(phase.shape[1])
    codes = torch.empty_like(phase)
    decoded = torch.zeros(phase.shape[1])
    for t in range(len(phase)):
        predicted = decoded + (expected if t else 0)
        advance = torch.remainder(phase[t] - predicted + math.pi, 2 * math.pi) - math.pi
        code = ((advance / math.pi + 1) / 2 * (most + 1)).round()
        # -1 and 1 are the same advance; the code of 0 is the middle, which a steady tone has exactly.
        codes[t] = torch.where(is_audible[t], torch.remainder(code, most + 1), (most + 1) // 2)
        decoded = predicted + (codes[t] / (most + 1) * 2 - 1) * math.pi
    return codes


def _phase_of_advances(codes: Tensor, most: int) -> Tensor:
    advance = (codes.double() / (most + 1) * 2 - 1) * math.pi
    advance[1:] += _expected_advance(codes.shape[1])
    return torch.remainder(advance.cumsum(0), 2 * math.pi).float()


def _expected_advance(n_bins: int) -> Tensor:
    """How far the phase of a tone at each bin's frequency advances in a hop: a quarter turn more each bin, radians."""
    return (torch.arange(n_bins) % 4).double() * (math.pi / 2)
