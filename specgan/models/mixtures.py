"""Examples for a vocoder: pieces of recordings, moved, mixed and scaled, and synthesised sounds among them."""

import torch
import torch.nn.functional as F
from torch import Tensor

_START, _MOVED = 0.4, 0.3  # shares of the pieces that begin with the recording, and somewhere before it
_MIXED = 0.3  # share that another piece is added to
_LOWEST_DB = 30.0  # dB that a piece is lowered by at most
_PEAK = 0.9
_MOST_PARTIALS = 24


class Mixtures:
    """Draws sounds to train on from a few recordings, without end.

    Args:
        recordings: (N, T), N >= 1.
        sample_rate: Hz.
        n_samples: of a drawn sound.
        synthetic: share of synthesised sounds.
    """

    def __init__(self, recordings: Tensor, *, sample_rate: int, n_samples: int, synthetic: float = 0.2) -> None:
        is_audible = recordings.abs().amax(1) > 1e-4
        if not bool(is_audible.any()):
            raise ValueError("all recordings to train on are silent; check the folder of sounds")
        self.recordings, self.sample_rate, self.n_samples = recordings[is_audible], sample_rate, n_samples
        self.synthetic = synthetic

    def draw(self, n: int, generator: torch.Generator) -> Tensor:
        """Returns n sounds (n, n_samples); none of them is silent or exceeds full scale."""
        sounds = torch.stack([self._one(generator) for _ in range(n)])
        silent = sounds.abs().amax(1) < 1e-4
        sounds[silent] = self._synthetic(int(silent.sum()), generator)
        peak = _PEAK * 10 ** (-_LOWEST_DB / 20 * torch.rand(n, 1, generator=generator))
        return sounds / sounds.abs().amax(1, keepdim=True) * peak

    def _one(self, generator: torch.Generator) -> Tensor:
        def chance() -> float:
            return float(torch.rand(1, generator=generator))

        if chance() < self.synthetic:
            return self._synthetic(1, generator)[0]
        sound = self._piece(generator)
        if chance() < _MIXED:
            sound = sound + 10 ** (-1.5 * chance()) * self._piece(generator)
        return sound

    def _piece(self, generator: torch.Generator) -> Tensor:
        index = int(torch.randint(len(self.recordings), (1,), generator=generator))
        recording, n = self.recordings[index], self.n_samples
        kind, place = torch.rand(2, generator=generator).tolist()
        if kind < _START:
            piece = recording[:n]
        elif kind < _START + _MOVED:
            piece = F.pad(recording, (round(place * n * 0.8), 0))[:n]
        else:
            piece = recording[round(place * max(0, len(recording) - n)) :][:n]
        return F.pad(piece, (0, n - len(piece)))

    def _synthetic(self, n: int, generator: torch.Generator) -> Tensor:
        return synthesised(n, n_samples=self.n_samples, sample_rate=self.sample_rate, generator=generator)


def synthesised(n: int, *, n_samples: int, sample_rate: int, generator: torch.Generator) -> Tensor:
    """Draws n mixtures (n, n_samples) of sines (single, harmonic or not, some gliding), filtered noise and clicks."""

    def uniform(low: float, high: float, *shape: int) -> Tensor:
        return low + (high - low) * torch.rand(*shape, generator=generator)

    t = torch.arange(n_samples) / sample_rate
    onset = (uniform(-0.3, 0.7, n, 1) * n_samples / sample_rate).clamp_min(0)
    after = (t - onset).clamp_min(0)
    sounds = []
    for i in range(n):
        n_partials = int(torch.randint(1, _MOST_PARTIALS + 1, (1,), generator=generator))
        lowest = 40 * 2 ** float(uniform(0, 5, 1))
        ratios = torch.arange(1, n_partials + 1) + uniform(-0.3, 0.3, n_partials) * (uniform(0, 1, 1) < 0.4)
        ratios = ratios[lowest * ratios < 0.45 * sample_rate]
        gains = uniform(0.1, 1, len(ratios)) * ratios.clamp_min(1) ** -float(uniform(0, 2, 1))
        glide = float(uniform(-2, 2, 1)) * float(uniform(0, 1, 1) < 0.5)
        cycles = lowest * (after[i] + glide * after[i].square() / 2)
        phases = 2 * torch.pi * (ratios[:, None] * cycles + uniform(0, 1, len(ratios), 1))
        decays = torch.exp(-after[i] * 10 ** uniform(-0.5, 1.7, len(ratios), 1))
        tone = (gains[:, None] * decays * torch.sin(phases)).sum(0)
        noise = _noise(n_samples, generator) * torch.exp(-after[i] * 10 ** float(uniform(-0.5, 2.3, 1)))
        shares = 10 ** uniform(-2.5, 0, 2)
        sound = _unit(tone) * shares[0] + _unit(noise) * shares[1]
        sound = sound * (t >= onset[i])
        click = int(torch.randint(n_samples, (1,), generator=generator))
        if float(uniform(0, 1, 1)) < 0.3:
            sound[click : click + 3] += float(uniform(0.2, 1, 1))
        sounds.append(_unit(sound))
    return torch.stack(sounds) if sounds else torch.zeros(0, n_samples)


def _noise(n_samples: int, generator: torch.Generator) -> Tensor:
    """Noise (n_samples,) with a random, smooth spectrum."""
    spectrum = torch.fft.rfft(torch.randn(n_samples, generator=generator))
    shape = F.interpolate(
        3 * torch.randn(1, 1, 12, generator=generator), len(spectrum), mode="linear", align_corners=True
    )
    return torch.fft.irfft(spectrum * shape[0, 0].exp(), n_samples)


def _unit(sound: Tensor) -> Tensor:
    return sound / sound.abs().amax().clamp_min(1e-8)
