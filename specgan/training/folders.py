"""Whose a run folder is: decided before Hydra, or anything else, writes into it."""

import os
from itertools import count
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from hydra.core.hydra_config import HydraConfig
from hydra.experimental.callback import Callback
from omegaconf import DictConfig, OmegaConf, open_dict, read_write

from specgan.command_line.arguments import typed
from specgan.files import is_inside

LOCK_NAME = ".lock"  # held by the process that trains in the folder
_RESULTS = ("checkpoints", "previews", "curve.json", "metrics.json")
_RANKS = ("RANK", "LOCAL_RANK", "SLURM_PROCID")  # of the processes of one training, as their launchers number them
_PATIENCE_S = 8.0  # the workers of a killed process hold its lock for some seconds more


class OwnFolder(Callback):
    """A Hydra callback that gives each training, or sweep, a folder of its own.

    A folder that is named by the clock gets a number if it is taken. One that the user names is refused if it holds
    the results of another run, unless `ckpt_path` is in it: then the run goes on. Two processes never train in one
    folder at the same time. (Errors end the program here, because Hydra makes warnings of a callback's exceptions.)

    Args:
        ckpt_path: the checkpoint that the run goes on from, or None.
        is_writer: whether the command writes results into its folder.
    """

    def __init__(self, ckpt_path: Any = None, *, is_writer: bool = True) -> None:
        self.ckpt_path, self.is_writer = ckpt_path, is_writer
        self.lock: FileLock | None = None

    def __getstate__(self) -> dict[str, Any]:
        """Launchers send the callbacks to their jobs; the lock stays with the process that holds the folder."""
        return {**self.__dict__, "lock": None}

    def on_run_start(self, config: DictConfig, **_: Any) -> None:
        self._claim(config, "run")

    def on_multirun_start(self, config: DictConfig, **_: Any) -> None:
        self._claim(config, "sweep")

    def _claim(self, config: DictConfig, kind: str) -> None:
        # The first process of a training decides; the others are started with its folder.
        if not self.is_writer or any(os.environ.get(rank, "0") not in ("", "0") for rank in _RANKS):
            return
        HydraConfig.instance().set_config(config)  # names may refer to it
        name, folder = f"hydra.{kind}.dir", Path(config.hydra[kind].dir)
        is_by_clock = "${now:" in str(OmegaConf.to_container(config.hydra[kind], resolve=False)["dir"])
        way_out = f"choose another folder: {name}=<folder>"
        try:
            folder = _new_folder(folder) if is_by_clock else folder
            folder.mkdir(parents=True, exist_ok=True)
            self.lock = FileLock(folder / LOCK_NAME)
            self.lock.acquire(timeout=_PATIENCE_S)
        except Timeout:
            raise SystemExit(f"{folder}: another process trains in it now; wait for its end, or {way_out}") from None
        except OSError as err:
            raise SystemExit(f"{folder}: not a folder to write into ({err.strerror}); {way_out}") from None
        if (kind == "run" and holds_run(folder) and not self._goes_on_in(folder)) or (
            kind == "sweep" and any(holds_run(job.parent) for job in folder.glob("*/.hydra"))
        ):
            go_on = (
                f"go on with it: {typed('ckpt_path', f'{folder}/checkpoints/last.ckpt')}, or " if kind == "run" else ""
            )
            raise SystemExit(f"{folder}: holds the results of another {kind}, which stay; {go_on}{way_out}")
        with read_write(config.hydra), open_dict(config.hydra):
            config.hydra[kind].dir = str(folder)
            if kind == "sweep" and is_by_clock:  # each job composes its configuration anew
                config.hydra.overrides.hydra.append(typed(name, str(folder)))

    def _goes_on_in(self, folder: Path) -> bool:
        return self.ckpt_path is not None and is_inside(str(self.ckpt_path), folder)


def holds_run(folder: Path) -> bool:
    """Whether a folder has results of a run; what a run leaves that failed before its first result does not count."""
    results = [folder / name for name in _RESULTS]
    return any(path.is_file() or (path.is_dir() and any(path.iterdir())) for path in results)


def _new_folder(path: Path) -> Path:
    """Creates a folder that no other process has: `path`, or the first of `<path>-2`, `<path>-3`, ... that is free."""
    for number in count(1):
        folder = path if number == 1 else path.with_name(f"{path.name}-{number}")
        try:
            folder.mkdir(parents=True)
            return folder
        except FileExistsError:
            if not folder.is_dir():
                raise
    raise AssertionError  # count has no end
