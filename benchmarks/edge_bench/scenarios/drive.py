"""Driving several models fairly: a process for each, warmed up until steady, then blocks in random order, so that what
the machine does meanwhile is in all of them; memory in a pass of its own, which is not timed."""

from __future__ import annotations

import json
import random
import tempfile
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edge_bench.energy.meters import Meter
from edge_bench.measure import Runner, RunnerError
from edge_bench.protocol import Drive, RunnerPlan
from edge_bench.scenarios.causes import Block
from edge_bench.scenarios.machine import machine_state
from edge_bench.scenarios.steady import MOST_WINDOWS, steady
from edge_bench.scenarios.summary import DrivenSubject, LoadSettings, MemoryUse
from edge_contracts.errors import OperatorError
from edge_contracts.limits import MIB

Floats = NDArray[np.float64]
Progress = Callable[[int, int, str], None]
"""Told how many blocks of how many are over, and whose is next."""

WINDOW_S = 0.1
"""Length of a window while a model warms up, in seconds, a twentieth of the measuring time at most."""

MEMORY_S, POLL_S = 0.4, 0.005
"""How long a process answers in the memory pass, and how often its memory is read, in seconds."""


class RawFile:
    """The file that all latencies are streamed to, one JSON object a line and block, up to a size. What would go beyond
    is left out, and the last line says so."""

    def __init__(self, path: Path, limit: int) -> None:
        try:
            self._file = path.open("wb")
        except OSError as error:
            raise OperatorError(error.strerror or "cannot be written", subject=str(path)) from error
        self._left = limit
        self.full = False

    def __enter__(self) -> RawFile:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def write(self, subject: str, block: int, scenario: str, latencies: Floats) -> None:
        """Write one block, or that no more are written."""
        if self.full:
            return
        told = {"subject": subject, "block": block, "scenario": scenario, "ms": [round(v, 6) for v in latencies]}
        line = json.dumps(told).encode() + b"\n"
        if len(line) > self._left:
            self.full = True
            line = json.dumps({"full": True, "subject": subject, "block": block}).encode() + b"\n"
        self._left -= len(line)
        self._file.write(line)
        self._file.flush()


def drive_interleaved(
    plans: Mapping[str, RunnerPlan], how: LoadSettings, *, raw: RawFile | None = None, meter: Meter | None = None,
    progress: Progress = lambda _done, _all, _name: None,
) -> tuple[dict[str, DrivenSubject], dict[str, RunnerError]]:  # fmt: skip
    """Drive each model in blocks of random order; return what was measured, and why others failed."""
    failures: dict[str, RunnerError] = {}
    driven: dict[str, DrivenSubject] = {}
    chance = random.Random(how.seed)  # noqa: S311
    with ExitStack() as stack:
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="edgewright-"))) / "block"
        runners: dict[str, Runner] = {}
        for name, plan in plans.items():
            try:
                runner = stack.enter_context(Runner(plan))
                driven[name] = DrivenSubject(loaded=runner.loaded())
                _warm(runner, driven[name], how, scratch)
                runners[name] = runner
            except RunnerError as error:
                failures[name] = error
        blocks = 1 if how.driver == "loadgen" else how.blocks
        order = [(block, name) for block in range(blocks) for name in chance.sample(list(runners), len(runners))]
        for place, (block, name) in enumerate(order):
            if name in failures:
                continue
            progress(place, len(order), name)
            try:
                latencies = _block(runners[name], driven[name], how, (block, blocks, scratch), meter)
            except RunnerError as error:
                failures[name] = error
                continue
            if raw is not None:
                raw.write(name, block, how.scenario, latencies)
    return {name: one for name, one in driven.items() if name not in failures}, failures


def _warm(runner: Runner, one: DrivenSubject, how: LoadSettings, scratch: Path) -> None:
    """Let a model answer until its latency is steady, for as long as it will be measured at most."""
    window, start = min(WINDOW_S, how.seconds / 20), time.monotonic()
    medians: list[float] = []
    while len(medians) < MOST_WINDOWS and not steady(medians):
        order = Drive(scenario="single_stream", seconds=window, out=str(scratch), seed=len(medians))
        medians.append(float(np.median(runner.drive(order)[1])))
        if time.monotonic() - start > max(how.seconds, 2.0):
            break
    one.warmup_s, one.warm = time.monotonic() - start, steady(medians)


def _block(
    runner: Runner, one: DrivenSubject, how: LoadSettings, place: tuple[int, int, Path], meter: Meter | None
) -> Floats:
    block, blocks, scratch = place
    order = Drive(
        scenario=how.scenario,
        seconds=how.seconds / blocks,
        out=str(scratch),
        count=None if how.count is None else max(how.count // blocks, 1),
        rate=how.rate,
        deadline_ms=how.deadline_ms or 0.0,
        streams=how.streams,
        seed=how.seed + block,
        driver="loadgen" if how.driver == "loadgen" else "own",
    )
    before, energy = machine_state(), None if meter is None else meter.joules()
    done, latencies = runner.drive(order)
    joules = None if meter is None or energy is None else meter.joules() - energy
    facts = Block(
        queries=done.queries,
        samples=done.samples,
        wall_s=done.wall_s,
        cpu_s=done.cpu_s,
        major_faults=done.major_faults,
        minor_faults=done.minor_faults,
        given_way=done.given_way,
        joules=joules,
        before=before,
        after=machine_state(),
    )
    one.latencies.append(latencies)
    one.facts.append(facts)
    one.loadgen = dict(done.summary)
    return latencies


def memory_of(plan: RunnerPlan) -> MemoryUse | None:
    """Return the memory of a process that loads the model and answers; None where it fails or /proc does not tell."""
    with tempfile.TemporaryDirectory(prefix="edgewright-") as work, Runner(plan) as runner:
        try:
            loaded = runner.loaded()
            seen: list[float] = []
            stop = threading.Event()
            watch = threading.Thread(target=_watch, args=(runner.pid, stop, seen))
            watch.start()
            try:
                runner.drive(Drive(scenario="single_stream", seconds=MEMORY_S, out=str(Path(work) / "block")))
            finally:
                stop.set()
                watch.join()
        except RunnerError:
            return None
    if not seen:
        return None
    average = max(float(np.mean(seen)) - loaded.base_mb, 0.0)
    return MemoryUse(peak_mb=max(loaded.peak_memory_mb, max(seen) - loaded.base_mb), average_mb=average)


def _watch(pid: int, stop: threading.Event, seen: list[float]) -> None:
    path = Path(f"/proc/{pid}/status")
    while not stop.wait(POLL_S):
        try:
            text = path.read_text(encoding="ascii")
        except OSError:
            return
        line = next((line for line in text.splitlines() if line.startswith("VmRSS:")), None)
        if line is not None:
            seen.append(int(line.split()[1]) * 1024 / MIB)
