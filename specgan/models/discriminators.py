"""Networks that tell real spectrograms from generated ones, given the label."""

from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm as add_spectral_norm

from specgan.models.sizes import depth_for, require_size


class ProjectionDiscriminator(nn.Module):
    """Strided convolutions to a feature vector; its product with the class's embedding is added to the logit.

    Args:
        n_classes: labels.
        n_mels: rows of a spectrogram.
        n_frames: columns of a spectrogram.
        channels: of a spectrogram; 2: stereo.
        width: channels of the smallest map, a multiple of 8; the three largest maps have an eighth, a quarter and half.
        depth: halvings of both sides; None: see `depth_for`.
        norm: None or "batch".
        spectral_norm: divide each weight matrix by its largest singular value.
        compare_in_class: show the last stage how much the spectrograms of a class differ within the batch, so that it
            notices a generator that makes one sound for a class.
        class_weight: of the cross-entropy of its class logits on real spectrograms, in its loss; 0: none.

    Source: Miyato, Koyama, "cGANs with projection discriminator", 2018. The comparison: Karras et al., "Progressive
    growing of GANs", 2018, here by class. The classes: Odena, Olah, Shlens, "Conditional image synthesis with auxiliary
    classifier GANs", 2017, here of real spectrograms alone and by the embeddings of the projection.
    """

    def __init__(
        self,
        *,
        n_classes: int,
        n_mels: int,
        n_frames: int,
        channels: int = 1,
        width: int = 96,
        depth: int | None = None,
        norm: str | None = None,
        spectral_norm: bool = False,
        compare_in_class: bool = True,
        class_weight: float = 0.1,
    ) -> None:
        super().__init__()
        require_size(n_frames, width)
        if class_weight < 0:
            raise ValueError(f"class_weight is {class_weight}; at least 0")
        self.class_weight = class_weight
        self.depth = depth_for(n_mels, n_frames, depth)
        self.stages = _stages(channels, width, self.depth, norm, spectral_norm, n_added=int(compare_in_class))
        self.spread = SpreadInClass(n_classes) if compare_in_class else None
        n_features = _n_features(n_mels, n_frames, width, self.depth)
        self.logit = _maybe_spectral(nn.Linear(n_features, 1), spectral_norm)
        embedding = nn.Embedding(n_classes, n_features)
        # The features are many: an embedding of unit variance would drown the logit at the start.
        nn.init.normal_(embedding.weight, std=n_features**-0.5)
        self.embedding = _maybe_spectral(embedding, spectral_norm)
        self.register_load_state_dict_pre_hook(_rename_numbered_layers)

    def forward(
        self, spectrogram: Tensor, labels: Tensor, *, with_classes: bool = False
    ) -> Tensor | tuple[Tensor, Tensor]:
        """Maps spectrograms (B, channels, n_mels, n_frames) and labels (B,) to logits (B,).

        `with_classes`: also returns class logits (B, n_classes).
        """
        *stages, last = self.stages
        maps = _padded(spectrogram, self.depth)
        for stage in stages:
            maps = stage(maps)
        if self.spread is not None:
            maps = torch.cat([maps, self.spread(maps, labels)], dim=1)
        features = last(maps).flatten(1)
        logits = self.logit(features).squeeze(1) + (features * self.embedding(labels)).sum(1)
        return (logits, features @ self.embedding.weight.T) if with_classes else logits


class ChannelDiscriminator(nn.Module):
    """Strided convolutions to one logit; the label is a learned map, one more channel beside the spectrogram's.

    Args: as ProjectionDiscriminator.

    Source: Mirza, Osindero, "Conditional generative adversarial nets", 2014, in DCGAN's form.
    """

    def __init__(
        self,
        *,
        n_classes: int,
        n_mels: int,
        n_frames: int,
        channels: int = 1,
        width: int = 256,
        depth: int | None = None,
        norm: str | None = None,
        spectral_norm: bool = False,
    ) -> None:
        super().__init__()
        require_size(n_frames, width)
        self.label_map = nn.Sequential(
            nn.Embedding(n_classes, n_mels * n_frames), nn.Unflatten(1, (1, n_mels, n_frames))
        )
        self.depth = depth_for(n_mels, n_frames, depth)
        self.stages = _stages(channels + 1, width, self.depth, norm, spectral_norm)
        self.logit = _maybe_spectral(nn.Linear(_n_features(n_mels, n_frames, width, self.depth), 1), spectral_norm)
        self.register_load_state_dict_pre_hook(_rename_numbered_layers)

    def forward(self, spectrogram: Tensor, labels: Tensor) -> Tensor:
        """Maps spectrograms (B, channels, n_mels, n_frames) and labels (B,) to logits (B,)."""
        maps = torch.cat([spectrogram, self.label_map(labels).to(spectrogram)], dim=1)
        maps = _padded(maps, self.depth)
        for stage in self.stages:
            maps = stage(maps)
        return self.logit(maps.flatten(1)).squeeze(1)


