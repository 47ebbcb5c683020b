"""Many runs by one command: tables, searches, pruning, launchers, on tiny networks and a few drums."""

import csv
import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import joblib
import lightning as L
import optuna
import preloaded
import pytest
import torch
import yaml
from hydra import compose, initialize_config_dir
from hydra.core.hydra_config import HydraConfig
from hydra.core.utils import JobReturn, JobStatus
from hydra.types import RunMode
from hydra.utils import instantiate
from omegaconf import OmegaConf
from optuna.trial import TrialState
from runs import ROOT, TINY, folder_source

from specgan.training.pruning import Prune
from specgan.training.sweeps import Summary, checked_direction, job_name, summary, sweep_dir, sweep_name, tpe_sampler

QUIET = ["logger=none", "~callbacks.preview", "~callbacks.progress", "+trainer.enable_progress_bar=false"]
UNMEASURED = [*QUIET, "~callbacks.measure", "~callbacks.best", "optimized_metric=train/loss_g", "trainer.max_epochs=1"]


class Probe(L.Callback):
    """What a test wants to know of a job, or to happen in it: say so in the environment as PROBE='<job>:<what> ...'."""

    def on_train_epoch_end(self, trainer, pl_module):
        facts = {"n_threads": torch.get_num_threads(), "process": os.getpid()}
        (Path(trainer.default_root_dir) / "probe.json").write_text(json.dumps(facts))
        wanted = dict(pair.split(":") for pair in os.environ.get("PROBE", "").split())
        match wanted.get(str(HydraConfig.get().job.num)):
            case "raise":
                raise RuntimeError("a gong fell over")
            case "nan":
                settings = {"sync_dist": True, "rank_zero_only": True, "prog_bar": True}  # Measure's
                pl_module.log("val/fad", float("nan"), **settings)


def run(*arguments, cwd, code=0, env=None):
    """Runs train.py from another folder, with as many threads as it likes."""
    environment = {name: value for name, value in os.environ.items() if not name.endswith("_NUM_THREADS")}
    environment |= {"PYTHONPATH": str(Path(__file__).parent), "COLUMNS": "400", **(env or {})}
    environment |= {"PYTHONUNBUFFERED": "1"}  # so that both streams are in order
    command = [sys.executable, str(ROOT / "train.py"), *arguments, "+callbacks.probe._target_=test_sweeps.Probe"]
    done = preloaded.run(command, cwd=cwd, env=environment)
    assert done.returncode == code, done.stdout
    return done.stdout


def tiny(tiny_drums, *, without=()):
    """The settings of a tiny run; those of what it is `without` would be refused."""
    return [*folder_source(tiny_drums), *(s for s in TINY if not s.startswith(tuple(without)))]


def unmeasured(tiny_drums, *, without=()):
    return [*tiny(tiny_drums, without=("callbacks.", *without)), *UNMEASURED]


def measured(tiny_drums, *, without=()):
    return [*tiny(tiny_drums, without=("callbacks.preview", *without)), *QUIET]


def table_of(sweep):
    with (sweep / "summary.csv").open(newline="") as file:
        return list(csv.DictReader(file))


# --- the table


def make_job(sweep, name, overrides, *, status=None, metrics=None, error=""):
    (sweep / name / ".hydra").mkdir(parents=True)
    (sweep / name / ".hydra" / "overrides.yaml").write_text(yaml.safe_dump(overrides))
    if status is not None:
        (sweep / name / ".hydra" / "outcome.json").write_text(json.dumps({"status": status, "error": error}))
    if metrics is not None:
        (sweep / name / "metrics.json").write_text(json.dumps(metrics))


@pytest.fixture
def four_jobs(tmp_path):
    """Numbered so that text would sort them wrongly; one done well, one done badly, one failed, one killed."""
    metrics = [{"val/fad": 2.0, "a": 0.1}, {"val/fad": 1.0, "a": None}, {"val/fad": 0.1}]
    make_job(tmp_path, "2", ["model=cgan", "seed=1"], status="done", metrics=metrics[0])
    make_job(tmp_path, "10", ["model=cgan", "seed=2", "+x=5"], status="done", metrics=metrics[1])
    make_job(tmp_path, "3", ["model=cgan", "seed=3"], status="failed", metrics=metrics[2], error="ValueError: no\nno")
    make_job(tmp_path, "11", ["model=cgan", "seed=4"])
    (tmp_path / ".submitit").mkdir()
    return tmp_path


