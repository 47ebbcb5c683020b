"""A process that has imported what the scripts import, and runs each in a fork of itself: a start takes no seconds."""

import gc
import importlib
import json
import os
import runpy
import subprocess
import sys
import tempfile
from functools import cache
from pathlib import Path

from hydra.core.plugins import Plugins
from wandb.sdk.data_types._private import MEDIA_TMP

IMPORTED = (
    "hydra._internal.utils",
    "lightning",
    "specgan.evaluation.evaluator",
    "specgan.generation",
    "specgan.models.cgan",
    "specgan.tasks.spectrograms",
    "specgan.training.stages",
    "specgan.training.testing",
    "wandb.sdk.launch.inputs.internal",
)


def run(command: list[str], *, cwd: Path, env: dict[str, str]) -> subprocess.CompletedProcess[str]:
    """As subprocess.run of [Python, script, *arguments], with both streams captured as text in `stdout`.

    Variables that libraries read when they are imported, those of threads among them, are this process's own.
    """
    with tempfile.NamedTemporaryFile("r") as output:
        request = {"argv": command[1:], "cwd": str(cwd), "env": env, "output": output.name}
        server = _server()
        print(json.dumps(request), file=server.stdin, flush=True)
        code = json.loads(server.stdout.readline())
        return subprocess.CompletedProcess(command, code, output.read(), "")


@cache
def _server() -> subprocess.Popen[str]:
    """The process, which ends with this one: then nothing writes to its input any more."""
    return subprocess.Popen([sys.executable, __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def serve() -> None:
    """Answers each request, a line on stdin, with the exit status of its script, a line on stdout."""
    sys.path[0] = str(Path(__file__).parents[1])  # this checkout, wherever another one is installed
    for name in IMPORTED:
        importlib.import_module(name)
    Plugins.instance()  # looks for Hydra's plugins, and imports them
    gc.freeze()  # else each fork would copy what it never uses
    for line in sys.stdin:
        process = os.fork()
        if not process:
            return _run(**json.loads(line))
        print(os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]), flush=True)


def _run(argv: list[str], cwd: str, env: dict[str, str], output: str) -> None:
    os.chdir(cwd)
    os.environ.clear()
    os.environ.update(env)
    for target, path, flags in ((0, os.devnull, os.O_RDONLY), (1, output, os.O_WRONLY), (2, output, os.O_WRONLY)):
        opened = os.open(path, flags | os.O_APPEND)
        os.dup2(opened, target)
        os.close(opened)
    MEDIA_TMP.name = tempfile.mkdtemp("wandb-media")  # else the first that ends takes away the folder of all
    sys.argv = argv
    sys.path[:1] = [str(Path(argv[0]).parent), *filter(None, env.get("PYTHONPATH", "").split(os.pathsep))]
    runpy.run_path(argv[0], run_name="__main__")


if __name__ == "__main__":
    serve()
