"""What passes between an HTTP connection and the application behind it: a request's head, a response, a refusal.

The bytes are read in `head_reader` and `body_reader` and written in `connection`; the paths and their meaning are
`oip_app`'s.
"""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable
from typing import Final, NamedTuple, Protocol

import msgspec
from msgspec import Struct

from edge_contracts import limits

JSON: Final = (b"content-type", b"application/json")


class RequestHead(NamedTuple):
    """A request's method, its path as it was sent (without the query), and its headers by lower-case name."""

    method: str
    path: bytes
    headers: dict[bytes, bytes]


class HttpResponse(NamedTuple):
    """An answer; length and connection headers are the connection's to add. `closing` ends the connection after it."""

    status: int
    headers: tuple[tuple[bytes, bytes], ...]
    body: bytes
    closing: bool = False


class HttpError(Exception):
    """An answer other than 200, with the reason in its body. `closing` where the rest of the body will not be read."""

    def __init__(self, status: int, reason: str, *headers: tuple[bytes, bytes], closing: bool = False) -> None:
        super().__init__(reason)
        self.response = HttpResponse(status, (JSON, *headers), msgspec.json.encode({"error": reason}), closing)


def retry(delay_s: float, reason: str) -> HttpError:
    """Return a 503 that says when to come back, in whole seconds."""
    return HttpError(503, reason, (b"retry-after", b"%d" % max(1, math.ceil(delay_s))))


Body = bytes | bytearray
"""A request's body; one that came in many pieces is a bytearray, and nothing changes it any more."""

UNCOPIED_BYTES: Final = limits.MIB
"""From this size on a body is handed on in the memory that it was received into: a copy would need as much again."""

Answering = Callable[[Body], HttpResponse | Awaitable[HttpResponse]]
"""Answers requests, given their whole bodies: at once, or later where that takes long. Raises HttpError."""


class Application(Protocol):
    """What is served."""

    def accept(self, head: RequestHead) -> Answering:
        """Return what will answer the request of this head, and later ones on its connection that differ in nothing but
        the length of their bodies. Raises HttpError, and then its body is never kept."""
        ...


SLOWEST_BYTES: Final = 16 * limits.KIB
"""What a client must take of its answers in each `Timeouts.reading_s`: GPRS carries ten times as much."""


class Timeouts(Struct, frozen=True, kw_only=True):
    """How long a connection may take for what, in seconds. Looked at every `look_s`, not to the millisecond."""

    head_s: float = 10.0  # a client that has not finished a request's head by then is not a client
    body_s: float = 30.0  # a body that takes longer is a slow-loris or a broken link
    idle_s: float = 75.0  # longer than the pools of common clients keep an idle connection
    reading_s: float = 30.0  # a client that does not read its answer: `SLOWEST_BYTES` in this time are reading
    linger_s: float = 2.0  # for a client to close after it has the last answer, while it may still send
    look_s: float = 1.0


class Exchange:
    """One request on its way: what will answer it, and its body so far."""

    __slots__ = ("answering", "body", "counted", "head", "head_only", "held", "keep_alive", "kept", "size")

    def __init__(self, answering: Answering | None, head: RequestHead | None, *, keep_alive: bool) -> None:
        self.answering = answering
        self.head = head
        self.counted = head is not None and head.method == "POST"  # only inference is a POST
        self.head_only = head is not None and head.method == "HEAD"
        self.keep_alive = keep_alive
        self.kept = True
        self.body: Body = b""
        self.size = self.held = 0

    def keep(self, piece: bytes) -> None:
        """Keep a further piece of the body. Raises MemoryError."""
        if not self.body:
            self.body = piece
            return
        if isinstance(self.body, bytes):
            self.body = bytearray(self.body)
        self.body += piece

    def take_body(self) -> Body:
        """Return the body, once: it is not kept here any longer. A large one is not copied."""
        body, self.body = self.body, b""
        return bytes(body) if len(body) < UNCOPIED_BYTES else body


def too_large(size: int | str) -> HttpError:
    """Return the refusal of a body over the limit."""
    return HttpError(
        413, f"request body too large: at least {size} bytes, limit {limits.MAX_REQUEST_BYTES}", closing=True
    )


NO_MEMORY_RETRY_S: Final = 5.0
"""When to come back after memory ran out: a worker that says so is replaced, which takes some seconds."""


def no_memory() -> HttpError:
    """Return the refusal of a request for which there was no memory; its connection ends."""
    delay = b"%d" % NO_MEMORY_RETRY_S
    return HttpError(503, "not enough memory for a request of this size now", (b"retry-after", delay), closing=True)


FAILED: Final = HttpError(500, "internal error, see the agent log", closing=True).response
