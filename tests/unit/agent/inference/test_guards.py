"""The guards' decisions over a few numbers, and what of a tensor they are made on."""

import math

import numpy as np
import pytest

from edge_agent.inference.guard_policy import Spread, judge_confidence, judge_feature, judge_input, judge_output
from edge_agent.inference.guards import InputGuards
from edge_contracts.guards import FeatureGuard, InputGuard, OutputGuard
from edge_contracts.manifest import Confidence, Input, SampleMapping

BOUNDED = InputGuard(minimum=0.0, maximum=1.0, out_of_range="clip", not_finite="reject")


@pytest.mark.parametrize(
    ("low", "high", "action"),
    [
        (0.0, 1.0, "pass"),
        (-0.1, 1.0, "clip"),
        (0.0, 1.1, "clip"),
        (math.nan, math.nan, "reject"),
        (-math.inf, 0.0, "reject"),
        (0.0, math.inf, "reject"),
    ],
)
def test_inputs(low, high, action):
    assert judge_input(BOUNDED, Spread(minimum=low, maximum=high)).action == action


def test_an_input_without_bounds_passes_anything_finite():
    assert judge_input(InputGuard(), Spread(minimum=-1e30, maximum=1e30)).action == "pass"


@pytest.mark.parametrize(
    ("low", "high", "action"),
    [(0.0, 1.0, "pass"), (-1.0, 0.0, "fallback"), (0.0, 2.0, "fallback"), (math.nan, math.nan, "fallback")],
)
def test_outputs(low, high, action):
    assert judge_output(OutputGuard(minimum=0.0, maximum=1.0), Spread(minimum=low, maximum=high)).action == action


@pytest.mark.parametrize(
    ("infinite", "low", "high", "action"),
    [
        ("-inf", -math.inf, 3.0, "pass"),
        ("-inf", -math.inf, -math.inf, "pass"),
        ("-inf", -math.inf, math.inf, "fallback"),
        ("-inf", math.nan, math.nan, "fallback"),
        ("inf", 0.0, math.inf, "pass"),
        ("inf", -math.inf, 0.0, "fallback"),
        ("both", -math.inf, math.inf, "pass"),
        (None, -math.inf, 0.0, "fallback"),
    ],
)
def test_infinite_numbers_are_answers_only_where_the_manifest_says_so(infinite, low, high, action):
    found = judge_output(OutputGuard(), Spread(minimum=low, maximum=high), infinite=infinite)
    assert found.action == action


def test_confidence_only_ever_warns():
    thresholds = Confidence(energy=-2.0, max_softmax=0.5)
    assert judge_confidence(thresholds, energy=-3.0, max_softmax=0.9).action == "pass"
    assert judge_confidence(thresholds, energy=-1.0, max_softmax=0.9).action == "warn"
    assert judge_confidence(thresholds, energy=-3.0, max_softmax=0.4).action == "warn"
    assert judge_confidence(thresholds, energy=math.nan, max_softmax=0.9).action == "pass"
    assert judge_confidence(Confidence(), energy=9.0, max_softmax=0.0).action == "pass"


def test_a_feature_is_called_by_its_name_or_its_place():
    wide = Spread(minimum=-2.0, maximum=2.0)
    named = FeatureGuard(index=3, name="mode", categories=(0.0, 1.0), action="reject")
    assert judge_feature(named, wide, 7.0).text == "mode: 7 is not one of its categories"
    assert judge_feature(named, wide, None).action == "pass"
    assert judge_feature(FeatureGuard(index=3, maximum=1.0), wide, None).text == "feature 3: 2 is above the maximum 1"


ACCELERATION = FeatureGuard(index=0, name="acceleration", minimum=-2.0, maximum=2.0, action="clip")
MODE = FeatureGuard(index=2, name="mode", categories=(0.0, 0.1, 3.0), action="warn")


def judge(array, shape=(-1, 3), **guard):
    dtype = array.dtype.name
    sample = SampleMapping(dtype=dtype)
    tensor = Input(name="x", dtype=dtype, shape=shape, sample=sample, guard=InputGuard(**guard))
    feed, objections = InputGuards(tensor).judge(array)
    return feed.tolist(), [(one.action, one.text) for one in objections]


@pytest.mark.parametrize(
    ("row", "fed", "objections"),
    [
        ([1.0, 99.0, 3.0], [1.0, 99.0, 3.0], []),
        ([2.5, 99.0, 0.0], [2.0, 99.0, 0.0], [("clip", "acceleration: 2.5 is above the maximum 2")]),
        ([1.0, 99.0, 2.0], [1.0, 99.0, 2.0], [("warn", "mode: 2 is not one of its categories")]),
    ],
)
def test_each_feature_has_a_guard_of_its_own(row, fed, objections):
    assert judge(np.float32([row]), features=(ACCELERATION, MODE)) == ([fed], objections)


def test_a_category_is_compared_as_the_tensor_holds_it():
    assert judge(np.float32([[0, 0, 0.1]]), features=(MODE,))[1] == []
    assert judge(np.int64([[0, 0, 0]]), features=(MODE,))[1] == []
    half = FeatureGuard(index=0, categories=(0.5,))
    assert judge(np.int64([[0, 0, 0]]), features=(half,))[1] == [("warn", "feature 0: 0 is not one of its categories")]


def test_all_samples_and_places_of_a_feature_are_judged():
    windows = np.zeros((2, 3, 5), np.float32)
    windows[1, 0, 4] = -7.0
    fed, objections = judge(windows, shape=(-1, 3, 5), axis=1, features=(ACCELERATION,))
    assert objections == [("clip", "acceleration: -7 is below the minimum -2")]
    assert fed[1][0] == [0, 0, 0, 0, -2.0]
    assert windows[1, 0, 4] == -7.0, "the request's own array is left as it is"


def test_a_missing_number_hides_nothing_and_is_no_category():
    lenient = {"not_finite": "warn", "features": (ACCELERATION, MODE)}
    fed, objections = judge(np.float32([[math.nan, 0, 0], [9, 0, math.nan]]), **lenient)
    assert [text for _, text in objections] == [
        "contains NaN or infinity",
        "acceleration: 9 is above the maximum 2",
        "mode: nan is not one of its categories",
    ]
    assert fed[1][0] == 2.0
