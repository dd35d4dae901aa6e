"""The connection for data: requests in on the slots' input topics, answers out, and what Home Assistant sees.

It is apart from the link to the fleet (`edge_agent.telemetry.uplink`), because it may go to another broker, and because
a flood of data must not hold up updates and telemetry. One slot's part is in
`edge_agent.supervisor.mqtt_gateway.slot_bridge`.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from edge_agent.config.agent_toml import AgentConfig
from edge_agent.device_event import DeviceEvent
from edge_agent.mqtt.client import MqttLink
from edge_agent.storage.durable import StateError
from edge_agent.storage.state_dir import StateFolder, read_manifest
from edge_agent.supervisor.mqtt_gateway.home_assistant import HomeAssistant
from edge_agent.supervisor.mqtt_gateway.messages import Body
from edge_agent.supervisor.mqtt_gateway.slot_bridge import SlotBridge
from edge_agent.supervisor.slots.slot import Slot
from edge_contracts.limits import MAX_DATA_BYTES
from edge_contracts.manifest import Manifest
from edge_contracts.state import Installed, Level
from edge_io.mqtt.words import Acknowledged, Connected, Disconnected, LinkEvent, MessageReceived

IN_FLIGHT = 20
"""Answers the broker has not acknowledged; more wait, so that a slow broker fills the queues and not the memory."""

ACCEPT_BYTES = 2 * MAX_DATA_BYTES
"""Messages up to here are read, so that one that is too long gets its error; a broker with MQTT 5 keeps longer ones."""

_log = logging.getLogger(__name__)


class MqttGateway:
    """Made and used on the supervisor's event loop. Without data topics and Home Assistant it does nothing."""

    def __init__(
        self,
        config: AgentConfig,
        slots: Mapping[str, Slot],
        tell: Callable[[DeviceEvent], None],
        home: HomeAssistant | None,
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._home = home
        self._in_flight: set[int] = set()
        self._room = asyncio.Event()
        self._trouble = ""
        self._feeds = {
            name: SlotBridge(slot, slot.config.mqtt, self._publish, tell, self._answered)
            for name, slot in slots.items()
            if slot.config.mqtt is not None
        }
        self._link: MqttLink | None = None
        broker = config.data_broker
        if broker is not None and (self._feeds or home is not None):
            inputs = {feed.topics.input for feed in self._feeds.values()}
            subscriptions = tuple((topic, 1) for topic in sorted(inputs))
            if home is not None:
                subscriptions += ((home.birth_topic, 1),)
            will = None if home is None else home.will
            name = f"ew-{config.device.id}-data"
            self._link = MqttLink(broker, name, subscriptions, self._from_thread, will, ACCEPT_BYTES)

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
        if self._home is not None and self._link is not None and self._link.connected:
            for topic, payload in self._home.due(now, level):
                self._link.publish(topic, payload, qos=1, retain=self._home.keeps(topic))

    @property
    def announced(self) -> frozenset[str]:
        """Topics of the discovery messages that Home Assistant keeps."""
        return frozenset() if self._home is None else frozenset(self._home.discovery())

    def faults(self, slot: str) -> tuple[str, ...]:
        """Return what is wrong with the slot's input."""
        feed = self._feeds.get(slot)
        return () if feed is None else feed.faults

    def gauges(self, slot: str) -> dict[str, float]:
        """Return the readings of the slot's input; nothing for a slot without one."""
        feed = self._feeds.get(slot)
        return {} if feed is None else feed.gauges

    async def stop(self, forget: Iterable[str] = ()) -> None:
        """Say goodbye and end. `forget` are retained topics that nothing will be told on any more."""
        await asyncio.gather(*(feed.stop() for feed in self._feeds.values()))
        if self._link is None:
            return
        for topic in forget:
            self._link.publish(topic, b"", qos=1, retain=True)
        if self._home is not None:
            self._link.publish(self._home.will.topic, self._home.will.payload, qos=1, retain=True)
        await asyncio.to_thread(self._link.stop)

    def _answered(self, slot: Slot, answer: Body) -> None:
        if self._home is not None:
            self._home.answered(slot, answer)

    async def _publish(self, topic: str, payload: bytes, correlation: bytes | None) -> bool:
        while self._link is not None and self._link.connected:
            if len(self._in_flight) < IN_FLIGHT:
                number = self._link.publish(topic, payload, qos=1, correlation=correlation)
                if number is not None:
                    self._in_flight.add(number)
                return number is not None
            self._room.clear()
            await self._room.wait()
        return False

    def _from_thread(self, event: LinkEvent) -> None:
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._hear, event)

    def _hear(self, event: LinkEvent) -> None:
        if isinstance(event, MessageReceived):
            if self._home is not None and event.topic == self._home.birth_topic:
                self._home.born(event.payload, self._loop.time())
            for feed in self._feeds.values():
                if feed.topics.input == event.topic:
                    feed.hear(event)
        elif isinstance(event, Acknowledged):
            self._in_flight.discard(event.number)
            self._room.set()
        elif isinstance(event, Connected):
            _log.info("connected to the data broker")
            self._trouble = ""
            if self._home is not None:
                self._home.announce_at(self._loop.time())
        elif isinstance(event, Disconnected):
            if event.reason != self._trouble:
                _log.info("data broker disconnected: %s", event.reason)
                self._trouble = event.reason
            self._in_flight.clear()
            self._room.set()


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

    home = config.home_assistant
    view = None if home is None else HomeAssistant(home, config.device.id, slots, manifest_of)
    return MqttGateway(config, slots, tell, view)
