"""The console's few lines: the ladder first, what became of the rest, what to try next, whether anything was gained."""

from __future__ import annotations

import msgspec
import pytest
from support.makers import reports

from edge_compression.cli.few_lines import FewLines
from edge_compression.evaluation.candidate import Candidate
from edge_compression.recipes.recipe import load_recipes
from edge_compression.report.advice import advice
from edge_compression.report.gains import fate_counts, gained, score, sized
from edge_compression.report.model import Report, travelling
from edge_compression.report.text import last, short
from edge_contracts.codec import plain


def float_alone(size: int = 990) -> Report:
    kept = reports.candidate("float", layers=(), size=size, timing=reports.timing(1.0))
    others = [one for one in reports.report().candidates if one.id in ("lost", "broken")]
    return msgspec.structs.replace(reports.report(), ladder=("float",), fastest="float", candidates=(kept, *others))


def test_the_ladder_stands_first_with_units_and_the_others_are_counted() -> None:
    lines = list(short(reports.report()))
    assert "1.0 kB, 1 ms, top1 100.0 % on 60 samples" in lines[0]
    assert lines[1].split("  ")[0] == "rung"
    assert "lost, points (95 %)" in lines[1]
    assert lines[2].split()[:3] == ["1", "int8", "(fastest)"]
    assert "400 B" in lines[2]
    assert "0.40" in lines[2]
    assert lines[4].startswith("2 others are no rungs: 1 lose too much, 1 failed")
    assert last(reports.report()) is None


def test_columns_stand_below_one_another_whatever_the_names() -> None:
    lines = list(short(reports.report()))[1:4]
    ends = {line.index(text) + len(text) for line, text in zip(lines, ("of bytes", "0.40", "1.00"), strict=True)}
    assert len(ends) == 1


def test_a_ladder_of_the_original_alone_is_no_gain_and_the_last_line_says_why() -> None:
    report = float_alone()
    assert gained(report) == ()
    said = last(report)
    assert said is not None
    assert said.startswith("Nothing was gained: no rung is worth more than the original (1 lose too much, 1 failed")
    assert "closest: lost" in said


def test_a_float_rung_that_saves_bytes_is_a_gain() -> None:
    assert [one.one.id for one in gained(float_alone(size=400))] == ["float"]
    assert last(float_alone(size=400)) is None


def test_advice_names_what_to_type() -> None:
    said = " ".join(one.line for one in advice(reports.report()))
    assert "give 800 or more" in said
    tried = reports.candidate("late", status="not tried", reason="the time budget was used up", quality=None)
    late = msgspec.structs.replace(reports.report(), candidates=(*reports.report().candidates, tried))
    assert "--budget" in " ".join(one.line for one in advice(late))
    assert len(advice(late)) <= 6


def test_a_smaller_variant_that_loses_more_is_offered_with_the_limit_it_needs() -> None:
    # "lost" weighs as much as the rung: no reason to lose more for it. A smaller one is.
    assert not [one for one in advice(reports.report()) if "--max-drop" in one.do]
    smaller = [
        msgspec.structs.replace(one, size=100) if one.id == "lost" else one for one in reports.report().candidates
    ]
    found = advice(msgspec.structs.replace(reports.report(), candidates=tuple(smaller)))
    assert [one for one in found if one.do.startswith("--max-drop ")]


def test_what_travels_with_a_bundle_leaves_out_what_no_device_needs() -> None:
    twin = reports.candidate("twin", status="duplicate", reason="the same bytes as int8")
    report = msgspec.structs.replace(reports.report(), candidates=(*reports.report().candidates, twin))
    made = travelling(report)
    assert [one.id for one in made.candidates] == ["int8", "float", "lost", "broken"]
    assert made.candidates[0] == report.candidates[0]
    brief = made.candidates[2]
    assert (brief.recipe, brief.changes, brief.exactness) == ("", (), None)
    assert brief.quality is not None
    assert report.candidates[2].quality is not None
    assert brief.quality.drop == report.candidates[2].quality.drop
    assert msgspec.convert(plain(made), Report).ladder == report.ladder


@pytest.mark.parametrize(
    ("count", "text"), [(0, "0 B"), (999, "999 B"), (1000, "1.0 kB"), (29_400, "29 kB"), (4_200_000, "4.2 MB")]
)
def test_sizes_are_read_as_people_say_them(count: int, text: str) -> None:
    assert sized(count) == text


def test_scores_have_units() -> None:
    assert score(0.908, "%") == "90.8 %"
    assert score(12.34, "dB") == "12.34 dB"
    assert score(0.31, "m") == "0.31 m"
    assert score(None, "%") == "-"


def test_a_log_has_few_lines_of_a_long_search_and_all_that_is_no_step_of_many() -> None:
    said, clock = list[str](), [0.0]
    lines = FewLines(said.append, lambda: clock[0])
    lines.said("reusing 67 finished candidates")
    one = Candidate(recipe=load_recipes("onnx")[0])
    for second in range(3600):
        clock[0] = float(second)
        lines.said(f"building {second}")
        lines.judged(one, [one], 1000)
    assert said[0] == "reusing 67 finished candidates"
    assert 8 <= len(said) <= 12
    assert said[1].startswith("10 s: 0 of 1 candidates judged")


def test_every_fate_is_counted_once() -> None:
    report = reports.report()
    counted = sum(int(text.split()[0]) for text in fate_counts(report))
    assert counted == len(report.candidates) - len(report.ladder)


def test_where_nothing_could_even_be_tried_the_reason_is_said_and_no_samples_are_asked_for() -> None:
    kept = reports.candidate("float", layers=(), size=990, timing=reports.timing(1.0))
    untried = reports.candidate("a", status="not tried", reason="no weights here", quality=None, timing=None)
    report = msgspec.structs.replace(reports.report(), ladder=("float",), fastest="float", candidates=(kept, untried))
    said = last(report)
    assert said is not None
    assert "most often: no weights here" in said
    assert [one.do for one in advice(report)] == ["edgewright bundle create"]
