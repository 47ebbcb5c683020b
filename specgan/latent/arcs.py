"""The arc from one noise vector to another, with places on it by how far what is drawn there is heard to be."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from specgan.latent.points import Point
from specgan.latent.search import differences
from specgan.models.generators import draw, noise, slerp

_N_PLACES, _FARTHEST = 25, 1.5  # on an arc at which it is measured, the last one beyond its end
_N_TYPICAL = 16  # sounds of the class that the typical distance is measured on
_LATENESS = 4  # of where an arc's own length counts
_FIRST_SEED = 2**32  # of these: far from what anyone asks for


@dataclass(frozen=True)
class Arc:
    """An arc of z, and the distances that were measured on it.

    Args:
        start, end: (latent_dim,).
        places: (n,) on the arc: 0 is the start, 1 the end, and beyond it goes on in the same direction.
        distances: (n,) of the sounds there from that of `start`, never falling; the first is 0.
        to_end: the distance of the sound at the end.
    """

    start: Tensor
    end: Tensor
    places: Tensor
    distances: Tensor
    to_end: float

    @classmethod
    def between(cls, generator: nn.Module, start: Point, end: Tensor) -> "Arc":
        """Measures the arc from a point to a noise vector, with the embedding of the point."""
        places = torch.linspace(0, _FARTHEST, _N_PLACES)
        z = torch.cat([slerp(start.z, end, places[:, None]), end[None]])
        drawn = draw(generator, z, start.embedding.expand(len(z), -1))
        distances = differences(drawn, drawn[:1])
        return cls(start.z, end, places, distances[:-1].cummax(dim=0).values, float(distances[-1]))

    def at(self, distance: float, *, typical: float) -> Tensor:
        """The z (latent_dim,) at a distance from 0 (the start) to 1 (the end, or beyond it if the end is near).

        A distance is the same on all arcs: a share of the typical one. Only towards an end that is farther than that
        does it become the share of this arc's own.

        Args:
            distance: 0..1.
            typical: distance of the sounds of a class from the start.
        """
        own = distance**_LATENESS
        wanted = distance * ((1 - own) * typical + own * max(typical, self.to_end))
        behind = int((self.distances < min(wanted, float(self.distances[-1]))).sum())
        if behind == 0:
            return self.start
        if distance == 1 and self.to_end >= typical:
            return self.end
        (before, after), (first, last) = (
            each[behind - 1 : behind + 1].tolist() for each in (self.distances, self.places)
        )
        place = first + (last - first) * min(1.0, (wanted - before) / (after - before))
        return slerp(self.start, self.end, torch.tensor([[place]]))[0]


def typical_distance(generator: nn.Module, start: Point) -> float:
    """The mean distance of sounds of the class from that of a point."""
    ends = torch.stack([noise(generator, _FIRST_SEED + i) for i in range(_N_TYPICAL)])
    z = torch.cat([start.z[None], ends])
    drawn = draw(generator, z, start.embedding.expand(len(z), -1))
    return float(differences(drawn[1:], drawn[:1]).mean())


def require_distance(distance: float) -> None:
    """Raises ValueError for a distance that is not in 0..1."""
    if isinstance(distance, bool) or not isinstance(distance, (int, float)) or not 0 <= distance <= 1:
        raise ValueError(f"distance is {distance!r}; a number from 0 (the nearest sound) to 1 (any of the class)")
