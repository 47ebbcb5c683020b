"""specgan.batch.runner: a batch goes on past a bad file, and says which and why."""

import logging
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import BrokenExecutor, Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from specgan.batch.executors import SerialExecutor, serial
from specgan.batch.failures import Failure, UnitError, stage, write_failures
from specgan.batch.runner import Batch, Report


@dataclass(frozen=True)
class Sound:
    source: Path


def sounds(n: int) -> list[Sound]:
    return [Sound(Path(f"{i}.wav")) for i in range(n)]


def run(units, work, *, on_error: str = "skip", executor=serial) -> list:
    return list(Batch(executor, on_error, "sounds").run(units, work))


def fails_on(*names: str, calls: list[str]):
    """Work that notes each unit and cannot decode those of `names`."""

    def work(units: Sequence[Sound]) -> Iterator[UnitError | None]:
        for unit in units:
            calls.append(unit.source.name)
            try:
                with stage("decode"):
                    if unit.source.name in names:
                        raise ValueError(f"{unit.source}: broken")
                yield None
            except UnitError as err:
                yield err

    return work


def test_units_are_done_in_order():
    calls: list[str] = []
    units = sounds(5)
    assert run(units, fails_on(calls=calls)) == [(unit, None) for unit in units]
    assert calls == [f"{i}.wav" for i in range(5)]


def test_a_bad_unit_is_reported_with_its_stage_and_the_others_are_done(caplog):
    calls: list[str] = []
    with caplog.at_level(logging.WARNING):
        results = run(sounds(4), fails_on("1.wav", "3.wav", calls=calls))
    assert calls == [f"{i}.wav" for i in range(4)]
    assert [failure for _, failure in results] == [
        None,
        Failure("1.wav", "decode", "1.wav: broken"),
        None,
        Failure("3.wav", "decode", "3.wav: broken"),
    ]
    assert "1.wav: broken" in caplog.text


def test_raise_stops_at_the_first_bad_unit():
    calls: list[str] = []
    with pytest.raises(UnitError) as info:
        run(sounds(4), fails_on("1.wav", "2.wav", calls=calls), on_error="raise")
    assert calls == ["0.wav", "1.wav"]
    assert info.value.stage == "decode"
    assert str(info.value) == "decode: 1.wav: broken"
    assert isinstance(info.value.__cause__, ValueError)


@pytest.mark.parametrize("units", [[], sounds(2)])
def test_unknown_on_error_is_refused_before_any_work(units):
    calls: list[str] = []
    with pytest.raises(ValueError, match="on_error is 'ignore'; skip or raise"):
        run(units, fails_on(calls=calls), on_error="ignore")
    assert calls == []


@pytest.mark.parametrize("on_error", ["skip", "raise"])
@pytest.mark.parametrize("error", [RuntimeError, KeyError, KeyboardInterrupt])
def test_an_error_that_no_stage_names_is_not_swallowed(error, on_error):
    def work(units: Sequence[Sound]) -> None:
        raise error("a bug")

    with pytest.raises(error, match="a bug"):
        run(sounds(2), work, on_error=on_error)


def test_work_that_forgets_a_unit_is_an_error():
    with pytest.raises(ValueError, match="work gave 0 outcomes for 1 units"):
        run(sounds(1), lambda units: [])


def test_no_units_is_no_result():
    assert run([], fails_on(calls=[])) == []


def test_stage_passes_interrupts_on():
    with pytest.raises(KeyboardInterrupt), stage("decode"):
        raise KeyboardInterrupt


def test_stage_names_an_error_without_a_message():
    with pytest.raises(UnitError) as info, stage("write"):
        raise MemoryError
    assert (info.value.stage, info.value.message) == ("write", "MemoryError")


def test_failures_csv_goes_when_nothing_failed(tmp_path):
    write_failures([Failure("a.wav", "decode", "broken")], tmp_path)
    assert (tmp_path / "failures.csv").exists()
    write_failures([], tmp_path)
    assert list(tmp_path.iterdir()) == []
    write_failures([], tmp_path)  # none there: no error
    assert list(tmp_path.iterdir()) == []


def test_report_counts():
    report = Report(n_done=3, n_skipped=2, failures=[Failure("a.wav", "decode", "broken")], message="specs: 5")
    assert str(report) == "specs: 5 (3 made, 2 already there, 1 failed)"


def test_work_that_gives_more_than_its_units_is_an_error():
    with pytest.raises(ValueError, match="work gave 2 outcomes for 1 units"):
        run(sounds(1), lambda units: ["a", "b"])


