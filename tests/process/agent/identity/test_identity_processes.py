"""What `test_identity.py` tests, where it takes a real process or a wait."""

from __future__ import annotations

import socket
import ssl
import time
from datetime import timedelta
from pathlib import Path

import pytest
from support.brokers.broker_identities import Authority
from support.brokers.brokers import Mosquitto
from support.brokers.shipped_broker import Ports, shipped_lines
from support.parts.identity import first_event, settings

from edge_agent.config.agent_toml import BrokerConfig
from edge_agent.mqtt.tls import tls_context
from edge_io.mqtt.words import Connected, Disconnected


def shake_hands(context: ssl.SSLContext, port: int) -> None:
    with socket.create_connection(("127.0.0.1", port)) as plain:
        context.wrap_socket(plain, server_hostname="127.0.0.1").close()


def test_a_refused_certificate_is_said_to_be_the_reason(tmp_path: Path) -> None:
    authority, ports = Authority(tmp_path), Ports()
    pair = authority.issue("dev-a")
    authority.revoke(pair[0])
    with Mosquitto(tmp_path, lines=shipped_lines(tmp_path, ports), port=ports.devices) as broker:
        time.sleep(1.2)  # the list begins in a second
        # A broker that closes at once may take its own word back (TCP's reset): it is asked again.
        refused = first_event(settings(authority, broker.port, pair))
    assert isinstance(refused, Disconnected)
    assert "did not accept" in refused.reason
    assert "revoked" in refused.reason


def test_a_clock_behind_its_own_authority_does_not_shut_the_device_out(tmp_path: Path) -> None:
    """A broker whose certificate has not begun yet is to our clock what any broker is to a clock at 1970."""
    authority, ports = Authority(tmp_path), Ports()
    authority.write_broker(begin=timedelta(hours=6))
    broker = settings(authority, ports.devices, authority.issue("dev-a"))
    stranger = settings(Authority(tmp_path / "stranger"), ports.devices, authority.issue("dev-a"))
    with Mosquitto(tmp_path, lines=shipped_lines(tmp_path, ports), port=ports.devices):
        with pytest.raises(ssl.SSLCertVerificationError, match="not yet valid"):
            shake_hands(tls_context(broker, clock=time.time()), broker.port)
        shake_hands(tls_context(broker, clock=0.0), broker.port)
        with pytest.raises(ssl.SSLCertVerificationError, match="certificate verify failed"):
            shake_hands(tls_context(stranger, clock=0.0), broker.port)


def test_a_certificate_of_the_device_authority_is_no_broker(tmp_path: Path) -> None:
    authority, ports = Authority(tmp_path), Ports()
    broker = settings(authority, ports.devices, authority.issue("dev-a"))
    for stolen, path in zip(
        authority.issue("127.0.0.1"), (tmp_path / "broker.pem", tmp_path / "broker.key"), strict=True
    ):
        path.write_bytes(stolen.read_bytes())
    with Mosquitto(tmp_path, lines=shipped_lines(tmp_path, ports), port=ports.devices):
        for clock in (0.0, time.time()):
            with pytest.raises(ssl.SSLCertVerificationError, match=r"verify failed: (self-signed|unable to get)"):
                shake_hands(tls_context(broker, clock), broker.port)


def test_files_that_are_not_there_are_a_reason_to_be_offline_and_no_reason_to_end(tmp_path: Path) -> None:
    event = first_event(BrokerConfig(host="127.0.0.1", port=1, tls=True, ca_file=str(tmp_path / "none.pem")))
    assert isinstance(event, Disconnected)
    assert "TLS files cannot be used" in event.reason
    assert str(tmp_path / "none.pem") in event.reason
    assert not isinstance(event, Connected)
