"""What `test_transports.py` tests, where it takes a real process or a wait."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from support.brokers.brokers import BROKERS, make_broker
from support.parts.transports import BLOB, DATA

from edge_agent.config.agent_toml import BrokerConfig
from edge_agent.errors import NotFoundError, UnreachableError
from edge_agent.mqtt.client import MqttLink
from edge_agent.updater.transports.mqtt import MqttTransport
from edge_contracts.topics import all_devices
from edge_contracts.transfer import Response, Status, pack, unpack_request
from edge_io.mqtt.words import LinkEvent, MessageReceived


class Depot:
    """Answers requests over MQTT: each with the next of `script`, and once it is used up with the bytes."""

    def __init__(self, broker: BrokerConfig, script: list[Status | None]) -> None:
        self._script = script
        self.asked = 0
        self._link = MqttLink(broker, "depot", ((all_devices("default", "req"), 0),), self._heard)
        self._link.start()
        assert self._link.wait_connected(10)

    def _heard(self, event: LinkEvent) -> None:
        if not isinstance(event, MessageReceived):
            return
        self.asked += 1
        request = unpack_request(event.payload)
        status = self._script.pop(0) if self._script else "ok"
        if status is None:
            return  # lost on the way
        body = DATA[request.offset : request.offset + request.length] if status == "ok" else b""
        answer = Response(
            id=request.id, status=status, offset=request.offset, total=len(DATA), retry_after=0.1, body=body
        )
        self._link.publish(request.reply, pack(answer))

    def stop(self) -> None:
        self._link.stop()


@pytest.mark.parametrize("kind", BROKERS)
def test_mqtt_brings_pieces_asks_again_and_waits_as_told(tmp_path: Path, kind: str) -> None:
    with make_broker(kind, tmp_path) as broker:
        settings = BrokerConfig(host="127.0.0.1", port=broker.port)  # protocol auto: 5, and 3.1.1 where it must be
        depot = Depot(settings, [None, "retry_after", "ok", "not_found"])
        carrier = MqttTransport(settings, "default", "dev-1", timeout_s=15.0)
        assert carrier.read("blob", BLOB, 256, 1000) == (DATA[256:1256], len(DATA))
        assert depot.asked == 3
        with pytest.raises(NotFoundError):
            carrier.read("metadata", "2.root.json", 0, 10)
        carrier.close()
        depot.stop()


class Unruly(Depot):
    """Answers each question late, behind the answer to the one before, twice, and with one that nobody asked for."""

    def __init__(self, broker: BrokerConfig) -> None:
        self._last = b""
        super().__init__(broker, [])

    def _heard(self, event: LinkEvent) -> None:
        if not isinstance(event, MessageReceived):
            return
        self.asked += 1
        request = unpack_request(event.payload)
        body = DATA[request.offset : request.offset + request.length]
        answer = pack(Response(id=request.id, status="ok", offset=request.offset, total=len(DATA), body=body))
        foreign = pack(Response(id=request.id + 1000, status="ok", total=len(DATA), body=b"\0" * request.length))
        for payload in (self._last, foreign, answer, answer, b"not a response"):
            self._link.publish(request.reply, payload)
        self._last = answer


@pytest.mark.parametrize("kind", BROKERS)
def test_mqtt_repeated_late_and_foreign_answers_do_no_harm(tmp_path: Path, kind: str) -> None:
    with make_broker(kind, tmp_path) as broker:
        settings = BrokerConfig(host="127.0.0.1", port=broker.port)
        depot = Unruly(settings)
        carrier = MqttTransport(settings, "default", "dev-1", timeout_s=15.0)
        offsets = range(0, len(DATA), 1000)
        with ThreadPoolExecutor(4) as pool:
            pieces = list(pool.map(lambda offset: carrier.read("blob", BLOB, offset, 1000), offsets))
        assert b"".join(body for body, _ in pieces) == DATA
        assert depot.asked == len(offsets)
        carrier.close()
        depot.stop()


def test_mqtt_without_a_depot_is_unreachable(tmp_path: Path) -> None:
    with make_broker("embedded", tmp_path) as broker:
        carrier = MqttTransport(BrokerConfig(host="127.0.0.1", port=broker.port), "default", "dev-1", timeout_s=3.0)
        with pytest.raises(UnreachableError, match="no reply from a depot"):
            carrier.read("metadata", "timestamp.json", 0, 10)
        carrier.close()
