"""Networks that turn noise and a label into a spectrogram."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

CHUNK_SIZE = 8  # one size for every pass, so that a sample does not depend on how many are drawn beside it


class PixelNorm(nn.Module):
    """Scales each position's channels to a mean square of 1. Source: Karras et al., progressive GAN, 2018."""

    def forward(self, x: Tensor) -> Tensor:
        return x * torch.rsqrt(x.square().mean(dim=1, keepdim=True) + 1e-8)


class DCGANGenerator(nn.Module):
    """Linear layer to a (width, n_mels / 16, n_frames / 16) map, four transposed convolutions up, tanh.

    Sizes that 16 does not divide are made from the next larger ones, whose last rows and columns are cut off.

    Args:
        n_classes: labels.
        n_mels: rows of a spectrogram.
        n_frames: columns of a spectrogram.
        latent_dim: size of the noise vector z.
        width: channels of the smallest map; they halve with each doubling of its sides.
        embedding_dim: size of the learned vector of a class that is set beside z; None: the label one-hot.
        norm: "pixel" or "batch", after each hidden layer.

    Source: Radford, Metz, Chintala, "Unsupervised representation learning with DCGAN", 2016, conditioned.
    """

    def __init__(
        self,
        *,
        n_classes: int,
        n_mels: int,
        n_frames: int,
        latent_dim: int = 128,
        width: int = 256,
        embedding_dim: int | None = 128,
        norm: str = "pixel",
    ) -> None:
        super().__init__()
        # What it takes to make this network again: it travels in the checkpoint.
        self.settings = {
            "n_classes": n_classes,
            "n_mels": n_mels,
            "n_frames": n_frames,
            "latent_dim": latent_dim,
            "width": width,
            "embedding_dim": embedding_dim,
            "norm": norm,
        }
        require_size(n_mels, n_frames, width)
        if norm not in ("pixel", "batch"):
            raise ValueError(f"norm is {norm!r}; pixel or batch")
        self.latent_dim = latent_dim
        self.embedding = nn.Embedding.from_pretrained(torch.eye(n_classes))  # one-hot, not learned
        if embedding_dim is not None:
            self.embedding = nn.Embedding(n_classes, embedding_dim)

        def normalised(channels: int) -> list[nn.Module]:
            return [PixelNorm() if norm == "pixel" else nn.BatchNorm2d(channels), nn.LeakyReLU(0.2)]

        self.size = (n_mels, n_frames)
        base = (width, -(-n_mels // 16), -(-n_frames // 16))
        layers = [nn.Linear(latent_dim + self.embedding.embedding_dim, base[0] * base[1] * base[2])]
        layers += [nn.Unflatten(1, base), *normalised(width)]
        for channels in (width, width // 2, width // 4):
            layers += [nn.ConvTranspose2d(channels, channels // 2, 4, stride=2, padding=1), *normalised(channels // 2)]
        layers += [nn.ConvTranspose2d(width // 8, 1, 4, stride=2, padding=1), nn.Tanh()]
        self.layers = nn.Sequential(*layers)

    def forward(self, z: Tensor, labels: Tensor) -> Tensor:
        """Maps noise (B, latent_dim) and labels (B,) to spectrograms (B, 1, n_mels, n_frames) in [-1, 1]."""
        n_mels, n_frames = self.size
        return self.layers(torch.cat([z, self.embedding(labels)], dim=1))[..., :n_mels, :n_frames]


def require_size(n_mels: int, n_frames: int | None, width: int) -> None:
    """Raises ValueError for a length that is not fixed, and for a width that three halvings do not divide."""
    if n_frames is None:
        raise ValueError("n_frames is None; networks need one length: choose a spectrogram preset that has one")
    if width < 8 or width % 8:
        raise ValueError(f"width is {width}; this network needs a multiple of 8")


@torch.no_grad()
def sample(
    generator: nn.Module, labels: Sequence[int], seeds: Sequence[int], *, chunk_size: int = CHUNK_SIZE
) -> Tensor:
    """Draws spectrograms. Each depends on its own label and seed alone.

    Convolutions round differently at other batch sizes, so the network always sees chunks of one size: a seed gives
    the same bytes however many others are drawn beside it.

    Args:
        generator: a network with `latent_dim`, called as generator(z, labels).
        labels: B class indices.
        seeds: B seeds of the noise.
        chunk_size: spectrograms in a forward pass.
    Returns:
        (B, 1, n_mels, n_frames) float32 on the CPU.
    Raises:
        ValueError: `labels` and `seeds` differ in length.
    """
    if len(labels) != len(seeds):
        raise ValueError(f"{len(labels)} labels and {len(seeds)} seeds; give one seed for each label")
    device = next(generator.parameters()).device
    was_training = generator.training
    generator.eval()
    chunks = []
    for start in range(0, len(seeds), chunk_size):
        chunk = list(seeds[start : start + chunk_size])
        n_missing = chunk_size - len(chunk)
        chunk_labels = [*labels[start : start + chunk_size], *[0] * n_missing]
        z = [torch.randn(generator.latent_dim, generator=torch.Generator().manual_seed(seed)) for seed in chunk]
        z += [torch.zeros(generator.latent_dim)] * n_missing
        spectrograms = generator(torch.stack(z).to(device), torch.tensor(chunk_labels, device=device))
        chunks.append(spectrograms[: len(chunk)].float().cpu().contiguous())
    generator.train(was_training)
    return torch.cat(chunks) if chunks else torch.empty(0)
