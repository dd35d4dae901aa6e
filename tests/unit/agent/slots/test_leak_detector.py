"""What counts as a leak: memory whose floor rises window after window, and nothing else."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import pytest

from edge_agent.supervisor.slots.leak_detector import LeakState, grow


def leaks(readings: Iterable[float], every_s: float = 10.0) -> bool:
    """Return whether these readings, in windows of a minute, are a leak of 64 MB."""
    growth = LeakState(leak_mb=64.0, window_s=60.0)
    found = False
    for index, memory_mb in enumerate(readings):
        growth = grow(growth, memory_mb, index * every_s)
        found = found or growth.leaks
    return found


@pytest.mark.parametrize("mb_a_minute", [0.1, 1.0, 10.0, 500.0])
def test_steady_growth_is_a_leak_however_slow(mb_a_minute: float) -> None:
    minutes = int(max(64 / mb_a_minute, 8)) + 4
    assert leaks(100 + mb_a_minute * index / 6 for index in range(minutes * 6))


@pytest.mark.parametrize(
    "memory",
    [
        lambda _: 100.0,
        lambda index: 100.0 + 300.0 * (index > 60),  # another rung was loaded
        lambda index: 100.0 + 40.0 * min(index // 30, 5),  # five steps of warming up
        lambda index: 100.0 + 200.0 * (index % 6 > 0),  # what requests hold for a moment
        lambda index: 100.0 + 30.0 * (index // 6 % 2),  # comes and goes
        lambda index: 100.0 + 50.0 * (1 - 0.99**index),  # levels off below a leak
    ],
    ids=["level", "step", "steps", "peaks", "waves", "levels off"],
)
def test_steps_peaks_and_waves_are_no_leak(memory: Callable[[int], float]) -> None:
    assert not leaks(memory(index) for index in range(6000))


def test_a_leak_is_seen_no_sooner_than_in_eight_windows() -> None:
    assert not leaks(100.0 * 2**index for index in range(8 * 6))
