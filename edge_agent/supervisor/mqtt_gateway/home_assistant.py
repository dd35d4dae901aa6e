"""What Home Assistant sees: MQTT discovery, availability and states of a device and its slots.

Source: home-assistant.io, integrations/mqtt, "MQTT discovery" and sensor.mqtt. Everything is published on the data
connection (`edge_agent.supervisor.mqtt_gateway.gateway`); class and confidence come from the answers that pass over it.

    <prefix>/sensor/<node>/<sensor>/config   retained: one per sensor
    <base>/<device>/availability             retained "online" or "offline", the connection's Last Will
    <base>/<device>/state                    {"level": ...}
    <base>/<device>/<slot>/state             {"version": ..., "served_by": ...}
    <base>/<device>/<slot>/answer            {"class": ..., "confidence": percent}, at most once a second
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from edge_agent.config.agent_toml import HomeAssistantConfig, MqttTopics
from edge_agent.supervisor.mqtt_gateway.messages import Body, unpacked
from edge_agent.supervisor.mqtt_gateway.top_class import top_class
from edge_agent.supervisor.slots.slot import Slot
from edge_contracts import __version__
from edge_contracts.codec import encode
from edge_contracts.manifest import Manifest
from edge_contracts.state import Level
from edge_io.mqtt.words import Will

ANSWER_S = 1.0
"""Least seconds between two states of a slot's class: Home Assistant keeps every change in its database."""

BIRTH_SPREAD_S = 3.0
"""After Home Assistant's birth, devices announce themselves spread over so many seconds."""

_random = random.SystemRandom()

Message = tuple[str, bytes]


class HomeAssistant:
    """Used on the supervisor's event loop. `manifest_of` gives the manifest a slot serves from, if it can be read."""

    def __init__(
        self,
        config: HomeAssistantConfig,
        device: str,
        slots: Mapping[str, Slot],
        manifest_of: Callable[[Slot], Manifest | None],
    ) -> None:
        self._config = config
        self._device = device
        self._slots = slots
        self._manifest_of = manifest_of
        self._base = f"{config.base}/{device}"
        self.birth_topic = f"{config.prefix}/status"
        self.will = Will(topic=f"{self._base}/availability", payload=b"offline")
        self._announce_at: float | None = None
        self._refresh_at = 0.0
        self._told: dict[str, bytes] = {}
        self._answers: dict[str, tuple[Slot, Body]] = {}
        self._answers_at = 0.0

    def born(self, payload: bytes, now: float) -> None:
        """Home Assistant has come (or gone): announce everything again, a little later."""
        if payload == b"online":
            self._announce_at = now + BIRTH_SPREAD_S * _random.random()

    def announce_at(self, now: float) -> None:
        """Announce everything at `now`: the connection is new."""
        self._announce_at = now

    def answered(self, slot: Slot, answer: Body) -> None:
        """Note a slot's newest answer."""
        self._answers[slot.config.name] = (slot, answer)

    def due(self, now: float, level: Level) -> Iterator[Message]:
        """Give the messages that are due: all of them after an announcement, states that changed or would expire,
        and the newest answers."""
        if self._announce_at is not None and now >= self._announce_at:
            self._announce_at = None
            self._refresh_at = 0.0
            yield from self.discovery().items()
            yield self.will.topic, b"online"
        refresh = now >= self._refresh_at
        if refresh:
            self._refresh_at = now + self._config.expire_s / 3.0
        for topic, payload in self._states(level).items():
            if refresh or self._told.get(topic) != payload:
                self._told[topic] = payload
                yield topic, payload
        if self._answers and now >= self._answers_at:
            self._answers_at = now + ANSWER_S
            answers, self._answers = self._answers, {}
            for slot, answer in answers.values():
                yield from self._answer_state(slot, answer)

    def keeps(self, topic: str) -> bool:
        """Return whether a message is retained: discovery and availability, and no state, which would look fresh."""
        return topic.endswith("/config") or topic == self.will.topic

    def discovery(self) -> dict[str, bytes]:
        """Return the discovery messages by topic."""
        sensors = [self._sensor("level", "Level", f"{self._base}/state", "level", icon="mdi:gauge")]
        for name, slot in self._slots.items():
            topic = f"{self._base}/{name}"
            sensors.append(
                self._sensor(f"{name}_version", f"{name} version", f"{topic}/state", "version", icon="mdi:tag")
            )
            if slot.config.mqtt is not None:
                sensors += self._answer_sensors(name, slot.config.mqtt)
        node = _identifier(f"edgewright_{self._device}")
        return {
            f"{self._config.prefix}/sensor/{node}/{sensor['unique_id']}/config": encode(sensor) for sensor in sensors
        }

    def _answer_sensors(self, slot: str, topics: MqttTopics) -> list[dict[str, Any]]:
        answer = f"{self._base}/{slot}/answer"
        expires = {"expire_after": max(1, round(topics.stale_after_s or self._config.expire_s))}
        share = {"unit_of_measurement": "%", "state_class": "measurement"}
        return [
            self._sensor(f"{slot}_class", f"{slot} class", answer, "class", **expires),
            self._sensor(f"{slot}_confidence", f"{slot} confidence", answer, "confidence", **expires, **share),
        ]

    def _answer_state(self, slot: Slot, answer: Body) -> Iterator[Message]:
        fields, manifest = unpacked(answer), self._manifest_of(slot)
        if manifest is None or fields.get("model_version") != manifest.version:
            return  # another rung answered; its labels are not these
        found = top_class(fields, manifest)
        if found is not None:
            name, share = found
            state = {"class": name, "confidence": None if share is None else round(100.0 * share, 1)}
            yield f"{self._base}/{slot.config.name}/answer", encode(state)

    def _states(self, level: Level) -> dict[str, bytes]:
        states: dict[str, bytes] = {f"{self._base}/state": encode({"level": level})}
        for name, slot in self._slots.items():
            reported = slot.reported()
            version = None if reported.serving is None else reported.serving.version
            state = {"version": version, "served_by": reported.served_by}
            states[f"{self._base}/{name}/state"] = encode(state)
        return states

    def _sensor(self, what: str, name: str, topic: str, field: str, **more: Any) -> dict[str, Any]:
        return {
            "name": name,
            "unique_id": _identifier(f"edgewright_{self._device}_{what}"),
            "state_topic": topic,
            "value_template": f"{{{{ value_json.{field} }}}}",
            "availability_topic": self.will.topic,
            "expire_after": round(self._config.expire_s),
            "device": {
                "identifiers": [f"edgewright_{self._device}"],
                "name": self._device,
                "manufacturer": "Edgewright",
                "model": "Edge inference agent",
                "sw_version": __version__,
            },
            "origin": {"name": "edgewright", "sw_version": __version__},
        } | more


def _identifier(text: str) -> str:
    """Return `text` as Home Assistant allows it in a topic level; two names that differ stay different."""
    return re.sub(r"[^A-Za-z0-9_-]", lambda found: f"-{ord(found.group()):x}-", text)
