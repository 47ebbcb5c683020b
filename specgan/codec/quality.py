"""How far a picture is from its original: in pixels, and in sound."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import torch
from torch import Tensor

from specgan.codec.coding import CodecError, decode_spectrum
from specgan.codec.fitting import fit_picture
from specgan.codec.joining import JoinedSlices
from specgan.codec.png import SliceInfo
from specgan.spectrogram import power_blocks

PEAK = 65535  # of the 16-bit scale, on which all pictures are compared

_FLOOR_DB = -100  # re a full-scale sine, of the log-spectral distance


@dataclass(frozen=True)
class ReadPicture:
    """A picture without alpha, (height, width) or (height, width, 3), and its text; None: it has no text."""

    pixels: np.ndarray
    info: SliceInfo | None

    def widened(self) -> np.ndarray:
        """Returns the pixels as uint16: an 8-bit 255 becomes 65535."""
        return self.pixels.astype(np.uint16) * 257 if self.pixels.dtype == np.uint8 else self.pixels


def psnr(mean_square: float) -> float:
    """Peak signal-to-noise ratio in dB of a mean squared difference on the 16-bit scale; inf for 0."""
    return 10 * math.log10(PEAK**2 / mean_square) if mean_square else math.inf


def waveforms(
    original: ReadPicture, reconstructed: ReadPicture, *, phase_encoding: str, range_db: float
) -> tuple[Tensor, Tensor]:
    """Decodes each picture alone, as many samples as the first text says, or a whole slice.

    Args:
        original, reconstructed: one without text is decoded like the other.
        phase_encoding, range_db: where neither has text.
    Raises:
        CodecError: a picture that cannot be decoded.
    """
    known = original.info or reconstructed.info
    decode = partial(_waveform, known=known, phase_encoding=phase_encoding, range_db=range_db)
    return decode("original", original), decode("reconstructed", reconstructed)


def _waveform(
    name: str, picture: ReadPicture, known: SliceInfo | None, *, phase_encoding: str, range_db: float
) -> Tensor:
    params = picture.info.params if picture.info else None
    if params is None and known is not None:  # like the other picture, but a model may give another bit depth
        params = replace(known.params, bit_depth=8 * picture.pixels.itemsize)
    try:
        pixels, params, _ = fit_picture(picture.pixels, params, phase_encoding=phase_encoding, range_db=range_db)
    except CodecError as err:
        raise CodecError(f"{name} {err}") from err
    joined = JoinedSlices(known.slice_length if known else params.slice_samples, params)
    joined.add(0, decode_spectrum(pixels, params))
    return joined.waveform()


def snr(waveform: Tensor, other: Tensor) -> float | None:
    """Signal-to-noise ratio in dB; inf without an error, None for an error in silence."""
    signal = float(waveform.double().square().sum())
    error = float((other.double() - waveform).square().sum())
    if not error:
        return math.inf
    return 10 * math.log10(signal / error) if signal else None


def log_spectral_distance(waveform: Tensor, other: Tensor) -> float:
    """Returns the root mean square over bins of the difference of two powers in dB, averaged over frames.

    Source: A. H. Gray and J. D. Markel, Distance measures for speech processing, IEEE Trans. ASSP 24 (5), 1976. The
    floor is ours: without it, silence would be infinitely far from the faintest noise.
    """
    n_fft = min(2048, max(16, 2 ** int(math.log2(len(waveform)))))  # short slices have short frames
    full_scale = (n_fft / 4) ** 2  # the power of a sine: half the sum of the window, squared
    levels = []
    for sound in (waveform, other):
        blocks = power_blocks([sound[None]], n_fft=n_fft, win_length=n_fft, hop_length=n_fft // 4)
        power = torch.cat(list(blocks), dim=-1)[0].double()
        levels.append(10 * torch.log10(power / full_scale + 10 ** (_FLOOR_DB / 10)))
    return float((levels[0] - levels[1]).square().mean(dim=0).sqrt().mean())


def cautions(pictures: Sequence[ReadPicture]) -> list[str]:
    """Returns what makes the figures of a pair mean less."""
    notes = []
    n_bits = [8 * picture.pixels.itemsize for picture in pictures]
    if n_bits[0] != n_bits[1]:
        notes.append(f"{n_bits[0]} bit against {n_bits[1]} bit: the 8-bit picture is widened to 16")
    params = [picture.info.params for picture in pictures if picture.info]
    if len(params) == len(pictures):
        for name in ("phase_encoding", "range_db"):
            values = [getattr(each, name) for each in params]
            if values[0] != values[1]:
                notes.append(f"{name} {values[0]} against {values[1]}: their PSNR means little")
    return notes
