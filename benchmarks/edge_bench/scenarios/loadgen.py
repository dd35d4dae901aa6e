"""MLPerf's own LoadGen as the driver of a loaded model, inside the measuring process. Optional: its wheel exists for
x86-64 only (extra `loadgen`). What it says comes back as it says it; our latencies are from the moment a query reaches
us to its answer, so they lack LoadGen's own overhead."""

from __future__ import annotations

import queue
import re
import resource
import tempfile
import threading
import time
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from edge_agent.errors import EngineError
from edge_agent.ports import Session
from edge_bench.protocol import Drive, Driven
from edge_contracts.errors import MissingExtraError

MODULE = "mlperf_loadgen"
HEADROOM = 4.0
"""LoadGen makes its queries beforehand, by the latency it expects; with so many times more it does not run out."""

_SCENARIOS = {
    "single_stream": "SingleStream",
    "multi_stream": "MultiStream",
    "server": "Server",
    "offline": "Offline",
}
_LINE = re.compile(r"^[\s*]*([^:*=\s][^:*=]*?)\s*:\s*(\S.*?)\s*$")
_NANOSECONDS = " (ns)"


def check_loadgen() -> None:
    """Raise MissingExtraError where LoadGen is not installed."""
    if find_spec(MODULE) is None:
        raise MissingExtraError("loadgen", "mlcommons-loadgen (x86-64 only)")


class _UnderTest:
    """Answers LoadGen's queries in a thread of its own, as the agent's worker does, and times them."""

    def __init__(self, loadgen: Any, session: Session, feeds: Sequence[dict[str, Any]]) -> None:
        self._loadgen, self._session, self._feeds = loadgen, session, feeds
        self._waiting: queue.SimpleQueue[tuple[int, list[Any]] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._answer_all, daemon=True)
        self.latencies_ns: list[int] = []
        self.samples = 0
        self.failed: Exception | None = None

    def issue(self, samples: list[Any]) -> None:
        """Take a query; with no thread running, answer it at once."""
        if self._thread.is_alive():
            self._waiting.put((time.perf_counter_ns(), samples))
        else:
            self._answer(time.perf_counter_ns(), samples)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        if self._thread.is_alive():
            self._waiting.put(None)
            self._thread.join()

    def _answer_all(self) -> None:
        while (query := self._waiting.get()) is not None:
            self._answer(*query)

    def _answer(self, issued_ns: int, samples: list[Any]) -> None:
        for sample in samples:
            if self.failed is None:
                try:
                    self._session.run(self._feeds[sample.index])
                except Exception as error:
                    self.failed = error  # LoadGen waits for every answer
        done = time.perf_counter_ns()
        self._loadgen.QuerySamplesComplete([self._loadgen.QuerySampleResponse(one.id, 0, 0) for one in samples])
        self.latencies_ns.append(done - issued_ns)
        self.samples += len(samples)


def drive_by_loadgen(session: Session, feeds: Sequence[dict[str, Any]], order: Drive) -> Driven:
    """Run one scenario by LoadGen and write our latencies (float64, milliseconds) into `order.out`.

    Raises MissingExtraError, and EngineError when the model failed."""
    check_loadgen()
    import mlperf_loadgen as loadgen

    expected_ns = _expected_ns(session, feeds)
    under_test = _UnderTest(loadgen, session, feeds)
    if order.scenario == "server":
        under_test.start()
    before, start = resource.getrusage(resource.RUSAGE_SELF), time.perf_counter()
    with tempfile.TemporaryDirectory(prefix="edgewright-loadgen-") as folder:
        _run(loadgen, under_test, order, len(feeds), (expected_ns, folder))
        text = (Path(folder) / "mlperf_log_summary.txt").read_text(encoding="utf-8", errors="replace")
    wall, after = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_SELF)
    if under_test.failed is not None:
        raise EngineError(f"run: {under_test.failed}") from under_test.failed
    (np.asarray(under_test.latencies_ns, dtype=np.float64) / 1e6).tofile(order.out)
    return Driven(
        queries=len(under_test.latencies_ns),
        samples=under_test.samples,
        wall_s=wall,
        cpu_s=after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime,
        major_faults=after.ru_majflt - before.ru_majflt,
        minor_faults=after.ru_minflt - before.ru_minflt,
        given_way=after.ru_nivcsw - before.ru_nivcsw,
        summary=parsed_summary(text),
    )


def _run(loadgen: Any, under_test: _UnderTest, order: Drive, inputs: int, how: tuple[float, str]) -> None:
    sut = loadgen.ConstructSUT(under_test.issue, lambda: None)
    qsl = loadgen.ConstructQSL(inputs, inputs, lambda _: None, lambda _: None)
    log = loadgen.LogSettings()
    log.log_output.outdir = how[1]
    log.log_output.copy_summary_to_stdout = False
    log.enable_trace = False
    try:
        loadgen.StartTestWithLogSettings(sut, qsl, _settings(loadgen, order, how[0]), log, "")
    finally:
        under_test.stop()
        loadgen.DestroyQSL(qsl)
        loadgen.DestroySUT(sut)


def _settings(loadgen: Any, order: Drive, expected_ns: float) -> Any:
    settings = loadgen.TestSettings()
    settings.scenario = getattr(loadgen.TestScenario, _SCENARIOS[order.scenario])
    settings.mode = loadgen.TestMode.PerformanceOnly
    settings.min_duration_ms = int(order.seconds * 1000)
    settings.min_query_count = order.count or 1
    settings.single_stream_expected_latency_ns = int(expected_ns / HEADROOM)
    settings.multi_stream_expected_latency_ns = int(expected_ns * order.streams / HEADROOM)
    settings.multi_stream_samples_per_query = order.streams
    settings.offline_expected_qps = 1.1e9 / expected_ns
    settings.sample_index_rng_seed = order.seed
    settings.schedule_rng_seed = order.seed
    if order.scenario == "server":
        settings.server_target_qps = order.rate
        settings.server_target_latency_ns = int(order.deadline_ms * 1e6)
    return settings


def _expected_ns(session: Session, feeds: Sequence[dict[str, Any]]) -> float:
    took = []
    for feed in feeds[:20]:
        start = time.perf_counter_ns()
        session.run(feed)
        took.append(time.perf_counter_ns() - start)
    return float(max(np.median(took), 1000.0))


def parsed_summary(text: str) -> dict[str, str]:
    """Return the lines `NAME : VALUE` of LoadGen's summary up to its settings; nanoseconds become milliseconds."""
    found = {}
    for line in text.partition("Test Parameters Used")[0].splitlines():
        match = _LINE.match(line)
        if match is None:
            continue
        name, value = match[1], match[2]
        if name.endswith(_NANOSECONDS) and value.isdecimal():
            name, value = name.removesuffix(_NANOSECONDS) + " (ms)", f"{int(value) / 1e6:.6g}"
        found[name] = value
    return found
