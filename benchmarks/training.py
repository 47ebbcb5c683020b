"""Training speed: examples a second of a step through Lightning, and of a bare loop of the same networks and losses.

    python benchmarks/training.py --sizes 64x64 128x128 --precisions 32-true bf16-mixed

Data are random and in memory. The bare loop does what CGAN does in a step, less logging, averaging and Lightning.
"""

import argparse
import logging
import statistics
import time
import warnings

import lightning as L
import torch
from torch.utils.data import DataLoader, TensorDataset

from specgan.models.cgan import CGAN
from specgan.models.discriminators import ProjectionDiscriminator
from specgan.models.generators import DCGANGenerator
from specgan.models.losses import RelativisticPairingLoss, gradient_penalty
from specgan.spectrogram import LevelRange, SpectrogramParams

N_CLASSES, LATENT_DIM, WARM_UP = 10, 128, 16


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", nargs="+", default=["64x64"], help="bands x frames")
    parser.add_argument("--precisions", nargs="+", default=["32-true", "bf16-mixed"])
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--penalty-every", type=int, default=8)
    parser.add_argument("--n-steps", type=int, default=96, help="that are timed, in each repeat")
    parser.add_argument("--repeats", type=int, default=3, help="of both in turn; the median is printed")
    args = parser.parse_args()
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore")
    print(f"{torch.get_num_threads()} threads, batch {args.batch_size}, penalty every {args.penalty_every}th step")
    print(f"{'size':>9} {'precision':>11} {'Lightning':>12} {'bare loop':>12} {'share':>7}")
    for size in args.sizes:
        n_mels, n_frames = map(int, size.split("x"))
        for precision in args.precisions:
            speeds = [
                (through_lightning(n_mels, n_frames, precision, args), bare(n_mels, n_frames, precision, args))
                for _ in range(args.repeats)
            ]
            ours, theirs = (statistics.median(values) for values in zip(*speeds, strict=True))
            print(f"{size:>9} {precision:>11} {ours:10.0f}/s {theirs:10.0f}/s {ours / theirs:7.2f}", flush=True)


def examples(n_mels: int, n_frames: int, n: int) -> TensorDataset:
    torch.manual_seed(0)
    return TensorDataset(torch.rand(n, 1, n_mels, n_frames) * 2 - 1, torch.randint(N_CLASSES, (n,)))


def loss(args: argparse.Namespace) -> RelativisticPairingLoss:
    return RelativisticPairingLoss(gamma=1.0, penalty_every=args.penalty_every)


class Clock(L.Callback):
    """When each step ended."""

    def __init__(self) -> None:
        self.times: list[float] = []

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: L.LightningModule, *_) -> None:
        self.times.append(time.perf_counter())


def through_lightning(n_mels: int, n_frames: int, precision: str, args: argparse.Namespace) -> float:
    model = CGAN(
        generator=DCGANGenerator,
        discriminator=ProjectionDiscriminator,
        loss=loss(args),
        optimizer_g=adam,
        optimizer_d=adam,
        latent_dim=LATENT_DIM,
    )
    params = SpectrogramParams(n_mels=n_mels, n_frames=n_frames, n_fft=4096, win_length=1024)
    model.build(params=params, level_range=LevelRange(-80, 0), class_names=[str(i) for i in range(N_CLASSES)])
    n_steps = WARM_UP + args.n_steps
    loader = DataLoader(examples(n_mels, n_frames, 4 * args.batch_size), args.batch_size, shuffle=True, drop_last=True)
    clock = Clock()
    trainer = L.Trainer(
        max_epochs=-(-n_steps // 4),
        precision=precision,
        callbacks=[clock],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(model, loader)
    return args.n_steps * args.batch_size / (clock.times[n_steps - 1] - clock.times[WARM_UP - 1])


def adam(parameters) -> torch.optim.Optimizer:
    return torch.optim.Adam(parameters, lr=4e-4, betas=(0.0, 0.99), fused=True)


def bare(n_mels: int, n_frames: int, precision: str, args: argparse.Namespace) -> float:
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    sizes = {"n_classes": N_CLASSES, "n_mels": n_mels, "n_frames": n_frames}
    generator = DCGANGenerator(**sizes, latent_dim=LATENT_DIM).to(device, memory_format=torch.channels_last)
    discriminator = ProjectionDiscriminator(**sizes).to(device, memory_format=torch.channels_last)
    optimizer_g, optimizer_d = adam(generator.parameters()), adam(discriminator.parameters())
    spectrograms, labels = (t.to(device) for t in examples(n_mels, n_frames, 4 * args.batch_size).tensors)
    players = loss(args)

    def step(i: int) -> None:
        index = torch.randperm(len(labels), device=device)[: args.batch_size]
        penalised = i % args.penalty_every == 0
        real, y = spectrograms[index].requires_grad_(penalised), labels[index]
        with torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16-mixed"):
            fake = generator(torch.randn(len(y), LATENT_DIM, device=device), y)
            seen = fake.detach().float().requires_grad_(penalised)
            real_logits, fake_logits = discriminator(real, y).float(), discriminator(seen, y).float()
            loss_d = players.discriminator_loss(real_logits, fake_logits)
            if penalised:
                penalty = gradient_penalty(real_logits, real) + gradient_penalty(fake_logits, seen)
                loss_d = loss_d + args.penalty_every * players.gamma * penalty
            optimizer_d.zero_grad()
            loss_d.backward()
            optimizer_d.step()
            discriminator.requires_grad_(False)
            loss_g = players.generator_loss(real_logits.detach(), discriminator(fake, y).float())
            optimizer_g.zero_grad()
            loss_g.backward()
            optimizer_g.step()
            discriminator.requires_grad_(True)

    for i in range(WARM_UP):
        step(i)
    synchronise(device)
    start = time.perf_counter()
    for i in range(args.n_steps):
        step(i)
    synchronise(device)
    return args.n_steps * args.batch_size / (time.perf_counter() - start)


def synchronise(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()


if __name__ == "__main__":
    main()
