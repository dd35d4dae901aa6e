"""A request's head, known again by its bytes: a client that keeps its connection sends the same one each time.

What the parser made of these bytes once it would make of them again; that costs as much as the rest of a connection,
most of all behind a model that has just emptied the caches. Only what leaves no question is remembered: a whole POST
that came alone in one read, with a body of declared length. Everything else goes through the parser, as the first one
did.
"""

from __future__ import annotations

from typing import NamedTuple

from edge_agent.adapters.exchange import Exchange, Head

_END = b"\r\n\r\n"


class Familiar(NamedTuple):
    """A head, its bytes, and those of a whole request that begins with it."""

    head: Head
    start: bytes
    size: int

    def body_of(self, received: memoryview) -> bytes | None:
        """Return the body of a request that is like this one, None if `received` is anything else."""
        length = len(self.start)
        return bytes(received[length:]) if len(received) == self.size and received[:length] == self.start else None


def familiar(exchange: Exchange, received: memoryview) -> Familiar | None:
    """Return how to know the head of `exchange` again, parsed from `received` and nothing before it; None if it is not
    sure that these bytes are the head, the body, and nothing else."""
    head = exchange.head
    if head is None or not (exchange.counted and exchange.keep_alive and exchange.kept):
        return None
    if b"transfer-encoding" in head.headers or b"expect" in head.headers:
        return None
    start = bytes(received[: len(received) - exchange.size])
    # The parser takes no line end but CRLF; so the first empty line ends the head, and none of them follows the body.
    return Familiar(head, start, len(received)) if start.find(_END) + len(_END) == len(start) else None
