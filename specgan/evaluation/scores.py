"""The ratings of several listeners -> scores with intervals."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, variance
from typing import NamedTuple

from scipy.special import stdtrit

from specgan.evaluation.ratings import MOST

# The weights of DCASE 2023 task 7 (Foley sound synthesis).
WEIGHTS = {"quality": 2.0, "fit": 2.0, "diversity": 1.0}
SCORES: dict[str, dict[str, float]] = {**{name: {name: 1.0} for name in WEIGHTS}, "total": WEIGHTS}


class Rating(NamedTuple):
    """The points of a listener for a sound, or for a set of sounds.

    Args:
        listener: who gave them.
        label: the class.
        row: where the sound comes from.
        item: the number of the sound or the set.
        name: what is rated.
        points: from 0 to `MOST`.
    """

    listener: str
    label: str
    row: str
    item: str
    name: str
    points: int


@dataclass(frozen=True)
class Score:
    """A mean of ratings, and its 95 % interval, or None where nothing is known of it."""

    value: float
    low: float | None
    high: float | None


def score(ratings: Iterable[Rating], weights: Mapping[str, float]) -> Score | None:
    """The mean over classes of the weighted mean of what is rated, with an interval for other listeners and sounds.

    Each sound counts the same in its class, and each class in the whole; a class in which one of the things to weigh
    is not rated is left out. The interval is Student's: the variance of the mean is that of the listeners' means, plus,
    for each class, that of the sounds' means, each divided by their number; the degrees of freedom are Satterthwaite's.
    It counts what listeners and sounds do not explain twice, so it is rather too wide. With one listener it is of other
    sounds alone. A set of sounds is rated as one, so for diversity it is of other listeners alone.

    Args:
        ratings: of one row of sounds.
        weights: by name of what is rated; they need not sum to 1.
    Returns:
        The score; None: no class has all that is to be weighed.
    Source: Satterthwaite, "An approximate distribution of estimates of variance components", 1946.
    """
    points: dict[tuple[str, str], dict[str, dict[str, int]]] = defaultdict(lambda: defaultdict(dict))
    for rating in ratings:
        points[rating.label, rating.name][rating.item][rating.listener] = rating.points
    labels = [
        label for label in {label: None for label, _ in points} if all((label, name) in points for name in weights)
    ]
    if not labels:
        return None
    value = 0.0
    of_listeners: dict[str, float] = defaultdict(float)  # how far their ratings are above those of the others
    of_sounds: dict[str, dict[str, float]] = {label: defaultdict(float) for label in labels}  # the same in their class
    for label in labels:
        for name, weight in weights.items():
            share, rated = weight / sum(weights.values()) / len(labels), points[label, name]
            means = {item: fmean(by_listener.values()) for item, by_listener in rated.items()}
            mean = fmean(means.values())
            value += share * mean
            above: dict[str, list[float]] = defaultdict(list)
            for item, by_listener in rated.items():
                for listener, given in by_listener.items():
                    above[listener].append(given - means[item])
                if len(means) > 1:
                    of_sounds[label][item] += share * (means[item] - mean)
            for listener, differences in above.items():
                of_listeners[listener] += share * fmean(differences)
    samples = [list(each.values()) for each in (of_listeners, *of_sounds.values())]
    return Score(value, *_interval(value, [sample for sample in samples if len(sample) > 1]))


def _interval(
    value: float, samples: Sequence[Sequence[float]], *, confidence: float = 0.95
) -> tuple[float | None, float | None]:
    """The interval about a sum of means of samples that are independent of each other."""
    if not samples:
        return None, None
    variances = [variance(sample) / len(sample) for sample in samples]
    total = sum(variances)
    if total < 1e-18:  # all are of one opinion
        return value, value
    freedom = total**2 / sum(each**2 / (len(sample) - 1) for each, sample in zip(variances, samples, strict=True))
    width = float(stdtrit(freedom, (1 + confidence) / 2)) * total**0.5
    return max(0.0, value - width), min(float(MOST), value + width)
