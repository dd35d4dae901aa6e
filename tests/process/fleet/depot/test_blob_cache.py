"""A site's cache and its uplink: broken transfers go on, the disk stays bounded, a busy upstream is left alone."""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest
from support.sites.web_site import WebSite, busy, giving, ranged

from edge_contracts.topics import device_topic
from edge_contracts.transfer import Kind, Request, pack, unpack_response
from edge_fleet.depot import upstream
from edge_fleet.depot.depot import Depot, DepotAnswer
from edge_fleet.depot.pull_through import Fetch, Outcome, PullThrough
from edge_fleet.depot.rate_limit import Pace
from edge_fleet.depot.upstream import HttpUpstream
from edge_fleet.errors import UpstreamBusyError, UpstreamError, UpstreamObjectError
from edge_fleet.objects import locate

BLOB = os.urandom(400_000)
SHA = hashlib.sha256(BLOB).hexdigest()
PLACE = f"/{locate('blob', SHA)}"
TOPIC, REPLY = device_topic("default", "dev-1", "req"), device_topic("default", "dev-1", "rsp", "n1")


@pytest.fixture(name="web")
def _web(tmp_path: Path) -> Iterator[WebSite]:
    (tmp_path / "web").mkdir()
    with WebSite(tmp_path / "web") as web:
        yield web


def cache(folder: Path, web: WebSite, limit: int | None = None) -> PullThrough:
    return PullThrough(folder / "cache", HttpUpstream(web.url), lambda _line: None, limit=limit)


def look(pull: PullThrough, name: str, now: float = 0.0, kind: Kind = "blob") -> Outcome:
    fetch = pull.ask(kind, name, 0, now)
    return "here" if fetch is None else settled(fetch)


def settled(fetch: Fetch) -> Outcome:
    deadline = time.monotonic() + 10
    while fetch.outcome is None:
        assert time.monotonic() < deadline
        time.sleep(0.002)
    return fetch.outcome


def wanted_from(web: WebSite, place: str, body: bytes, breaks_after: int | None = None) -> list[str]:
    """Let the site answer with Range; return the list of what is asked for as it grows."""
    asked: list[str] = []

    def answer(handler: BaseHTTPRequestHandler) -> None:
        asked.append(handler.headers.get("Range", "all"))
        ranged(body, breaks_after)(handler)

    web.answers[place] = answer
    return asked


def test_transfer_that_broke_off_goes_on_where_it_was(tmp_path: Path, web: WebSite) -> None:
    asked = wanted_from(web, PLACE, BLOB, breaks_after=150_000)
    assert look(cache(tmp_path, web), SHA) == "away"
    pull = cache(tmp_path, web)  # a restart forgets nothing
    assert [look(pull, SHA), look(pull, SHA)] == ["away", "here"]
    assert asked == ["all", "bytes=150000-", "bytes=300000-"]
    assert (pull.folder / PLACE[1:]).read_bytes() == BLOB
    assert [path.name for path in pull.folder.rglob("*.part")] == []


def test_web_server_without_range_is_read_from_the_start(tmp_path: Path, web: WebSite) -> None:
    pull = cache(tmp_path, web)
    web.answers[PLACE] = giving(BLOB[:150_000], declared=len(BLOB))
    assert look(pull, SHA) == "away"
    web.answers[PLACE] = giving(BLOB)
    assert look(pull, SHA) == "here"
    assert (pull.folder / PLACE[1:]).read_bytes() == BLOB


@pytest.mark.parametrize("junk", [b"poison" * 1000, b"longer" * 100_000])
def test_beginning_of_another_file_costs_only_a_second_transfer(tmp_path: Path, web: WebSite, junk: bytes) -> None:
    pull = cache(tmp_path, web)
    web.answers[PLACE] = giving(junk, declared=len(junk) + 1)
    assert look(pull, SHA) == "away"
    wanted_from(web, PLACE, BLOB)
    assert look(pull, SHA) == "here"
    assert (pull.folder / PLACE[1:]).read_bytes() == BLOB


def test_object_that_is_shorter_now_than_what_came_of_it_is_refused(tmp_path: Path, web: WebSite) -> None:
    web.answers[PLACE] = lambda handler: handler.send_error(416)
    with pytest.raises(UpstreamObjectError):
        list(HttpUpstream(web.url).read(PLACE[1:], 10**6, 5))


def test_range_that_was_not_asked_for_is_no_answer(tmp_path: Path, web: WebSite) -> None:
    def shifted(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(206)
        handler.send_header("Content-Range", "bytes 7-9/10")
        handler.send_header("Content-Length", "3")
        handler.end_headers()
        handler.wfile.write(b"abc")

    web.answers[PLACE] = shifted
    with pytest.raises(UpstreamError):
        list(HttpUpstream(web.url).read(PLACE[1:], 10**6, 5))


def test_least_recently_asked_for_goes_first(tmp_path: Path, web: WebSite) -> None:
    names = []
    for number in range(4):
        body = bytes([number]) * 100_000
        names.append(hashlib.sha256(body).hexdigest())
        web.answers[f"/{locate('blob', names[-1])}"] = giving(body)
    pull = cache(tmp_path, web, limit=310_000)
    for name in (*names[:3], names[0], names[3]):
        assert look(pull, name) == "here"
        time.sleep(0.01)
    left = {path.name for path in (pull.folder / "blobs").glob("*/*")}
    assert left == {names[0], names[2], names[3]}
    assert look(pull, names[1]) == "here", "what went is fetched again"


def test_single_blob_over_the_limit_is_served_all_the_same(tmp_path: Path, web: WebSite) -> None:
    web.answers[PLACE] = giving(BLOB)
    assert look(cache(tmp_path, web, limit=1000), SHA) == "here"


def test_upstream_that_asks_to_wait_is_left_alone_that_long(tmp_path: Path, web: WebSite) -> None:
    pull = cache(tmp_path, web)
    web.answers[PLACE] = busy(7)
    assert look(pull, SHA, now=0.0) == "away"
    web.answers[PLACE] = giving(BLOB)
    assert look(pull, SHA, now=6.9) == "away"
    assert look(pull, "cd" * 32, now=6.9) == "away"
    assert len(web.asked) == 1
    assert look(pull, SHA, now=7.1) == "here"


def test_device_is_told_how_long_upstream_wants_to_be_left_alone(tmp_path: Path, web: WebSite) -> None:
    web.answers[PLACE] = busy(40)
    depot = Depot(tmp_path / "cache", "default", Pace(), 0.0, pull=cache(tmp_path, web))
    asked = pack(Request(id=1, reply=REPLY, kind="blob", name=SHA))
    assert depot.answer(TOPIC, asked, 0.0) is None
    answers: list[DepotAnswer] = []
    deadline = time.monotonic() + 10
    while not answers and time.monotonic() < deadline:
        time.sleep(0.005)
        answers = depot.ripe(0.1)
    (answer,) = answers
    response = unpack_response(answer.payload)
    assert (response.status, response.retry_after) == ("retry_after", 40.0)


@pytest.mark.parametrize(("wish", "delay"), [("12", 12.0), ("9" * 40, upstream.MAX_LATER_S)])
def test_wish_to_wait_is_bounded(web: WebSite, wish: str, delay: float) -> None:
    def answer(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(429)
        handler.send_header("Retry-After", wish)
        handler.send_header("Content-Length", "0")
        handler.end_headers()

    web.answers[PLACE] = answer
    with pytest.raises(UpstreamBusyError) as caught:
        list(HttpUpstream(web.url).read(PLACE[1:], 10))
    assert caught.value.delay_s == delay
