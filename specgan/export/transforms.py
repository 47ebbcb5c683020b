"""The Fourier transform and the frames of sounds in real numbers, because ONNX Runtime has no complex ones."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from specgan.vocoders.frames import Frames


class Fourier(nn.Module):
    """The discrete Fourier transform of a fixed length, as two products with small matrices.

    A length of 2048 is 32 times 64: the matrices have 5,120 entries where one for the whole has 4 million.

    Args:
        n_fft: the length.

    Source: Cooley, Tukey, "An algorithm for the machine calculation of complex Fourier series", 1965.
    """

    def __init__(self, n_fft: int) -> None:
        super().__init__()
        self.n_fft = n_fft
        self.n_first = next(n for n in range(math.isqrt(n_fft), 0, -1) if n_fft % n == 0)
        self.n_second = n_fft // self.n_first
        first, second = torch.arange(self.n_first), torch.arange(self.n_second)
        # sample = n_second * first + second, bin = first + n_first * second
        for name, product, n in (
            ("first", torch.outer(first, first), self.n_first),
            ("turn", torch.outer(second, first), n_fft),
            ("second", torch.outer(second, second), self.n_second),
        ):
            angle = -2 * torch.pi * (product % n).double() / n
            self.register_buffer(f"{name}_real", angle.cos().float())
            self.register_buffer(f"{name}_imag", angle.sin().float())
        weight = torch.full((n_fft // 2 + 1,), 2 / n_fft)  # bins stand for their mirror images too
        weight[0] = 1 / n_fft
        if n_fft % 2 == 0:
            weight[-1] = 1 / n_fft
        self.register_buffer("weight", weight)

    def forward(self, samples: Tensor) -> tuple[Tensor, Tensor]:
        """(..., n_fft) -> the real and the imaginary part of bins (..., n_fft // 2 + 1)."""
        samples = self._split(samples)
        real, imag = self._second(*self._turned(samples @ self.first_real, samples @ self.first_imag))
        n_bins = self.n_fft // 2 + 1
        return _joined(real)[..., :n_bins], _joined(imag)[..., :n_bins]

    def inverse(self, real: Tensor, imag: Tensor) -> Tensor:
        """The real and the imaginary part of bins (..., n_fft // 2 + 1) -> (..., n_fft)."""
        n_lacking = self.n_fft - len(self.weight)
        # The inverse is the transform of the conjugate, where only the real part is wanted.
        real, imag = (self._split(F.pad(part * self.weight, (0, n_lacking))) for part in (real, -imag))
        real, imag = (
            real @ self.first_real - imag @ self.first_imag,
            real @ self.first_imag + imag @ self.first_real,
        )
        real, imag = self._turned(real, imag)
        return _joined((real @ self.second_real) - (imag @ self.second_imag))

    def _split(self, samples: Tensor) -> Tensor:
        return samples.unflatten(-1, (self.n_first, self.n_second)).transpose(-1, -2)  # (..., second, first)

    def _turned(self, real: Tensor, imag: Tensor) -> tuple[Tensor, Tensor]:
        """(..., second sample, first bin) -> (..., first bin, second sample)."""
        return (
            (real * self.turn_real - imag * self.turn_imag).transpose(-1, -2),
            (real * self.turn_imag + imag * self.turn_real).transpose(-1, -2),
        )

    def _second(self, real: Tensor, imag: Tensor) -> tuple[Tensor, Tensor]:
        return (
            real @ self.second_real - imag @ self.second_imag,
            real @ self.second_imag + imag @ self.second_real,
        )


def _joined(bins: Tensor) -> Tensor:
    return bins.transpose(-1, -2).flatten(-2)  # (..., first bin, second bin) -> (..., bins)


class RealFrames(nn.Module):
    """The methods of `Frames` for spectra in two parts, real and imaginary.

    Args:
        frames: whose lengths, window and scale are taken.
    """

    def __init__(self, frames: Frames) -> None:
        super().__init__()
        self.n_fft, self.hop_length, self.win_length = frames.n_fft, frames.hop_length, frames.win_length
        self.left, self.start, self.stop = frames.left, frames.start, frames.stop
        self.n_hops = -(-self.win_length // self.hop_length)  # that a window reaches over
        self.n_frames = frames.scale.shape[-1] // self.hop_length - self.n_hops + 1
        self.fourier = Fourier(self.n_fft)
        self.register_buffer("window", frames.window)
        self.register_buffer("scale", frames.scale)

    def sound(self, real: Tensor, imag: Tensor) -> Tensor:
        """Bins (B, n_frames + 1, n_fft // 2 + 1) -> the sound (B, samples) that `Frames.synthesise` surrounds."""
        frames = self.fourier.inverse(real, imag)[..., self.left : self.left + self.win_length] * self.window
        frames = F.pad(frames, (0, self.n_hops * self.hop_length - self.win_length))
        parts = frames.split(self.hop_length, -1)
        samples = [F.pad(part, (0, 0, i, self.n_hops - 1 - i)) for i, part in enumerate(parts)]
        return (sum(samples[1:], samples[0]).flatten(1) * self.scale)[:, self.start : self.stop]

    def analyse(self, waveform: Tensor) -> tuple[Tensor, Tensor]:
        """Sounds (B, samples) -> the real and the imaginary part of (B, n_frames + 1, n_fft // 2 + 1)."""
        n_right = self.scale.shape[-1] - self.stop
        hops = F.pad(waveform, (self.start, n_right)).unflatten(-1, (-1, self.hop_length))
        parts = [hops[:, i : i + self.n_frames] for i in range(self.n_hops)]
        frames = torch.cat(parts, -1)[..., : self.win_length] * self.window
        return self.fourier(F.pad(frames, (self.left, self.n_fft - self.win_length - self.left)))
