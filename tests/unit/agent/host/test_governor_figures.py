"""What the governor tells others: which readings press, whether memory is short, how many slots turn requests away."""

from __future__ import annotations

import pytest

from edge_agent.host.governor import GovernorState, Readings, govern, known, pressing, short_of_memory
from edge_contracts.profile import GovernorThresholds, Threshold

LIMITS = GovernorThresholds(
    temperature_c=Threshold(conserve=70, critical=80, hysteresis=5),
    available_memory_mb=Threshold(conserve=100, critical=50, hysteresis=20),
    memory_limit_left_mb=Threshold(conserve=40, critical=20),
    dwell_s=30,
)
STATE = GovernorState()


@pytest.mark.parametrize(
    ("readings", "names"),
    [
        (Readings(), set()),
        (Readings(temperature_c=70.0), {"temperature_c"}),
        (Readings(temperature_c=85.0, available_memory_mb=90.0), {"temperature_c", "available_memory_mb"}),
        (Readings(temperature_c=60.0, throttled=True), {"throttled"}),
    ],
)
def test_what_presses_is_each_reading_over_its_threshold(readings: Readings, names: set[str]) -> None:
    assert pressing(STATE, readings, LIMITS) == names


@pytest.mark.parametrize(
    ("readings", "short"),
    [
        (Readings(), False),
        (Readings(available_memory_mb=101.0, memory_limit_left_mb=41.0), False),
        (Readings(available_memory_mb=100.0, memory_limit_left_mb=300.0), True),
        (Readings(available_memory_mb=3000.0, memory_limit_left_mb=40.0), True),
        (Readings(temperature_c=90.0), False),
    ],
)
def test_memory_is_short_where_the_box_or_our_own_limits_say_so(readings: Readings, short: bool) -> None:
    assert short_of_memory(STATE, readings, LIMITS) is short


def test_readings_are_told_as_numbers_without_flags_and_without_what_could_not_be_read() -> None:
    assert known(Readings(temperature_c=61.5, throttled=True)) == {"temperature_c": 61.5}
    assert known(Readings(available_memory_mb=7)) == {"available_memory_mb": 7.0}
    assert known(Readings()) == {}


def test_one_more_slot_turns_requests_away_for_each_dwell_that_memory_stays_critical() -> None:
    state, shed = STATE, []
    for now in (100.0, 129.0, 131.0, 161.0, 1000.0):
        state = govern(state, Readings(available_memory_mb=10.0), LIMITS, now, priorities=3)
        shed.append(state.shed)
    assert shed == [1, 1, 2, 3, 3]
