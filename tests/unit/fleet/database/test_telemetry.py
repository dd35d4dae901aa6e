"""The store: nothing twice, gaps provable, late messages harmless."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from edge_contracts.codec import encode
from edge_contracts.errors import ContractError
from edge_contracts.state import Presence, ReportedState, SlotState
from edge_contracts.telemetry import Event, TelemetryWindow, Tombstone
from edge_contracts.topics import device_topic
from edge_fleet.controller.ingest import parse_arrival
from edge_fleet.database.telemetry import TelemetryStore
from edge_fleet.errors import FleetError

TIME = "2026-11-22T06:00:00Z"


@pytest.fixture(name="store")
def _store(tmp_path: Path) -> Any:
    store = TelemetryStore(f"sqlite:///{tmp_path}/fleet.db")
    yield store
    store.close()


def event(sequence: int, **values: Any) -> Event:
    known = {"device": "dev-1", "boot_id": "b1", "sequence": sequence, "time": TIME, "event": "started"}
    return Event(**(known | values))


def window(sequence: int) -> TelemetryWindow:
    return TelemetryWindow(device="dev-1", boot_id="b1", sequence=sequence, start=TIME, end=TIME, slot="main")


def tombstone(first: int, count: int) -> Tombstone:
    last = first + count - 1
    return Tombstone(device="dev-1", boot_id="b1", sequence=last, time=TIME, first=first, count=count)


def report(sequence: int, boot_id: str = "b1", **values: Any) -> ReportedState:
    known = {"device": "dev-1", "boot_id": boot_id, "sequence": sequence, "time": TIME, "agent_version": "0.1.0"}
    return ReportedState(**(known | {"board": "pc", "architecture": "x86_64"} | values))


def presence(online: bool, boot_id: str = "b1") -> Presence:
    return Presence(device="dev-1", boot_id=boot_id, online=online)


def test_a_redelivered_batch_is_stored_once(store: TelemetryStore) -> None:
    batch = [event(0), window(1), presence(True), report(5)]
    store.ingest(batch, TIME)
    store.ingest(batch, TIME)
    assert store.sequences("dev-1", "b1") == [0, 1]
    assert len(store.devices()) == 1


def test_a_duplicate_inside_one_batch_is_stored_once(store: TelemetryStore) -> None:
    store.ingest([event(0), event(0)], TIME)
    assert store.sequences("dev-1", "b1") == [0]


def test_no_gap_is_seen_where_everything_arrived_in_any_order(store: TelemetryStore) -> None:
    store.ingest([event(2), event(0), window(1)], TIME)
    assert store.gaps("dev-1", "b1") == []
    assert store.gaps("dev-1", "other boot") == []


def test_a_gap_is_the_exact_numbers_that_are_missing(store: TelemetryStore) -> None:
    store.ingest([event(1), event(4), event(6)], TIME)
    assert store.gaps("dev-1", "b1") == [range(1), range(2, 4), range(5, 6)]


def test_a_gap_of_any_claimed_size_is_found_at_once(store: TelemetryStore) -> None:
    store.ingest([event(0), event(2**53 - 1)], TIME)
    assert store.gaps("dev-1", "b1") == [range(1, 2**53 - 1)]


@pytest.mark.parametrize(
    "message",
    [
        event(2**63),
        event(10**30),
        tombstone(2**60, 1),
        event(0, boot_id="a\x00b"),
        event(0, boot_id="b" * 200),
        event(0, boot_id=""),
    ],
)
def test_a_message_that_no_database_could_hold_is_refused_at_the_door(message: Any) -> None:
    with pytest.raises(ContractError):
        parse_arrival(device_topic("default", "dev-1", "tele"), encode(message))


def test_a_database_that_cannot_be_opened_is_an_operators_error(tmp_path: Path) -> None:
    with pytest.raises(FleetError, match="cannot open the database"):
        TelemetryStore(f"sqlite:///{tmp_path}/missing/fleet.db")


def test_a_tombstone_accounts_for_its_run_and_nothing_else(store: TelemetryStore) -> None:
    store.ingest([event(0), tombstone(1, 3), event(6)], TIME)
    assert store.gaps("dev-1", "b1") == [range(4, 6)]


def test_boots_are_counted_apart(store: TelemetryStore) -> None:
    store.ingest([event(0), event(1, boot_id="b2"), event(0, boot_id="b2")], TIME)
    assert store.gaps("dev-1", "b1") == store.gaps("dev-1", "b2") == []


def test_a_late_last_will_does_not_take_a_reborn_device_offline(store: TelemetryStore) -> None:
    store.ingest([presence(True, "b1")], TIME)
    store.ingest([presence(True, "b2"), presence(False, "b1")], TIME)
    assert store.devices()[0].online
    store.ingest([presence(False, "b2")], TIME)
    assert store.devices()[0].online is False


def test_an_older_report_does_not_replace_a_newer_one(store: TelemetryStore) -> None:
    store.ingest([report(5, slots=(SlotState(slot="main", state="committed"),)), report(4)], TIME)
    (device,) = store.devices()
    assert device.reported is not None
    assert (device.sequence, device.reported.slots[0].state) == (5, "committed")


def test_the_first_report_of_a_new_boot_replaces_the_old_boots_last(store: TelemetryStore) -> None:
    store.ingest([presence(True, "b1"), report(50, "b1"), presence(True, "b2"), report(0, "b2")], TIME)
    assert store.devices()[0].boot_id == "b2"
    store.ingest([report(51, "b1")], TIME)
    assert store.devices()[0].boot_id == "b2"


def test_events_are_listed_newest_last_and_limited(store: TelemetryStore) -> None:
    store.ingest([event(n, text=str(n)) for n in range(5)] + [event(0, device="dev-2")], TIME)
    assert [found["text"] for found in store.messages("event", "dev-1", 2)] == ["3", "4"]
    assert len(store.messages("event")) == 6


def test_a_store_that_is_reopened_knows_what_it_knew(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/fleet.db"
    first = TelemetryStore(url)
    first.ingest([event(0)], TIME)
    first.close()
    second = TelemetryStore(url)
    assert second.sequences("dev-1", "b1") == [0]
    second.close()


@pytest.mark.parametrize("url", ["nonsense", "mysql://host/db", "oracle+nothing://x"])
def test_a_database_url_that_cannot_work_is_an_operators_error(url: str) -> None:
    with pytest.raises(FleetError, match="db"):
        TelemetryStore(url)


@pytest.mark.parametrize("message", [event(0), window(0), tombstone(0, 2)])
def test_telemetry_is_parsed_by_its_kind(message: Any) -> None:
    assert parse_arrival(device_topic("default", "dev-1", "tele"), encode(message)) == message


@pytest.mark.parametrize("kind", ["presence", "reported", "tele"])
def test_a_device_cannot_speak_for_another(kind: Any) -> None:
    message = {"presence": presence(True), "reported": report(0), "tele": event(0)}[kind]
    with pytest.raises(ContractError, match="payload says it is from 'dev-1'"):
        parse_arrival(device_topic("default", "dev-2", kind), encode(message))


@pytest.mark.parametrize("payload", [b"", b"[]", b"{", b'{"kind":"unknown"}', b"\xff", b"[" * 100_000])
def test_malformed_telemetry_is_a_contract_error(payload: bytes) -> None:
    with pytest.raises(ContractError):
        parse_arrival(device_topic("default", "dev-1", "tele"), payload)
