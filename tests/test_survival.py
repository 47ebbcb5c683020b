"""Runs that are killed or interrupted, run out of disk, or diverge."""

import json
import os
import random
import re
import resource
import signal
import subprocess
import sys
import time

import pytest
import torch
from lightning.pytorch.utilities.exceptions import SIGTERMException
from runs import QUIET, ROOT, TINY, folder_source, run

from specgan.data.batches import BatchPlan
from specgan.training.survival import LastCheckpoint, NotANumberGuard, WholeCheckpoints


def settings(tiny_drums, folder, *more):
    of_run = [*folder_source(tiny_drums), *TINY, *QUIET, "data.epoch_size=80", f"hydra.run.dir={folder}"]
    return [*(s for s in of_run if not s.startswith(("callbacks.preview", "callbacks.measure"))), *more]


def command(tiny_drums, folder, *more):
    return [sys.executable, str(ROOT / "train.py"), *settings(tiny_drums, folder, *more)]


def wait_for(path, process, *, newer_than=0):
    deadline = time.monotonic() + 120
    while not path.exists() or path.stat().st_mtime_ns <= newer_than:
        assert process.poll() is None, "the training ended by itself"
        assert time.monotonic() < deadline
        time.sleep(0.01)


def state(folder):
    return torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)


def same(a, b):
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(map(same, a, b))
    return torch.equal(a, b) if isinstance(a, torch.Tensor) else a == b


@pytest.fixture(scope="module")
def whole(tiny_drums, tmp_path_factory):
    """A training that nothing disturbs: 5 epochs of 20 steps."""
    home = tmp_path_factory.mktemp("whole")
    run("train.py", *settings(tiny_drums, home / "run", "trainer.max_epochs=5"), cwd=home)
    return state(home / "run")


