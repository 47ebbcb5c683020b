"""How far one set of sounds is from another, on features of a judge. Torch only, no files.

Features are (N, n_features) float32, logits (N, n_classes), labels (N,) int64. Where torchmetrics has a metric it is
used; precision, recall, density and coverage it does not have.
"""

import math
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TypedDict

import torch
from lightning.pytorch.utilities.seed import isolate_rng
from scipy.special import ndtri, stdtrit
from torch import Tensor, nn

SILENT_PEAK = 1e-3  # -60 dB re full scale
N_SUBSETS = 10  # from which an interval is estimated
_KEPT = 0.8  # share of the sounds in each
_ALONE = {"sync_on_compute": False}  # of several processes one measures, and would wait for the others for ever


def silent(waveforms: Tensor) -> Tensor:
    """Which of the waveforms (N, T) or (N, channels, T) stay under -60 dB re full scale: (N,) of bool."""
    return waveforms.abs().flatten(1).amax(dim=1) < SILENT_PEAK


def clipped(waveforms: Tensor) -> Tensor:
    """Which of the waveforms (N, T) or (N, channels, T) exceed full scale: (N,) of bool."""
    return waveforms.abs().flatten(1).amax(dim=1) > 1


class _Given(nn.Module):
    """What torchmetrics wants a network to be: here it is given the features themselves."""

    def __init__(self, n_features: int) -> None:
        super().__init__()
        self.num_features = n_features

    def forward(self, features: Tensor) -> Tensor:
        return features


@contextmanager
def _torchmetrics(seed: int = 0) -> Iterator[None]:
    """Leaves the global random state as it was, and torchmetrics' remarks on memory and spread unsaid."""
    with isolate_rng(), warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        torch.manual_seed(seed)
        yield


def frechet_distance(features: Tensor, reference: Tensor) -> float:
    """Fréchet distance of two sets, as if both were normally distributed. It is larger the fewer sounds there are.

    NaN: one of them has fewer than 2, so no spread.

    Source: Heusel et al., "GANs trained by a two time-scale update rule", 2017; on sound Kilgour et al., "Fréchet
    audio distance", 2019.
    """
    from torchmetrics.image.fid import FrechetInceptionDistance

    if min(len(features), len(reference)) < 2:
        return math.nan

    metric = FrechetInceptionDistance(feature=_Given(features.shape[1]), **_ALONE).set_dtype(torch.float64)
    metric.update(reference, real=True)
    metric.update(features, real=False)
    return max(0.0, float(metric.compute()))


def kernel_distance(features: Tensor, reference: Tensor, *, seed: int) -> float:
    """Kernel distance (squared, polynomial kernel of degree 3) of two sets; unbiased, so it may fall below 0.

    Source: Bińkowski et al., "Demystifying MMD GANs", 2018.
    """
    from torchmetrics.image.kid import KernelInceptionDistance

    size = min(100, len(features), len(reference))
    with _torchmetrics(seed):
        metric = KernelInceptionDistance(feature=_Given(features.shape[1]), **_ALONE, subsets=50, subset_size=size)
        metric.update(reference, real=True)
        metric.update(features, real=False)
        return float(metric.compute()[0])


def inception_score(logits: Tensor) -> float:
    """exp of the mean divergence between a sound's classes and those of all: 1..n_classes, high if clear and varied.

    Source: Salimans et al., "Improved techniques for training GANs", 2016; one split, so that small sets count.
    """
    from torchmetrics.image.inception import InceptionScore

    with _torchmetrics():
        metric = InceptionScore(feature=_Given(logits.shape[1]), **_ALONE, splits=1)
        metric.update(logits)
        return float(metric.compute()[0])


def precision_recall_density_coverage(
    features: Tensor, reference: Tensor, *, n_neighbors: int = 5
) -> tuple[float, float, float, float]:
    """How many of the sounds lie among the reference, and how much of the reference lies among the sounds.

    Comparable only at equal sizes of both sets. A set drawn from the reference's own distribution reaches a coverage
    of about 1 - 2 ** -n_neighbors and a density of about 1.

    Raises:
        ValueError: a set is not larger than `n_neighbors`.
    Source: Kynkäänniemi et al., "Improved precision and recall metric", 2019; Naeem et al., "Reliable fidelity and
        diversity metrics for generative models", 2020.
    """
    smaller = min(len(features), len(reference))
    if smaller <= n_neighbors:
        raise ValueError(f"a set has {smaller} sounds; precision and recall need more than n_neighbors={n_neighbors}")
    across = torch.cdist(reference, features)
    reference_radius, radius = _radii(reference, n_neighbors), _radii(features, n_neighbors)
    inside = across < reference_radius.unsqueeze(1)
    precision = inside.any(dim=0)
    recall = (across < radius).any(dim=1)
    density = inside.sum(dim=0) / n_neighbors
    coverage = across.amin(dim=1) < reference_radius
    shares = [float(values.float().mean()) for values in (precision, recall, density, coverage)]
    return shares[0], shares[1], shares[2], shares[3]


