"""Comparing two answers and counting what differs, against numbers worked out by hand."""

from __future__ import annotations

import math

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.makers.bundles import CLASSES, make_bundle

from edge_agent.answer_comparison import (
    DIFFERENCE_BINS,
    OTHER,
    AnswerDifference,
    Comparison,
    difference_bin,
    difference_quantile,
    plus,
    refusal,
    since,
    summary,
    wilson,
    words,
)
from edge_agent.inference.answer_diff import AnswerComparer, largest_difference
from edge_contracts.channel import Gates
from edge_contracts.codec import encode
from edge_contracts.limits import MAX_MESSAGE_BYTES
from edge_contracts.manifest import Manifest
from edge_contracts.shadow import MAX_CONFUSIONS, ShadowCounts

HASH = "a" * 64


def counts(agreed: int = 0, differing: int = 0, *, failed: int = 0, deaths: int = 0) -> ShadowCounts:
    total = agreed + differing
    return ShadowCounts(
        version="1.1.0",
        manifest_sha256=HASH,
        compared=total,
        classified=total,
        agreed=agreed,
        failed=failed,
        deaths=deaths,
    )


@pytest.mark.parametrize(
    ("successes", "trials", "low", "high"),
    [  # Newcombe, Statistics in Medicine 17, 1998, table I, method 3
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ],
)
def test_wilson_interval_is_the_published_one(successes: int, trials: int, low: float, high: float) -> None:
    assert wilson(successes, trials) == pytest.approx((low, high), abs=5e-5)


def test_wilson_interval_knows_nothing_without_a_trial() -> None:
    assert wilson(0, 0) == (0.0, 1.0)


@given(st.floats(1e-6, 1e6), st.integers(1, 50))
def test_quantile_of_equal_differences_is_at_most_a_half_octave_above_them(value: float, count: int) -> None:
    bins = [0] * DIFFERENCE_BINS
    bins[difference_bin(value)] += count
    edge = difference_quantile(bins, 0.9)
    assert edge is not None
    if difference_bin(value) not in (0, DIFFERENCE_BINS - 1):
        assert value <= edge * (1 + 1e-9)
        assert edge <= value * math.sqrt(2) * (1 + 1e-9)


@pytest.mark.parametrize("value", [0.0, 1e-30, 1e30, math.inf, math.nan])
def test_every_difference_has_a_bin(value: float) -> None:
    assert 0 <= difference_bin(value) < DIFFERENCE_BINS


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9), st.floats(-1, 1)), max_size=200))
def test_counts_add_up_over_reports(rows: list[tuple[int, int, float]]) -> None:
    comparison, total, before = Comparison(), ShadowCounts(version="1.1.0", manifest_sha256=HASH), None
    for index, (a, b, shift) in enumerate(rows):
        comparison.add(AnswerDifference(agrees=a == b, before=str(a), after=str(b), shift=shift), 10, 20)
        if index % 7 == 0 or index == len(rows) - 1:
            now = comparison.counts("1.1.0", HASH)
            total, before = plus(total, since(before, now)), now
    whole = comparison.counts("1.1.0", HASH)
    assert total.compared == whole.compared == len(rows)
    assert total.agreed == sum(a == b for a, b, _ in rows)
    assert sum(total.confusion.values()) == total.classified - total.agreed
    assert sum(total.confidence_shift) == len(rows)
    assert total.confidence_shift_sum == pytest.approx(sum(shift for *_, shift in rows), abs=1e-9)


def test_a_thousand_confused_classes_stay_within_a_message() -> None:
    comparison = Comparison()
    for index in range(1000):
        comparison.add(AnswerDifference(agrees=False, before="x" * 40, after=f"{index:040}"), 1, 1)
        comparison.add(AnswerDifference(agrees=None, largest=index), 1, 1)
    found = comparison.counts("1.1.0", HASH)
    assert len(found.confusion) == MAX_CONFUSIONS + 1
    assert found.confusion[OTHER] == 1000 - MAX_CONFUSIONS
    assert len(encode(found)) < MAX_MESSAGE_BYTES / 8
    assert msgspec.json.decode(encode(found), type=ShadowCounts) == found
    assert msgspec.json.decode(encode(plus(found, found)), type=ShadowCounts).confusion[OTHER] == 2 * (1000 - 32)


