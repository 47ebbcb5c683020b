"""A reader that leaves, as `| head -1` does, ends a program quietly and not with 0."""

import os
import subprocess
import sys

import pytest
from runs import ROOT

PROGRAM = "import logging\nfrom specgan.command_line.console import Console\n"
PROGRAM += "logging.basicConfig(handlers=[Console({stream})], level=logging.INFO)\n"
PROGRAM += "for _ in range(9999): logging.info('x' * 99)\nprint('still here', file=sys.stderr)"


def into_a_closed_pipe(arguments, *, stream):
    """The exit code, and what comes on the other stream."""
    reader, writer = os.pipe()
    os.close(reader)
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, stream: writer}
    done = subprocess.run([sys.executable, *arguments], cwd=ROOT, **streams)
    os.close(writer)
    return done.returncode, (done.stderr if stream == "stdout" else done.stdout)


@pytest.mark.parametrize("stream", ["stdout", "stderr"])
def test_logging_into_a_pipe_that_nobody_reads_ends_the_program(stream):
    program = "import sys\n" + PROGRAM.format(stream=f"sys.{stream}")
    assert into_a_closed_pipe(["-c", program], stream=stream) == (141, b"")


def test_preprocess_ends_quietly(tmp_path):
    (tmp_path / "clips").mkdir()
    (tmp_path / "clips" / "x.wav").write_bytes(b"no sound")
    arguments = ["preprocess.py", f"input={tmp_path}/clips", f"output={tmp_path}/out", "executor=serial"]
    code, output = into_a_closed_pipe(arguments, stream="stderr")
    assert code == 141
    assert b"Traceback" not in output


@pytest.mark.parametrize("root", ["train", "generate", "preprocess"])
def test_every_script_logs_through_it(root):
    from hydra import compose, initialize_config_dir

    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        for stage in ["fit", "test"] if root == "train" else [None]:
            cfg = compose(root, overrides=[f"stage={stage}"] if stage else [], return_hydra_config=True)
            assert cfg.hydra.job_logging.handlers.console["class"] == "specgan.command_line.console.Console"
