"""The losses of the two players. Loss objects hold settings only; they map logits (B,) to a scalar."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor


@dataclass(frozen=True)
class AdversarialLoss:
    """Settings that all losses share.

    Args:
        gamma: strength of the zero-centred gradient penalties on real and generated spectrograms; 0: none.
        penalty_every: steps of the discriminator from one penalty to the next. The penalty is multiplied by this,
            so that its mean stays the same: larger is faster and noisier.
    """

    gamma: float = 0.0
    penalty_every: int = 1

    def __post_init__(self) -> None:
        if self.gamma < 0:
            raise ValueError(f"gamma is {self.gamma}; at least 0 (0: no gradient penalty)")
        if self.penalty_every < 1:
            raise ValueError(f"penalty_every is {self.penalty_every}; at least 1 (and gamma 0 for no penalty)")

    def discriminator_loss(self, real_logits: Tensor, fake_logits: Tensor) -> Tensor:
        """Maps logits (B,) of real and generated spectrograms to the loss of the discriminator, a scalar."""
        raise NotImplementedError

    def generator_loss(self, real_logits: Tensor, fake_logits: Tensor) -> Tensor:
        """Maps logits (B,) of real and generated spectrograms to the loss of the generator, a scalar."""
        raise NotImplementedError


@dataclass(frozen=True)
class BCELoss(AdversarialLoss):
    """The classic loss, in its non-saturating form. Source: Goodfellow et al., 2014."""

    def discriminator_loss(self, real_logits: Tensor, fake_logits: Tensor) -> Tensor:
        return F.softplus(-real_logits).mean() + F.softplus(fake_logits).mean()

    def generator_loss(self, real_logits: Tensor, fake_logits: Tensor) -> Tensor:
        return F.softplus(-fake_logits).mean()


@dataclass(frozen=True)
class HingeLoss(AdversarialLoss):
    """Source: Lim, Ye, "Geometric GAN", 2017."""

    def discriminator_loss(self, real_logits: Tensor, fake_logits: Tensor) -> Tensor:
        return F.relu(1 - real_logits).mean() + F.relu(1 + fake_logits).mean()

    def generator_loss(self, real_logits: Tensor, fake_logits: Tensor) -> Tensor:
        return -fake_logits.mean()


@dataclass(frozen=True)
class RelativisticPairingLoss(AdversarialLoss):
    """Each generated spectrogram is judged against a real one of its class. Converges with both penalties.

    Source: Huang et al., "The GAN is dead; long live the GAN! A modern baseline GAN" (R3GAN), 2024.
    """

    gamma: float = 1.0

    def discriminator_loss(self, real_logits: Tensor, fake_logits: Tensor) -> Tensor:
        return F.softplus(fake_logits - real_logits).mean()

    def generator_loss(self, real_logits: Tensor, fake_logits: Tensor) -> Tensor:
        return F.softplus(real_logits - fake_logits).mean()


def gradient_penalty(logits: Tensor, spectrogram: Tensor) -> Tensor:
    """Returns half the mean squared norm of d logits / d spectrogram; on real data it is R1, on generated data R2.

    Args:
        logits: (B,), computed from `spectrogram`.
        spectrogram: (B, channels, n_mels, n_frames) with requires_grad.
    Source: Mescheder, Geiger, Nowozin, "Which training methods for GANs do actually converge?", 2018.
    """
    (gradient,) = torch.autograd.grad(logits.sum(), spectrogram, create_graph=True)
    return gradient.square().sum(dim=(1, 2, 3)).mean() / 2
