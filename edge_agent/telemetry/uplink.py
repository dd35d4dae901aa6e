"""The device's side of the fleet: telemetry out of the spool, presence, reported state, and hints in.

Everything is kept until the broker has acknowledged it; without a broker everything goes on and spools. A broker that
came back without its sessions acknowledges what nobody receives, so the spool also waits for a collector
(`edge_agent.telemetry.collectors`), unless told not to. How the spool is sent is `edge_agent.telemetry.spool_sender`,
the connection `edge_agent.mqtt.client`, the spool `edge_agent.telemetry.outbox`.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Protocol

import msgspec

from edge_agent.config.agent_toml import AgentConfig
from edge_agent.device_event import DeviceEvent
from edge_agent.mqtt.refusals import BrokerRefusals
from edge_agent.storage.durable import StateError
from edge_agent.telemetry.collectors import Collectors
from edge_agent.telemetry.outbox import Outbox
from edge_agent.telemetry.packet_room import PacketRoom
from edge_agent.telemetry.shortened import shorten_reported
from edge_agent.telemetry.spool_sender import SpoolSender
from edge_contracts.codec import encode
from edge_contracts.errors import ContractError
from edge_contracts.state import Presence, ReportedState, parse_presence
from edge_contracts.telemetry import Event, TelemetryWindow
from edge_contracts.topics import collector_topic, device_topic, hint_topic
from edge_contracts.transfer import parse_hint
from edge_io.mqtt.words import (
    Acknowledged,
    Connected,
    Disconnected,
    Granted,
    LinkEvent,
    MessageReceived,
    Refused,
    Will,
)

if TYPE_CHECKING:
    from edge_agent.mqtt.client import MqttLink

REPORT_S = 2.0
"""Least seconds between two reported states: a download in progress changes it many times a second."""

BATCH_S = 60.0
"""How long events wait to become durable together while the day's writes are saved."""

PRESENCE_SPREAD_S = 30.0
"""After a collector has come, devices publish their presence again spread over so many seconds."""

REFUSED_AGAIN_S = 300.0
"""How long after the broker refused presence or reported state these are tried again."""

MAX_COLLECTOR_BYTES = 64
"""A collector's name is no longer; what is, is none."""

_random = random.SystemRandom()
_log = logging.getLogger(__name__)


class Listener(Protocol):
    """Who acts on what the link hears."""

    def connected(self, up: bool) -> None: ...

    def hinted(self, timestamp_version: int) -> None: ...


