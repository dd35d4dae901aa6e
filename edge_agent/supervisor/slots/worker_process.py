"""One worker as the supervisor holds it: start, talk, watch, kill, and say exactly what was lost with it.

The worker itself is `edge_agent.worker`; when to start, swap or give up is in `edge_agent.supervisor.slots.slot`.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import socket
from collections.abc import Callable

import msgspec
from msgspec import Struct

from edge_agent.fallback_ladder import Rung
from edge_agent.host.memory_limits import LEAN_ENVIRONMENT
from edge_agent.host.scheduling import step_behind, step_up
from edge_agent.host.sensors import memory_of
from edge_agent.ipc.in_flight import InFlightCounters
from edge_agent.ipc.worker import (
    MAX_LINE_BYTES,
    Drained,
    Fault,
    Heartbeat,
    Ready,
    ToWorker,
    WorkerPlan,
    line,
    parse_to_supervisor,
)
from edge_agent.run_clock import RunClock
from edge_agent.supervisor.process_output import ProcessOutput, start_heard

MISSED_HEARTBEATS = 10
"""Heartbeats a worker may miss before it is taken for hung: a loaded small board may stall for some seconds."""

START_S = 60.0
"""Seconds from start to Ready: loading a model from a slow card on a busy board."""

PATIENCE_BEHIND = 3
"""How many times as long one may take that loads behind another."""

RSS_SLACK_MB = 160.0
"""What a worker may hold besides its model's memory limit, in megabytes: interpreter, engine, HTTP, buffers."""

_log = logging.getLogger(__name__)


class WorkerDeath(Struct, frozen=True, kw_only=True):
    """How a worker ended. `lost` requests had been started and were never answered; of the `connections` open then
    each can have cost a request that was not read yet, so no more than that many were lost. `request_bytes` had the
    large request it died in, 0 without one, and `proved_bytes` the largest it had answered; `oversized` if it died of
    memory, or hung, in one that was larger than any that this slot has answered: then the release is not to blame."""

    pid: int
    code: int
    reason: str
    lost: int
    connections: int
    drained: bool
    request_bytes: int = 0
    proved_bytes: int = 0
    oversized: bool = False


class Callbacks(Struct, frozen=True, kw_only=True):
    """Whom a worker's news goes to, with the worker itself first; `said` is given each line it writes to its log."""

    ready: Callable[[WorkerProcess, Ready], None]
    heartbeat: Callable[[WorkerProcess, Heartbeat], None]
    fault: Callable[[WorkerProcess, Fault], None]
    died: Callable[[WorkerProcess, WorkerDeath], None]
    said: Callable[[str], None] = lambda _line: None