@pytest.mark.parametrize(
    ("found", "reason"),
    [
        (counts(100), None),
        (counts(85, 15), None),  # 90 % is within the interval
        (counts(80, 20), "shadow-disagreement"),
        (counts(0, 99), None),  # too few
        (counts(95, failed=5), None),
        (counts(80, failed=20), "shadow-errors"),
        (counts(deaths=1), "shadow-crash"),
        (counts(), None),
    ],
)
def test_gates_of_a_shadow(found: ShadowCounts, reason: str | None) -> None:
    assert refusal(Gates(), found) == reason


def test_gates_that_ask_for_nothing_refuse_nothing_but_proven_disagreement() -> None:
    lax = Gates(shadow_requests=0, min_agreement=0.0, max_crashes=5, max_error_share=1.0)
    assert refusal(lax, counts(0, 50, failed=50, deaths=5)) is None
    assert refusal(lax, counts()) is None


def test_summary_and_words_say_what_was_counted() -> None:
    comparison = Comparison()
    for index in range(10):
        comparison.add(AnswerDifference(agrees=index > 0, before="walk", after="run", shift=-0.1), 100, 250)
    found = summary(comparison.counts("1.1.0", HASH))
    assert (found.compared, found.agreement, found.slower) == (10, 0.9, 2.5)
    said = words(comparison.counts("1.1.0", HASH))
    assert "10 compared" in said
    assert "90.0% agree (59.6% to 98.2%)" in said
    assert "confidence -0.100" in said
    assert "2.50 times" in said


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Manifest:
    return make_bundle(tmp_path_factory.mktemp("bundle"), models=None).manifest


def logits(*rows: list[float]) -> dict[str, np.ndarray]:
    return {"y": np.array(rows, np.float32)}


def test_classes_are_compared_by_the_largest_output(manifest: Manifest) -> None:
    comparer = AnswerComparer(manifest, manifest)
    assert comparer.compare(logits([9, 0, 0]), logits([1, 0, 0])).agrees
    other = comparer.compare(logits([9, 0, 0], [0, 9, 0]), logits([9, 0, 0], [0, 0, 9]))
    assert (other.agrees, other.before, other.after) == (False, "1", "2")


def test_confidence_shift_is_of_probabilities(manifest: Manifest) -> None:
    found = AnswerComparer(manifest, manifest).compare(logits([0, 0, 0]), logits([100, 0, 0]))
    assert found.shift == pytest.approx(1 - 1 / CLASSES)


def test_classes_with_another_number_and_the_same_label_agree(manifest: Manifest) -> None:
    before = msgspec.structs.replace(manifest, labels=("walk", "run", "sit"))
    after = msgspec.structs.replace(manifest, labels=("run", "walk", "sit"))
    found = AnswerComparer(before, after).compare(logits([9, 0, 0]), logits([0, 9, 0]))
    assert (found.agrees, found.before, found.after) == (True, "walk", "walk")
    confused = AnswerComparer(before, after).compare(logits([9, 0, 0]), logits([9, 0, 0]))
    assert (confused.agrees, confused.before, confused.after) == (False, "walk", "run")


def test_values_are_compared_by_their_largest_difference(manifest: Manifest) -> None:
    output = msgspec.structs.replace(manifest.outputs[0], kind="values")
    values = msgspec.structs.replace(manifest, outputs=(output,))
    found = AnswerComparer(values, values).compare(logits([1, 2, 3]), logits([1, 2.5, 2]))
    assert found == AnswerDifference(agrees=None, largest=1.0)


@pytest.mark.parametrize(
    ("a", "b"),
    [([[1.0]], [[math.nan]]), ([[math.inf]], [[1.0]]), ([[1.0]], [[1.0, 2.0]])],
    ids=["nan", "infinity", "shape"],
)
def test_answers_that_cannot_be_subtracted_are_as_far_apart_as_can_be(
    a: list[list[float]], b: list[list[float]]
) -> None:
    largest = largest_difference(np.array(a), np.array(b))
    assert difference_bin(largest) == DIFFERENCE_BINS - 1
