"""specgan.tasks.executors: wherever the units are done, the results are the same, and a worker's death costs one unit."""

import logging
import multiprocessing
import os
import pickle
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from specgan.spectrogram import SpectrogramParams
from specgan.tasks import clips as clips_module
from specgan.tasks.executors import Processes, dask, serial
from specgan.tasks.runner import Failure, UnitError, run_units, stage
from specgan.tasks.spectrograms import make_spectrograms

BROKEN, DEADLY = 5, 11  # numbers of units
log = logging.getLogger("specgan.audio")


@dataclass(frozen=True)
class Number:
    """A unit of work; the workers import this module to know it."""

    value: int

    @property
    def source(self) -> Path:
        return Path(f"{self.value}.wav")


def numbers(n: int) -> list[Number]:
    return [Number(i) for i in range(n)]


def run(units, work, executor, *, on_error: str = "skip") -> dict:
    """What `run_units` yields, by the unit's number; each unit once."""
    results = list(run_units(units, work, executor=executor, on_error=on_error, description="numbers"))
    assert len({unit for unit, _ in results}) == len(results)
    return {unit.value: outcome for unit, outcome in results}


def wait_until(is_so, *, seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not is_so():
        assert time.monotonic() < end, "it did not come to that"
        time.sleep(0.005)


def is_gone(pid: int) -> bool:
    """Whether a process has ended, be it that nobody has asked how (a zombie)."""
    try:
        os.kill(pid, 0)
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except (ProcessLookupError, FileNotFoundError):
        return True


# What the workers do


def square(units: Sequence[Number]) -> Iterator[int | UnitError]:
    """Squares, a message for each multiple of 4, and one unit that cannot be done."""
    for unit in units:
        if unit.value % 4 == 0:
            log.warning("%s: a multiple of 4", unit.source)
        try:
            with stage("decode"):
                if unit.value == BROKEN:
                    raise ValueError(f"{unit.source}: broken")
            yield unit.value**2
        except UnitError as err:
            yield err


def where(units: Sequence[Number]) -> Iterator[tuple[int, int]]:
    """The process and its number of threads."""
    for _ in units:
        yield os.getpid(), torch.get_num_threads()


def die_at(units: Sequence[Number], *, deadly: frozenset[int], how: str) -> Iterator[int]:
    for unit in units:
        if unit.value in deadly:
            if how == "exit":
                os._exit(3)
            os.kill(os.getpid(), signal.SIGKILL)
        yield unit.value**2


def hang_but_for_one(units: Sequence[Number], *, folder: Path) -> Iterator[UnitError]:
    """Each leaves a file named by its process; the first is answered when another hangs."""
    for unit in units:
        (folder / str(os.getpid())).touch()
        if unit.value > 0:
            time.sleep(600)
        wait_until(lambda: len(os.listdir(folder)) == 2)
        yield UnitError("decode", "0.wav: broken")


def give_a_lock(units: Sequence[Number]) -> list:
    return [threading.Lock() for _ in units]


MEETING = threading.Barrier(2, timeout=60)
GOT_FIRST = threading.Event()


def talk_at_the_same_time(units: Sequence[Number]) -> Iterator[None]:
    for unit in units:
        for word in ("begins", "goes on", "ends"):
            MEETING.wait()
            log.warning("%s %s", unit.source, word)
            MEETING.wait()
        yield


def talk_in_turn(units: Sequence[Number]) -> Iterator[None]:
    """The second ends when the first is known to have ended."""
    for unit in units:
        MEETING.wait()
        if unit.value == 1:
            assert GOT_FIRST.wait(60)
        log.warning("%s ends", unit.source)
        yield


def fail_by_mistake(units: Sequence[Number]) -> Iterator[int]:
    for unit in units:
        if unit.value == 3:
            raise KeyError("a mistake in the work")
        yield unit.value


# Executors


@pytest.fixture(scope="module")
def two_processes():
    return Processes(n_workers=2)


@pytest.fixture(scope="module")
def dask_cluster():
    """A cluster of two worker processes, as on one machine; a unit at which a worker died is not tried there again."""
    distributed = pytest.importorskip("distributed", reason="needs dask: pip install 'specgan[dask]'")
    import dask.config

    settings = {"distributed.scheduler.allowed-failures": 0, "distributed.comm.timeouts.connect": "20s"}
    with (
        dask.config.set(settings),
        distributed.LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as cluster,
    ):
        yield partial(globals()["dask"], address=cluster.scheduler_address)


@pytest.fixture(params=["serial", "threads", "processes", "dask"])
def executor(request):
    if request.param == "serial":
        return serial
    if request.param == "threads":
        return partial(ThreadPoolExecutor, 4)
    return request.getfixturevalue({"processes": "two_processes", "dask": "dask_cluster"}[request.param])


def test_every_executor_gives_the_same_results_failures_and_messages(executor, caplog):
    with caplog.at_level(logging.WARNING):
        results = run(numbers(50), square, executor)
    failure = Failure("5.wav", "decode", "5.wav: broken")
    assert results == {i: failure if i == BROKEN else i**2 for i in range(50)}
    expected = [f"{i}.wav: a multiple of 4" for i in range(0, 50, 4)] + ["skipped: 5.wav: broken"]
    assert sorted(record.getMessage() for record in caplog.records) == sorted(expected)  # each of them once
    assert logging.getLogger("specgan").propagate
    assert logging.getLogger("specgan").handlers == []


def test_threads_that_talk_at_the_same_time_are_heard_once_each(caplog):
    with caplog.at_level(logging.WARNING):
        run(numbers(2), talk_at_the_same_time, partial(ThreadPoolExecutor, 2))
    expected = [f"{i}.wav {word}" for i in range(2) for word in ("begins", "ends", "goes on")]
    assert sorted(record.getMessage() for record in caplog.records) == expected
    logging.getLogger("specgan").warning("afterwards")
    assert caplog.records[-1].getMessage() == "afterwards"


def test_messages_pass_while_another_thread_is_at_work(caplog):
    GOT_FIRST.clear()
    with caplog.at_level(logging.WARNING):
        results = run_units(
            numbers(2), talk_in_turn, executor=partial(ThreadPoolExecutor, 2), on_error="skip", description="numbers"
        )
        assert next(results)[0].value == 0
        assert [record.getMessage() for record in caplog.records] == ["0.wav ends"]
        log.warning("the caller's own")
        GOT_FIRST.set()
        assert next(results)[0].value == 1
        results.close()
    assert [record.getMessage() for record in caplog.records] == ["0.wav ends", "the caller's own", "1.wav ends"]


def test_each_process_works_with_one_thread(two_processes):
    results = run(numbers(20), where, two_processes)
    assert {n_threads for _, n_threads in results.values()} == {1}
    assert os.getpid() not in {pid for pid, _ in results.values()}


def test_dask_workers_work_with_one_thread(dask_cluster):
    results = run(numbers(20), where, dask_cluster)
    assert {n_threads for _, n_threads in results.values()} == {1}
    assert os.getpid() not in {pid for pid, _ in results.values()}


def test_serial_works_here_with_one_thread_and_gives_the_threads_back():
    torch.set_num_threads(2)
    try:
        assert set(run(numbers(3), where, serial).values()) == {(os.getpid(), 1)}
        assert torch.get_num_threads() == 2
        with pytest.raises(KeyError):
            run(numbers(5), fail_by_mistake, serial)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(1)


@pytest.mark.parametrize("how", ["exit", "kill"])
@pytest.mark.parametrize("deadly", [{DEADLY}, {0, 39}], ids=["one", "first and last"])
def test_a_unit_that_kills_its_worker_fails_alone(two_processes, how, deadly, caplog):
    results = run(numbers(40), partial(die_at, deadly=frozenset(deadly), how=how), two_processes)
    failures = {value: results.pop(value) for value in deadly}
    assert results == {i: i**2 for i in range(40) if i not in deadly}
    for value, failure in failures.items():
        assert (failure.path, failure.stage) == (f"{value}.wav", "worker")
        assert f"{value}.wav: the worker that had it died" in failure.error
        assert f"{value}.wav" in caplog.text


def test_a_unit_that_kills_its_dask_worker_fails_alone(dask_cluster):
    results = run(numbers(40), partial(die_at, deadly=frozenset({DEADLY}), how="kill"), dask_cluster)
    failure = results.pop(DEADLY)
    assert (failure.path, failure.stage) == ("11.wav", "worker")
    assert results == {i: i**2 for i in range(40) if i != DEADLY}


def test_a_unit_that_kills_its_worker_is_raised_where_asked_for(two_processes):
    work = partial(die_at, deadly=frozenset({1}), how="exit")
    with pytest.raises(UnitError, match=r"1\.wav: the worker that had it died") as info:
        run(numbers(3), work, two_processes, on_error="raise")
    assert info.value.stage == "worker"


def test_units_that_all_kill_their_worker_are_an_error(two_processes):
    with pytest.raises(RuntimeError, match="executor=serial"):
        run(numbers(8), partial(die_at, deadly=frozenset(range(8)), how="exit"), two_processes)


@pytest.mark.parametrize("on_error", ["skip", "raise"])
def test_a_mistake_in_the_work_is_raised(executor, on_error):
    with pytest.raises(KeyError, match="a mistake in the work"):
        run(numbers(10), fail_by_mistake, executor, on_error=on_error)


@pytest.mark.parametrize("name", ["two_processes", "dask_cluster"])
@pytest.mark.parametrize("work", [give_a_lock, lambda units: [threading.Lock() for _ in units]], ids=["result", "both"])
def test_what_cannot_be_sent_is_an_error_and_no_unit_is_to_blame(request, name, work):
    with pytest.raises((TypeError, pickle.PicklingError), match="pickle|serialize"):
        run(numbers(10), work, request.getfixturevalue(name))


@pytest.mark.parametrize("stop", ["error", "caller"])
def test_no_worker_is_left_behind(two_processes, tmp_path, stop):
    before = set(multiprocessing.active_children())
    work = partial(hang_but_for_one, folder=tmp_path)
    arguments = {"executor": two_processes, "on_error": "raise" if stop == "error" else "skip", "description": ""}
    results = run_units(numbers(2), work, **arguments)
    if stop == "error":
        with pytest.raises(UnitError, match="broken"):
            next(results)
    else:
        assert isinstance(next(results)[1], Failure)
        results.close()
    assert len(os.listdir(tmp_path)) == 2
    for pid in map(int, os.listdir(tmp_path)):
        wait_until(lambda pid=pid: is_gone(pid))
    wait_until(lambda: set(multiprocessing.active_children()) <= before)


@pytest.mark.parametrize("n_workers", [0, -1])
def test_fewer_than_one_worker_is_refused(n_workers):
    with pytest.raises(ValueError, match=f"n_workers is {n_workers}; at least 1"):
        Processes(n_workers=n_workers)
    with pytest.raises(ValueError, match=f"n_workers is {n_workers}; at least 1"), dask(n_workers=n_workers):
        pass


def test_a_cluster_that_is_there_has_its_own_number_of_workers():
    with pytest.raises(ValueError, match="n_workers is 2, but the cluster at tcp://host:8786"):
        with dask(address="tcp://host:8786", n_workers=2):
            pass


def test_by_default_there_is_a_process_for_each_core_that_may_be_used():
    assert Processes().n_workers == len(os.sched_getaffinity(0))
