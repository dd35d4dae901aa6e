"""The connection for data: requests in on the slots' input topics, answers out, and what Home Assistant sees.

It is apart from the link to the fleet (`edge_agent.telemetry.uplink`), because it may go to another broker, and because
a flood of data must not hold up updates and telemetry. One slot's part is in
`edge_agent.supervisor.mqtt_gateway.slot_bridge`.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from edge_agent.config.agent_toml import AgentConfig
from edge_agent.device_event import DeviceEvent
from edge_agent.mqtt.refusals import BrokerRefusals
from edge_agent.storage.durable import StateError
from edge_agent.storage.state_dir import StateFolder, read_manifest
from edge_agent.supervisor.mqtt_gateway.kept_topics import KeptTopics
from edge_agent.supervisor.mqtt_gateway.messages import Body
from edge_agent.supervisor.mqtt_gateway.slot_bridge import SlotBridge
from edge_agent.supervisor.slots.slot import Slot
from edge_agent.telemetry.packet_room import PacketRoom
from edge_contracts.limits import MAX_DATA_BYTES
from edge_contracts.manifest import Manifest
from edge_contracts.state import Installed, Level
from edge_io.addresses import address_text
from edge_io.mqtt.words import Acknowledged, Connected, Disconnected, Granted, LinkEvent, MessageReceived, Refused

if TYPE_CHECKING:
    from edge_agent.mqtt.client import MqttLink
    from edge_agent.supervisor.mqtt_gateway.home_assistant import HomeAssistant

IN_FLIGHT = 20
"""Answers the broker has not acknowledged; more wait, so that a slow broker fills the queues and not the memory."""

ACCEPT_BYTES = 2 * MAX_DATA_BYTES
"""Messages up to here are read, so that one that is too long gets its error; a broker with MQTT 5 keeps longer ones."""

_LOST = "the connection ended"
"""Why a message was not taken that the broker said nothing about."""

_log = logging.getLogger(__name__)


class MqttGateway:
    """Made and used on the supervisor's event loop. Without data topics and Home Assistant, and with nothing of theirs
    left to take away, it does nothing."""

    def __init__(
        self,
        config: AgentConfig,
        slots: Mapping[str, Slot],
        tell: Callable[[DeviceEvent], None],
        home: HomeAssistant | None,
        kept: KeptTopics | None,
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._home = home
        self._kept = kept
        self._tell = tell
        self._under_way: dict[int, Callable[[str], None]] = {}
        self._room = asyncio.Event()
        self._trouble = self._stuck = ""
        self._refusals = BrokerRefusals("the data broker")
        self._packets = PacketRoom()
        self._left_over: set[str] = set() if kept is None else set(kept.topics - self._announced())
        self._feeds = {
            name: SlotBridge(slot, slot.config.mqtt, self._publish, tell, self._answered, self._payload_room)
            for name, slot in slots.items()
            if slot.config.mqtt is not None
        }
        self._link: MqttLink | None = None
        broker = config.data_broker
        self.address = None if broker is None else address_text(broker.host, broker.port)
        if broker is not None and (self._feeds or home is not None or self._left_over):
            inputs = {feed.topics.input for feed in self._feeds.values()}
            subscriptions = tuple((topic, 1) for topic in sorted(inputs))
            if home is not None:
                subscriptions += ((home.birth_topic, 1),)
            will = None if home is None else home.will
            name = f"ew-{config.device.id}-data"
            from edge_agent.mqtt.client import MqttLink  # loaded only where there is a broker

            self._link = MqttLink(broker, name, subscriptions, self._from_thread, will, ACCEPT_BYTES)

    @property
    def used(self) -> bool:
        """Whether there is a connection to keep."""
        return self._link is not None

    @property
    def up(self) -> bool:
        return self._link is not None and self._link.connected

    @property
    def trouble(self) -> str:
        """Why there is no connection, or what the broker refuses while there is one; "" if all is well."""
        return self._trouble or self._stuck or self._refusals.text(self._loop.time())

    def start(self) -> None:
        if self._link is not None:
            self._link.start()

    def reconnect(self) -> None:
        """Connect anew with the files that are there now."""
        if self._link is not None:
            self._link.reconnect()

    def tick(self, now: float, level: Level) -> None:
        """Notice silences, and tell Home Assistant what is due. To be called about once a second."""
        for feed in self._feeds.values():
            feed.look(now)
        if self._link is None:
            return
        self._stuck = self._link.watch()
        if not self._link.connected:
            return
        self._news(self._refusals.lasts(self._loop.time()))
        if self._home is not None:
            for topic, payload in self._home.due(now, level):
                what = "discovery messages" if topic.endswith("/config") else "states for Home Assistant"
                self._hand_over(topic, payload, partial(self._told, what), retain=self._home.keeps(topic))

    def faults(self, slot: str) -> tuple[str, ...]:
        """Return what is wrong with the slot's input."""
        feed = self._feeds.get(slot)
        return () if feed is None else feed.faults

    def gauges(self, slot: str) -> dict[str, float]:
        """Return the readings of the slot's input; nothing for a slot without one."""
        feed = self._feeds.get(slot)
        return {} if feed is None else feed.gauges

    async def stop(self) -> None:
        """Say goodbye, wait for the broker's word on it, and end."""
        await asyncio.gather(*(feed.stop() for feed in self._feeds.values()))
        if self._link is None:
            return
        if self._home is not None:
            self._link.publish(self._home.will.topic, self._home.will.payload, qos=1, retain=True)
        await asyncio.to_thread(self._link.stop)

    def _announced(self) -> frozenset[str]:
        """Return the topics on which the broker retains what Home Assistant is told."""
        return frozenset() if self._home is None else frozenset(self._home.discovery()) | {self._home.will.topic}

    def _answered(self, slot: Slot, answer: Body) -> None:
        if self._home is not None:
            self._home.answered(slot, answer)

    async def _publish(
        self, topic: str, payload: bytes, correlation: bytes | None, taken: Callable[[bool], None]
    ) -> None:
        """Publish an answer once there is room. A broker that leaves an acknowledgement out ends the connection, and
        with it the wait."""

        def settle(reason: str) -> None:
            self._told(f"answers on {topic}", reason)
            taken(not reason)

        while self.up:
            if len(self._under_way) < IN_FLIGHT:
                self._hand_over(topic, payload, settle, correlation=correlation)
                return
            self._room.clear()
            await self._room.wait()
        taken(False)

    def _hand_over(
        self,
        topic: str,
        payload: bytes,
        settle: Callable[[str], None],
        *,
        retain: bool = False,
        correlation: bytes | None = None,
    ) -> None:
        """Give a message to the link; `settle` is told "" when the broker has taken it, else the reason."""
        number = (
            None
            if self._link is None
            else self._link.publish(topic, payload, qos=1, retain=retain, correlation=correlation)
        )
        if number is None:
            settle(_LOST)
            return
        self._under_way[number] = settle
        self._packets.sent(number, len(payload))

    def _payload_room(self, topic: str) -> int:
        said = None if self._link is None else self._link.limits.payload_room(topic)
        limit = self._packets.limit(said)
        return MAX_DATA_BYTES if limit is None else limit

    def _told(self, what: str, reason: str) -> None:
        if not reason:
            self._news(self._refusals.take(what))
        elif reason != _LOST:
            self._news(self._refusals.refuse(what, reason, "nobody sees them"))

    def _take_away(self) -> None:
        """Clear what an earlier configuration has left retained, and remember what this one leaves."""
        if self._kept is None:
            return
        self._kept.remember(self._announced() | self._left_over)
        for topic in sorted(self._left_over):
            self._hand_over(topic, b"", partial(self._taken_away, topic), retain=True)

    def _taken_away(self, topic: str, reason: str) -> None:
        if reason:
            self._told("clearing discovery messages", reason)
            return
        self._left_over.discard(topic)
        if self._left_over or self._kept is None:
            return
        self._kept.remember(self._announced())
        if self._link is not None and not self._feeds and self._home is None:
            link, self._link = self._link, None  # that was all there was to do
            self._loop.run_in_executor(None, link.stop)

    def _from_thread(self, event: LinkEvent) -> None:
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._hear, event)

    def _hear(self, event: LinkEvent) -> None:
        if isinstance(event, MessageReceived):
            self._received(event)
        elif isinstance(event, Acknowledged):
            self._settled(event.number, "")
        elif isinstance(event, Refused):
            self._settled(event.number, event.reason)
        elif isinstance(event, Connected):
            self._connected(event)
        elif isinstance(event, Granted):
            self._news(self._refusals.granted(event))
        elif isinstance(event, Disconnected):
            self._disconnected(event)

    def _received(self, event: MessageReceived) -> None:
        if self._home is not None and event.topic == self._home.birth_topic:
            self._home.born(event.payload, self._loop.time())
        for feed in self._feeds.values():
            if feed.topics.input == event.topic:
                feed.hear(event)

    def _settled(self, number: int, reason: str) -> None:
        self._packets.done(number)
        settle = self._under_way.pop(number, None)
        self._room.set()
        if settle is not None:
            settle(reason)

    def _connected(self, event: Connected) -> None:
        _log.info("connected to the data broker")
        self._trouble = ""
        now = self._loop.time()
        self._packets.connected(now)
        self._news(self._refusals.greeted(event, now))
        self._take_away()
        if self._home is not None:
            self._home.announce_at(now)

    def _disconnected(self, event: Disconnected) -> None:
        if event.reason != self._trouble:
            _log.info("data broker disconnected: %s", event.reason)
            self._trouble = event.reason
        now = self._loop.time()
        self._news(self._refusals.ended(event, now))
        learned = self._packets.lost(event, now)
        if learned is not None:
            why = f"it ends the connection over {learned + 1} bytes"
            self._news(self._refusals.refuse("long answers", why, "they are refused here"))
        lost, self._under_way = self._under_way, {}
        for settle in lost.values():
            settle(_LOST)
        self._room.set()

    def _news(self, events: tuple[DeviceEvent, ...]) -> None:
        for event in events:
            self._tell(event)


def open_data(
    config: AgentConfig, slots: Mapping[str, Slot], state: StateFolder, tell: Callable[[DeviceEvent], None]
) -> MqttGateway:
    """Return the data topics that `config` asks for, not started."""

    known: dict[str, tuple[Installed, Manifest]] = {}  # the newest manifest of each slot

    def manifest_of(slot: Slot) -> Manifest | None:
        serving, name = slot.reported().serving, slot.config.name
        if serving is None:
            return None
        if name not in known or known[name][0] != serving:
            folder = slot.config.factory if serving == slot.factory else None
            try:
                found = read_manifest(Path(folder))[0] if folder else state.read_manifest(serving.manifest_sha256)
            except StateError:
                return None
            known[name] = (serving, found)
        return known[name][1]

    view = None
    if config.home_assistant is not None:
        from edge_agent.supervisor.mqtt_gateway.home_assistant import HomeAssistant  # few devices have one

        view = HomeAssistant(config.home_assistant, config.device.id, slots, manifest_of)
    broker = config.data_broker
    kept = None if broker is None else KeptTopics(state.kept_topics, f"{broker.host}:{broker.port}")
    return MqttGateway(config, slots, tell, view, kept)
