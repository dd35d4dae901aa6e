"""A site's cache: what it asks upstream and how often, what it keeps, and what it serves when the uplink is down."""

from __future__ import annotations

import hashlib
import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.makers.fleets import eventually
from support.sites.web_site import WebSite, failing, giving

from edge_contracts.topics import device_topic
from edge_contracts.transfer import Kind, Request, Response, pack, unpack_response
from edge_fleet.depot import pull_through
from edge_fleet.depot.depot import AWAY_S, DEVICE_FETCHES, PATIENCE_S, Depot, DepotAnswer
from edge_fleet.depot.pull_through import AT_ONCE, METADATA_S, Outcome, PullThrough
from edge_fleet.depot.rate_limit import Pace
from edge_fleet.depot.upstream import HttpUpstream
from edge_fleet.errors import ObjectNameError
from edge_fleet.objects import PATTERNS, TUF_PATTERNS, locate

BLOB = b"weights" * 30_000
SHA = hashlib.sha256(BLOB).hexdigest()
DOCUMENT = b'{"channel": "stable"}'
TARGET = f"channels/{hashlib.sha256(DOCUMENT).hexdigest()}.stable.json"
OBJECTS: dict[tuple[Kind, str], bytes] = {
    ("metadata", "timestamp.json"): b"timestamp 1",
    ("metadata", "1.root.json"): b"root 1",
    ("metadata", "7.snapshot.json"): b"snapshot 7",
    ("target", TARGET): DOCUMENT,
    ("blob", SHA): BLOB,
}
TOPIC, REPLY = device_topic("default", "dev-1", "req"), device_topic("default", "dev-1", "rsp", "n1")


class Cache:
    """A cache of a web site; `look` asks at a time of ours, in seconds, and waits for the outcome."""

    def __init__(self, folder: Path) -> None:
        for (kind, name), data in OBJECTS.items():
            path = folder / "web" / locate(kind, name)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
        self.folder = folder / "cache"
        self.site = WebSite(folder / "web")
        self.site.start()
        self.log: list[str] = []
        self.start()

    def start(self) -> None:
        self.pull = PullThrough(self.folder, HttpUpstream(self.site.url), self.log.append)

    def look(self, kind: Kind, name: str, *, offset: int = 0, now: float = 0.0) -> Outcome:
        fetch = self.pull.ask(kind, name, offset, now)
        return "here" if fetch is None else settled(fetch)

    def holds(self, kind: Kind, name: str) -> bytes:
        return (self.folder / locate(kind, name)).read_bytes()

    def files(self) -> list[str]:
        return sorted(path.name for path in self.folder.rglob("*") if path.is_file())


def settled(fetch: pull_through.Fetch) -> Outcome:
    deadline = time.monotonic() + 10
    while fetch.outcome is None:
        assert time.monotonic() < deadline
        time.sleep(0.002)
    return fetch.outcome


@pytest.fixture(name="cache")
def _cache(tmp_path: Path) -> Iterator[Cache]:
    cache = Cache(tmp_path)
    yield cache
    cache.site.stop()


@pytest.mark.parametrize(("kind", "name"), list(OBJECTS))
def test_every_kind_of_object_is_fetched(cache: Cache, kind: Kind, name: str) -> None:
    assert cache.look(kind, name) == "here"
    assert cache.holds(kind, name) == OBJECTS[kind, name]


@pytest.mark.parametrize(("kind", "name"), [key for key in OBJECTS if key[1] != "timestamp.json"])
def test_an_immutable_name_is_asked_for_once(cache: Cache, kind: Kind, name: str) -> None:
    assert {cache.look(kind, name, now=now) for now in (0.0, 1.0, 2.0)} == {"here"}
    assert len(cache.site.asked) == 1


def test_the_timestamp_and_the_next_root_are_asked_for_each_time(cache: Cache) -> None:
    for _ in range(3):
        assert cache.look("metadata", "timestamp.json") == "here"
        assert cache.look("metadata", "2.root.json") == "missing"
    assert sorted(cache.site.asked) == ["/metadata/2.root.json"] * 3 + ["/metadata/timestamp.json"] * 3


def test_a_new_timestamp_takes_the_place_of_the_old_one_and_an_equal_one_is_not_written(cache: Cache) -> None:
    cache.look("metadata", "timestamp.json")
    path = cache.folder / "metadata/timestamp.json"
    first = path.stat().st_ino
    cache.look("metadata", "timestamp.json")
    assert path.stat().st_ino == first
    cache.site.answers["/metadata/timestamp.json"] = giving(b"timestamp 2")
    cache.look("metadata", "timestamp.json")
    assert path.read_bytes() == b"timestamp 2"


def test_later_pieces_come_from_the_copy_of_the_first(cache: Cache) -> None:
    cache.look("metadata", "timestamp.json")
    assert cache.look("metadata", "timestamp.json", offset=4) == "here"
    assert len(cache.site.asked) == 1
    assert cache.look("blob", SHA, offset=65536) == "here"


