"""A request's head, known again by its bytes: a client that keeps its connection sends the same one each time, but for
the length of the body.

What was read of these bytes once would be read of them again; that costs as much as the rest of a connection, most of
all behind a model that has just emptied the CPU's caches. Only what leaves no question is remembered: a whole POST that
came alone in one read, with a body of declared length. Everything else is parsed, as the first one was.
"""

from __future__ import annotations

import re

from edge_agent.http.messages import Answering, Exchange

_HEAD = re.compile(rb"(.*\r\ncontent-length:[ \t]*)\d+([ \t]*\r\n.*)", re.DOTALL | re.IGNORECASE)
_END = b"\r\n\r\n"

HeadHit = tuple[Exchange, Answering, bytes]
"""An exchange for a request, what answers it, and its body."""


class HeadCache:
    """The last head of one connection."""

    __slots__ = ("_after", "_answering", "_before", "_exchange")

    def __init__(self) -> None:
        self._before = self._after = b""  # and after the digits of the body's length
        self._exchange: Exchange | None = None
        self._answering: Answering

    def lookup(self, received: memoryview) -> HeadHit | None:
        """Return what is known of a request that is like the remembered one, None if `received` is anything else."""
        exchange = self._exchange
        if exchange is None:
            return None
        before, after = self._before, self._after
        size = len(received) - len(before) - len(after)  # of the length's digits and the body
        digits = len(str(size))
        size -= digits if len(str(size - digits)) == digits else digits - 1
        head = b"%b%d%b" % (before, size, after)
        if len(received) != len(head) + size or received[: len(head)] != head:
            return None
        return exchange, self._answering, bytes(received[len(head) :])

    def remember(self, exchange: Exchange, received: memoryview) -> None:
        """Remember the head of `exchange`, which is `received` but for the body and came alone; forget it if it is not
        sure that a request with these bytes is answered like this one."""
        self._exchange = None
        head = exchange.head
        if head is None or exchange.answering is None or not (exchange.counted and exchange.keep_alive):
            return
        if not exchange.kept or b"transfer-encoding" in head.headers or b"expect" in head.headers:
            return
        start = bytes(received[: len(received) - exchange.size])
        # The first empty line ends a head; so no empty line came before it, and none follows the body.
        if start.find(_END) + len(_END) != len(start) or (parts := _HEAD.fullmatch(start)) is None:
            return
        self._before, self._after, self._answering = parts[1], parts[2], exchange.answering
        self._exchange = Exchange(None, head, keep_alive=True)
