"""The device's side of the fleet: telemetry out of the spool, presence, reported state, and hints in.

Everything is kept until the broker has acknowledged it; without a broker everything goes on and spools. A broker that
came back without its sessions acknowledges what nobody receives, so the spool also waits for a collector, unless told
not to. The connection is `edge_agent.mqtt.client`, the spool `edge_agent.telemetry.outbox`.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Protocol

import msgspec

from edge_agent.config.agent_toml import AgentConfig
from edge_agent.mqtt.client import MqttLink
from edge_agent.storage.durable import StateError
from edge_agent.telemetry.outbox import Outbox
from edge_contracts.codec import encode
from edge_contracts.errors import ContractError
from edge_contracts.state import Presence, ReportedState
from edge_contracts.telemetry import Event, TelemetryWindow
from edge_contracts.topics import collector_topic, device_topic, hint_topic
from edge_contracts.transfer import parse_hint
from edge_io.mqtt.words import Acknowledged, Connected, Disconnected, LinkEvent, MessageReceived, Will

IN_FLIGHT = 20
"""Messages handed to the broker and not acknowledged: MQTT 5's common Receive Maximum, and paho's own window."""

REPORT_S = 2.0
"""Least seconds between two reported states: a download in progress changes it many times a second."""

BATCH_S = 60.0
"""How long events wait to become durable together while the day's writes are saved."""

MAX_COLLECTORS = 64
"""Collectors remembered; one is enough to send."""

_log = logging.getLogger(__name__)


class Listener(Protocol):
    """Who acts on what the link hears."""

    def connected(self, up: bool) -> None: ...

    def hinted(self, timestamp_version: int) -> None: ...