class WorkerProcess:
    """A running worker. Made by `start`; ends by `drain` or `kill`, and then `callbacks.died` is called once."""

    def __init__(self, plan: WorkerPlan, callbacks: Callbacks, flight: InFlightCounters) -> None:
        self.plan = plan
        self.ready: Ready | None = None
        self.heartbeat: Heartbeat | None = None
        self.draining = False
        self._callbacks = callbacks
        self._flight = flight
        self._drained = False
        self._stepping_up = False
        self._killed: str | None = None
        self._fatal: str | None = None
        self._process: asyncio.subprocess.Process
        self._output: ProcessOutput
        self._writer: asyncio.StreamWriter
        self._run = RunClock(asyncio.get_running_loop().time())
        self._last_news = self._run.now
        self._task: asyncio.Task[None]

    @classmethod
    async def start(cls, plan: WorkerPlan, listener: socket.socket, callbacks: Callbacks) -> WorkerProcess:
        """Start a worker that accepts on `listener`. Raises OSError when no process can be made."""
        flight = InFlightCounters.create()
        ours, theirs = socket.socketpair()
        with theirs:
            plan = msgspec.structs.replace(
                plan, listen_fd=listener.fileno(), link_fd=theirs.fileno(), flight_fd=flight.fd
            )
            worker = cls(plan, callbacks, flight)
            worker._process, worker._output = await start_heard(
                callbacks.said,
                "-m",
                "edge_agent.worker",
                msgspec.json.encode(plan).decode(),
                pass_fds=[fd for fd in (plan.listen_fd, plan.link_fd, plan.flight_fd, plan.mirror_fd) if fd >= 0],
                stdin=asyncio.subprocess.DEVNULL,
                env=os.environ | LEAN_ENVIRONMENT,
            )
        if plan.takes_over:
            step_behind(worker.pid)
        reader, worker._writer = await asyncio.open_connection(sock=ours, limit=MAX_LINE_BYTES)
        worker._task = asyncio.create_task(worker._follow(reader))
        return worker

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def first(self) -> Rung:
        """The rung it was started to serve from."""
        return self.plan.ladder[0]

    @property
    def memory_mb(self) -> float | None:
        """Resident memory now, in megabytes."""
        return memory_of(self.pid)

    @property
    def proved_bytes(self) -> int:
        """Bytes of the largest request it has answered, of those that count as large."""
        return self._flight.proved_bytes

    def tell(self, message: ToWorker) -> None:
        """Send a message; a worker that is gone does not hear it, and its death is reported anyway."""
        with contextlib.suppress(OSError, RuntimeError):
            self._writer.write(line(message))

    def step_up(self) -> None:
        """Let it load, or serve, behind nobody."""
        if self.plan.takes_over:
            self._stepping_up = not step_up(self.pid)

    def kill(self, reason: str) -> None:
        """End it at once with SIGKILL, for `reason`."""
        if self._killed is None:
            self._killed = reason
        with contextlib.suppress(ProcessLookupError):
            self._process.send_signal(signal.SIGKILL)

    def watch(self) -> None:
        """Kill the worker if it is silent for too long or holds more memory than it may. To be called regularly: its
        silence counts only while this is."""
        if self._stepping_up:
            self.step_up()
        self._run.tick(asyncio.get_running_loop().time())
        silent = self._run.now - self._last_news
        patience = MISSED_HEARTBEATS * self.plan.heartbeat_s
        if self.ready is None:
            patience = START_S * (PATIENCE_BEHIND if self.plan.takes_over else 1)
        if silent > patience and self._run.judging:
            self.kill("hung" if self.ready else "start-timeout")
        memory = self.memory_mb
        limit = self.plan.memory_limit_mb
        if memory is not None and limit is not None and memory > limit + RSS_SLACK_MB:
            self.kill("memory")

    async def ended(self) -> None:
        """Wait until it has ended and its death was reported."""
        await asyncio.shield(self._task)

    async def _follow(self, reader: asyncio.StreamReader) -> None:
        with contextlib.suppress(OSError, ValueError):
            while data := await reader.readline():
                self._hear(data)
        # The link has ended: a worker that still runs without it is broken or about to end by itself.
        try:
            await asyncio.wait_for(self._process.wait(), 2.0)
        except TimeoutError:
            self.kill("link-closed")
        code = await self._process.wait()
        self._output.end()
        self._writer.close()
        death = WorkerDeath(
            pid=self.pid,
            code=code,
            reason=self._why(code),
            lost=self._flight.in_flight,
            connections=self._flight.connections,
            drained=self._drained,
            request_bytes=self._flight.running_bytes,
            proved_bytes=self._flight.proved_bytes,
        )
        self._flight.close()
        self._callbacks.died(self, death)

    def _hear(self, data: bytes) -> None:
        try:
            message = parse_to_supervisor(data)
        except msgspec.MsgspecError as error:
            _log.error("ignored a malformed message from worker %d: %s", self.pid, error)
            self.kill("protocol")
            return
        self._last_news = self._run.now
        if isinstance(message, Ready):
            self.ready = message
            self.step_up()
            self._callbacks.ready(self, message)
        elif isinstance(message, Heartbeat):
            self._callbacks.heartbeat(self, message)
            self.heartbeat = message
        elif isinstance(message, Fault):
            if message.fatal:
                self._fatal = message.reason
            self._callbacks.fault(self, message)
        elif isinstance(message, Drained):
            self._drained = True

    def _why(self, code: int) -> str:
        if self._killed is not None:
            return self._killed
        if self._fatal is not None:
            return self._fatal
        if code < 0:
            names = {number.value: number.name for number in signal.Signals}
            return names.get(-code, f"signal{code}")
        return f"exit-{code}"
