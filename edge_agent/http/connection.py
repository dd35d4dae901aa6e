"""One HTTP/1.1 connection: limits, timeouts, pipelining, and answers in the order of requests.

Everything a client sends is bounded in bytes and in time before it is kept; the limits are in `edge_contracts.limits`,
the times in `Timeouts`. Two things are deliberately missing: no Date header, because a device's clock may be wrong,
and no protocol upgrades. What the bytes mean is `head_reader`'s and `body_reader`'s, accepting and draining are
`server`'s, what is answered is the application's.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections import deque
from collections.abc import Awaitable, Callable
from functools import lru_cache
from http import HTTPStatus
from typing import Final

from msgspec import Struct, field

from edge_agent.http.body_reader import BodyReader, ChunkedReader, LengthReader
from edge_agent.http.failure_log import FailureLog
from edge_agent.http.head_cache import HeadCache
from edge_agent.http.head_reader import HeadReader, ParsedHead
from edge_agent.http.messages import (
    FAILED,
    SLOWEST_BYTES,
    Answering,
    Application,
    Body,
    Exchange,
    HttpError,
    HttpResponse,
    Timeouts,
    no_memory,
    retry,
    too_large,
)
from edge_agent.ipc.in_flight import InFlightCounters
from edge_contracts import limits

_READ_BYTES: Final = 64 * limits.KIB
_STATUS_LINES: Final = {status.value: f"HTTP/1.1 {status.value} {status.phrase}\r\n".encode() for status in HTTPStatus}
_now: Final = time.monotonic  # what the event loop calls its time

_CONTINUE: Final = b"HTTP/1.1 100 Continue\r\n\r\n"
_FULL: Final = retry(1.0, f"{limits.MAX_CONNECTIONS} connections are open and all of them are busy").response


class Connection(asyncio.BufferedProtocol):
    """See the module. Requests that are complete wait in a queue until their turn."""

    def __init__(self, shared: ServerState) -> None:
        self._shared = shared
        self._patience = shared.patience
        self._loop = asyncio.get_running_loop()
        self._heads = HeadCache()
        self._reader = HeadReader()
        self._body: BodyReader | None = None  # of the current request
        self._queue: deque[Exchange] = deque()
        self._current: Exchange | None = None  # its head was read, its body was not
        self._task: asyncio.Task[None] | None = None  # answers what takes long; nothing is answered beside it
        self._deaf = False  # whatever comes now is not read
        self._ended = False  # the client has said all it will say
        self._stalled = False  # the client does not read
        self._closing = False  # the last answer is on its way
        self._expects = False  # the client waits for an interim answer
        self._uncounted = 0  # requests in flight
        self._unsent = 0  # bytes of answers that the client had not taken when it last made progress
        self.transport: asyncio.Transport
        self.deadline = math.inf
        self.since = 0.0  # when the client was last waited for anew

    # asyncio's side

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        shared = self._shared
        shared.flight.connect()
        self.since = _now()
        self.deadline = self.since + self._patience.head_s
        if shared.make_room():
            shared.connections.add(self)
            return
        self._deaf = True
        start, end = _around_length(_FULL.status, _FULL.headers, True)
        transport.write(b"%b%d%b%b" % (start, len(_FULL.body), end, _FULL.body))
        transport.close()

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002
        shared = self._shared
        shared.connections.discard(self)
        shared.flight.disconnect()
        self._deaf = True
        self._forget_queue()
        if self._current is not None:
            self._release(self._current)
            self._current = None
        while self._uncounted:
            self._uncounted -= 1
            shared.flight.finish()

    def get_buffer(self, sizehint: int) -> memoryview:  # noqa: ARG002
        return self._shared.buffer

    def buffer_updated(self, nbytes: int) -> None:
        if self._deaf:
            return
        received = self._shared.buffer[:nbytes]
        is_between = self._current is None and self._task is None and not (self._stalled or self._reader.held)
        try:
            if is_between and (hit := self._heads.lookup(received)) is not None:
                self._shared.flight.start()
                self._uncounted += 1
                self._answer(*hit)
                return
            self._parse(received)
            if is_between and len(self._queue) == 1 and self._current is None and not self._reader.held:
                self._heads.remember(self._queue[0], received)
            self._answer_queue()
        except Exception as error:  # a mistake of ours; one connection pays for it
            self._shared.failures.report("a connection failed", error)
            self.transport.abort()

    def eof_received(self) -> bool:
        self._deaf = self._ended = True
        return self._task is not None or bool(self._queue)  # True: the answers can still be sent

    def pause_writing(self) -> None:
        self._stalled = True
        self.transport.pause_reading()

    def resume_writing(self) -> None:
        self._stalled = False
        self.transport.resume_reading()
        self._answer_queue()

    # the server's side

    @property
    def is_quiet(self) -> bool:
        """Whether nothing is under way: no request, no part of one, and no answer."""
        is_amid = self._current is not None or self._reader.held or self._task is not None or self._queue
        return not (is_amid or self._deaf or self.transport.get_write_buffer_size())

    @property
    def is_sending(self) -> bool:
        """Whether there is something that the client has not taken yet."""
        return self.transport.get_write_buffer_size() > 0

    def look(self, now: float) -> None:
        """End what takes too long. Called by the server every `Timeouts.look_s`."""
        unsent = self.transport.get_write_buffer_size()
        if unsent and not 0 <= self._unsent - unsent < SLOWEST_BYTES:
            self.deadline, self._unsent = now + self._patience.reading_s, unsent
        elif self._unsent and not unsent:
            self._unsent = 0
            self._wait(now)
        if now < self.deadline:
            return
        if self._current is None or self._deaf or unsent:
            self.transport.abort()
            return
        reason = f"the body did not arrive within {self._patience.body_s:g} s"
        self._refuse(HttpError(408, reason, closing=True))
        self._answer_queue()

    # inside

    def _parse(self, data: memoryview) -> None:
        """Take heads and bodies, as many as there are."""
        try:
            while data and not self._deaf:
                taken = self._take_body(data) if self._current is not None else self._take_head(data)
                data = data[taken:]
        except HttpError as refusal:
            self._refuse(refusal)
        except MemoryError:
            self._shared.out_of_memory()
            self._refuse(no_memory())

    def _take_head(self, data: memoryview) -> int:
        was_amid = bool(self._reader.held)
        parsed, taken = self._reader.feed(data)
        if parsed is not None:
            self._begin(parsed)
        elif not was_amid and self._reader.held:
            self.deadline = _now() + self._patience.head_s
        return taken

    def _begin(self, parsed: ParsedHead) -> None:
        """Show the application a head whose body comes next."""
        head, length, keep_alive, self._expects = parsed
        if head.method == "POST":
            self._shared.flight.start()
            self._uncounted += 1
        exchange = self._current = Exchange(None, head, keep_alive=keep_alive)
        body = self._body = ChunkedReader() if length is None else LengthReader(length)
        self.deadline = _now() + self._patience.body_s
        try:
            exchange.answering = self._shared.app.accept(head)
        except HttpError as refusal:
            self._refuse(refusal, closing=self._expects)  # who was not asked for the body may send it or not
        if body.done and self._current is not None:
            self._enqueue()

    def _take_body(self, data: memoryview) -> int:
        exchange, body, shared = self._current, self._body, self._shared
        assert exchange is not None
        assert body is not None
        piece, taken = body.feed(data)
        exchange.size += len(piece)
        if exchange.size > limits.MAX_REQUEST_BYTES:
            raise too_large(exchange.size)
        if exchange.kept and piece:
            if shared.buffered + len(piece) > limits.MAX_BUFFERED_BYTES:
                self._refuse(retry(1.0, "too many large requests at once"))
            else:
                exchange.keep(piece)
                exchange.held += len(piece)
                shared.buffered += len(piece)
        if body.done:
            self._enqueue()
        return taken

    def _refuse(self, refusal: HttpError, *, closing: bool = False) -> None:
        """Answer the current request with a refusal: at once if it closes, else when its body has come and gone."""
        response = refusal.response
        exchange = self._current = self._current or Exchange(None, None, keep_alive=False)
        exchange.answering = lambda _: response
        exchange.kept = False
        exchange.body = b""
        self._release(exchange)
        if response.closing or closing:
            exchange.keep_alive = False
            self._enqueue()

    def _enqueue(self) -> None:
        """Put the current request behind those that wait; one that ends the connection is the last."""
        exchange, self._current, self._body, self._expects = self._current, None, None, False
        assert exchange is not None
        self._queue.append(exchange)
        self._deaf = self._deaf or not exchange.keep_alive

    def _release(self, exchange: Exchange) -> None:
        """A body that is answered or refused is not kept any more."""
        self._shared.buffered -= exchange.held
        exchange.held = 0

    def _forget_queue(self) -> None:
        for exchange in self._queue:
            self._release(exchange)
        self._queue.clear()

    def _answer_queue(self) -> None:
        """Answer what is complete, in order, until something takes long or the client does not read."""
        queue = self._queue
        while queue and self._task is None and not self._stalled and not self.transport.is_closing():
            exchange = queue.popleft()
            assert exchange.answering is not None
            try:
                body = exchange.take_body()
            except MemoryError:
                self._shared.out_of_memory()
                self._write(exchange, no_memory().response)
                return
            self._answer(exchange, exchange.answering, body)
        current = self._current
        if self._expects and self._task is None and not (queue or self._deaf or self._stalled):
            self._expects = False
            if current is not None and not current.size:
                self.transport.write(_CONTINUE)

    def _answer(self, exchange: Exchange, answering: Answering, body: Body) -> None:
        try:
            answer = answering(body)
        except Exception as error:
            answer = self._failed(error)
        if isinstance(answer, HttpResponse):
            self._write(exchange, answer)
        else:
            self.deadline = math.inf  # how long an answer takes is not the client's doing
            self.transport.pause_reading()
            self._task = self._loop.create_task(self._answer_later(exchange, answer))

    async def _answer_later(self, exchange: Exchange, answer: Awaitable[HttpResponse]) -> None:
        try:
            response = await answer
        except Exception as error:
            response = self._failed(error)
        self._task = None
        if self.transport.is_closing():
            self._release(exchange)
            return
        self._write(exchange, response)
        if not self._stalled:
            self.transport.resume_reading()
        self._answer_queue()

    def _failed(self, error: Exception) -> HttpResponse:
        """Return the answer to a request that an exception ended."""
        if isinstance(error, HttpError):
            return error.response
        if isinstance(error, MemoryError):
            self._shared.out_of_memory()
            return no_memory().response
        self._shared.failures.report("an answer failed", error)
        return FAILED

    def _write(self, exchange: Exchange, response: HttpResponse) -> None:
        status, headers, body, closing = response
        last = closing or not exchange.keep_alive or ((self._shared.draining or self._deaf) and not self._queue)
        start, end = _around_length(status, headers, last)
        self._release(exchange)
        self._closing = last
        self._wait(_now())
        self._send(b"%b%d%b" % (start, len(body), end), b"" if exchange.head_only else body)
        if exchange.counted and self._uncounted:
            self._uncounted -= 1
            self._shared.flight.finish()
        if last:
            self._close()

    def _send(self, head: bytes, body: bytes) -> None:
        transport = self.transport
        try:
            if len(body) < _READ_BYTES:
                transport.write(head + body)
            else:  # not copied once more
                transport.write(head)
                transport.write(body)
        except MemoryError:  # some of it may have gone: nothing can be said any more
            self._shared.out_of_memory()
            transport.abort()

    def _wait(self, now: float) -> None:
        """Begin to wait for the client: for it to close, for the rest of a request, or for the next one."""
        patience = self._patience
        if self._task is not None:
            self.deadline = math.inf
        elif self._closing:
            self.deadline = now + patience.linger_s
        elif self._current is not None or self._reader.held:
            self.deadline = now + (patience.head_s if self._current is None else patience.body_s)
        else:
            self.since, self.deadline = now, now + patience.idle_s

    def _close(self) -> None:
        """End the connection. One closed with bytes unread is reset, and the client may lose the answer: so what it
        still sends is read and forgotten, until it closes too or for a moment after it has taken everything (RFC 9112,
        section 9.6)."""
        self._deaf = True
        self._forget_queue()
        if self._ended:
            self.transport.close()
            return
        try:
            self.transport.write_eof()
        except OSError:  # the client has reset the connection, and the loop does not know it yet
            self.transport.abort()


@lru_cache(64)
def _around_length(status: int, headers: tuple[tuple[bytes, bytes], ...], last: bool) -> tuple[bytes, bytes]:
    """Return a response's head in two pieces, before and after the length of its body."""
    lines = [b"%b: %b\r\n" % header for header in headers]
    lines.append(b"connection: close\r\n\r\n" if last else b"\r\n")
    return _STATUS_LINES[status] + b"content-length: ", b"\r\n" + b"".join(lines)


class ServerState(Struct, kw_only=True):
    """What the connections of one server share."""

    app: Application
    flight: InFlightCounters
    patience: Timeouts
    out_of_memory: Callable[[], None] = lambda: None
    """Called when memory for a request could not be had."""
    failures: FailureLog = field(default_factory=FailureLog)
    connections: set[Connection] = field(default_factory=set)
    refused: int = 0
    """Connections turned away since the start because all others were busy."""
    displaced: int = 0
    """Idle connections closed for a newcomer since the start."""
    buffered: int = 0
    """Bytes of bodies that are being received or wait for their answers."""
    buffer: memoryview = field(default_factory=lambda: memoryview(bytearray(_READ_BYTES)))
    """What was just received. One for all: the parser has taken what it wants before the next one is read into it."""
    draining: bool = False

    def make_room(self) -> bool:
        """Return whether there is room for one connection more; the one that has been idle longest makes it."""
        if len(self.connections) < limits.MAX_CONNECTIONS:
            return True
        quiet = [connection for connection in self.connections if connection.is_quiet]
        if not quiet:
            self.refused += 1
            return False
        longest = min(quiet, key=lambda connection: connection.since)
        self.connections.discard(longest)
        longest.transport.close()
        self.displaced += 1
        return True
