"""Measuring several model files fairly: each in its own process, timed in turns so that all see the same machine.

Here: starting runners, asking them, and interleaving rounds. What runs inside is `edge_bench.runner`; what the
numbers say is `edge_bench.stats`.
"""

from __future__ import annotations

import math
import os
import select
import subprocess
import tempfile
import time
from collections.abc import Collection, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

import msgspec
import numpy as np
from numpy.typing import NDArray

from edge_bench.children import Starter, start
from edge_bench.protocol import (
    Answer,
    Drive,
    Driven,
    Loaded,
    Measure,
    Opened,
    Order,
    Predict,
    Predicted,
    Profile,
    Profiled,
    RunnerFailed,
    RunnerPlan,
    Timed,
    parse_answer,
)
from edge_bench.stats import LatencySummary, summarize
from edge_contracts.errors import BundleError, OperatorError

ROUNDS = 7
"""Turns of each model: the median of seven shrugs off three disturbed ones."""

LOAD_TIMEOUT_S = 120.0
"""Loading the largest model the profiles allow takes seconds; two minutes means it hangs."""


class RunnerError(BundleError):
    """The measuring process refused, crashed or ran out of time or memory with this model."""

    reason = "runner"


class ModelRefusedError(RunnerError):
    """The engine itself refused the model, or could not run it on what it was fed."""


@dataclass(frozen=True, kw_only=True)
class Measurement:
    """What was measured of one model file; `rounds` are the raw latencies in milliseconds."""

    loaded: Loaded
    rounds: list[NDArray[np.float64]]
    latency: LatencySummary


_HINTS = {
    "engine": "check that the file is complete, matches its suffix and uses operators this engine supports",
    "engine-memory": "not enough memory, or the memory limit is too low",
}


