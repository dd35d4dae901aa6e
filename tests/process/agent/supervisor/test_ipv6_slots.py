"""A slot at an IPv6 address: served, asked over MQTT, and shown as an address that can be asked."""

from __future__ import annotations

import socket
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from support.brokers.scripted_broker import ScriptedBroker, publish
from support.makers import bundles
from support.sites.agent_process import AgentProcess, eventually

QUESTION = b'{"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 4], "data": [1, 0, 0, 0]}]}'


def _has_ipv6() -> bool:
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        return False
    return True


@pytest.mark.skipif(not _has_ipv6(), reason="no IPv6 loopback here")
def test_a_slot_at_an_ipv6_address_is_shown_by_a_url_and_answers_over_mqtt_too(tmp_path: Path) -> None:
    bundles.make_bundle(tmp_path / "factory")
    with ScriptedBroker(suback=lambda _: 1) as broker:
        agent = AgentProcess(tmp_path, None, factory=tmp_path / "factory", broker_port=broker.port)
        text = agent.config.read_text().replace("127.0.0.1:0", "[::1]:0").replace('"3.1.1"', '"5"')
        agent.config.write_text(f'{text}[slots.mqtt]\ninput = "in"\noutput = "out"\n')
        with agent:
            assert agent.served_by() == "factory:1.0.0/fp32"
            assert urlsplit(f"http://{agent.slot().http}/v2").hostname == "::1"
            eventually("connected", lambda: agent.status().data_broker_connected)
            broker.send(publish(b"in", QUESTION), "ew-dev-1-data")
            eventually("answered", lambda: any(message.topic == "out" for message in broker.published))
