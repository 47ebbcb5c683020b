"""Commands that a user can copy from the terminal and run, whatever is in the paths."""

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException


def command(script: str, **settings: str | Path) -> str:
    """Returns the line of a shell that runs a script which is beside the running one.

    Args:
        script: "generate.py".
        **settings: Hydra's, with their values as text.
    """
    python = shutil.which("python")
    is_this = python is not None and Path(python).absolute() == Path(sys.executable).absolute()
    parts = ["python" if is_this else sys.executable, str(Path(sys.argv[0]).with_name(script))]
    parts += [setting(name, str(value)) for name, value in settings.items()]
    return subprocess.list2cmdline(parts) if os.name == "nt" else shlex.join(parts)


def setting(name: str, value: str) -> str:
    """Returns `name=value` as Hydra reads it, quoted if its grammar needs that: the value stays this very text."""
    plain = f"{name}={value}"
    try:
        (override,) = OverridesParser.create().parse_overrides([plain])
        if override.value() == value and "${" not in value:
            return plain
    except HydraException:
        pass
    # Backslashes are themselves, except before what they escape: an interpolation, a quote, the closing quote.
    value = re.sub(r"(\\*)\$\{", r"\1\1\\${", value)
    value = re.sub(r'(\\*)"', r'\1\1\\"', value)
    value = re.sub(r"(\\+)$", r"\1\1", value)
    return f'{name}="{value}"'