class SpreadInClass(nn.Module):
    """Measures how much the items of each class differ within the batch, over all processes of a training.

    Mean standard deviation of the maps over the items that have the same label.

    Args:
        n_classes: labels.
    """

    def __init__(self, n_classes: int) -> None:
        super().__init__()
        self.n_classes = n_classes

    def forward(self, maps: Tensor, labels: Tensor) -> Tensor:
        """Maps (B, C, H, W) and labels (B,) to (B, 1, H, W), which holds one number for each class."""
        # (B, C, H, W) -> (B, H W C), as channels_last has them in memory. Before they are gathered, because gradients
        # of another memory layout would come back to the other processes in a wrong order.
        values = maps.permute(0, 2, 3, 1).flatten(1)
        spread = _spread(*_gathered(values, labels), self.n_classes)
        if len(spread) > len(maps):
            spread = spread.chunk(dist.get_world_size())[dist.get_rank()]
        return spread.to(maps.dtype).view(-1, 1, 1, 1).expand(-1, 1, *maps.shape[2:])


def _gathered(values: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Joins the batches of all processes, in the order of their ranks; gradients flow back to each."""
    if not values.requires_grad or not dist.is_initialized() or dist.get_world_size() == 1:
        return values, labels
    from torch.distributed.nn.functional import all_gather

    return torch.cat(all_gather(values)), torch.cat(all_gather(labels))


def _spread(values: Tensor, labels: Tensor, n_classes: int) -> Tensor:
    """(B, n) and (B,) -> (B,)."""
    if n_classes > len(labels):  # as few groups as can be: the place of a class's first item is its number
        labels, n_classes = (labels.unsqueeze(1) == labels).int().argmax(dim=1), len(labels)
    with torch.autocast(values.device.type, enabled=False):  # small differences of large numbers
        values = values.to(torch.promote_types(values.dtype, torch.float32))
        is_of = F.one_hot(labels, n_classes).to(values.dtype)  # (B, n_classes)
        average = (is_of / is_of.sum(dim=0).clamp_min(1)).T
        # not E[x^2] - E[x]^2: each item's own distance from its class's mean
        centred = values - is_of @ (average @ values)
        return is_of @ (average @ centred.square() + 1e-8).sqrt().mean(dim=1)


def _stages(
    n_inputs: int, width: int, depth: int, norm: str | None, spectral_norm: bool, *, n_added: int = 0
) -> nn.ModuleList:
    """`depth` stages that each halve both sides; the last one takes `n_added` channels besides those before it."""
    if norm not in (None, "batch"):
        raise ValueError(f"norm is {norm!r}; null or batch")
    n_outputs = [width // 8, width // 4, width // 2] + [width] * (depth - 3)
    n_befores = [n_inputs, *n_outputs[:-1]]
    n_befores[-1] += n_added
    stages = nn.ModuleList()
    for n_before, n_after in zip(n_befores, n_outputs, strict=True):
        convolution = nn.Conv2d(n_before, n_after, 4, stride=2, padding=1)
        stage = nn.Sequential(_maybe_spectral(convolution, spectral_norm))
        if norm == "batch" and len(stages):  # DCGAN: no norm on the layer that sees the data
            stage.append(nn.BatchNorm2d(n_after))
        stages.append(stage.append(nn.LeakyReLU(0.2, inplace=True)))
    return stages


def _maybe_spectral(layer: nn.Module, spectral_norm: bool) -> nn.Module:
    return add_spectral_norm(layer) if spectral_norm else layer


def _n_features(n_mels: int, n_frames: int, width: int, depth: int) -> int:
    """Values of the smallest map."""
    return width * -(-n_mels // 2**depth) * -(-n_frames // 2**depth)


def _padded(spectrogram: Tensor, depth: int) -> Tensor:
    """Adds silence above and after, so that `depth` halvings divide both sides."""
    n_mels, n_frames = spectrogram.shape[-2:]
    missing = (0, -n_frames % 2**depth, 0, -n_mels % 2**depth)
    return F.pad(spectrogram, missing, value=-1.0) if any(missing) else spectrogram


def _rename_numbered_layers(module: nn.Module, state_dict: dict[str, Any], prefix: str, *_: Any) -> None:
    """Reads checkpoints from before there were stages: the same weights in order, under `layers` and `last`."""
    earlier = [name for name in state_dict if name.startswith((f"{prefix}layers.", f"{prefix}last."))]
    if earlier:
        names = [f"{prefix}{name}" for name in module.state_dict() if name.startswith("stages.")]
        state_dict.update({name: state_dict.pop(before) for before, name in zip(earlier, names, strict=True)})