class Uplink:
    """Made and used on the supervisor's event loop."""

    def __init__(
        self,
        config: AgentConfig,
        boot_id: str,
        outbox: Outbox,
        listener: Listener,
        tell: Callable[[DeviceEvent], None] = lambda _event: None,
    ) -> None:
        """`tell` is told what the broker refuses."""
        device, tenant = config.device.id, config.device.tenant
        self._boot_id = boot_id
        self._device = device
        self._outbox = outbox
        self._listener = listener
        self._tell = tell
        self._loop = asyncio.get_running_loop()
        self._topics = {name: device_topic(tenant, device, name) for name in ("presence", "reported", "tele")}
        self._hint_topic = hint_topic(tenant)
        self._answer_topic = device_topic(tenant, device, "collector")
        self._any_collector = collector_topic(tenant, "+")
        self._collectors = Collectors()
        self._wait_for_collector = config.telemetry.wait_for_collector
        self._retained: dict[int, str] = {}
        self._reported: ReportedState | None = None
        self._reports = 0
        self._report_after = 0.0
        self._presence_at: float | None = None
        self._present = self._stopped = False
        self._silence = self._stuck = ""
        self._refusals = BrokerRefusals("the broker")
        self._room = PacketRoom()
        self._sender = SpoolSender(outbox, self._refusals, self._publish_telemetry, self._news, utc_now)
        self._spool_refused = False
        self.saves_writes = False
        self._commit_after = 0.0
        self._mqtt: MqttLink | None = None
        if config.broker is not None:
            will = Will(topic=self._topics["presence"], payload=self._presence(online=False))
            subscriptions = tuple((topic, 1) for topic in uplink_topics(tenant, device))
            from edge_agent.mqtt.client import MqttLink  # a megabyte that a device without a broker has no use for

            self._mqtt = MqttLink(config.broker, f"ew-{device}", subscriptions, self._from_thread, will)

    @property
    def up(self) -> bool:
        return self._mqtt is not None and self._mqtt.connected

    @property
    def trouble(self) -> str:
        """Why there is no connection, or what the broker refuses while there is one; "" if all is well."""
        now = self._loop.time()
        away = self._silence or self._stuck
        standing = (self._refusals.contested(now),) if away else (self._refusals.text(now), self._unanswered(now))
        return "; ".join(dict.fromkeys(filter(None, (away, *standing))))

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
        body = encode(numbered)
        room = self._limit("reported")
        if room is not None and len(body) > room:
            short = shorten_reported(numbered, room)
            what = "sent without its longest tags and details" if short is not None else "not sent"
            self._news(self._refusals.refuse("reported state", f"over the {room} bytes it takes", what))
            if short is None:
                return
            body = short
        else:
            self._news(self._refusals.take("reported state"))
        self._publish_retained("reported", body)

    def tick(self) -> None:
        """Make acknowledgements durable and send what waits. To be called about once a second."""
        with self._spooling():
            self._commit()
        now = self._loop.time()
        if self._collectors.ask(now) or (self._presence_at is not None and now >= self._presence_at):
            self._presence_at = None
            self._publish_retained("presence", self._presence(online=True))
        if self._mqtt is not None:
            self._stuck = self._mqtt.watch()
        if self.up:
            self._news(self._refusals.lasts(now))
        self._pump()

    def _unanswered(self, now: float) -> str:
        waits = self.up and self._wait_for_collector and self._outbox.spooled > 0
        names = self._collectors.unanswered(now) if waits else ()
        if not names:
            return ""
        return f"telemetry waits: {names[0]} is announced and does not answer (is it gone, or may it not write to us?)"

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
        self._stopped = True
        if self._mqtt is not None:
            if self.up:
                self._publish_retained("presence", self._presence(online=False))
                await self._drain(2.0)
            await asyncio.to_thread(self._mqtt.stop)
        self._outbox.close()

    async def _drain(self, limit_s: float) -> None:
        deadline = self._loop.time() + limit_s
        while not (self._sender.idle and not self._retained) and self.up and self._loop.time() < deadline:
            await asyncio.sleep(0.02)

    def _pump(self) -> None:
        if self.up and (self._collectors.present or not self._wait_for_collector):
            self._sender.pump(self._loop.time(), self._limit("tele"))

    def _publish_telemetry(self, body: bytes) -> int | None:
        number = None if self._mqtt is None else self._mqtt.publish(self._topics["tele"], body, qos=1)
        if number is not None:
            self._room.sent(number, len(body))
        return number

    def _limit(self, topic: str) -> int | None:
        """Return how long a payload the broker takes there: as it says, or as was learned."""
        said = None if self._mqtt is None else self._mqtt.limits.payload_room(self._topics[topic])
        return self._room.limit(said)

    def _from_thread(self, event: LinkEvent) -> None:
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._hear, event)

    def _hear(self, event: LinkEvent) -> None:
        if isinstance(event, Acknowledged):
            self._taken(event)
        elif isinstance(event, Refused):
            self._refused(event)
        elif isinstance(event, MessageReceived):
            self._received(event)
        elif isinstance(event, Connected):
            self._connected(event)
        elif isinstance(event, Granted):
            self._news(self._refusals.granted(event))
        elif isinstance(event, Disconnected):
            self._disconnected(event)

    def _taken(self, event: Acknowledged) -> None:
        self._room.done(event.number)
        name = self._retained.pop(event.number, None)
        if name is not None:
            self._news(self._refusals.take(name))
            self._present |= name == "presence"
        now, must_be_heard = self._loop.time(), self._wait_for_collector
        if self._sender.taken(event, must_be_heard=must_be_heard, now=now):
            self._pump()

    def _refused(self, event: Refused) -> None:
        now = self._loop.time()
        self._room.done(event.number)
        name = self._retained.pop(event.number, None)
        if name is not None:
            self._news(self._refusals.refuse(name, event.reason, f"tried again in {REFUSED_AGAIN_S:g} s"))
        if name == "reported":
            self._reported, self._report_after = None, now + REFUSED_AGAIN_S
        elif name == "presence":
            self._presence_at = now + REFUSED_AGAIN_S
        if self._sender.refused(event, now):
            self._pump()

    def _received(self, event: MessageReceived) -> None:
        if event.topic == self._hint_topic:
            self._hint(event.payload)
        elif event.topic == self._answer_topic:
            if not event.retained and len(event.payload) <= MAX_COLLECTOR_BYTES:
                self._collectors.proven(event.payload.decode("utf-8", "replace"))
            self._pump()
        elif event.topic == self._topics["presence"]:
            self._own_presence(event)
        else:
            name = event.topic.rpartition("/")[2]
            if self._collectors.announced(name, here=bool(event.payload), retained=event.retained):
                self._presence_at = self._loop.time() + PRESENCE_SPREAD_S * _random.random()
            self._pump()

    def _own_presence(self, event: MessageReceived) -> None:
        """What is retained as our presence is ours, once we have said something: else there is another device. Not
        every broker tells when it takes a connection over for another client."""
        try:
            presence = parse_presence(event.payload)
        except ContractError:
            return
        if self._present and event.retained and presence.boot_id != self._boot_id:
            reason = f"another client has published as {self._device} since, of boot {presence.boot_id[:40]}"
            self._news(self._refusals.contest(reason, self._loop.time()))

    def _connected(self, event: Connected) -> None:
        _log.info("connected to the broker")
        self._silence = ""
        now = self._loop.time()
        self._room.connected(now)
        self._collectors.connected(now, blind=any(one.topic == self._any_collector for one in event.refused))
        self._news(self._refusals.greeted(event, now))
        self._publish_retained("presence", self._presence(online=True))
        self._reported = None
        self._report_after = 0.0
        self._listener.connected(True)
        self._pump()

    def _disconnected(self, event: Disconnected) -> None:
        if event.reason != self._silence:
            _log.info("broker disconnected: %s", event.reason)
            self._silence = event.reason
        now = self._loop.time()
        self._news(self._refusals.ended(event, now))
        learned = self._room.lost(event, now)
        if learned is not None:
            why = f"it ends the connection over {learned + 1} bytes"
            self._news(self._refusals.refuse("long messages", why, "they are shortened or left out"))
        self._collectors.forget()
        self._sender.restart()
        self._retained.clear()
        self._listener.connected(False)

    def _news(self, events: tuple[DeviceEvent, ...]) -> None:
        """Tell what happened, in a turn of its own: telling spools, and spooling sends."""
        for event in events:
            self._loop.call_soon(self._tell_one, event)

    def _tell_one(self, event: DeviceEvent) -> None:
        if not self._stopped:
            self._tell(event)

    def _hint(self, payload: bytes) -> None:
        try:
            hint = parse_hint(payload)
        except ContractError:
            return  # anybody may write there; a hint that cannot be read is none
        self._listener.hinted(hint.timestamp_version)

    def _publish_retained(self, topic: str, payload: bytes) -> None:
        number = None if self._mqtt is None else self._mqtt.publish(self._topics[topic], payload, qos=1, retain=True)
        if number is not None:
            self._retained[number] = topic
            self._room.sent(number, len(payload))

    def _presence(self, *, online: bool) -> bytes:
        time = utc_now() if online else None
        return encode(Presence(device=self._device, boot_id=self._boot_id, online=online, time=time))


def uplink_topics(tenant: str, device: str) -> tuple[str, ...]:
    """Return what a device listens to beside answers to its own requests."""
    own = (device_topic(tenant, device, "collector"), device_topic(tenant, device, "presence"))
    return (hint_topic(tenant), collector_topic(tenant, "+"), *own)


def utc_now() -> str:
    """Return the device's UTC time as contracts write it."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
