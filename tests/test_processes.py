"""Training in two processes (trainer=ddp_cpu, gloo) against one with the batches of both."""

import json
from pathlib import Path

import lightning as L
import numpy as np
import pandas as pd
import pytest
import torch
from checkpoints import save_checkpoint
from runs import QUIET, TINY, folder_source, run

N_STEPS = 20


class Dump(L.Callback):
    """Each process writes what its averaged generator is at the end."""

    def __init__(self, folder):
        self.folder = Path(folder)

    def on_train_end(self, trainer, pl_module):
        weights = {name: value.double().sum().item() for name, value in pl_module.ema.state_dict().items()}
        (self.folder / f"rank{trainer.global_rank}.json").write_text(json.dumps(weights))


def train(tiny_drums, home, name, *arguments):
    settings = [argument for argument in [*TINY, *QUIET] if not argument.startswith("logger")]
    # an epoch is one step of 8, so that the log has every step
    settings = [s for s in settings if not s.startswith(("data.batch_size", "data.epoch_size", "trainer.accelerator"))]
    settings = [s for s in settings if not s.startswith(("callbacks.", "~callbacks.best", "~callbacks.measure"))]
    settings = [s for s in settings if s != "~callbacks.preview"]
    settings += ["data.epoch_size=8", f"trainer.max_epochs={N_STEPS}", "logger=csv", f"hydra.run.dir={name}"]
    settings += ["callbacks.preview.every_n_epochs=20", "callbacks.measure.every_n_epochs=20"]
    # in double precision: else rounding, which differs with the size of a batch, grows from step to step
    settings = [*(s for s in settings if not s.startswith("trainer.precision")), "trainer.precision=64-true"]
    settings += ["callbacks.measure.n_samples=4", "callbacks.checkpoint.at_epoch_ends_s=3600"]
    settings += ["+callbacks.dump._target_=test_processes.Dump", "+callbacks.dump.folder=${paths.run_dir}"]
    settings += ["data.balance=0.5", f"init_from={save_checkpoint(home / 'start.ckpt')}"]
    variables = {"PYTHONPATH": str(Path(__file__).parent), "OMP_NUM_THREADS": "1"}
    return home / name, run("train.py", *folder_source(tiny_drums), *settings, *arguments, cwd=home, **variables)


@pytest.fixture(scope="module")
def runs(tiny_drums, tmp_path_factory):
    home = tmp_path_factory.mktemp("processes")
    one, _ = train(tiny_drums, home, "one", "data.batch_size=8", "trainer.accelerator=cpu")
    two, output = train(tiny_drums, home, "two", "data.batch_size=4", "trainer=ddp_cpu")
    return one, two, output


def test_two_processes_give_the_losses_of_one_with_the_whole_batch(runs):
    one, two, _ = runs
    tables = [pd.read_csv(folder / "csv" / "metrics.csv").dropna(subset="train/loss_d") for folder in (one, two)]
    names = [
        name
        for name in tables[0]
        if name.startswith("train/") and name != "train/examples_per_s" and tables[0][name].notna().all()
    ]
    assert {"train/loss_d", "train/loss_g", "train/real_logits"} <= set(names)
    a, b = (table[names].to_numpy() for table in tables)
    assert a.shape == b.shape == (N_STEPS, len(names))
    np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-7)  # the log is in single precision
    assert np.ptp(a[:, names.index("train/loss_d")]) > 0.01  # the training moved


def test_two_processes_end_with_the_same_average_and_that_of_one(runs):
    one, two, _ = runs
    averages = [json.loads(path.read_text()) for path in (one / "rank0.json", two / "rank0.json", two / "rank1.json")]
    assert averages[1] == averages[2]
    a, b = (np.array(list(average.values())) for average in averages[:2])
    np.testing.assert_allclose(a, b, rtol=1e-8, atol=1e-8)


def test_only_one_process_draws_measures_and_writes(runs):
    _, two, output = runs
    assert output.count("epoch 20: fad") == 1
    assert output.count("classes that go on: kick; new classes: clap, open_hat") == 1
    assert json.loads((two / "settings.json").read_text())["init_from"] == str(two.parent / "start.ckpt")
    assert output.count("epoch 20: silent_share") == 1
    point = json.loads((two / "curve.json").read_text())[-1]
    assert (point["epoch"], point["n_steps"]) == (20, 20)
    assert json.loads((two / "metrics.json").read_text())["val/fad"] == pytest.approx(point["fad"], rel=1e-5)
    assert torch.load(two / "checkpoints" / "best.ckpt", weights_only=True)["specgan"]["n_steps"] == 20
    assert len(list(two.rglob("metrics.csv"))) == 1
