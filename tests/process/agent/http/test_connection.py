"""HTTP connections: what hostile, slow and vanishing clients can do, and that answers come in the order of requests."""

import asyncio
import contextlib
import json
import re
import socket
import threading
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.sites.worker_host import wait_until

from edge_agent.http.failure_log import FailureLog
from edge_agent.http.head_cache import HeadCache
from edge_agent.http.messages import Exchange, HttpError, HttpResponse, RequestHead, Timeouts, retry
from edge_agent.http.server import HttpServer
from edge_agent.ipc.in_flight import InFlightCounters
from edge_contracts import limits

HUGE = 12_000_000
"""Bytes of an answer that no kernel's buffers take at once."""


class Echo:
    """An application of a few paths; `/echo` answers with the body, unless it is `closed`."""

    closed = False

    def accept(self, head):
        match head.path:
            case b"/echo":
                return lambda body: self._echo(head, body)
            case b"/slow":
                return self._slow
            case b"/large":
                return lambda _: HttpResponse(200, (), b"x" * 1_000_000)
            case b"/huge":
                return lambda _: HttpResponse(200, (), b"x" * HUGE)
            case b"/mistake":
                return lambda _: 1 // 0
        raise HttpError(404, "no such path")

    def _echo(self, head, body):
        if self.closed:
            raise retry(1.0, "closed")
        return HttpResponse(200, (), head.method.encode() + b":" + body)

    async def _slow(self, body):
        await asyncio.sleep(0.1)
        return HttpResponse(200, (), b"slow:" + body)


class Host:
    """A server on a loop in a thread of its own."""

    def __init__(self, **patience):
        self.app = Echo()
        self.flight = InFlightCounters.create()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self._listening = socket.create_server(("127.0.0.1", 0))
        self._listening.setblocking(False)
        self.address = self._listening.getsockname()
        self.server = HttpServer(self.app, self.flight, Timeouts(**{"look_s": 0.05, **patience}))
        self._call(self.server.start(self._listening))

    def drain(self, deadline_s):
        return asyncio.run_coroutine_threadsafe(self.server.drain(deadline_s), self._loop)

    def settled(self):
        """Wait until nobody is connected and nothing is in flight, and nothing is held."""
        held = self.server._shared
        wait_until(lambda: not (self.flight.connections or self.flight.in_flight or held.buffered))

    def close(self):
        self._call(self.server.drain(0.0))
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()
        self.flight.close()

    def _call(self, awaitable):
        return asyncio.run_coroutine_threadsafe(awaitable, self._loop).result(10)


@pytest.fixture(scope="module")
def host():
    made = Host()
    yield made
    made.close()


@pytest.fixture
def impatient():
    made = Host(head_s=0.2, body_s=0.2, idle_s=0.3, reading_s=0.3, linger_s=0.3)
    yield made
    made.close()


def post(body, path=b"/echo", headers=b""):
    return b"POST %b HTTP/1.1\r\nhost: x\r\n%bcontent-length: %d\r\n\r\n%b" % (path, headers, len(body), body)


def connect(host):
    return contextlib.closing(socket.create_connection(host.address, timeout=10))


def read_until_closed(sock):
    seen = b""
    with contextlib.suppress(ConnectionResetError):
        while data := sock.recv(1 << 20):
            seen += data
    return seen


def answers(data):
    """Return status and body of every answer in `data`."""
    found = []
    while data:
        head, _, rest = data.partition(b"\r\n\r\n")
        length = int(re.search(rb"content-length: (\d+)", head)[1])
        found.append((int(head[9:12]), rest[:length]))
        data = rest[length:]
    return found


LAST = post(b"bye", headers=b"connection: close\r\n")
BYE = (200, b"POST:bye")


def ask(host, data):
    """Send everything, read until the server closes; return the answers."""
    with connect(host) as sock:
        sock.sendall(data)
        return answers(read_until_closed(sock))


def test_pipelined_requests_are_answered_in_order_even_behind_a_slow_one(host):
    wire = post(b"1") + post(b"2", b"/slow") + post(b"3") + post(b"4", b"/nowhere") + LAST
    assert [status for status, _ in ask(host, wire)] == [200, 200, 200, 404, 200]
    assert [body for status, body in ask(host, wire) if status == 200] == [b"POST:1", b"slow:2", b"POST:3", BYE[1]]
    host.settled()


