"""Quality against time: generators trained for some core-minutes, measured on real test clips by one judge.

    python benchmarks/quality.py                                        # built-in drums, 10 core-minutes a recipe
    python benchmarks/quality.py --minutes 10 40 --seeds 0 1 2 --core 0
    python benchmarks/quality.py --data data=folder data.audio_dir=clips data.label_from=prefix
    python benchmarks/quality.py --against ../specgan-before            # the recipe of another checkout too

Each training is `train.py` with one thread in single precision. With --core it is pinned to that core, so that a second
run of this script on another core does not disturb it. --avx2 makes any x86-64 processor compute like one that has AVX2
alone. Checkpoints of another checkout are measured by this one. Files go to --output; what is there is not repeated.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parent.parent
RECIPES = {"cgan": [], "cgan_classic": ["experiment=classic"]}
AVX2 = {"ATEN_CPU_CAPABILITY": "avx2", "ONEDNN_MAX_CPU_ISA": "AVX2", "MKL_ENABLE_INSTRUCTIONS": "AVX2"}
FIGURES = {
    "precision": "precision",
    "recall": "recall",
    "coverage": "coverage",
    "conditional_accuracy": "accuracy",
    "diversity": "diversity",
    "near_copy_share": "copies",
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", nargs="+", default=["data=drums"], help="settings of train.py that name the sounds")
    parser.add_argument("--recipes", nargs="+", default=list(RECIPES), choices=RECIPES)
    parser.add_argument("--against", type=Path, help="a checkout of another commit, whose model=cgan is trained too")
    parser.add_argument("--minutes", nargs="+", type=float, default=[10.0], help="of training, on one core")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--core", type=int, help="the core that computes; default: whichever is free")
    parser.add_argument("--avx2", action="store_true")
    parser.add_argument("--output", type=Path, default=Path("runs/quality"))
    args = parser.parse_args()
    if args.core is not None:
        os.sched_setaffinity(0, {args.core})
    os.environ.update({"OMP_NUM_THREADS": "1", **(AVX2 if args.avx2 else {})})

    trainings = [(recipe, ROOT, RECIPES[recipe]) for recipe in args.recipes]
    if args.against:
        trainings.append((args.against.name, args.against.resolve(), []))
    names = ("Fréchet", "/ real", *FIGURES.values())
    print(f"{' '.join(args.data)}; one thread, single precision{', AVX2' if args.avx2 else ''}")
    print(f"{'recipe':20}{'core-min':>9}{'seed':>7}{'steps':>7}" + "".join(f"{name:>11}" for name in names), flush=True)
    for minutes in args.minutes:
        for name, checkout, settings in trainings:
            rows = []
            for seed in args.seeds:
                folder = args.output.resolve() / f"{name}-{minutes:g}-{seed}"
                rows.append(measured(checkout, folder, minutes, [*settings, f"seed={seed}", *args.data]))
                show(name, minutes, str(seed), rows[-1])
            if len(rows) > 1:
                show(name, minutes, "median", [statistics.median(column) for column in zip(*rows, strict=True)])


def measured(checkout: Path, folder: Path, minutes: float, settings: list[str]) -> list[float]:
    """Trains and measures, unless that was done: steps, Fréchet distance, the same over that of real clips, FIGURES."""
    report, checkpoint = folder / "report.json", folder / "checkpoints" / "best.ckpt"
    data_dir = f"paths.data_dir={folder.parent / 'data'}"
    if not checkpoint.is_file():
        seconds = round(60 * minutes)
        limits = [f"trainer.max_time=00:{seconds // 3600:02}:{seconds // 60 % 60:02}:{seconds % 60:02}"]
        limits += ["trainer.max_epochs=-1", "trainer.precision=32-true", "logger=none"]
        run(checkout, "train.py", *settings, *limits, data_dir, f"hydra.run.dir={folder}")
    if not report.is_file():
        # A run of another checkout may have settings of another judge.
        judge = yaml.safe_load((ROOT / "conf" / "judge" / "default.yaml").read_text(encoding="utf-8"))
        judge = [f"evaluation.judge.{name}={value}" for name, value in judge.items() if not name.startswith("_")]
        measuring = ["stage=test", f"ckpt_path={checkpoint}", "evaluation.classifier_steps=0", *judge]
        run(ROOT, "train.py", *measuring, data_dir, f"hydra.run.dir={folder}-test")
    found = json.loads(report.read_text(encoding="utf-8"))
    real, generated = found["rows"]["real"], found["rows"]["generated"]
    distance = generated["frechet_distance"]["value"]
    figures = [generated[name]["value"] for name in FIGURES]
    return [found["n_steps"], distance, distance / real["frechet_distance"]["value"], *figures]


def run(checkout: Path, *words: str) -> None:
    environment = {**os.environ, "PYTHONPATH": str(checkout)}
    done = subprocess.run([sys.executable, *words], cwd=checkout, env=environment, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{' '.join(words)}\n{done.stdout}\n{done.stderr}")


def show(name: str, minutes: float, seed: str, row: list[float]) -> None:
    steps, *figures = row
    print(f"{name:20}{minutes:9g}{seed:>7}{steps:7.0f}" + "".join(f"{figure:11.3f}" for figure in figures), flush=True)


if __name__ == "__main__":
    main()
