"""The encoder of a generator: a spectrogram -> its class, and about where in the latent space it is drawn from."""

from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from specgan.models.sizes import depth_for


class Encoder(nn.Module):
    """Strided convolutions down to features, from which one layer tells the class and two the noise z.

    Args:
        n_classes: labels.
        channels: of a spectrogram.
        n_mels: rows of a spectrogram.
        n_frames: columns of a spectrogram.
        latent_dim: size of z.
        embedding_dim: size of the generator's vector of a class, which z is told with.
        width: channels of the first layer; each further one has twice as many, at most 8 * width.
        n_features: size of what the convolutions end in.

    Source: Nistal, Lattner, Richard, "DrumGAN", ISMIR 2020; its encoder in Nistal et al., "DrumGAN VST", 2022.
    """

    def __init__(
        self,
        *,
        n_classes: int,
        channels: int,
        n_mels: int,
        n_frames: int,
        latent_dim: int,
        embedding_dim: int,
        width: int = 16,
        n_features: int = 256,
    ) -> None:
        super().__init__()
        depth = depth_for(n_mels, n_frames)
        # Both sides are filled up with silence to what the halvings divide.
        self.padding = (0, -n_frames % 2**depth, 0, -n_mels % 2**depth)
        n_values = (n_mels + self.padding[3]) * (n_frames + self.padding[1]) // 4**depth
        n_maps = [channels, *(width * 2 ** min(i, 3) for i in range(depth))]
        layers: list[nn.Module] = []
        for before, after in pairwise(n_maps):
            layers += [nn.Conv2d(before, after, 4, stride=2, padding=1), nn.BatchNorm2d(after), nn.LeakyReLU(0.2)]
        layers += [nn.Flatten(), nn.Linear(n_maps[-1] * n_values, n_features)]
        self.layers = nn.Sequential(*layers, nn.BatchNorm1d(n_features), nn.LeakyReLU(0.2))
        self.logits = nn.Linear(n_features, n_classes)
        self.noise = nn.Sequential(
            nn.Linear(n_features + embedding_dim, n_features), nn.LeakyReLU(0.2), nn.Linear(n_features, latent_dim)
        )

    def features(self, spectrogram: Tensor) -> Tensor:
        """Maps spectrograms (B, channels, n_mels, n_frames) in [-1, 1] to features (B, n_features)."""
        return self.layers(F.pad(spectrogram, self.padding, value=-1.0))

    def forward(self, spectrogram: Tensor, embedding: Tensor) -> Tensor:
        """Maps spectrograms and the embeddings (B, embedding_dim) of their classes to z (B, latent_dim)."""
        return self.to_noise(self.features(spectrogram), embedding)

    def to_noise(self, features: Tensor, embedding: Tensor) -> Tensor:
        """As `forward`, from `features`."""
        return self.noise(torch.cat([features, embedding], dim=1))

    def classify(self, spectrogram: Tensor) -> Tensor:
        """Maps spectrograms to logits (B, n_classes)."""
        return self.logits(self.features(spectrogram))
