"""The measuring process: loads one model on the agent's own engine, then times it or answers samples as ordered.

Run as `python -m edge_bench.runner <RunnerPlan JSON> <starter's process id>`. It imports nothing but numpy and the
engine, so its memory is what a device's worker would need for the model. A crash here costs one measurement; the other
end is `edge_bench.measure`.
"""

from __future__ import annotations

import os
import resource
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import msgspec
import numpy as np
from numpy.typing import NDArray

from edge_agent.engines.registry import engine_for
from edge_agent.inference.samples import to_model
from edge_agent.offline.random_inputs import Shapes, made_up, sizes_of
from edge_agent.ports import EngineSettings, Session, TensorInfo
from edge_bench.children import die_with
from edge_bench.protocol import (
    Loaded,
    Measure,
    Opened,
    Predict,
    Predicted,
    RunnerFailed,
    RunnerPlan,
    Timed,
    parse_order,
)
from edge_contracts.errors import EdgewrightError
from edge_contracts.limits import MIB
from edge_contracts.manifest import Input, SampleMapping

Array = NDArray[np.generic]
Feeds = dict[str, Array]

WARM_INPUTS = 16
"""Distinct inputs in the timing loop: enough that no result is cached, few enough to stay out of the memory figure."""

MAX_ROUND_SAMPLES = 5000
"""Latencies of one round: more says nothing new and makes the answer's line long."""


class LoadedSubject:
    """A loaded model and how samples become its feeds."""

    def __init__(self, session: Session, mapping: SampleMapping | None) -> None:
        self.session = session
        self._mapping = mapping

    def feeds(self, samples: Array) -> Iterator[Feeds]:
        """Yield the feeds of each sample, batch of one. Models with several inputs cannot be fed from samples."""
        info = self.session.inputs[0]
        spec = _input_of(info, self._mapping, samples.dtype.name)
        for index in range(samples.shape[0]):
            sample = np.ascontiguousarray(samples[index : index + 1])
            yield {info.name: to_model(sample, spec)}

    def random_feeds(self, count: int, shapes: Shapes) -> Iterator[Feeds]:
        """Yield random feeds of the declared sizes, those left open as given. Raises OperatorError."""
        generator, sizes = np.random.default_rng(0), sizes_of(self.session.inputs, shapes)
        for _ in range(count):
            yield {info.name: made_up(info, sizes[info.name], generator) for info in self.session.inputs}


def _input_of(info: TensorInfo, mapping: SampleMapping | None, dtype: str) -> Input:
    chosen = mapping if mapping is not None else msgspec.convert({"dtype": dtype}, SampleMapping)
    return msgspec.convert(
        {"name": info.name, "dtype": info.dtype, "shape": info.shape, "sample": chosen}, Input, from_attributes=True
    )


def _described(name: str, array: Array) -> TensorInfo:
    return TensorInfo(name=name, dtype=array.dtype.name, shape=array.shape)


def peak_memory() -> int:
    """Return the high-water mark of this process's resident memory in bytes."""
    for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def forget_peak() -> None:
    """Start a new high-water mark, so that what importing took for a moment is not counted as the model's."""
    try:
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    except OSError:
        return


def serve(plan: RunnerPlan, orders: BinaryIO, answers: BinaryIO) -> None:
    """Load, say so, and follow orders until the input ends."""
    if plan.memory_limit_mb is not None:
        limit = int(plan.memory_limit_mb * MIB)
        resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
    subject, feeds, loaded = _load(plan, answers)
    _say(answers, loaded)
    for line in orders:
        order = parse_order(line)
        if isinstance(order, Measure):
            _say(answers, Timed(latencies_ms=tuple(_time(subject.session, feeds, order.seconds))))
        else:
            _say(answers, Predicted(count=_predict(subject, order)))


def _load(plan: RunnerPlan, answers: BinaryIO) -> tuple[LoadedSubject, list[Feeds], Loaded]:
    engine = engine_for(plan.format)
    version = engine.version
    forget_peak()
    before = peak_memory()
    start = time.perf_counter_ns()
    session = engine.load(Path(plan.model), EngineSettings(threads=plan.threads, optimize=plan.optimize))
    load_ns = time.perf_counter_ns() - start
    _say(answers, Opened(inputs=tuple(session.inputs), outputs=tuple(session.outputs)))
    subject = LoadedSubject(session, plan.mapping)
    if plan.samples:
        feeds = list(subject.feeds(np.load(plan.samples, mmap_mode="r", allow_pickle=False)[:WARM_INPUTS]))
    else:
        feeds = list(subject.random_feeds(WARM_INPUTS, plan.shapes))
    start = time.perf_counter_ns()
    session.run(feeds[0])
    first_ns = time.perf_counter_ns() - start
    for feed in feeds[1:4]:
        session.run(feed)
    loaded = Loaded(
        load_ms=load_ns / 1e6,
        first_ms=first_ns / 1e6,
        peak_memory_mb=max(peak_memory() - before, 1) / MIB,
        engine=engine.name,
        engine_version=version,
        fed=tuple(_described(name, array) for name, array in feeds[0].items()),
    )
    return subject, feeds, loaded


def _time(session: Session, feeds: list[Feeds], seconds: float) -> list[float]:
    latencies: list[float] = []
    end = time.perf_counter() + seconds
    while time.perf_counter() < end and len(latencies) < MAX_ROUND_SAMPLES:
        feed = feeds[len(latencies) % len(feeds)]
        start = time.perf_counter_ns()
        session.run(feed)
        latencies.append((time.perf_counter_ns() - start) / 1e6)
    return latencies


def _predict(subject: LoadedSubject, order: Predict) -> int:
    samples = np.load(order.samples, mmap_mode="r", allow_pickle=False)[: order.count]
    names = [info.name for info in subject.session.outputs]
    rows: list[list[Array]] = [[] for _ in names]
    for feed in subject.feeds(samples):
        answer = subject.session.run(feed)
        for row, name in zip(rows, names, strict=True):
            row.append(answer[name])
    arrays = {f"output_{index}": np.concatenate(row) for index, row in enumerate(rows)}
    np.savez(order.out, allow_pickle=False, **arrays)
    return int(samples.shape[0])


def _say(answers: BinaryIO, message: Opened | Loaded | Timed | Predicted | RunnerFailed) -> None:
    answers.write(msgspec.json.encode(message) + b"\n")
    answers.flush()


def main(arguments: list[str]) -> int:
    """Run the plan given as JSON, for whoever has the process id after it. Native code may print: only our own
    descriptor carries answers."""
    die_with(arguments[1])
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    plan = msgspec.json.decode(arguments[0], type=RunnerPlan)
    try:
        serve(plan, sys.stdin.buffer, answers)
    except EdgewrightError as error:
        _say(answers, RunnerFailed(reason=error.reason, text=str(error), hint=error.hint))
        return error.exit_code
    except MemoryError as error:
        _say(answers, RunnerFailed(reason="memory", text=str(error) or "out of memory"))
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
