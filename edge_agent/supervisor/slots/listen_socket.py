"""A slot's listening socket, bound once by the supervisor and handed to every worker."""

from __future__ import annotations

import errno
import socket
import time

from edge_agent.config.agent_toml import SlotConfig
from edge_agent.errors import ConfigError


def bind(config: SlotConfig) -> socket.socket:
    """Return the slot's socket, bound but not listening: before there is a model, connections are refused.

    After an agent was killed, its workers drain before they let go of the address, so it is tried for that long.
    """
    host, port = config.address
    deadline = time.monotonic() + config.drain_s + 3.0
    while True:
        bound = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM)
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            bound.bind((host, port))
        except OSError as error:
            bound.close()
            if error.errno == errno.EADDRINUSE and time.monotonic() < deadline:
                time.sleep(0.1)
                continue
            text = f"cannot listen on {config.http}: {error.strerror}"
            hint = "another program uses this address, or it does not belong to this machine"
            raise ConfigError(text, subject=f"config.slots[{config.name}].http", hint=hint) from error
        bound.setblocking(False)
        return bound