def test_the_table_has_every_job_with_what_differs_and_marks_the_best(four_jobs):
    rows = summary(four_jobs, metric="val/fad")
    assert rows == [
        {"job": job, "best": best, "status": status, "seed": seed, "x": x, "val/fad": fad, "a": a, "error": error}
        for job, best, status, seed, x, fad, a, error in (
            ("2", "", "done", "1", "", 2.0, 0.1, ""),
            ("3", "", "failed", "3", "", "", "", "ValueError: no\nno"),
            ("10", "yes", "done", "2", "5", 1.0, "", ""),
            ("11", "", "unfinished", "4", "", "", "", ""),
        )
    ]
    assert [row["best"] for row in summary(four_jobs, metric="val/fad", direction="maximize")] == ["yes", "", "", ""]
    assert [row["best"] for row in summary(four_jobs, metric=None)] == [""] * 4


def test_one_job_differs_from_no_other_and_no_job_is_no_row(tmp_path):
    make_job(tmp_path, "0", ["model=cgan", "~callbacks.best"], status="done", metrics={"val/fad": 1.0})
    (row,) = summary(tmp_path, metric="val/fad")
    assert row == {"job": "0", "best": "yes", "status": "done", "val/fad": 1.0, "error": ""}
    assert summary(tmp_path / "0", metric="val/fad") == []


@pytest.mark.parametrize("direction", ["min", ["minimize", "maximize"], None])
def test_a_direction_is_one_of_two(direction):
    with pytest.raises(ValueError, match="minimize or maximize"):
        Summary("val/fad", direction)
    with pytest.raises(ValueError, match="minimize or maximize"):
        Prune(None, "curve.json", direction=direction)


def test_the_plugins_enumeration_is_a_direction():
    from hydra_plugins.hydra_optuna_sweeper.config import Direction

    assert [checked_direction(direction) for direction in Direction] == ["minimize", "maximize"]


def test_a_sweep_goes_on_past_a_job_that_fails_and_shows_it(tiny_drums, tmp_path):
    settings = unmeasured(tiny_drums, without=["generator.width"])
    sweep = ["-m", "generator.width=16,12,24", "hydra.sweep.dir=runs/sweep"]
    output = run(*sweep, *settings, cwd=tmp_path, code=1)
    rows = table_of(tmp_path / "runs" / "sweep")
    assert [(row["job"], row["status"], row["generator.width"]) for row in rows] == [
        ("0", "done", "16"),
        ("1", "failed", "12"),
        ("2", "done", "24"),
    ]
    assert "ValueError" in rows[1]["error"] and "12" in rows[1]["error"]
    assert "model.latent_dim" not in rows[0]  # the same in all
    losses = {row["job"]: float(row["train/loss_g"]) for row in rows if row["status"] == "done"}
    kept = {job: json.loads((tmp_path / f"runs/sweep/{job}/metrics.json").read_text()) for job in losses}
    assert losses == {job: metrics["train/loss_g"] for job, metrics in kept.items()}
    assert [row["job"] for row in rows if row["best"]] == [min(losses, key=losses.get)]

    # the table comes last, after what Hydra says about the failure
    assert output.rindex("summary.csv") > output.rindex("Error executing job")
    lines = output[output.rindex("summary.csv") :].splitlines()
    (best,) = (line.split()[1::2] for line in lines if "best" in line)
    assert best[:2] == [min(losses, key=losses.get), "best"]
    assert any(line.startswith("job 1: ValueError: width is 12") for line in lines)


