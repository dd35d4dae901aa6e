"""What a recipe can win at best, by facts of the graph."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from edge_compression.evaluation.candidate import Candidate
from edge_compression.evaluation.graph_profile import GraphFacts, OperatorShare, shares
from edge_compression.evaluation.quality import Quality
from edge_compression.options import Options
from edge_compression.recipes.recipe import Recipe, load_recipes
from edge_compression.search.foresight import Foresight
from edge_compression.search.prospects import NO_GAIN, Rival, objection, outlook, prospect

RECIPES = {one.id: one for one in load_recipes("onnx") if one.id != "float"}


def operator(kind: str, time: float, weight_bytes: int = 0, nodes: int = 3, depthwise: float = 0.0) -> OperatorShare:
    return OperatorShare(
        operator=kind, nodes=nodes, time=time, depthwise=depthwise, weight_bytes=weight_bytes, weights=nodes
    )


def facts(*operators: OperatorShare, size: int = 400_000, quantized: bool = False) -> GraphFacts:
    return GraphFacts(size=size, operators=operators, answer_ms=1.0, overhead=0.0, quantized=quantized)


CONVOLUTIONS = facts(operator("Conv", 0.97, 380_000), operator("Softmax", 0.03, nodes=1))
TREES = facts(operator("TreeEnsembleClassifier", 1.0, nodes=1))


def hopeful(found: GraphFacts) -> set[str]:
    foresight = Foresight(found, found.size, Options(), 1.0)
    return {name for name, one in RECIPES.items() if foresight.fate(one, []) is None}


def test_trees_have_nothing_to_win() -> None:
    assert hopeful(TREES) - {"fused-int8-dynamic", "fused-mixed-weights"} == set()


def test_convolutions_may_win_with_everything_that_stores_or_computes_in_fewer_bits() -> None:
    assert {"int8-compute-rr", "mixed-weights", "int8-weights", "int8-pc-bias-rr", "float16"} <= hopeful(CONVOLUTIONS)
    assert "int8-dynamic-matmul" not in hopeful(CONVOLUTIONS)  # there is no matrix product


def test_a_tiny_model_has_nothing_to_win_in_bytes() -> None:
    tiny = GraphFacts(
        size=2000, operators=(operator("Gemm", 1.0, 1200, nodes=2),), answer_ms=0.009, overhead=0.5, quantized=False
    )
    assert hopeful(tiny) == set()
    assert hopeful(replace(tiny, size=20_000, operators=(operator("Gemm", 1.0, 19_000, nodes=2),)))


def test_an_integer_model_has_nothing_to_win() -> None:
    done = facts(operator("QLinearConv", 0.9), operator("Gemm", 0.1, 2000), quantized=True)
    assert hopeful(done) == set()


@pytest.mark.parametrize("name", sorted(RECIPES))
def test_a_bound_is_never_above_what_the_recipe_leaves_alone(name: str) -> None:
    found = prospect(RECIPES[name], CONVOLUTIONS)
    assert found is not None
    assert 0.0 < found.pace <= 1.0
    assert found.size <= CONVOLUTIONS.size


def test_a_candidate_that_loses_nothing_rules_out_what_has_nothing_over_it() -> None:
    weights = prospect(RECIPES["int8-weights"], CONVOLUTIONS)
    assert weights is not None
    rival = Rival(id="mixed", size=80_000, pace=1.0, loses=False, lean=False)
    assert objection(weights, CONVOLUTIONS, CONVOLUTIONS.size, []) is None
    assert NO_GAIN in str(objection(weights, CONVOLUTIONS, CONVOLUTIONS.size, [rival]))
    slow = Rival(id="slow", size=80_000, pace=1.4, loses=False, lean=False)
    assert objection(weights, CONVOLUTIONS, CONVOLUTIONS.size, [slow]) is None
    lossy = Rival(id="lossy", size=80_000, pace=1.0, loses=True, lean=False)
    assert objection(weights, CONVOLUTIONS, CONVOLUTIONS.size, [lossy]) is None


def judged(recipe: Recipe, size: int, pace: float, drop: float = 0.0) -> Candidate:
    from edge_bench.stats import Interval

    quality = Quality(
        samples=500, score=0.9, drop=drop, drop_interval=Interval(low=drop - 0.5, high=drop + 0.5), bound=drop + 0.2,
        verdict="within", surely_over=False, agreement=1.0, p_value=None,
    )  # fmt: skip
    return Candidate(recipe=recipe, size=size, pace=pace, quality=quality, sha256="ab")


def test_what_the_same_arithmetic_took_is_known_of_other_roundings() -> None:
    foresight = Foresight(CONVOLUTIONS, CONVOLUTIONS.size, Options(), 1.0)
    small = judged(RECIPES["mixed-weights"], 70_000, 1.0)
    slow = judged(RECIPES["int8-pc-minmax-rr"], 110_000, 2.0)
    assert foresight.fate(RECIPES["int8-pc-bias-rr"], [small]) is None
    fate = foresight.fate(RECIPES["int8-pc-bias-rr"], [small, slow])
    assert fate is not None
    assert "mixed-weights has that without a loss" in fate.reason


def test_what_only_compacting_wins_is_the_float_recipe_s() -> None:
    foresight = Foresight(CONVOLUTIONS, 2 * CONVOLUTIONS.size, Options(), 0.1)
    compacted = judged(load_recipes("onnx")[0], CONVOLUTIONS.size, 1.0, drop=0.0)
    assert foresight.fate(RECIPES["int8-dynamic-matmul"], []) is None
    assert foresight.fate(RECIPES["int8-dynamic-matmul"], [compacted]) is not None


def test_beside_a_limit_of_latency_nothing_is_ruled_out_by_another() -> None:
    foresight = Foresight(CONVOLUTIONS, CONVOLUTIONS.size, Options(max_latency_ms=1.0), 1.0)
    small = judged(RECIPES["mixed-weights"], 70_000, 1.0)
    assert foresight.fate(RECIPES["int8-weights"], [small]) is None


def test_the_outlook_says_where_the_time_is_and_what_integers_can_win() -> None:
    time, stored = outlook(CONVOLUTIONS)
    assert time == "97% of the time is in 3 Conv: int8 compute can win at most 3.7 x"
    assert stored.startswith("95% of the bytes are weights")
    assert outlook(TREES)[0].endswith("which has no 8-bit form")
    assert "depthwise" in outlook(facts(operator("Conv", 0.9, 1000, depthwise=0.4)))[0]


def test_a_profile_is_read_by_medians_and_knows_fused_depthwise_convolutions() -> None:
    def event(name: str, kind: str, duration: float) -> dict[str, object]:
        return {"cat": "Node", "name": f"{name}_kernel_time", "dur": duration, "args": {"op_name": kind}}

    events: list[dict[str, object]] = [{"cat": "Session", "name": "model_run", "dur": 100.0}] * 3
    for late in (1.0, 40.0, 1.0):
        events += [event("a", "FusedConv", 60.0), event("relu_nchwc", "Conv", 20.0), event("s", "Softmax", 5.0 * late)]
    found = shares(events, {"relu"})
    assert found.nodes == {"Conv": 2, "Softmax": 1}
    assert found.times["Conv"] == pytest.approx(0.8)
    assert found.times["Softmax"] == pytest.approx(0.05)  # one late run is no slow node
    assert found.depthwise["Conv"] == pytest.approx(0.2)
    assert found.overhead == pytest.approx(0.15)
