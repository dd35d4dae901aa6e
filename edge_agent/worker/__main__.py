"""The worker: one process that serves one slot's ladder over HTTP. `python -m edge_agent.worker <WorkerPlan JSON>`

It inherits the listening socket, the link to the supervisor and the flight page as file descriptors. Deciding what
to serve, starting, watching and replacing workers is the supervisor's; here is only: load, warm, say Ready, answer,
report, drain. A failed allocation in the engine ends the process at once: its heap is not to be trusted.
"""

from __future__ import annotations

import gc

from edge_agent.host.lean_imports import import_lean, import_numpy

if __name__ == "__main__":
    gc.disable()  # until everything is loaded
    import_lean()
    import_numpy()

import asyncio
import math
import os
import signal
import socket
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from edge_agent.engines.registry import import_engines
from edge_agent.errors import EngineMemoryError, RequestMemoryError
from edge_agent.fallback_ladder import ABSTAIN, Rung
from edge_agent.host.memory_limits import HEADROOM_MB, limit_growth, offer_to_oom_killer
from edge_agent.http.app_state import AppState
from edge_agent.http.batcher import Batcher
from edge_agent.http.oip_app import OipApp
from edge_agent.http.server import HttpServer
from edge_agent.inference.runtime import Runtime
from edge_agent.ipc.in_flight import InFlightCounters
from edge_agent.ipc.worker import (
    MAX_LINE_BYTES,
    AgentView,
    Drain,
    Drained,
    Fault,
    Heartbeat,
    Prefer,
    Ready,
    Shed,
    TapSettings,
    ToSupervisor,
    WorkerPlan,
    line,
    parse_to_worker,
)
from edge_agent.ports import EngineSettings
from edge_contracts.errors import EdgewrightError, OperatorError

if TYPE_CHECKING:
    from edge_agent.worker.request_tap import RequestTap

EXIT_MEMORY = 70
"""Exit code after a failed allocation in the engine."""

HANG_S = 30.0
"""An inference that runs longer is a hang: the worker stops its heartbeats, and the supervisor kills it."""

SHORT_S = 60.0
"""How often it is told that memory is short, in seconds."""

_OOM_SCORE = 500


