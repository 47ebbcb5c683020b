"""Loads the service on this machine, then sends it what is no sound, and tells whether anything was lost.

    python benchmarks/server.py [--ckpt-path runs/a/checkpoints/best.ckpt] [--clients 50] [--requests 2000]
    python benchmarks/server.py --files folder      # sends each file as it is, cut in half and with flipped bits, too

Without --ckpt-path the generator is an untrained one of the default size. Three of ten requests send a sound of a
second, five make one, one morphs between two and one asks for the classes. A request is lost if it is not answered as
it has to be; who is told to come again (503) does, and waits by this.
"""

import argparse
import asyncio
import io
import os
import random
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter, defaultdict
from functools import partial
from pathlib import Path

import httpx
import numpy as np
import soundfile
import torch

ROOT = Path(__file__).parents[1]
UPLOAD = "/api/audio/generate-spectrogram"
KINDS = ("upload", "generate", "morph", "classes")
SHARES = (3, 5, 1, 1)
WARM_UP = 100  # requests before the first look at the memory


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ckpt-path", help="a checkpoint of train.py")
    parser.add_argument("--clients", type=int, default=50)
    parser.add_argument("--requests", type=int, default=2000)
    parser.add_argument("--garbage", type=int, default=500, help="uploads of random bytes")
    parser.add_argument("--files", help="a folder of files to send")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as home:
        ckpt_path = args.ckpt_path or untrained(Path(home) / "untrained.ckpt")
        process, url = start(Path(ckpt_path).resolve(), Path(home))
        try:
            asyncio.run(measure(url, process.pid, args))
        finally:
            process.send_signal(signal.SIGINT)
            print(f"ended with exit code {process.wait(60)}")


def start(ckpt_path: Path, home: Path) -> tuple[subprocess.Popen, str]:
    with (home / "log").open("w") as log:
        command = [sys.executable, "-m", "specgan.server", "port=0", f"ckpt_path={ckpt_path}"]
        process = subprocess.Popen(command, cwd=ROOT, stderr=log, stdout=log)
    while not (found := re.search(r"running on (http://\S+)", (home / "log").read_text())):
        if process.poll() is not None:
            raise SystemExit((home / "log").read_text())
        time.sleep(0.1)
    return process, found[1]


async def measure(url: str, pid: int, args: argparse.Namespace) -> None:
    limits = httpx.Limits(max_connections=args.clients)
    async with httpx.AsyncClient(base_url=url, timeout=300, limits=limits) as client:
        names = (await client.get("/api/classes")).json()["classes"]
        drawn = random.Random(args.seed)
        plan = drawn.choices(KINDS, SHARES, k=WARM_UP + args.requests)
        await load(client, plan[:WARM_UP], names, args.clients)
        before, started = resident_mb(pid), time.perf_counter()
        times, lost, n_again = await load(client, plan[WARM_UP:], names, args.clients)
        took = time.perf_counter() - started
        print(
            f"\n{args.clients} clients, {args.requests} requests in {took:.1f} s: {args.requests / took:.1f} a second"
        )
        print(f"| {'request':<9} | {'n':>5} | {'p50':>8} | {'p99':>8} | {'longest':>8} |")
        print("|---|---|---|---|---|")
        for kind in (*KINDS, "all"):
            of_kind = np.array(times[kind] if kind in KINDS else [second for some in times.values() for second in some])
            p50, p99, longest = (1000 * np.quantile(of_kind, q) for q in (0.5, 0.99, 1))
            print(f"| {kind:<9} | {len(of_kind):>5} | {p50:>5.0f} ms | {p99:>5.0f} ms | {longest:>5.0f} ms |")
        print(f"lost: {sum(lost.values())} {dict(lost) or ''}; told to come again: {n_again}")
        print(f"resident memory: {before:.0f} MB before, {resident_mb(pid):.0f} MB after")

        await send_all(client, "random bytes", [(blob, None) for blob in garbage(args.garbage, drawn)], args.clients)
        if args.files:
            await send_all(client, args.files, variants(Path(args.files), drawn), args.clients)
        health = (await client.get("/healthz")).json()
        sound = await client.post(UPLOAD, files={"audio_file": tone(0)})
        print(f"after all that: /healthz {health['status']}, a sound {sound.status_code}, {resident_mb(pid):.0f} MB")