def test_work_that_fails_after_its_last_unit_is_an_error():
    def work(units: Sequence[Sound]) -> Iterator[None]:
        yield from [None] * len(units)
        raise KeyError("a bug")

    with pytest.raises(KeyError, match="a bug"):
        run(sounds(1), work)


def test_results_come_with_their_unit_in_whatever_order_they_are_done():
    last_is_done = threading.Event()

    def work(units: Sequence[Sound]) -> Iterator[str]:
        for unit in units:
            if unit.source.name == "0.wav":
                assert last_is_done.wait(60)
            yield f"made of {unit.source}"
        if units[-1].source.name == "7.wav":
            last_is_done.set()

    @contextmanager
    def two_threads():
        with ThreadPoolExecutor(2) as pool:
            pool.n_workers = 2
            yield pool

    results = run(sounds(8), work, executor=two_threads)
    assert {unit for unit, _ in results} == set(sounds(8))
    assert len(results) == 8
    assert results[0][0] != Sound(Path("0.wav"))
    assert all(outcome == f"made of {unit.source}" for unit, outcome in results)


@pytest.mark.parametrize("stop", ["error", "caller", "mistake"])
def test_the_executor_is_closed_as_soon_as_it_is_over(stop):
    closed = []

    @contextmanager
    def workers():
        try:
            yield SerialExecutor()
        finally:
            closed.append(True)

    def work(units: Sequence[Sound]) -> Iterator[int | UnitError]:
        for unit in units:
            if unit.source.name == "1.wav":
                if stop == "mistake":
                    raise KeyError("a bug")
                yield UnitError("decode", "1.wav: broken")
            yield 0

    on_error = "raise" if stop == "error" else "skip"
    results = Batch(workers, on_error, "sounds").run(sounds(4), work)
    assert next(results)[1] == 0
    assert closed == []
    if stop == "caller":
        results.close()
    else:
        with pytest.raises((UnitError, KeyError)) as info:
            next(results)
        assert info.tb is not None  # holds the frames of the call, and what they hold
    assert closed == [True]


class Fragile(SerialExecutor):
    """Breaks, as a pool of processes does, when a unit kills its worker: also for all that comes after."""

    def __init__(self, kills) -> None:
        self.kills, self.is_broken = kills, False

    def submit(self, fn, units, /) -> Future:
        if self.is_broken:
            raise BrokenExecutor("a worker died before")
        future: Future = Future()
        if self.kills(units):
            self.is_broken = True
            future.set_exception(BrokenExecutor("a worker died"))
            return future
        return super().submit(fn, units)


@pytest.mark.parametrize("deadly", [{"0.wav"}, {"5.wav"}, {"39.wav"}, {"3.wav", "4.wav", "20.wav"}])
def test_units_that_break_the_executor_fail_alone_and_the_others_are_done_once(deadly):
    pools, calls = [], []

    @contextmanager
    def workers():
        pools.append(Fragile(lambda units: any(unit.source.name in deadly for unit in units)))
        yield pools[-1]

    results = run(sounds(40), fails_on(calls=calls), executor=workers)
    assert {unit.source.name for unit, outcome in results if isinstance(outcome, Failure)} == deadly
    assert {outcome.stage for _, outcome in results if isinstance(outcome, Failure)} == {"worker"}
    assert sorted(unit.source.name for unit, _ in results) == sorted(f"{i}.wav" for i in range(40))
    assert sorted(calls) == sorted({f"{i}.wav" for i in range(40)} - deadly)


def test_units_whose_worker_died_of_something_else_are_done():
    deaths = []

    def kills(units: Sequence[Sound]) -> bool:
        """Once, as when another program takes all the memory."""
        if Sound(Path("7.wav")) in units and not deaths:
            deaths.append(units)
            return True
        return False

    @contextmanager
    def workers():
        yield Fragile(kills)

    results = run(sounds(20), fails_on(calls=[]), executor=workers)
    assert len(deaths) == 1
    assert sorted(results, key=lambda result: str(result[0])) == sorted(
        [(unit, None) for unit in sounds(20)], key=lambda result: str(result[0])
    )


def test_an_executor_that_breaks_whatever_it_gets_is_an_error():
    @contextmanager
    def workers():
        yield Fragile(lambda units: True)

    with pytest.raises(RuntimeError, match="workers in a row died; executor=serial may show why"):
        run(sounds(40), fails_on(calls=[]), executor=workers)
