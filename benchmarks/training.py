"""Training speed: examples a second of a step through Lightning, and of bare loops in the same run.

    python benchmarks/training.py --sizes 64x64 128x128 --precisions 32-true bf16-mixed [--compile]

Data are random and in memory. The bare loop does what CGAN does in a step with the same networks and losses, less
logging, averaging and Lightning. The naive loop is the classic recipe as tutorials write it: batch norm, labels as a
channel, BCE, single precision, and a generated batch for each player. "waits" is the share of the time through
Lightning in which the training waits for the loader.
"""

import argparse
import logging
import statistics
import time
import warnings
from collections.abc import Callable

import lightning as L
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.data import Dataset

from specgan.data.batches import BatchPlan, TrainLoader
from specgan.data.dataset import as_batched
from specgan.models.cgan import CGAN
from specgan.models.discriminators import ChannelDiscriminator, ProjectionDiscriminator
from specgan.models.generators import DCGANGenerator
from specgan.models.losses import BCELoss, RelativisticPairingLoss, gradient_penalty
from specgan.spectrogram import LevelRange, SpectrogramParams

N_CLASSES, LATENT_DIM, WARM_UP = 10, 128, 16


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", nargs="+", default=["64x64"], help="bands x frames")
    parser.add_argument("--precisions", nargs="+", default=["32-true", "bf16-mixed"])
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--penalty-every", type=int, default=8)
    parser.add_argument("--n-steps", type=int, default=96, help="that are timed, in each repeat")
    parser.add_argument("--compile", action="store_true", help="torch.compile the networks of both loops")
    parser.add_argument("--repeats", type=int, default=3, help="of both in turn; the median is printed")
    args = parser.parse_args()
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore")
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else f"{torch.get_num_threads()} threads"
    print(f"{device}, batch {args.batch_size}, penalty every {args.penalty_every}th step; examples a second")
    names = ("Lightning", "waits", "bare loop", "share", "naive", "times naive")
    print(f"{'size':>9} {'precision':>11}" + "".join(f"{name:>13}" for name in names))
    for size in args.sizes:
        n_mels, n_frames = map(int, size.split("x"))
        for precision in args.precisions:
            rounds = [
                (
                    *through_lightning(n_mels, n_frames, precision, args),
                    bare(n_mels, n_frames, precision, args),
                    naive(n_mels, n_frames, args),
                )
                for _ in range(args.repeats)
            ]
            ours, waits, same, classic = (statistics.median(values) for values in zip(*rounds, strict=True))
            # Rounds are compared with themselves: machines have slow minutes.
            share = statistics.median(one[0] / one[2] for one in rounds)
            columns = f"{ours:13.0f}{waits:13.1%}{same:13.0f}{share:13.2f}{classic:13.0f}{ours / classic:13.2f}"
            print(f"{size:>9} {precision:>11}{columns}", flush=True)


class Examples(Dataset):
    """Random spectrograms in memory, fetched as SpectrogramDataset's are."""

    def __init__(self, n_mels: int, n_frames: int, n: int) -> None:
        torch.manual_seed(0)
        self.spectrograms = torch.rand(n, 1, n_mels, n_frames) * 2 - 1
        self.labels = torch.randint(N_CLASSES, (n,))

    def __len__(self) -> int:
        return len(self.labels)

    def order(self, generator: torch.Generator) -> Tensor:
        return torch.randperm(len(self), generator=generator)

    def __getitems__(self, items: list[tuple[int, float]]) -> tuple[Tensor, Tensor]:
        index = torch.tensor([i for i, _ in items])
        return self.spectrograms[index], self.labels[index]


def loss(args: argparse.Namespace) -> RelativisticPairingLoss:
    return RelativisticPairingLoss(gamma=1.0, penalty_every=args.penalty_every)


class Clock(L.Callback):
    """When each step ended."""

    def __init__(self) -> None:
        self.times: list[float] = []

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx) -> None:
        if batch_idx + 1 in (WARM_UP, trainer.num_training_batches):
            synchronise(pl_module.device)
        self.times.append(time.perf_counter())


