"""The service in a process of its own, as a user starts it."""

import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import weakref
from contextlib import contextmanager
from pathlib import Path

import pytest
from processes import wait_until
from runs import ROOT

QUICK = ["vocoder.n_iter=2", "vocoder.n_inversion_iter=5"]


class Service:
    """Started from `home`, with a temporary folder and a process group of its own."""

    def __init__(self, home, *arguments):
        pytest.importorskip("fastapi", reason="needs the service: pip install 'specgan[serve]'")
        self.log = home / "log"
        # Not in pytest's folder: sockets of worker processes lie there, whose paths must be short.
        self.temporary = Path(tempfile.mkdtemp())
        weakref.finalize(self, shutil.rmtree, self.temporary, ignore_errors=True)
        with self.log.open("w") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "specgan.server", "port=0", *map(str, arguments)],
                cwd=home,
                env={**os.environ, "TMPDIR": str(self.temporary), "PYTHONPATH": str(ROOT)},
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        wait_until(lambda: self.address() or self.process.poll() is not None, seconds=180)
        assert self.process.poll() is None, self.log.read_text()
        self.url = self.address()
        self.pid = self.process.pid
        (self.folder,) = self.temporary.glob("specgan-*")

    def address(self):
        found = re.search(r"running on (http://127\.0\.0\.1:\d+)", self.log.read_text())
        return found and found[1]

    def end(self, how=signal.SIGINT):
        self.process.send_signal(how)
        return self.process.wait(60)


@contextmanager
def running_service(home, *arguments):
    """Starts the service and yields its address."""
    service = Service(home, *arguments)
    try:
        yield service.url
    finally:
        service.end(signal.SIGTERM)
