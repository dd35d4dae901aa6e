"""A listening socket served by `connection`, and a drain that loses no request on kept-alive connections.

A server that stops by closing idle connections loses the request that is already on the wire. Here draining means:
close our copy of the listening socket, answer what comes with `Connection: close`, wait until nobody is left.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable

from edge_agent.http.connection import Connection, ServerState
from edge_agent.http.messages import Application, Timeouts
from edge_agent.ipc.in_flight import InFlightCounters

_BACKLOG = 1024
"""Connections that wait in the kernel."""

_AT_ONCE = 64
"""Connections accepted before what the others sent is looked at: each takes a file descriptor."""

_STEP_S = 0.02


class HttpServer:
    """Serves one application on one listening socket, which other processes may share."""

    def __init__(
        self,
        app: Application,
        flight: InFlightCounters,
        patience: Timeouts | None = None,
        out_of_memory: Callable[[], None] | None = None,
    ) -> None:
        """`out_of_memory` is called when a request could not be received or answered for want of memory."""
        self._shared = ServerState(app=app, flight=flight, patience=patience or Timeouts())
        if out_of_memory is not None:
            self._shared.out_of_memory = out_of_memory
        self._server: asyncio.Server | None = None
        self._looking: asyncio.TimerHandle | None = None

    async def start(self, listening: socket.socket) -> None:
        """Accept connections from `listening` from now on; the socket object is taken over."""
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(self._connection, sock=listening, backlog=_AT_ONCE)
        listening.listen(_BACKLOG)

    async def adopt(self, connected: socket.socket) -> None:
        """Serve a socket that is connected already; it is taken over."""
        await asyncio.get_running_loop().connect_accepted_socket(self._connection, connected)

    def stop_accepting(self) -> None:
        """Close this process's copy of the socket; connections in its backlog wait for the others who hold it."""
        if self._server is not None:
            self._server.close()

    @property
    def connections(self) -> int:
        return len(self._shared.connections)

    async def drain(self, deadline_s: float) -> int:
        """Answer every client once more with `Connection: close` and wait until all have gone, at most `deadline_s`;
        then cut what is left, except for clients that are still taking their answers: they have `Timeouts.reading_s`
        more. Returns how many connections were cut."""
        self._shared.draining = True
        self.stop_accepting()
        loop = asyncio.get_running_loop()
        end = loop.time() + deadline_s
        while self.connections and loop.time() < end:
            await asyncio.sleep(_STEP_S)
        end = loop.time() + (self._shared.patience.reading_s if deadline_s else 0.0)
        cut = self._cut_all_but_sending()
        while self.connections and loop.time() < end:
            await asyncio.sleep(_STEP_S)
            self._cut_all_but_sending()  # those that have everything now: nothing is lost with them
        left = list(self._shared.connections)
        for connection in left:
            connection.transport.abort()
        return cut + len(left)

    @property
    def counters(self) -> dict[str, int]:
        """Totals of connections since the start; see `ServerState`."""
        return {"connections_refused": self._shared.refused, "connections_displaced": self._shared.displaced}

    def _cut_all_but_sending(self) -> int:
        idle = [connection for connection in self._shared.connections if not connection.is_sending]
        for connection in idle:
            self._shared.connections.discard(connection)
            connection.transport.abort()
        return len(idle)

    def _connection(self) -> Connection:
        if self._looking is None:
            self._look_later()
        return Connection(self._shared)

    def _look_later(self) -> None:
        self._looking = asyncio.get_running_loop().call_later(self._shared.patience.look_s, self._look)

    def _look(self) -> None:
        """End what takes too long. One look a second over all connections is cheaper than a timer for each request,
        and none is needed while nobody is connected."""
        self._looking = None
        now = asyncio.get_running_loop().time()
        for connection in list(self._shared.connections):
            connection.look(now)
        if self._shared.connections:
            self._look_later()
