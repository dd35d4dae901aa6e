"""Which base a search tries next, by the rule: the fewest trials for each on the front, now and then a doubtful one."""

from __future__ import annotations

import inspect

from edge_compression.search import base_selection
from edge_compression.search.base_selection import EXPLORE_EVERY, FAINT, Tried


def test_how_often_a_doubtful_base_is_tried_and_what_none_on_the_front_counts() -> None:
    assert (EXPLORE_EVERY, FAINT) == (5, 0.25)


def test_equal_costs_and_unknown_costs_dominate_nobody() -> None:
    names = list(inspect.signature(Tried).parameters)
    assert {"base", "within", "costs"} <= set(names)
    low = Tried(base="a", within=True, costs=(1.0, 1.0, 1.0))
    same = Tried(base="b", within=True, costs=(1.0, 1.0, 1.0))
    high = Tried(base="c", within=True, costs=(1.0, 2.0, 1.0))
    other = Tried(base="d", within=True, costs=(0.5, 2.0, 1.0))
    unknown = Tried(base="e", within=True, costs=None)
    dominates = base_selection._dominates
    assert dominates(low, high)
    assert not dominates(high, low)
    assert not dominates(low, same)
    assert not dominates(low, other)
    assert not dominates(unknown, high)
    assert not dominates(low, unknown)
    assert not dominates(unknown, unknown)
