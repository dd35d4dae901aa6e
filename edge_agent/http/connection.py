"""One HTTP/1.1 connection on httptools' parser: limits, timeouts, pipelining, and answers in the order of requests.

Everything a client sends is bounded in bytes and in time before it is kept; the limits are in `edge_contracts.limits`,
the times in `Timeouts`. Two things are deliberately missing: no Date header, because a device's clock may be wrong,
and no protocol upgrades. Accepting and draining are `adapters.server`'s, what is answered is the application's.
"""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections import deque
from collections.abc import Awaitable
from functools import lru_cache
from http import HTTPStatus
from typing import Final

import httptools
from msgspec import Struct, field

from edge_agent.http.head_cache import CachedHead, remember_head
from edge_agent.http.messages import (
    _READ_BYTES,
    FAILED,
    Answering,
    Application,
    Exchange,
    HttpError,
    HttpResponse,
    RequestHead,
    Timeouts,
    check_body,
    retry,
    too_large,
)
from edge_agent.ipc.in_flight import InFlightCounters
from edge_contracts import limits

_log = logging.getLogger(__name__)

_STATUS_LINES: Final = {status.value: f"HTTP/1.1 {status.value} {status.phrase}\r\n".encode() for status in HTTPStatus}
_now: Final = time.monotonic  # what the event loop calls its time

_CONTINUE: Final = b"HTTP/1.1 100 Continue\r\n\r\n"