async def load(client: httpx.AsyncClient, plan: list[str], names: list[str], n_clients: int) -> tuple:
    """Returns seconds by kind, what was lost by kind and status, and how many were told to come again."""
    times, lost, n_again = defaultdict(list), Counter(), 0
    waiting = iter(enumerate(plan))

    async def one_client() -> None:
        nonlocal n_again
        for number, kind in waiting:
            begun = time.perf_counter()
            while True:
                try:
                    answer = await request(client, kind, number, names)
                except httpx.HTTPError as err:
                    lost[kind, type(err).__name__] += 1
                    break
                if answer.status_code != 503:
                    if answer.status_code != 200:
                        lost[kind, answer.status_code] += 1
                    break
                n_again += 1
                await asyncio.sleep(float(answer.headers.get("Retry-After", 1)))
            times[kind].append(time.perf_counter() - begun)

    await asyncio.gather(*(one_client() for _ in range(n_clients)))
    return times, lost, n_again


async def request(client: httpx.AsyncClient, kind: str, number: int, names: list[str]) -> httpx.Response:
    label = names[number % len(names)]
    if kind == "upload":
        return await client.post(UPLOAD, files={"audio_file": tone(number)})
    if kind == "generate":
        return await client.post("/api/generate", json={"class": label, "seed": number})
    if kind == "morph":
        ends = {"from": {"class": label, "seed": number}, "to": {"class": names[0], "seed": number + 1}}
        return await client.post("/api/morph", json={**ends, "n": 3})
    return await client.get("/api/classes")


async def send_all(client: httpx.AsyncClient, title: str, contents: list, n_clients: int) -> None:
    """Sends files and prints how they were answered, and which were not as they had to be."""
    slots, answers, strange = asyncio.Semaphore(n_clients), Counter(), []

    async def send(content: bytes, name: str | None) -> None:
        async with slots:
            try:
                status = 503
                while status == 503:
                    status = (await client.post(UPLOAD, files={"audio_file": content})).status_code
            except httpx.HTTPError as err:
                status = type(err).__name__
        answers[status] += 1
        if status not in (200, 400, 413, 415):
            strange.append((name, status))

    await asyncio.gather(*(send(*content) for content in contents))
    counts = ", ".join(f"{status}: {n}" for status, n in sorted(answers.items(), key=str))
    print(f"{len(contents)} of {title}: {counts}; not answered as they have to be: {strange or 'none'}")


def garbage(n: int, drawn: random.Random) -> list[bytes]:
    """Random bytes; every second one begins as a sound does."""
    starts = [tone(0)[:44], encoded(0, "FLAC")[:60], encoded(0, "OGG")[:80], encoded(0, "MP3")[:200], b"ID3\x04"]
    starts = [start for kind in starts for start in (b"", kind)]
    return [starts[i % len(starts)] + drawn.randbytes(drawn.randrange(1, 2**16)) for i in range(n)]


def variants(folder: Path, drawn: random.Random) -> list[tuple[bytes, str]]:
    """Each file, its first half, and it with one bit in a thousand bytes flipped."""
    made = []
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        whole = path.read_bytes()
        flipped = bytearray(whole)
        for _ in range(len(whole) // 1000 + bool(whole)):
            flipped[drawn.randrange(len(whole))] ^= 1 << drawn.randrange(8)
        made += [(whole, str(path)), (whole[: len(whole) // 2], f"{path}, half"), (bytes(flipped), f"{path}, flipped")]
    return made


def encoded(number: int, kind: str) -> bytes:
    t = np.arange(22050) / 22050
    buffer = io.BytesIO()
    soundfile.write(buffer, 0.5 * np.sin(2 * np.pi * (200 + number % 1000) * t), 22050, format=kind)
    return buffer.getvalue()


tone = partial(encoded, kind="WAV")


def resident_mb(pid: int) -> float:
    """Of the service's own process."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20


def untrained(path: Path) -> Path:
    """Writes what generate.py reads of a checkpoint, with the networks of `python train.py` before the first step."""
    from hydra import compose, initialize_config_dir
    from hydra.utils import instantiate
    from omegaconf import OmegaConf

    from specgan.spectrogram import LevelRange

    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        cfg = compose("train")
    OmegaConf.set_struct(cfg, True)
    torch.manual_seed(0)
    model = instantiate(cfg.model, _convert_="all")
    names = ["clap", "kick", "snare"]
    model.build(params=instantiate(cfg.spectrogram), level_range=LevelRange(-80.0, -10.0), class_names=names)
    checkpoint = {"state_dict": model.state_dict()}
    model.on_save_checkpoint(checkpoint)
    torch.save(checkpoint, path)
    return path


if __name__ == "__main__":
    main()
