"""How tests run the scripts: the settings of a run of seconds, and the command."""

import os
import sys
from pathlib import Path

import preloaded

ROOT = Path(__file__).parents[1]
TINY = [
    "generator.width=16",
    "discriminator.width=16",
    "model.latent_dim=16",
    "spectrogram=mel_64x64",
    "spectrogram.n_mels=32",
    "spectrogram.n_frames=32",
    "spectrogram.hop_length=512",
    "data.batch_size=4",
    "data.epoch_size=8",
    "vocoder.n_iter=2",
    "vocoder.n_inversion_iter=5",
    "callbacks.preview.every_n_epochs=2",
    "callbacks.measure.every_n_epochs=2",
    "callbacks.measure.n_samples=4",
    "evaluation.judge.width=8",
    "evaluation.judge.n_steps=20",
    "evaluation.n_samples=6",
    "evaluation.n_neighbors=3",
    "evaluation.n_folds=0",
    "evaluation.classifier_steps=5",
    "evaluation.device=cpu",
    "trainer.accelerator=cpu",
]
QUIET = ["logger=none", "~callbacks.preview", "~callbacks.measure", "~callbacks.best", "~callbacks.progress"]
QUIET += ["+trainer.enable_progress_bar=false", "trainer.precision=32-true"]


def run(script, *arguments, cwd, code=0, **variables):
    """Runs a script of the checkout from another folder, as a user without account or network does."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith("WANDB_")}
    environment |= {"WANDB_BASE_URL": "http://127.0.0.1:9", "COLUMNS": "200", **variables}  # nobody listens there
    command = [sys.executable, str(ROOT / script), *map(str, arguments)]
    done = preloaded.run(command, cwd=cwd, env=environment)
    assert done.returncode == code, done.stdout
    return done.stdout


def folder_source(tiny_drums):
    return ["data=folder", f"data.audio_dir={tiny_drums}", "data.splits=[50,17,33]"]  # 3, 1 and 2 clips of each class
