"""Two minutes of the soak in `benchmarks/agent/soak.py`, with everything that happens in the hour of the benchmark."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest

from benchmarks.agent.soak import soak
from benchmarks.agent.soak_memory import Watch, falls, growth, lives, slope

CLIENTS = 4
GROWTH_MB_PER_H = 60.0
"""One megabyte a minute. The benchmark's bound is a tenth of a megabyte an hour, which two minutes cannot tell: the
first requests of a process grow it by a megabyte. This bound finds an answer that is kept for each request."""


@pytest.mark.skipif(not os.environ.get("CI"), reason="takes two and a half minutes; runs in CI")
@pytest.mark.timeout(400)
def test_two_minutes_of_swaps_broker_restarts_and_crashes(tmp_path: Path) -> None:
    report = asyncio.run(soak(tmp_path, 120.0, events=8, clients=CLIENTS, window_s=2.0))
    summary = report["summary"]
    assert summary["events"] == {"swap": 2, "broker": 4, "crash": 2}
    assert summary["wrong"] == 0
    assert summary["lost"] <= 2 * CLIENTS, "more than was on the wire when workers were killed"
    assert summary["steady"]["requests"] > 0
    assert summary["steady"]["problems"] == {}, "nothing happened to this slot's worker"
    assert summary["gaps"] == []
    assert summary["dropped"] == 0
    assert summary["supervisor_mb_per_h"] < GROWTH_MB_PER_H
    assert summary["steady_mb_per_h"] < GROWTH_MB_PER_H
    assert len(summary["lives"]) >= 2


def test_a_step_of_one_life_is_its_growth_and_a_step_between_lives_is_their_level() -> None:
    first = [(float(t), 90.0 + t) for t in range(10)] + [(float(t), 100.0) for t in range(10, 20)] + [(20.0, 100.5)]
    second = [(float(t), 120.0) for t in range(30, 60)]
    found = lives([first, second, [(70.0, 1.0), (71.0, 1.0)]], warm_s=10.0)
    assert [(life.lasted_s, life.warm_mb, life.end_mb) for life in found] == [
        (10.0, 100.0, 100.5),
        (19.0, 120.0, 120.0),
    ]


def test_pages_that_the_kernel_took_are_no_growth_and_no_level() -> None:
    robbed = [(0.0, 66.0), (5.0, 66.5), (10.0, 66.4), (15.0, 40.0), (20.0, 42.0)]
    assert falls(robbed) == [15.0]
    assert lives([robbed], warm_s=0.0) == []


def test_a_soak_in_which_no_worker_lives_long_enough_has_its_figures_all_the_same() -> None:
    watch = Watch(os.getpid(), every_s=1.0)
    watch.supervisor = [(float(t), 25.0) for t in range(0, 1200, 10)]
    watch.workers = {1: [(float(t), 63.0) for t in range(0, 1200, 10)], 2: [(0.0, 60.0), (5.0, 60.5)]}
    found = growth(watch, steady=1, lasted=1200.0)
    assert (found["supervisor_mb_per_h"], found["workers"], found["lives"]) == (0.0, 1, [])


def test_the_slope_is_that_of_the_samples() -> None:
    assert slope([(float(t), 100.0 + 0.5 * t) for t in range(10)]) == pytest.approx(0.5)
    assert slope([(50.0, 1.0)]) == 0.0
