"""When a worker is started again: at once after one death, ever later after more, and not twice a second for ever."""

from __future__ import annotations

from edge_agent.supervisor.slots.restart_policy import RESTART_BASE_S, RESTART_CAP_S, STEADY_S, RestartPolicy


def test_first_restart_is_immediate_and_the_next_ones_wait_twice_as_long_each() -> None:
    policy = RestartPolicy()
    waits = []
    for now in range(12):
        policy.died(1000.0 * now)
        waits.append(policy.wait_s(1000.0 * now))
    assert waits[:5] == [0.0, RESTART_BASE_S, 2 * RESTART_BASE_S, 4 * RESTART_BASE_S, 8 * RESTART_BASE_S]
    assert waits[-1] == RESTART_CAP_S


def test_a_worker_that_lived_long_starts_the_waits_anew_once() -> None:
    """After it, fork may fail a hundred times (a limit on processes): each of these is one more death in a row."""
    policy = RestartPolicy()
    policy.ready(0.0)
    now = STEADY_S + 1.0
    policy.died(now)
    assert policy.due(now)
    for _ in range(20):
        policy.died(now)  # could not be started
        now += policy.wait_s(now)
    assert policy.wait_s(now) == 0.0
    policy.died(now)
    assert policy.wait_s(now) == RESTART_CAP_S
    assert not policy.due(now)


def test_a_short_life_does_not_start_them_anew() -> None:
    policy = RestartPolicy()
    for _ in range(3):
        policy.ready(0.0)
        policy.died(STEADY_S - 1.0)
    assert policy.wait_s(STEADY_S - 1.0) == 2 * RESTART_BASE_S