def test_without_the_uplink_everything_that_is_here_is_served(cache: Cache) -> None:
    for kind, name in OBJECTS:
        cache.look(kind, name)
    assert cache.look("metadata", "2.root.json") == "missing"
    cache.site.stop()
    later = METADATA_S + 1
    assert {cache.look(kind, name, now=later) for kind, name in OBJECTS} == {"here"}
    assert cache.look("metadata", "2.root.json", now=later) == "missing"
    assert cache.look("metadata", "8.snapshot.json", now=later) == "away"
    assert cache.look("blob", "ab" * 32, now=later) == "away"
    assert len(cache.log) == 1
    cache.start()
    assert cache.look("metadata", "2.root.json", now=later) == "missing"
    cache.site.start()


def test_a_site_that_never_asked_for_the_next_root_does_not_deny_it(cache: Cache) -> None:
    cache.site.stop()
    assert cache.look("metadata", "2.root.json") == "away"
    cache.site.start()
    assert cache.look("metadata", "9.root.json") == "missing"
    cache.site.stop()
    assert cache.look("metadata", "2.root.json") == "away"
    cache.site.start()


def test_a_root_that_appears_is_not_denied_any_more(cache: Cache) -> None:
    assert cache.look("metadata", "2.root.json") == "missing"
    cache.site.answers["/metadata/2.root.json"] = giving(b"root 2")
    assert cache.look("metadata", "2.root.json") == "here"
    cache.site.stop()
    assert cache.look("metadata", "3.root.json") == "away"
    cache.site.start()


@pytest.mark.parametrize(("kind", "name"), [("blob", SHA), ("target", TARGET)])
@pytest.mark.parametrize("body", [b"", b"poison", BLOB[:-1], DOCUMENT + b" "])
def test_a_poisoned_object_is_not_kept(cache: Cache, kind: Kind, name: str, body: bytes) -> None:
    cache.site.answers[f"/{locate(kind, name)}"] = giving(body)
    assert cache.look(kind, name) == "missing"
    assert cache.files() == []
    assert "does not match the hash in its name" in cache.log[0]
    del cache.site.answers[f"/{locate(kind, name)}"]
    assert cache.look(kind, name) == "here"


