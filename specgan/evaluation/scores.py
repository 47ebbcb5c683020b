"""The ratings of several listeners -> scores with intervals."""

from collections.abc import Mapping
from dataclasses import dataclass

import pandas as pd
from scipy.special import stdtrit

from specgan.evaluation.ratings import MOST

# The weights of DCASE 2023 task 7 (Foley sound synthesis).
WEIGHTS = {"quality": 2.0, "fit": 2.0, "diversity": 1.0}
SCORES: dict[str, dict[str, float]] = {**{name: {name: 1.0} for name in WEIGHTS}, "total": WEIGHTS}
COLUMNS = ("listener", "label", "row", "item", "name", "points")


@dataclass(frozen=True)
class Score:
    """A mean of ratings, and its 95 % interval, or None where nothing is known of it."""

    value: float
    low: float | None
    high: float | None


def score(ratings: pd.DataFrame, weights: Mapping[str, float]) -> Score | None:
    """The mean over classes of the weighted mean of what is rated, with an interval for other listeners and sounds.

    Each sound counts the same in its class, and each class in the whole; a class in which one of the things to weigh
    is not rated is left out. The interval is Student's: the variance of the mean is that of the listeners' means, plus,
    for each class, that of the sounds' means, each divided by their number; the degrees of freedom are Satterthwaite's.
    It counts what listeners and sounds do not explain twice, so it is rather too wide. With one listener it is of other
    sounds alone. A set of sounds is rated as one, so for diversity it is of other listeners alone.

    Args:
        ratings: of one row of sounds, with the columns COLUMNS: `item` is a sound or a set, `name` what is rated.
        weights: by name of what is rated; they need not sum to 1.
    Returns:
        The score; None: no class has all that is to be weighed.
    Source: Satterthwaite, "An approximate distribution of estimates of variance components", 1946.
    """
    used = ratings[ratings["name"].isin(weights)]
    of_items = used.groupby(["label", "name", "item"])["points"].mean()
    cells = of_items.groupby(["label", "name"]).mean().unstack("name").reindex(columns=list(weights)).dropna()
    if cells.empty:
        return None
    shares = pd.Series(weights) / sum(weights.values()) / len(cells)
    value = float((cells * shares).to_numpy().sum())

    used = used[used["label"].isin(cells.index)]
    share = used["name"].map(shares)
    above = share * (used["points"] - used.groupby(["label", "name", "item"])["points"].transform("mean"))
    of_listeners = above.groupby([used["listener"], used["label"], used["name"]]).mean().groupby("listener").sum()

    of_items = of_items[of_items.index.get_level_values("label").isin(cells.index)]
    of_items = of_items[of_items.groupby(["label", "name"]).transform("size") > 1]
    centred = of_items - of_items.groupby(["label", "name"]).transform("mean")
    centred *= centred.index.get_level_values("name").map(shares).to_numpy(float)
    of_sounds = centred.groupby(["label", "item"]).sum()

    means = [of_listeners, *(of_class for _, of_class in of_sounds.groupby("label"))]
    return Score(value, *_interval(value, [each for each in means if len(each) > 1]))


def _interval(value: float, means: list[pd.Series], *, confidence: float = 0.95) -> tuple[float | None, float | None]:
    """The interval about the sum of means that are independent of each other."""
    if not means:
        return None, None
    variances = [float(each.var()) / len(each) for each in means]
    total = sum(variances)
    if total == 0:  # all are of one opinion
        return value, value
    freedom = total**2 / sum(variance**2 / (len(each) - 1) for variance, each in zip(variances, means, strict=True))
    width = float(stdtrit(freedom, (1 + confidence) / 2)) * total**0.5
    return max(0.0, value - width), min(float(MOST), value + width)
