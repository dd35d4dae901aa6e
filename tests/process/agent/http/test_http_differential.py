"""Our reading of HTTP/1.1 beside that of h11, httptools, hypercorn and nginx: never laxer than all of them, and
stricter only where it is written down.

What is asked of the table as a whole: where we answer a request, somebody else reads the same requests with the same
bodies; where everybody else answers, so do we, but for the cases of `STRICTER`.
"""

import asyncio
import json
import re
import socket
import threading

import pytest
from support.brokers.brokers import free_port
from support.makers.http_cases import CASES, LAST
from support.sites.http_servers import commands, running

from edge_agent.http.messages import HttpResponse
from edge_agent.http.server import HttpServer
from edge_agent.ipc.in_flight import InFlightCounters

STRICTER = {
    "HTTP/2.0": "h11 and hypercorn take any version for 1.1",
    "five thousand headers": "200 are enough for any client",
    "header of 40 KiB": "32 KiB are enough for any client",
    "path of 40 KiB": "8 KiB are enough for any client",
    "control byte in a value": "RFC 9110, section 5.5, forbids it",
    "Host of half an address": "RFC 9112, section 3.2, forbids what is no host",
    "Host with two ports": "RFC 9112, section 3.2, forbids what is no host",
    "Host with a port of letters": "RFC 9112, section 3.2, forbids what is no host",
    "LF only": "a proxy in front may see other ends of lines",
    "LF behind a field": "a proxy in front may see other ends of lines",
}


class Echo:
    def accept(self, head):
        return lambda body: HttpResponse(200, (), json.dumps([head.method, body.decode("latin-1")]).encode())


@pytest.fixture(scope="module")
def ours():
    loop, flight = asyncio.new_event_loop(), InFlightCounters.create()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    listening = socket.create_server(("127.0.0.1", 0))
    listening.setblocking(False)
    port, server = listening.getsockname()[1], HttpServer(Echo(), flight)
    asyncio.run_coroutine_threadsafe(server.start(listening), loop).result(10)
    yield port
    asyncio.run_coroutine_threadsafe(server.drain(0.0), loop).result(10)
    loop.call_soon_threadsafe(loop.stop)
    thread.join(10)
    loop.close()


def ask(port, wire, wait_s=0.7):
    """Return what a server answers: of each answer its status, and what the application saw where that is 200."""
    seen = b""
    with socket.create_connection(("127.0.0.1", port), timeout=5) as sock:
        try:
            sock.sendall(wire)
            sock.settimeout(wait_s)
            while data := sock.recv(1 << 16):
                seen += data
        except OSError:
            pass  # it waits for more, or has reset the connection
    found = []
    while head := re.match(rb"HTTP/1\.[01] (\d+)[^\r]*\r\n(.*?)\r\n\r\n", seen, re.DOTALL):
        length = re.search(rb"content-length: *(\d+)", head[2], re.IGNORECASE)
        end = head.end() + (int(length[1]) if length else len(seen))
        body, seen = seen[head.end() : end], seen[end:]
        if head[1] != b"100":
            found.append((int(head[1]), json.loads(body) if head[1] == b"200" and body else None))
    return found


def statuses(found):
    return tuple(status for status, _ in found)


def accepted(found):
    return bool(found) and all(status == 200 for status in statuses(found))


@pytest.fixture(scope="module")
def others(tmp_path_factory):
    """What each of the others answers to every case."""
    folder, table = tmp_path_factory.mktemp("servers"), {}
    for name in commands(folder, 1):
        port = free_port()
        with running(name, folder / name, port):
            table[name] = {case: ask(port, wire + LAST) for case, (wire, _) in CASES.items()}
    return table


@pytest.mark.parametrize("case", CASES)
def test_an_edge_of_http_has_its_answer(ours, case):
    wire, expected = CASES[case]
    assert statuses(ask(ours, wire + LAST)) == expected


def test_what_we_answer_somebody_else_reads_alike(ours, others):
    lonely = []
    for case, (wire, _) in CASES.items():
        found = ask(ours, wire + LAST)
        alike = [name for name, table in others.items() if _alike(name, table[case], found)]
        if accepted(found) and not alike:
            lonely.append((case, found, {name: table[case] for name, table in others.items()}))
    assert not lonely


def test_what_everybody_else_answers_we_answer_too(ours, others):
    stricter = []
    for case, (wire, _) in CASES.items():
        if all(accepted(table[case]) for table in others.values()) and not accepted(ask(ours, wire + LAST)):
            stricter.append(case)
    assert set(stricter) <= set(STRICTER)


def _alike(name, other, found):
    if name != "nginx":
        return other == found
    return statuses(other) == statuses(found)  # it does not show its application's bodies