@settings(max_examples=60, deadline=None)
@given(cuts=st.lists(st.integers(1, 400), max_size=6))
def test_however_the_bytes_are_cut_the_answers_are_the_same(host, cuts):
    chunked = b"POST /echo HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n"
    wire = post(b"one") + chunked + b"GET /nowhere HTTP/1.1\r\nhost: x\r\n\r\n" + LAST
    with connect(host) as sock:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for start, end in zip([0, *sorted(cuts)], [*sorted(cuts), len(wire)], strict=True):
            sock.sendall(wire[start:end])
        found = answers(read_until_closed(sock))
    assert found[:2] == [(200, b"POST:one"), (200, b"POST:abcde")]
    assert [found[2][0], found[3]] == [404, BYE]


def ask_kept(sock, *parts):
    """Send the parts, each when the one before has surely been read; return the answer to the request they are."""
    for part in parts:
        sock.sendall(part)
        time.sleep(0.002 * (len(parts) > 1))
    (answer,) = answers(sock.recv(1 << 16))
    return answer


ENDS = st.lists(st.sampled_from([b"\r\n", b"\n", b"ab"]), min_size=2, max_size=4).map(b"".join)


@settings(max_examples=80, deadline=None)
@given(sent=st.lists(st.tuples(ENDS, st.sampled_from([b"", b"\r\n", b"\r\n\r\n"]), st.integers(0, 60)), max_size=8))
def test_a_head_that_was_seen_before_changes_no_answer(host, sent):
    """Bodies made of line ends, empty lines behind them, and requests in two pieces, between such as are whole."""
    with connect(host) as sock:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for body, behind, cut in sent:
            wire = post(body) + behind
            assert ask_kept(sock, *((wire[:cut], wire[cut:]) if cut % 3 == 1 else (wire,))) == (200, b"POST:" + body)
        assert ask_kept(sock, LAST) == BYE
    host.settled()


@pytest.mark.parametrize("size", [0, 1, 8, 9, 10, 11, 98, 99, 100, 101, 999, 1000, 9_999, 10_000])
def test_a_head_is_known_again_whatever_the_length_of_its_body(size):
    first, known = post(b"123"), HeadCache()
    exchange = Exchange(bytes, RequestHead("POST", b"/echo", {b"content-length": b"3"}), keep_alive=True)
    exchange.size = 3
    known.remember(exchange, memoryview(first))
    wire = post(b"x" * size)
    assert known.lookup(memoryview(wire))[1:] == (bytes, b"x" * size)
    for other in (wire[:-1], wire + b"x", wire.replace(b"/echo", b"/ecHo"), wire.replace(b"POST", b"PAST"), b""):
        assert known.lookup(memoryview(other)) is None


@pytest.mark.parametrize("end", [b"\n", b"\r\n"])
def test_a_head_with_odd_line_ends_is_never_taken_for_one_seen_before(host, end):
    body = b"12\r\n\r\n"
    wire = post(body).replace(b"\r\n", end, 3) + b"\r\n"
    with connect(host) as sock:
        for _ in range(3):
            status, answer = ask_kept(sock, wire)
            assert answer == b"POST:" + body or status == 400
            if status == 400:
                return


def test_a_head_seen_before_can_still_be_refused(host):
    with connect(host) as sock:
        try:
            assert [ask_kept(sock, post(b"1"))[0] for _ in range(3)] == [200] * 3
            host.app.closed = True
            assert [ask_kept(sock, post(b"2"))[0] for _ in range(2)] == [503] * 2
        finally:
            host.app.closed = False
        assert ask_kept(sock, post(b"3")) == (200, b"POST:3")
        sock.sendall(post(b"4") + post(b"5") + LAST)
        assert [body for _, body in answers(read_until_closed(sock))] == [b"POST:4", b"POST:5", BYE[1]]
    host.settled()


