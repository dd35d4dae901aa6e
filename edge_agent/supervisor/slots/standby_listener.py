"""Holds a slot's socket while it has no worker: answers 503, or wakes a worker on the first connection.

A few lines in the supervisor instead of a worker with an engine and no model. A `StandbyListener` answers 503 with
Retry-After, whatever is asked: requests are not parsed, their bytes are read within limits and forgotten. A
`WakeOnConnect` takes nothing from the socket, so a connection waits there for the worker it wakes. Real answers are
`edge_agent.http.oip_app`.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import socket
from collections.abc import Callable

import msgspec

from edge_contracts.limits import KIB

NOTHING = "no release installed yet; see `edgewright agent status`"
RETRY_AFTER_S = 10.0
AT_ONCE = 32
"""Connections answered at one time; more wait in the backlog."""
BUSY_S = 0.1
ANSWER_S = 5.0
"""The longest one connection may take, in seconds."""
_READ_BYTES = 64 * KIB

_HEAD = (
    b"HTTP/1.1 503 Service Unavailable\r\ncontent-type: application/json\r\nconnection: close\r\n"
    b"retry-after: %d\r\ncontent-length: %d\r\n\r\n"
)


class StandbyListener:
    """Answers on a listening socket between `open` and `close`. Used on the supervisor's event loop."""

    def __init__(self, listener: socket.socket) -> None:
        self._listener = listener
        self._accepting: asyncio.Task[None] | None = None
        self._answering: set[asyncio.Task[None]] = set()

    def open(self, reason: str = NOTHING, retry_after_s: float = RETRY_AFTER_S) -> None:
        """Begin; nothing happens if it has begun. The socket must be bound and non-blocking."""
        if self._accepting is None:
            body = msgspec.json.encode({"error": reason})
            answer = _HEAD % (math.ceil(retry_after_s), len(body)) + body
            self._listener.listen()
            self._accepting = asyncio.create_task(self._accept(answer))

    def close(self) -> None:
        """Accept nothing more: whoever connects from now on waits for a worker."""
        if self._accepting is not None:
            self._accepting.cancel()
            self._accepting = None

    async def _accept(self, answer: bytes) -> None:
        while True:
            if len(self._answering) >= AT_ONCE:
                await asyncio.wait(self._answering, return_when=asyncio.FIRST_COMPLETED)
            try:
                connection, _ = await asyncio.get_running_loop().sock_accept(self._listener)
            except OSError:  # out of descriptors, or the client is gone already
                await asyncio.sleep(BUSY_S)
                continue
            task = asyncio.create_task(_answer(connection, answer))
            self._answering.add(task)
            task.add_done_callback(self._answering.discard)


class WakeOnConnect:
    """Says once that somebody has connected, between `watch` and `close`. Used on the supervisor's event loop."""

    def __init__(self, listener: socket.socket) -> None:
        self._listener = listener
        self._watching = False

    def watch(self, ring: Callable[[], None]) -> None:
        """Begin; nothing happens if it has begun. The socket must be listening."""
        if not self._watching:
            self._watching = True
            asyncio.get_running_loop().add_reader(self._listener, self._heard, ring)

    def close(self) -> None:
        """Watch no more."""
        if self._watching:
            self._watching = False
            asyncio.get_running_loop().remove_reader(self._listener)

    def _heard(self, ring: Callable[[], None]) -> None:
        self.close()
        ring()


async def _answer(connection: socket.socket, answer: bytes) -> None:
    loop = asyncio.get_running_loop()
    connection.setblocking(False)
    with connection, contextlib.suppress(OSError, TimeoutError):
        async with asyncio.timeout(ANSWER_S):
            await loop.sock_recv(connection, _READ_BYTES)
            await loop.sock_sendall(connection, answer)
            connection.shutdown(socket.SHUT_WR)
            # A socket closed with bytes unread resets the connection, and the client may lose the answer.
            while await loop.sock_recv(connection, _READ_BYTES):
                continue
