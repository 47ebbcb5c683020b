"""A tiny model, and a checkpoint as a run writes it, without the run."""

from functools import partial

import torch

from specgan.models.cgan import CGAN
from specgan.models.discriminators import ProjectionDiscriminator
from specgan.models.generators import DCGANGenerator
from specgan.models.losses import BCELoss
from specgan.spectrogram import LevelRange, SpectrogramParams

PARAMS = SpectrogramParams(sample_rate=8000, n_fft=512, win_length=512, hop_length=128, n_mels=32, n_frames=32)
CLASSES = ["7", "kick", "../evil"]


def tiny_gan() -> CGAN:
    return CGAN(
        generator=partial(DCGANGenerator, width=16),
        discriminator=partial(ProjectionDiscriminator, width=16),
        loss=BCELoss(),
        optimizer_g=torch.optim.Adam,
        optimizer_d=torch.optim.Adam,
        latent_dim=16,
    )


def save_checkpoint(path, class_names=CLASSES, *, params=PARAMS, channels=1):
    """A generator that has learned nothing, of half-second sounds."""
    torch.manual_seed(0)
    model = tiny_gan()
    level_range = LevelRange(-80.0, -10.0) if params.level == "db" else LevelRange(0.0, 9.0)
    model.build(params=params, level_range=level_range, class_names=class_names, channels=channels)
    if channels > 1:  # which start alike
        model.ema.layers[-2].weight += 0.1 * torch.randn_like(model.ema.layers[-2].weight)
    model.n_steps = 12
    checkpoint = {"state_dict": model.state_dict()}
    model.on_save_checkpoint(checkpoint)
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save(checkpoint, path)
    return path