def test_the_file_is_up_to_date_after_each_job_of_a_sweep_that_dies(four_jobs):
    """A killed sweep prints nothing, but has the table of the jobs before."""
    folder = four_jobs / "11"
    hydra = {
        "mode": "${run_mode}",
        "output_subdir": ".hydra",
        "sweep": {"dir": str(four_jobs)},
        "runtime": {"output_dir": str(folder)},
    }
    config = OmegaConf.create({"run_mode": RunMode.MULTIRUN, "hydra": hydra})
    callback = Summary("val/fad")
    callback.on_job_start(config, task_function=None)
    (folder / "metrics.json").write_text('{"val/fad": 0.5}')
    callback.on_job_end(config, JobReturn(status=JobStatus.COMPLETED, _return_value=0.5))
    assert [(row["job"], row["best"]) for row in table_of(four_jobs)][-1] == ("11", "yes")

    # the next sweep into that folder begins the job anew
    callback.on_job_start(config, task_function=None)
    assert summary(four_jobs, metric="val/fad")[-1]["status"] == "unfinished"

    # not finite: failed, for the sweeper too
    result = JobReturn(status=JobStatus.COMPLETED, _return_value=float("nan"))
    callback.on_job_end(config, result)
    assert result.status == JobStatus.FAILED
    with pytest.raises(FloatingPointError, match="val/fad is nan"):
        _ = result.return_value
    assert table_of(four_jobs)[-1]["error"] == "FloatingPointError: val/fad is nan, which is not finite"

    # and a single run leaves nothing of the kind
    config.run_mode = RunMode.RUN
    (folder / ".hydra" / "outcome.json").unlink()
    callback.on_job_end(config, JobReturn(status=JobStatus.COMPLETED, _return_value=0.5))
    assert not (folder / ".hydra" / "outcome.json").exists()


def test_hydra_makes_the_table_without_loading_anything_heavy():
    heavy = {"torch", "lightning", "pandas", "optuna", "wandb", "rich"}
    code = f"import sys, specgan.training.sweeps; print(sorted({heavy!r} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


# --- names


@pytest.fixture
def in_job():
    """Sets Hydra's configuration to that of a job; returns the composed one."""

    def compose_job(*overrides):
        with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
            cfg = compose("train", overrides=list(overrides), return_hydra_config=True)
        HydraConfig.instance().set_config(cfg)
        return cfg

    yield compose_job
    HydraConfig.instance().cfg = None


def test_runs_of_a_sweep_are_a_group_on_wandb_and_single_runs_are_not(in_job, tmp_path):
    single = [f"hydra.runtime.output_dir={tmp_path}", "hydra.sweep.dir=runs/many", "hydra.job.num=3"]
    cfg = in_job(*single)
    assert (sweep_dir(), sweep_name(), job_name()) == (None, None, None)
    settings = instantiate(cfg.logger)._wandb_init
    assert (settings["group"], settings["name"]) == (None, None)

    cfg = in_job("hydra.mode=MULTIRUN", *single)
    assert (sweep_dir(), sweep_name(), job_name()) == (Path("runs/many"), "many", "many-3")
    settings = instantiate(cfg.logger)._wandb_init
    assert (settings["group"], settings["name"]) == ("many", "many-3")


# --- hparams_search=optuna


def test_a_search_is_composed_of_what_the_run_has(in_job, tmp_path):
    cfg = in_job("hparams_search=optuna", "seed=7", f"hydra.runtime.output_dir={tmp_path}", "hydra.job.num=0")
    sweeper = cfg.hydra.sweeper
    assert sweeper.storage == "sqlite:///runs/optuna.db"
    assert sweeper.study_name == Path(cfg.hydra.sweep.dir).name
    assert (sweeper.sampler.seed, sweeper.n_jobs) == (7, 1)
    for name in sweeper.params:  # what is not in a run is no setting of it
        assert OmegaConf.select(cfg, name, default="no setting") != "no setting"
    prune = instantiate(cfg.callbacks.prune, _convert_="all")
    assert prune.sweep_dir == sweep_dir() and prune.sweep_dir is not None
    assert (prune.metric, prune.sign) == ("val/fad", 1)
    assert instantiate(cfg.hydra.callbacks.summary).direction == "minimize"

    cfg = in_job("hparams_search=optuna", "hydra.sweeper.direction=maximize", "hydra/launcher=joblib")
    assert cfg.hydra.sweeper.n_jobs == cfg.hydra.launcher.n_jobs == 2
    assert instantiate(cfg.callbacks.prune.direction) == "maximize"
    assert instantiate(cfg.hydra.callbacks.summary).direction == "maximize"
    assert instantiate(in_job().hydra.callbacks.summary).direction == "minimize"


