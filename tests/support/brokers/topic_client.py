"""Whoever is on the other side of a data topic: a sensor, a dashboard, Home Assistant, an attacker.

with TopicClient(broker.port, "answers/#") as client: client.send("sensors/x", body); client.wait("answers/x")
"""

from __future__ import annotations

import threading
from typing import Any

import paho.mqtt.client as paho
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from support.sites.agent_process import eventually


class TopicClient:
    """One MQTT client subscribed to `topics`; `heard` has every message in order."""

    def __init__(self, port: int, *topics: str, version5: bool = True) -> None:
        self.heard: list[Any] = []
        self._topics = topics
        self._subscribed = threading.Event()
        protocol = paho.MQTTv5 if version5 else paho.MQTTv311
        self._client: Any = paho.Client(callback_api_version=paho.CallbackAPIVersion.VERSION2, protocol=protocol)
        self._client.on_connect = lambda *_: self._client.subscribe([(topic, self._how()) for topic in topics])
        self._client.on_subscribe = lambda *_: self._subscribed.set()
        self._client.on_message = lambda _client, _data, message: self.heard.append(message)
        self._version5 = version5
        self._port = port

    def __enter__(self) -> TopicClient:
        self._client.connect("127.0.0.1", self._port)
        self._client.loop_start()
        assert self._subscribed.wait(10)
        return self

    def __exit__(self, *_: object) -> None:
        self._client.disconnect()
        self._client.loop_stop()

    def send(
        self,
        topic: str,
        payload: bytes,
        *,
        retain: bool = False,
        response_topic: str | None = None,
        correlation: bytes | None = None,
    ) -> None:
        """Publish and wait until the broker has it."""
        properties = None
        if response_topic is not None or correlation is not None:
            properties = Properties(PacketTypes.PUBLISH)
            if response_topic is not None:
                properties.ResponseTopic = response_topic
            if correlation is not None:
                properties.CorrelationData = correlation
        self._client.publish(topic, payload, qos=1, retain=retain, properties=properties).wait_for_publish(10)

    def on(self, topic: str) -> list[Any]:
        """Return what was heard on one topic."""
        return [message for message in self.heard if message.topic == topic]

    def wait(self, topic: str, count: int = 1, timeout_s: float = 20.0) -> Any:
        """Wait until `count` messages were heard on a topic; return the last of them."""
        eventually(f"{count} messages on {topic}", lambda: len(self.on(topic)) >= count, timeout_s)
        return self.on(topic)[count - 1]

    def _how(self) -> Any:
        # Retained messages arrive marked as such in both versions of the protocol.
        return paho.SubscribeOptions(qos=1) if self._version5 else 1
