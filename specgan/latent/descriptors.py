"""What a sound is like: six numbers, from its spectrogram alone, differentiable, so that sounds can be steered."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from specgan.spectrogram import LevelRange, Spectrogram, SpectrogramParams, denormalise, mel_filters

LENGTH_DB = 40.0  # below the loudest frame, where a sound ends
ATTACK_DB = (20.0, 3.0)  # below the loudest frame, where an attack begins and ends
LOUD_S = 0.05  # over which loudness is averaged
FLOOR_DB = 60.0  # below a frame's densest band, where flatness sees no deeper
CLEAR_PITCH = 0.25  # clarity of the sounds of a class that have a pitch
PITCHES = (40.0, 2000.0)  # Hz, the lowest and the highest pitch that is looked for

_N_HARMONICS, _HARMONIC = 6, 0.84  # of a pitch, and the weight of each beside the one before
_STEPS = 24  # pitches an octave
_SHARPNESS = 15.0  # of the choice among pitches, and of what counts as above a level, by decibel:
_LENGTH_SLOPE, _ATTACK_SLOPE = 0.2, 0.7
_SPREAD = 1.5  # FFT bins that the Hann window spreads the power of a sine over
_FAINT = 1e-14  # power re a full-scale sine that no logarithm sees below


@dataclass(frozen=True)
class Descriptor:
    """What one of the numbers is.

    Args:
        meaning: for people.
        unit: of the number.
        least: standard deviation below which the sounds of a class are alike, in that unit; None: half a frame.
    """

    meaning: str
    unit: str
    least: float | None


DESCRIPTORS: Mapping[str, Descriptor] = {
    "brightness": Descriptor("spectral centroid", "octaves above 1 kHz", 0.05),
    "length": Descriptor(f"time until it stays {LENGTH_DB:g} dB below its loudest frame", "s", None),
    "pitch": Descriptor("fundamental frequency, which few sounds follow", "semitones above 440 Hz", 0.25),
    "noisiness": Descriptor("spectral flatness of its bands, 0 is noise and less is tone", "dB", 0.3),
    "loudness": Descriptor("level of its loudest 50 ms", "dB of a full-scale sine", 0.25),
    "attack": Descriptor("time from 20 dB below its loudest frame to 3 dB below it", "s", None),
}

CLARITY = len(DESCRIPTORS)  # the column behind these


class Descriptors(nn.Module):
    """Describes spectrograms.

    Of several channels the mean power is described. What changes in the course of a sound is averaged over its frames,
    weighted by their power.

    Args:
        params: of the spectrograms.
        level_range: that [-1, 1] stands for.
    Source: the definitions of librosa.feature (spectral_centroid, spectral_flatness, rms), of mel bands instead of FFT
        bins; for pitch Hermes, "Measurement of pitch by subharmonic summation", 1988; for attack Peeters et al., "The
        Timbre Toolbox", 2011.
    """

    def __init__(self, params: SpectrogramParams, level_range: LevelRange) -> None:
        super().__init__()
        self.level_range, self.analysis = level_range, Spectrogram(params)
        self.frame_s = params.hop_length / params.sample_rate
        hz = torch.arange(params.n_fft // 2 + 1) * (params.sample_rate / params.n_fft)
        if params.kind == "mel":
            triangles = mel_filters(replace(params, norm=None))
            widths, gains = triangles.sum(dim=1), mel_filters(params).sum(dim=1)
            centres = triangles @ hz / widths
        else:
            centres = hz[params.fft_bins]
            widths = gains = torch.ones_like(centres)
        # By band: its centre in Hz, the FFT bins that it covers, and what a power of 1 in each of these gives.
        for name, values in (("centres", centres), ("widths", widths), ("gains", gains)):
            self.register_buffer(name, values[:, None], persistent=False)
        highest = min(PITCHES[1], params.upper_hz / 2)
        n_pitches = max(1, math.ceil(_STEPS * math.log2(max(highest / PITCHES[0], 1))) + 1)
        pitches = PITCHES[0] * 2 ** (torch.arange(n_pitches) / _STEPS)
        self.register_buffer("semitones", 12 * (pitches / 440).log2(), persistent=False)
        self.register_buffer("harmonics", _harmonic_weights(pitches, centres), persistent=False)

    def forward(self, spectrogram: Tensor) -> Tensor:
        """Describes spectrograms (B, channels, n_bins, n_frames) in [-1, 1].

        Returns:
            (B, n_descriptors + 1), in the order of DESCRIPTORS; the last, CLARITY, is how much of the sound is the
            harmonics of one pitch: about 1 of a tone, near 0 of noise.
        """
        density = self._density(spectrogram)  # (B, n_bins, n_frames)
        power = (density * self.widths).sum(dim=1) + _FAINT  # (B, n_frames)
        share = power / power.sum(dim=1, keepdim=True)
        level = 10 * power.log10()
        magnitude = (density.sum(dim=2) + _FAINT).sqrt()  # (B, n_bins)
        strength = magnitude @ self.harmonics  # (B, n_pitches)
        return torch.stack(
            [
                (share * self._centroid(density)).sum(dim=1),
                self._length(level),
                self._salience(strength) @ self.semitones,
                (share * _flatness(density)).sum(dim=1),
                self._loudness(power),
                self._attack(level),
                strength.amax(dim=1) / magnitude.norm(dim=1),
            ],
            dim=1,
        )

    def refusals(self, described: Tensor) -> dict[str, str]:
        """Why a descriptor cannot be steered in a class, by its name; those that can are not in it.

        Args:
            described: (B, n_descriptors + 1), of many sounds of the class, see `forward`.
        """
        refusals = {}
        if self.analysis.params.level != "db":
            refusals["loudness"] = f"level={self.analysis.params.level} spectrograms have no loudness"
        clarity = float(described[:, CLARITY].median())
        if clarity < CLEAR_PITCH:
            refusals["pitch"] = (
                f"most of its sounds have no clear pitch (clarity {clarity:.2f}, needed {CLEAR_PITCH:g})"
            )
        std = described[:, :CLARITY].std(dim=0).tolist()
        for (name, descriptor), differing in zip(DESCRIPTORS.items(), std, strict=True):
            least = self.frame_s / 2 if descriptor.least is None else descriptor.least
            if differing < least:
                unit = descriptor.unit.partition(" ")[0]
                alike = f"its sounds are alike in it (standard deviation {differing:.2g} {unit}, needed {least:.2g})"
                refusals.setdefault(name, alike)
        return refusals

    def _density(self, spectrogram: Tensor) -> Tensor:
        """Power by FFT bin, re a full-scale sine."""
        power = self.analysis.to_power(denormalise(spectrogram, self.level_range)).mean(dim=1)
        return power / (self.analysis.full_scale * self.gains)

    def _centroid(self, density: Tensor) -> Tensor:
        magnitude = (density + _FAINT).sqrt() * self.widths
        return ((magnitude * self.centres).sum(dim=1) / magnitude.sum(dim=1) / 1000).log2()

    def _length(self, level: Tensor) -> Tensor:
        still_to_come = level.flip(1).cummax(dim=1).values.flip(1)
        return self._duration(still_to_come, LENGTH_DB, _LENGTH_SLOPE)

    def _attack(self, level: Tensor) -> Tensor:
        reached = level.cummax(dim=1).values
        begun, ended = (self._duration(reached, below_db, _ATTACK_SLOPE) for below_db in ATTACK_DB)
        return begun - ended

    def _duration(self, level: Tensor, below_db: float, slope: float) -> Tensor:
        """The time in seconds for which a level (B, n_frames) is less than that below its highest value."""
        above = level - level.amax(dim=1, keepdim=True) + below_db
        return (above * slope).sigmoid().sum(dim=1) * self.frame_s * (1 + math.exp(-below_db * slope))

    def _loudness(self, power: Tensor) -> Tensor:
        n_frames = min(power.shape[1], max(1, round(LOUD_S / self.frame_s)))
        loudest = F.avg_pool1d(power[:, None], n_frames, stride=1).amax(dim=(1, 2))
        return 10 * (loudest / _SPREAD).log10()

    def _salience(self, strength: Tensor) -> Tensor:
        """The share (B, n_pitches) of each pitch in the choice among them."""
        return (_SHARPNESS * strength / strength.amax(dim=1, keepdim=True).clamp_min(_FAINT)).softmax(dim=1)


def _flatness(density: Tensor) -> Tensor:
    """(B, n_bins, n_frames) -> (B, n_frames): the geometric mean of a frame's bands by the arithmetic one, dB."""
    floored = density + density.amax(dim=1, keepdim=True) * 10 ** (-FLOOR_DB / 10) + _FAINT
    return 10 * (floored.log10().mean(dim=1) - floored.mean(dim=1).log10())


def _harmonic_weights(pitches: Tensor, centres: Tensor) -> Tensor:
    """The weight (n_bins, n_pitches) of each band for each pitch: at its harmonics, and below 0 between them."""
    weights = torch.zeros(len(pitches), len(centres))
    for n in range(1, _N_HARMONICS + 1):
        before, here = _HARMONIC ** max(n - 2, 0), _HARMONIC ** (n - 1)
        _add(weights, pitches * n, here, centres)
        _add(weights, pitches * (n - 0.5), -(before + here) / 2, centres)
    return weights.T.contiguous()


def _add(weights: Tensor, hz: Tensor, weight: float, centres: Tensor) -> None:
    """Adds a weight for each frequency (n_pitches,) to the two bands that it lies between, the more the nearer."""
    upper = torch.searchsorted(centres, hz).clamp(1, len(centres) - 1)
    place = ((hz - centres[upper - 1]) / (centres[upper] - centres[upper - 1])).clamp(0, 1)
    share = torch.where(hz < centres[-1], weight, 0.0)
    weights.scatter_add_(1, (upper - 1)[:, None], (share * (1 - place))[:, None])
    weights.scatter_add_(1, upper[:, None], (share * place)[:, None])
