"""The telemetry spool: nothing is lost or reordered without saying so."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from edge_agent.storage.durable import StateError
from edge_agent.telemetry.outbox import Outbox
from edge_agent.telemetry.outbox_policy import Gap, merge_gaps
from edge_contracts.telemetry import Event, TelemetryWindow

TIME = "2026-11-22T06:00:00Z"
LIMIT = 40_000


_open: list[Outbox] = []


@pytest.fixture(autouse=True)
def _closed() -> Iterator[None]:
    yield
    while _open:
        _open.pop().close()


def spool(folder: Path, boot_id: str = "b1", limit: int = LIMIT) -> Outbox:
    _open.append(Outbox(folder / "outbox.db", device="dev-1", boot_id=boot_id, limit_bytes=limit))
    return _open[-1]


def event(text: str = "x") -> Callable[[int], Event]:
    return lambda sequence: Event(device="dev-1", boot_id="b1", sequence=sequence, time=TIME, event="e", text=text)


def window() -> Callable[[int], TelemetryWindow]:
    return lambda sequence: TelemetryWindow(
        device="dev-1", boot_id="b1", sequence=sequence, start=TIME, end=TIME, slot="main", counters={"requests": 1}
    )


def drain(box: Outbox) -> list[dict[str, object]]:
    found: list[dict[str, object]] = []
    row = 0
    while waiting := box.pending(row, 7):
        for row, body in waiting:
            found.append(json.loads(body))
            box.acknowledge(row)
    return found


def accounted(messages: list[dict[str, object]]) -> set[int]:
    numbers: set[int] = set()
    for message in messages:
        first = message.get("first", message["sequence"])
        assert isinstance(first, int)
        count = message.get("count", 1)
        assert isinstance(count, int)
        numbers |= set(range(first, first + count))
    return numbers


def test_messages_come_out_in_order_and_once(tmp_path: Path) -> None:
    box = spool(tmp_path)
    for _ in range(50):
        box.put(event())
    box.commit(TIME)
    assert [message["sequence"] for message in drain(box)] == list(range(50))
    assert box.spooled == 0


def test_spool_survives_a_restart(tmp_path: Path) -> None:
    box = spool(tmp_path)
    for _ in range(3):
        box.put(event())
    box.commit(TIME)
    again = spool(tmp_path, "b2")
    again.put(event())
    assert again.spooled == 4
    assert [message["sequence"] for message in drain(again)] == [0, 1, 2, 0]


def test_full_spool_drops_windows_before_events_and_says_which(tmp_path: Path) -> None:
    box = spool(tmp_path)
    for index in range(400):
        box.put(event() if index % 10 == 0 else window())
        box.commit(TIME)
    messages = drain(box)
    assert accounted(messages) == set(range(400))
    assert sum(message["kind"] == "event" for message in messages) == 40
    assert box.dropped == 400 - sum(message["kind"] != "dropped" for message in messages)


def test_full_spool_of_events_drops_the_oldest(tmp_path: Path) -> None:
    box = spool(tmp_path)
    for _ in range(600):
        box.put(event("y" * 50))
        box.commit(TIME)
    messages = drain(box)
    assert accounted(messages) == set(range(600))
    events = [message["sequence"] for message in messages if message["kind"] == "event"]
    (lost,) = [message for message in messages if message["kind"] == "dropped"]
    assert events == list(range(lost["first"] + lost["count"], 600))
    assert (lost["first"], len(events) + lost["count"]) == (0, 600)


def test_message_on_its_way_is_never_dropped(tmp_path: Path) -> None:
    box = spool(tmp_path)
    box.put(window())
    box.commit(TIME)
    ((row, body),) = box.pending(0, 1)
    for _ in range(600):
        box.put(event())
        box.commit(TIME)
    assert box.pending(0, 1) == [(row, body)]


def test_damaged_spool_is_set_aside(tmp_path: Path) -> None:
    (tmp_path / "outbox.db").write_bytes(b"not a database at all" * 100)
    box = spool(tmp_path)
    box.put(event())
    box.commit(TIME)
    assert box.spooled == 1
    assert (tmp_path / "outbox.db.damaged").exists()


@pytest.mark.parametrize(
    ("gaps", "expected"),
    [
        ([(0, 1), (1, 1), (2, 3)], [(0, 5)]),
        ([(4, 1), (0, 2)], [(0, 2), (4, 1)]),
        ([(0, 5), (2, 1)], [(0, 5)]),
    ],
)
def test_gaps_merge(gaps: list[tuple[int, int]], expected: list[tuple[int, int]]) -> None:
    merged = merge_gaps(Gap(boot_id="b", first=first, count=count) for first, count in gaps)
    assert [(gap.first, gap.count) for gap in merged] == expected


def test_what_a_full_disk_refuses_is_named_in_a_tombstone(tmp_path: Path) -> None:
    box = spool(tmp_path)
    box.put(event())
    box.commit(TIME)
    (pages,) = box._database.execute("PRAGMA page_count").fetchone()
    box._database.execute(f"PRAGMA max_page_count = {pages}")  # SQLite's own full disk
    lost = 0
    for _ in range(5):
        with pytest.raises(StateError):
            put_and_commit(box, event("y" * 5000))
        lost += 1
    assert box.spooled == 1
    box._database.execute("PRAGMA max_page_count = 100000")
    put_and_commit(box, event("again"))
    messages = drain(box)
    assert [message["sequence"] for message in messages if message["kind"] == "event"] == [0, 6]
    (tombstone,) = (message for message in messages if message["kind"] == "dropped")
    assert (tombstone["first"], tombstone["count"]) == (1, lost)
    assert box.dropped == lost


def put_and_commit(box: Outbox, build: Callable[[int], Event]) -> None:
    box.put(build)
    box.commit(TIME)


def test_spool_that_cannot_be_opened_now_is_kept_and_memory_spools(tmp_path: Path) -> None:
    box = spool(tmp_path)
    put_and_commit(box, event())
    box.close()
    _open.clear()
    path = tmp_path / "outbox.db"
    path.rename(tmp_path / "kept.db")
    path.mkdir()  # nothing that SQLite can open, and nothing that is damaged
    put_and_commit(spool(tmp_path), event("in memory"))
    assert len(drain(_open[-1])) == 1
    assert path.is_dir()


def refuse(box: Outbox, monkeypatch: pytest.MonkeyPatch) -> None:
    """From now on the disk takes nothing, as the kernel makes a failing card."""
    monkeypatch.setattr("edge_agent.telemetry.outbox.takes_files", lambda _: False)
    box._database.execute("PRAGMA query_only = 1")  # SQLite's own "attempt to write a readonly database"


def test_card_that_becomes_read_only_keeps_nothing_from_the_fleet_but_what_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    box = spool(tmp_path)
    for _ in range(3):
        put_and_commit(box, event("on the card"))
    refuse(box, monkeypatch)
    with pytest.raises(StateError):
        put_and_commit(box, event("refused"))
    assert not box.durable
    put_and_commit(box, event("in memory"))
    messages = drain(box)
    assert accounted(messages) == {0, 1, 2, 3, 4}
    assert [message["sequence"] for message in messages if message["kind"] == "event"] == [0, 1, 2, 4]


def test_what_memory_held_lies_on_the_disk_once_that_takes_it_and_nothing_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    box = spool(tmp_path)
    for _ in range(3):
        put_and_commit(box, event("on the card"))
    refuse(box, monkeypatch)
    with pytest.raises(StateError):
        put_and_commit(box, event("refused"))
    put_and_commit(box, event("in memory"))
    ((first, _),) = box.pending(0, 1)
    box.acknowledge(first)  # the broker has it, though the disk could not be told
    assert box.restore()
    assert box.durable
    put_and_commit(box, event("on the disk again"))
    box.close()
    _open.clear()
    again = spool(tmp_path, "b2")
    messages = drain(again)
    assert accounted(messages) == {1, 2, 3, 4, 5}
    assert len(messages) == 5


def test_spool_that_was_opened_in_memory_is_joined_with_the_older_one_on_the_disk(tmp_path: Path) -> None:
    box = spool(tmp_path)
    put_and_commit(box, event("older"))
    box.close()
    _open.clear()
    path, kept = tmp_path / "outbox.db", tmp_path / "kept.db"
    path.rename(kept)
    path.mkdir()
    box = spool(tmp_path, "b2")
    put_and_commit(box, event("newer"))
    assert not box.restore(), "still nothing that can be opened"
    path.rmdir()
    kept.rename(path)
    assert box.restore()
    assert [message["text"] for message in drain(box)] == ["older", "newer"]
