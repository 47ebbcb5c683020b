"""Sounds that are moved: brighter, shorter, higher, and in the other respects as they were."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from specgan.latent.descriptors import DESCRIPTORS, Descriptors
from specgan.latent.points import Point
from specgan.models.generators import draw, noise, require_embedding
from specgan.models.trained import TrainedGenerator

MOST = 4.0  # standard deviations that a sound can be moved by
N_STEPS = 16  # of a search at most

_N_DRAWN = 256  # sounds of a class that its units come from
_FIRST_SEED = 2**33  # of these: far from what anyone asks for
_DAMPING, _LONGEST = 0.03, 2.0  # of a step: share of the mean slope, and length in the space of z
_NEAR = 0.03  # standard deviations from what was asked for that are not worth another step


@dataclass(frozen=True, eq=False)
class Spread:
    """How the sounds of a class differ, by descriptor.

    Args:
        mean, std: (n_descriptors,), in the units of DESCRIPTORS.
        refusals: why some descriptors cannot be steered in this class, by their name.
    """

    mean: Tensor
    std: Tensor
    refusals: Mapping[str, str]

    @property
    def steerable(self) -> list[str]:
        """The names of the others."""
        return [name for name in DESCRIPTORS if name not in self.refusals]


@dataclass(frozen=True, eq=False)
class Steered:
    """A point that was moved, and how far its sound went, by descriptor, in standard deviations of its class."""

    point: Point
    moved: Mapping[str, float]


def checked_move(move: Mapping[str, float] | None) -> dict[str, float]:
    """The parts of a request that are not 0.

    Args:
        move: by how many standard deviations of its class a sound is to change, by descriptor; None: not at all.
    Raises:
        ValueError: no such descriptor, or the amount is no number from -MOST to MOST.
    """
    move = {} if move is None else move
    if not isinstance(move, Mapping):
        raise ValueError(f"move is {move!r}; amounts by name, as {{brightness: 1.5, length: -1}}")
    for name, amount in move.items():
        if name not in DESCRIPTORS:
            raise ValueError(f"move is {dict(move)}: there is no {name}; there are {', '.join(DESCRIPTORS)}")
        if isinstance(amount, bool) or not isinstance(amount, (int, float)) or not abs(amount) <= MOST:
            raise ValueError(
                f"move is {dict(move)}: {name} is {amount!r}; a number of standard deviations from -{MOST:g} to {MOST:g}"
            )
    return {name: float(amount) for name, amount in move.items() if amount}


class Steering:
    """Moves the sounds of a generator, with no labels and no training.

    The descriptors of a spectrogram are differentiable, and so is the generator: the slope of each descriptor at a
    point says how z changes one and leaves the others. The class's embedding stays, and so does the length of z,
    because the generator has only seen noise of that length.

    Args:
        trained: the generator; its weights stay.
    Raises:
        ValueError: the generator has no `from_embedding`.
    Source: Levenberg and Marquardt's least squares, with the step of least length; for what a latent space holds Shen et
        al., "Interpreting the latent space of GANs for semantic face editing", CVPR 2020.
    """

    def __init__(self, trained: TrainedGenerator) -> None:
        require_embedding(trained.network, "steering")
        self.trained = trained
        self.descriptors = Descriptors(trained.params, trained.level_range)
        self._spreads: dict[tuple[float, ...], Spread] = {}

    def spread(self, embedding: Tensor) -> Spread:
        """How the sounds of a class differ; measured once, on sounds that are drawn for it.

        Args:
            embedding: (embedding_dim,) of the class, or of a mix.
        """
        key = tuple(embedding.tolist())
        if key not in self._spreads:
            z = torch.stack([noise(self.trained.network, _FIRST_SEED + i) for i in range(_N_DRAWN)])
            drawn = draw(self.trained.network, z, embedding.expand(_N_DRAWN, -1))
            with torch.no_grad():
                described = self.descriptors(drawn)
            std, refusals = described.std(dim=0), self.descriptors.refusals(drawn)
            self._spreads[key] = Spread(described.mean(dim=0), std, refusals)
        return self._spreads[key]

    def require_steerable(self, point: Point, move: Mapping[str, float]) -> None:
        """Raises ValueError if a part of a move makes no sense in the class of a point."""
        spread = self.spread(point.embedding)
        for name in move:
            if name in spread.refusals:
                others = ", ".join(spread.steerable) or "nothing else"
                raise ValueError(
                    f"move is {dict(move)}: {name} cannot be steered in {point.label}: {spread.refusals[name]}; "
                    f"there can be steered: {others}"
                )

    def describe(self, points: Sequence[Point]) -> list[dict[str, float]]:
        """What the sounds of points are like, by descriptor, in the units of DESCRIPTORS."""
        drawn = draw(self.trained.network, *(torch.stack([getattr(p, part) for p in points]) for part in _PARTS))
        with torch.no_grad():
            return [dict(zip(DESCRIPTORS, row, strict=True)) for row in self.descriptors(drawn).tolist()]

    def steer(self, point: Point, move: Mapping[str, float], *, n_steps: int = N_STEPS) -> Steered:
        """Moves a point so that its sound changes as asked for, and hardly in the other descriptors.

        Args:
            point: of any class or mix, also one that was found for a recording.
            move: see `checked_move`.
            n_steps: at most.
        Returns:
            The point, whose origin says the move. The same arguments give the same point.
        Raises:
            ValueError: as `checked_move` and `require_steerable`.
        """
        move = checked_move(move)
        if not move:
            return Steered(point, {})
        self.require_steerable(point, move)
        spread = self.spread(point.embedding)
        names = spread.steerable
        chosen = torch.tensor([list(DESCRIPTORS).index(name) for name in names])
        change = torch.tensor([move.get(name, 0.0) for name in names])
        z, moved = self._search(point, change, chosen, spread.std[chosen], n_steps)
        said = ", ".join(f"{name} {amount:+g}" for name, amount in move.items())
        found = replace(point, z=z, origin=f"{point.origin}, {said}")
        return Steered(found, dict(zip(names, moved.tolist(), strict=True)))

    def _search(
        self, point: Point, change: Tensor, chosen: Tensor, unit: Tensor, n_steps: int
    ) -> tuple[Tensor, Tensor]:
        """The best z (latent_dim,) that was found, and the change of the chosen descriptors (n,) there, in units."""
        z, length, damping = point.z, point.z.norm(), _DAMPING
        best = None
        for step in range(n_steps + 1):
            described, slopes = self._slopes(z, point.embedding, chosen)
            described, slopes = described / unit, slopes / unit[:, None]
            if best is None:
                start = described
            lacking = start + change - described
            error = float(lacking.square().mean().sqrt())
            if best is None or error < best[0]:
                best, damping = (error, z, described - start, lacking, slopes), damping / 2
            else:
                damping *= 4
            if best[0] < _NEAR or step == n_steps or not math.isfinite(error):
                break
            z = _stepped(best[1], best[3], best[4], damping)
            z = z * (length / z.norm())
        return best[1], best[2]

    def _slopes(self, z: Tensor, embedding: Tensor, chosen: Tensor) -> tuple[Tensor, Tensor]:
        """The chosen descriptors (n,) of a sound, and the slope of each in the space of z (n, latent_dim)."""
        n = len(chosen)
        weights = next(self.trained.network.parameters())
        with torch.enable_grad():
            each = z.repeat(n, 1).requires_grad_(True)  # one copy for each slope, so that they come at once
            drawn = self.trained.network.from_embedding(each.to(weights), embedding.expand(n, -1).to(weights))
            described = self.descriptors(drawn.float().cpu())[:, chosen]
            (slopes,) = torch.autograd.grad(described.diagonal().sum(), each)
        return described[0].detach(), slopes


_PARTS = ("z", "embedding")


def _stepped(z: Tensor, lacking: Tensor, slopes: Tensor, damping: float) -> Tensor:
    """The nearest z to where the descriptors have changed by what is lacking, if the slopes stayed as they are."""
    along = z / z.norm()
    across = (slopes - (slopes @ along)[:, None] * along).double()  # the length of z stays
    gram = across @ across.T
    gram = gram + damping * gram.diagonal().mean() * torch.eye(len(gram), dtype=gram.dtype)
    step = (across.T @ torch.linalg.solve(gram, lacking.double())).float()
    return z + step * min(1.0, _LONGEST / float(step.norm().clamp_min(1e-9)))
