"""Spectra of slices -> the waveform that they were cut from."""

import torch
from torch import Tensor

from specgan.codec.coding import CodecParams, count_slices


class JoinedSlices:
    """One channel of a song, put together from the spectra of its slices, in any order. Missing slices are silence.

    Args:
        n_samples: of all slices of the song, without the silence that fills the last one.
        params: of the slices.
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
        frames = torch.fft.irfft(spectrum.T, n=p.n_fft) * p.window()
        start = number * p.slice_samples
        self._sum[start : start + p.slice_samples + p.n_fft - p.hop_length] += _overlap_add(frames, p.hop_length)
        self.numbers.add(number)

    def waveform(self) -> Tensor:
        """Returns (n_samples,): the least-squares inverse of the spectra that were added.

        To be called once, after the last slice: it works in place, to hold an hour of sound in memory once.
        """
        p, total = self.params, self._sum
        del self._sum  # a second call fails, instead of dividing again
        # The weights of one slice: over its own samples, then over the overlap with the next slice.
        weights = _overlap_add(p.window().square().expand(p.size, p.n_fft), p.hop_length).split(p.slice_samples)
        for number, part in enumerate(total.split(p.slice_samples)):
            weight = torch.zeros_like(part)
            for before, each in enumerate(weights):
                if number - before in self.numbers:
                    weight[: len(each)] += each
            # The samples of a slice have weights of a quarter and more; less is the edge of a missing slice.
            part.copy_(torch.where(weight > 0.2, part / weight.clamp_min(0.2), 0.0))
        return total[p.n_fft // 2 :][: self.n_samples]


def _overlap_add(frames: Tensor, hop_length: int) -> Tensor:
    """(n_frames, n) -> ((n_frames - 1) * hop_length + n,); n is a multiple of hop_length."""
    n_frames, n = frames.shape
    total = torch.zeros((n_frames - 1) * hop_length + n)
    for start in range(0, n, hop_length):  # F.fold takes five times as long
        total[start : start + n_frames * hop_length] += frames[:, start : start + hop_length].flatten()
    return total
