"""A request's head, known again by its bytes: a client that keeps its connection sends the same one each time, but for
the length of the body.

What the parser made of these bytes once it would make of them again; that costs as much as the rest of a connection,
most of all behind a model that has just emptied the caches. Only what leaves no question is remembered: a whole POST
that came alone in one read, with a body of declared length. Everything else goes through the parser, as the first one
did.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from edge_agent.http.messages import Answering, Exchange

_HEAD = re.compile(rb"(.*\r\ncontent-length:[ \t]*)\d+([ \t]*\r\n.*)", re.DOTALL | re.IGNORECASE)
_END = b"\r\n\r\n"


class CachedHead(NamedTuple):
    """A head before and after the length of the body, what answers a request like it, and an exchange for it."""

    before: bytes
    after: bytes
    answering: Answering
    exchange: Exchange

    def body_of(self, received: memoryview) -> bytes | None:
        """Return the body of a request that is like this one, None if `received` is anything else."""
        before, after = self.before, self.after
        size = len(received) - len(before) - len(after)  # of the length's digits and the body
        digits = len(str(size))
        size -= digits if len(str(size - digits)) == digits else digits - 1
        head = b"%b%d%b" % (before, size, after)
        if len(received) != len(head) + size or received[: len(head)] != head:
            return None
        return bytes(received[len(head) :])


def remember_head(exchange: Exchange, received: memoryview) -> CachedHead | None:
    """Return how to know the head of `exchange` again, parsed from `received` and nothing before it; None if it is not
    sure that these bytes are the head, the body, and nothing else."""
    head = exchange.head
    if head is None or exchange.answering is None or not (exchange.counted and exchange.keep_alive and exchange.kept):
        return None
    if b"transfer-encoding" in head.headers or b"expect" in head.headers:
        return None
    start = bytes(received[: len(received) - exchange.size])
    # The parser takes no line end but CRLF; so the first empty line ends the head, and none of them follows the body.
    if start.find(_END) + len(_END) != len(start) or (parts := _HEAD.fullmatch(start)) is None:
        return None
    return CachedHead(parts[1], parts[2], exchange.answering, Exchange(None, head, keep_alive=True))