class Worker:
    """One slot's worker. Without a link, as in `agent serve`, faults go to stderr."""

    def __init__(self, plan: WorkerPlan, listening: socket.socket, flight: InFlightCounters) -> None:
        self._plan = plan
        self._listening = listening
        self._serving = AppState(on_memory_error=self._die, labels={"slot": plan.slot})
        self._server = HttpServer(OipApp(self._serving), flight, out_of_memory=self._out_of_memory)
        self._flight = flight
        self._short_at = -math.inf  # when memory was last short, in seconds of the monotonic clock
        self._serving.totals = lambda: self._server.counters
        self._loop = asyncio.get_running_loop()
        self._link: asyncio.StreamWriter | None = None
        self._drain_s = asyncio.Future[float]()
        self._request_tap: RequestTap | None = None
        self._last_requests = 0
        self._last_request_at = time.monotonic()

    async def run(self, link: socket.socket | None = None) -> int:
        """Serve until told to drain; return the exit code. Must be called inside the loop that made the worker."""
        loop = self._loop
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self.drain, self._plan.drain_s)
        tasks: set[asyncio.Task[None]] = set()
        if link is not None:
            reader, self._link = await asyncio.open_connection(sock=link, limit=MAX_LINE_BYTES)
        try:
            started = time.monotonic()
            runtime = self._load()
            if self._plan.takes_over:
                from edge_agent.worker.warmup import warm_up

                await warm_up(self._server, runtime)
                self._serving.last_ms = 0
            gc.collect()
            gc.freeze()  # what is loaded by now stays: later collections need not walk it
            gc.enable()
            if link is not None:  # not before: what is said meanwhile is heard afterwards
                tasks.add(loop.create_task(self._listen(reader)))
            await self._server.start(self._listening)
            load_ms = (time.monotonic() - started) * 1000
            self._say(Ready(pid=os.getpid(), served_by=runtime.serving, load_ms=load_ms))
            tasks.add(loop.create_task(self._beat(runtime)))
            deadline_s = await self._drain_s
            self._serving.draining = True
            self._serving.tap = None
            cut = await self._server.drain(deadline_s)
            if self._request_tap is not None:
                self._request_tap.close()
            self._beat_once(runtime)
            self._say(Drained(cut=cut))
            if self._link is not None and not self._link.is_closing():
                await self._link.drain()
        except EngineMemoryError as error:
            self._die(error)
        except EdgewrightError as error:
            self._say(Fault(served_by="", reason=error.reason, text=str(error)[:2000], fatal=True))
            return error.exit_code
        except ConnectionError:
            pass  # the supervisor is gone and everything is answered
        finally:
            for task in tasks:
                task.cancel()
        return 0

    def drain(self, deadline_s: float) -> None:
        """Begin to drain; the first deadline given holds."""
        if not self._drain_s.done():
            self._drain_s.set_result(deadline_s)

    def _load(self) -> Runtime:
        """Load and warm the first rung that works. The memory cap is set between the engine and the model, so that
        it bounds what models cost here and not what the engine's code costs."""
        plan = self._plan
        settings = EngineSettings(threads=plan.threads, cache=None if plan.cache is None else Path(plan.cache))
        runtime = Runtime(
            plan.ladder,
            settings=settings,
            certainty=plan.certainty,
            on_fault=self._fault,
            watcher=self._flight,
            refused_bytes=plan.refused_bytes,
        )
        import_engines(runtime.manifest)
        if plan.capture is not None:
            self._open_onlooker()
        if plan.memory_limit_mb is not None:
            limit_growth(plan.memory_limit_mb + HEADROOM_MB)
        runtime.warm()
        self._serving.runtime = runtime
        if plan.batch is not None:
            self._serving.batcher = Batcher(runtime, plan.batch)
        return runtime

    async def _listen(self, reader: asyncio.StreamReader) -> None:
        """Obey the supervisor; without one there is nothing to live for but the requests at hand."""
        try:
            while data := await reader.readline():
                self._obey(data)
        except (ConnectionError, ValueError):  # ValueError: a line over the limit
            pass
        self.drain(self._plan.drain_s)

    def _obey(self, data: bytes) -> None:
        message = parse_to_worker(data)
        runtime = self._serving.runtime
        match message:
            case Drain(deadline_s=deadline_s):
                self.drain(deadline_s)
            case Shed(retry_after_s=retry_after_s):
                self._serving.retry_after_s = retry_after_s
            case AgentView(gauges=gauges):
                self._serving.gauges = gauges
            case TapSettings():
                self._set_tap(message)
            case Prefer(variant=variant, threads=threads) if runtime is not None:
                try:
                    runtime.prefer(variant, threads)
                except EngineMemoryError as error:
                    self._die(error)
                self._beat_once(runtime)

    def _set_tap(self, wish: TapSettings) -> None:
        """Take requests aside as the supervisor wants it; what it takes is loaded when it first does."""
        if self._request_tap is None and wish.shadow > 0.0:
            self._open_onlooker()
        if self._request_tap is not None:
            self._request_tap.allow(shadow=wish.shadow, capture=wish.capture)
            looks = self._request_tap.looks and not self._serving.draining
            self._serving.tap = self._request_tap.look if looks else None

    def _open_onlooker(self) -> None:
        from edge_agent.worker.request_tap import RequestTap

        plan, recorder = self._plan, None
        if plan.capture is not None:
            from edge_agent.worker.capture_writer import CaptureWriter

            try:
                recorder = CaptureWriter(plan.capture, self._capture_fails)
            except OperatorError as error:  # a key that is none must not keep the slot from answering
                self._capture_fails(str(error))
        mirror = socket.socket(fileno=plan.mirror_fd) if plan.mirror_fd >= 0 else None
        self._request_tap = RequestTap(plan.ladder[0].served_by, mirror, recorder)

    def _capture_fails(self, text: str) -> None:
        """Report that captures cannot be written; from any thread."""
        self._fault(self._plan.ladder[0], "capture", text)

    async def _beat(self, runtime: Runtime) -> None:
        reviving: asyncio.Task[None] | None = None
        while True:
            await asyncio.sleep(self._plan.heartbeat_s)
            if runtime.serving == ABSTAIN and (reviving is None or reviving.done()):
                reviving = asyncio.create_task(self._revive(runtime))  # beside the beats: a model may take its time
            busy_since = runtime.busy_since
            if busy_since is None or time.monotonic() - busy_since < HANG_S:
                self._beat_once(runtime)

    async def _revive(self, runtime: Runtime) -> None:
        """Load what can be loaded again: nobody may ask a slot that says it is not ready. Rests bound how often."""
        try:
            await self._loop.run_in_executor(None, runtime.warm)
        except EngineMemoryError as error:
            self._die(error)

    def _beat_once(self, runtime: Runtime) -> None:
        tally, now = runtime.tally, time.monotonic()
        counters = tally.counters
        total = counters["requests"] + counters["rejected"]
        if total != self._last_requests or runtime.busy_since is not None:
            self._last_requests, self._last_request_at = total, now
        self._say(
            Heartbeat(
                counters=counters if self._request_tap is None else counters | self._request_tap.total(),
                served_by=tally.served_by,
                latency_log2_us=tuple(tally.latency_log2_us),
                histograms=runtime.histograms,
                rung=runtime.serving,
                idle_s=now - self._last_request_at,
                nodes={one.node: one.served_by for one in runtime.nodes if one.served_by is not None},
            )
        )

    def _fault(self, rung: Rung, reason: str, text: str) -> None:
        """Report a failed rung, from the loop's thread or the inference thread; before `_die` in either case."""
        fatal = reason == EngineMemoryError.reason
        message = Fault(served_by=rung.served_by, reason=reason, text=text[:2000], fatal=fatal)
        if threading.current_thread() is threading.main_thread():
            self._say(message)
        else:
            self._loop.call_soon_threadsafe(self._say, message)

    def _out_of_memory(self) -> None:
        """Report that there was no memory for a request, at most once in `SHORT_S`: the supervisor replaces a worker
        whose memory is used up."""
        gc.collect()  # requests that failed may wait for it, with all they hold
        now = time.monotonic()
        if now - self._short_at < SHORT_S:
            return
        self._short_at = now
        text = "no memory for a request that would fit into a worker just started"
        served_by = self._plan.slot if self._serving.runtime is None else self._serving.runtime.serving
        self._say(Fault(served_by=served_by, reason=RequestMemoryError.reason, text=text))

    def _say(self, message: ToSupervisor) -> None:
        if self._link is None:
            if isinstance(message, Fault):  # nobody else reports it
                sys.stderr.write(f"{message.served_by or self._plan.slot}: {message.text}\n")
        elif not self._link.is_closing():
            self._link.write(line(message))

    def _die(self, error: EngineMemoryError) -> None:
        """End at once, after `_fault` has told the supervisor. Requests in flight stay counted in the flight page."""
        sys.stderr.write(f"worker {self._plan.slot}: {error}; exiting\n")
        sys.stderr.flush()
        os._exit(EXIT_MEMORY)


async def serve(
    plan: WorkerPlan, listening: socket.socket, link: socket.socket | None, flight: InFlightCounters
) -> int:
    """Run one worker in this process's event loop; return its exit code."""
    return await Worker(plan, listening, flight).run(link)


def main(arguments: list[str]) -> int:
    """Run the worker of the plan given as the one argument."""
    plan = msgspec.json.decode(arguments[0], type=WorkerPlan)
    offer_to_oom_killer(_OOM_SCORE)
    listening = socket.socket(fileno=plan.listen_fd)
    listening.setblocking(False)
    link = socket.socket(fileno=plan.link_fd) if plan.link_fd >= 0 else None
    flight = InFlightCounters.open(plan.flight_fd) if plan.flight_fd >= 0 else InFlightCounters.create()
    return asyncio.run(serve(plan, listening, link, flight))


if __name__ == "__main__":
    code = main(sys.argv[1:])
    sys.stderr.flush()
    os._exit(code)  # an inference that never ends would hold up an ordinary exit
