"""Sounds that are moved: brighter, shorter, higher, and in other respects as they were."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from specgan.latent.descent import Descent, Place
from specgan.latent.descriptors import CLARITY, DESCRIPTORS, Descriptors
from specgan.latent.points import Point
from specgan.models.generators import draw, noise, require_embedding, slerp
from specgan.models.trained import TrainedGenerator

MOST = 4.0  # standard deviations that a sound can be moved by
N_STEPS = 16  # of a search at most

_N_DRAWN = 256  # sounds of a class that its spread is measured on
_FIRST_SEED = 2**33  # of these: far from what anyone asks for
_MOST_SPREADS = 64  # that are remembered: mixes have no end
_FAR = 0.2  # standard deviations from what is wanted, from which on the search begins again elsewhere
_N_TRIED, _SHARES = 6, (0.25, 0.5, 0.75, 1.0)  # sounds that it may begin at, and places on the way to each


@dataclass(frozen=True, eq=False)
class Spread:
    """How the sounds of a class differ.

    Args:
        z: (n, latent_dim), of the sounds that were drawn for it.
        described: (n, n_descriptors + 1), see `Descriptors`.
        refusals: why some descriptors cannot be steered in the class, by their name.
    """

    z: Tensor
    described: Tensor
    refusals: Mapping[str, str]

    @property
    def mean(self) -> dict[str, float]:
        """Of each descriptor, in its unit."""
        return dict(zip(DESCRIPTORS, self.described[:, :CLARITY].mean(dim=0).tolist(), strict=True))

    @property
    def std(self) -> dict[str, float]:
        """Of each descriptor, in its unit: what a sound is moved by if 1 is asked for."""
        return dict(zip(DESCRIPTORS, self.described[:, :CLARITY].std(dim=0).tolist(), strict=True))

    @property
    def steerable(self) -> list[str]:
        """The names of the descriptors that are not refused."""
        return [name for name in DESCRIPTORS if name not in self.refusals]


@dataclass(frozen=True, eq=False)
class Steered:
    """A point that was moved, and by how many standard deviations of its class its sound was, by descriptor."""

    point: Point
    moved: Mapping[str, float]


class Steering:
    """Moves the sounds of a generator, without labels and without training.

    Args:
        trained: the generator; its weights stay.
    Raises:
        ValueError: the generator has no `from_embedding`.
    """

    def __init__(self, trained: TrainedGenerator) -> None:
        require_embedding(trained.network, "steering")
        self.trained = trained
        self.descriptors = Descriptors(trained.params, trained.level_range)
        self._spreads: dict[tuple[float, ...], Spread] = {}

    @torch.no_grad()
    def spread(self, embedding: Tensor) -> Spread:
        """How the sounds of a class differ, measured when it is asked for the first time.

        Args:
            embedding: (embedding_dim,) of the class, or of a mix.
        """
        key = tuple(embedding.tolist())
        if key not in self._spreads:
            z = torch.stack([noise(self.trained.network, _FIRST_SEED + i) for i in range(_N_DRAWN)])
            described = self.descriptors(draw(self.trained.network, z, embedding.expand(_N_DRAWN, -1)))
            self._spreads[key] = Spread(z, described, self.descriptors.refusals(described))
            if len(self._spreads) > _MOST_SPREADS:
                del self._spreads[next(iter(self._spreads))]
        return self._spreads[key]

    def describe(self, point: Point) -> dict[str, float]:
        """What the sound of a point is like: each descriptor, in its unit."""
        drawn = draw(self.trained.network, point.z[None], point.embedding[None])
        with torch.no_grad():
            return dict(zip(DESCRIPTORS, self.descriptors(drawn)[0, :CLARITY].tolist(), strict=True))

    def steer(self, point: Point, move: Mapping[str, float], *, n_steps: int = N_STEPS) -> Steered:
        """Moves a point so that its sound changes as asked for, and hardly in the other descriptors.

        Args:
            point: of any class or mix, or one that was found for a recording.
            move: changes by descriptor, see `checked_move`.
            n_steps: of a search, at most.
        Returns:
            The point, whose origin says the move. The same arguments give the same point.
        Raises:
            ValueError: as `checked_move` and `require_steerable`.
        """
        move = checked_move(move)
        if not move:
            return Steered(point, {})
        self.require_steerable(point, move)
        names = self.spread(point.embedding).steerable
        start, found = self._search(point, names, move, n_steps)
        said = ", ".join(f"{name} {amount:+g}" for name, amount in move.items())
        moved = dict(zip(names, (found.described - start).tolist(), strict=False))  # without CLARITY
        name = point.name and f"{point.name}, {said}"
        return Steered(replace(point, z=found.z, origin=f"{point.origin}, {said}", name=name), moved)

    def require_steerable(self, point: Point, move: Mapping[str, float]) -> None:
        """Raises ValueError if part of a move makes no sense in the class of a point."""
        spread = self.spread(point.embedding)
        for name in move:
            if name in spread.refusals:
                others = ", ".join(spread.steerable) or "nothing"
                raise ValueError(
                    f"move is {dict(move)}: {name} cannot be steered in {point.label}: {spread.refusals[name]}; what "
                    f"can be steered there: {others}"
                )

    def _search(self, point: Point, names: list[str], move: Mapping[str, float], n_steps: int) -> tuple[Tensor, Place]:
        """The descriptors (n,) of the sound as it was, and the best place that was found for it, in units."""
        spread = self.spread(point.embedding)
        chosen = [list(DESCRIPTORS).index(name) for name in names]
        change = [move.get(name, 0.0) for name in names]
        if "pitch" in move:  # a sound with two pitches would do otherwise
            chosen, change = [*chosen, CLARITY], [*change, 0.0]
        unit = spread.described[:, chosen].std(dim=0)
        descent = Descent(self.trained.network, point.embedding, self.descriptors, torch.tensor(chosen), unit)
        start = descent.describe(point.z[None])[0]
        wanted = start + torch.tensor(change)
        found = descent.descend(point.z, wanted, n_steps=n_steps)
        if found.error > _FAR:  # the way downhill ended in a hollow
            known = spread.described[:, chosen] / unit
            nearest = (known - wanted).square().sum(dim=1).topk(_N_TRIED, largest=False).indices
            ways = [slerp(point.z, end, torch.tensor(_SHARES)[:, None]) for end in spread.z[nearest]]
            z = torch.cat(ways)
            best = int((descent.describe(z) - wanted).square().sum(dim=1).argmin())
            found = min(found, descent.descend(z[best], wanted, n_steps=n_steps), key=lambda place: place.error)
        return start, found


def checked_move(move: Mapping[str, float] | None) -> dict[str, float]:
    """The parts of a request that are not 0.

    Args:
        move: by how many standard deviations of its class a sound is to change, by descriptor; None: not at all.
    Raises:
        ValueError: no such descriptor, or an amount is no number from -MOST to MOST.
    """
    move = {} if move is None else move
    if not isinstance(move, Mapping):
        raise ValueError(f"move is {move!r}; amounts by name, as {{brightness: 1.5, length: -1}}")
    for name, amount in move.items():
        if name not in DESCRIPTORS:
            raise ValueError(f"move is {dict(move)}: there is no {name}; there are {', '.join(DESCRIPTORS)}")
        if isinstance(amount, bool) or not isinstance(amount, (int, float)) or not abs(amount) <= MOST:
            raise ValueError(
                f"move is {dict(move)}: {name} is {amount!r}; a number of standard deviations, {-MOST:g} to {MOST:g}"
            )
    return {name: float(amount) for name, amount in move.items() if amount}
