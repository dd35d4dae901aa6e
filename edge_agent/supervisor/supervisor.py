"""The supervisor: the one process that is always there. It wires slots, updates, link, governor and status together.

It imports no numpy, engine or TUF, so that it stays small and nothing a model does can take it down. What happens in
a slot is in `edge_agent.supervisor.slots.slot`, when updates run in `edge_agent.supervisor.update_controller`, what
leaves the device in `edge_agent.telemetry.uplink`, requests over MQTT in `edge_agent.supervisor.mqtt_gateway.gateway`,
how the box is in `edge_agent.supervisor.resource_monitor`.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import signal
import uuid
from pathlib import Path

import msgspec

from edge_agent import __version__
from edge_agent.config.agent_toml import AgentConfig, load_config
from edge_agent.config.profiles import load_profile
from edge_agent.config.reload_plan import ReloadPlan
from edge_agent.device_event import Detail, DeviceEvent
from edge_agent.errors import ConfigError
from edge_agent.host.level_actions import Orders
from edge_agent.host.sensors import Sensors, architecture, memory_of
from edge_agent.host.systemd_notify import Notifier
from edge_agent.ipc.control import ControlReply, ControlRequest, serve_control, serve_status
from edge_agent.ipc.status import AgentStatus
from edge_agent.storage.audit_log import AuditLog
from edge_agent.storage.state_dir import StateFolder
from edge_agent.supervisor.agent_clock import AgentClock, ClockChange
from edge_agent.supervisor.config_reload import ConfigReload, open_slots
from edge_agent.supervisor.event_log import REFUSALS, EventLog, stored_refusals
from edge_agent.supervisor.identity_monitor import IdentityMonitor
from edge_agent.supervisor.mqtt_gateway.gateway import MqttGateway, open_data
from edge_agent.supervisor.resource_monitor import ResourceMonitor
from edge_agent.supervisor.slots.slot import Slot, Surroundings
from edge_agent.supervisor.status import slot_status
from edge_agent.supervisor.storage_monitor import StorageMonitor
from edge_agent.supervisor.telemetry_window import gauges, shadow_gauges, window_message
from edge_agent.supervisor.update_controller import UpdateController
from edge_agent.telemetry.otlp_exporter import OtlpExporter
from edge_agent.telemetry.outbox import Outbox
from edge_agent.telemetry.uplink import Uplink, utc_now
from edge_contracts.limits import MIB
from edge_contracts.state import ReportedState, SlotState
from edge_io.addresses import address_text

TICK_S = 0.5
"""How often deadlines, workers and the spool are looked at, in seconds."""

GOVERN_S = 5.0
"""How often the sensors are read, in seconds; more often where the profile's dwell time is shorter."""

GARBAGE_S = 60.0
"""How often releases and objects that nobody needs are looked for, in seconds."""

PAUSE_S = 3.0
"""A pause of this process that is worth telling, in seconds."""

SHED_S = 5.0
"""Retry-After of requests that a critical device turns away, in seconds."""

_log = logging.getLogger(__name__)


