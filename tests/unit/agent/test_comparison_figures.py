"""Shadow's and replay's figures, each worked out by hand: quantiles, confusions, intervals, words, refusals."""

from __future__ import annotations

import math
from typing import Any

import pytest

from edge_agent.answer_comparison import (
    DIFFERENCE_BINS,
    OTHER,
    AnswerDifference,
    Comparison,
    difference_bin,
    difference_quantile,
    most_confused,
    plus,
    refusal,
    since,
    summary,
    wilson,
    words,
)
from edge_contracts.channel import Gates
from edge_contracts.shadow import MAX_CONFUSIONS, ShadowCounts


def counts(**fields: Any) -> ShadowCounts:
    return ShadowCounts(version="1.1.0", manifest_sha256="a" * 64, **fields)


def bins(**at: int) -> list[int]:
    """Return difference bins with these counts: `_3=2` counts two in bin 3."""
    found = [0] * DIFFERENCE_BINS
    for place, count in at.items():
        found[int(place[1:])] = count
    return found


@pytest.mark.parametrize(
    ("largest", "place"),
    [
        (0.0, 0),
        (-1.0, 0),
        (2.0**-20, 0),
        (2.0**-19.5, 1),
        (2.0**-30, 0),
        (1.0, 40),
        (1.4, 40),
        (1.5, 41),
        (2.0, 42),
        (2.0**19.5, 79),
        (2.0**25, 79),
        (math.inf, 79),
        (math.nan, 79),
    ],
)
def test_a_difference_falls_into_its_half_octave(largest: float, place: int) -> None:
    assert difference_bin(largest) == place


@pytest.mark.parametrize(
    ("counted", "share", "edge"),
    [
        ({}, 0.5, None),
        ({"_0": 9}, 0.5, 0.0),
        ({"_0": 9}, 0.99, 0.0),
        ({"_0": 99, "_4": 1}, 0.99, 0.0),
        ({"_0": 98, "_4": 2}, 0.99, 2.0**-17.5),  # the bin of the 99th of a hundred, not an empty one before it
        ({"_4": 1, "_40": 1}, 0.5, 2.0**-17.5),
        ({"_4": 1, "_40": 1}, 0.51, 2.0**0.5),
        ({"_40": 1, "_79": 99}, 0.5, math.inf),
        ({"_1": 1}, 0.0, 2.0**-19.0),
    ],
)
def test_a_quantile_is_the_upper_edge_of_its_bin(counted: dict[str, int], share: float, edge: float | None) -> None:
    assert difference_quantile(bins(**counted), share) == edge


def test_the_pairs_confused_most_come_first_and_equal_ones_by_name() -> None:
    confusion = {"a>b": 1, "c>d": 7, "b>a": 3, "a>c": 3}
    assert most_confused(confusion, 3) == [("c>d", 7), ("a>c", 3), ("b>a", 3)]


def test_a_class_answer_is_counted_with_its_shift_and_its_time() -> None:
    comparison = Comparison()
    comparison.add(AnswerDifference(agrees=True, before="a", after="a", shift=0.0), 100, 7)
    comparison.add(AnswerDifference(agrees=False, before="a", after="b", shift=-1.0), 100, 0)
    comparison.add(AnswerDifference(agrees=False, before="a", after="b", shift=1.0), 100, 2**40)
    comparison.add(AnswerDifference(agrees=False, before="b", after="a", shift=math.nan), 100, 8)
    found = comparison.counts("1.1.0", "a" * 64)
    assert (found.compared, found.classified, found.agreed, found.failed) == (4, 4, 1, 0)
    assert found.confusion == {"a>b": 2, "b>a": 1}
    assert {place: count for place, count in enumerate(found.confidence_shift) if count} == {0: 1, 10: 1, 19: 1}
    assert found.confidence_shift_sum == 0.0
    assert (found.served_us, found.candidate_us) == (400, 7 + 2**40 + 8)
    assert {place: count for place, count in enumerate(found.latency_log2_us) if count} == {0: 1, 2: 1, 3: 1, 31: 1}
    assert found.differences == ()


def test_a_number_answer_is_counted_by_its_largest_difference_only() -> None:
    comparison = Comparison()
    comparison.add(AnswerDifference(agrees=None, largest=1.0), 10, 20)
    found = comparison.counts("1.1.0", "a" * 64)
    assert (found.compared, found.classified, found.agreed, found.confusion) == (1, 0, 0, {})
    assert found.differences == tuple(bins(_40=1))
    assert found.confidence_shift == ()


def test_nothing_compared_reports_no_times() -> None:
    assert Comparison().counts("1.1.0", "a" * 64) == counts()


def test_a_known_pair_is_counted_under_its_name_however_many_there_are() -> None:
    comparison = Comparison()
    for index in range(MAX_CONFUSIONS + 2):
        comparison.add(AnswerDifference(agrees=False, before="x", after=str(index)), 1, 1)
    comparison.add(AnswerDifference(agrees=False, before="x", after="0"), 1, 1)
    assert comparison.confusion["x>0"] == 2
    assert comparison.confusion[OTHER] == 2
    assert len(comparison.confusion) == MAX_CONFUSIONS + 1


FIRST = counts(
    compared=10,
    classified=8,
    agreed=6,
    failed=1,
    deaths=1,
    confusion={"a>b": 2},
    confidence_shift=(1, 2),
    confidence_shift_sum=0.5,
    differences=(3, 4),
    served_us=100,
    candidate_us=300,
    latency_log2_us=(5, 6),
)
SECOND = counts(
    compared=15,
    classified=12,
    agreed=9,
    failed=3,
    deaths=2,
    confusion={"a>b": 2, "b>a": 1},
    confidence_shift=(4, 8),
    confidence_shift_sum=0.75,
    differences=(9, 4),
    served_us=150,
    candidate_us=500,
    latency_log2_us=(7, 9),
)


