"""Commands that a user can copy from the terminal and run, whatever is in the paths."""

import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

from specgan.command_line.arguments import Setting, typed

_INSTALLED = Path(__file__).parents[1] / "scripts"


def scripts_folder() -> Path:
    """The folder of train.py, generate.py, preprocess.py and conf/: of the clone, or in the installed package."""
    return _INSTALLED if _INSTALLED.is_dir() else Path(__file__).parents[2]


def command(script: str, **settings: Setting | Path) -> str:
    """Returns the line of a shell that runs a script which is beside the running one, or in the installed package.

    Args:
        script: "generate.py".
        **settings: Hydra's, with their values, see `typed`.
    """
    running, here = Path(sys.argv[0]), Path(sys.executable).absolute()
    if running.parent == _INSTALLED:
        is_found = Path(shutil.which("specgan") or "").absolute().parent == here.parent
        parts = [*(["specgan"] if is_found else [str(here), "-m", "specgan"]), script.removesuffix(".py")]
    else:
        is_found = Path(shutil.which("python") or "").absolute() == here
        parts = ["python" if is_found else sys.executable, str(running.with_name(script))]
    parts += [typed(name, str(value) if isinstance(value, Path) else value) for name, value in settings.items()]
    return subprocess.list2cmdline(parts) if os.name == "nt" else shlex.join(parts)
