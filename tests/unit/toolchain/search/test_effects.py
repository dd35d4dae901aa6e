"""What a recipe would do, known before it is built."""

from __future__ import annotations

import numpy as np
import pytest

from edge_compression.evaluation.candidate import Candidate
from edge_compression.evaluation.pareto import PreliminaryMeasurement
from edge_compression.options import Options
from edge_compression.pass_api import SAME_BELOW, SAME_FROM, SAME_VALUE, Changes
from edge_compression.pruning.effort import RefitLayer, Speed, algebra_seconds
from edge_compression.pruning.plan import ShareTarget, first_within, grown
from edge_compression.quantization.sensitivity import Saving, affordable, same_choice
from edge_compression.recipes.recipe import Recipe, parse_recipe
from edge_compression.search.base_selection import wins
from edge_compression.search.build_process import BuildRefused
from edge_compression.search.effects import same_effect
from edge_compression.search.foresight import Foresight


def recipe(*steps: str, name: str = "r") -> Recipe:
    passes = "".join(f"[[passes]]\n{step}\n" for step in steps)
    return parse_recipe(f'summary = "s"\n{passes}', name)


def mixed(sqnr: float) -> str:
    return f'pass = "mixed_weights"\nsqnr = {sqnr}'


def prune(keep: float, multiple: int = 8) -> str:
    return f'pass = "prune"\nkeep = {keep}\nmultiple = {multiple}'


SIMPLE, BIAS, STATIC = 'pass = "simplify"', 'pass = "bias_correction"', 'pass = "static_int8"'
SAME: Changes = {"pass": "mixed_weights", SAME_VALUE: "sqnr", SAME_FROM: 15.0, SAME_BELOW: 22.0}
DONE: Changes = {"pass": "simplify"}


@pytest.mark.parametrize(("sqnr", "same"), [(20.0, True), (15.0, True), (21.9, True), (22.0, False), (14.9, False)])
def test_a_value_that_chooses_the_same_weights_is_the_same(sqnr: float, same: bool) -> None:
    made = recipe(SIMPLE, mixed(20.0))
    assert same_effect(recipe(SIMPLE, mixed(sqnr)).passes, made.passes, (DONE, SAME)) is same


def test_what_comes_before_has_to_be_the_same_too() -> None:
    made = recipe(SIMPLE, mixed(20.0))
    assert not same_effect(recipe(mixed(18.0)).passes, made.passes, (DONE, SAME))
    assert not same_effect(recipe(SIMPLE, mixed(18.0), BIAS).passes, made.passes, (DONE, SAME))


def test_a_pass_that_did_nothing_may_be_there_or_not() -> None:
    made = recipe(STATIC, BIAS)
    idle: Changes = {"pass": "bias_correction", "layers": 0}
    worked: Changes = {"pass": "bias_correction", "layers": 2}
    assert same_effect(recipe(STATIC).passes, made.passes, (DONE, idle))
    assert not same_effect(recipe(STATIC).passes, made.passes, (DONE, worked))


def test_the_interval_of_noises_is_where_the_choice_is_the_same() -> None:
    generator = np.random.default_rng(3)
    savings = [
        Saving(name=str(index), size=int(generator.integers(1, 9)), noise=float(generator.random()))
        for index in range(12)
    ]
    for noise in np.linspace(0.0, 7.0, 60):
        chosen = affordable(savings, float(noise))
        low, high = same_choice(savings, float(noise))
        assert low <= noise < high
        assert affordable(savings, low + 1e-12) == chosen
        assert affordable(savings, min(high, 1e6) * (1 - 1e-9)) == chosen
        if high < 1e6:
            assert affordable(savings, high + 1e-9) != chosen


def test_targets_between_what_was_accepted_and_rejected_give_the_same_plan() -> None:
    plans = [(width, width) for width in range(9, 0, -1)]
    losses = [{level: 1.0 / level for level in range(1, 10)}] * 2

    def plan(keep: float) -> tuple[tuple[int, ...], ShareTarget]:
        target = ShareTarget(keep=keep, share=lambda kept: kept[0] * kept[1] / 100)
        found = first_within(plans, target.fits)
        assert found is not None
        return grown(found, losses, target.fits), target

    for keep in np.linspace(0.05, 0.8, 40):
        found, target = plan(float(keep))
        assert target.accepted <= keep < target.rejected
        assert plan(target.accepted)[0] == found
        assert plan(target.rejected - 1e-9)[0] == found


def test_what_is_impossible_is_asked_once() -> None:
    foresight = Foresight(None, 0, Options())
    refused = BuildRefused(
        step="prune", text="no channel", place=1, whatever=("keep", "of", "multiple", "samples", "seconds")
    )
    foresight.learn(recipe(SIMPLE, prune(0.5)), refused)
    fate = foresight.fate(recipe(SIMPLE, prune(0.9, 4), STATIC), [])
    assert fate is not None
    assert fate.reason == "prune: no channel"
    assert foresight.fate(recipe(SIMPLE, STATIC), []) is None
    assert foresight.fate(recipe(prune(0.9)), []) is None  # from another start


def test_a_target_out_of_reach_rules_out_smaller_ones_only() -> None:
    foresight = Foresight(None, 0, Options())
    foresight.learn(recipe(prune(0.3)), BuildRefused(step="prune", text="not reachable", place=0, less="keep"))
    assert foresight.fate(recipe(prune(0.2)), []) is not None
    assert foresight.fate(recipe(prune(0.31)), []) is None
    assert foresight.fate(recipe(prune(0.2, 4)), []) is None  # finer steps reach further


def test_a_variation_without_effect_is_known_by_its_twin() -> None:
    made = Candidate(recipe=recipe(SIMPLE, mixed(20.0), name="base"), sha256="ab", changes=(DONE, SAME))
    fate = Foresight(None, 0, Options()).fate(recipe(SIMPLE, mixed(16.0), name="base-v1"), [made])
    assert fate is not None
    assert fate.twin is made
    made.drop_out("left out", "loses too much")
    assert Foresight(None, 0, Options()).fate(recipe(SIMPLE, mixed(16.0), name="base-v1"), [made]) is not None


def test_a_variation_wins_by_more_than_luck() -> None:
    known = [PreliminaryMeasurement(loss=0.4, size=1000, pace=1.0)]
    assert not wins(PreliminaryMeasurement(loss=0.3, size=990, pace=0.9), known, 1.0)
    assert wins(PreliminaryMeasurement(loss=0.1, size=1000, pace=1.0), known, 1.0)
    assert wins(PreliminaryMeasurement(loss=0.9, size=900, pace=1.0), known, 1.0)
    assert not wins(PreliminaryMeasurement(loss=1.1, size=900, pace=0.1), known, 1.0)


def test_the_time_of_pruning_counts_its_linear_algebra() -> None:
    speed = Speed(products=2e9, bytes=5e9)
    small = algebra_seconds([RefitLayer(rows=32, columns=64, units=64, positions=1)], 256, speed)
    wide = algebra_seconds([RefitLayer(rows=320, columns=1153, units=1152, positions=128)], 256, speed)
    assert small < 0.1
    assert 10.0 < wide < 200.0