class Runner:
    """The harness's end of one measuring process; a context manager that ends it. `patience_s` bounds loading,
    `starter` starts the process. The thread that makes one keeps it: the process ends with that thread."""

    def __init__(self, plan: RunnerPlan, *, patience_s: float = LOAD_TIMEOUT_S, starter: Starter = start) -> None:
        self._name = Path(plan.model).name
        self._patience_s = patience_s
        self._log = tempfile.TemporaryFile()  # noqa: SIM115 - closed in __exit__
        self._process = starter(
            ["edge_bench.runner", msgspec.json.encode(plan).decode()],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
        )
        self._pending = b""
        self._opened: Opened | None = None
        self._loaded: Loaded | None = None

    def __enter__(self) -> Runner:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.kill()
        self._process.communicate()
        self._log.close()

    def opened(self) -> Opened:
        """Wait until the engine has taken the model. Raises RunnerError when it does not."""
        if self._opened is None:
            answer = self._answer(self._patience_s)
            assert isinstance(answer, Opened)
            self._opened = answer
        return self._opened

    def loaded(self) -> Loaded:
        """Wait until the model has answered once. Raises RunnerError when it cannot."""
        self.opened()
        if self._loaded is None:
            answer = self._answer(self._patience_s)
            assert isinstance(answer, Loaded)
            self._loaded = answer
        return self._loaded

    def measure(self, seconds: float) -> NDArray[np.float64]:
        """Return latencies in milliseconds of about `seconds` of inferences. Raises RunnerError."""
        self.loaded()
        answer = self._ask(Measure(seconds=seconds), seconds + LOAD_TIMEOUT_S)
        assert isinstance(answer, Timed)
        return np.asarray(answer.latencies_ms, dtype=np.float64)

    def drive(self, order: Drive) -> tuple[Driven, NDArray[np.float64]]:
        """Put load on the model; return what happened and the latencies of the queries in milliseconds. Raises
        RunnerError."""
        self.loaded()
        answer = self._ask(order, order.seconds * 1.5 + LOAD_TIMEOUT_S)
        assert isinstance(answer, Driven)
        return answer, np.fromfile(order.out, dtype=np.float64)

    def profile(self) -> Profiled:
        """Return what operators cost. Raises RunnerError."""
        self.loaded()
        answer = self._ask(Profile(), LOAD_TIMEOUT_S)
        assert isinstance(answer, Profiled)
        return answer

    @property
    def pid(self) -> int:
        """The measuring process."""
        return self._process.pid

    def predict(self, samples: Path, out: Path, *, count: int | None = None, timeout_s: float = 600.0) -> None:
        """Write the answers to the samples into `out`. Raises RunnerError."""
        self.loaded()
        answer = self._ask(Predict(samples=str(samples), out=str(out), count=count), timeout_s)
        assert isinstance(answer, Predicted)

    def _ask(self, order: Order, timeout_s: float) -> Answer:
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(msgspec.json.encode(order) + b"\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            raise self._ended() from None
        return self._answer(timeout_s)

    def _answer(self, timeout_s: float) -> Answer:
        answer = parse_answer(self._line(time.monotonic() + timeout_s))
        if isinstance(answer, RunnerFailed):
            if answer.reason == OperatorError.reason:
                raise OperatorError(answer.text, hint=answer.hint)
            kind = ModelRefusedError if answer.reason == "engine" else RunnerError
            raise kind(answer.text, hint=answer.hint or _HINTS.get(answer.reason))
        return answer

    def _line(self, deadline: float) -> bytes:
        assert self._process.stdout is not None
        descriptor = self._process.stdout.fileno()
        while b"\n" not in self._pending:
            ready, _, _ = select.select([descriptor], [], [], max(0.0, deadline - time.monotonic()))
            if not ready:
                raise RunnerError("timed out", subject=self._name)
            data = os.read(descriptor, 1 << 16)
            if not data:
                raise self._ended()
            self._pending += data
        line, _, self._pending = self._pending.partition(b"\n")
        return line

    def _ended(self) -> RunnerError:
        code = self._process.wait(timeout=10)
        self._log.seek(0, os.SEEK_END)
        self._log.seek(max(0, self._log.tell() - 2000))
        words = self._log.read().decode(errors="replace").strip().splitlines()
        last = words[-1] if words else "no output"
        return RunnerError(f"the measuring process exited with code {code}: {last[:400]}", subject=self._name)


def measure_interleaved(
    plans: Mapping[str, RunnerPlan],
    *,
    seconds: float,
    rounds: int = ROUNDS,
    deadline: float = math.inf,
    needed: Collection[str] = (),
) -> tuple[dict[str, Measurement], dict[str, RunnerError]]:
    """Measure every plan, `seconds` in all for each, in `rounds` turns whose order rotates.

    Loads one after another so that load times are not measured against each other. What fails is in the second
    result, by the same key, and costs the others nothing. After `deadline`, a `time.monotonic()`, nothing more is
    loaded but what is `needed`, and no further turn begins; what was loaded has one turn at least.
    """
    samples: dict[str, list[NDArray[np.float64]]] = {name: [] for name in plans}
    failures: dict[str, RunnerError] = {}
    with ExitStack() as stack:
        runners: dict[str, Runner] = {}
        for name, plan in plans.items():
            left = LOAD_TIMEOUT_S if name in needed else min(LOAD_TIMEOUT_S, deadline - time.monotonic())
            with _collect(failures, name):
                if left <= 0:
                    raise RunnerError("no time left to measure it", subject=name)
                runner = stack.enter_context(Runner(plan, patience_s=left))
                runner.loaded()
                runners[name] = runner
        for turn in range(rounds):
            if turn > 0 and time.monotonic() >= deadline:
                break
            for name in _rotated([name for name in runners if name not in failures], turn):
                with _collect(failures, name):
                    samples[name].append(runners[name].measure(seconds / rounds))
        measured = {
            name: Measurement(loaded=runner.loaded(), rounds=samples[name], latency=summarize(samples[name]))
            for name, runner in runners.items()
            if name not in failures
        }
    return measured, failures


def _rotated(names: list[str], turn: int) -> list[str]:
    start = turn % len(names) if names else 0
    return names[start:] + names[:start]


@contextmanager
def _collect(failures: dict[str, RunnerError], name: str) -> Iterator[None]:
    try:
        yield
    except RunnerError as error:
        failures[name] = error
