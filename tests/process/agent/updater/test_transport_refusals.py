"""What the broker refuses the updater or an enrollment is the reason that is given, and small packets are asked for."""

from __future__ import annotations

import struct
import time

import pytest
from support.brokers.brokers import free_port
from support.brokers.scripted_broker import Published, ScriptedBroker, publish
from support.parts.transports import BLOB, DATA

from edge_agent.backoff import RoundTrip
from edge_agent.config.agent_toml import BrokerConfig
from edge_agent.enrollment.client import EnrollmentClient, ask
from edge_agent.errors import UnreachableError
from edge_agent.updater.transports.mqtt import MqttTransport
from edge_contracts.enrollment import CertificateRequest
from edge_contracts.transfer import Response, pack, unpack_request

QUICK = RoundTrip(timeout_s=0.3, floor_s=0.2)


def transport(port: int, timeout_s: float = 5.0) -> MqttTransport:
    settings = BrokerConfig(host="127.0.0.1", port=port, protocol="5")
    return MqttTransport(settings, "default", "dev-1", timeout_s=timeout_s, timer=QUICK)


def failure(carrier: MqttTransport) -> str:
    with pytest.raises(UnreachableError) as caught:
        carrier.read("blob", BLOB, 0, 1000)
    carrier.close()
    return str(caught.value)


def test_a_refused_subscription_to_replies_fails_at_once_with_the_reason() -> None:
    with ScriptedBroker(suback=lambda _: 0x87) as broker:
        began = time.monotonic()
        assert "refuses the subscription to replies: Not authorized (0x87)" in failure(transport(broker.port, 30.0))
        assert time.monotonic() - began < 10


def test_a_refused_request_fails_with_the_reason() -> None:
    with ScriptedBroker(puback=lambda _: 0x87) as broker:
        assert "the broker refuses requests: Not authorized (0x87)" in failure(transport(broker.port, 30.0))


def test_a_missing_depot_is_told_where_the_broker_tells() -> None:
    with ScriptedBroker(puback=lambda _: 0x10) as broker:
        assert "no depot is connected" in failure(transport(broker.port, 2.0))


def test_a_broker_that_does_not_accept_the_device_is_told() -> None:
    with ScriptedBroker(connack=lambda _: (0x86, b"")) as broker:
        assert "no connection to the broker (the broker did not accept" in failure(transport(broker.port, 2.0))
    assert "no connection to the broker (no connection: " in failure(transport(free_port(), 1.0))


def test_a_piece_is_asked_for_in_as_many_packets_as_the_broker_takes() -> None:
    asked: list[int] = []

    def depot(message: Published) -> int:
        request = unpack_request(message.payload)
        asked.append(request.length)
        body = DATA[request.offset : request.offset + request.length]
        answer = pack(Response(id=request.id, status="ok", offset=request.offset, total=len(DATA), body=body))
        assert len(answer) + len(request.reply) + 16 <= 600
        broker.send(publish(request.reply.encode(), answer))
        return 0

    with ScriptedBroker(connack=lambda _: (0, b"\x27" + struct.pack(">I", 600)), puback=depot) as broker:
        carrier = transport(broker.port)
        assert carrier.read("blob", BLOB, 100, 1200) == (DATA[100:1300], len(DATA))
        assert carrier.read("blob", BLOB, len(DATA) - 10, 1200) == (DATA[-10:], len(DATA))
        carrier.close()
    assert len(asked) > 2


@pytest.mark.parametrize(
    ("suback", "puback", "text"),
    [
        (0x87, 0, "refuses the subscription to answers: Not authorized"),
        (0, 0x87, "refuses the request on asks: Not authorized"),
        (0, 0x10, "none is connected to the broker"),
        (0, 0, "no reply from the enrollment service"),
    ],
)
def test_an_enrollment_without_an_answer_says_what_the_broker_said(suback: int, puback: int, text: str) -> None:
    request = CertificateRequest(nonce="n" * 16, certificate=b"c", csr=b"r", signature=b"s")
    with ScriptedBroker(suback=lambda _: suback, puback=lambda _: puback) as broker:
        desk = EnrollmentClient(BrokerConfig(host="127.0.0.1", port=broker.port, protocol="5"), "asks", "answers")
        with pytest.raises(UnreachableError) as caught:
            ask(desk, request, 6.0 if "no reply" in text else 2.0)
    assert text in str(caught.value)
