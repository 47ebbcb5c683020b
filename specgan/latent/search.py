"""The point of the latent space whose sound is nearest to a given one."""

import math

import torch
from torch import Tensor, nn

N_STEPS = 300  # of the search
_LEARNING_RATE, _DECAY = 0.1, 0.7
_EXCESS_WEIGHT = 1e-3  # of the loss that keeps z about as long as noise is


def nearest(generator: nn.Module, target: Tensor, starts: Tensor, embedding: Tensor, *, n_steps: int) -> Tensor:
    """Moves points downhill until what the generator draws from them is near to spectrograms.

    The class's embedding stays, and z hardly gets longer than noise, of which the network has seen nothing. The same
    arguments give the same result: nothing is drawn at random.

    Args:
        generator: a network with `from_embedding`; its weights stay.
        target: (B, channels, n_mels, n_frames) in [-1, 1], one for each start.
        starts: (B, latent_dim).
        embedding: (B, embedding_dim).
        n_steps: of Adam, with a falling step size.
    Returns:
        (B, latent_dim).
    Source: Zhu et al., "Generative visual manipulation on the natural image manifold", ECCV 2016.
    """
    z = starts.clone().requires_grad_(True)
    usual = math.sqrt(z.shape[1])  # length of noise
    optimizer = torch.optim.Adam([z], lr=_LEARNING_RATE, betas=(0.9, 0.95))
    for step in range(n_steps):
        for group in optimizer.param_groups:
            group["lr"] = _LEARNING_RATE * (1 - step / n_steps) ** _DECAY
        with torch.enable_grad():
            excess = (z.norm(dim=1) - usual).clamp_min(0).square()
            loss = differences(generator.from_embedding(z, embedding), target) + _EXCESS_WEIGHT * excess
            (z.grad,) = torch.autograd.grad(loss.sum(), [z])
        optimizer.step()
    return z.detach()


def differences(spectrograms: Tensor, target: Tensor) -> Tensor:
    """The mean absolute difference of each spectrogram (B, channels, n_mels, n_frames) from its target: (B,)."""
    return (spectrograms - target).abs().flatten(1).mean(dim=1)