def test_a_run_that_was_killed_in_mid_epoch_ends_with_the_same_bits(whole, tiny_drums, tmp_path):
    often = ["trainer.max_epochs=5", "callbacks.checkpoint.every_s=0"]  # a checkpoint after each step
    checkpoint, steps = tmp_path / "run" / "checkpoints" / "last.ckpt", []
    for pause_s in random.Random(0).sample([0.05, 0.1, 0.15], 2):
        resumed = [f"ckpt_path={checkpoint}"] if checkpoint.exists() else []
        before = checkpoint.stat().st_mtime_ns if checkpoint.exists() else 0
        process = subprocess.Popen(
            command(tiny_drums, tmp_path / "run", *often, *resumed), cwd=tmp_path, stderr=subprocess.DEVNULL
        )
        wait_for(checkpoint, process, newer_than=before)
        time.sleep(pause_s)
        process.kill()
        process.wait()
        steps.append(state(tmp_path / "run")["specgan"]["n_steps"])  # whole, whatever the kill hit
    assert 0 < steps[0] < steps[1] < 100
    run("train.py", *settings(tiny_drums, tmp_path / "run", *often, f"ckpt_path={checkpoint}"), cwd=tmp_path)
    end = state(tmp_path / "run")
    assert end["specgan"]["n_steps"] == 100
    for part in ("state_dict", "optimizer_states", "specgan"):
        assert same(end[part], whole[part]), part


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_run_leaves_a_checkpoint_and_goes_on_with_the_same_bits(whole, number, tiny_drums, tmp_path):
    checkpoint = tmp_path / "run" / "checkpoints" / "last.ckpt"
    process = subprocess.Popen(
        # of the same length as the whole run: the learning rates depend on it
        command(tiny_drums, tmp_path / "run", "trainer.max_epochs=5"),
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        # a shell gives background jobs an ignored SIGINT, which would be inherited
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    wait_for(checkpoint, process)
    process.send_signal(number)
    output, _ = process.communicate(timeout=120)
    assert process.returncode != 0
    assert "stopping after this step" in output
    assert "Traceback" not in output
    there = state(tmp_path / "run")["specgan"]["n_steps"]
    if there >= 100:
        pytest.skip(f"the machine was too slow to interrupt in time: {there} steps")
    arguments = ["trainer.max_epochs=5", f"ckpt_path={checkpoint}"]
    run("train.py", *settings(tiny_drums, tmp_path / "run", *arguments), cwd=tmp_path)
    assert same(state(tmp_path / "run")["state_dict"], whole["state_dict"])


def test_sigterm_while_the_judge_is_trained_does_not_end_with_0(tmp_path):
    script = (
        "import os, signal, threading, torch\nfrom specgan.evaluation.fitting import fit_classifier\n"
        "from specgan.models.classifier import Classifier\nfrom specgan.training.survival import end_on_sigterm\n"
        "end_on_sigterm()\nthreading.Timer(1.0, os.kill, (os.getpid(), signal.SIGTERM)).start()\n"
        "sizes = dict(width=8, n_features=8, n_steps=10**6)\n"
        "classifier = Classifier(sample_rate=8000, n_samples=4000, class_names=['a', 'b'], **sizes)\n"
        "labels = torch.tensor([0, 1] * 4)\n"
        "fit_classifier(classifier, torch.randn(8, 4000), labels, seed=0, device=torch.device('cpu'))"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 143, done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("is_training", [False, True])
def test_a_signal_ends_at_once_what_is_no_training_and_a_training_after_its_step(tmp_path, is_training):
    callback = LastCheckpoint(tmp_path / "last.ckpt")
    callback.is_training = is_training
    if is_training:
        callback._receive(signal.SIGTERM, None)
        assert callback.received == signal.SIGTERM
    else:
        with pytest.raises(SystemExit) as end:
            callback._receive(signal.SIGTERM, None)
        assert end.value.code == 143


# --- writing


def limited_to(n_bytes):
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (n_bytes, n_bytes))


def test_a_disk_that_is_full_leaves_the_checkpoint_before_and_a_clear_error(tmp_path):
    path = tmp_path / "last.ckpt"
    WholeCheckpoints().save_checkpoint({"x": torch.zeros(10)}, path)
    before = path.read_bytes()
    script = (
        "import sys, torch; from specgan.training.survival import WholeCheckpoints\n"
        "WholeCheckpoints().save_checkpoint({'x': torch.zeros(1_000_000)}, sys.argv[1])"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, str(path)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        preexec_fn=lambda: limited_to(1_000_000),
    )
    assert done.returncode == 1
    assert f"OSError: {path}: the checkpoint could not be written" in done.stderr
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == ["last.ckpt"]


def test_a_training_whose_disk_is_full_stops_with_that_error(tiny_drums, tmp_path):
    done = subprocess.run(
        command(tiny_drums, tmp_path / "run", "trainer.max_epochs=1"),
        cwd=tmp_path,
        capture_output=True,
        text=True,
        preexec_fn=lambda: limited_to(100_000),
    )
    assert done.returncode == 1
    assert "last.ckpt: the checkpoint could not be written" in done.stderr + done.stdout
    assert os.listdir(tmp_path / "run" / "checkpoints") == []


# --- losses that are not finite


def test_a_loss_that_is_not_finite_stops_with_what_led_to_it(tiny_drums, tmp_path):
    wild = ["model.optimizer_g.lr=1e30", "trainer.max_epochs=3", "callbacks.guard.every_n_steps=5"]
    output = run("train.py", *settings(tiny_drums, tmp_path / "run", *wild), cwd=tmp_path, code=1)
    assert re.search(r"loss_g[\w, ]* not finite after 5 steps", output)
    assert "callbacks.guard.on_nan=rollback" in output
    history = json.loads((tmp_path / "run" / "not_a_number.json").read_text())
    assert [step["n_steps"] for step in history] == [1, 2, 3, 4, 5]
    assert history[0]["loss_d"] is not None
    assert history[-1]["loss_g"] is None
    assert not list((tmp_path / "run").rglob("*.ckpt"))  # no checkpoint of weights that are not finite


class Parts:
    """A training as the callbacks see it: weights that a test can spoil, no processes but this one."""

    world_size, global_rank, is_global_zero, num_training_batches = 1, 0, True, 4
    should_stop, max_epochs, current_epoch = False, 10, 0

    def __init__(self, folder):
        self.model = torch.nn.Linear(2, 1)
        self.model.n_steps, self.model.rate_scale = 0, 1.0
        self.optimizers = [torch.optim.Adam(self.model.parameters(), lr=0.1)]
        self.checkpoint_io = WholeCheckpoints()
        self.strategy = self
        self.saver = LastCheckpoint(folder / "last.ckpt", at_epoch_ends_s=0)
        self.guard = NotANumberGuard(folder / "last.ckpt", folder / "nan.json", on_nan="rollback", every_n_steps=1)

    def reduce_boolean_decision(self, decision, all):
        return decision

    def save_checkpoint(self, path, weights_only):
        states = [optimizer.state_dict() for optimizer in self.optimizers]
        self.checkpoint_io.save_checkpoint({"state_dict": self.model.state_dict(), "optimizer_states": states}, path)

    def step(self, loss=None):
        loss = self.model(torch.ones(1, 2)).square().sum() if loss is None else loss
        self.optimizers[0].zero_grad()
        loss.backward()
        self.optimizers[0].step()
        self.model.n_steps += 1
        self.guard.on_train_batch_end(self, self.model, {"loss_d": loss.detach()}, None, 0)


def test_a_rollback_brings_back_weights_and_optimizers_and_halves_the_rates(tmp_path):
    parts = Parts(tmp_path)
    parts.step()
    parts.saver.on_train_epoch_end(parts, parts.model)
    good = {name: value.clone() for name, value in parts.model.state_dict().items()}
    parts.step()
    parts.step(parts.model.weight.sum() * torch.nan)
    assert all(torch.equal(parts.model.state_dict()[name], value) for name, value in good.items())
    assert [s["step"].item() for s in parts.optimizers[0].state_dict()["state"].values()] == [1, 1]
    assert parts.model.rate_scale == 0.5
    parts.step()
    for _ in range(4):
        parts.step(parts.model.weight.sum() * torch.nan)
    assert parts.model.rate_scale == 0.5**5
    with pytest.raises(FloatingPointError, match="last good checkpoint is"):
        parts.step(parts.model.weight.sum() * torch.nan)


def test_weights_that_are_not_finite_do_not_replace_a_good_checkpoint(tmp_path):
    parts = Parts(tmp_path)
    parts.saver.on_train_epoch_end(parts, parts.model)
    before = (tmp_path / "last.ckpt").read_bytes()
    with torch.no_grad():
        parts.model.weight[0, 0] = torch.inf
    parts.saver.on_train_epoch_end(parts, parts.model)
    assert (tmp_path / "last.ckpt").read_bytes() == before


def test_ends_of_epochs_are_kept_at_first_then_after_a_while_and_at_last(tmp_path, monkeypatch):
    now = [100.0]
    monkeypatch.setattr("specgan.training.survival.time.monotonic", lambda: now[0])
    parts, kept = Parts(tmp_path), []
    saver = LastCheckpoint(tmp_path / "new.ckpt", at_epoch_ends_s=10)
    saver.on_train_start(parts, parts.model)
    for parts.current_epoch in range(10):
        now[0] += 3
        before = saver.saved_at_s
        saver.on_train_epoch_end(parts, parts.model)
        if saver.saved_at_s != before:
            kept.append(parts.current_epoch)
    assert kept == [0, 4, 8, 9]


def test_a_signal_at_the_end_of_an_epoch_leaves_a_checkpoint_and_does_not_end_with_0(tmp_path):
    parts = Parts(tmp_path)
    parts.saver.received = signal.SIGTERM
    with pytest.raises(KeyboardInterrupt):
        parts.saver.on_train_epoch_end(parts, parts.model)
    assert (tmp_path / "last.ckpt").is_file()
    end = SIGTERMException()
    parts.saver.on_exception(parts, parts.model, end)
    assert end.code == 143


@pytest.mark.parametrize(
    "make",
    [
        lambda: LastCheckpoint("x", at_epoch_ends_s=-1),
        lambda: LastCheckpoint("x", every_s=-1),
        lambda: NotANumberGuard("x", "y", on_nan="ignore"),
        lambda: NotANumberGuard("x", "y", every_n_steps=0),
    ],
)
def test_impossible_settings_are_refused(make):
    with pytest.raises(ValueError):
        make()


# --- which example in which batch


def plan(**settings):
    defaults = {"n_examples": 10, "batch_size": 4, "epoch_size": 30, "crop": "random", "seed": 3}
    return BatchPlan(lambda generator: torch.randperm(10, generator=generator), **{**defaults, **settings})


def test_processes_share_the_batches_of_one_without_overlap():
    single = list(plan(batch_size=8))
    first, second = (list(plan(n_processes=2, rank=rank)) for rank in (0, 1))
    assert len(single) == len(first) == len(second) == 3
    assert [a + b for a, b in zip(first, second, strict=True)] == single


def test_epochs_and_seeds_differ_and_repeat():
    batches = plan()
    first = list(batches)
    assert list(batches) == first
    batches.epoch = 1
    assert list(batches) != first
    assert list(plan(seed=4)) != first
    assert sorted(index for batch in first[:2] for index, _ in batch) != list(range(8))
    assert {position for batch in plan(crop="start") for _, position in batch} == {0.0}
    assert len(list(plan(epoch_size=2))) == 1


def test_every_example_comes_once_before_any_comes_twice():
    indices = [index for batch in plan(batch_size=5) for index, _ in batch]
    assert sorted(indices[:10]) == sorted(indices[10:20]) == list(range(10))


def test_short_epochs_go_through_all_examples_in_turn():
    batches, indices = plan(epoch_size=8), []
    for _ in range(5):
        indices += [index for batch in batches for index, _ in batch]
        batches.n_given = len(batches)  # as if a training had had them
    assert [sorted(indices[i : i + 10]) for i in range(0, 40, 10)] == [list(range(10))] * 4
    assert len({tuple(indices[i : i + 10]) for i in range(0, 40, 10)}) == 4
