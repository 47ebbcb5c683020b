"""How fast are examples read, and how large may a dataset be? Ratios against named peers, measured in the same run.

    python benchmarks/reading.py                              # everything, about five minutes, 1.5 GB of disk
    python benchmarks/reading.py --n-clips 5000 --n-rows 100000

First, examples a second of shuffled epochs in batches through a DataLoader without workers, on one thread, of 64 bands
x 64 frames, normalised: ours from memory and from shards, and torch's own loader with its default `collate_fn` over
items in memory (what one writes first) and over a .pt file each, and tar files of .npy read one after the other into a
buffer that shuffles, as WebDataset does. All files have just been written, so they are in the system's cache: a disk
makes small files slower still. Peers take turns, and the median of the repeats counts.

Second, with a manifest of so many rows: seconds to open the training split, memory that this takes beyond the imports,
and seconds from there to the first batch of an epoch; and the same for csv.DictReader into a list with a shuffled list
of indices. Each in a process of its own. The spectrograms are made up.
"""

import argparse
import csv
import io
import json
import random
import re
import statistics
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pandas as pd
import torch
import yaml
from torch.utils.data import DataLoader, Dataset, IterableDataset

from specgan.data.dataset import SpectrogramDataset, as_batched
from specgan.data.manifest import write_manifest
from specgan.data.shards import write_shard
from specgan.spectrogram import LevelRange, SpectrogramParams, normalise

PARAMS = SpectrogramParams()  # 64 x 64
LEVELS = LevelRange(PARAMS.floor_db, 0.0)
N_CLASSES, BATCH_SIZE = 10, 64


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--n-clips", type=int, default=20_000, help="that are read")
    parser.add_argument("--n-rows", type=int, nargs="*", default=[10**5, 10**6], help="of made-up manifests")
    parser.add_argument("--shard-size", type=int, default=4096, help="clips in a shard")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--measure", nargs=2, metavar=("WHAT", "FOLDER"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    torch.set_num_threads(1)
    if args.measure:
        what, folder = args.measure
        print(json.dumps(MEASURED[what](Path(folder))))
        return
    with tempfile.TemporaryDirectory() as folder:
        print_rates(Path(folder), args.n_clips, args.shard_size, args.repeats)
    for n_rows in args.n_rows:
        with tempfile.TemporaryDirectory() as folder:
            print_table(Path(folder), n_rows, args.shard_size, args.repeats)


# Rates


def print_rates(folder: Path, n_clips: int, shard_size: int, repeats: int) -> None:
    write_clips(folder, n_clips, shard_size)
    readers = {
        "specgan, memory": ours(SpectrogramDataset(folder / "files", "train", PARAMS)),
        "specgan, shards": ours(SpectrogramDataset(folder / "shards", "train", PARAMS)),
        "torch, memory": theirs(InMemory(folder / "files")),
        "torch, .pt files": theirs(Files(folder / "files")),
        "tar files": lambda: DataLoader(Tars(folder / "tars"), BATCH_SIZE),
    }
    rates = {name: [] for name in readers}
    for _ in range(repeats):
        for name, epoch in readers.items():
            start = time.perf_counter()
            n_read = sum(len(labels) for _, labels in epoch())
            rates[name].append(n_read / (time.perf_counter() - start))
            if n_read != n_clips:
                sys.exit(f"{name}: {n_read} of {n_clips} examples")
    medians = {name: statistics.median(values) for name, values in rates.items()}
    print(f"{n_clips} clips of 64 x 64, batches of {BATCH_SIZE}, one thread")
    print(f"{'':18}{'examples/s':>12}{'specgan, memory':>18}{'specgan, shards':>18}")
    for name, rate in medians.items():
        ratios = [f"{medians[us] / rate:.1f} x" for us in ("specgan, memory", "specgan, shards")]
        print(f"{name:18}{rate:12,.0f}{ratios[0]:>18}{ratios[1]:>18}", flush=True)


def write_clips(folder: Path, n_clips: int, shard_size: int) -> None:
    """The same clips as files, shards and tar files."""
    generator = torch.Generator().manual_seed(0)
    (folder / "files").mkdir()
    (folder / "tars").mkdir()
    rows = {"files": [], "shards": []}
    for first in range(0, n_clips, shard_size):
        numbers = range(first, min(first + shard_size, n_clips))
        levels = list(-80 * torch.rand(len(numbers), 64, 64, generator=generator))
        shard, places = write_shard(levels, folder / "shards")
        with tarfile.open(folder / "tars" / f"{first:08d}.tar", "w") as tar:
            for number, level, place in zip(numbers, levels, places, strict=True):
                rows["files"].append(row(number, path=f"{number}.pt"))
                rows["shards"].append(row(number, path=shard, first_frame=place))
                torch.save(level.clone(), folder / "files" / f"{number}.pt")
                content = io.BytesIO()
                np.save(content, level.numpy())
                info = tarfile.TarInfo(f"{number}.{number % N_CLASSES}.npy")
                info.size = content.tell()
                content.seek(0)
                tar.addfile(info, content)
    for name, table in rows.items():
        finish(pd.DataFrame(table), folder / name)


def row(number: int, **place) -> dict:
    label = str(number % N_CLASSES)
    recording = f"{label}/recording_{number:08d}"
    source = f"/sounds/of/somebody/{recording}.wav"
    times = {"start_s": 0.0, "duration_s": 1.024, "n_frames": 64}
    return {"label": label, "split": "train", "recording": recording, **times, "source": source, **place}


