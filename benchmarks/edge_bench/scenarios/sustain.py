"""What a model does when it runs without a pause: windows of latency beside temperature, clock and throttling, and how
much of its first speed is left at the end."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from edge_bench.measure import Runner
from edge_bench.protocol import Drive, RunnerPlan
from edge_bench.scenarios.machine import MachineState, machine_state
from edge_contracts.codec import StrictRecord

WINDOWS = 60
SHORTEST_S, LONGEST_S = 0.25, 10.0
"""Windows of a sustained run are a sixtieth of it, within these bounds, in seconds."""

END = 0.2
"""Share of the run at its end that is compared with the first `START_S` seconds, or the first window."""

START_S = 5.0


class SustainedWindow(StrictRecord, frozen=True, kw_only=True):
    """One window: seconds since the start, median latency in milliseconds, samples answered a second, degrees Celsius,
    MHz, and whether cores were throttled in it; None where the machine does not tell."""

    at_s: float
    p50_ms: float
    frames_per_s: float
    temperature_c: float | None
    frequency_mhz: float | None
    throttled: bool | None


class Sustained(StrictRecord, frozen=True, kw_only=True):
    """A run without a pause. `ratio` is the speed (1 / median latency) in its last fifth over that in its first
    seconds: 1 keeps its speed, 0.6 loses four tenths of it."""

    seconds: float
    ratio: float
    windows: tuple[SustainedWindow, ...]


def sustain(plan: RunnerPlan, seconds: float, tell: Callable[[float], None] = lambda _share: None) -> Sustained:
    """Run a model for `seconds` without a pause. Raises RunnerError."""
    length = min(max(seconds / WINDOWS, SHORTEST_S), LONGEST_S)
    windows: list[SustainedWindow] = []
    with tempfile.TemporaryDirectory(prefix="edgewright-") as work, Runner(plan) as runner:
        runner.loaded()
        start = time.monotonic()
        before = machine_state()
        while (gone := time.monotonic() - start) < seconds or not windows:
            tell(gone / seconds)
            order = Drive(scenario="single_stream", seconds=length, out=str(Path(work) / "block"), seed=len(windows))
            done, latencies = runner.drive(order)
            after = machine_state()
            windows.append(_window(gone, done.samples / done.wall_s, float(np.median(latencies)), (before, after)))
            before = after
    return Sustained(seconds=time.monotonic() - start, ratio=sustained_ratio(windows), windows=tuple(windows))


def _window(at_s: float, frames: float, p50: float, around: tuple[MachineState, MachineState]) -> SustainedWindow:
    before, after = around
    throttled: bool | None = after.throttled
    if after.throttle_count > before.throttle_count:
        throttled = True
    return SustainedWindow(
        at_s=at_s, p50_ms=p50, frames_per_s=frames, temperature_c=after.temperature_c,
        frequency_mhz=after.frequency_mhz, throttled=throttled,
    )  # fmt: skip


def sustained_ratio(windows: Sequence[SustainedWindow]) -> float:
    """Return the speed at the end over that at the start, by medians of latencies: what other programs take for a
    moment is no loss of speed."""
    end = windows[-max(1, round(END * len(windows))) :]
    start = [one for one in windows if one.at_s < min(START_S, windows[-1].at_s * END)] or windows[:1]
    last = float(np.median([one.p50_ms for one in end]))
    return float(np.median([one.p50_ms for one in start])) / last if last else 0.0
