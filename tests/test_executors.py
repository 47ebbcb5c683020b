"""specgan.batch.executors: wherever units are done the results are the same, and a worker's death costs one unit."""

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
from folders import contents
from processes import processes_of_group, wait_until

from specgan.batch.executors import Processes, dask, serial
from specgan.batch.failures import Failure, UnitError, stage
from specgan.batch.runner import Batch
from specgan.batch.worker import do_units
from specgan.clips import levels
from specgan.spectrogram import SpectrogramParams
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
    """What `Batch.run` yields, by the unit's number; each unit once."""
    results = list(Batch(executor, on_error, "numbers").run(units, work))
    assert len({unit for unit, _ in results}) == len(results)
    return {unit.value: outcome for unit, outcome in results}


linux = pytest.mark.skipif(sys.platform != "linux", reason="needs /proc and process groups")


def is_gone(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return False


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


@contextmanager
def two_threads():
    with ThreadPoolExecutor(2) as pool:
        pool.n_workers = 2
        yield pool


@pytest.fixture(scope="module")
def two_processes():
    return Processes(n_workers=2)


@pytest.fixture(scope="module")
def dask_address() -> str:
    """Of a cluster of two worker processes, as executor=dask starts it."""
    distributed = pytest.importorskip("distributed", reason="needs dask: pip install 'specgan[dask]'")
    with dask(n_workers=2):
        yield distributed.default_client().scheduler.address


@pytest.fixture
def dask_cluster(dask_address):
    return partial(dask, address=dask_address)


@pytest.fixture(params=["serial", "threads", "processes", "dask"])
def executor(request):
    if request.param == "serial":
        return serial
    if request.param == "threads":
        return partial(ThreadPoolExecutor, 4)  # any Executor will do
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
        run(numbers(2), talk_at_the_same_time, two_threads)
    expected = [f"{i}.wav {word}" for i in range(2) for word in ("begins", "ends", "goes on")]
    assert sorted(record.getMessage() for record in caplog.records) == expected
    logging.getLogger("specgan").warning("afterwards")
    assert caplog.records[-1].getMessage() == "afterwards"


def test_threads_of_a_worker_elsewhere_each_send_home_what_they_said():
    with ThreadPoolExecutor(2) as pool:  # as a dask worker of two threads
        chunks = [[Number(0)], [Number(1)]]
        sent = [
            pool.submit(do_units, chunk, work=talk_at_the_same_time, stops=False, sender=("elsewhere", 1))
            for chunk in chunks
        ]
        for chunk, future in zip(chunks, sent, strict=True):
            answer = future.result()
            assert (answer.outcomes, answer.mistake) == ([None], None)
            said = [f"{chunk[0].source} {word}" for word in ("begins", "goes on", "ends")]
            assert answer.messages == [(logging.WARNING, text) for text in said]


def test_messages_pass_while_another_thread_is_at_work(caplog):
    GOT_FIRST.clear()
    with caplog.at_level(logging.WARNING):
        results = Batch(two_threads, "skip", "numbers").run(numbers(2), talk_in_turn)
        assert next(results)[0].value == 0
        assert [record.getMessage() for record in caplog.records] == ["0.wav ends"]
        log.warning("the caller's own")
        GOT_FIRST.set()
        assert next(results)[0].value == 1
        results.close()
    assert [record.getMessage() for record in caplog.records] == ["0.wav ends", "the caller's own", "1.wav ends"]


@pytest.mark.parametrize("name", ["two_processes", "dask_cluster"])
def test_each_process_works_with_one_thread(request, name):
    results = run(numbers(20), where, request.getfixturevalue(name))
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


@pytest.mark.parametrize(("deadly", "how"), [({DEADLY}, "exit"), ({0, 39}, "kill")])
def test_a_unit_that_kills_its_worker_fails_alone(two_processes, how, deadly, caplog):
    results = run(numbers(40), partial(die_at, deadly=frozenset(deadly), how=how), two_processes)
    failures = {value: results.pop(value) for value in deadly}
    assert results == {i: i**2 for i in range(40) if i not in deadly}
    for value, failure in failures.items():
        assert (failure.path, failure.stage) == (f"{value}.wav", "worker")
        assert f"{value}.wav: the worker that had it died" in failure.error
        assert f"{value}.wav" in caplog.text


def test_a_unit_that_kills_its_dask_worker_fails_alone(dask_address):
    with allowed_failures(dask_address, 0):  # dask itself would try the unit on three more workers
        results = run(
            numbers(40), partial(die_at, deadly=frozenset({DEADLY}), how="kill"), partial(dask, address=dask_address)
        )
    failure = results.pop(DEADLY)
    assert (failure.path, failure.stage) == ("11.wav", "worker")
    assert results == {i: i**2 for i in range(40) if i != DEADLY}


@contextmanager
def allowed_failures(address: str, n: int) -> Iterator[None]:
    from distributed import Client

    def set_to(n: int, dask_scheduler) -> int:
        before, dask_scheduler.allowed_failures = dask_scheduler.allowed_failures, n
        return before

    with Client(address, set_as_default=False) as client:
        before = client.run_on_scheduler(set_to, n)
        try:
            yield
        finally:
            client.run_on_scheduler(set_to, before)


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
    with pytest.raises((TypeError, pickle.PicklingError), match=r"(cannot|Can't) pickle"):
        run(numbers(10), work, request.getfixturevalue(name))


@pytest.mark.parametrize("stop", ["error", "caller"])
def test_no_worker_is_left_behind(two_processes, tmp_path, stop):
    before = set(multiprocessing.active_children())
    work = partial(hang_but_for_one, folder=tmp_path)
    results = Batch(two_processes, "raise" if stop == "error" else "skip", "numbers").run(numbers(2), work)
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


def test_dask_refuses_numbers_of_workers_that_it_cannot_have():
    pytest.importorskip("distributed", reason="needs dask: pip install 'specgan[dask]'")
    with pytest.raises(ValueError, match="n_workers is 0; at least 1"), dask(n_workers=0):
        pass
    refusal = pytest.raises(ValueError, match="n_workers is 2, but the cluster at tcp://host:8786")
    with refusal, dask(address="tcp://host:8786", n_workers=2):
        pass


def test_dask_that_is_not_installed_says_how(monkeypatch):
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(ImportError, match=r"pip install 'specgan\[dask\]'"), dask():
        pass


def test_by_default_there_is_a_process_for_each_core_that_may_be_used():
    assert Processes().n_workers == len(os.sched_getaffinity(0))


POOL_AT_WORK = """
import os, sys, time
from specgan.batch.executors import Processes

with Processes(n_workers=2)() as pool:
    workers = set()
    while len(workers) < 2:
        workers |= {future.result() for future in [pool.submit(os.getpid) for _ in range(10)]}
    pool.submit(time.sleep, 600)  # one of them is at work, one waits
    print(*workers, flush=True)
    time.sleep(600)
"""


@linux
def test_workers_end_when_their_parent_is_killed():
    command = [sys.executable, "-c", POOL_AT_WORK]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True) as parent:
        workers = {int(pid) for pid in parent.stdout.readline().split()}
        assert len(workers) == 2
        assert {parent.pid, *workers} <= set(processes_of_group(parent.pid))
        parent.kill()
    wait_until(lambda: not processes_of_group(parent.pid))  # its server of processes too


