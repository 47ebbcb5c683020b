"""Networks that tell real spectrograms from generated ones, given the label."""

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm as add_spectral_norm

from specgan.models.sizes import depth_for


class ProjectionDiscriminator(nn.Module):
    """Strided convolutions to a feature vector; its product with the class's embedding is added to the logit.

    Args:
        n_classes: labels.
        n_mels: rows of a spectrogram.
        n_frames: columns of a spectrogram.
        width: channels of the smallest map; they halve with each of the last four doublings of its sides.
        depth: halvings of both sides; None: see `depth_for`.
        norm: None or "batch".
        spectral_norm: divide each weight matrix by its largest singular value.
        compare_in_class: show the last layer how much the spectrograms of a class differ within the batch, so that a
            generator that makes one sound for a class is found out.

    Source: Miyato, Koyama, "cGANs with projection discriminator", 2018. The comparison: Karras et al., "Progressive
    growing of GANs", 2018, here by class.
    """

    def __init__(
        self,
        *,
        n_classes: int,
        n_mels: int,
        n_frames: int,
        width: int = 256,
        depth: int | None = None,
        norm: str | None = None,
        spectral_norm: bool = False,
        compare_in_class: bool = True,
    ) -> None:
        super().__init__()
        self.depth = depth_for(n_mels, n_frames, depth)
        layers = _downsampling(1, width, self.depth, norm, spectral_norm, n_more=int(compare_in_class))
        self.compare_in_class = compare_in_class
        last = 2 if norm is None else 3
        self.layers, self.last = layers[:-last], layers[-last:]
        n_features = width * -(-n_mels // 2**self.depth) * -(-n_frames // 2**self.depth)
        self.logit = _maybe_spectral(nn.Linear(n_features, 1), spectral_norm)
        embedding = nn.Embedding(n_classes, n_features)
        # The features are many: an embedding of unit variance would drown the logit at the start.
        nn.init.normal_(embedding.weight, std=n_features**-0.5)
        self.embedding = _maybe_spectral(embedding, spectral_norm)

    def forward(self, spectrogram: Tensor, labels: Tensor) -> Tensor:
        """Maps spectrograms (B, 1, n_mels, n_frames) and labels (B,) to logits (B,)."""
        maps = self.layers(_filled_up(spectrogram, self.depth))
        if self.compare_in_class:
            difference = _difference_in_class(*_of_all_processes(maps, labels))
            if len(difference) > len(maps):
                difference = difference.chunk(dist.get_world_size())[dist.get_rank()]
            difference = difference.to(maps.dtype)
            maps = torch.cat([maps, difference.view(-1, 1, 1, 1).expand(-1, 1, *maps.shape[2:])], dim=1)
        features = self.last(maps).flatten(1)
        return self.logit(features).squeeze(1) + (features * self.embedding(labels)).sum(1)


class ChannelDiscriminator(nn.Module):
    """Strided convolutions to one logit; the label is a learned map that is set beside the spectrogram as a channel.

    Args: as ProjectionDiscriminator.

    Source: Mirza, Osindero, "Conditional generative adversarial nets", 2014, in DCGAN's form.
    """

    def __init__(
        self,
        *,
        n_classes: int,
        n_mels: int,
        n_frames: int,
        width: int = 256,
        depth: int | None = None,
        norm: str | None = None,
        spectral_norm: bool = False,
    ) -> None:
        super().__init__()
        self.label_map = nn.Sequential(
            nn.Embedding(n_classes, n_mels * n_frames), nn.Unflatten(1, (1, n_mels, n_frames))
        )
        self.depth = depth_for(n_mels, n_frames, depth)
        self.layers = _downsampling(2, width, self.depth, norm, spectral_norm)
        n_features = width * -(-n_mels // 2**self.depth) * -(-n_frames // 2**self.depth)
        self.logit = _maybe_spectral(nn.Linear(n_features, 1), spectral_norm)

    def forward(self, spectrogram: Tensor, labels: Tensor) -> Tensor:
        """Maps spectrograms (B, 1, n_mels, n_frames) and labels (B,) to logits (B,)."""
        with_label = torch.cat([spectrogram, self.label_map(labels).to(spectrogram)], dim=1)
        return self.logit(self.layers(_filled_up(with_label, self.depth)).flatten(1)).squeeze(1)


def _filled_up(spectrogram: Tensor, depth: int) -> Tensor:
    """Makes both sides divisible as often as the layers halve them, by silence on top and behind."""
    n_mels, n_frames = spectrogram.shape[-2:]
    missing = (0, -n_frames % 2**depth, 0, -n_mels % 2**depth)
    return F.pad(spectrogram, missing, value=-1.0) if any(missing) else spectrogram


def _of_all_processes(maps: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Joins what the processes of a distributed training have, in the order of their ranks; gradients go back."""
    if not maps.requires_grad or not dist.is_initialized() or dist.get_world_size() == 1:
        return maps, labels
    from torch.distributed.nn.functional import all_gather

    return torch.cat(all_gather(maps)), torch.cat(all_gather(labels))


def _difference_in_class(maps: Tensor, labels: Tensor) -> Tensor:
    """Mean standard deviation (B,) of the maps (B, C, H, W) over the items of the batch that have an item's label."""
    same = (labels.unsqueeze(0) == labels.unsqueeze(1)).to(torch.promote_types(maps.dtype, torch.float32))
    average = same / same.sum(dim=1, keepdim=True)
    with torch.autocast(maps.device.type, enabled=False):  # small differences of large numbers
        values = maps.to(same.dtype).flatten(1)
        centred = values - average @ values
        # not E[x^2] - E[x]^2: each item's own distance from its class's mean
        return (average @ centred.square() + 1e-8).sqrt().mean(dim=1)


def _downsampling(
    n_inputs: int, width: int, depth: int, norm: str | None, spectral_norm: bool, *, n_more: int = 0
) -> nn.Sequential:
    """Convolutions that halve both sides; the last one takes `n_more` channels beside those of the one before."""
    if norm not in (None, "batch"):
        raise ValueError(f"norm is {norm!r}; null or batch")
    sizes = [n_inputs, width // 8, width // 4, width // 2] + [width] * (depth - 3)
    layers: list[nn.Module] = []
    for index in range(depth):
        n_before = sizes[index] + (n_more if index == depth - 1 else 0)
        convolution = nn.Conv2d(n_before, sizes[index + 1], 4, stride=2, padding=1)
        layers.append(_maybe_spectral(convolution, spectral_norm))
        if norm == "batch" and index > 0:  # DCGAN: no norm on the layer that sees the data
            layers.append(nn.BatchNorm2d(sizes[index + 1]))
        layers.append(nn.LeakyReLU(0.2))
    return nn.Sequential(*layers)


def _maybe_spectral(layer: nn.Module, spectral_norm: bool) -> nn.Module:
    return add_spectral_norm(layer) if spectral_norm else layer
