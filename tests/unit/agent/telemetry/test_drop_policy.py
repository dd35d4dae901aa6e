"""What a full outbox drops, and that the account of what was lost adds up."""

from __future__ import annotations

import pytest

from edge_agent.telemetry.outbox_policy import ROW_OVERHEAD_BYTES, Gap, Kind, Spooled, give_way, merge_gaps


def message(row: int, kind: Kind = "window", size: int = 0) -> Spooled:
    return Spooled(row=row, boot_id="b", sequence=row, kind=kind, size=size)


def gap(boot: str, first: int, count: int) -> Gap:
    return Gap(boot_id=boot, first=first, count=count)


def rows(candidates: list[Spooled], excess: int) -> list[int]:
    return [one.row for one in give_way(candidates, excess)]


def test_windows_give_way_before_events_and_the_oldest_first() -> None:
    spool = [message(1, "event"), message(4), message(2), message(3, "event")]
    assert rows(spool, 1_000_000) == [2, 4, 1, 3]


def test_the_account_of_what_was_lost_never_gives_way() -> None:
    assert rows([message(1, "dropped"), message(2, "event")], 1_000_000) == [2]
    assert rows([message(1, "dropped")], 1_000_000) == []


@pytest.mark.parametrize(("excess", "dropped"), [(-1, 0), (0, 0), (1, 1), (150, 1), (151, 2), (300, 2), (301, 3)])
def test_no_more_is_dropped_than_the_excess_takes_with_what_a_row_costs(excess: int, dropped: int) -> None:
    assert ROW_OVERHEAD_BYTES == 100
    assert len(rows([message(row, size=50) for row in range(9)], excess)) == dropped


def test_gaps_of_two_boots_are_never_one() -> None:
    gaps = [gap("a", 5, 3), gap("b", 6, 4)]
    assert merge_gaps(gaps) == gaps


@pytest.mark.parametrize(
    ("gaps", "merged"),
    [
        ([], []),
        ([gap("a", 1, 2), gap("a", 3, 1)], [gap("a", 1, 3)]),  # they touch
        ([gap("a", 1, 2), gap("a", 4, 1)], [gap("a", 1, 2), gap("a", 4, 1)]),  # 3 was not dropped
        ([gap("a", 4, 1), gap("a", 1, 3)], [gap("a", 1, 4)]),  # in any order
        ([gap("a", 1, 9), gap("a", 3, 2)], [gap("a", 1, 9)]),  # one within the other
        ([gap("a", 1, 3), gap("a", 2, 5), gap("a", 7, 1)], [gap("a", 1, 7)]),
        ([gap("b", 1, 1), gap("a", 1, 1), gap("b", 2, 1)], [gap("a", 1, 1), gap("b", 1, 2)]),
    ],
)
def test_runs_are_the_fewest_that_say_the_same(gaps: list[Gap], merged: list[Gap]) -> None:
    assert merge_gaps(gaps) == merged