def through_lightning(n_mels: int, n_frames: int, precision: str, args: argparse.Namespace) -> tuple[float, float]:
    """Examples a second, and the share of the time in which it waits for data."""
    model = CGAN(
        generator=DCGANGenerator,
        discriminator=ProjectionDiscriminator,
        loss=loss(args),
        optimizer_g=adam,
        optimizer_d=adam,
        latent_dim=LATENT_DIM,
        compile=args.compile,
    )
    params = SpectrogramParams(n_mels=n_mels, n_frames=n_frames, n_fft=4096, win_length=1024)
    model.build(params=params, level_range=LevelRange(-80, 0), class_names=[str(i) for i in range(N_CLASSES)])
    n_steps = WARM_UP + args.n_steps
    data = Examples(n_mels, n_frames, 16 * args.batch_size)
    sizes = {"batch_size": args.batch_size, "epoch_size": n_steps * args.batch_size}
    plan = BatchPlan(data.order, n_examples=len(data), **sizes, crop="start", seed=0)
    on_gpu = torch.cuda.is_available()
    module = L.LightningDataModule()
    module.batch_size = args.batch_size
    module.train_dataloader = lambda: TrainLoader(
        data, batch_sampler=plan, collate_fn=as_batched, pin_memory=on_gpu, num_workers=2 if on_gpu else 0
    )
    clock = Clock()
    trainer = L.Trainer(
        max_epochs=1,
        precision=precision,
        callbacks=[clock],
        profiler="simple",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
    )
    trainer.profiler.summary = str  # quiet
    trainer.fit(model, module)
    fetches = trainer.profiler.recorded_durations["[_TrainingEpochLoop].train_dataloader_next"]
    took_s = clock.times[n_steps - 1] - clock.times[WARM_UP - 1]
    return args.n_steps * args.batch_size / took_s, sum(fetches[WARM_UP:n_steps]) / took_s


def adam(parameters) -> torch.optim.Optimizer:
    return torch.optim.Adam(parameters, lr=4e-4, betas=(0.0, 0.99), fused=True)


def bare(n_mels: int, n_frames: int, precision: str, args: argparse.Namespace) -> float:
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    sizes = {"n_classes": N_CLASSES, "n_mels": n_mels, "n_frames": n_frames}
    generator = DCGANGenerator(**sizes, latent_dim=LATENT_DIM).to(device, memory_format=torch.channels_last)
    discriminator = ProjectionDiscriminator(**sizes).to(device, memory_format=torch.channels_last)
    optimizer_g, optimizer_d = adam(generator.parameters()), adam(discriminator.parameters())
    data = Examples(n_mels, n_frames, 16 * args.batch_size)
    spectrograms, labels = data.spectrograms.to(device), data.labels.to(device)
    players = loss(args)
    make = torch.compile(generator) if args.compile else generator
    fast_judge = torch.compile(discriminator) if args.compile else discriminator

    def step(i: int) -> None:
        index = torch.randperm(len(labels), device=device)[: args.batch_size]
        penalised = i % args.penalty_every == 0
        real, y = spectrograms[index].requires_grad_(penalised), labels[index]
        with torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16-mixed"):
            judge = discriminator if penalised else fast_judge
            fake = make(torch.randn(len(y), LATENT_DIM, device=device), y)
            seen = fake.detach().float().requires_grad_(penalised)
            real_logits, class_logits = (values.float() for values in judge(real, y, with_classes=True))
            fake_logits = judge(seen, y).float()
            loss_d = players.discriminator_loss(real_logits, fake_logits)
            loss_d = loss_d + discriminator.class_weight * F.cross_entropy(class_logits, y)
            if penalised:
                penalty = gradient_penalty(real_logits, real) + gradient_penalty(fake_logits, seen)
                loss_d = loss_d + args.penalty_every * players.gamma * penalty
            optimizer_d.zero_grad()
            loss_d.backward()
            optimizer_d.step()
            discriminator.requires_grad_(False)
            loss_g = players.generator_loss(real_logits.detach(), fast_judge(fake, y).float())
            optimizer_g.zero_grad()
            loss_g.backward()
            optimizer_g.step()
            discriminator.requires_grad_(True)

    return timed(step, args, device)


def naive(n_mels: int, n_frames: int, args: argparse.Namespace) -> float:
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    sizes = {"n_classes": N_CLASSES, "n_mels": n_mels, "n_frames": n_frames}
    settings = {"width": 256, "embedding_dim": None, "norm": "batch"}
    generator = DCGANGenerator(**sizes, latent_dim=LATENT_DIM, **settings).to(device)
    discriminator = ChannelDiscriminator(**sizes, norm="batch").to(device)
    optimizer_g, optimizer_d = (
        torch.optim.Adam(network.parameters(), lr=2e-4, betas=(0.5, 0.999)) for network in (generator, discriminator)
    )
    data = Examples(n_mels, n_frames, 16 * args.batch_size)
    players = BCELoss()

    def step(i: int) -> None:
        index = torch.randperm(len(data))[: args.batch_size]
        real, y = data.spectrograms[index].to(device), data.labels[index].to(device)
        with torch.no_grad():
            fake = generator(torch.randn(len(y), LATENT_DIM, device=device), y)
        loss_d = players.discriminator_loss(discriminator(real, y), discriminator(fake, y))
        optimizer_d.zero_grad()
        loss_d.backward()
        optimizer_d.step()
        fake_logits = discriminator(generator(torch.randn(len(y), LATENT_DIM, device=device), y), y)
        loss_g = players.generator_loss(fake_logits.detach(), fake_logits)
        optimizer_g.zero_grad()
        loss_g.backward()
        optimizer_g.step()

    return timed(step, args, device)


def timed(step: Callable[[int], None], args: argparse.Namespace, device: torch.device) -> float:
    """Examples a second."""
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