def _radii(points: Tensor, n_neighbors: int) -> Tensor:
    """Distance of each point to its n-th neighbour; the nearest is the point itself."""
    return torch.cdist(points, points).kthvalue(n_neighbors + 1, dim=1).values


def mean_distance_in_class(features: Tensor, labels: Tensor) -> float:
    """Mean distance between two sounds of a class, averaged over the classes that have two. NaN if none has."""
    by_class = [features[labels == label] for label in labels.unique()]
    distances = [torch.pdist(members).mean() for members in by_class if len(members) > 1]
    return float(torch.stack(distances).mean()) if distances else float("nan")


def nearest(points: Tensor, reference: Tensor) -> tuple[Tensor, Tensor]:
    """Distance of each of the points (N, d) to the nearest of the reference (M, d), and which that is."""
    distances, indices = zip(*(torch.cdist(some, reference).min(dim=1) for some in points.split(256)), strict=True)
    return torch.cat(distances), torch.cat(indices)


class Figure(TypedDict):
    """A measured value, the interval of its uncertainty, and how many sounds it was measured on."""

    value: float
    low: float
    high: float
    n: int


def share(hits: Tensor) -> Figure:
    """The share of `hits` (N,) of bool that are true, N >= 1."""
    n, n_hits = len(hits), int(hits.sum())
    low, high = share_interval(n_hits, n)
    return Figure(value=n_hits / n, low=low, high=high, n=n)


def share_of_groups(hits: Tensor, groups: Tensor) -> Figure:
    """As `share`, where hits of one group (N,) int64 are not independent: each group counts once, `n` is of groups."""
    _, members = groups.unique(return_inverse=True)
    rates = torch.zeros(int(members.max()) + 1).scatter_reduce(0, members, hits.float(), "mean", include_self=False)
    n, total = len(rates), float(rates.double().sum())
    low, high = share_interval(total, n)
    return Figure(value=total / n, low=low, high=high, n=n)


def average(values: Tensor) -> Figure:
    """The mean of values (N,), N >= 1, with Student's interval."""
    n, value = len(values), float(values.double().mean())
    width = float(stdtrit(n - 1, 0.975) * values.double().std() / n**0.5) if n > 1 else 0.0
    return Figure(value=value, low=value - width, high=value + width, n=n)


def share_interval(n_hits: float, n: int, *, confidence: float = 0.95) -> tuple[float, float]:
    """Wilson's interval of a share: `n_hits` of `n`."""
    z, share = float(ndtri((1 + confidence) / 2)), n_hits / n
    centre, spread = n_hits + z**2 / 2, z * (n_hits * (n - n_hits) / n + z**2 / 4) ** 0.5
    return max(0.0, min(share, (centre - spread) / (n + z**2))), min(1.0, max(share, (centre + spread) / (n + z**2)))


def n_kept(n: int) -> int:
    """How many of `n` sounds are in each of the subsets of `subset_interval`."""
    return max(1, round(_KEPT * n))


def subset_interval(
    figures: Callable[[Tensor], Sequence[float]], value: Sequence[float], n: int, *, seed: int, confidence: float = 0.95
) -> list[tuple[float, float]]:
    """Intervals of figures of a set of `n` sounds, from their spread over random subsets (a delete-d jackknife).

    Not the bootstrap: sounds that are drawn twice would look like a generator that repeats itself.

    Args:
        figures: maps the indices of a subset to its figures.
        value: the figures of the whole set, about which the intervals lie.
        n: sounds in the set.
        seed: of the subsets.
    Source: Shao, Wu, "A general theory for jackknife variance estimation", 1989.
    """
    kept = n_kept(n)
    generator = torch.Generator().manual_seed(seed)
    subsets = [torch.randperm(n, generator=generator)[:kept].sort().values for _ in range(N_SUBSETS)]
    spread = torch.tensor([figures(subset) for subset in subsets], dtype=torch.float64).std(dim=0)
    times = float(stdtrit(N_SUBSETS - 1, (1 + confidence) / 2)) * (kept / max(1, n - kept)) ** 0.5
    return [(centre - width, centre + width) for centre, width in zip(value, (times * spread).tolist(), strict=True)]