def finish(table: pd.DataFrame, folder: Path) -> None:
    write_manifest(table, folder)
    info = {"spectrogram": asdict(PARAMS), "peak": None, "level_range": asdict(LEVELS)}
    info["class_names"] = [str(i) for i in range(N_CLASSES)]
    (folder / "params.yaml").write_text(yaml.safe_dump(info))


def ours(dataset: SpectrogramDataset) -> Callable[[], Iterable]:
    generator = torch.Generator().manual_seed(0)

    def epoch() -> DataLoader:
        order = dataset.order(generator)
        places = torch.rand(len(order), generator=generator)
        items = list(zip(order.tolist(), places.tolist(), strict=True))
        batches = [items[i : i + BATCH_SIZE] for i in range(0, len(items), BATCH_SIZE)]
        return DataLoader(dataset, batch_sampler=batches, collate_fn=as_batched)

    return epoch


def theirs(dataset: Dataset) -> Callable[[], Iterable]:
    return lambda: DataLoader(dataset, BATCH_SIZE, shuffle=True)


class Files(Dataset):
    """A .pt file an example."""

    def __init__(self, folder: Path) -> None:
        with (folder / "manifest.csv").open(newline="") as file:
            self.rows = list(csv.DictReader(file))
        self.folder = folder

    def __len__(self) -> int:
        return len(self.rows)

    def level(self, index: int) -> torch.Tensor:
        return torch.load(self.folder / self.rows[index]["path"], weights_only=True)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        return normalise(self.level(index), PARAMS, LEVELS).unsqueeze(0), int(self.rows[index]["label"])


class InMemory(Files):
    """A tensor an example."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.levels = [Files.level(self, index) for index in range(len(self))]

    def level(self, index: int) -> torch.Tensor:
        return self.levels[index]


class Tars(IterableDataset):
    """Tar files in random order, read from one end to the other, and a buffer of a thousand examples that shuffles."""

    def __init__(self, folder: Path) -> None:
        self.tars = sorted(folder.iterdir())

    def __iter__(self) -> Iterator[tuple[torch.Tensor, int]]:
        rng, buffer = random.Random(0), []
        for level, label in self.examples(rng):
            buffer.append((normalise(torch.from_numpy(level), PARAMS, LEVELS).unsqueeze(0), label))
            if len(buffer) == 1000:
                last = rng.randrange(1000)
                buffer[last], buffer[-1] = buffer[-1], buffer[last]
                yield buffer.pop()
        rng.shuffle(buffer)
        yield from buffer

    def examples(self, rng: random.Random) -> Iterator[tuple[np.ndarray, int]]:
        for path in rng.sample(self.tars, len(self.tars)):
            with tarfile.open(path, "r|") as tar:
                for member in tar:
                    content = io.BytesIO(tar.extractfile(member).read())
                    yield np.load(content), int(member.name.split(".")[1])


# Tables


def print_table(folder: Path, n_rows: int, shard_size: int, repeats: int) -> None:
    write_rows(folder, n_rows, shard_size)
    size = (folder / "manifest.csv").stat().st_size
    print(f"\nmanifest of {n_rows} rows, {size / 2**20:.0f} MiB")
    print(f"{'':18}{'open':>10}{'memory':>12}{'first batch':>14}")
    for what in MEASURED:
        command = [sys.executable, __file__, "--measure", what, str(folder)]
        runs = [json.loads(subprocess.run(command, capture_output=True, check=True).stdout) for _ in range(repeats)]
        open_s, mib, first_s = (statistics.median(values) for values in zip(*runs, strict=True))
        print(f"{what:18}{open_s:8.2f} s{mib:8.0f} MiB{first_s:12.2f} s", flush=True)


def write_rows(folder: Path, n_rows: int, shard_size: int) -> None:
    """A manifest of shards that are all the same one clip, under many names."""
    shard, _ = write_shard([torch.full((64, 64), -40.0)], folder)
    names = [f"shards/{number:016x}.safetensors" for number in range(-(-n_rows // shard_size))]
    for name in names:
        (folder / name).hardlink_to(folder / shard)
    rows = (row(number, path=names[number // shard_size], first_frame=0) for number in range(n_rows))
    finish(pd.DataFrame(rows).sample(frac=1, random_state=0), folder)


def measure_ours(folder: Path) -> tuple[float, float, float]:
    before, start = peak_mib(), time.perf_counter()
    dataset = SpectrogramDataset(folder, "train", PARAMS)
    opened = time.perf_counter()
    memory = peak_mib() - before
    order = dataset.order(torch.Generator().manual_seed(0))
    dataset.__getitems__([(index, 0.0) for index in order[:BATCH_SIZE].tolist()])
    return opened - start, memory, time.perf_counter() - opened


def measure_theirs(folder: Path) -> tuple[float, float, float]:
    before, start = peak_mib(), time.perf_counter()
    with (folder / "manifest.csv").open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["split"] == "train"]
    opened = time.perf_counter()
    memory = peak_mib() - before
    order = list(range(len(rows)))
    random.Random(0).shuffle(order)
    _ = [rows[index] for index in order[:BATCH_SIZE]]  # but no spectrogram
    return opened - start, memory, time.perf_counter() - opened


def peak_mib() -> float:
    """The most memory that this program has had so far."""
    status = Path("/proc/self/status")
    if status.exists():  # Linux: getrusage would count what the process was before it became this program
        return int(re.search(r"VmHWM:\s+(\d+) kB", status.read_text())[1]) / 2**10
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20  # macOS


MEASURED = {"specgan": measure_ours, "csv.DictReader": measure_theirs}

if __name__ == "__main__":
    main()
