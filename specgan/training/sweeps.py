"""Many runs by one command (python train.py -m): their results, their names, the sampler of their settings."""

import atexit
import csv
import json
import math
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any
from zlib import crc32

from hydra.core.hydra_config import HydraConfig
from hydra.core.utils import JobReturn, JobStatus
from hydra.experimental.callback import Callback
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from specgan.files import atomic_path, write_json

if TYPE_CHECKING:
    from optuna.samplers import TPESampler

# Hydra 1.3 warns about each file in conf/hydra/launcher, at each job. We rely on it: misspelt settings are refused.
warnings.filterwarnings("ignore", message=r"\s*'hydra/launcher/\w+' is validated against ConfigStore schema")

OUTCOME = Path(".hydra") / "outcome.json"  # in a job's folder: {"status": "done" or "failed", "error": ...}


class Summary(Callback):
    """A Hydra callback that keeps a table of the jobs of a sweep, and prints it when the command ends, however it ends.

    `<sweep folder>/summary.csv` has a row a job: number, status (done, failed, or unfinished: it runs or was killed),
    the settings in which the jobs differ, all metrics, and the error. It is rewritten after each job, from the jobs'
    folders, so that it is the same with every launcher. A job whose metric is not finite counts as failed: it tells
    nothing, and Optuna would stop at it.

    Args:
        metric: of metrics.json, by which a job is the best. None: no job is.
        direction: "minimize" or "maximize".
    Raises:
        ValueError: `direction` is neither.
    """

    def __init__(self, metric: str | None = None, direction: Any = "minimize") -> None:
        self.metric = metric
        self.direction = checked_direction(direction)

    def on_multirun_start(self, config: DictConfig, **_: Any) -> None:
        storage = OmegaConf.select(config, "hydra.sweeper.storage", default=None)
        if isinstance(storage, str) and storage.startswith("sqlite:///"):  # Optuna creates the file, but not its folder
            Path(storage.removeprefix("sqlite:///")).parent.mkdir(parents=True, exist_ok=True)
        # The basic sweeper and submitit raise on a failed job, and on_multirun_end is not called then.
        atexit.register(self._finish, Path(config.hydra.sweep.dir))

    def on_job_start(self, config: DictConfig, **_: Any) -> None:
        if folder := _job_folder(config):
            (folder / OUTCOME).unlink(missing_ok=True)  # of an earlier sweep into the same folder

    def on_job_end(self, config: DictConfig, job_return: JobReturn, **_: Any) -> None:
        folder = _job_folder(config)
        if folder is None:
            return
        value = job_return._return_value  # `return_value` would raise the error of a failed job
        if job_return.status == JobStatus.COMPLETED and isinstance(value, float) and not math.isfinite(value):
            value = FloatingPointError(f"{self.metric} is {value}, which is not finite")
            job_return.status, job_return.return_value = JobStatus.FAILED, value
        has_failed = job_return.status == JobStatus.FAILED
        outcome = {
            "status": "failed" if has_failed else "done",
            "error": f"{type(value).__name__}: {value}" if has_failed else "",
        }
        write_json(folder / OUTCOME, outcome)
        self._write(Path(config.hydra.sweep.dir))

    def _finish(self, sweep: Path) -> None:
        if rows := self._write(sweep):
            self._print(sweep, rows)

    def _write(self, sweep: Path) -> list[dict[str, Any]]:
        rows = summary(sweep, metric=self.metric, direction=self.direction)
        if rows:
            with (
                atomic_path(sweep / "summary.csv") as temporary,
                temporary.open("w", newline="", encoding="utf-8", errors="surrogateescape") as file,
            ):
                writer = csv.DictWriter(file, fieldnames=list(rows[0]))
                writer.writeheader()
                writer.writerows(rows)
        return rows

    def _print(self, sweep: Path, rows: list[dict[str, Any]]) -> None:
        from rich.console import Console
        from rich.table import Table
        from rich.text import Text

        # The rest is in the file.
        shown = [name for name in rows[0] if name not in ("best", "error", "epoch") and not name.startswith("train/")]
        if self.metric in rows[0] and self.metric not in shown:
            shown.append(self.metric)
        table = Table(title=str(sweep / "summary.csv"))
        for name in shown:
            table.add_column(Text(name.removeprefix("val/")), overflow="fold")
        for row in rows:
            cells = {name: _cell(row[name]) for name in shown} | ({"status": "best"} if row["best"] else {})
            table.add_row(*map(Text, cells.values()), style="bold" if row["best"] else None)
        console = Console()
        if not console.is_terminal:  # a file or a pipe has no width
            console.width = max(console.width, 200)
        console.print(table)
        for row in rows:
            if row["error"]:
                console.print(Text(f"job {row['job']}: {_cell(row['error'])}"), soft_wrap=True)


