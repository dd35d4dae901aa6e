"""Putting load on a simulated session: what counts as a query, when it ends, what is written."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edge_bench.protocol import Drive
from edge_bench.scenarios.drive import RawFile
from edge_bench.scenarios.load import drive


class Counting:
    """A session that takes its time by counting, and remembers what it was fed."""

    inputs = outputs = ()

    def __init__(self, work: int = 50) -> None:
        self.fed: list[int] = []
        self._work = work

    def run(self, feeds: Any) -> dict[str, Any]:
        self.fed.append(feeds["x"])
        sum(range(self._work))
        return {}

    def bind(self, feeds: Any, answer: Any) -> Any:
        raise NotImplementedError

    def close(self) -> None:
        return


FEEDS = [{"x": number} for number in range(10)]


def test_so_many_queries_of_so_many_samples_in_changing_order(tmp_path: Path) -> None:
    session, out = Counting(), tmp_path / "block"
    done = drive(session, FEEDS, Drive(scenario="multi_stream", seconds=60.0, count=5, streams=4, out=str(out)))
    assert (done.queries, done.samples) == (5, 20)
    assert np.fromfile(out).shape == (5,)
    assert sorted(session.fed[:10]) == list(range(10))
    assert session.fed[:10] != session.fed[10:]


@pytest.mark.parametrize("scenario", ["single_stream", "offline"])
def test_a_block_ends_after_its_time(scenario: Any, tmp_path: Path) -> None:
    session = Counting()
    done = drive(session, FEEDS, Drive(scenario=scenario, seconds=0.02, out=str(tmp_path / "block")))
    assert done.queries == done.samples == len(session.fed) > 1
    assert done.wall_s >= 0.02


def test_a_slow_model_answers_once_all_the_same(tmp_path: Path) -> None:
    done = drive(Counting(200_000), FEEDS, Drive(scenario="single_stream", seconds=1e-9, out=str(tmp_path / "b")))
    assert done.queries == 1


def test_a_server_that_is_too_slow_makes_queries_wait(tmp_path: Path) -> None:
    work = 20_000
    alone = tmp_path / "alone"
    drive(Counting(work), FEEDS, Drive(scenario="single_stream", seconds=60.0, count=30, out=str(alone)))
    one = float(np.median(np.fromfile(alone)))
    out = tmp_path / "server"
    order = Drive(scenario="server", seconds=60.0, count=100, rate=4e3 / one, out=str(out), seed=1)
    drive(Counting(work), FEEDS, order)
    waited = np.fromfile(out)
    assert waited.size == 100
    assert waited[-1] > 20 * one  # came four times as fast as they were answered


def test_the_raw_file_holds_blocks_until_its_size_and_says_so(tmp_path: Path) -> None:
    path = tmp_path / "raw"
    with RawFile(path, 300) as raw:
        for number in range(5):
            raw.write("m", number, "single_stream", np.full(10, 0.125))
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert lines[0] == {"subject": "m", "block": 0, "scenario": "single_stream", "ms": [0.125] * 10}
    assert lines[-1]["full"] is True
    assert path.stat().st_size < 400
    assert len(lines) < 5
