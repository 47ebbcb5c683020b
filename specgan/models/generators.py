"""Networks that turn noise and a label into a spectrogram."""

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from specgan.models.sizes import depth_for, require_size

CHUNK_SIZE = 8  # one size for every pass, so that a sample does not depend on how many are drawn with it


class PixelNorm(nn.Module):
    """Scales each position's channels to a mean square of 1. Source: Karras et al., progressive GAN, 2018."""

    def forward(self, x: Tensor) -> Tensor:
        return _PixelNorm.apply(x)


class _PixelNorm(torch.autograd.Function):
    """Its gradient in one formula, which takes a third of the time of PyTorch's own, term by term."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        scale = _pixel_scale(x)
        ctx.save_for_backward(x, scale)
        return x * scale

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        x, scale = ctx.saved_tensors
        if torch.is_grad_enabled():  # it is differentiated once more, and the kept scale has no history
            scale = _pixel_scale(x)
        along = (gradient * x).mean(dim=1, keepdim=True) * scale.square()
        return torch.addcmul(gradient, x, along, value=-1) * scale


def _pixel_scale(x: Tensor) -> Tensor:
    return torch.rsqrt(x.square().mean(dim=1, keepdim=True) + 1e-8)


class DCGANGenerator(nn.Module):
    """Linear layer to a (width, n_mels / 2^depth, n_frames / 2^depth) map, transposed convolutions up, tanh.

    Where 2^depth does not divide a size, the next larger one is generated, and its last rows and columns are cut off.

    Args:
        n_classes: labels.
        n_mels: rows of a spectrogram.
        n_frames: columns of a spectrogram.
        channels: of a spectrogram; 2: stereo.
        latent_dim: size of the noise vector z.
        width: channels of the smallest map, a multiple of 8; the three largest maps have half, a quarter and an eighth.
        depth: doublings; None: see `depth_for`.
        embedding_dim: size of the learned vector of a class, which is joined to z; None: the label one-hot.
        norm: "pixel" or "batch", after each hidden layer.

    Source: Radford, Metz, Chintala, "Unsupervised representation learning with DCGAN", 2016, conditioned.
    """

    def __init__(
        self,
        *,
        n_classes: int,
        n_mels: int,
        n_frames: int,
        channels: int = 1,
        latent_dim: int = 128,
        width: int = 128,
        depth: int | None = None,
        embedding_dim: int | None = 128,
        norm: str = "pixel",
    ) -> None:
        super().__init__()
        require_size(n_frames, width)
        depth = depth_for(n_mels, n_frames, depth)
        # The arguments that rebuild this network; the checkpoint holds them.
        self.settings = {
            "n_classes": n_classes,
            "n_mels": n_mels,
            "n_frames": n_frames,
            "channels": channels,
            "latent_dim": latent_dim,
            "width": width,
            "depth": depth,
            "embedding_dim": embedding_dim,
            "norm": norm,
        }
        if norm not in ("pixel", "batch"):
            raise ValueError(f"norm is {norm!r}; pixel or batch")
        self.latent_dim = latent_dim
        self.embedding = nn.Embedding.from_pretrained(torch.eye(n_classes))  # one-hot, not learned
        if embedding_dim is not None:
            self.embedding = nn.Embedding(n_classes, embedding_dim)

        def normalised(n_maps: int) -> list[nn.Module]:
            return [PixelNorm() if norm == "pixel" else nn.BatchNorm2d(n_maps), nn.LeakyReLU(0.2, inplace=True)]

        self.size = (n_mels, n_frames)
        base = (width, -(-n_mels // 2**depth), -(-n_frames // 2**depth))
        layers = [nn.Linear(latent_dim + self.embedding.embedding_dim, base[0] * base[1] * base[2])]
        layers += [nn.Unflatten(1, base), *normalised(width)]
        for before, after in pairwise([width] * (depth - 3) + [width // 2, width // 4, width // 8]):
            layers += [nn.ConvTranspose2d(before, after, 4, stride=2, padding=1), *normalised(after)]
        layers += [nn.ConvTranspose2d(width // 8, channels, 4, stride=2, padding=1), nn.Tanh()]
        self.layers = nn.Sequential(*layers)
        last = layers[-2]
        with torch.no_grad():  # all channels start alike, as they are in most sounds, and learn where they differ
            for weights in (last.weight.transpose(0, 1), last.bias):
                weights[1:] = weights[:1]

    def forward(self, z: Tensor, labels: Tensor) -> Tensor:
        """Maps noise (B, latent_dim) and labels (B,) to spectrograms (B, channels, n_mels, n_frames) in [-1, 1]."""
        return self.from_embedding(z, self.embedding(labels))

    def from_embedding(self, z: Tensor, embedding: Tensor) -> Tensor:
        """As `forward`, from embeddings (B, embedding_dim) of labels, or from points between such embeddings."""
        n_mels, n_frames = self.size
        return self.layers(torch.cat([z, embedding], dim=1))[..., :n_mels, :n_frames]


@torch.no_grad()
def sample(
    generator: nn.Module, labels: Sequence[int], seeds: Sequence[int], *, chunk_size: int = CHUNK_SIZE
) -> Tensor:
    """Draws spectrograms. Each depends on its own label and seed alone.

    Convolutions round differently at other batch sizes, so the network always gets chunks of one size: a seed gives
    the same bytes however many others are drawn with it.

    Args:
        generator: a network with `latent_dim`, called as generator(z, labels).
        labels: B class indices.
        seeds: B seeds of the noise.
        chunk_size: spectrograms in a forward pass.
    Returns:
        (B, channels, n_mels, n_frames) float32 on the CPU.
    Raises:
        ValueError: `labels` and `seeds` differ in length.
    """
    if len(labels) != len(seeds):
        raise ValueError(f"{len(labels)} labels and {len(seeds)} seeds; give one seed for each label")
    if len(seeds) == 0:
        return torch.empty(0)
    z = torch.stack([noise(generator, seed) for seed in seeds])
    return _in_chunks(generator, generator, z, torch.tensor(list(labels)), chunk_size)


@torch.no_grad()
def draw(generator: nn.Module, z: Tensor, embedding: Tensor, *, chunk_size: int = CHUNK_SIZE) -> Tensor:
    """Draws spectrograms of points in the latent space; each depends on its own point alone, as with `sample`.

    Args:
        generator: a network with `from_embedding`, as DCGANGenerator has it.
        z: (B, latent_dim), noise or what is found in its place.
        embedding: (B, embedding_dim), of labels, or between them.
        chunk_size: spectrograms in a forward pass.
    Returns:
        (B, channels, n_mels, n_frames) float32 on the CPU.
    """
    return _in_chunks(generator, generator.from_embedding, z, embedding, chunk_size)


def require_embedding(generator: nn.Module, purpose: str) -> None:
    """Raises ValueError if the network has no `from_embedding`, which `purpose` ("morphing") needs."""
    if not hasattr(generator, "from_embedding"):
        name = type(generator).__name__
        raise ValueError(f"the generator is a {name}, which has no from_embedding(z, embedding); {purpose} needs one")


def slerp(start: Tensor, end: Tensor, position: Tensor) -> Tensor:
    """Vectors (dim,) and positions (n, 1) in 0..1 -> (n, dim); exactly `start` at 0 and `end` at 1."""
    cosine = torch.dot(start.double(), end.double()) / (start.double().norm() * end.double().norm())
    angle = cosine.clamp(-1, 1).acos()
    if angle.sin() < 1e-6:  # the same direction or opposite ones, which no single arc joins
        return (1 - position) * start + position * end
    weights = ((angle * torch.cat([1 - position, position], dim=1).double()).sin() / angle.sin()).float()
    return weights[:, :1] * start + weights[:, 1:] * end


def noise(generator: nn.Module, seed: int) -> Tensor:
    """The noise (latent_dim,) of a seed."""
    return torch.randn(generator.latent_dim, generator=torch.Generator().manual_seed(seed))


def _in_chunks(
    generator: nn.Module, draw: Callable[[Tensor, Tensor], Tensor], z: Tensor, conditions: Tensor, chunk_size: int
) -> Tensor:
    """Calls draw(z, conditions) on chunks of one size, the last one filled up with zeros."""
    weights = next(generator.parameters())
    was_training = generator.training
    generator.eval()
    chunks = []
    for parts in zip(z.split(chunk_size), conditions.split(chunk_size), strict=True):
        n_items = len(parts[0])
        filled = [torch.cat([part, part.new_zeros(chunk_size - n_items, *part.shape[1:])]) for part in parts]
        filled = [part.to(weights if part.is_floating_point() else weights.device) for part in filled]
        chunks.append(draw(*filled)[:n_items].float().cpu().contiguous())
    generator.train(was_training)
    return torch.cat(chunks)
