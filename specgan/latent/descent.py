"""The way of a point to where its sound has wanted descriptors."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from specgan.latent.descriptors import Descriptors
from specgan.models.generators import draw

_DAMPING = 0.03  # of the first step, as a share of the mean slope
_LONGEST = 2.0  # step in the space of z
_NEAR = 0.03  # units from what is wanted that are not worth another step


@dataclass(frozen=True, eq=False)
class Place:
    """A place on the way.

    Args:
        z: (latent_dim,).
        described: (n,) descriptors of its sound, in units.
        error: root mean square of what they lack.
    """

    z: Tensor
    described: Tensor
    error: float


@dataclass(frozen=True, eq=False)
class Descent:
    """A search for sounds of one class.

    The descriptors of a spectrogram are differentiable, and so is the generator: their slopes at a place say how z
    changes one of them and leaves the others. The embedding stays, and so does the length of z, because the generator
    has only seen noise of about that length.

    Args:
        network: the generator; its weights stay.
        embedding: (embedding_dim,) of the class.
        descriptors: of its spectrograms.
        chosen: (n,) indices of those that count.
        unit: (n,) that they are divided by.
    Source: Levenberg, "A method for the solution of certain non-linear problems in least squares", 1944, and Marquardt,
        1963, with steps of least length.
    """

    network: nn.Module
    embedding: Tensor
    descriptors: Descriptors
    chosen: Tensor
    unit: Tensor

    @torch.no_grad()
    def describe(self, z: Tensor) -> Tensor:
        """The descriptors (B, n) of the sounds of z (B, latent_dim), in units."""
        drawn = draw(self.network, z, self.embedding.expand(len(z), -1))
        return self.descriptors(drawn)[:, self.chosen] / self.unit

    def descend(self, z: Tensor, wanted: Tensor, *, n_steps: int) -> Place:
        """The best place on the way downhill.

        Args:
            z: (latent_dim,), where it begins.
            wanted: (n,) descriptors, in units.
            n_steps: at most; fewer if nothing is lacking any more.
        """
        best, damping, length = None, _DAMPING, z.norm()
        for step in range(n_steps + 1):
            described, slopes = self._slopes(z)
            place = Place(z, described, float((wanted - described).square().mean().sqrt()))
            if best is None or place.error < best[0].error:
                best, damping = (place, slopes), damping / 2
            else:  # too far, because the way is curved
                damping *= 4
            if step == n_steps or best[0].error < _NEAR:
                break
            z = _stepped(best[0].z, wanted - best[0].described, best[1], damping)
            z = z * (length / z.norm())
        return best[0]

    def _slopes(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """The descriptors (n,) at a place, and the slope of each in the space of z (n, latent_dim)."""
        n, weights = len(self.chosen), next(self.network.parameters())
        with torch.enable_grad():
            each = z.repeat(n, 1).requires_grad_(True)  # one copy for each slope, so that they come at once
            drawn = self.network.from_embedding(each.to(weights), self.embedding.expand(n, -1).to(weights))
            described = self.descriptors(drawn.float().cpu())[:, self.chosen] / self.unit
            (slopes,) = torch.autograd.grad(described.diagonal().sum(), each)
        return described[0].detach(), slopes


def _stepped(z: Tensor, lacking: Tensor, slopes: Tensor, damping: float) -> Tensor:
    """The nearest z at which nothing would be lacking, if the slopes stayed as they are; nearer the more damping."""
    along = z / z.norm()
    across = (slopes - (slopes @ along)[:, None] * along).double()  # the length of z stays
    gram = across @ across.T
    gram = gram + (damping * gram.diagonal().mean() + 1e-12) * torch.eye(len(gram), dtype=gram.dtype)
    step = (across.T @ torch.linalg.solve(gram, lacking.double())).float()
    return z + step * min(1.0, _LONGEST / float(step.norm().clamp_min(1e-9)))
