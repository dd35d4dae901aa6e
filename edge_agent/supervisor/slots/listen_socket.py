"""A slot's listening socket, bound once by the supervisor and handed to every worker.

An address may be taken, or not there yet: another program has the port, workers of an agent that was killed still
drain, a network interface comes up later. Then it is tried again, and the other slots do not wait for it.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable

from edge_agent.config.agent_toml import SlotConfig
from edge_agent.errors import ConfigError
from edge_io.addresses import address_text

SOON_S = 0.1
LATER_S = 1.0
"""Seconds between two tries, at first and once it is known to take longer."""

GRACE_S = 3.0
"""How much longer than a worker may drain the address is tried before anybody is told, in seconds."""

HINT = "another program uses this address, or it does not belong to this machine"


class ListenSocket:
    """The slot's socket: bound or not, and not listening, because before there is a model connections are refused."""

    def __init__(self, config: SlotConfig) -> None:
        self._config = config
        host, self._port = config.address
        self._host = host
        self.socket = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM)
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.socket.setblocking(False)
        self.bound = False
        self.trouble = ""
        """Why it is not bound, once that has lasted."""
        self.error = ""
        """Why the last try failed."""

    @property
    def http(self) -> str:
        """HOST:PORT, with the port the system gave if it is bound."""
        if not self.bound:
            return self._config.http
        host, port = self.socket.getsockname()[:2]
        return address_text(host, port)

    def bind(self) -> bool:
        """Try to bind; return whether it is."""
        if self.bound:
            return True
        try:
            self.socket.bind((self._host, self._port))
        except OSError as error:
            self.error = f"cannot listen on {self._config.http}: {error.strerror}"
            return False
        self.bound, self.trouble = True, ""
        return True

    async def wait(self, troubled: Callable[[str], None]) -> bool:
        """Try until it is bound; `troubled` is told why not, once, when that has lasted longer than a drain. Return
        whether it was."""
        loop, told = asyncio.get_running_loop(), False
        ends = loop.time() + self._config.drain_s + GRACE_S
        while not self.bind():
            late = loop.time() > ends
            if late and not told:
                self.trouble, told = self.error, True
                troubled(f"{self.error}; {HINT}")
            await asyncio.sleep(LATER_S if late else SOON_S)
        return told

    async def bind_or_refuse(self) -> None:
        """Try as long as a drain may take. Raises ConfigError."""
        try:
            await asyncio.wait_for(self.wait(lambda _: None), self._config.drain_s + GRACE_S)
        except TimeoutError:
            subject = f"config.slots[{self._config.name}].http"
            raise ConfigError(self.error, subject=subject, hint=HINT) from None

    def close(self) -> None:
        self.socket.close()