class Uplink:
    """Made and used on the supervisor's event loop."""

    def __init__(self, config: AgentConfig, boot_id: str, outbox: Outbox, listener: Listener) -> None:
        device, tenant = config.device.id, config.device.tenant
        self._boot_id = boot_id
        self._device = device
        self._outbox = outbox
        self._listener = listener
        self._loop = asyncio.get_running_loop()
        self._topics = {name: device_topic(tenant, device, name) for name in ("presence", "reported", "tele")}
        self._hint_topic = hint_topic(tenant)
        self._any_collector = collector_topic(tenant, "+")
        self._collectors: set[str] = set()
        self._wait_for_collector = config.telemetry.wait_for_collector
        self._in_flight: dict[int, int] = {}
        self._last_row = 0
        self._reported: ReportedState | None = None
        self._reports = 0
        self._report_after = 0.0
        self._silence = ""
        self._spool_refused = False
        self.saves_writes = False
        self._commit_after = 0.0
        self._mqtt: MqttLink | None = None
        if config.broker is not None:
            will = Will(topic=self._topics["presence"], payload=self._presence(online=False))
            subscriptions = ((self._hint_topic, 1), (self._any_collector, 1))
            self._mqtt = MqttLink(config.broker, f"ew-{device}", subscriptions, self._from_thread, will)

    @property
    def up(self) -> bool:
        return self._mqtt is not None and self._mqtt.connected

    @property
    def trouble(self) -> str:
        """Why there is no connection, as far as it is known; "" while there is one."""
        return self._silence

    def start(self) -> None:
        if self._mqtt is not None:
            self._mqtt.start()

    def reconnect(self) -> None:
        """Connect anew with the files that are there now."""
        if self._mqtt is not None:
            self._mqtt.reconnect()

    def put(self, build: Callable[[int], TelemetryWindow | Event]) -> None:
        """Spool a message; it goes out when it can. It is durable at once, or with the next batch while the day's
        writes are saved. A full disk loses it, and says so here."""
        with self._spooling():
            self._outbox.put(build)
            self._commit()
        self._pump()

    def report(self, state: ReportedState) -> None:
        """Publish the reported state if it says something new; its sequence and time are set here."""
        now = self._loop.time()
        if not self.up or now < self._report_after or state == self._reported:
            return
        self._reported, self._report_after = state, now + REPORT_S
        numbered = msgspec.structs.replace(state, sequence=self._reports, time=utc_now())
        self._reports += 1
        self._publish_retained("reported", encode(numbered))

    def tick(self) -> None:
        """Make acknowledgements durable and send what waits. To be called about once a second."""
        with self._spooling():
            self._commit()
        self._pump()

    def _commit(self) -> None:
        now = self._loop.time()
        if not self.saves_writes or now >= self._commit_after:
            self._commit_after = now + BATCH_S
            self._outbox.commit(utc_now())

    @contextlib.contextmanager
    def _spooling(self) -> Iterator[None]:
        """Go on without what the disk refuses; say it once until it takes something again."""
        try:
            yield
        except StateError as error:
            if not self._spool_refused:
                _log.error("%s", error)
            self._spool_refused = True
        else:
            self._spool_refused = False

    async def stop(self) -> None:
        """Say goodbye and close the spool."""
        if self._mqtt is not None:
            if self.up:
                self._publish_retained("presence", self._presence(online=False))
                await self._drain(2.0)
            await asyncio.to_thread(self._mqtt.stop)
        self._outbox.close()

    async def _drain(self, limit_s: float) -> None:
        deadline = self._loop.time() + limit_s
        while self._in_flight and self.up and self._loop.time() < deadline:
            await asyncio.sleep(0.02)

    def _pump(self) -> None:
        if self._mqtt is None or (self._wait_for_collector and not self._collectors):
            return
        while self.up and len(self._in_flight) < IN_FLIGHT:
            waiting = self._outbox.pending(self._last_row, IN_FLIGHT - len(self._in_flight))
            if not waiting:
                return
            for row, body in waiting:
                number = self._mqtt.publish(self._topics["tele"], body, qos=1)
                if number is None:
                    return
                self._in_flight[number] = row
                self._last_row = row

    def _from_thread(self, event: LinkEvent) -> None:
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._hear, event)

    def _hear(self, event: LinkEvent) -> None:
        if isinstance(event, Acknowledged):
            row = self._in_flight.pop(event.number, None)
            if row is not None:
                self._outbox.acknowledge(row)
                self._pump()
        elif isinstance(event, MessageReceived):
            if event.topic == self._hint_topic:
                self._hint(event.payload)
            else:
                self._collector(event)
        elif isinstance(event, Connected):
            _log.info("connected to the broker")
            self._silence = ""
            self._publish_retained("presence", self._presence(online=True))
            self._reported = None
            self._report_after = 0.0
            self._listener.connected(True)
            self._pump()
        elif isinstance(event, Disconnected):
            if event.reason != self._silence:
                _log.info("broker disconnected: %s", event.reason)
                self._silence = event.reason
            self._collectors.clear()
            self._in_flight.clear()
            self._last_row = 0  # whatever is not acknowledged goes again, in order
            self._listener.connected(False)

    def _collector(self, event: MessageReceived) -> None:
        """A collector has come or gone. Anybody may write there, but waiting or not waiting loses nothing of ours."""
        if event.payload and len(self._collectors) < MAX_COLLECTORS:
            self._collectors.add(event.topic)
        elif not event.payload:
            self._collectors.discard(event.topic)
        self._pump()

    def _hint(self, payload: bytes) -> None:
        try:
            hint = parse_hint(payload)
        except ContractError:
            return  # anybody may write there; a hint that cannot be read is none
        self._listener.hinted(hint.timestamp_version)

    def _publish_retained(self, topic: str, payload: bytes) -> None:
        if self._mqtt is not None:
            self._mqtt.publish(self._topics[topic], payload, qos=1, retain=True)

    def _presence(self, *, online: bool) -> bytes:
        time = utc_now() if online else None
        return encode(Presence(device=self._device, boot_id=self._boot_id, online=online, time=time))


def utc_now() -> str:
    """Return the device's UTC time as contracts write it."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
