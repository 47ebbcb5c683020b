"""Commands that a user can copy from the terminal and run, whatever is in the paths."""

import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

from specgan.command_line.arguments import Setting, typed


def command(script: str, **settings: Setting | Path) -> str:
    """Returns the line of a shell that runs a script which is beside the running one.

    Args:
        script: "generate.py".
        **settings: Hydra's, with their values, see `typed`.
    """
    python = shutil.which("python")
    is_this = python is not None and Path(python).absolute() == Path(sys.executable).absolute()
    parts = ["python" if is_this else sys.executable, str(Path(sys.argv[0]).with_name(script))]
    parts += [typed(name, str(value) if isinstance(value, Path) else value) for name, value in settings.items()]
    return subprocess.list2cmdline(parts) if os.name == "nt" else shlex.join(parts)
