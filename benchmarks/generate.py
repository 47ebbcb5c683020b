"""How fast is `python generate.py n_samples=1000`, and by how much faster than in another checkout of specgan?

    python benchmarks/generate.py                                       # a minute on 2 cores
    git worktree add ../before <commit>
    python benchmarks/generate.py --against ../before                   # both, in turn; are the samples the same?
    taskset -c 1 python benchmarks/generate.py --against ../before      # on one core

The command is timed as a whole, from its start to its exit, because that is what one waits for; and with N_FEW sounds,
which is nearly all start. The fastest of the repeats counts. Without --ckpt-path the generator is an untrained one of
the default size, of sounds of a second, whose noise takes as long as other sounds. The sounds go to the system's
temporary folder: TMPDIR=/dev/shm keeps a slow disk out of it.
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import soundfile
from server import untrained

ROOT = Path(__file__).resolve().parents[1]
N_FEW = 8


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--against", type=Path, help="another checkout of specgan, for the same environment")
    parser.add_argument("--n-samples", type=int, default=1000)
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--ckpt-path", type=Path, help="a checkpoint of train.py with a class kick")
    args = parser.parse_args()
    checkouts = {"this": ROOT} | ({"other": args.against.resolve()} if args.against else {})
    n_cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    print(f"{n_cores} cores, {args.n_samples} sounds:", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        ckpt_path = args.ckpt_path or untrained(Path(folder) / "untrained.ckpt")
        times: dict[tuple[str, int], list[float]] = {}
        for _ in range(args.repeats):
            for n in (N_FEW, args.n_samples):
                for name, root in checkouts.items():
                    elapsed = seconds(root, ckpt_path.resolve(), Path(folder) / name, n)
                    times.setdefault((name, n), []).append(elapsed)
        best = {key: min(each) for key, each in times.items()}
        for name, root in checkouts.items():
            whole, few = best[name, args.n_samples], best[name, N_FEW]
            each_ms = (whole - few) / (args.n_samples - N_FEW) * 1e3
            print(
                f"    {root}: {whole:.1f} s, {args.n_samples / whole:.1f} sounds a second; "
                f"{N_FEW} sounds {few:.1f} s, one more {each_ms:.1f} ms"
            )
        if args.against:
            ratio = best["other", args.n_samples] / best["this", args.n_samples]
            same = sounds_in(Path(folder) / "this") == sounds_in(Path(folder) / "other")
            print(
                f"    this is {ratio:.2f} x as fast; samples and pictures are {'the same' if same else 'NOT the same'}"
            )


def seconds(root: Path, ckpt_path: Path, output: Path, n_samples: int) -> float:
    """Runs the command of a checkout into a folder that is removed before."""
    shutil.rmtree(output, ignore_errors=True)
    settings = [f"ckpt_path={ckpt_path}", "label=kick", f"n_samples={n_samples}", f"output={output}"]
    if "trim_db:" in (root / "conf" / "generate.yaml").read_text(encoding="utf-8"):
        settings.append("trim_db=null")  # as checkouts from before there was trimming
    start = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "generate.py", *settings],
        cwd=root,
        env=os.environ | {"PYTHONPATH": str(root)},  # before an installed specgan
        capture_output=True,
        text=True,
    )
    elapsed = time.perf_counter() - start
    if done.returncode or len(sounds_in(output)) != 2 * n_samples:
        sys.exit(f"{root}/generate.py ended with {done.returncode}:\n{done.stderr[-2000:]}")
    return elapsed


def sounds_in(folder: Path) -> dict[str, bytes]:
    """The samples of WAVs, and pictures, by name."""
    wavs = {path.name: soundfile.read(path, dtype="int16")[0].tobytes() for path in folder.rglob("kick_*.wav")}
    return wavs | {path.name: path.read_bytes() for path in folder.rglob("kick_*.png")}


if __name__ == "__main__":
    main()
