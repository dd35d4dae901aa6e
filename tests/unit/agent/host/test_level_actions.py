"""What a device does at each level, whatever the cause."""

from __future__ import annotations

import itertools
import re

import pytest
from support.sites.install_sites import ROOT

from edge_agent.host.governor import LEVELS, GovernorState
from edge_agent.host.level_actions import ACTIONS, Orders, orders
from edge_contracts.readings import Shortage
from edge_contracts.state import Level

HOT: frozenset[Shortage] = frozenset({"compute"})
SLOTS = frozenset({0, 3, 5})


def given(level: Level, *, shed: int = 0, memory: bool = False, writes: bool = False) -> Orders:
    state = GovernorState(level=level, shed=shed)
    return orders(state, shortages=HOT, priorities=SLOTS, short_of_memory=memory, saves_writes=writes)


def test_every_level_has_a_row_and_a_worse_one_never_allows_more() -> None:
    assert tuple(ACTIONS) == LEVELS
    rows = list(ACTIONS.values())
    for better, worse in itertools.pairwise(rows):
        assert better.installs >= worse.installs
        assert better.observes >= worse.observes
        assert better.lightens <= worse.lightens
        assert better.sheds <= worse.sheds


def test_normal_does_everything_and_turns_nobody_away() -> None:
    assert given("NORMAL", shed=2) == Orders(installs=True, observes=True)


def test_conserve_lightens_and_installs_nothing_and_turns_nobody_away() -> None:
    assert given("CONSERVE", shed=1) == Orders(lighten_for=HOT)


@pytest.mark.parametrize(("shed", "away"), [(0, set()), (1, {0}), (2, {0, 3}), (9, {0, 3, 5})])
def test_critical_turns_the_lowest_priorities_away_as_far_as_that_helps(shed: int, away: set[int]) -> None:
    assert given("CRITICAL", shed=shed) == Orders(lighten_for=HOT, away=frozenset(away))


def test_memory_and_writes_have_a_say_of_their_own_at_any_level() -> None:
    assert given("NORMAL", writes=True) == Orders(installs=True, observes=False, saves_writes=True)
    assert given("CONSERVE", memory=True).unloads_idle


def test_before_the_first_look_nothing_starts_and_nothing_is_turned_away() -> None:
    assert Orders() == Orders(installs=False, observes=False, lighten_for=frozenset(), away=frozenset())


def test_the_page_has_a_row_for_each_level_in_the_same_order() -> None:
    page = (ROOT / "docs/how-to/ladder-and-governor.md").read_text()
    assert re.findall(r"^\| `(NORMAL|CONSERVE|CRITICAL)` \|", page, flags=re.MULTILINE) == list(ACTIONS)