def test_the_sum_of_two_counts_is_the_sum_of_each_of_them() -> None:
    assert plus(FIRST, SECOND) == counts(
        compared=25,
        classified=20,
        agreed=15,
        failed=4,
        deaths=3,
        confusion={"a>b": 4, "b>a": 1},
        confidence_shift=(5, 10),
        confidence_shift_sum=1.25,
        differences=(12, 8),
        served_us=250,
        candidate_us=800,
        latency_log2_us=(12, 15),
    )
    assert plus(counts(), SECOND) == SECOND
    assert plus(SECOND, counts()) == SECOND


def test_pairs_beyond_the_limit_are_added_up_as_other() -> None:
    full = counts(confusion={f"{index}>x": 1 for index in range(MAX_CONFUSIONS)} | {OTHER: 5})
    more = plus(full, counts(confusion={"0>x": 2, "new>x": 3, OTHER: 7}))
    assert more.confusion["0>x"] == 3
    assert more.confusion[OTHER] == 15
    assert len(more.confusion) == MAX_CONFUSIONS + 1
    one_left = counts(confusion={f"{index}>x": 1 for index in range(MAX_CONFUSIONS - 1)} | {OTHER: 5})
    assert plus(one_left, counts(confusion={"new>x": 3})).confusion["new>x"] == 3


def test_what_came_between_two_reports_is_the_difference_of_each_count() -> None:
    assert since(None, SECOND) is SECOND
    assert since(FIRST, SECOND) == counts(
        compared=5,
        classified=4,
        agreed=3,
        failed=2,
        deaths=2,  # counted by who watches the process, not by the process
        confusion={"b>a": 1},
        confidence_shift=(3, 6),
        confidence_shift_sum=0.25,
        differences=(6, 0),
        served_us=50,
        candidate_us=200,
        latency_log2_us=(2, 3),
    )
    assert since(counts(), SECOND) == SECOND


def test_a_summary_rounds_to_what_the_counts_can_say() -> None:
    found = summary(
        counts(compared=263, classified=263, agreed=81, failed=2, deaths=1, served_us=300, candidate_us=400)
    )
    assert (found.compared, found.failed, found.deaths) == (263, 2, 1)
    assert (found.agreement, found.slower, found.difference) == (0.308, 1.333, None)
    assert (found.low, found.high) == pytest.approx((0.2553, 0.3662), abs=5e-5)


def test_a_summary_of_numbers_has_no_agreement_and_no_infinite_difference() -> None:
    found = summary(counts(compared=3, differences=tuple(bins(_40=2, _79=1))))
    assert (found.agreement, found.low, found.high, found.slower) == (None, None, None, None)
    assert found.difference == 2.0**0.5
    assert summary(counts(compared=3, differences=tuple(bins(_79=3)))).difference is None


def test_words_name_every_figure_there_is() -> None:
    found = counts(
        compared=100,
        classified=100,
        agreed=90,
        failed=3,
        deaths=2,
        confidence_shift=(60, 40),
        confidence_shift_sum=-5.0,
        differences=tuple(bins(_0=1, _40=97, _79=2)),
        served_us=100,
        candidate_us=150,
    )
    assert words(found) == (
        "100 compared, 90.0% agree (82.6% to 94.5%), confidence -0.050, differences at most 1.41, 1.41, inf,"
        " takes 1.50 times as long, 3 failed, 2 died"
    ).replace("2 died", "2 deaths")
    assert words(counts()) == "0 compared"


def test_the_interval_s_ends_are_exact_where_every_trial_went_one_way() -> None:
    assert wilson(0, 7)[0] == 0.0
    assert wilson(7, 7)[1] == 1.0
    assert 0.0 < wilson(1, 7)[0] < wilson(6, 7)[1] < 1.0


GATES = Gates(shadow_requests=100, min_agreement=0.9, max_error_share=0.05, max_crashes=1)


@pytest.mark.parametrize(
    ("found", "reason"),
    [
        ({"deaths": 1}, None),
        ({"deaths": 2}, "shadow-crash"),
        ({"compared": 99, "classified": 99}, None),
        ({"compared": 100, "classified": 100}, "shadow-disagreement"),
        ({"compared": 50, "classified": 50, "failed": 50}, "shadow-errors"),
        ({"compared": 50, "classified": 50, "failed": 49}, None),  # 99 were asked
        ({"compared": 91, "classified": 91, "agreed": 91, "failed": 9}, None),  # its interval reaches below 5 %
        ({"compared": 88, "classified": 88, "agreed": 88, "failed": 12}, "shadow-errors"),
        ({"compared": 1000}, None),  # nothing classified
    ],
)
def test_a_candidate_is_refused_by_what_its_shadow_showed(found: dict[str, int], reason: str | None) -> None:
    assert refusal(GATES, counts(**found)) == reason


def test_gates_that_ask_for_no_requests_refuse_nothing_unasked() -> None:
    assert refusal(Gates(shadow_requests=0), counts()) is None
    assert refusal(Gates(shadow_requests=0, max_error_share=0.0), counts(compared=10, classified=10, agreed=10)) is None


def test_bins_that_hold_nothing_are_not_spoken_of() -> None:
    assert "differences" not in words(counts(compared=3, classified=3, agreed=3, differences=bins()))
    assert words(counts(compared=2, differences=bins(_4=2))).count("differences at most") == 1
