"""When a damaged release is fetched again: at once, then later and later, and a bad card goes on waiting."""

from __future__ import annotations

import math

from edge_agent.supervisor.repair_policy import RELAPSE_S, REPAIR_BASE_S, REPAIR_CAP_S, RepairPolicy


def test_damage_that_is_news_is_looked_after_at_once_and_only_once() -> None:
    policy = RepairPolicy()
    assert policy.look(frozenset(), 5.0) == math.inf
    assert policy.look({"a"}, 100.0) == 100.0
    assert policy.look({"a"}, 101.0) == math.inf
    assert policy.look({"a", "b"}, 102.0) == 102.0


def test_attempts_that_fail_come_later_and_later() -> None:
    policy = RepairPolicy()
    policy.look({"a"}, 0.0)
    waits = [policy.tried(0.0, damaged=True) for _ in range(20)]
    assert waits[:3] == [REPAIR_BASE_S, 2 * REPAIR_BASE_S, 4 * REPAIR_BASE_S]
    assert waits[-1] == REPAIR_CAP_S


def test_damage_that_comes_back_soon_goes_on_with_the_waits() -> None:
    policy = RepairPolicy()
    for number in range(3):
        now = 1000.0 * number
        assert policy.look({"a"}, now) >= now
        assert policy.tried(now, damaged=False) == math.inf
        policy.look(frozenset(), now)
    assert policy.look({"a"}, 2001.0) == 2000.0 + 4 * REPAIR_BASE_S
    assert policy.look(frozenset(), 2002.0) == math.inf
    later = 2003.0 + RELAPSE_S
    assert policy.look({"a"}, later) == later


def test_updaters_that_had_nothing_to_repair_count_for_nothing() -> None:
    policy = RepairPolicy()
    assert policy.tried(0.0, damaged=False) == math.inf
    assert policy.look({"a"}, 1.0) == 1.0
