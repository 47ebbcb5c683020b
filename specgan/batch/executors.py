"""Where the work units of a task run: what opens a concurrent.futures.Executor for the time of a `with` block.

Anything else with that interface works too, for example ThreadPoolExecutor. An attribute `n_workers` says how many
units it works on at a time. A method `warm_up` is called before the task is imported.
"""

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future, ProcessPoolExecutor
from contextlib import ExitStack, contextmanager
from multiprocessing import forkserver
from typing import TYPE_CHECKING, ParamSpec, TypeVar

if TYPE_CHECKING:
    from distributed import Worker, WorkerPlugin

P = ParamSpec("P")
R = TypeVar("R")


class SerialExecutor(Executor):
    """Runs each call at once, in this process."""

    n_workers = 1

    def submit(self, fn: Callable[P, R], /, *args: P.args, **kwargs: P.kwargs) -> Future[R]:
        future: Future[R] = Future()
        try:
            future.set_result(fn(*args, **kwargs))
        except Exception as err:
            future.set_exception(err)
        return future


@contextmanager
def serial() -> Iterator[Executor]:
    """One unit after another in this process, with one thread, so that it gives the same bytes as the others."""
    import torch

    n_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield SerialExecutor()
    finally:
        torch.set_num_threads(n_threads)


class Processes:
    """Worker processes on this machine, one thread each: the units are too small for threads to share.

    Where the system can, the workers are forked from a server that imports torch once for all of them. (They are not
    forked from this process, which would copy locks that its threads hold.)

    Args:
        n_workers: at least 1; None: one for each core that this process may use.
    Raises:
        ValueError: `n_workers` < 1.
    """

    def __init__(self, n_workers: int | None = None) -> None:
        if n_workers is None:
            n_workers = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
        _require_workers(n_workers)
        self.n_workers = n_workers
        self.start_method = "forkserver" if "forkserver" in multiprocessing.get_all_start_methods() else "spawn"

    def warm_up(self) -> None:
        """Starts the server that imports torch for the workers, if it is not running, and returns at once."""
        if self.start_method == "forkserver":
            forkserver.set_forkserver_preload(["__main__", "specgan.audio", "torchaudio.functional"])
            forkserver.ensure_running()

    @contextmanager
    def __call__(self) -> Iterator[Executor]:
        self.warm_up()
        before = set(multiprocessing.active_children())
        pool = _ProcessPool(self.n_workers, self.start_method)
        try:
            yield pool
        except BaseException:  # an interrupt or an error: nobody waits for what is under way
            pool.shutdown(wait=False, cancel_futures=True)
            for process in set(multiprocessing.active_children()) - before:
                process.terminate()
            raise
        pool.shutdown()


class _ProcessPool(ProcessPoolExecutor):
    def __init__(self, n_workers: int, start_method: str) -> None:
        super().__init__(n_workers, mp_context=multiprocessing.get_context(start_method), initializer=_start_worker)
        self.n_workers = n_workers


def _start_worker() -> None:
    _use_one_thread()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the parent, which ends its workers
    threading.Thread(target=_die_with_parent, daemon=True).start()


def _die_with_parent() -> None:
    """A parent that is killed cannot end its workers, and they would wait for work for ever."""
    multiprocessing.parent_process().join()
    os._exit(1)


@contextmanager
def dask(address: str | None = None, n_workers: int | None = None) -> Iterator[Executor]:
    """The workers of a dask cluster: of many machines, if they share the folders.

    Args:
        address: of a running scheduler, e.g. tcp://host:8786; None starts a cluster on this machine.
        n_workers: of the cluster that is started; None: one for each core.
    Raises:
        ImportError: dask is not installed.
        ValueError: `n_workers` < 1, or given together with `address`.
        OSError, TimeoutError: no scheduler at `address`, or it has no worker.
    """
    try:
        from distributed import Client, LocalCluster
    except ImportError as err:
        raise ImportError("executor=dask needs dask: pip install 'specgan[dask]'") from err
    if address is not None and n_workers is not None:
        raise ValueError(f"n_workers is {n_workers}, but the cluster at {address} has its own; leave it out")
    if n_workers is not None:
        _require_workers(n_workers)

    with ExitStack() as stack:
        if address is None:
            cluster = LocalCluster(n_workers=n_workers, threads_per_worker=1, dashboard_address="127.0.0.1:0")
            address = stack.enter_context(cluster).scheduler_address
        client = stack.enter_context(Client(address))
        client.wait_for_workers(1, timeout=60)
        client.register_plugin(_one_thread_plugin())
        pool = client.get_executor(pure=False)
        pool.n_workers = sum(client.ncores().values())
        yield pool


def _one_thread_plugin() -> "WorkerPlugin":
    from distributed import WorkerPlugin

    class OneThread(WorkerPlugin):
        name = "specgan-one-thread"

        def setup(self, worker: "Worker") -> None:  # also of workers that join later
            _use_one_thread()

    return OneThread()


def _use_one_thread() -> None:
    import torch

    torch.set_num_threads(1)


def _require_workers(n_workers: int) -> None:
    if n_workers < 1:
        raise ValueError(f"n_workers is {n_workers}; at least 1, or null for one for each core")
