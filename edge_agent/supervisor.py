"""The supervisor: the one process that is always there. It wires slots, updates, link, governor and status together.

It imports no numpy, engine or TUF, so that it stays small and nothing a model does can take it down. What happens in
a slot is in `edge_agent.slot`, when updates run in `edge_agent.update_runner`, what leaves the device in
`edge_agent.link`, what the governor decides in `edge_agent.core.governor`.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import time
import uuid
from collections import deque

import msgspec

from edge_agent import __version__
from edge_agent.adapters.audit import AuditLog
from edge_agent.adapters.outbox import Outbox
from edge_agent.adapters.sensors import Sensors, architecture, memory_of
from edge_agent.adapters.store import StateError, StateFolder
from edge_agent.adapters.systemd import Notifier
from edge_agent.config import AgentConfig
from edge_agent.control import Ask, Reply, serve_control
from edge_agent.core.audit import Entry
from edge_agent.core.governor import GovernorState, Readings, govern
from edge_agent.link import FleetLink, utc_now
from edge_agent.news import Detail, News
from edge_agent.profiles import load_profile
from edge_agent.slot import Slot, Surroundings
from edge_agent.status import REFUSALS, AgentStatus, Refusal, SlotStatus, refusal_of, stored_refusals
from edge_agent.update_runner import UpdateRunner
from edge_agent.windows import window_message
from edge_contracts.limits import MIB
from edge_contracts.state import ReportedState
from edge_contracts.telemetry import Event

TICK_S = 0.5
"""How often deadlines, workers and the spool are looked at, in seconds."""

GOVERN_S = 5.0
"""How often the sensors are read, in seconds."""

GARBAGE_S = 60.0
"""How often releases that nobody needs are looked for, in seconds."""

SHED_S = 5.0
"""Retry-After of requests that a critical device turns away, in seconds."""

_log = logging.getLogger(__name__)


class Supervisor:
    """One agent. Made and run on an event loop; `run` returns when it was told to stop."""

    def __init__(self, config: AgentConfig) -> None:
        """Open everything the agent keeps. Raises ConfigError or StateError naming what is wrong."""
        self._config = config
        self._profile = load_profile(config.device.profile)
        self._state = StateFolder(config.state)
        self._state.create()
        self._lock = self._state.lock()
        self._boot_id = uuid.uuid4().hex
        self._epoch = time.time() - time.monotonic()
        self._clean = not self._state.running.exists()
        self._audit = AuditLog(self._state.audit)
        self._refusals: deque[Refusal] = stored_refusals(self._state)
        self._sensors = Sensors(config.state)
        self._readings = Readings()
        self._level = GovernorState()
        self._notifier = Notifier()
        self._stop = asyncio.Event()
        limit = int(self._profile.storage.spool_mb * MIB)
        self._outbox = Outbox(self._state.outbox, device=config.device.id, boot_id=self._boot_id, limit_bytes=limit)
        around = Surroundings(state=self._state, profile=self._profile, clock=self._clock, tell=self.tell)
        self._link = FleetLink(config, self._boot_id, self._outbox, self)
        self._slots = {slot.name: Slot(slot, around) for slot in config.slots}
        self._updates = UpdateRunner(config, self._state, self._slots, self.tell)
        self._window_start = utc_now()
        self._next: dict[str, float] = {}

    async def run(self) -> None:
        """Serve, update and report until SIGTERM or SIGINT."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop.set)
        self._state.mark_running()
        self._tell_start()
        for slot in self._slots.values():
            slot.start(clean=self._clean)
        control = await serve_control(self._state, self._answer)
        self._link.start()
        self._updates.bring_staged()
        self._notifier.ready()
        _log.info("agent %s runs, state in %s", self._config.device.id, self._state.root)
        while not self._stop.is_set():
            self._tick(loop.time())
            try:
                await asyncio.wait_for(self._stop.wait(), TICK_S)
            except TimeoutError:
                continue
        control.close()
        await self._shut_down()

    def tell(self, news: News) -> None:
        """Put news into the log, the audit log and the spool."""
        level = {"info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}[news.severity]
        _log.log(level, "%s %s %s", news.slot or "-", news.event, news.text)
        self._audit_news(news)
        self._link.put(
            lambda sequence: Event(
                device=self._config.device.id,
                boot_id=self._boot_id,
                sequence=sequence,
                time=utc_now(),
                event=news.event,
                severity=news.severity,  # type: ignore[arg-type]
                slot=news.slot,
                text=news.text[:2000],
                detail=news.detail,
            )
        )

    # What the link hears (link.Listener)

    def connected(self, up: bool) -> None:
        self._updates.connected = up
        if up and not self._updates.running:
            self._updates.look()

    def hinted(self, timestamp_version: int) -> None:
        self._updates.hinted(timestamp_version)

    # Inside

    def _clock(self) -> float:
        """Return seconds since the epoch by a clock that does not jump while the agent runs, so that setting the
        system's clock neither ends nor prolongs a soak."""
        return self._epoch + time.monotonic()

    def _tick(self, now: float) -> None:
        for slot in self._slots.values():
            slot.tick()
        self._updates.tick()
        self._link.tick()
        if self._due("govern", now, GOVERN_S):
            self._govern(now)
        if self._due("window", now, self._config.telemetry.window_s, at_once=False):
            self._close_windows()
        if self._due("garbage", now, GARBAGE_S) and not self._updates.running:
            self._collect()
        self._link.report(self._reported())
        self._notifier.alive()

    def _due(self, what: str, now: float, every_s: float, *, at_once: bool = True) -> bool:
        due = now >= self._next.get(what, now if at_once else now + every_s)
        if due or what not in self._next:
            self._next[what] = now + every_s
        return due

    def _govern(self, now: float) -> None:
        workers = [worker.pid for slot in self._slots.values() for worker in slot.serving.workers]
        self._readings = self._sensors.read([os.getpid(), *workers], now)
        before = self._level
        self._level = after = govern(before, self._readings, self._profile.governor, now)
        if after.level != before.level:
            severity = "info" if after.level == "NORMAL" else "warning"
            text = f"{before.level} -> {after.level}: {', '.join(after.reasons)}"
            self.tell(News(event="level", severity=severity, text=text, detail={"level": after.level}))
        self._updates.may_install = after.level == "NORMAL"
        for slot in self._slots.values():
            slot.serving.conserve(lightest=after.level != "NORMAL", shed_s=SHED_S if after.shed else 0.0)
            slot.serving.view(self._gauges())
        self._notifier.status(f"{after.level}, {self._outbox.spooled} messages spooled")

    def _gauges(self) -> dict[str, float]:
        level = {"NORMAL": 0.0, "CONSERVE": 1.0, "CRITICAL": 2.0}[self._level.level]
        gauges = {"level": level, "spooled": float(self._outbox.spooled), "dropped": float(self._outbox.dropped)}
        for name in ("temperature_c", "available_memory_mb", "disk_free_mb", "cpu_percent", "battery_percent"):
            value = getattr(self._readings, name)
            if value is not None:
                gauges[name] = value
        return gauges

    def _close_windows(self) -> None:
        end = utc_now()
        for slot in self._slots.values():
            frame = (self._config.device.id, self._boot_id, self._window_start, end)
            build = window_message(slot, frame, self._level.level, self._gauges())
            self._link.put(build)
            slot.window.clear()
        self._window_start = end

    def _collect(self) -> None:
        keep = frozenset[str]().union(*(slot.keeps() for slot in self._slots.values()))
        try:
            for gone in self._state.collect_garbage(keep):
                _log.info("release %s is not needed any more", gone[:16])
        except OSError as error:
            _log.warning("garbage stays: %s", error)

    def _reported(self) -> ReportedState:
        config = self._config.device
        return ReportedState(
            device=config.id,
            boot_id=self._boot_id,
            sequence=0,
            time="1970-01-01T00:00:00Z",  # both are set when it is sent
            agent_version=__version__,
            board=self._profile.name,
            architecture=architecture(),
            tags=config.tags,
            level=self._level.level,
            slots=tuple(slot.reported() for slot in self._slots.values()),
            trusted=self._updates.trusted,
            audit_head=self._audit.head,
            dropped=self._outbox.dropped,
        )

    def _tell_start(self) -> None:
        detail: Detail = {"clean": self._clean, "version": __version__}
        text = "after a clean stop" if self._clean else "the last run ended without a stop"
        self.tell(News(event="agent-started", severity="info" if self._clean else "warning", text=text, detail=detail))

    def _audit_news(self, news: News) -> None:
        now = time.time()
        try:
            self._audit.append(news.event, now, slot=news.slot, text=news.text, detail=news.detail)
        except StateError as error:
            _log.error("%s", error)
        entry = Entry(
            serial=0, time=now, event=news.event, slot=news.slot, text=news.text, detail=news.detail, previous=""
        )
        refusal = refusal_of(entry)
        if refusal is not None:
            self._refusals.append(refusal)

    async def _answer(self, ask: Ask) -> Reply:
        if ask.ask == "import":
            troubles = await self._updates.bring(ask.folder)
            return Reply(status=self.status(), troubles=tuple(troubles))
        return Reply(status=self.status())

    def status(self) -> AgentStatus:
        """Return what `agent status` shows."""
        broker = self._config.broker
        return AgentStatus(
            running=True,
            device=self._config.device.id,
            pid=os.getpid(),
            updater_pid=self._updates.pid,
            boot_id=self._boot_id,
            level=self._level.level,
            level_reasons=self._level.reasons,
            broker=None if broker is None else f"{broker.host}:{broker.port}",
            broker_connected=self._link.up,
            memory_mb=memory_of(os.getpid()),
            slots=tuple(
                SlotStatus(
                    **msgspec.structs.asdict(slot.reported()),
                    http=slot.http,
                    workers=tuple(worker.pid for worker in slot.serving.workers),
                    counters=dict(slot.totals.counters),
                    rejected=slot.record.rejected,
                )
                for slot in self._slots.values()
            ),
            trusted=self._updates.trusted,
            spooled=self._outbox.spooled,
            dropped=self._outbox.dropped,
            audit_head=self._audit.head,
            refusals=tuple(self._refusals)[-REFUSALS:],
        )

    async def _shut_down(self) -> None:
        """Stop in order: nothing new, then the workers, then the last words."""
        self._notifier.stopping()
        await self._updates.stop()
        await asyncio.gather(*(slot.stop() for slot in self._slots.values()))
        self._close_windows()
        self.tell(News(event="agent-stopped"))
        await self._link.stop()
        self._audit.close()
        self._state.running.unlink(missing_ok=True)
        self._lock.close()


def run_agent(config: AgentConfig) -> None:
    """Run an agent in this process until it is told to stop."""

    async def run() -> None:
        await Supervisor(config).run()

    asyncio.run(run())