def summary(sweep: str | Path, *, metric: str | None, direction: str = "minimize") -> list[dict[str, Any]]:
    """Reads the job folders of a sweep.

    Args:
        sweep: their parent.
        metric: of metrics.json; one of the best by it has "best": "yes".
        direction: "minimize" or "maximize".
    Returns:
        A row a job, all with the same keys: job, best, status, settings in which the jobs differ, metrics, error;
        "" where a job has no such value.
    """
    jobs = []
    for overrides in Path(sweep).glob("*/.hydra/overrides.yaml"):
        folder = overrides.parent.parent
        outcome = _read_json(folder / OUTCOME, default={"status": "unfinished", "error": ""})
        # A failed job's folder may hold metrics of an earlier job.
        metrics = _read_json(folder / "metrics.json", default={}) if outcome["status"] == "done" else {}
        settings = dict(_setting(override) for override in OmegaConf.load(overrides))
        jobs.append((folder.name, outcome, settings, {name: v for name, v in metrics.items() if v is not None}))
    jobs.sort(key=lambda job: (not job[0].isdigit(), int(job[0]) if job[0].isdigit() else 0, job[0]))

    names = list(dict.fromkeys(name for _, _, settings, _ in jobs for name in settings))
    names = [name for name in names if len({settings.get(name) for _, _, settings, _ in jobs}) > 1]
    measured = sorted({name for *_, metrics in jobs for name in metrics}, key=lambda name: (name != metric, name))
    candidates = [(metrics[metric], job) for job, _, _, metrics in jobs if metric in metrics]
    best = (min if checked_direction(direction) == "minimize" else max)(candidates, default=(None, None))[1]
    return [
        {
            "job": job,
            "best": "yes" if job == best else "",
            "status": outcome["status"],
            **{name: settings.get(name, "") for name in names},
            **{name: metrics.get(name, "") for name in measured},
            "error": outcome["error"],
        }
        for job, outcome, settings, metrics in jobs
    ]


def sweep_dir() -> Path | None:
    """The folder of the sweep that this job is of; None in a single run."""
    if HydraConfig.initialized() and HydraConfig.get().mode == RunMode.MULTIRUN:
        return Path(HydraConfig.get().sweep.dir)
    return None


def sweep_name() -> str | None:
    """The name of that folder, under which W&B groups its runs; None in a single run."""
    folder = sweep_dir()
    return folder.name if folder else None


def job_name() -> str | None:
    """Sweep and number of this job, e.g. "multirun-20250131-120000-3"; None in a single run."""
    name = sweep_name()
    return f"{name}-{HydraConfig.get().job.num}" if name else None


def sweep_direction() -> str:
    """Whether this sweep minimises or maximises, by its sweeper; minimize if the sweeper has no direction."""
    sweeper = HydraConfig.get().sweeper if HydraConfig.initialized() else None
    return checked_direction(OmegaConf.select(sweeper, "direction", default="minimize") if sweeper else "minimize")


def checked_direction(direction: Any) -> str:
    """Returns "minimize" or "maximize", also for the enumeration of Hydra's Optuna plugin.

    Raises:
        ValueError: it is neither.
    """
    name = getattr(direction, "name", direction)
    if name not in ("minimize", "maximize"):
        raise ValueError(f"direction is {name!r}; minimize or maximize, because one metric is optimised")
    return name


def tpe_sampler(*, seed: int | None, **settings: Any) -> "TPESampler":
    """Returns Optuna's TPE sampler, changed so that a continued study draws what it would have drawn without a break.

    (Optuna's own restarts its random numbers with each command, and so would try the first settings again.) Each draw
    depends on the seed, the number of the trial, the name of the setting and the earlier trials.

    Args:
        seed: None: each command draws other settings.
        **settings: of optuna.samplers.TPESampler.
    """
    import numpy as np
    from optuna.samplers import TPESampler

    class ContinuedTPESampler(TPESampler):
        def _reseed(self, trial: Any, name: str) -> None:
            if seed is not None:
                self._rng = np.random.RandomState([seed, trial.number, crc32(name.encode())])
                self._random_sampler._rng = self._rng

        def sample_relative(self, study: Any, trial: Any, search_space: dict[str, Any]) -> dict[str, Any]:
            self._reseed(trial, "")
            return super().sample_relative(study, trial, search_space)

        def sample_independent(self, study: Any, trial: Any, param_name: str, param_distribution: Any) -> Any:
            self._reseed(trial, param_name)
            return super().sample_independent(study, trial, param_name, param_distribution)

    return ContinuedTPESampler(seed=seed, **settings)


def _job_folder(config: DictConfig) -> Path | None:
    is_job = config.hydra.mode == RunMode.MULTIRUN and config.hydra.output_subdir is not None
    return Path(config.hydra.runtime.output_dir) if is_job else None


def _setting(override: str) -> tuple[str, str]:
    name, _, value = override.partition("=")
    return name.lstrip("+"), value


def _cell(value: Any) -> str:
    """Four digits of a fraction, the first line of a text."""
    try:
        number = float(value)
        return f"{number:.0f}" if number.is_integer() else f"{number:.4g}"
    except (ValueError, OverflowError):
        return str(value).partition("\n")[0]


def _read_json(path: Path, *, default: dict[str, Any]) -> dict[str, Any]:
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else default
