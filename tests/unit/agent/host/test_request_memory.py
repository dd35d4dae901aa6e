"""What a request is reckoned to need, and what becomes of one that does not fit."""

import mmap

import pytest

from edge_agent.errors import RequestMemoryError
from edge_agent.host import request_memory
from edge_agent.host.request_memory import RequestMemory, growth_left_mb, peak_of
from edge_agent.ipc.in_flight import InFlightCounters

MIB = 2**20


@pytest.fixture
def left(monkeypatch):
    """What the process may still grow by; tests change it."""
    box = {"mb": 100.0}
    monkeypatch.setattr(request_memory, "growth_left_mb", lambda: box["mb"])
    return box


def learned(limit=None, watcher=None):
    """A model that takes ten times its input: a MiB was measured to take 9 more than a tenth of it."""
    memory = RequestMemory(watcher, limit)
    memory.learn(MIB, MIB // 10, 9.0)
    return memory


def test_a_small_request_is_not_looked_at(left):
    memory = learned()
    left["mb"] = 0.0
    assert memory.begin(MIB // 10, 1) is False


def test_one_that_never_fits_is_refused_with_the_rows_that_do(left):
    memory = learned()
    assert memory.begin(3 * MIB, 30)  # 60 MB, and 6 of its own; of 100 some are kept
    with pytest.raises(RequestMemoryError, match=r"40 rows of 4\.0 MiB together: .* send at most 30 rows") as refused:
        memory.begin(4 * MIB, 40)
    assert refused.value.reason == "request-memory"


def test_one_that_would_fit_at_first_and_not_now_may_come_again(left):
    memory = learned()
    left["mb"] = 50.0
    with pytest.raises(MemoryError):
        memory.begin(3 * MIB, 30)


def test_what_was_answered_is_not_refused_for_good(left):
    memory = learned()
    memory.end(8 * MIB)
    left["mb"] = 90.0
    with pytest.raises(MemoryError):
        memory.begin(8 * MIB, 80)


def test_a_size_that_has_ended_a_worker_is_refused(left):
    memory = learned(limit=2 * MIB)
    assert memory.begin(2 * MIB - 1, 20)
    with pytest.raises(RequestMemoryError, match="ended a worker"):
        memory.begin(2 * MIB, 20)


def test_a_large_one_leaves_its_size_behind_while_it_runs(left):
    flight = InFlightCounters.create()
    memory = learned(watcher=flight)
    assert memory.begin(2 * MIB, 20)
    assert (flight.running_bytes, flight.proved_bytes) == (2 * MIB, 0)
    memory.end(2 * MIB)
    assert (flight.running_bytes, flight.proved_bytes) == (0, 2 * MIB)
    assert memory.begin(2 * MIB, 20)
    memory.leave()
    assert (flight.running_bytes, flight.proved_bytes) == (0, 2 * MIB)
    flight.close()


def test_where_nothing_was_measured_only_the_size_is_told(left):
    flight = InFlightCounters.create()
    memory = RequestMemory(flight)
    left["mb"] = 0.0
    assert memory.begin(1000, 1)
    assert flight.running_bytes == 1000
    flight.close()


def test_the_peak_of_a_run_is_what_it_touched():
    def touch():
        with mmap.mmap(-1, 32 * MIB) as fresh:  # what malloc gives may have been resident before
            for offset in range(0, 32 * MIB, mmap.PAGESIZE):
                fresh[offset] = 1

    assert peak_of(touch) == pytest.approx(32, abs=6)
    assert growth_left_mb() > 0
