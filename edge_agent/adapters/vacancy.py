"""What a slot answers while there is nothing to serve: 503 with Retry-After, whatever is asked, on its own socket.

A few lines in the supervisor instead of a worker with an engine and no model. Requests are not parsed: their bytes are
read within limits and forgotten. Real answers are `edge_agent.adapters.http`.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket

import msgspec

from edge_contracts.limits import KIB

RETRY_AFTER_S = 10
AT_ONCE = 32
"""Connections answered at one time; more wait in the backlog."""
BUSY_S = 0.1
ANSWER_S = 5.0
"""The longest one connection may take, in seconds."""
_READ_BYTES = 64 * KIB

_BODY = msgspec.json.encode({"error": "nothing is installed here yet; see `edgewright agent status`"})
_ANSWER = (
    b"HTTP/1.1 503 Service Unavailable\r\ncontent-type: application/json\r\nconnection: close\r\n"
    b"retry-after: %d\r\ncontent-length: %d\r\n\r\n" % (RETRY_AFTER_S, len(_BODY))
) + _BODY


class Vacancy:
    """Answers on a listening socket between `open` and `close`. Used on the supervisor's event loop."""

    def __init__(self, listener: socket.socket) -> None:
        self._listener = listener
        self._accepting: asyncio.Task[None] | None = None
        self._answering: set[asyncio.Task[None]] = set()

    def open(self) -> None:
        """Begin; nothing happens if it has begun. The socket must be bound and non-blocking."""
        if self._accepting is None:
            self._listener.listen()
            self._accepting = asyncio.create_task(self._accept())

    def close(self) -> None:
        """Accept nothing more: whoever connects from now on waits for a worker."""
        if self._accepting is not None:
            self._accepting.cancel()
            self._accepting = None

    async def _accept(self) -> None:
        while True:
            if len(self._answering) >= AT_ONCE:
                await asyncio.wait(self._answering, return_when=asyncio.FIRST_COMPLETED)
            try:
                connection, _ = await asyncio.get_running_loop().sock_accept(self._listener)
            except OSError:  # out of descriptors, or the client is gone already
                await asyncio.sleep(BUSY_S)
                continue
            task = asyncio.create_task(_answer(connection))
            self._answering.add(task)
            task.add_done_callback(self._answering.discard)


async def _answer(connection: socket.socket) -> None:
    loop = asyncio.get_running_loop()
    connection.setblocking(False)
    with connection, contextlib.suppress(OSError, TimeoutError):
        async with asyncio.timeout(ANSWER_S):
            await loop.sock_recv(connection, _READ_BYTES)
            await loop.sock_sendall(connection, _ANSWER)
            connection.shutdown(socket.SHUT_WR)
            # A socket closed with bytes unread resets the connection, and the client may lose the answer.
            while await loop.sock_recv(connection, _READ_BYTES):
                continue
