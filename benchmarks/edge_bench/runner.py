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
from typing import Any, BinaryIO

import msgspec
import numpy as np
from numpy.typing import NDArray

from edge_agent.engines.registry import engine_for
from edge_agent.errors import EngineError
from edge_agent.inference.sample_runs import SampleRuns
from edge_agent.offline.random_inputs import Shapes, made_up, sizes_of
from edge_agent.ports import EngineSettings, Session, TensorInfo
from edge_bench.children import die_with
from edge_bench.protocol import (
    Answer,
    Drive,
    Driven,
    FedInput,
    Loaded,
    Measure,
    Opened,
    Predict,
    Predicted,
    Profile,
    RunnerFailed,
    RunnerPlan,
    Timed,
    parse_order,
)
from edge_contracts.errors import EdgewrightError
from edge_contracts.limits import MIB
from edge_contracts.manifest import Input, SampleMapping

Array = NDArray[Any]
Feeds = dict[str, Array]

WARM_INPUTS = 16
"""Distinct inputs in the timing loop: enough that no result is cached, few enough to stay out of the memory figure."""

MOST_INPUTS, FEED_BYTES = 1024, 32 * MIB
"""Distinct inputs of a scenario at most, and what they may weigh."""

MAX_ROUND_SAMPLES = 5000
"""Latencies of one round: more says nothing new and makes the answer's line long."""


class LoadedSubject:
    """A loaded model and how samples become its feeds."""

    def __init__(self, session: Session, plan: RunnerPlan) -> None:
        self.session = session
        self._inputs = plan.inputs or (FedInput(mapping=plan.mapping),)

    def runs(self, samples: Path, count: int | None = None) -> SampleRuns:
        """Return the first samples of a file, or of a folder with a file for each input. Raises EngineError."""
        infos = self._bound()
        arrays: list[Array] = []
        tensors = []
        for index, (fed, info) in enumerate(zip(self._inputs, infos, strict=True)):
            array = np.empty(0)
            if fed.constant is None and fed.feedback is None:
                path = samples / f"{index}.npy" if samples.is_dir() else samples
                array = np.load(path, mmap_mode="r", allow_pickle=False)[:count]
            arrays.append(array)
            tensors.append(_input_of(info, fed, array.dtype.name))
        return SampleRuns(tensors, [info.name for info in infos], arrays)

    def _bound(self) -> list[TensorInfo]:
        """Return what the engine declares of each input: by name where all are known, else by position."""
        declared = list(self.session.inputs)
        by_name = {info.name: info for info in declared}
        if all(fed.name in by_name for fed in self._inputs):
            return [by_name[str(fed.name)] for fed in self._inputs]
        if self._inputs[0].name is not None and len(declared) != len(self._inputs):
            raise EngineError(f"the model has {len(declared)} inputs, {len(self._inputs)} are fed", subject="inputs")
        return declared[: len(self._inputs)]

    def random_feeds(self, count: int, shapes: Shapes) -> Iterator[Feeds]:
        """Yield random feeds of the declared sizes, those left open as given. Raises OperatorError."""
        generator, sizes = np.random.default_rng(0), sizes_of(self.session.inputs, shapes)
        for _ in range(count):
            yield {info.name: made_up(info, sizes[info.name], generator) for info in self.session.inputs}


def _input_of(info: TensorInfo, fed: FedInput, dtype: str) -> Input:
    given = fed.mapping if fed.mapping is not None else msgspec.convert({"dtype": dtype}, SampleMapping)
    fields = {
        "name": info.name, "dtype": info.dtype, "shape": info.shape, "sample": given, "constant": fed.constant,
        "feedback": fed.feedback,
    }  # fmt: skip
    return msgspec.convert(fields, Input, from_attributes=True)


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
        elif isinstance(order, Drive):
            feeds = feeds if len(feeds) > WARM_INPUTS else _more_feeds(subject, plan, feeds)
            _say(answers, _drive(subject.session, feeds, order))
        elif isinstance(order, Profile):
            from edge_bench.scenarios.operators import profiled

            _say(answers, profiled(plan, feeds))
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
    subject = LoadedSubject(session, plan)
    feeds, prepare_ms = _first_feeds(subject, plan)
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
        base_mb=before / MIB,
        prepare_ms=prepare_ms,
        fed=tuple(_described(name, array) for name, array in feeds[0].items()),
    )
    return subject, feeds, loaded


def _first_feeds(subject: LoadedSubject, plan: RunnerPlan) -> tuple[list[Feeds], float]:
    """Return the first inputs, and the milliseconds that mapping one of them took in the median."""
    if not plan.samples:
        return list(subject.random_feeds(WARM_INPUTS, plan.shapes)), 0.0
    runs = subject.runs(Path(plan.samples), WARM_INPUTS)
    feeds, took = [], []
    for index in range(runs.count):
        start = time.perf_counter_ns()
        feeds.append(runs.feeds(index))
        took.append((time.perf_counter_ns() - start) / 1e6)
    return feeds, float(np.median(took)) if took else 0.0


def _time(session: Session, feeds: list[Feeds], seconds: float) -> list[float]:
    latencies: list[float] = []
    end = time.perf_counter() + seconds
    while time.perf_counter() < end and len(latencies) < MAX_ROUND_SAMPLES:
        feed = feeds[len(latencies) % len(feeds)]
        start = time.perf_counter_ns()
        session.run(feed)
        latencies.append((time.perf_counter_ns() - start) / 1e6)
    return latencies


def _more_feeds(subject: LoadedSubject, plan: RunnerPlan, few: list[Feeds]) -> list[Feeds]:
    """Return as many inputs as say what a device sees, and as fit into `FEED_BYTES`."""
    weight = max(sum(array.nbytes for array in few[0].values()), 1)
    count = min(MOST_INPUTS, max(FEED_BYTES // weight, len(few)))
    if not plan.samples:
        return list(subject.random_feeds(count, plan.shapes))
    runs = subject.runs(Path(plan.samples), count)
    return [runs.feeds(index) for index in range(runs.count)]


def _drive(session: Session, feeds: list[Feeds], order: Drive) -> Driven:
    if order.driver == "loadgen":
        from edge_bench.scenarios.loadgen import drive_by_loadgen

        return drive_by_loadgen(session, feeds, order)
    from edge_bench.scenarios.load import drive

    return drive(session, feeds, order)


def _predict(subject: LoadedSubject, order: Predict) -> int:
    runs = subject.runs(Path(order.samples), order.count)
    names = [info.name for info in subject.session.outputs]
    answers = runs.answers(subject.session, names, names)
    arrays = {f"output_{index}": array for index, array in enumerate(answers)}
    np.savez(order.out, allow_pickle=False, **arrays)
    return runs.count


def _say(answers: BinaryIO, message: Answer) -> None:
    answers.write(msgspec.json.encode(message) + b"\n")
    answers.flush()


def main(arguments: list[str]) -> int:
    """Run the plan: the arguments are the plan as JSON and the parent's process id. Native code may print: only our own
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
