"""The preset that suits recordings, the command that trains with it, and what a better one costs."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pandas as pd

from specgan.command_line.arguments import Setting
from specgan.spectrogram import SpectrogramParams
from specgan.survey.findings import N_SPLITS, silent
from specgan.survey.presets import TIMES_ON_CPU, Fit, choose, fit_all, next_better

Settings = dict[str, Setting]  # of train.py, by name


@dataclass(frozen=True)
class Advice:
    """What to train with.

    Args:
        chosen: the preset.
        better: the next one, which keeps more; None: there is none.
        fits: of all presets, the smallest first.
        n_recordings: that were compared.
        is_limited: the chosen one is of those that train on a CPU.
    """

    chosen: Fit
    better: Fit | None
    fits: Sequence[Fit]
    n_recordings: int
    is_limited: bool

    @property
    def about_chosen(self) -> str:
        """A sentence about the chosen preset."""
        for_whom = " that trains on a CPU" if self.is_limited else ""
        verdict = "suits" if self.chosen.suits else f"keeps about as much as any preset{for_whom}"
        return f"spectrogram={self.chosen.name} {verdict}: {kept_by(self.chosen, self.n_recordings)}."

    @property
    def about_better(self) -> str:
        """A sentence about the next one; "": there is none."""
        if self.better is None:
            return ""
        times = self.better.values / self.chosen.values
        cost = "as many values" if times == 1 else f"{times:.1f} times the values"
        return (
            f"The next better is spectrogram={self.better.name}: {kept_by(self.better, self.n_recordings)}; {cost}, "
            "and a step of training takes about as much longer."
        )


def advise(table: pd.DataFrame, presets: Mapping[str, SpectrogramParams], *, has_gpu: bool) -> Advice | None:
    """Chooses a preset.

    Args:
        table: a row for each recording, see `findings`.
        presets: by name, each with a length.
        has_gpu: else only presets that train on a CPU are chosen.
    Returns:
        None: there is no preset, or all recordings are silent.
    """
    heard = table[~silent(table)]
    if not len(heard) or not presets:
        return None
    sound_s = heard["duration_s"] - heard["start_silence_s"] - heard["end_silence_s"]
    fits = fit_all(presets, sound_s.to_numpy(), heard["audible_hz"].dropna().to_numpy())
    chosen = choose(fits, most_values=None if has_gpu else TIMES_ON_CPU * fits[0].values)
    return Advice(chosen, next_better(fits, chosen), fits, len(heard), is_limited=not has_gpu)


def kept_by(fit: Fit, n: int) -> str:
    """Says what a preset keeps of n recordings."""
    length = f"{fit.example_s:.2f} s"
    longer = f"{fit.n_longer} of {n} recordings are longer" if fit.n_longer else "no recording is longer"
    higher = f"{fit.n_higher} have" if fit.n_higher else "none has"
    return (
        f"{length} and up to {fit.params.upper_hz:.0f} Hz ({longer}, {higher} audible sound above; "
        f"{100 * fit.length:.0f} % of the length and {100 * fit.band:.0f} % of the pitch range are kept)"
    )


def training_settings(table: pd.DataFrame, advice: Advice) -> Settings:
    """The settings of train.py that follow from the recordings: the preset, and what makes classes too small work."""
    counts = table["label"].value_counts()
    settings: Settings = {"spectrogram": advice.chosen.name}
    if counts.max() < N_SPLITS:
        settings["data.splits"] = [100, 0, 0]
    elif counts.min() < N_SPLITS:
        settings["data.min_recordings"] = N_SPLITS
    return settings