def test_a_search_goes_on_past_failures_and_with_the_same_study(tiny_drums, tmp_path):
    settings = measured(tiny_drums, without=["generator.width", "discriminator.width", "callbacks.measure.every"])
    search = ["hparams_search=optuna", "hydra.sweeper.study_name=drums", "callbacks.measure.every_n_epochs=1"]
    search += [f"{player}.width=choice(8,16)" for player in ("generator", "discriminator")]
    search += ["trainer.max_epochs=2", *settings]
    probe = {"PROBE": "1:raise 2:nan"}
    output = run("-m", *search, "hydra.sweeper.n_trials=3", "hydra.sweep.dir=first", cwd=tmp_path, env=probe)
    study = optuna.load_study(study_name="drums", storage=f"sqlite:///{tmp_path}/runs/optuna.db")
    assert [trial.state for trial in study.trials] == [TrialState.COMPLETE, TrialState.FAIL, TrialState.FAIL]
    rows = table_of(tmp_path / "first")
    assert [row["status"] for row in rows] == ["done", "failed", "failed"]
    assert [row["error"].split(":")[0] for row in rows] == ["", "RuntimeError", "FloatingPointError"]
    assert study.trials[0].value == pytest.approx(float(rows[0]["val/fad"]))
    assert (study.best_trial.number, rows[0]["best"]) == (0, "yes")
    assert output.rindex("a gong fell over") > output.rindex("summary.csv")
    for trial, row in zip(study.trials, rows, strict=True):
        for name, value in trial.params.items():
            assert float(row[name]) == pytest.approx(float(value))
    config = yaml.safe_load((tmp_path / "first" / "0" / ".hydra" / "config.yaml").read_text())
    assert config["model"]["optimizer_g"]["lr"] == study.trials[0].params["model.optimizer_g.lr"]
    assert config["model"]["optimizer_d"]["lr"] == "${model.optimizer_g.lr}"

    # The same again, among siblings that were better: more trials, other settings, each ended at its first measurement
    for number in range(5):
        (tmp_path / "second" / f"better{number}").mkdir(parents=True)
        curve = [{"epoch": 1, "time_s": 1.0, "n_steps": 1, "fad": 1e-3}]
        (tmp_path / "second" / f"better{number}" / "curve.json").write_text(json.dumps(curve))
    pruning = ["callbacks.prune.n_warmup_steps=0", "hydra.sweeper.n_trials=2", "hydra.sweep.dir=second"]
    output = run("-m", *search, *pruning, cwd=tmp_path)
    study = optuna.load_study(study_name="drums", storage=f"sqlite:///{tmp_path}/runs/optuna.db")
    assert [trial.state for trial in study.trials[3:]] == [TrialState.COMPLETE] * 2
    assert len({trial.params["model.optimizer_g.lr"] for trial in study.trials}) == 5
    assert output.count("pruned: after 2 steps val/fad has reached") == 2
    for trial, job in zip(study.trials[3:], "01", strict=True):
        (point,) = json.loads((tmp_path / "second" / job / "curve.json").read_text())
        assert (point["epoch"], point["fad"]) == (1, pytest.approx(trial.value))
        for name in ("best", "last"):
            checkpoint = torch.load(tmp_path / "second" / job / "checkpoints" / f"{name}.ckpt", weights_only=True)
            assert checkpoint["specgan"]["n_steps"] == 2


def test_a_search_in_which_every_run_fails_ends_with_1(tiny_drums, tmp_path):
    search = ["hparams_search=optuna", "hydra.sweeper.n_trials=2", "generator.width=12", "hydra.sweep.dir=sweep"]
    run("-m", *search, *measured(tiny_drums, without=["generator.width"]), cwd=tmp_path, code=1)
    assert [row["status"] for row in table_of(tmp_path / "sweep")] == ["failed", "failed"]


def quadratic(trial):
    return (trial.suggest_float("x", -1, 1) - 0.3) ** 2 + trial.suggest_float("y", 1e-3, 1, log=True)