@pytest.mark.parametrize("kind_name", list(OBJECTS))
def test_an_oversized_object_is_not_kept(
    cache: Cache, kind_name: tuple[Kind, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    kind, name = kind_name
    monkeypatch.setitem(pull_through.LIMITS, kind, len(OBJECTS[kind_name]) - 1)
    assert cache.look(kind, name) == "missing"
    assert cache.files() == []


@pytest.mark.parametrize(("kind", "name"), list(OBJECTS))
def test_an_object_that_broke_off_is_not_kept_and_comes_later(cache: Cache, kind: Kind, name: str) -> None:
    data, place = OBJECTS[kind, name], f"/{locate(kind, name)}"
    cache.site.answers[place] = giving(data[:-1], declared=len(data))
    assert cache.look(kind, name) == "away"
    assert cache.files() == ([f".{name}.begun.part"] if kind == "blob" else [])
    del cache.site.answers[place]
    assert cache.look(kind, name) == "here"
    assert cache.log[-1] == "upstream reachable again"


def test_false_metadata_heals_after_a_while(cache: Cache) -> None:
    cache.site.answers["/metadata/7.snapshot.json"] = giving(b"from a captive portal")
    cache.look("metadata", "7.snapshot.json", now=0.0)
    cache.site.answers.clear()
    cache.look("metadata", "7.snapshot.json", now=METADATA_S - 1)
    assert cache.holds("metadata", "7.snapshot.json") == b"from a captive portal"
    cache.look("metadata", "7.snapshot.json", now=METADATA_S)
    assert cache.holds("metadata", "7.snapshot.json") == b"snapshot 7"


def test_part_files_of_processes_that_died_are_removed(cache: Cache) -> None:
    old, young = cache.folder / "metadata/.a.json.x.part", cache.folder / "metadata/.b.json.x.part"
    for path in (old, young):
        path.write_bytes(b"part")
    os.utime(old, (0, 0))
    cache.start()
    assert (old.exists(), young.exists()) == (False, True)


class Gate:
    """An upstream whose objects come when `open` is set."""

    def __init__(self) -> None:
        self.open = threading.Event()
        self.asked: list[str] = []

    def read(self, place: str, limit: int) -> Iterator[bytes]:
        self.asked.append(place)
        assert self.open.wait(10)
        yield b"late"


def test_a_thousand_devices_are_one_fetch(tmp_path: Path) -> None:
    gate = Gate()
    cache = PullThrough(tmp_path, gate, lambda _: None)
    fetches = [cache.ask("metadata", "timestamp.json", 0, 0.0) for _ in range(1000)]
    gate.open.set()
    assert all(fetch is not None and settled(fetch) == "here" for fetch in fetches)
    assert gate.asked == ["metadata/timestamp.json"]


def test_only_so_many_fetches_run_at_once_and_blobs_do_not_keep_metadata_waiting(tmp_path: Path) -> None:
    gate = Gate()
    cache = PullThrough(tmp_path, gate, lambda _: None)
    fetches = [cache.ask("blob", f"{number:064x}", 0, 0.0) for number in range(AT_ONCE["blob"] + 3)]
    assert len({id(fetch) for fetch in fetches}) == len(fetches)
    timestamp = cache.ask("metadata", "timestamp.json", 0, 0.0)
    gate.open.set()
    assert timestamp is not None
    assert settled(timestamp) == "here"
    assert len(gate.asked) == AT_ONCE["blob"] + 1
    assert [fetch.outcome for fetch in fetches if fetch is not None][-3:] == [None] * 3


@given(
    kind=st.sampled_from(sorted(PATTERNS)),
    name=st.one_of(st.text(st.sampled_from("ab01./\\\n%*~-"), max_size=80), st.from_regex(TUF_PATTERNS["target"])),
)
def test_no_name_of_any_repository_is_located_outside_its_folder(kind: Any, name: str) -> None:
    try:
        place = locate(kind, name, TUF_PATTERNS)
    except ObjectNameError:
        return
    parts = place.split("/")
    assert not {"", ".", ".."} & set(parts)
    assert parts[0] in ("metadata", "targets", "blobs")
    assert not any(part.startswith(".") for part in parts)


# the depot in front of it


def request(**values: Any) -> bytes:
    return pack(Request(**({"id": 7, "reply": REPLY, "kind": "metadata", "name": "timestamp.json"} | values)))


def only(answers: list[DepotAnswer]) -> Response:
    assert [answer.topic for answer in answers] == [REPLY]
    return unpack_response(answers[0].payload)


def answered(depot: Depot, now: float = 0.0) -> Response:
    deadline = time.monotonic() + 10
    while not (answers := depot.ripe(now)):
        assert time.monotonic() < deadline
        time.sleep(0.002)
    return only(answers)


def test_a_request_waits_for_upstream_and_is_answered_then(cache: Cache) -> None:
    depot = Depot(cache.folder, "default", Pace(), 0.0, pull=cache.pull)
    assert depot.answer(TOPIC, request(), 0.0) is None
    assert depot.waits
    response = answered(depot)
    assert (response.id, response.status, response.body) == (7, "ok", b"timestamp 1")
    assert not depot.waits
    assert depot.counts == {"ok": 1, "bytes": len(b"timestamp 1")}
    depot.close()


def test_a_slow_upstream_does_not_keep_a_device_waiting(tmp_path: Path) -> None:
    gate = Gate()
    depot = Depot(tmp_path, "default", Pace(), 0.0, pull=PullThrough(tmp_path, gate, lambda _: None))
    assert depot.answer(TOPIC, request(), 0.0) is None
    assert depot.ripe(PATIENCE_S / 2) == []
    response = only(depot.ripe(PATIENCE_S))
    assert (response.status, response.retry_after) == ("retry_after", PATIENCE_S)
    gate.open.set()
    assert depot.answer(TOPIC, request(), 1.0) is None
    assert answered(depot, 1.0).body == b"late"


def test_what_upstream_lacks_and_what_nobody_can_get_are_told_apart(cache: Cache) -> None:
    depot = Depot(cache.folder, "default", Pace(), 0.0, pull=cache.pull)
    depot.answer(TOPIC, request(kind="blob", name="ab" * 32), 0.0)
    assert answered(depot).status == "not_found"
    cache.site.answers[f"/blobs/ab/{'ab' * 32}"] = failing(503)
    depot.answer(TOPIC, request(kind="blob", name="ab" * 32), 0.0)
    response = answered(depot)
    assert (response.status, response.retry_after) == ("retry_after", AWAY_S)


def test_a_device_that_asks_for_what_nobody_has_keeps_no_other_out(tmp_path: Path) -> None:
    gate = Gate()
    depot = Depot(tmp_path, "default", Pace(), 0.0, pull=PullThrough(tmp_path, gate, lambda _: None))
    for number in range(100):
        assert depot.answer(TOPIC, request(kind="blob", name=f"{number:064x}"), 0.0) is None
    eventually(lambda: len(gate.asked) == DEVICE_FETCHES)
    other = device_topic("default", "dev-2", "rsp", "n")
    depot.answer(device_topic("default", "dev-2", "req"), request(kind="blob", name=SHA, reply=other), 0.0)
    eventually(lambda: gate.asked[DEVICE_FETCHES:] == [f"blobs/{SHA[:2]}/{SHA}"])
    gate.open.set()


def test_a_name_that_no_object_has_is_not_asked_upstream(cache: Cache) -> None:
    depot = Depot(cache.folder, "default", Pace(), 0.0, pull=cache.pull)
    for name in ("../fleet.toml", "snapshot.json", "timestamp.json?x", "%2e%2e"):
        answer = depot.answer(TOPIC, request(name=name), 0.0)
        assert answer is not None
        assert only([answer]).status == "refused"
    assert cache.site.asked == []
