"""The embedded MQTT broker (rumqttd) as a child process that can be killed and brought back on the same port.

For the demonstration and quick tests. A fleet runs a real broker: `firmware_configs/mosquitto`.
"""

from __future__ import annotations

import signal
import socket
from types import TracebackType
from typing import Any

from edge_contracts.errors import MissingExtraError
from edge_contracts.limits import MIB

PACKET_BYTES = 1 * MIB
"""Largest packet the broker accepts; ours are below 128 kB."""


def free_port() -> int:
    """Return a loopback TCP port that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class EmbeddedBroker:
    """A broker on a fixed loopback port. It speaks MQTT 3.1.1."""

    protocol = "3.1.1"

    def __init__(self, port: int | None = None) -> None:
        self.port = port or free_port()
        self._broker: Any = None

    @property
    def pid(self) -> int:
        """The broker's process id, once it is started."""
        return int(self._broker._process.pid)

    def start(self) -> None:
        """Start, or start again after `kill`; returns once connections are accepted. Raises MissingExtraError."""
        try:
            import iotcore
        except ModuleNotFoundError as error:
            raise MissingExtraError("demo", "iotcore") from error
        self._broker = iotcore.Broker(port=self.port, listen="127.0.0.1", max_payload_size=PACKET_BYTES)
        self._broker.start()

    def kill(self) -> None:
        """End the broker with SIGKILL: no goodbye to its clients, retained messages and sessions are gone."""
        process = self._broker._process
        process.send_signal(signal.SIGKILL)
        process.wait()
        self._broker.stop()

    def stop(self) -> None:
        """End the broker; harmless when it does not run."""
        if self._broker is not None:
            self._broker.stop()

    def __enter__(self) -> EmbeddedBroker:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