GET = b"GET /echo HTTP/1.1\r\nhost: x\r\n"
CHUNKED = b"POST /echo HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n"
BROKEN = {
    "tls": (400, b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"),
    "http/2 preface": (505, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"),
    "http/0.9": (505, b"GET /echo\r\n"),
    "http/0.9 with a body": (400, b"POST /echo\nhost: x\nconnection: keep-alive\ncontent-length: 1\n\nx"),
    "rtsp": (400, b"DESCRIBE /echo RTSP/1.0\r\nhost: x\r\n\r\n"),
    "no host": (400, b"GET /echo HTTP/1.1\r\n\r\n"),
    "two hosts": (400, GET + b"host: y\r\n\r\n"),
    "both framings": (400, GET + b"content-length: 3\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\nGET /"),
    "two lengths": (400, GET + b"content-length: 3\r\ncontent-length: 4\r\n\r\nabcd"),
    "negative length": (400, GET + b"content-length: -1\r\n\r\n"),
    "huge length": (413, GET + b"content-length: 99999999999999999999999\r\n\r\n"),
    "coding": (501, GET + b"transfer-encoding: gzip, chunked\r\n\r\n0\r\n\r\n"),
    "chunk size": (400, CHUNKED + b"zz\r\n"),
    "long trailer": (431, CHUNKED + b"0\r\nx: " + b"a" * 100_000),
    "many trailers": (431, CHUNKED + b"0\r\n" + b"x: y\r\n" * 50_000),
    "long chunk header": (400, CHUNKED + b"1;" + b"a" * 100_000),
    "long header": (431, GET + b"x: " + b"a" * limits.MAX_HEAD_BYTES),
    "many headers": (431, GET + b"x: y\r\n" * (limits.MAX_HEAD_FIELDS + 1) + b"\r\n"),
    "long target": (414, b"GET /" + b"a" * limits.MAX_TARGET_BYTES + b" HTTP/1.1\r\nhost: x\r\n\r\n"),
    "endless target": (414, b"GET /" + b"a" * 100_000),
}


@pytest.mark.parametrize("name", BROKEN)
def test_what_is_no_request_is_refused_and_the_end(host, name):
    status, wire = BROKEN[name]
    found = ask(host, wire)
    assert [status for status, _ in found] == [status]
    assert "error" in json.loads(found[0][1])
    host.settled()


@pytest.mark.parametrize("coding", ["length", "chunked"])
@pytest.mark.parametrize("upgrade", [b"h2c", b"websocket", b"x"])
def test_an_offer_to_upgrade_is_ignored_and_its_body_is_read(host, upgrade, coding):
    """RFC 9110, section 7.8: Java's client offers HTTP/2 with each request, `curl --http2` too."""
    head = b"POST /echo HTTP/1.1\r\nhost: x\r\nconnection: Upgrade, HTTP2-Settings\r\nupgrade: %b\r\n" % upgrade
    head += b"http2-settings: AAEAAEAAAAIAAAABAAMAAABkAAQBAAAAAAUAAEAA\r\n"
    body = (
        b"content-length: 3\r\n\r\nabc"
        if coding == "length"
        else b"transfer-encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n"
    )
    wire = head + body + LAST
    for cut in range(0, len(wire), 7):
        with connect(host) as sock:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            sock.sendall(wire[:cut])
            sock.sendall(wire[cut:])
            assert answers(read_until_closed(sock)) == [(200, b"POST:abc"), BYE]


def read_slowly(sock, pause_s=0.02):
    seen = 0
    while data := sock.recv(1 << 18):
        seen += len(data)
        time.sleep(pause_s)
    return seen


@pytest.mark.parametrize("head", [b"HTTP/1.1\r\nhost: x\r\nconnection: close", b"HTTP/1.0"])
def test_a_slow_reader_gets_a_whole_answer_before_the_connection_ends(head):
    """Reading takes a second. The kernel holds half of the answer, so that a busy machine may show no progress for as
    long: the time for reading is not what is tested."""
    host = Host(linger_s=0.2, reading_s=5.0)
    with connect(host) as sock:
        sock.sendall(b"GET /huge " + head + b"\r\n\r\n")
        assert read_slowly(sock) > HUGE, "cut off although the client was reading"
    host.settled()
    host.close()


def test_a_slow_reader_gets_a_whole_answer_while_the_server_drains():
    host = Host(reading_s=5.0)
    with connect(host) as sock:
        sock.sendall(b"GET /huge HTTP/1.1\r\nhost: x\r\n\r\n")
        sock.recv(1)
        draining = host.drain(0.2)
        assert read_slowly(sock) + 1 > HUGE
    assert draining.result(10) == 0
    host.close()


@pytest.mark.parametrize("number", [400, 2_000])
def test_deep_pipelines_are_answered_whatever_they_weigh_together(host, number):
    wire = b"GET /echo HTTP/1.1\r\nhost: x\r\nx-padding: %b\r\n\r\n" % (b"a" * 60)
    found = ask(host, wire * number + LAST)
    assert [status for status, _ in found] == [200] * (number + 1)


def test_the_longest_idle_connection_makes_room_for_a_newcomer(host):
    with contextlib.ExitStack() as stack:
        socks = [stack.enter_context(connect(host)) for _ in range(limits.MAX_CONNECTIONS)]
        for sock in socks:
            assert ask_kept(sock, post(b"x"))[0] == 200
        sock = stack.enter_context(connect(host))
        assert ask_kept(sock, post(b"newcomer")) == (200, b"POST:newcomer")
        assert socks[0].recv(10) == b"", "another one was closed than the one that was idle longest"
        assert ask_kept(socks[1], post(b"x"))[0] == 200
    assert host.server.counters["connections_displaced"] == 1
    host.settled()


def test_a_newcomer_is_told_so_and_counted_when_all_connections_are_busy(host):
    with contextlib.ExitStack() as stack:
        for _ in range(limits.MAX_CONNECTIONS):
            stack.enter_context(connect(host)).sendall(b"POST /echo HTTP/1.1\r\nhost: x\r\ncontent-length: 1\r\n\r\n")
        wait_until(lambda: host.flight.connections == limits.MAX_CONNECTIONS and host.flight.started)
        time.sleep(0.2)
        with connect(host) as sock:
            assert [status for status, _ in answers(read_until_closed(sock))] == [503]
    assert host.server.counters["connections_refused"] == 1
    host.settled()


def test_memory_that_cannot_be_had_is_503_and_the_end_of_one_connection(host, monkeypatch):
    def fail(_):
        raise MemoryError

    monkeypatch.setattr(Exchange, "take_body", fail)
    told = []
    host.server._shared.out_of_memory = lambda: told.append(1)
    with connect(host) as sock:
        sock.sendall(post(b"1")[:-1])
        sock.sendall(b"1")
        assert [status for status, _ in answers(read_until_closed(sock))] == [503]
    assert told == [1]
    monkeypatch.undo()
    assert ask(host, LAST) == [BYE]
    host.settled()


def test_failures_of_one_kind_write_one_traceback(host, caplog):
    host.server._shared.failures = FailureLog()
    for _ in range(5):
        assert [status for status, _ in ask(host, post(b"", b"/mistake"))] == [500]
    assert caplog.text.count("Traceback") == 1


def test_a_refused_request_is_answered_although_the_client_still_sends(host):
    head = b"POST /echo HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n" % (limits.MAX_REQUEST_BYTES + 1)
    with connect(host) as sock:
        sock.sendall(head)
        for _ in range(20):
            sock.sendall(b"x" * 100_000)
        sock.shutdown(socket.SHUT_WR)
        assert [status for status, _ in answers(read_until_closed(sock))] == [413]
    host.settled()


def test_an_endless_chunked_body_is_413(host):
    with connect(host) as sock:
        sock.sendall(b"POST /echo HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n")
        piece = b"100000\r\n" + b"x" * 0x100000 + b"\r\n"
        with contextlib.suppress(OSError):
            for _ in range(limits.MAX_REQUEST_BYTES // 0x100000 + 2):
                sock.sendall(piece)
        assert sock.recv(100).startswith(b"HTTP/1.1 413")
    host.settled()


def test_a_body_nobody_wants_is_not_kept_and_the_connection_goes_on(host):
    assert [status for status, _ in ask(host, post(b"x" * 1_000_000, b"/nowhere") + LAST)] == [404, 200]
    host.settled()


def test_more_large_bodies_at_once_than_memory_is_meant_for_are_asked_to_come_back(host):
    size = limits.MAX_REQUEST_BYTES - 1000
    with contextlib.ExitStack() as stack:
        socks = [stack.enter_context(connect(host)) for _ in range(3)]
        for sock in socks:
            sock.sendall(b"POST /echo HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n" % size)
            sock.sendall(b"x" * (size - 1))
        for sock in socks:
            sock.sendall(b"x")
        statuses = sorted(sock.recv(12) for sock in socks)
    assert statuses == [b"HTTP/1.1 200", b"HTTP/1.1 200", b"HTTP/1.1 503"]
    host.settled()


def test_a_head_that_does_not_end_is_cut_off_in_time(impatient):
    with connect(impatient) as sock:
        sock.sendall(b"GET /echo HTTP/1.1\r\nx: ")
        assert read_until_closed(sock) == b""
    with connect(impatient) as sock:  # and one that never begins
        assert read_until_closed(sock) == b""
    impatient.settled()


def test_a_body_that_does_not_end_is_408_in_time(impatient):
    found = ask(impatient, b"POST /echo HTTP/1.1\r\nhost: x\r\ncontent-length: 10\r\n\r\nabc")
    assert [status for status, _ in found] == [408]
    impatient.settled()


def test_an_idle_connection_is_closed_and_a_busy_one_is_not(impatient):
    with connect(impatient) as sock:
        for _ in range(4):
            sock.sendall(post(b"x"))
            assert sock.recv(1000).endswith(b"POST:x")
            time.sleep(0.15)
        assert sock.recv(10) == b""
    assert [body for _, body in ask(impatient, post(b"1", b"/slow") * 5 + LAST)] == [b"slow:1"] * 5 + [BYE[1]]


def test_a_client_that_does_not_read_is_cut_off(impatient):
    with connect(impatient) as sock:
        sock.sendall(post(b"", b"/large") * 50)
        wait_until(lambda: impatient.flight.started)
        impatient.settled()


def test_a_client_that_vanishes_leaves_nothing_behind(host):
    for wire in (post(b"x" * 1000)[:-1], post(b"1", b"/slow"), post(b"1", b"/slow") + post(b"2"), b"GET / HT"):
        with connect(host) as sock:
            sock.sendall(wire)
            time.sleep(0.02)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")  # reset
    host.settled()


def test_a_client_that_has_said_all_still_gets_its_answer(host):
    with connect(host) as sock:
        sock.sendall(post(b"1", b"/slow") + post(b"2"))
        sock.shutdown(socket.SHUT_WR)
        assert [body for _, body in answers(read_until_closed(sock))] == [b"slow:1", b"POST:2"]


def test_a_mistake_of_ours_is_500_and_costs_one_connection(host, caplog):
    host.server._shared.failures = FailureLog()
    assert [status for status, _ in ask(host, post(b"", b"/mistake") + post(b"never"))] == [500]
    assert "ZeroDivisionError" in caplog.text
    assert ask(host, LAST) == [BYE]
    host.settled()


def test_many_small_chunks_are_a_body_like_any_other(host):
    wire = b"POST /echo HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n" + b"1\r\nx\r\n" * 50_000
    trailer = b"0\r\nx-check: 7\r\n\r\n"
    assert ask(host, wire + trailer + LAST) == [(200, b"POST:" + b"x" * 50_000), BYE]


def test_older_and_odd_clients(host):
    assert ask(host, b"GET /echo HTTP/1.0\r\n\r\n") == [(200, b"GET:")]
    assert ask(host, b"GET /echo HTTP/1.0\r\nconnection: keep-alive\r\n\r\n") == [(200, b"GET:")]
    upgrade = b"GET /echo HTTP/1.1\r\nhost: x\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n"
    assert [status for status, _ in ask(host, upgrade + b"\x81\x05hello")] == [200, 400]
    with connect(host) as sock:
        sock.sendall(b"HEAD /echo HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
        seen = read_until_closed(sock)
    assert seen.endswith(b"content-length: 5\r\nconnection: close\r\n\r\n")
    with connect(host) as sock:
        for before in (b"", post(b"first"), post(b"first", b"/slow")):
            sock.sendall(
                before + b"POST /echo HTTP/1.1\r\nhost: x\r\nexpect: 100-Continue \r\ncontent-length: 2\r\n\r\n"
            )
            seen = b""
            while not seen.endswith(b"HTTP/1.1 100 Continue\r\n\r\n"):
                seen += sock.recv(1000)
            sock.sendall(b"hi")
            assert sock.recv(1000).endswith(b"POST:hi")
    old = b"POST /echo HTTP/1.0\r\nexpect: 100-continue\r\ncontent-length: 2\r\n\r\n"
    assert ask(host, old + b"hi") == [(200, b"POST:hi")]
    nowhere = b"POST /nowhere HTTP/1.1\r\nhost: x\r\nexpect: 100-continue\r\ncontent-length: 50000000\r\n\r\n"
    assert [status for status, _ in ask(host, nowhere)] == [404], "asked for a body only to throw it away"


def test_after_a_closing_answer_the_server_waits_for_the_client_only_a_moment(host, impatient):
    for path in (b"/echo", b"/slow"):
        assert ask(host, post(b"1", path, b"connection: close\r\n"))
        start = time.monotonic()
        host.settled()
        assert time.monotonic() - start < 1.5, "it did not notice that the client has closed"
    with connect(impatient) as sock:
        sock.sendall(LAST)
        wait_until(lambda: impatient.flight.started)
        impatient.settled()  # although the client neither reads nor closes


def test_draining_answers_what_is_on_the_wire_and_says_close():
    host = Host()
    with connect(host) as sock:
        sock.sendall(post(b"1"))
        assert b"connection: close" not in sock.recv(1000)
        draining = host.drain(5.0)
        time.sleep(0.05)
        sock.sendall(post(b"2") + post(b"3", b"/slow") + post(b"4"))
        found = answers(read_until_closed(sock))
    assert [body for _, body in found] == [b"POST:2", b"slow:3", b"POST:4"]
    assert draining.result(10) == 0
    host.close()
