"""Old windows are added up to five minutes and to days, each once, whenever the process dies."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_contracts.telemetry import Event, TelemetryWindow, Tombstone
from edge_fleet.database import retention
from edge_fleet.database.retention import RetentionStore, RolledUp, Swept, merged, of_window
from edge_fleet.database.telemetry import TelemetryStore
from edge_fleet.retention import Retention

NOW = datetime(2026, 11, 20, 10, 0, tzinfo=UTC)
KEPT = Retention()


def _text(moment: datetime) -> str:
    return moment.strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def _window(sequence: int, ago: timedelta, **fields: object) -> TelemetryWindow:
    end = NOW - ago
    window = TelemetryWindow(
        device="d", boot_id="b", sequence=sequence, start=_text(end), end=_text(end), slot="main", model="m",
        version="1.0.0", counters={"requests": 10, "errors": 1}, latency_log2_us=(0, 7, 3),
        histograms={"x": (1, 2)}, resources={"temperature_c": 40.0 + sequence}, drift={"x": 0.5},
    )  # fmt: skip
    return msgspec.structs.replace(window, **fields)


@pytest.fixture(name="url")
def _url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path / 'fleet.db'}"


@pytest.fixture(name="store")
def _store(url: str) -> Iterator[TelemetryStore]:
    with contextlib.closing(TelemetryStore(url)) as store:
        yield store


@pytest.fixture(name="keeping")
def _keeping(url: str, store: TelemetryStore) -> Iterator[RetentionStore]:
    del store  # it has made the tables
    with contextlib.closing(RetentionStore(url)) as keeping:
        yield keeping


def test_windows_of_seven_days_stay_and_older_ones_are_added_up(store: TelemetryStore, keeping: RetentionStore) -> None:
    old = [_window(number, timedelta(days=8, minutes=-number)) for number in range(7)]
    store.ingest([*old, _window(7, timedelta(days=6, hours=23))], _text(NOW))
    assert keeping.sweep(KEPT, NOW) == Swept(windows=7)
    assert keeping.sweep(KEPT, NOW) == Swept()
    assert store.count_messages("window") == 1
    rows = keeping.rolled_up("d")
    assert [(start, version, row.windows) for start, _, version, row in rows] == [
        ("2026-11-12T10:00:00Z", "1.0.0", 5),
        ("2026-11-12T10:05:00Z", "1.0.0", 2),
    ]
    first = rows[0][3]
    assert first.counters == {"errors": 5, "requests": 50}
    assert first.latency_log2_us == (0, 35, 15)
    assert first.histograms == {"x": (5, 10)}
    assert first.resources == {"temperature_c": 44.0}


def test_a_late_window_is_added_to_the_five_minutes_that_are_there(
    store: TelemetryStore, keeping: RetentionStore
) -> None:
    for number in range(3):
        store.ingest([_window(number, timedelta(days=8, seconds=-number))], _text(NOW))
        keeping.sweep(KEPT, NOW)
    ((_, _, _, row),) = keeping.rolled_up("d")
    assert (row.windows, row.counters["requests"]) == (3, 30)


def test_five_minutes_become_days_after_ninety_days(store: TelemetryStore, keeping: RetentionStore) -> None:
    store.ingest([_window(number, timedelta(days=100, hours=-number)) for number in range(30)], _text(NOW))
    keeping.sweep(KEPT, NOW)
    keeping.sweep(KEPT, NOW)
    assert keeping.rolled_up("d") == []
    days = keeping.rolled_up("d", daily=True)
    assert [(start, row.windows) for start, _, _, row in days] == [
        ("2026-08-12T00:00:00Z", 14),
        ("2026-08-13T00:00:00Z", 16),
    ]


def test_a_failure_in_the_middle_loses_and_doubles_nothing(
    store: TelemetryStore, keeping: RetentionStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.ingest([_window(number, timedelta(days=8)) for number in range(5)], _text(NOW))

    def dies(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(RetentionStore, "_remove", dies)
        with pytest.raises(KeyboardInterrupt):
            keeping.sweep(KEPT, NOW)
    assert store.count_messages("window") == 5
    assert keeping.rolled_up("d") == []
    keeping.sweep(KEPT, NOW)
    ((_, _, _, row),) = keeping.rolled_up("d")
    assert row.windows == 5


def test_what_was_removed_is_no_gap_and_what_is_missing_since_is(
    store: TelemetryStore, keeping: RetentionStore
) -> None:
    store.ingest([_window(0, timedelta(days=8)), _window(1, timedelta(days=8)), _window(4, timedelta(0))], _text(NOW))
    assert store.gaps("d", "b") == [range(2, 4)]
    keeping.sweep(KEPT, NOW)
    assert store.gaps("d", "b") == [range(2, 4)]
    store.ingest([_window(2, timedelta(0)), _window(3, timedelta(0))], _text(NOW))
    assert store.gaps("d", "b") == []


def test_events_and_tombstones_are_kept_as_long_as_the_five_minutes(
    store: TelemetryStore, keeping: RetentionStore
) -> None:
    def at(days: float) -> str:
        return _text(NOW - timedelta(days=days))

    young = Event(device="d", boot_id="b", sequence=3, time=at(80), event="e")
    old = Event(device="d", boot_id="b", sequence=0, time=at(91), event="e")
    tomb = Tombstone(device="d", boot_id="b", sequence=1, time=at(91), first=2, count=1)
    store.ingest([young, old, tomb], _text(NOW))
    assert keeping.sweep(KEPT, NOW) == Swept(removed=2)
    assert [message["sequence"] for message in store.messages()] == [3]


def test_more_than_one_batch_takes_several_sweeps(
    store: TelemetryStore, keeping: RetentionStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retention, "BATCH", 2)
    store.ingest([_window(number, timedelta(days=8)) for number in range(5)], _text(NOW))
    assert [keeping.sweep(KEPT, NOW).windows for _ in range(4)] == [2, 2, 1, 0]
    ((_, _, _, row),) = keeping.rolled_up("d")
    assert row.windows == 5


_counts = st.dictionaries(st.sampled_from("abc"), st.integers(0, 9))
_rows = st.builds(
    RolledUp,
    windows=st.integers(0, 5),
    counters=_counts,
    latency_log2_us=st.lists(st.integers(0, 9), max_size=4).map(tuple),
    drift=st.dictionaries(st.sampled_from("ab"), st.floats(0, 9)),
)


@given(_rows, _rows, _rows)
def test_the_order_of_adding_up_does_not_matter(one: RolledUp, two: RolledUp, three: RolledUp) -> None:
    assert merged(merged(one, two), three) == merged(merged(three, one), two)


def test_a_window_alone_is_itself() -> None:
    window = _window(0, timedelta(0))
    assert merged(RolledUp(), of_window(window)) == of_window(window)
