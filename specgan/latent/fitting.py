"""Trains the encoder of a generator on sounds that the generator draws, of which there is no end."""

import torch
import torch.nn.functional as F
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from torch import Tensor, nn

from specgan.latent.encoder import Encoder
from specgan.models.generators import require_embedding
from specgan.models.trained import TrainedGenerator

BATCH_SIZE = 64
_ALTERED = BATCH_SIZE // 2  # sounds of a batch that the class is also learned from in an altered form
_WARM_UP = 20  # steps
_LEARNING_RATE = 2e-3
_NOISE_WEIGHT, _SPECTRAL_WEIGHT = 0.1, 20.0  # of the losses, beside the one of the class
# Operations of both networks' forward passes in a training that takes about 100 s of a core that has AVX2.
_WORK, _LEAST_STEPS, _MOST_STEPS = 9e11, 60, 500


def new_encoder(trained: TrainedGenerator) -> Encoder:
    """An untrained encoder of a generator's spectrograms.

    Raises:
        ValueError: the generator has no `from_embedding`.
    """
    require_embedding(trained.network, "an encoder")
    return Encoder(
        n_classes=len(trained.class_names),
        channels=trained.channels,
        n_mels=trained.params.n_bins,
        n_frames=trained.params.n_frames,
        latent_dim=trained.network.latent_dim,
        embedding_dim=trained.network.embedding(torch.tensor([0])).shape[1],
    )


def affordable_steps(trained: TrainedGenerator) -> int:
    """Steps of a training of at most two core-minutes, by the arithmetic of the networks alone: the same everywhere.

    At least 60, which take longer with spectrograms of more than 128 x 128.
    """
    from torch.utils.flop_counter import FlopCounterMode  # slow to import, and few commands train an encoder

    network, encoder = trained.network, new_encoder(trained).eval()
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        encoder.features(network(torch.zeros(1, network.latent_dim), torch.zeros(1, dtype=torch.int64)))
    return int(min(_MOST_STEPS, max(_LEAST_STEPS, _WORK / (BATCH_SIZE * counter.get_total_flops()))))


def fit_encoder(
    trained: TrainedGenerator, *, n_steps: int | None = None, seed: int = 0, shows_progress: bool = True
) -> tuple[Encoder, list[float]]:
    """Trains an encoder; the global random state stays as it is.

    It learns to tell the class, also of sounds that are louder, noisier, moved or incomplete, as recordings are beside
    what a generator draws; and z, by how near it comes and by what the generator draws from it.

    Args:
        trained: the generator, on the CPU.
        n_steps: batches of 64; None: as many as take about two minutes on one core.
        seed: of weights, sounds and alterations.
        shows_progress: a bar with the time left, on standard error.
    Returns:
        The encoder, and the spectral loss of each step: mean absolute difference of what is drawn, of a range of 2.
    Raises:
        ValueError: the generator has no `from_embedding`, or `n_steps` < 1.
    """
    if n_steps is not None and (not isinstance(n_steps, int) or n_steps < 1):
        raise ValueError(f"n_steps is {n_steps}; a whole number, at least 1, or null for about two core-minutes")
    n_steps = n_steps or affordable_steps(trained)
    columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn(), TimeRemainingColumn())
    losses = []
    with (
        torch.random.fork_rng(devices=[]),
        Progress(*columns, console=Console(stderr=True), transient=True, disable=not shows_progress) as progress,
    ):
        torch.manual_seed(seed)
        encoder = new_encoder(trained)
        optimizer = torch.optim.AdamW(encoder.parameters(), lr=_LEARNING_RATE, betas=(0.9, 0.98))
        bar = progress.add_task("encoder", total=n_steps)
        for step in range(n_steps):
            rate = _LEARNING_RATE * min(1.0, (step + 1) / _WARM_UP) * (1 - step / n_steps)
            for group in optimizer.param_groups:
                group["lr"] = rate
            losses.append(_step(encoder, trained.network, optimizer))
            progress.advance(bar)
    return encoder.eval().requires_grad_(False), losses


def _step(encoder: Encoder, generator: nn.Module, optimizer: torch.optim.Optimizer) -> float:
    z = torch.randn(BATCH_SIZE, generator.latent_dim)
    labels = torch.randint(0, encoder.logits.out_features, (BATCH_SIZE,))
    with torch.no_grad():
        embedding = generator.embedding(labels)
        drawn = generator.from_embedding(z, embedding)
    features = encoder.features(torch.cat([drawn, altered(drawn[:_ALTERED])]))
    found = encoder.to_noise(features[:BATCH_SIZE], embedding)
    spectral_loss = F.l1_loss(generator.from_embedding(found, embedding), drawn)
    class_loss = F.cross_entropy(encoder.logits(features), torch.cat([labels, labels[:_ALTERED]]))
    loss = class_loss + _NOISE_WEIGHT * F.mse_loss(found, z) + _SPECTRAL_WEIGHT * spectral_loss
    optimizer.zero_grad()
    loss.backward(inputs=list(encoder.parameters()))  # the generator's weights need no gradients
    optimizer.step()
    return float(spectral_loss.detach())


def altered(spectrogram: Tensor) -> Tensor:
    """Spectrograms (B, channels, n_mels, n_frames) as they could be recorded: louder or quieter, later or earlier.

    Each also gets noise and lacks a band, from none of it to a quarter.
    """
    n, _, n_mels, n_frames = spectrogram.shape
    gain, noise = torch.empty(n, 1, 1, 1).uniform_(-0.3, 0.3), 0.3 * torch.rand(n, 1, 1, 1)
    most = max(1, n_frames // 16)
    moved = torch.roll(spectrogram, int(torch.randint(-most, most + 1, ())), dims=3) + gain
    changed = moved + noise * torch.randn_like(moved)
    first, band = torch.randint(0, n_mels, (2, n, 1))
    row = torch.arange(n_mels)
    is_lacking = (row >= first) & (row < first + band // 4)
    return changed.masked_fill(is_lacking[:, None, :, None], -1.0).clamp(-1, 1)
