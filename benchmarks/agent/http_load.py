"""A client that keeps connections alive and never repeats a request, and constant load made of several of them.

Used by every benchmark and soak of serving, so that all servers see the same client. It speaks just enough HTTP/1.1:
one request at a time on a connection, answers with a Content-Length. Judging the answers is the caller's.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

Address = tuple[str, int]


@dataclass(frozen=True, kw_only=True)
class Reply:
    """One whole answer. `closing` says that the server will take nothing more on this connection."""

    status: int
    head: bytes
    body: bytes
    closing: bool


class _Wire(asyncio.Protocol):
    """One connection: collects the bytes of one answer at a time."""

    def __init__(self) -> None:
        self.transport: asyncio.Transport
        self._loop = asyncio.get_running_loop()
        self._held = b""
        self._waiting: asyncio.Future[Reply] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport

    def ask(self, request: bytes) -> asyncio.Future[Reply]:
        self._held = b""
        self._waiting = self._loop.create_future()
        self.transport.write(request)
        return self._waiting

    def data_received(self, data: bytes) -> None:
        self._held += data
        head, separator, body = self._held.partition(b"\r\n\r\n")
        if not separator or self._waiting is None or self._waiting.done():
            return
        lines = [line.lower() for line in head.split(b"\r\n")]
        length = next(int(line[15:]) for line in lines if line.startswith(b"content-length:"))
        if len(body) >= length:
            closing = b"connection: close" in lines
            self._waiting.set_result(Reply(status=int(head[9:12]), head=head, body=body, closing=closing))

    def connection_lost(self, exc: Exception | None) -> None:
        if self._waiting is not None and not self._waiting.done():
            self._waiting.set_exception(ConnectionResetError(str(exc or "closed before the answer")))


class KeptAlive:
    """A client's connection, opened again only after the server has said or done that it closes."""

    def __init__(self, address: Address) -> None:
        self._address = address
        self._wire: _Wire | None = None

    async def ask(self, request: bytes) -> Reply:
        """Send the bytes of one request and return its answer. Raises OSError when the answer is lost."""
        if self._wire is None or self._wire.transport.is_closing():
            _, self._wire = await asyncio.get_running_loop().create_connection(_Wire, *self._address)
        reply = await self._wire.ask(request)
        if reply.closing:
            self.close()
        return reply

    def close(self) -> None:
        if self._wire is not None:
            self._wire.transport.close()
            self._wire = None


@dataclass(kw_only=True)
class Seen:
    """What clients saw: of every answer when it was asked for (time.monotonic) and how long it took in seconds."""

    started: list[float] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)


Check = Callable[[Reply], str | None]
"""Says what is wrong with an answer, or None."""

Question = tuple[bytes, Check]
"""A request and how its answer is judged."""


async def constant_load(
    address: Address, questions: Sequence[Question], clients: int, stop: asyncio.Event, pause_s: float = 0.0
) -> Seen:
    """Ask with so many clients, each the questions in turns and `pause_s` after it has an answer, until `stop`. What is
    lost is a problem."""
    seen = Seen()

    async def client() -> None:
        connection, turns = KeptAlive(address), itertools.cycle(questions)
        while not stop.is_set():
            request, check = next(turns)
            start = time.monotonic()
            try:
                problem = check(await connection.ask(request))
            except OSError as error:
                problem = f"{type(error).__name__}: {error}"
                connection.close()
                await asyncio.sleep(0.01)
            seen.seconds.append(time.monotonic() - start)
            seen.started.append(start)
            if problem is not None:
                seen.problems.append(problem)
            if pause_s:
                await asyncio.sleep(pause_s)
        connection.close()

    async with asyncio.TaskGroup() as group:
        for _ in range(clients):
            group.create_task(client())
    return seen


def json_request(path: str, name: str, array: NDArray[np.float32]) -> bytes:
    """Return an inference request of the Open Inference Protocol with its tensor as JSON."""
    tensor = {"name": name, "datatype": "FP32", "shape": list(array.shape), "data": array.ravel().tolist()}
    return _post(path, json.dumps({"inputs": [tensor]}).encode(), b"application/json")


def binary_request(path: str, name: str, array: NDArray[np.float32]) -> bytes:
    """Return the same request with binary tensors, in and out."""
    size = {"binary_data_size": array.nbytes}
    tensor = {"name": name, "datatype": "FP32", "shape": list(array.shape), "parameters": size}
    head = json.dumps({"inputs": [tensor], "parameters": {"binary_data_output": True}}).encode()
    length = b"inference-header-content-length: %d\r\n" % len(head)
    return _post(path, head + array.tobytes(), b"application/octet-stream", length)


def _post(path: str, body: bytes, content_type: bytes, more: bytes = b"") -> bytes:
    head = b"POST %b HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-type: %b\r\ncontent-length: %d\r\n%b\r\n"
    return head % (path.encode(), content_type, len(body), more) + body


def percentile(values: list[float], share: float) -> float:
    """Return the value below which `share` of the values lie (nearest rank)."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]
