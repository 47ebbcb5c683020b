"""Kills a training at random moments, goes on each time, and compares the end with a training that nothing disturbed.

    python benchmarks/survival.py [--kills 10] [--audio-dir clips]

Without --audio-dir it trains on the built-in drums. Prints at which step each kill came, and whether weights, averages,
optimizers and random states are the same bit by bit.
"""

import argparse
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch

ROOT = Path(__file__).parents[1]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--audio-dir", help="a folder of labelled sounds; without it, the built-in drums")
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    args = parser.parse_args()
    moments = random.Random(args.seed)
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        source = ["data=folder", f"data.audio_dir={Path(args.audio_dir).resolve()}"] if args.audio_dir else []
        command = [sys.executable, str(ROOT / "train.py"), *source, f"trainer.max_epochs={args.epochs}"]
        command += ["logger=none", "~callbacks.preview", "~callbacks.measure", "~callbacks.best", "~callbacks.progress"]
        command += ["+trainer.enable_progress_bar=false", "generator.width=64", "discriminator.width=64"]
        command += ["hydra.job_logging.root.level=ERROR"]
        subprocess.run([*command, "hydra.run.dir=whole"], cwd=home, check=True)
        whole = load(home / "whole")
        print(f"undisturbed: {whole['specgan']['n_steps']} steps", flush=True)

        checkpoint = home / "killed" / "checkpoints" / "last.ckpt"
        command += ["hydra.run.dir=killed", "callbacks.checkpoint.every_s=0.2"]
        n_kills = 0
        while n_kills < args.kills:
            process = subprocess.Popen([*command, *going_on(checkpoint)], cwd=home, stderr=subprocess.DEVNULL)
            wait_for_a_checkpoint(checkpoint, process)
            # Short, so that ten kills fit into the training; anywhere, also into a checkpoint that is being written.
            time.sleep(moments.uniform(0, 1.0))
            if process.poll() is not None:
                raise SystemExit(f"the training ended after {n_kills} kills; give more --epochs")
            process.kill()
            process.wait()
            n_kills += 1
            print(
                f"kill {n_kills}: the checkpoint is of step {load(home / 'killed')['specgan']['n_steps']}", flush=True
            )
        subprocess.run([*command, *going_on(checkpoint)], cwd=home, check=True)
        killed = load(home / "killed")
        for part in ("state_dict", "optimizer_states", "specgan"):
            print(f"{part}: {'the same bits' if same(whole[part], killed[part]) else 'DIFFERENT'}")
        if not all(same(whole[part], killed[part]) for part in ("state_dict", "optimizer_states", "specgan")):
            raise SystemExit(1)


def load(run: Path) -> dict:
    return torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)


def going_on(checkpoint: Path) -> list[str]:
    return [f"ckpt_path={checkpoint}"] if checkpoint.exists() else []


def wait_for_a_checkpoint(path: Path, process: subprocess.Popen) -> None:
    before = path.stat().st_mtime_ns if path.exists() else 0
    while not path.exists() or path.stat().st_mtime_ns <= before:
        if process.poll() is not None:
            raise SystemExit("the training ended by itself")
        time.sleep(0.01)


def same(a, b) -> bool:
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(map(same, a, b))
    return torch.equal(a, b) if isinstance(a, torch.Tensor) else a == b


if __name__ == "__main__":
    main()
