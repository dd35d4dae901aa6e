"""When a device may start an update, and which wave it is in: windows across midnight, edges of a rollout."""

from __future__ import annotations

import pytest

from edge_agent.update.selection import Holdings, decide, wanted
from edge_contracts.channel import Channel, ChannelRelease, Family, MaintenanceWindow
from edge_contracts.selection import Facts, bucket, window_open

STABLE = ChannelRelease(version="1.0.0", manifest_sha256="a" * 64)
NEW = ChannelRelease(version="1.1.0", manifest_sha256="b" * 64)
FACTS = Facts(device="dev-1", board="pi-4", architecture="aarch64")
NOW = "2026-11-22T06:00:00Z"


def channel(**fields: object) -> Channel:
    base = {"channel": "prod", "model": "har", "serial": 3, "stable": STABLE, "candidate": NEW, "rollout": "r1"}
    return Channel(**base | fields)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("start", "end", "clock", "is_open"),
    [
        ("23:00", "01:00", "22:59", False),
        ("23:00", "01:00", "23:00", True),
        ("23:00", "01:00", "23:30", True),
        ("23:00", "01:00", "00:00", True),
        ("23:00", "01:00", "00:59", True),
        ("23:00", "01:00", "01:00", False),
        ("23:00", "01:00", "12:00", False),
        ("02:00", "04:00", "01:59", False),
        ("02:00", "04:00", "02:00", True),
        ("02:00", "04:00", "03:59", True),
        ("02:00", "04:00", "04:00", False),
        ("05:00", "05:00", "04:59", True),
        ("05:00", "05:00", "05:00", True),
    ],
)
def test_a_window_is_open_from_its_start_and_shut_from_its_end(start: str, end: str, clock: str, is_open: bool) -> None:
    assert window_open(MaintenanceWindow(start=start, end=end), clock) is is_open


def test_no_window_is_always_open() -> None:
    assert window_open(None, "12:00")


def test_a_device_is_in_the_wave_that_reaches_beyond_its_bucket() -> None:
    place = bucket("r1", "dev-1")
    assert wanted(channel(percentage=place), FACTS) == STABLE
    assert wanted(channel(percentage=place + 1e-9), FACTS) == NEW
    assert wanted(channel(percentage=100.0), FACTS) == NEW
    assert bucket("dev-1", "r1") != place


def test_a_channel_without_a_candidate_or_its_rollout_wants_what_is_stable() -> None:
    assert wanted(channel(candidate=None, rollout=None), FACTS) == STABLE
    assert wanted(channel(candidate=None), FACTS) == STABLE
    assert wanted(channel(rollout=None), FACTS) == STABLE
    assert wanted(channel(blocked=(NEW.manifest_sha256,)), FACTS) == STABLE


@pytest.mark.parametrize(("deadline", "hold"), [(NOW, None), ("2026-11-22T05:59:59Z", "deadline")])
def test_a_deadline_holds_new_starts_once_it_has_passed(deadline: str, hold: str | None) -> None:
    assert decide(channel(deadline=deadline), Family(model="har", serial=1), FACTS, Holdings(), NOW).hold == hold
    ready = Holdings(ready=frozenset({NEW.manifest_sha256}))
    assert decide(channel(deadline=deadline), Family(model="har", serial=1), FACTS, ready, NOW).hold is None


def test_the_family_s_floor_is_the_oldest_version_that_may_be_installed() -> None:
    exact, above = Family(model="har", serial=1, minimum_version="1.1.0"), "1.1.1"
    assert decide(channel(), exact, FACTS, Holdings(), NOW).wish == NEW
    over = Family(model="har", serial=1, minimum_version=above)
    assert decide(channel(), over, FACTS, Holdings(), NOW).refused == "below-minimum"


def test_a_running_release_that_is_revoked_and_aborted_goes_once_and_as_revoked() -> None:
    both = Family(model="har", serial=1, revoked=("b" * 64, "c" * 64))
    held = Holdings(running=frozenset({"b" * 64, "d" * 64, "e" * 64}))
    decision = decide(channel(blocked=("b" * 64, "d" * 64)), both, FACTS, held, NOW)
    assert decision.withdraw == (("b" * 64, "revoked"), ("d" * 64, "aborted"))