class Supervisor:
    """One agent. Made and run on an event loop; `run` returns when it was told to stop."""

    def __init__(self, config: AgentConfig, path: Path | None = None) -> None:
        """Open everything the agent keeps; `path` is the file `config` came from, for reloading it. Raises ConfigError
        or StateError naming what is wrong."""
        self._config = config
        self._profile = load_profile(config.device.profile)
        self._state = StateFolder(config.state)
        self._state.create()
        self._lock = self._state.lock()
        self._boot_id = uuid.uuid4().hex
        self._clock = AgentClock(self._state.floor, Path(config.device.sensors))
        self._clean = not self._state.running.exists()
        self._first = not self._state.audit.exists()
        self._power_cut = self._state.ran_before_this_boot()
        self._audit = AuditLog(self._state.audit)
        limit = int(self._profile.storage.spool_mb * MIB)
        self._outbox = Outbox(self._state.outbox, device=config.device.id, boot_id=self._boot_id, limit_bytes=limit)
        self._link = Uplink(config, self._boot_id, self._outbox, self, lambda event: self.tell(event))
        refusals = stored_refusals(self._state)
        self._journal = EventLog(config.device.id, self._boot_id, self._audit, refusals, self._link.put)
        self.tell = self._journal.tell
        self._sensors = Sensors(config.state, Path(config.device.sensors))
        self._box = ResourceMonitor(self._state.root, self._profile, self._sensors, self.tell)
        self._storage = StorageMonitor(self._state, self._audit, self._outbox, self.tell, self._link.reconnect)
        self._notifier = Notifier()
        self._otlp = OtlpExporter(__version__)
        self._stop = asyncio.Event()
        self._around = Surroundings(
            state=self._state,
            profile=self._profile,
            clock=self._clock,
            tell=self.tell,
            calm=lambda: self._box.orders.installs,
            clock_known=lambda: self._clock.known,
        )
        self._slots = {slot.name: Slot(slot, self._around) for slot in config.slots}
        self._updates = UpdateController(config, self._state, self._slots, self._journal)
        self._data = self._open_data()
        self._identity = IdentityMonitor(config.broker, self._state.floor, self.tell, self._reconnect)
        self._reloader = ConfigReload(path, lambda: self._config, self._take, self.tell)
        self._window_start = utc_now()
        self._next: dict[str, float] = {}

    async def run(self) -> None:
        """Serve, update and report until SIGTERM or SIGINT."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop.set)
        loop.add_signal_handler(signal.SIGHUP, self._reloader.hang_up)
        self._state.mark_running()
        self._tell_start()
        for slot in self._slots.values():
            slot.start(clean=self._clean, power_cut=self._power_cut)
        listeners = await self._listen()
        self._link.start()
        self._data.start()
        self._updates.bring_staged()
        self._notifier.ready()
        _log.info("agent %s started, state folder %s", self._config.device.id, self._state.root)
        while not self._stop.is_set():
            self._tick(loop.time())
            try:
                await asyncio.wait_for(self._stop.wait(), TICK_S)
            except TimeoutError:
                continue
        for listener in listeners:
            listener.close()
        await self._shut_down()

    async def _listen(self) -> list[asyncio.Server]:
        """Let commands on this machine ask; without that the agent still serves."""
        listeners: list[asyncio.Server] = []
        group = self._config.device.status_group
        try:
            listeners.append(await serve_control(self._state, self._answer))
            if group is not None:
                listeners.append(await serve_status(self._state, self._answer, group))
        except (OSError, ConfigError) as error:
            _log.error("commands cannot ask this agent for everything: %s", error)
        return listeners

    # What the link hears (link.Listener)

    def connected(self, up: bool) -> None:
        self._updates.connected = up
        if up and not self._updates.running:
            self._updates.look()

    def hinted(self, timestamp_version: int) -> None:
        self._updates.hinted(timestamp_version)

    def _tick(self, now: float) -> None:
        if change := self._clock.tick():
            self._follow_clock(change)
        if self._due("govern", now, min(GOVERN_S, self._profile.governor.dwell_s)):
            self._govern(now)  # first: what waits for a calm device must not wait a second longer
        for slot in self._slots.values():
            slot.tick()
        self._updates.tick()
        self._link.tick()
        self._data.tick(now, self._box.governor.level)
        self._identity.tick(self._link.up)
        window_is_over = self._due("window", now, self._config.telemetry.window_s, at_once=False)
        if window_is_over and not self._box.orders.saves_writes:
            self._close_windows()
        if self._due("garbage", now, GARBAGE_S) and not self._updates.running:
            self._collect()
        if self._due("cycles", now, GARBAGE_S, at_once=False):
            gc.collect()  # those of ended workers and connections: left to itself, Python may wait for hours
        self._link.report(self._reported())
        self._notifier.alive()

    def _follow_clock(self, change: ClockChange) -> None:
        """Move the records' points of time with the wall clock, and past the time in which this process stood still."""
        for slot in self._slots.values():
            slot.shift(stepped_s=change.stepped_s, lost_s=change.lost_s)
        if change.stepped_s:
            self._window_start = utc_now()
            text = f"the system's clock was set by {change.stepped_s:+.1f} s"
            self.tell(DeviceEvent(event="clock-set", text=text, detail={"seconds": round(change.stepped_s, 1)}))
        if change.lost_s > PAUSE_S:
            text = f"the agent did not run for {change.lost_s:.0f} s: the device, or its service, was paused"
            paused: Detail = {"seconds": round(change.lost_s, 1)}
            self.tell(DeviceEvent(event="agent-paused", severity="warning", text=text, detail=paused))

    def _due(self, what: str, now: float, every_s: float, *, at_once: bool = True) -> bool:
        due = now >= self._next.get(what, now if at_once else now + every_s)
        if due or what not in self._next:
            self._next[what] = now + every_s
        return due

    def _govern(self, now: float) -> None:
        # Without the shadows: they take what nobody else wants, and must not make a device conserve.
        children = [worker.pid for slot in self._slots.values() for worker in slot.serving.workers]
        if self._updates.pid is not None:
            children.append(self._updates.pid)
        priorities = frozenset(slot.config.priority for slot in self._slots.values())
        self._box.look(children, priorities, now, self._clock())
        self._storage.look()
        self._carry_out(self._box.orders)
        self._notifier.status(f"{self._box.governor.level}, {self._outbox.spooled} messages in the outbox")

    def _carry_out(self, orders: Orders) -> None:
        """Do what follows from the level, in every slot."""
        self._link.saves_writes = orders.saves_writes
        self._updates.storage_trouble = self._storage.trouble
        self._updates.allow(orders.installs, self._box.words)
        for slot in self._slots.values():
            shed_s = SHED_S if slot.config.priority in orders.away else 0.0
            slot.serving.conserve(orders.lighten_for, shed_s=shed_s)
            if orders.unloads_idle:
                slot.unload_if_idle(self._box.detail)
            slot.taps.allow(self._box.readings, calm=orders.observes)
            slot.serving.view(self._gauges(slot) | shadow_gauges(slot.taps.shadowing.totals))

    def _gauges(self, slot: Slot) -> dict[str, float]:
        box = gauges(self._box.governor.level, self._box.readings, self._outbox)
        ways_in = self._data.gauges(slot.config.name) | slot.input.gauges
        return box | {"written_today_mb": self._box.writes.today_mb} | ways_in

    def _close_windows(self) -> None:
        end = utc_now()
        for slot in self._slots.values():
            self._send_window(slot, end)
        self._window_start = end

    def _send_window(self, slot: Slot, end: str) -> None:
        frame = (self._config.device.id, self._boot_id, self._window_start, end)
        build = window_message(slot, frame, self._box.governor.level, self._gauges(slot))
        self._link.put(build)
        self._otlp.put(build(0), self._config.telemetry.otlp)
        slot.window.clear()

    def _collect(self) -> None:
        keep = frozenset[str]().union(*(slot.keeps() for slot in self._slots.values()))
        try:
            for gone in self._state.collect_garbage(keep):
                _log.info("removed release %s, no longer needed", gone[:16])
        except OSError as error:
            _log.warning("cannot remove unused files: %s", error)

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
            level=self._box.governor.level,
            slots=tuple(map(self._slot_state, self._slots.values())),
            trusted=self._updates.trusted,
            facts=self._updates.facts,
            audit_head=self._audit.head,
            dropped=self._outbox.dropped,
        )

    def _slot_state(self, slot: Slot) -> SlotState:
        faults = dict.fromkeys((*slot.faults, *self._data.faults(slot.config.name), *self._storage.faults))
        return msgspec.structs.replace(slot.reported(), faults=tuple(faults))

    def _tell_start(self) -> None:
        detail: Detail = {"clean": self._clean, "power_cut": self._power_cut, "version": __version__}
        how = "the device restarted" if self._power_cut else "the agent ended"
        text = "after a clean stop" if self._clean else f"after an unclean stop: {how}"
        text = "for the first time" if self._first and self._clean else text
        self.tell(
            DeviceEvent(event="agent-started", severity="info" if self._clean else "warning", text=text, detail=detail)
        )

    async def _answer(self, ask: ControlRequest) -> ControlReply:
        if ask.ask == "import":
            troubles = await self._updates.bring(ask.folder)
            return ControlReply(status=self.status(), troubles=tuple(troubles))
        if ask.ask == "repair":
            troubles = await self._updates.repair()
            return ControlReply(status=self.status(), troubles=tuple(troubles))
        if ask.ask == "reload":
            outcome = await self._reloader.reload()
            return ControlReply(status=self.status(), changed=outcome.changed, refused=outcome.refused)
        return ControlReply(status=self.status())

    async def _take(self, new: AgentConfig, plan: ReloadPlan) -> None:
        """Go by the new configuration. Raises ConfigError, with nothing changed, if a new slot cannot be opened."""
        added = await open_slots(plan.added, self._around)
        self._config = new
        removed = [self._slots.pop(name) for name in plan.removed]
        self._slots |= added
        for config in plan.altered:
            slot = self._slots[config.name]
            slot.config = config
            slot.serving.configure(config)
            slot.input.configure(config.stale_after_s)
            slot.taps.capturing.configure(config.capture)
        self._updates.configure(new, self._slots)
        for slot in added.values():
            slot.start(clean=True)
        if plan.data_changed:
            old, self._data = self._data, self._open_data()
            await old.stop()
            self._data.start()
        await asyncio.gather(*(slot.stop() for slot in removed))
        for slot in removed:
            self._send_window(slot, utc_now())

    def _open_data(self) -> MqttGateway:
        return open_data(self._config, self._slots, self._state, self.tell)

    def _reconnect(self) -> None:
        """Show another identity to the brokers."""
        self._link.reconnect()
        self._data.reconnect()

    def status(self) -> AgentStatus:
        """Return what `agent status` shows."""
        broker = self._config.broker
        return AgentStatus(
            running=True,
            device=self._config.device.id,
            pid=os.getpid(),
            updater_pid=self._updates.pid,
            boot_id=self._boot_id,
            level=self._box.governor.level,
            level_reasons=self._box.governor.reasons,
            updates_wait=self._storage.trouble or ("" if self._updates.may_install else self._box.words),
            storage_trouble=self._storage.trouble,
            broker=None if broker is None else address_text(broker.host, broker.port),
            broker_connected=self._link.up,
            broker_trouble=self._link.trouble,
            data_broker=self._data.address if self._data.used else None,
            data_broker_connected=self._data.up,
            data_broker_trouble=self._data.trouble,
            identity=self._identity.status(),
            memory_mb=memory_of(os.getpid()),
            writes=self._box.writes,
            slots=tuple(slot_status(slot, self._slot_state(slot)) for slot in self._slots.values()),
            trusted=self._updates.trusted,
            spooled=self._outbox.spooled,
            dropped=self._outbox.dropped,
            audit_head=self._audit.head,
            refusals=tuple(self._journal.refusals)[-REFUSALS:],
        )

    async def _shut_down(self) -> None:
        """Stop in order: nothing new, then the workers, then the last words."""
        self._notifier.stopping()
        await self._data.stop()
        await self._updates.stop()
        await self._identity.stop()
        await asyncio.gather(*(slot.stop() for slot in self._slots.values()))
        self._close_windows()
        self.tell(DeviceEvent(event="agent-stopped"))
        await self._otlp.stop()
        await self._link.stop()
        self._box.close()
        self._audit.close()
        self._state.mark_stopped()
        self._lock.close()


async def run_agent(path: Path) -> None:
    """Run the agent of that configuration file until it is told to stop. Raises ConfigError, StateError."""
    await Supervisor(load_config(path), path).run()
