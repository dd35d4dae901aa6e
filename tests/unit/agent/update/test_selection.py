"""Which release a device wants."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_agent.update.selection import Decision, Holdings, decide, retry_due
from edge_contracts.channel import Channel, ChannelRelease, Family, MaintenanceWindow, RetryRule
from edge_contracts.selection import Facts, bucket, matches, window_open
from edge_contracts.selector import Selector

STABLE = ChannelRelease(version="1.0.0", manifest_sha256="a" * 64)
NEW = ChannelRelease(version="1.1.0", manifest_sha256="b" * 64)
FACTS = Facts(device="dev-1", board="pi-4", architecture="aarch64", tags={"site": "riga"})
FAMILY = Family(model="har", serial=1)
NOTHING = Holdings()
NOW = "2026-11-22T06:00:00Z"


def channel(**fields: object) -> Channel:
    base = {"channel": "prod", "model": "har", "serial": 3, "stable": STABLE, "candidate": NEW, "rollout": "r1"}
    return Channel(**base | fields)  # type: ignore[arg-type]


@given(st.text(min_size=1, max_size=20), st.text(min_size=1, max_size=20))
def test_bucket_is_a_percentage(rollout: str, device: str) -> None:
    assert 0.0 <= bucket(rollout, device) < 100.0


def test_bucket_is_fixed_for_ever() -> None:
    assert bucket("r1", "dev-1") == 39.90410938523655


@given(st.integers(0, 10**6), st.floats(0, 100), st.floats(0, 100))
def test_raising_the_percentage_only_adds_devices(device: int, one: float, other: float) -> None:
    facts = Facts(device=f"d{device}", board="x", architecture="x")
    low, high = sorted((one, other))
    small = decide(channel(percentage=low), FAMILY, facts, NOTHING, NOW).wish
    large = decide(channel(percentage=high), FAMILY, facts, NOTHING, NOW).wish
    assert small != NEW or large == NEW


def test_waves_are_of_the_asked_size() -> None:
    share = sum(bucket("r1", f"dev-{index}") < 25.0 for index in range(4000)) / 4000
    assert share == pytest.approx(0.25, abs=0.03)


@pytest.mark.parametrize(
    ("fact", "value", "expected"),
    [("board", "pi-4", True), ("board", "pi-5", False), ("tag.site", "riga", True), ("tag.floor", "1", False)],
)
def test_selectors_ask_for_facts(fact: str, value: str, expected: bool) -> None:
    assert matches((Selector(fact=fact, values=("other", value)),), FACTS) is expected


def test_device_outside_the_wave_runs_stable() -> None:
    assert decide(channel(percentage=0.0), FAMILY, FACTS, NOTHING, NOW) == Decision(wish=STABLE)


def test_device_outside_the_wave_without_stable_keeps_what_it_has() -> None:
    assert decide(channel(percentage=0.0, stable=None), FAMILY, FACTS, NOTHING, NOW) == Decision()


def test_pause_stops_new_starts_and_leaves_running_ones_alone() -> None:
    held = Holdings(running=frozenset({NEW.manifest_sha256}), ready=frozenset({NEW.manifest_sha256}))
    assert decide(channel(paused=True), FAMILY, FACTS, NOTHING, NOW).hold == "paused"
    assert decide(channel(paused=True), FAMILY, FACTS, held, NOW) == Decision(wish=NEW)


def test_passed_deadline_stops_new_starts_of_the_candidate() -> None:
    late = channel(deadline="2026-11-21T00:00:00Z")
    assert decide(late, FAMILY, FACTS, NOTHING, NOW).hold == "deadline"


def test_aborted_candidate_is_withdrawn_and_stable_wished() -> None:
    running = frozenset({NEW.manifest_sha256})
    aborted = channel(blocked=(NEW.manifest_sha256,))
    decision = decide(aborted, FAMILY, FACTS, Holdings(running=running, ready=running), NOW)
    assert decision == Decision(wish=STABLE, withdraw=((NEW.manifest_sha256, "aborted"),))


def test_release_below_the_family_floor_is_refused() -> None:
    floor = Family(model="har", serial=2, minimum_version="1.2.0")
    assert decide(channel(), floor, FACTS, NOTHING, NOW).refused == "below-minimum"


def test_revoked_release_is_refused_and_withdrawn() -> None:
    revoked = Family(model="har", serial=2, revoked=(NEW.manifest_sha256,))
    held = Holdings(running=frozenset({NEW.manifest_sha256}), ready=frozenset({NEW.manifest_sha256}))
    decision = decide(channel(), revoked, FACTS, held, NOW)
    assert decision == Decision(refused="revoked", withdraw=((NEW.manifest_sha256, "revoked"),))


@pytest.mark.parametrize(
    ("start", "end", "clock", "expected"),
    [
        ("02:00", "04:00", "03:59", True),
        ("02:00", "04:00", "04:00", False),
        ("23:00", "01:00", "00:30", True),
        ("23:00", "01:00", "12:00", False),
        ("05:00", "05:00", "12:00", True),
    ],
)
def test_maintenance_window(start: str, end: str, clock: str, expected: bool) -> None:
    assert window_open(MaintenanceWindow(start=start, end=end), clock) is expected


RULES = (RetryRule(reason="hung", attempts=2, wait_s=60.0), RetryRule(reason="trial-latency"))


@pytest.mark.parametrize(
    ("reason", "tries", "passed_s", "due"),
    [
        ("hung", 0, 60.0, True),
        ("hung", 0, 59.9, False),
        ("hung", 1, 61.0, True),
        ("hung", 2, 1e9, False),
        ("trial-latency", 0, 3600.0, True),
        ("trial-latency", 1, 7200.0, False),
        ("crash-loop", 0, 1e9, False),
        (None, 0, 1e9, False),
        ("hung", 0, -5.0, False),  # the clock was set back
    ],
)
def test_a_rule_says_who_tries_again_how_often_and_when(
    reason: str | None, tries: int, passed_s: float, due: bool
) -> None:
    assert retry_due(RULES, reason, tries, passed_s) is due
