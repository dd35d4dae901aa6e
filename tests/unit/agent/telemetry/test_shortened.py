"""What a message gives up for a broker that takes short ones only, and what it never does."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from edge_agent.telemetry.shortened import shorten_reported, shorten_telemetry
from edge_contracts.codec import encode
from edge_contracts.state import Installed, ReportedState, SlotState, parse_reported
from edge_contracts.telemetry import Event, TelemetryWindow, Tombstone, parse_event, parse_window

TIME = "2026-11-22T06:00:00Z"
WINDOW = TelemetryWindow(
    device="dev-1",
    boot_id="b1",
    sequence=7,
    start=TIME,
    end=TIME,
    slot="main",
    counters={"requests": 5, "lost": 1},
    served_by={"active:1.0.0/int8": 5},
    latency_log2_us=(0, 1, 4),
    histograms={"x/mean": (1,) * 50, "x/mean@line-2": (1,) * 50},
    drift={"x/mean": 1.5},
    resources={"memory_mb": 30.0},
)
EVENT = Event(device="dev-1", boot_id="b1", sequence=8, time=TIME, event="e", text="why " * 300, detail={"a": "b" * 90})
REPORTED = ReportedState(
    device="dev-1",
    boot_id="b1",
    sequence=3,
    time=TIME,
    level="NORMAL",
    agent_version="1.0.0",
    board="pi-4",
    architecture="aarch64",
    tags={"site": "here", "note": "n" * 150, "more": "m" * 140},
    trusted={"timestamp": 4},
    slots=(SlotState(slot="main", reason="r" * 100, serving=Installed(version="1.0.0", manifest_sha256="ab" * 32)),),
)


def test_a_window_gives_up_tagged_histograms_first() -> None:
    short = shorten_telemetry(encode(WINDOW), len(encode(WINDOW)) - 1)
    assert short is not None
    assert parse_window(short).histograms.keys() == {"x/mean"}


@pytest.mark.parametrize("room", [360, 400, 500])
def test_a_windows_counters_and_number_stay(room: int) -> None:
    short = shorten_telemetry(encode(WINDOW), room)
    assert short is not None
    assert len(short) <= room
    window = parse_window(short)
    assert (window.sequence, window.counters) == (7, WINDOW.counters)


def test_an_event_gives_up_its_readings_then_the_end_of_its_text() -> None:
    first = shorten_telemetry(encode(EVENT), len(encode(EVENT)) - 1)
    last = shorten_telemetry(encode(EVENT), 260)
    assert first is not None
    assert last is not None
    assert parse_event(first).text == EVENT.text
    assert 0 < len(parse_event(last).text) < 200
    assert parse_event(last).sequence == 8


def test_an_event_gives_up_the_oldest_lines_of_its_log_first() -> None:
    log = "\n".join(f"line {number}" for number in range(800))
    event = replace(EVENT, log=log)
    first = shorten_telemetry(encode(event), len(encode(EVENT)) + 4500)
    last = shorten_telemetry(encode(event), len(encode(EVENT)))
    assert first is not None
    assert last is not None
    kept = parse_event(first).log.splitlines()
    assert kept[-1] == "line 799"
    assert kept == [f"line {number}" for number in range(800 - len(kept), 800)]
    assert (parse_event(last).log, parse_event(last).detail) == ("", EVENT.detail)


def test_what_cannot_be_short_enough_is_none() -> None:
    assert shorten_telemetry(encode(WINDOW), 20) is None
    assert shorten_telemetry(b"not a message", 5) is None
    tomb = Tombstone(device="dev-1", boot_id="b1", sequence=1, time=TIME, first=1, count=1)
    assert shorten_telemetry(encode(tomb), 20) is None
    assert shorten_reported(REPORTED, 20) is None


def test_a_reported_state_gives_up_its_longest_tags_first() -> None:
    short = shorten_reported(REPORTED, len(encode(REPORTED)) - 150)
    assert short is not None
    assert parse_reported(short).tags == {"site": "here", "more": "m" * 140}


@pytest.mark.parametrize("room", [700, 800, 900])
def test_what_a_slot_runs_stays(room: int) -> None:
    short = shorten_reported(REPORTED, room)
    assert short is not None
    assert len(short) <= room
    assert parse_reported(short).slots[0].serving == REPORTED.slots[0].serving
