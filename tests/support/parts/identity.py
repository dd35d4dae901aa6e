"""What `test_identity.py` and `test_identity_processes.py` share."""

from __future__ import annotations

import time
from pathlib import Path

from support.brokers.broker_identities import Authority

from edge_agent.config.agent_toml import BrokerConfig
from edge_agent.mqtt.client import MqttLink
from edge_io.mqtt.words import LinkEvent

# Over TLS


def settings(authority: Authority, port: int, pair: tuple[Path, Path]) -> BrokerConfig:
    certificate, key = map(str, pair)
    return BrokerConfig(
        host="127.0.0.1",
        port=port,
        tls=True,
        ca_file=str(authority.file),
        certificate_file=certificate,
        key_file=key,
    )


def first_event(broker: BrokerConfig) -> LinkEvent:
    """Return the first event of a connection."""
    events: list[LinkEvent] = []
    link = MqttLink(broker, "dev-a", (), events.append)
    link.start()
    deadline = time.monotonic() + 20
    while not events:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    link.stop()
    return events[0]