class Connection(asyncio.BufferedProtocol):
    """See the module. The parser calls `on_...`; what is complete waits in a queue until its turn."""

    def __init__(self, shared: ServerState) -> None:
        self._shared = shared
        self._patience = shared.patience
        self._loop = asyncio.get_running_loop()
        self._parser = httptools.HttpRequestParser(self)
        self._queue: deque[Exchange] = deque()
        self._current: Exchange | None = None  # its head was read, its body was not
        self._task: asyncio.Task[None] | None = None  # answers what takes long; nothing is answered beside it
        self._in_head = False
        self._deaf = False  # whatever comes now is not read
        self._ended = False  # the client has said all it will say
        self._stalled = False  # the client does not read
        self._uncounted = 0  # requests in flight
        self._around = 0  # bytes of the request that is not complete, without its body
        self._url = b""
        self._headers: dict[bytes, bytes] = {}
        self._expects = False
        self._familiar: CachedHead | None = None
        self.transport: asyncio.Transport
        self.deadline = math.inf

    # asyncio's side

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        shared = self._shared
        shared.connections.add(self)
        shared.flight.connect()
        self.deadline = _now() + self._patience.head_s
        if len(shared.connections) > limits.MAX_CONNECTIONS:
            transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002
        shared = self._shared
        shared.connections.discard(self)
        shared.flight.disconnect()
        self._deaf = True
        self._queue.clear()
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
        between, waiting, known = self._current is None and not self._in_head, len(self._queue), self._familiar
        if known is not None and between and self._task is None and not self._stalled:
            body = known.body_of(received)
            if body is not None:
                self._shared.flight.start()
                self._uncounted += 1
                self._answer(known.exchange, known.answering, body)
                return
        self._parse(received)
        if between and len(self._queue) == waiting + 1:
            self._familiar = remember_head(self._queue[-1], received)
        self._answer_queue()

    def eof_received(self) -> bool:
        self._deaf = self._ended = True
        return self._task is not None or bool(self._queue)  # True: the answers can still be sent

    def pause_writing(self) -> None:
        self._stalled = True
        self.transport.pause_reading()
        self.deadline = _now() + self._patience.reading_s

    def resume_writing(self) -> None:
        self._stalled = False
        self._wait_for_client()
        self.transport.resume_reading()
        self._answer_queue()

    # the parser's side

    def on_message_begin(self) -> None:
        self._in_head = True
        self._around = 0
        self._url, self._headers, self._expects = b"", {}, False
        self.deadline = _now() + self._patience.head_s

    def on_url(self, url: bytes) -> None:
        self._url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._in_head:  # what follows a chunked body is not read
            self._headers[name.lower()] = value

    def on_headers_complete(self) -> None:
        self._in_head = False
        if self._deaf:
            return
        parser, headers = self._parser, self._headers
        method = parser.get_method().decode("ascii")
        head = RequestHead(method, self._url.partition(b"?")[0], headers)
        keep_alive = parser.should_keep_alive() and parser.get_http_version() != "1.0"
        self._expects = headers.get(b"expect", b"").lower() == b"100-continue"
        self._begin(head, keep_alive=keep_alive)

    def on_body(self, body: bytes) -> None:
        exchange = self._current
        if exchange is None or self._deaf:
            return
        exchange.size += len(body)
        if exchange.size > limits.MAX_REQUEST_BYTES:
            self._refuse(too_large(exchange.size))
        elif not exchange.kept:
            return
        elif self._shared.buffered + len(body) > limits.MAX_BUFFERED_BYTES:
            self._refuse(retry(1.0, "too many large requests at once"))
        else:
            exchange.body.append(body)
            exchange.held += len(body)
            self._shared.buffered += len(body)

    def on_message_complete(self) -> None:
        if self._current is not None:
            self._enqueue()

    # inside

    def _parse(self, received: memoryview) -> None:
        try:
            self._parser.feed_data(received)
        except httptools.HttpParserUpgrade:
            self._end_after_queue()
        except httptools.HttpParserCallbackError:
            raise  # a mistake of ours; asyncio logs it and ends the connection
        except httptools.HttpParserError as error:
            self._refuse(HttpError(400, f"malformed HTTP/1.1 request: {error}", closing=True))
        if not self._deaf:
            self._count(len(received))
        if self._expects and self._current is not None and not self._queue and self._task is None:
            self.transport.write(_CONTINUE)
            self._expects = False

    def _begin(self, head: RequestHead, *, keep_alive: bool) -> None:
        """Show the application a head whose body comes next."""
        if head.method == "POST":
            self._shared.flight.start()
            self._uncounted += 1
        self._current, self._around = Exchange(None, head, keep_alive=keep_alive), 0
        self.deadline = _now() + self._patience.body_s
        try:
            check_body(head.headers)
            self._current.answering = self._shared.app.accept(head)
        except HttpError as refusal:
            self._refuse(refusal)

    def look(self, now: float) -> None:
        """End what takes too long. Called by the server every `Patience.look_s`."""
        if now < self.deadline:
            return
        if self._current is None or self._deaf or self._stalled:
            self.transport.abort()
            return
        reason = f"the body did not arrive within {self._patience.body_s:g} s"
        self._refuse(HttpError(408, reason, closing=True))
        self._answer_queue()

    def _count(self, more: int) -> None:
        """Count bytes of a request that is not complete: of its head, or around its chunks, which may be eight times
        what is in them."""
        exchange = self._current
        if exchange is None and not self._in_head:
            return
        self._around += more
        if self._around - (0 if exchange is None else 8 * exchange.size) > limits.MAX_HEAD_BYTES:
            text = f"over {limits.MAX_HEAD_BYTES} bytes of head, chunk headers or trailers"
            self._refuse(HttpError(400, text, closing=True))

    def _refuse(self, refusal: HttpError) -> None:
        """Answer the current request with a refusal: at once if it closes, else when its body has come and gone."""
        response = refusal.response
        if self._current is None:
            self._current = Exchange(None, None, keep_alive=False)
        exchange = self._current
        exchange.answering = lambda _: response
        exchange.kept = False
        exchange.body.clear()
        self._release(exchange)
        if response.closing:
            exchange.keep_alive = False
            self._enqueue()
            self._deaf = True

    def _enqueue(self) -> None:
        exchange, self._current = self._current, None
        assert exchange is not None
        self._release(exchange)
        self._queue.append(exchange)

    def _release(self, exchange: Exchange) -> None:
        """A body that is complete or refused does not count as being received any more."""
        self._shared.buffered -= exchange.held
        exchange.held = 0

    def _end_after_queue(self) -> None:
        self._deaf = True
        if self._queue:
            self._queue[-1].keep_alive = False

    def _answer_queue(self) -> None:
        """Answer what is complete, in order, until something takes long or the client does not read."""
        queue = self._queue
        while queue and self._task is None and not self._stalled and not self.transport.is_closing():
            exchange = queue.popleft()
            assert exchange.answering is not None
            body = exchange.body[0] if len(exchange.body) == 1 else b"".join(exchange.body)
            self._answer(exchange, exchange.answering, body)

    def _answer(self, exchange: Exchange, answering: Answering, body: bytes) -> None:
        try:
            answer = answering(body)
        except HttpError as refusal:
            answer = refusal.response
        except Exception:
            _log.exception("an answer failed")
            answer = FAILED
        if isinstance(answer, HttpResponse):
            self._write(exchange, answer)
        else:
            self.deadline = math.inf  # how long an answer takes is not the client's doing
            self.transport.pause_reading()
            self._task = self._loop.create_task(self._answer_later(exchange, answer))

    async def _answer_later(self, exchange: Exchange, answer: Awaitable[HttpResponse]) -> None:
        try:
            response = await answer
        except HttpError as refusal:
            response = refusal.response
        except Exception:
            _log.exception("an answer failed")
            response = FAILED
        self._task = None
        if self.transport.is_closing():
            return
        self._write(exchange, response)
        if not self._stalled:
            self.transport.resume_reading()
        self._answer_queue()

    def _write(self, exchange: Exchange, response: HttpResponse) -> None:
        status, headers, body, closing = response
        last = closing or not exchange.keep_alive or ((self._shared.draining or self._deaf) and not self._queue)
        start, end = _around_length(status, headers, last)
        data = b"%b%d%b" % (start, len(body), end)
        self._wait_for_client()
        self.transport.write(data if exchange.head_only else data + body)
        if exchange.counted and self._uncounted:
            self._uncounted -= 1
            self._shared.flight.finish()
        if last:
            self._close()

    def _wait_for_client(self) -> None:
        amid = self._current is not None or self._in_head  # of the next request
        self.deadline = _now() + (self._patience.body_s if amid else self._patience.idle_s)

    def _close(self) -> None:
        """End the connection. One closed with bytes unread is reset, and the client may lose the answer: so what it
        still sends is read and forgotten, until it closes too or for a moment (RFC 9112, section 9.6)."""
        self._deaf = True
        self._queue.clear()
        if self._ended:
            self.transport.close()
            return
        self.transport.write_eof()
        self.deadline = _now() + self._patience.linger_s


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
    connections: set[Connection] = field(default_factory=set)
    buffered: int = 0
    """Bytes of bodies being received."""
    buffer: memoryview = field(default_factory=lambda: memoryview(bytearray(_READ_BYTES)))
    """What was just received. One for all: the parser has taken what it wants before the next one is read into it."""
    draining: bool = False
