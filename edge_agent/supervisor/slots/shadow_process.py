"""One shadow as the supervisor holds it: start, hear, watch, kill. The shadow itself is `edge_agent.shadow`; when one
runs is decided in `edge_agent.supervisor.slots.shadow_controller`."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal

import msgspec
from msgspec import Struct

from edge_agent.host.memory_limits import LEAN_ENVIRONMENT
from edge_agent.host.sensors import memory_of
from edge_agent.ipc.shadow import ShadowBeat, ShadowPlan
from edge_agent.run_clock import RunClock
from edge_agent.supervisor.child_process import start_child
from edge_agent.supervisor.slots.worker_process import RSS_SLACK_MB, START_S

MISSED_BEATS = 30
"""Beats it may miss before it is taken for hung: it runs at the lowest priority, and a busy board may starve it."""

PATIENCE = 3
"""How many times as long as a worker it may take to load, for the same reason."""

GRACE_S = 5.0
"""From its last word to its end, in seconds."""

_MAX_LINE_BYTES = 64 * 1024
_log = logging.getLogger(__name__)
_beats: msgspec.json.Decoder[ShadowBeat] = msgspec.json.Decoder(ShadowBeat)


class ShadowDeath(Struct, frozen=True, kw_only=True):
    """How a shadow ended; `expected` if it was told to."""

    pid: int
    code: int
    reason: str
    expected: bool


class ShadowProcess:
    """A running shadow. Made by `start`; `beat` is the newest it said, `death` is there once it has ended."""

    def __init__(self, plan: ShadowPlan, deadline_s: float) -> None:
        self.plan = plan
        self.beat: ShadowBeat | None = None
        self.death: ShadowDeath | None = None
        self._deadline_s = deadline_s
        self._killed: str | None = None
        self._process: asyncio.subprocess.Process
        self._task: asyncio.Task[None]
        self._run = RunClock(asyncio.get_running_loop().time())
        self._last_news = self._run.now

    @classmethod
    async def start(cls, plan: ShadowPlan, deadline_s: float) -> ShadowProcess:
        """Start a shadow that reads from `plan.mirror_fd`. Raises OSError when no process can be made."""
        shadow = cls(plan, deadline_s)
        shadow._process = await start_child(
            "-m",
            "edge_agent.shadow",
            msgspec.json.encode(plan).decode(),
            pass_fds=(plan.mirror_fd,),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            limit=_MAX_LINE_BYTES,
            env=os.environ | LEAN_ENVIRONMENT,
        )
        shadow._task = asyncio.create_task(shadow._follow())
        return shadow

    @property
    def pid(self) -> int:
        return self._process.pid

    def kill(self, reason: str | None = None) -> None:
        """End it at once; `reason` None if nothing is wrong with it."""
        if self._killed is None:
            self._killed = reason or ""
        with contextlib.suppress(ProcessLookupError):
            self._process.send_signal(signal.SIGKILL)

    def watch(self) -> None:
        """Kill it if it is silent for too long, too long at one request, or too large. To be called regularly: what it
        takes counts only while this is."""
        self._run.tick(asyncio.get_running_loop().time())
        now, beat = self._run.now, self.beat
        silent_s = now - self._last_news
        if not self._run.judging:
            return  # what it has said meanwhile is not read yet
        if (beat is None or not beat.ready) and now > PATIENCE * START_S:
            self.kill("start-timeout")
        elif silent_s > MISSED_BEATS * self.plan.beat_s or (beat is not None and beat.busy_s > self._deadline_s):
            self.kill("hung")
        memory, limit = memory_of(self.pid), self.plan.memory_limit_mb
        if memory is not None and limit is not None and memory > limit + RSS_SLACK_MB:
            self.kill("memory")

    async def ended(self) -> None:
        """Wait until it has ended."""
        await asyncio.shield(self._task)

    async def _follow(self) -> None:
        output = self._process.stdout
        assert output is not None
        with contextlib.suppress(OSError, ValueError):
            while data := await output.readline():
                self._hear(data)
        # It has ended, or speaks no more.
        try:
            await asyncio.wait_for(self._process.wait(), GRACE_S)
        except TimeoutError:
            self.kill("pipe-closed")
        code = await self._process.wait()
        reason = self._killed if self._killed is not None else _why(code)
        self.death = ShadowDeath(pid=self.pid, code=code, reason=reason, expected=self._killed == "")

    def _hear(self, data: bytes) -> None:
        try:
            self.beat = _beats.decode(data)
            self._last_news = self._run.now
        except msgspec.MsgspecError as error:
            _log.error("ignored a malformed message from shadow %d: %s", self.pid, error)
            self.kill("protocol")


def _why(code: int) -> str:
    if code >= 0:
        return f"exit-{code}"
    names = {number.value: number.name for number in signal.Signals}
    return names.get(-code, f"signal{code}")
