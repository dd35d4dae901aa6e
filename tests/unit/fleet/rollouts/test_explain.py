"""Why a device is where it is, in sentences."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from msgspec.structs import replace

from edge_contracts.channel import Availability, Channel, ChannelRelease, MaintenanceWindow
from edge_contracts.selection import bucket
from edge_contracts.selector import Selector
from edge_contracts.state import Installed, ReportedState, SlotState
from edge_contracts.turns import DeviceTurn
from edge_fleet.database.telemetry import DeviceRow
from edge_fleet.rollouts.explain import explain_device, refusals_of, with_log

TIME = "2026-11-22T06:00:00Z"
NOW = datetime(2026, 11, 22, 6, tzinfo=UTC)
STABLE = ChannelRelease(version="1.0.0", manifest_sha256="a" * 64)
NEW = ChannelRelease(version="1.1.0", manifest_sha256="b" * 64)
OLD_ONE = Installed(version="1.0.0", manifest_sha256="a" * 64)
NEW_ONE = Installed(version="1.1.0", manifest_sha256="b" * 64)


def channel(**values: Any) -> Channel:
    known: dict[str, Any] = {"stable": STABLE, "candidate": NEW, "rollout": "r2", "percentage": 100.0}
    return Channel(channel="stable", model="har", serial=2, **(known | values))


def device(name: str = "pump-7", online: bool | None = True, level: str = "NORMAL", **slot: Any) -> DeviceRow:
    known: dict[str, Any] = {"slot": "main", "channel": "stable", "serving": OLD_ONE}
    report = ReportedState(
        device=name, boot_id="b", sequence=1, time=TIME, agent_version="1", board="pi-4", architecture="aarch64",
        level=level, slots=(SlotState(**(known | slot)),),
    )  # type: ignore[arg-type]  # fmt: skip
    return DeviceRow(device=name, last_seen=TIME, online=online, reported=report)


def texts(row: DeviceRow | None, document: Channel | None = None, others: tuple[DeviceRow, ...] = ()) -> list[str]:
    found = {"stable": document or channel()}
    return [one.text for one in explain_device("pump-7", row, found, others, NOW)]


def text(row: DeviceRow, document: Channel | None = None, others: tuple[DeviceRow, ...] = ()) -> str:
    return texts(row, document, others)[-1]


def test_a_device_that_never_reported_says_where_to_look() -> None:
    (sentence,) = explain_device("pump-7", None, {}, (), NOW)
    assert sentence.text == "pump-7 has never reported"
    assert "doctor" in (sentence.next or "")


def test_an_offline_device_is_said_to_be_so_first() -> None:
    assert texts(device(online=False))[0].startswith("is offline since 2026-11-22T06:00:00")


def test_a_level_that_forbids_updates_is_named() -> None:
    assert texts(device(level="CRITICAL"))[0] == "is at level CRITICAL: it starts no update"


def test_a_device_outside_the_wave_is_told_its_place() -> None:
    place = bucket("r2", "pump-7")
    found = text(device(state="committed"), channel(percentage=place))
    assert found.startswith(f"is not in the wave yet: its place is {place:.1f} of 100, the wave reaches {place:.3g}")
    assert found.endswith("runs 1.0.0, committed: nothing is due")


def test_a_device_that_does_not_match_is_told_the_fact() -> None:
    selectors = (Selector(fact="tag.site", values=("north", "south")),)
    assert text(device(), channel(selectors=selectors)).startswith(
        "is not selected: tag.site is None, the rollout asks for north, south"
    )


def test_a_device_that_is_too_small_is_told_what_it_has_and_what_is_asked_for() -> None:
    row = device()
    assert row.reported is not None
    small = replace(row, reported=replace(row.reported, facts={"memory_mb": "426"}))
    wants = channel(selectors=(Selector(fact="memory_mb", at_least="900"),))
    assert text(small, wants).startswith("is not selected: memory_mb is '426', the rollout asks for at least 900")
    large = replace(row, reported=replace(row.reported, facts={"memory_mb": "926"}))
    assert "not selected" not in text(large, wants)


@pytest.mark.parametrize(
    ("slot", "expected"),
    [
        ({"state": "committed", "serving": NEW_ONE, "candidate": NEW_ONE}, "runs 1.1.0, committed: nothing is due"),
        (
            {"state": "offered", "candidate": NEW_ONE, "reason": "paused"},
            "has not begun with 1.1.0: the rollout is paused",
        ),
        ({"state": "offered", "candidate": NEW_ONE, "reason": "odd"}, "has not begun with 1.1.0: held up by: odd"),
        ({"state": "offered", "candidate": NEW_ONE}, "has not begun with 1.1.0: about to begin"),
        ({"state": "downloading", "candidate": NEW_ONE, "progress": 0.4}, "is downloading 1.1.0, 40% done"),
        ({"state": "trial", "candidate": NEW_ONE, "since": TIME}, f"is trying 1.1.0 since {TIME}"),
        ({"state": "active", "candidate": NEW_ONE}, "serves 1.1.0 and watches it"),
        ({"state": "verified", "candidate": NEW_ONE}, "has 1.1.0 and is about to try it"),
        ({"state": "idle"}, f"has not taken notice of 1.1.0 yet (its last report is of {TIME})"),
        ({"channel": None}, "has no channel: nothing is installed over the network"),
        ({"channel": "beta"}, "nothing was ever rolled out on its channel beta"),
    ],
)
def test_each_state_has_its_sentence(slot: dict[str, Any], expected: str) -> None:
    assert text(device(**slot)) == expected


def test_a_closed_window_says_when_it_opens() -> None:
    window = MaintenanceWindow(start="22:00", end="04:00")
    found = text(device(state="verified", candidate=NEW_ONE), channel(window=window))
    assert found == "has 1.1.0 and waits for its window, which opens 22:00 UTC"


def test_a_rejection_counts_who_says_the_same() -> None:
    failed: dict[str, Any] = {"state": "rejected", "candidate": NEW_ONE, "reason": "trial-latency"}
    others = (
        device("pump-8", **failed),
        device("pump-9", **failed),
        device("pump-10", **failed | {"reason": "engine"}),
    )
    assert (
        text(device(**failed), others=others)
        == "rejected 1.1.0: trial-latency; 2 more say the same, 2 of them of this board"
    )


def test_after_an_abort_the_device_is_where_it_should_be_and_says_why() -> None:
    failed: dict[str, Any] = {"state": "rolled_back", "candidate": NEW_ONE, "reason": "crash-loop"}
    document = channel(candidate=None, rollout=None, blocked=("b" * 64,))
    assert text(device(**failed), document) == "runs 1.0.0, as it should; it rolled back from 1.1.0: crash-loop"


def gave_up(version: str, log: str, slot: str = "main", event: str = "update-rejected") -> dict[str, Any]:
    shas = {"1.0.0": "a" * 64, "1.1.0": "b" * 64}
    return {"event": event, "slot": slot, "detail": {"manifest_sha256": shas[version]}, "log": log}


def test_the_end_of_the_log_of_the_release_that_was_given_up_is_shown() -> None:
    row = device(state="rejected", reason="trial-crash", candidate=NEW_ONE)
    sentences = explain_device("pump-7", row, {"stable": channel()}, (), NOW)
    events = [
        gave_up("1.1.0", "before"), gave_up("1.1.0", "the cause"), gave_up("1.0.0", "another release"),
        gave_up("1.1.0", "another slot", slot="second"), {"event": "worker-died", "slot": "main"},
    ]  # fmt: skip
    assert with_log(sentences, row.reported, events)[-1].log == "the cause"


def test_a_slot_that_gave_nothing_up_shows_no_log() -> None:
    row = device(state="committed", candidate=NEW_ONE, serving=NEW_ONE)
    sentences = explain_device("pump-7", row, {"stable": channel()}, (), NOW)
    assert with_log(sentences, row.reported, [gave_up("1.1.0", "long ago")])[-1].log is None


def test_a_device_that_waits_for_its_turn_is_told_which_and_when() -> None:
    rule = Availability(group="tag.site", at_most=2, turn_s=3600.0, begins=TIME)
    turn = DeviceTurn(begins=NOW.timestamp(), turn_s=3600.0, margin_s=60.0, index=2, of=4)
    row = device(state="verified", candidate=NEW_ONE)
    (sentence,) = explain_device(
        "pump-7",
        row,
        {"stable": channel(schema=2, availability=rule)},
        (),
        NOW + timedelta(minutes=30),
        {"stable": turn},
    )
    expected = "turn 3 of 4 among those with its tag.site, which begins in 1.5 h"
    assert sentence.text == f"has 1.1.0 and waits for its turn: {expected}"


def test_a_device_that_has_the_release_and_a_paused_rollout_says_so() -> None:
    (sentence,) = explain_device(
        "pump-7", device(state="verified", candidate=NEW_ONE), {"stable": channel(paused=True)}, (), NOW
    )
    assert sentence.text == "has 1.1.0 and does not try it: the rollout is paused"
    assert sentence.next == "edgewright fleet rollout resume"


@pytest.mark.parametrize(("changes", "words"), [
    ({"paused": True}, "the rollout is paused"),
    ({"deadline": "2026-11-22T05:00:00Z"}, "the rollout's deadline has passed"),
    ({"schema": 2, "availability": Availability(group="board", at_most=1, turn_s=3600.0, begins=TIME)},
     "the rollout's roster has no turn for it yet"),
])  # fmt: skip
def test_what_keeps_a_device_from_beginning_is_read_from_the_document(changes: dict[str, Any], words: str) -> None:
    assert text(device(state="committed"), channel(**changes)).startswith(f"has not begun with 1.1.0: {words}")


def test_a_release_the_device_may_not_have_is_said_to_be_so_until_another_is_offered() -> None:
    refusal = {"event": "update-refused", "slot": "main", "detail": {"reason": "revoked"}, "text": "no"}
    offer = {"event": "update-offered", "slot": "main", "detail": {}}
    refused = refusals_of([refusal])
    (sentence,) = explain_device("pump-7", device(), {"stable": channel()}, (), NOW, {}, refused)
    assert sentence.text == "may not have 1.1.0 (revoked): the release is revoked for every device"
    assert sentence.next == "release a new version"
    assert refusals_of([refusal, offer]) == {}


def test_what_was_aborted_before_there_was_a_stable_release_is_told() -> None:
    row = device(state="rolled_back", reason="aborted", candidate=NEW_ONE, serving=None)
    found = text(row, channel(candidate=None, stable=None, rollout=None))
    assert found == "is offered nothing; it went back from 1.1.0: aborted; the channel has no stable release"
