"""A socket served by uvicorn's httptools protocol, with what a device needs and uvicorn's own server has not:
limits on heads and connections, and a drain that loses no request on kept-alive connections.

uvicorn's server stops by closing idle connections, and a request already on the wire is lost. Here draining means:
close our copy of the listening socket, let the application answer `Connection: close`, wait until nobody is left.
"""

from __future__ import annotations

import asyncio
import socket
from typing import TYPE_CHECKING, Any

import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import ServerState

from edge_contracts import limits

if TYPE_CHECKING:
    from edge_agent.adapters.http import OipApp
    from edge_agent.flight import FlightPage

HEAD_S = 10.0
"""A client that has not finished its first request head by then is not a client."""

KEEP_ALIVE_S = 75.0
"""An idle connection is kept this long: longer than the pools of common clients keep theirs."""

_BACKLOG = 1024
_STEP_S = 0.02


class BoundedProtocol(HttpToolsProtocol):
    """uvicorn's connection, with limits on the head's size and time, and on the number of connections."""

    flight: FlightPage
    _head_timer: asyncio.TimerHandle | None = None
    _head_bytes = 0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self.flight.connect()
        if len(self.connections) > limits.MAX_CONNECTIONS:
            transport.abort()
        self._start_head_timer()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_head_timer()
        self.flight.disconnect()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self._head_timer is None or self.transport.is_closing():
            return
        self._head_bytes += len(data)  # the head is not complete yet, so all of it is head
        if self._head_bytes > limits.MAX_HEAD_BYTES:
            self.send_400_response(f"Request head over {limits.MAX_HEAD_BYTES} bytes.")

    def on_message_begin(self) -> None:
        super().on_message_begin()
        if self._head_timer is None:
            self._start_head_timer()

    def on_headers_complete(self) -> None:
        self._stop_head_timer()
        super().on_headers_complete()

    def _start_head_timer(self) -> None:
        self._head_bytes = 0
        self._head_timer = self.loop.call_later(HEAD_S, self.transport.abort)

    def _stop_head_timer(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None


class HttpServer:
    """Serves one application on one listening socket, which other processes may share."""

    def __init__(self, app: OipApp, flight: FlightPage) -> None:
        self._flight = flight
        settings: dict[str, Any] = {"http": BoundedProtocol, "ws": "none", "loop": "asyncio", "lifespan": "off"}
        self._config = uvicorn.Config(
            app,
            log_config=None,
            access_log=False,
            proxy_headers=False,
            timeout_keep_alive=int(KEEP_ALIVE_S),
            **settings,
        )
        self._config.load()
        self._state = ServerState()
        self._server: asyncio.Server | None = None

    async def start(self, listening: socket.socket) -> None:
        """Accept connections from `listening` from now on; the socket object is taken over."""
        loop = asyncio.get_running_loop()

        def connection() -> asyncio.Protocol:
            made = BoundedProtocol(config=self._config, server_state=self._state, app_state={}, _loop=loop)
            made.flight = self._flight
            return made

        self._server = await loop.create_server(connection, sock=listening, backlog=_BACKLOG)

    def stop_accepting(self) -> None:
        """Close this process's copy of the socket; connections in its backlog wait for the others who hold it."""
        if self._server is not None:
            self._server.close()

    @property
    def connections(self) -> int:
        return len(self._state.connections)

    async def drain(self, deadline_s: float) -> int:
        """Wait until every client has had its answer and gone, at most `deadline_s`; then cut what is left.

        Returns how many connections were cut. The application must already answer `Connection: close`.
        """
        self.stop_accepting()
        loop = asyncio.get_running_loop()
        end = loop.time() + deadline_s
        while self.connections and loop.time() < end:
            await asyncio.sleep(_STEP_S)
        left = list(self._state.connections)
        for connection in left:
            connection.transport.abort()
        return len(left)