WARM_UP = """
from specgan.batch.executors import Processes

executor = Processes(n_workers=2)
print(flush=True)
input()
executor.warm_up()
print(flush=True)
input()
"""


@linux
def test_warming_up_starts_processes_and_making_the_executor_does_not():
    command = [sys.executable, "-c", WARM_UP]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True, start_new_session=True) as parent:
        parent.stdout.readline()
        assert processes_of_group(parent.pid) == [parent.pid]
        parent.stdin.write("\n")
        parent.stdin.flush()
        parent.stdout.readline()
        assert len(processes_of_group(parent.pid)) > 1
        parent.kill()
    wait_until(lambda: not processes_of_group(parent.pid))


# A dataset folder

PARAMS = SpectrogramParams(sample_rate=8000, n_fft=256, win_length=256, hop_length=128, n_mels=16, n_frames=16)


@pytest.fixture(scope="module")
def recordings(tmp_path_factory) -> Path:
    """Forty short clips of two labels, one of them broken."""
    root = tmp_path_factory.mktemp("recordings")
    for i in range(40):
        path = root / ("hiss", "rush")[i % 2] / f"{i}.wav"
        path.parent.mkdir(exist_ok=True)
        samples = np.random.default_rng(i).uniform(-0.5, 0.5, (1000 + 200 * i, 1 + i % 3))
        soundfile.write(path, samples, (8000, 11025)[i % 2])
    (root / "rush" / "7.wav").write_bytes(b"no sound at all")
    return root


def make(recordings: Path, output: Path, executor) -> dict[str, bytes]:
    """All files of the dataset folder that the executor makes."""
    report = make_spectrograms(
        recordings, output, params=PARAMS, format="both", peak=0.5, splits=(80, 10, 10), executor=executor
    )
    assert (report.n_done, [Path(failure.path).name for failure in report.failures]) == (39, ["7.wav"])
    return contents(output)


@pytest.fixture(scope="module")
def made_serially(recordings, tmp_path_factory) -> dict[str, bytes]:
    return make(recordings, tmp_path_factory.mktemp("made"), serial)


def die_once_at(name: str, marker: str) -> None:
    """Makes this process kill itself when it reads the file, if no other did."""
    read = levels.open_audio

    def read_or_die(path, **settings):
        if path.name == name:
            try:
                os.close(os.open(marker, os.O_CREAT | os.O_EXCL))
                os.kill(os.getpid(), signal.SIGKILL)
            except FileExistsError:
                pass
        return read(path, **settings)

    levels.open_audio = read_or_die


def test_processes_give_the_same_bytes_as_serial(recordings, made_serially, two_processes, tmp_path):
    assert make(recordings, tmp_path / "made", two_processes) == made_serially


def test_dask_gives_the_same_bytes_though_one_of_two_workers_is_killed(
    recordings, made_serially, dask_address, tmp_path
):
    from distributed import Client

    marker = tmp_path / "a worker died"
    with Client(dask_address, set_as_default=False) as client:
        client.wait_for_workers(2, timeout=60)
        assert len(client.run(die_once_at, "22.wav", str(marker))) == 2
    assert make(recordings, tmp_path / "made", partial(dask, address=dask_address)) == made_serially
    assert marker.exists()
