"""The guards' decisions over a few numbers."""

import math

import pytest

from edge_agent.core.guards import Spread, judge_confidence, judge_input, judge_output
from edge_contracts.manifest import Confidence, InputGuard, OutputGuard

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


def test_confidence_only_ever_warns():
    thresholds = Confidence(energy=-2.0, max_softmax=0.5)
    assert judge_confidence(thresholds, energy=-3.0, max_softmax=0.9).action == "pass"
    assert judge_confidence(thresholds, energy=-1.0, max_softmax=0.9).action == "warn"
    assert judge_confidence(thresholds, energy=-3.0, max_softmax=0.4).action == "warn"
    assert judge_confidence(thresholds, energy=math.nan, max_softmax=0.9).action == "pass"
    assert judge_confidence(Confidence(), energy=9.0, max_softmax=0.0).action == "pass"
