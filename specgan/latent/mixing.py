"""Classes and mixes of classes, and the points of their sounds."""

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from specgan.latent.points import Point
from specgan.models.generators import noise, require_embedding
from specgan.models.trained import TrainedGenerator, find_class


def class_shares(label: str | Mapping[str, float], class_names: Sequence[str]) -> dict[str, float]:
    """The share of each class in a mix, more than 0; together they are 1.

    Args:
        label: a class, or the weights of a mix: {"kick": 7, "tom": 3} is the same as {"kick": 0.7, "tom": 0.3}. Classes
            that are not named, or have the weight 0, are not in it.
        class_names: of the checkpoint.
    Raises:
        ValueError: not a class of the checkpoint, a weight is no number of at least 0, or all are 0.
    """
    weights = {label: 1.0} if isinstance(label, str) else dict(label)
    shares: dict[str, float] = {}
    for name, weight in weights.items():
        known = find_class(str(name), class_names)
        if known is None:
            raise ValueError(
                f"label is {label}: {name} is not a class of this checkpoint; {', '.join(class_names)} are"
            )
        if isinstance(weight, bool) or not isinstance(weight, (int, float)) or not 0 <= weight < math.inf:
            raise ValueError(f"label is {label}: the weight of {name} is {weight!r}; a number of at least 0")
        if weight:
            shares[known] = shares.get(known, 0.0) + weight
    whole = sum(shares.values())
    if not whole:
        raise ValueError(f"label is {label}: no class has a weight above 0; for instance {{{class_names[0]}: 1}}")
    return {name: share / whole for name, share in shares.items()}


def mix_name(shares: Mapping[str, float]) -> str:
    """What a mix is called: "kick 0.7 + tom 0.3", in the order of the shares; one class has its own name."""
    if len(shares) == 1:
        return next(iter(shares))
    return " + ".join(f"{name} {share:.3g}" for name, share in shares.items())


@torch.no_grad()
def mixed_embedding(trained: TrainedGenerator, shares: Mapping[str, float]) -> Tensor:
    """The embedding (embedding_dim,) of a mix: the mean of those of its classes, weighted by the shares.

    Of one class it is exactly the class's own.

    Raises:
        ValueError: the generator has no `from_embedding`.
    Source: the control that the makers of DrumGAN ended with, Nistal et al., "DrumGAN VST", 2022.
    """
    require_embedding(trained.network, "mixing or steering classes")
    indices = torch.tensor([trained.class_names.index(name) for name in shares])
    weights = next(trained.network.parameters())
    embeddings = trained.network.embedding(indices.to(weights.device)).float().cpu()
    return embeddings[0] if len(shares) == 1 else torch.tensor(list(shares.values())) @ embeddings


def class_points(trained: TrainedGenerator, label: str | Mapping[str, float], seeds: Sequence[int]) -> list[Point]:
    """The points of sounds of a class or a mix; those of a class are drawn as `TrainedGenerator.sample` draws them.

    Args:
        trained: the generator.
        label: see `class_shares`.
        seeds: of the noise, one for each point.
    Raises:
        ValueError: as `class_shares`, or the generator has no `from_embedding`.
    """
    shares = class_shares(label, trained.class_names)
    name, embedding = mix_name(shares), mixed_embedding(trained, shares)
    return [Point(noise(trained.network, seed), embedding, name, f"{name}, seed {seed}", seed) for seed in seeds]
