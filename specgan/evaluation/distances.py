"""Figures that depend on how many sounds they are measured on, so all rows are cut to equally many of each class."""

import math
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from specgan.evaluation import metrics
from specgan.evaluation.judge import JudgedSounds
from specgan.evaluation.metrics import Figure

# Each figure, and the least and the most it can be.
_LIMITS = {
    "frechet_distance": (0, math.inf),
    "kernel_distance": (-math.inf, math.inf),
    "inception_score": (1, math.inf),
    "precision": (0, 1),
    "recall": (0, 1),
    "density": (0, math.inf),
    "coverage": (0, 1),
    "diversity": (0, math.inf),
}


def distances(
    rows: Mapping[str, JudgedSounds], train: JudgedSounds, *, real: str, n_neighbors: int, seed: int
) -> dict[str, dict[str, Figure]]:
    """Measures how far each row of sounds is from the training clips.

    Args:
        rows: sounds by the name of their row.
        train: the training clips.
        real: the row of real clips, by which `diversity` is divided.
        n_neighbors: of precision, recall, density and coverage.
        seed: of the choice of sounds.
    Returns:
        Figures by row and name; none at all, if the rows have too few sounds in common.
    """
    counts = common_counts(rows, train)
    if metrics.n_kept(int(counts.sum())) <= n_neighbors:
        return {}

    def cut(sounds: JudgedSounds, counts: Tensor) -> JudgedSounds:
        return sounds[balanced(sounds.labels, counts, seed=seed)]

    small = cut(train, counts)
    in_train = torch.bincount(train.labels, minlength=len(counts))
    times = int((in_train[counts > 0] // counts[counts > 0]).amin())
    large = cut(train, counts * times)
    of_real = cut(rows[real], counts)
    real_distance = metrics.mean_distance_in_class(of_real.features, of_real.labels)

    figures = {}
    for name, sounds in rows.items():
        chosen = cut(sounds, counts)

        def measure(index: Tensor, chosen: JudgedSounds = chosen) -> list[float]:
            subset = chosen[index]
            return [
                metrics.frechet_distance(subset.features, large.features),
                metrics.kernel_distance(subset.features, large.features, seed=seed),
                metrics.inception_score(subset.logits),
                *metrics.precision_recall_density_coverage(subset.features, small.features, n_neighbors=n_neighbors),
                metrics.mean_distance_in_class(subset.features, subset.labels) / real_distance,
            ]

        measured = dict(zip(_LIMITS, _with_intervals(measure, int(counts.sum()), seed=seed), strict=True))
        limited = {metric: _within(figure, *_LIMITS[metric]) for metric, figure in measured.items()}
        figures[name] = {  # a class with one sound has no distance within it
            metric: figure
            for metric, figure in limited.items()
            if math.isfinite(figure["value"] + figure["low"] + figure["high"])
        }
    return figures


def embedded_distances(
    rows: Mapping[str, JudgedSounds], train: JudgedSounds, embed: Callable[[Tensor], Tensor], *, seed: int
) -> dict[str, Figure]:
    """Measures the Fréchet distance of each row to the training clips on the features of another model.

    Args:
        rows: sounds by the name of their row.
        train: the training clips.
        embed: maps waveforms (N, T) to features (N, d).
        seed: of the choice of sounds.
    """
    counts = common_counts(rows, train)
    reference = embed(train.waveforms)
    figures = {}
    for name, sounds in rows.items():
        features = embed(sounds.waveforms[balanced(sounds.labels, counts, seed=seed)])

        def measure(index: Tensor, features: Tensor = features) -> list[float]:
            return [metrics.frechet_distance(features[index], reference)]

        (figures[name],) = _with_intervals(measure, int(counts.sum()), seed=seed)
    return figures


def common_counts(rows: Mapping[str, JudgedSounds], train: JudgedSounds) -> Tensor:
    """How many sounds of each class every row and the training split have."""
    n_classes = train.logits.shape[1]
    counts = [torch.bincount(sounds.labels, minlength=n_classes) for sounds in (*rows.values(), train)]
    return torch.stack(counts).amin(dim=0)


def balanced(labels: Tensor, counts: Tensor, *, seed: int) -> Tensor:
    """Indices of `counts[c]` of the labels (N,) that are c, or of all if they are fewer, chosen by the seed."""
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(seed))
    chosen = [order[labels[order] == label][:count] for label, count in enumerate(counts.tolist())]
    return torch.cat(chosen).sort().values


def _with_intervals(measure: Callable[[Tensor], Sequence[float]], n: int, *, seed: int) -> list[Figure]:
    """The figures of a set of `n` sounds, as `measure` gives them for indices into it."""
    values = measure(torch.arange(n))
    intervals = metrics.subset_interval(measure, values, n, seed=seed)
    return [Figure(value=value, low=low, high=high, n=n) for value, (low, high) in zip(values, intervals, strict=True)]


def _within(figure: Figure, least: float, most: float) -> Figure:
    low, high = (min(max(figure[bound], least), most) for bound in ("low", "high"))
    return Figure(value=figure["value"], low=low, high=high, n=figure["n"])
