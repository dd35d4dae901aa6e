"""The device's link to a broker: `edge_io.mqtt.link` with the device's settings, identity and waits.

What travels over it is decided elsewhere: telemetry in `edge_agent.telemetry.uplink`, requests for update bytes in
`edge_agent.updater.transports`, inference in `edge_agent.supervisor.mqtt_gateway`.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from edge_agent.backoff import full_jitter
from edge_agent.config.agent_toml import BrokerConfig
from edge_agent.errors import ConfigError
from edge_contracts.limits import MAX_ENVELOPE_BYTES
from edge_io.mqtt.link import BrokerLink
from edge_io.mqtt.session import LinkSettings, SettingsError
from edge_io.mqtt.words import LinkEvent, Subscription, Will

if TYPE_CHECKING:
    import ssl

RECONNECT_BASE_S = 1.0
RECONNECT_CAP_S = 60.0
"""Waits between attempts, with full jitter: a fleet must not come back to its broker all in one second."""

_random = random.SystemRandom()


class MqttLink(BrokerLink):
    """A link of the device's, in a thread of its own once it is started."""

    def __init__(
        self,
        settings: BrokerConfig,
        client_id: str,
        subscriptions: tuple[tuple[str, int], ...],
        tell: Callable[[LinkEvent], None],
        will: Will | None = None,
        max_bytes: int = MAX_ENVELOPE_BYTES,
    ) -> None:
        """`subscriptions` are (topic filter, QoS), made again at every connection. Files are read at every connection,
        too; one that cannot be used is told as `Disconnected`, because the device must serve without its broker."""
        link = LinkSettings(
            host=settings.host,
            port=settings.port,
            client_id=client_id,
            protocol=settings.protocol,
            username=settings.username,
            password_file=settings.password_file,
            tls=(lambda: _context(settings)) if settings.tls else None,
            keepalive_s=settings.keepalive_s,
            subscriptions=tuple(Subscription(topic=topic, qos=qos) for topic, qos in subscriptions),
            will=will,
            max_bytes=max_bytes,
        )
        super().__init__(link, tell, _wait_s)


def _context(settings: BrokerConfig) -> ssl.SSLContext:
    from edge_agent.mqtt.tls import tls_context

    try:
        return tls_context(settings, time.time())
    except ConfigError as error:
        raise SettingsError(str(error)) from error


def _wait_s(attempt: int) -> float:
    return full_jitter(attempt, _random.random(), base_s=RECONNECT_BASE_S, cap_s=RECONNECT_CAP_S)
