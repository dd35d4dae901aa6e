"""How a connection ends whose client is gone already."""

from __future__ import annotations

import asyncio
import errno
import os

import pytest

from edge_agent.http.connection import Connection, ServerState
from edge_agent.http.messages import HttpError, RequestHead, Timeouts
from edge_agent.ipc.in_flight import InFlightCounters


class Nowhere:
    """An application without a path."""

    def accept(self, head: RequestHead) -> object:
        raise HttpError(404, f"no path {head.path!r}")


class GoneClient(asyncio.Transport):
    """The end of a connection whose client has reset it: nothing can be said, not even that nothing follows."""

    def __init__(self) -> None:
        super().__init__()
        self.aborted = False

    def write(self, data: bytes | bytearray | memoryview) -> None:
        del data

    def write_eof(self) -> None:
        raise OSError(errno.ENOTCONN, os.strerror(errno.ENOTCONN))

    def is_closing(self) -> bool:
        return self.aborted

    def abort(self) -> None:
        self.aborted = True


def test_an_answer_to_a_client_that_has_reset_the_connection_ends_it_without_a_traceback(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def converse() -> bool:
        shared = ServerState(app=Nowhere(), flight=InFlightCounters.create(), patience=Timeouts())  # type: ignore[arg-type]
        connection, client = Connection(shared), GoneClient()
        connection.connection_made(client)
        request = b"GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n"
        connection.get_buffer(-1)[: len(request)] = request
        connection.buffer_updated(len(request))
        return client.aborted

    assert asyncio.run(converse())
    assert not caplog.records
