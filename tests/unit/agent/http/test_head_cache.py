"""A head is known again whatever the length of its body, and only where no question is left."""

from __future__ import annotations

from typing import Any

import pytest

from edge_agent.http.head_cache import HeadCache
from edge_agent.http.messages import Body, Exchange, HttpResponse, RequestHead

BEFORE = b"POST /v2/models/m/infer HTTP/1.1\r\nHost: a\r\nX-Content-Length: 7\r\nContent-Length: "
AFTER = b"\r\nX-More: yes\r\n\r\n"
HEADERS = {b"host": b"a", b"x-content-length": b"7", b"content-length": b"3", b"x-more": b"yes"}


def answer(_: Body) -> HttpResponse:
    return HttpResponse(200, (), b"")


def wire(body: bytes, before: bytes = BEFORE, after: bytes = AFTER) -> bytes:
    return b"%b%d%b%b" % (before, len(body), after, body)


def exchange(size: int = 3, *, method: str = "POST", answering: Any = answer, **changed: Any) -> Exchange:
    headers = HEADERS | {name.encode(): b"x" for name in changed.pop("more", ())}
    one = Exchange(answering, RequestHead(method, b"/v2/models/m/infer", headers), keep_alive=True)
    one.size = size
    for name, value in changed.items():
        setattr(one, name, value)
    return one


def known(received: bytes | None = None, one: Exchange | None = None) -> HeadCache:
    cache = HeadCache()
    cache.remember(one or exchange(), memoryview(wire(b"abc") if received is None else received))
    return cache


@pytest.mark.parametrize("size", [0, 1, 2, 3, 8, 9, 10, 11, 98, 99, 100, 101, 999, 1000, 1001, 9_999, 10_000, 100_000])
def test_a_body_of_any_length_is_found(size: int) -> None:
    body = b"b" * size
    hit = known().lookup(memoryview(wire(body)))
    assert hit is not None
    assert (hit[1], hit[2]) == (answer, body)
    assert (hit[0].head, hit[0].keep_alive) == (exchange().head, True)


@pytest.mark.parametrize(
    "received",
    [
        wire(b"abc")[:-1],
        wire(b"abc") + b"d",
        wire(b"abc", after=b"\r\nX-More: no\r\n\r\n"),
        wire(b"abc", before=BEFORE.replace(b"Host: a", b"Host: b")),
        BEFORE + b"03" + AFTER + b"abc",
        BEFORE + b"" + AFTER + b"abc",
        wire(b"abc" * 4)[:-1],
        BEFORE,
        b"",
    ],
)
def test_other_bytes_are_not_found(received: bytes) -> None:
    assert known().lookup(memoryview(received)) is None


def test_nothing_is_found_before_anything_was_remembered() -> None:
    assert HeadCache().lookup(memoryview(wire(b"abc"))) is None


UNSURE = [
    exchange(method="GET"),
    exchange(answering=None),
    exchange(head=None),
    exchange(keep_alive=False),
    exchange(kept=False),
    exchange(more=("transfer-encoding",)),
    exchange(more=("expect",)),
]


@pytest.mark.parametrize("one", UNSURE, ids=range(len(UNSURE)))
def test_what_leaves_a_question_is_not_remembered_and_what_was_is_forgotten(one: Exchange) -> None:
    cache = known()
    cache.remember(one, memoryview(wire(b"abc")))
    assert cache.lookup(memoryview(wire(b"abc"))) is None


@pytest.mark.parametrize(
    "received",
    [
        b"POST / HTTP/1.1\r\nHost: a\r\n\r\nabc",  # no length
        wire(b"abc", before=b"GET /a HTTP/1.1\r\nHost: a\r\n\r\n" + BEFORE),  # another request before it
        wire(b"abc") + b"GET / HTTP/1.1\r\n\r\n",  # and behind it
        wire(b"abc", after=b"\r\n\r\nX: \r\n\r\n"),
    ],
)
def test_a_request_that_did_not_come_alone_is_not_remembered(received: bytes) -> None:
    cache = known(received)
    assert cache.lookup(memoryview(received)) is None
    assert cache.lookup(memoryview(wire(b"abc"))) is None


@pytest.mark.parametrize("before", [b"POST / HTTP/1.1\r\ncontent-LENGTH:", b"POST / HTTP/1.1\r\nContent-Length:\t "])
def test_the_length_may_be_spelled_in_any_way(before: bytes) -> None:
    cache = known(wire(b"abc", before=before, after=b" \t\r\n\r\n"))
    hit = cache.lookup(memoryview(wire(b"longer than ten", before=before, after=b" \t\r\n\r\n")))
    assert hit is not None
    assert hit[2] == b"longer than ten"
    assert cache.lookup(memoryview(wire(b"abc", before=before.swapcase(), after=b" \t\r\n\r\n"))) is None


def test_the_last_one_counts() -> None:
    cache = known()
    cache.remember(exchange(2), memoryview(wire(b"ab", after=b"\r\n\r\n")))
    assert cache.lookup(memoryview(wire(b"abc"))) is None
    assert cache.lookup(memoryview(wire(b"abc", after=b"\r\n\r\n"))) is not None