def drawn(n_trials, *, seed, storage=None):
    """The settings of a study, `n_trials` by each new sampler."""
    study = optuna.create_study(study_name="s", storage=storage)
    for n in n_trials:
        study.sampler = tpe_sampler(seed=seed, n_startup_trials=3)
        study.optimize(quadratic, n)
    return [trial.params for trial in study.trials]


def test_a_study_that_goes_on_draws_what_it_would_have_drawn_without_a_break():
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    whole = drawn([8], seed=5)
    assert drawn([2, 1, 5], seed=5) == whole
    assert drawn([8], seed=6)[0] != whole[0]
    assert len({params["x"] for params in whole}) == 8
    assert drawn([2], seed=None) != drawn([2], seed=None)


# --- pruning


N_STEPS = 100


def curve_of(*points):
    return json.dumps([{"epoch": n, "time_s": 1.0, "n_steps": n, "fad": fad} for n, fad in points])


@pytest.fixture
def siblings(tmp_path):
    """Measured at step 50 and 200, with bests of 1 to 5 by step 100; all would be better at 200."""
    for number in range(1, 6):
        (tmp_path / str(number)).mkdir()
        points = [(20, number), (50, number + 1), (200, 0.1)]
        (tmp_path / str(number) / "curve.json").write_text(curve_of(*points))
    return tmp_path


def is_pruned(sweep, *points, n_steps=N_STEPS, at=N_STEPS, own="0", **settings):
    """Whether a run with such a curve is ended."""
    sweep = None if sweep is None else Path(sweep)
    folder = (sweep or settings.pop("folder")) / own
    folder.mkdir(exist_ok=True)
    (folder / "curve.json").write_text(curve_of(*points))
    settings = {"n_warmup_steps": 0, **settings}
    trainer = SimpleNamespace(
        is_global_zero=True, should_stop=False, strategy=SimpleNamespace(broadcast=lambda message: message)
    )
    Prune(sweep, folder / "curve.json", **settings).on_train_epoch_end(trainer, SimpleNamespace(n_steps=n_steps))
    return trainer.should_stop


@pytest.mark.parametrize(
    ("points", "expected"),
    [
        ([(N_STEPS, 2.9)], False),
        ([(N_STEPS, 3.0)], False),  # as good as the median
        ([(N_STEPS, 3.1)], True),
        ([(50, 2.0), (N_STEPS, 9.0)], False),  # the best so far counts
        ([(N_STEPS, float("nan"))], True),
        ([(50, 9.0)], False),  # not measured at this step: nothing new
        ([], False),
    ],
)
def test_a_run_is_ended_if_it_is_worse_than_the_median_so_far(siblings, points, expected, caplog):
    caplog.set_level("INFO")
    assert is_pruned(siblings, *points) == expected
    assert ("pruned: after 100 steps val/fad has reached" in caplog.text) == expected


def test_nothing_is_ended_before_the_warm_up_or_among_few(siblings):
    bad = (N_STEPS, 99.0)
    assert is_pruned(siblings, bad)
    assert is_pruned(siblings, bad, n_warmup_steps=N_STEPS)
    assert not is_pruned(siblings, bad, n_warmup_steps=N_STEPS + 1)
    assert not is_pruned(siblings, bad, n_startup=6)
    assert not is_pruned(siblings, (10, 99.0), n_steps=10)  # no sibling was measured so early
    (siblings / "5" / "curve.json").unlink()
    assert not is_pruned(siblings, bad)  # four: itself does not count


def test_where_more_is_better_less_is_ended(siblings):
    assert is_pruned(siblings, (N_STEPS, 3.9), metric="fad", direction="maximize")
    assert not is_pruned(siblings, (N_STEPS, 4.0), direction="maximize")  # siblings' bests: 2 to 6


def test_a_single_run_is_never_ended(siblings):
    assert not is_pruned(None, (N_STEPS, 99.0), folder=siblings)


def test_a_damaged_curve_costs_one_sibling(siblings, caplog):
    (siblings / "6").mkdir()
    (siblings / "6" / "curve.json").write_text("[")
    assert is_pruned(siblings, (N_STEPS, 99.0))
    assert "does not count for pruning" in caplog.text


