"""The report for people: complete in itself, and safe whatever models and tools call themselves."""

from __future__ import annotations

import re
from xml.etree import ElementTree

import msgspec
import pytest
from support.makers import reports

from edge_compression.evaluation.candidate import Candidate
from edge_compression.evaluation.layer_errors import LayerError
from edge_compression.pass_api import EIGHT_BIT_FLOOR
from edge_compression.recipes.recipe import load_recipes
from edge_compression.report.caveats import half_already, why_no_eight_bit
from edge_compression.report.charts import Dot, labels, scatter, ticks
from edge_compression.report.html import html

PAGE = html(reports.report())


def test_nothing_is_fetched_and_nothing_runs() -> None:
    assert not re.search(r"src\s*=|href\s*=\s*[\"'](?!#|data:image/png;base64,)|url\(|@import|https?://", PAGE)
    assert "<script" not in PAGE


def test_names_and_reasons_are_shown_and_not_obeyed() -> None:
    assert PAGE.count("&lt;script&gt;") >= 5


def test_pictures_are_well_formed_and_show_every_candidate_that_was_judged() -> None:
    drawn = [ElementTree.fromstring(text) for text in re.findall(r"<svg.*?</svg>", PAGE, re.DOTALL)]
    assert len(drawn) == 3  # size, latency, the bar of the one layer that has a counterpart
    assert [len(one.findall("circle")) for one in drawn] == [3, 3, 0]
    assert "lost (beyond the chart)" in PAGE


def test_every_candidate_is_told_of_with_its_reason() -> None:
    for words in ("summary of int8", "left out: loses", "failed: no", "static_int8: quantizers 4", "fastest here"):
        assert words in PAGE


@pytest.mark.parametrize(("low", "high"), [(0.0, 1.05), (-0.7, 4.0), (0.0, 0.002), (0.0, 400.0), (3.0, 3.0)])
def test_ticks_are_few_round_and_inside(low: float, high: float) -> None:
    found = ticks(low, high)
    assert 1 <= len(found) <= 7
    assert all(low - 1e-9 <= value <= high + 1e-9 for value in found)


def test_a_chart_of_nothing_is_a_chart() -> None:
    assert scatter([], title="t", x_title="x", limit=1.0).dots == ()


def test_marks_of_dots_at_one_place_do_not_lie_over_one_another() -> None:
    dots = [Dot(x=100.0 + index, y=100.0, label="", kind="rung") for index in range(6)]
    made = labels(dots, [str(index) for index in range(6)])
    assert len({(one.x - dot.x, one.y) for one, dot in zip(made, dots, strict=True)}) == 6
    at_edge = labels([Dot(x=502.0, y=16.0, label="", kind="rung")], ["1"])
    assert at_edge[0].anchor == "end"


def test_a_layer_is_drawn_under_its_own_name_with_its_interval() -> None:
    layer = LayerError(name="block3/conv", operator="Conv", sqnr_db=30.0, low_db=24.0, high_db=36.0)
    one = msgspec.structs.replace(reports.report(), candidates=tuple(
        msgspec.structs.replace(one, layers=(layer,)) if one.id == "int8" else one
        for one in reports.report().candidates
    ))  # fmt: skip
    page = html(one)
    assert "block3/conv" in page
    assert 'width="50.0"' in page
    assert 'x1="40.0" y1="6" x2="60.0"' in page


def test_a_ladder_of_float_alone_says_why_weights_could_not_be_stored() -> None:
    recipes = {recipe.id: recipe for recipe in load_recipes("onnx")}
    tried = [
        Candidate(recipe=recipes["int8-compute-rr"], status="failed", reason="static_int8: no operator to quantize"),
        Candidate(recipe=recipes["fused-mixed-weights"], status="not tried", reason="depends on fused-int8-dynamic"),
        Candidate(recipe=recipes["int8-weights"], status="failed", reason="weight_only: no weights in a graph of: A"),
    ]
    assert why_no_eight_bit(tried) == "no weights in a graph of: A"
    assert why_no_eight_bit(tried[:2]) is None


def test_of_float16_weights_the_report_says_how_small_eight_bits_can_make_them() -> None:
    recipes = {recipe.id: recipe for recipe in load_recipes("tflite")}
    tried = [
        Candidate(recipe=recipes["tflite-float"]),
        Candidate(recipe=recipes["tflite-int8-weights"], changes=({"pass": "tflite_int8", EIGHT_BIT_FLOOR: 0.488},)),
    ]
    assert list(half_already(tried[:1])) == []
    assert "0.49 of its bytes" in next(half_already(tried))
