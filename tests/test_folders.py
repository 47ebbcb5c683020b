"""Whose a run folder is: never that of two runs, and never anybody else's without being told to."""

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest
from filelock import FileLock
from hydra.conf import HydraConf
from hydra.core.hydra_config import HydraConfig
from omegaconf import OmegaConf
from runs import ROOT

from specgan.command_line.arguments import typed
from specgan.training.folders import OwnFolder


@pytest.fixture(autouse=True)
def configuration_is_put_back(monkeypatch):
    monkeypatch.setattr("specgan.training.folders._PATIENCE_S", 0.1)
    yield
    HydraConfig.instance().cfg = None


def configured(run_dir="runs/a", sweep_dir="runs/many"):
    cfg = OmegaConf.create({"hydra": OmegaConf.structured(HydraConf)})
    cfg.hydra.run.dir, cfg.hydra.sweep.dir = str(run_dir), str(sweep_dir)
    OmegaConf.set_readonly(cfg.hydra, True)
    OmegaConf.set_struct(cfg, True)
    return cfg


def claim(run_dir, ckpt_path=None):
    """The folder that a run gets, and what holds it."""
    callback, cfg = OwnFolder(ckpt_path), configured(run_dir)
    callback.on_run_start(config=cfg)
    return cfg.hydra.run.dir, callback


@pytest.fixture
def run(tmp_path):
    (tmp_path / "runs" / "a" / "checkpoints").mkdir(parents=True)
    (tmp_path / "runs" / "a" / "checkpoints" / "last.ckpt").write_bytes(b"x")
    return tmp_path / "runs" / "a"


BY_CLOCK = "${now:%Y}"


def test_runs_that_start_in_the_same_second_get_a_folder_each(tmp_path):
    """As processes: the names of the folders are the answer of whoever came first."""
    script = (
        "import sys\nfrom omegaconf import OmegaConf\nfrom hydra.conf import HydraConf\n"
        "from hydra.core.utils import setup_globals\n"
        "from specgan.training.folders import OwnFolder\nsetup_globals()\n"
        "cfg = OmegaConf.create({'hydra': OmegaConf.structured(HydraConf)}); callback = OwnFolder()\n"
        "cfg.hydra.run.dir = sys.argv[1] + '/${now:%Y}'\n"
        "callback.on_run_start(config=cfg); print(cfg.hydra.run.dir)"
    )

    def start(_):
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        arguments = [sys.executable, "-c", script, str(tmp_path)]
        done = subprocess.run(arguments, capture_output=True, text=True, check=True, env=environment)
        return done.stdout.strip()

    with ThreadPoolExecutor(4) as pool:
        folders = list(pool.map(start, range(4)))
    year = min(folders)
    assert sorted(folders) == [year, f"{year}-2", f"{year}-3", f"{year}-4"]


def test_a_folder_with_results_is_refused_with_the_two_ways_out(run):
    with pytest.raises(SystemExit, match=r"ckpt_path=.*/checkpoints/last.ckpt.*hydra.run.dir=") as error:
        claim(run)
    assert str(run) in str(error.value)


@pytest.mark.parametrize("result", ["checkpoints/best.ckpt", "metrics.json", "curve.json", "previews/index.html"])
def test_any_result_counts_and_a_failed_start_does_not(tmp_path, result):
    (tmp_path / "a" / ".hydra").mkdir(parents=True)
    (tmp_path / "a" / "checkpoints").mkdir()
    (tmp_path / "a" / "train.log").write_text("no such folder")
    claim(tmp_path / "a")
    (tmp_path / "a" / result).parent.mkdir(exist_ok=True)
    (tmp_path / "a" / result).write_text("x")
    with pytest.raises(SystemExit, match="holds the results"):
        claim(tmp_path / "a")


def test_a_run_goes_on_in_its_own_folder_and_in_no_other_one(run, tmp_path):
    (tmp_path / "link").symlink_to(run)
    for ckpt_path in (run / "checkpoints" / "last.ckpt", tmp_path / "link" / "checkpoints" / "last.ckpt"):
        assert claim(run, ckpt_path)[0] == str(run)
    with pytest.raises(SystemExit, match="holds the results"):
        claim(run, tmp_path / "runs" / "b" / "checkpoints" / "last.ckpt")


def test_two_processes_never_train_in_one_folder(run):
    checkpoint = run / "checkpoints" / "last.ckpt"
    with FileLock(run / ".lock"), pytest.raises(SystemExit, match="another process trains in it"):
        claim(run, checkpoint)
    claim(run, checkpoint)


@pytest.mark.parametrize("rank", ["RANK", "LOCAL_RANK", "SLURM_PROCID"])
def test_the_other_processes_of_a_training_use_the_folder_of_the_first(run, rank, monkeypatch):
    monkeypatch.setenv(rank, "1")
    assert claim(run)[0] == str(run)
    monkeypatch.setenv(rank, "0")
    with pytest.raises(SystemExit):
        claim(run)


def test_a_file_is_no_folder(tmp_path):
    (tmp_path / "a").write_text("mine")
    for folder in (tmp_path / "a", tmp_path / "a" / "b"):
        with pytest.raises(SystemExit, match=r"not a folder to write into .*hydra.run.dir="):
            claim(folder)
    assert (tmp_path / "a").read_text() == "mine"


def test_a_stage_that_reads_takes_no_folder(run):
    cfg = configured(run)
    OwnFolder(is_writer=False).on_run_start(config=cfg)
    assert sorted(os.listdir(run)) == ["checkpoints"]


def test_a_sweep_takes_no_folder_of_another_sweep(tmp_path):
    cfg = configured(sweep_dir=tmp_path / "many")
    first = OwnFolder()
    first.on_multirun_start(config=cfg)
    with pytest.raises(SystemExit, match="another process trains"):  # which has no results yet
        OwnFolder().on_multirun_start(config=cfg)
    first.lock.release()
    (tmp_path / "many" / "0" / ".hydra").mkdir(parents=True)
    (tmp_path / "many" / "0" / "metrics.json").write_text("{}")
    with pytest.raises(SystemExit, match=r"results of another sweep, which stay; choose .*hydra.sweep.dir="):
        OwnFolder().on_multirun_start(config=cfg)


def test_each_job_of_a_sweep_knows_the_folder_that_the_clock_and_others_leave(tmp_path):
    from hydra.core.utils import setup_globals

    setup_globals()
    for _ in range(2):
        cfg = configured(sweep_dir=f"{tmp_path}/a b (c)/{BY_CLOCK}")
        OwnFolder().on_multirun_start(config=cfg)
    assert cfg.hydra.sweep.dir.endswith("-2") and os.path.isdir(cfg.hydra.sweep.dir)
    assert list(cfg.hydra.overrides.hydra) == [typed("hydra.sweep.dir", cfg.hydra.sweep.dir)]