def test_a_metric_that_is_not_measured_ends_nothing_and_says_so(siblings, caplog):
    assert not is_pruned(siblings, (N_STEPS, 99.0), metric="train/loss_g")
    assert "train/loss_g" in caplog.text


@pytest.mark.parametrize("is_first", [True, False])
def test_the_first_process_decides_for_all(siblings, is_first):
    (siblings / "0").mkdir()
    (siblings / "0" / "curve.json").write_text(curve_of((N_STEPS, 99.0)))
    asked = []
    trainer = SimpleNamespace(is_global_zero=is_first, should_stop=False)
    trainer.strategy = SimpleNamespace(broadcast=lambda message: asked.append(message) or "of the first")
    Prune(siblings, siblings / "0" / "curve.json", n_warmup_steps=0).on_train_epoch_end(
        trainer, SimpleNamespace(n_steps=N_STEPS)
    )
    assert trainer.should_stop
    assert (asked[0] is None) == (not is_first)


@pytest.mark.parametrize("settings", [{"n_startup": 0}, {"n_warmup_steps": -1}])
def test_impossible_settings(settings):
    with pytest.raises(ValueError, match=next(iter(settings))):
        Prune(None, "curve.json", **settings)


# --- launchers


def test_joblib_shares_out_the_cores(tiny_drums, tmp_path):
    settings = unmeasured(tiny_drums)
    sweep = ["-m", "seed=1,2,3", "hydra/launcher=joblib", "hydra.sweep.dir=sweep"]
    output = run(*sweep, *settings, cwd=tmp_path, code=1, env={"PROBE": "1:raise"})
    rows = table_of(tmp_path / "sweep")
    assert [(row["job"], row["seed"], row["status"]) for row in rows] == [
        ("0", "1", "done"),
        ("1", "2", "failed"),
        ("2", "3", "done"),
    ]
    assert "a gong fell over" in rows[1]["error"]
    assert "sweep/summary.csv" in output
    probes = [json.loads((tmp_path / "sweep" / job / "probe.json").read_text()) for job in "012"]
    assert {probe["n_threads"] for probe in probes} == {max(1, joblib.cpu_count() // 2)}
    assert len({probe["process"] for probe in probes}) == 2


def test_slurm_is_asked_for_what_the_configuration_says(tmp_path):
    """With an sbatch that keeps the script and refuses it."""
    for name, does in (("sbatch", f'cp "$1" {tmp_path}/script; exit 1'), ("srun", "exit 1")):
        (tmp_path / "bin").mkdir(exist_ok=True)
        (tmp_path / "bin" / name).write_text(f"#!/bin/sh\n{does}\n")
        (tmp_path / "bin" / name).chmod(0o755)
    sweep = ["-m", "seed=1,2,3", "hydra/launcher=submitit_slurm", "hydra.sweep.dir=sweep"]
    sweep += ["hydra.launcher.partition=gpu", "hydra.launcher.timeout_min=90", "hydra.launcher.account=us"]
    sweep += ["+hydra.launcher.additional_parameters={mail-type: END}", "hydra.launcher.setup=[module load cuda]"]
    path = f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}"
    run(*sweep, cwd=tmp_path, code=1, env={"PATH": path})
    lines = (tmp_path / "script").read_text().splitlines()
    for line in (
        "#SBATCH --partition=gpu",
        "#SBATCH --gpus-per-node=1",
        "#SBATCH --time=90",
        "#SBATCH --cpus-per-task=8",
        "#SBATCH --mem=32GB",
        "#SBATCH --nodes=1",
        "#SBATCH --account=us",
        "#SBATCH --job-name=specgan",
        "#SBATCH --mail-type=END",
        "#SBATCH --array=0-2%3",
        "module load cuda",
    ):
        assert line in lines
    (output,) = (line for line in lines if line.startswith("#SBATCH --output="))
    assert output.startswith(f"#SBATCH --output={tmp_path}/sweep/.submitit/%A_%a/")
    assert not list((tmp_path / "sweep").glob("*/metrics.json"))
