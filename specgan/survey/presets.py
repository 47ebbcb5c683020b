"""How much of recordings each spectrogram preset keeps, and which one to take."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from specgan.spectrogram import SpectrogramParams
from specgan.survey.spectrum import mel

KEPT = 0.95  # of the length and the band of the recordings on average, with which a preset suits
TIMES_ON_CPU = 4  # the values of the smallest preset: what trains in an hour or so there
_NEAR = 0.05  # where no preset keeps enough: how much less than the best one the chosen one may keep
_MORE = 0.01  # that a better preset keeps


@dataclass(frozen=True)
class Fit:
    """What a preset keeps of recordings.

    Args:
        name: of the preset.
        params: its settings.
        length: 0..1, the share of a recording's sound that an example holds, on average over the recordings.
        band: 0..1, the same of the pitches (in mel) up to `audible_hz`.
        n_longer: recordings whose sound is longer than an example.
        n_higher: recordings with audible sound above `upper_hz`.
    """

    name: str
    params: SpectrogramParams
    length: float
    band: float
    n_longer: int
    n_higher: int

    @property
    def example_s(self) -> float:
        return example_s(self.params)

    @property
    def values(self) -> int:
        """Of an example."""
        return values(self.params)

    @property
    def suits(self) -> bool:
        """Whether it keeps 95 % of the length, and of the band."""
        return min(self.length, self.band) >= KEPT

    @property
    def kept(self) -> float:
        """0..1, of length times band."""
        return self.length * self.band


def read_presets() -> dict[str, SpectrogramParams]:
    """Reads all presets that have a length from the configuration of the running script, own ones included."""
    from hydra import compose
    from hydra.core.global_hydra import GlobalHydra
    from hydra.utils import instantiate

    names = GlobalHydra.instance().config_loader().get_group_options("spectrogram")
    presets = {
        name: instantiate(compose(overrides=[f"+spectrogram={name}"]).spectrogram, _convert_="all") for name in names
    }
    return {name: params for name, params in presets.items() if params.n_frames is not None}


def example_s(params: SpectrogramParams) -> float:
    """Length of a training example in seconds."""
    return params.n_samples / params.sample_rate


def values(params: SpectrogramParams) -> int:
    """Numbers in a training example, which the time of a training step goes by."""
    return params.n_bins * params.n_frames


def fit(name: str, params: SpectrogramParams, sound_s: np.ndarray, audible_hz: np.ndarray) -> Fit:
    """Compares a preset with recordings.

    Args:
        name: of the preset.
        params: its settings, with a length.
        sound_s: (N,) length of each recording without the silence at its ends, > 0.
        audible_hz: (M,) where the sound of each ends, see `Band`; of all of them or of some.
    """
    length = example_s(params)
    pitch, top = np.maximum(mel(audible_hz), 1e-3), mel(params.upper_hz)
    return Fit(
        name,
        params,
        length=_mean(np.minimum(length / np.maximum(sound_s, 1e-6), 1)),
        band=_mean(np.minimum(top / pitch, 1)),
        n_longer=int((sound_s > length).sum()),
        n_higher=int((audible_hz > params.upper_hz).sum()),
    )


def _mean(shares: np.ndarray) -> float:
    return float(shares.mean()) if len(shares) else 1.0


def fit_all(presets: Mapping[str, SpectrogramParams], sound_s: np.ndarray, audible_hz: np.ndarray) -> list[Fit]:
    """Compares all presets with recordings, the smallest first; of equal ones that which keeps more."""
    fits = [fit(name, params, sound_s, audible_hz) for name, params in presets.items()]
    return sorted(fits, key=lambda each: (each.values, -round(each.kept, 2), each.params.sample_rate, each.name))


def choose(fits: Sequence[Fit], *, most_values: int | None = None) -> Fit:
    """Returns the smallest preset that keeps 95 % of the length and of the band, or nearly as much as any does.

    Args:
        fits: of at least one preset, as `fit_all` sorts them.
        most_values: of an example; None: any size. At least the smallest presets are considered.
    """
    smallest = fits[0].values
    affordable = [each for each in fits if most_values is None or each.values <= max(most_values, smallest)]
    if suiting := [each for each in affordable if each.suits]:
        return suiting[0]
    # Relative to the longest: of recordings of minutes no example holds much.
    longest = max(each.length for each in affordable)
    kept = [each.length / max(longest, 1e-9) * each.band for each in affordable]
    return next(each for each, share in zip(affordable, kept, strict=True) if share >= max(kept) - _NEAR)


def next_better(fits: Sequence[Fit], chosen: Fit) -> Fit | None:
    """Returns the smallest preset that keeps more than the chosen one; None: no preset does."""
    return next((each for each in fits if each.kept >= chosen.kept + _MORE), None)
