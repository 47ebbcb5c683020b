"""specgan.training.threads: as many threads as pay."""

import pytest
import torch

from specgan.training import threads


@pytest.fixture
def machine(monkeypatch):
    """A machine whose clock runs by how long a step takes with each number of threads."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)

    def of(durations_s, *, current):
        state = {"threads": current, "time_s": 0.0}

        def clock():
            state["time_s"] += durations_s[state["threads"]]
            return state["time_s"]

        monkeypatch.setattr(torch, "set_num_threads", lambda n: state.update(threads=n))
        monkeypatch.setattr(torch, "get_num_threads", lambda: state["threads"])
        monkeypatch.setattr(threads.time, "perf_counter", clock)
        monkeypatch.setattr(threads, "_MOST", current)
        return state

    return of


@pytest.mark.parametrize(
    ("durations_s", "fastest"),
    [
        ({1: 1.0, 2: 0.6}, 2),
        ({1: 1.0, 2: 1.3}, 1),  # another program uses a core
        ({1: 1.0, 2: 0.95}, 1),  # the second thread is hardly worth its core
        ({1: 1.0, 2: 0.6, 4: 0.5, 6: 0.48}, 4),
        ({1: 1.0, 2: 0.6, 4: 0.35, 6: 0.25}, 6),
        ({1: 1.0}, 1),
    ],
)
def test_the_fastest_number_of_threads_is_used(machine, monkeypatch, durations_s, fastest):
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):
        monkeypatch.delenv(name, raising=False)
    state = machine(durations_s, current=max(durations_s))
    for _ in range(2):  # as the runs of a sweep in one process
        threads.set_threads(None)
        assert state["threads"] == fastest
        state["threads"] = 1


@pytest.mark.parametrize("name", ["OMP_NUM_THREADS", "MKL_NUM_THREADS"])
def test_what_is_said_holds(machine, monkeypatch, name):
    monkeypatch.setenv(name, "2")
    state = machine({1: 1.0, 2: 5.0, 3: 1.0}, current=2)
    threads.set_threads(None)
    assert state["threads"] == 2
    threads.set_threads(3)
    assert state["threads"] == 3
    for impossible in (0, "two"):
        with pytest.raises(ValueError, match=f"threads is {impossible}; a whole number, at least 1"):
            threads.set_threads(impossible)
