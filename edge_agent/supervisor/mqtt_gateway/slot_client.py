"""Asking a slot over its own HTTP address, from the supervisor: one kept connection, one question at a time.

Inference has no side effects, so a question whose connection ended without an answer is asked once more: workers close
kept connections when they are replaced. The other side of this is `edge_agent.http.connection`.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from urllib.parse import quote

from msgspec import Struct

from edge_agent.errors import UnreachableError
from edge_agent.supervisor.mqtt_gateway.messages import Body
from edge_contracts.limits import MAX_HEAD_BYTES, MAX_REQUEST_BYTES

STREAM_HEADER = "ew-stream"
"""Names the stream that a request is a step of, percent-encoded, where its body names none."""

MAX_STREAM_HEADER_CHARS = 1024

_LENGTH = "inference-header-content-length"


class SlotAnswer(Struct, frozen=True, kw_only=True):
    """Status code and body."""

    status: int
    body: Body


class SlotClient:
    """Used on one event loop, by one task at a time. `address` gives HOST:PORT."""

    def __init__(self, address: Callable[[], str]) -> None:
        self._address = address
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def infer(self, model: str, request: Body, timeout_s: float, stream: str) -> SlotAnswer:
        """Return the slot's answer, whatever its status. A model that remembers takes the request for a step of
        `stream`, unless it names another one. Raises UnreachableError when none comes in time."""
        try:
            async with asyncio.timeout(timeout_s):
                return await self._ask(_head(model, request, stream) + request.data)
        except TimeoutError as error:
            await self.close()
            raise UnreachableError(f"no answer within {timeout_s:g} s", subject=model) from error
        except (OSError, EOFError, ValueError) as error:
            await self.close()
            raise UnreachableError(f"no worker is serving: {error}", subject=model) from error

    async def close(self) -> None:
        """Let go of the connection."""
        streams, self._streams = self._streams, None
        if streams is not None:
            streams[1].close()
            with contextlib.suppress(OSError):
                await streams[1].wait_closed()

    async def _ask(self, message: bytes) -> SlotAnswer:
        kept = self._streams is not None
        try:
            return await self._exchange(message)
        except (OSError, EOFError):
            await self.close()
            if not kept:
                raise
        return await self._exchange(message)

    async def _exchange(self, message: bytes) -> SlotAnswer:
        if self._streams is None:
            host, _, port = self._address().rpartition(":")
            self._streams = await asyncio.open_connection(host.strip("[]"), int(port), limit=MAX_HEAD_BYTES)
        reader, writer = self._streams
        writer.write(message)
        await writer.drain()
        try:
            head = await reader.readuntil(b"\r\n\r\n")
        except asyncio.LimitOverrunError as error:
            raise ValueError("response head too long") from error
        status, fields = _parsed(head)
        size = int(fields.get("content-length", ""))
        if not 0 <= size <= MAX_REQUEST_BYTES:
            raise ValueError(f"response of {size} bytes, too long")
        data = await reader.readexactly(size)
        if fields.get("connection", "").lower() == "close":
            await self.close()
        length = fields.get(_LENGTH)
        return SlotAnswer(status=status, body=Body(data=data, json_length=None if length is None else int(length)))


def _head(model: str, request: Body, stream: str) -> bytes:
    lines = [f"POST /v2/models/{quote(model)}/infer HTTP/1.1", "host: slot", f"content-length: {len(request.data)}"]
    lines.append(f"{STREAM_HEADER}: {quote(stream)[:MAX_STREAM_HEADER_CHARS]}")
    if request.json_length is not None:
        lines.append(f"{_LENGTH}: {request.json_length}")
    return "\r\n".join([*lines, "", ""]).encode("ascii")


def _parsed(head: bytes) -> tuple[int, dict[str, str]]:
    """Return status code and lower-case header fields. Raises ValueError."""
    first, *lines = head.decode("latin-1").split("\r\n")
    fields = (line.partition(":") for line in lines if line)
    return int(first.split(" ", 2)[1]), {name.strip().lower(): value.strip() for name, _, value in fields}
