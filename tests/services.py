"""The service in a process, as a user starts it."""

import socket
import subprocess
import sys
import time
from contextlib import contextmanager
from urllib.error import URLError
from urllib.request import urlopen

import pytest
from runs import ROOT

QUICK = ["vocoder.n_iter=2", "vocoder.n_inversion_iter=5"]


@contextmanager
def running_service(folder, *arguments):
    """Starts the service and yields its address."""
    pytest.importorskip("fastapi", reason="needs the service: pip install 'specgan[serve]'")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    address, log = f"http://127.0.0.1:{port}", folder / "service.log"
    command = [sys.executable, "-m", "specgan.server", f"port={port}", *map(str, arguments)]
    with log.open("w") as stream:
        service = subprocess.Popen(command, cwd=ROOT, stdout=stream, stderr=stream)
    try:
        for _ in range(600):
            if service.poll() is not None:
                break
            try:
                urlopen(f"{address}/healthz", timeout=5).close()
                yield address
                return
            except (URLError, TimeoutError):  # not there yet
                time.sleep(0.2)
        pytest.fail(f"the service did not start:\n{log.read_text()}")
    finally:
        service.terminate()
        service.wait(30)
