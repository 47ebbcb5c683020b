"""Processes of limited time and memory, for work on files that strangers sent."""

import json
import multiprocessing
import os
import resource
import signal
import sys
import threading
import traceback
from collections.abc import Callable
from multiprocessing import forkserver
from multiprocessing.connection import Connection
from pathlib import Path

from specgan.server.errors import RefusedError

# What a conversion imports, and hydra, which the main module imports.
_PRELOADED = ["specgan.server.uploads", "torchaudio.functional", "matplotlib", "av", "hydra"]
_MOST_ANSWER = 2**20  # bytes
_START_S = 60.0  # that a worker may take until it begins; the first one waits for PyTorch
_SPARE_S = 5.0  # until a worker whose service was killed ends itself

_context = multiprocessing.get_context("forkserver")
_processes = threading.Lock()  # multiprocessing's list of children is not made for many threads


def start_server() -> None:
    """Starts the process from which workers are forked, and which imports what they need once for all.

    Workers are not forked from this process, which would copy locks that its threads hold, and its clients' sockets.
    """
    _context.set_forkserver_preload(_PRELOADED)
    forkserver.ensure_running()


def end_workers() -> None:
    """Ends all workers; requests that wait for one get a RefusedError."""
    with _processes:
        for process in multiprocessing.active_children():
            process.kill()


def run_limited(function: Callable[[], str], *, timeout_s: float, max_memory_mb: float) -> str:
    """Calls a function in a new process, and ends the process when it takes too much.

    Args:
        function: of a module, or a `functools.partial` of such; its ValueErrors are the file's fault.
        timeout_s: seconds that the call may take; then the process is killed.
        max_memory_mb: MiB that the call may take beyond what the process has at its start; Linux alone enforces it.
    Returns:
        What the function returns.
    Raises:
        RefusedError: the function raised it or a ValueError, took too much, or its process died.
        RuntimeError: it raised something else, whose traceback is in the message, or the process did not start.
    """
    ours, theirs = _context.Pipe(duplex=False)
    process = _context.Process(target=_work, args=(theirs, function, timeout_s, max_memory_mb), daemon=True)
    with _processes:
        process.start()
    theirs.close()
    try:
        _wait_for_start(ours)
        if not ours.poll(timeout_s):
            raise RefusedError(400, "too_slow", f"decoding took over {timeout_s:g} s and was stopped; send less sound")
        # JSON, because a pickle from a process that a file has taken over would take over this one.
        answer = json.loads(ours.recv_bytes(_MOST_ANSWER))
    except (EOFError, OSError) as err:
        raise RefusedError(
            400, "not_decodable", "the decoder crashed on this file; check that it is whole, or convert it to WAV"
        ) from err
    finally:
        with _processes:
            process.kill()  # also after an answer: it has nothing left to do
            process.join()
            process.close()
        ours.close()
    if "traceback" in answer:
        raise RuntimeError(f"in a worker: {answer['traceback']}")
    if "message" in answer:
        raise RefusedError(**answer)
    return answer["value"]


def _wait_for_start(answers: "Connection[bytes, bytes]") -> None:
    """Until a worker begins, no fault is the file's, and the time does not count against it."""
    try:
        if answers.poll(_START_S):
            answers.recv_bytes(1)
            return
    except (EOFError, OSError) as err:
        raise RuntimeError("a worker died at its start") from err
    raise RuntimeError(f"a worker did not start within {_START_S:g} s")


def _work(
    answers: "Connection[bytes, bytes]", function: Callable[[], str], timeout_s: float, max_memory_mb: float
) -> None:
    import torch

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the service, which ends its workers
    signal.setitimer(signal.ITIMER_REAL, timeout_s + _SPARE_S)  # if nobody is left to kill it
    torch.set_num_threads(1)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if sys.platform == "linux":
        limit = _data_bytes() + int(max_memory_mb * 2**20)
        resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
    answers.send_bytes(b".")
    answers.send_bytes(json.dumps(_answer(function, max_memory_mb)).encode())


def _answer(function: Callable[[], str], max_memory_mb: float) -> dict[str, str | int]:
    """What the function returns as `value`, the arguments of the RefusedError that it comes to, or a `traceback`."""
    try:
        return {"value": function()}
    except RefusedError as err:
        return {"status_code": err.status_code, "error": err.error, "message": err.detail}
    except ValueError as err:
        return {"status_code": 400, "error": "not_drawable", "message": str(err)}
    except Exception as err:
        if isinstance(err, MemoryError) or "allocate memory" in str(err):  # PyTorch's is a RuntimeError
            message = f"decoding takes over {max_memory_mb:g} MB and was stopped; send less sound"
            return {"status_code": 400, "error": "too_much_memory", "message": message}
        return {"traceback": traceback.format_exc()}


def _data_bytes() -> int:
    """What the process already has of that which RLIMIT_DATA counts."""
    return int(Path("/proc/self/statm").read_text().split()[5]) * os.sysconf("SC_PAGE_SIZE")
