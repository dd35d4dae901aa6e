"""A report as page, CSV, JUnit and by its schema, from made-up measurements."""

from __future__ import annotations

import csv
import io
import json
import re
import xml.etree.ElementTree as ET

import jsonschema
import msgspec
import numpy as np
import pytest

from edge_bench.decisions.gate import BenchGate, LimitCheck
from edge_bench.environment import environment
from edge_bench.outputs.axes import log_ticks
from edge_bench.outputs.charts import Measured, distribution, dominated, operator_bars, pareto
from edge_bench.outputs.console import remarks
from edge_bench.outputs.html import html
from edge_bench.outputs.json_schema import DOCUMENTS, FOLDER, schema_text
from edge_bench.outputs.tables import as_csv, gate_as_junit, report_as_junit
from edge_bench.protocol import Loaded, OperatorCost, Profiled
from edge_bench.quality import TaskQuality
from edge_bench.report import BenchReport, SubjectReport
from edge_bench.scenarios.causes import Block
from edge_bench.scenarios.machine import MachineState
from edge_bench.scenarios.summary import DrivenSubject, LoadSettings, MemoryUse, Passes, summarized, thinned
from edge_bench.scenarios.sustain import Sustained, SustainedWindow, sustained_ratio
from edge_bench.stats import Interval, summarize
from edge_contracts.codec import plain

MACHINE = environment()
HOSTILE = '<script>alert("x")</script>=cmd\x01'
OPERATORS = (OperatorCost(name="a", operator="Conv", ms=3.0, share=0.75), OperatorCost(name="b", operator="Relu", ms=1.0, share=0.25))  # fmt: skip # noqa: E501


def windows(*latencies: float) -> tuple[SustainedWindow, ...]:
    return tuple(
        SustainedWindow(at_s=10.0 * at, p50_ms=ms, frames_per_s=1e3 / ms, temperature_c=50.0 + at, frequency_mhz=None,
                        throttled=ms > 1.5)
        for at, ms in enumerate(latencies)
    )  # fmt: skip


def subject(name: str, ms: float, score: float, *, seconds: float = 1.0, queries: int = 200) -> SubjectReport:
    draws = np.random.default_rng(1)
    latencies = [ms * (1 + 0.01 * draws.standard_exponential(queries)) for _ in range(7)]
    idle = MachineState(at_s=0.0)
    facts = [
        Block(queries=queries, samples=queries, wall_s=seconds / 7, cpu_s=0.1, joules=0.5, before=idle, after=idle)
        for _ in latencies
    ]
    loaded = Loaded(load_ms=20.0, first_ms=2.0, peak_memory_mb=9.0, engine="onnxruntime", engine_version="1")
    one = DrivenSubject(loaded=loaded, latencies=latencies, facts=facts)
    kept = Sustained(seconds=60.0, ratio=0.5, windows=windows(1.0, 1.2, 2.0))
    passes = Passes(
        memory=MemoryUse(peak_mb=9.0, average_mb=8.0), sustained=kept, profile=Profiled(operators=OPERATORS), meter="m"
    )
    run = summarized(one, LoadSettings(seconds=1.0), passes)
    quality = TaskQuality(
        metric="top1", unit="points", better=1, score=score, interval=Interval(low=score - 0.1, high=score), samples=9,
        worst_slice="night", worst_score=0.25, covered=0.91, promised=0.9,
    )  # fmt: skip
    return SubjectReport(
        name=name, size=1000, sha256="0" * 64, engine="onnxruntime", engine_version="1", load_ms=20.0, first_ms=2.0,
        latency=summarize(latencies), peak_memory_mb=9.0, score=score, quality=quality, run=run,
        rounds_ms=thinned(latencies, 100),
    )  # fmt: skip


def report(*subjects: SubjectReport) -> BenchReport:
    return BenchReport(
        subject="m.onnx", inputs="t.toml", threads=1, seconds=1.0, metric="top1", samples=9, stable=True,
        environment=MACHINE, subjects=subjects, measured_at="2026-01-01T00:00:00Z",
    )  # fmt: skip


FAILED = SubjectReport(name="broken", size=1, sha256="0" * 64, error="boom")


def test_the_page_needs_nothing_from_elsewhere_and_runs_nothing_of_a_name() -> None:
    page = html(report(subject(HOSTILE, 1.0, 0.9), subject("slow", 2.0, 0.9), FAILED))
    assert "<script" not in page
    assert not re.search(r"""(?:src|href)\s*=|url\(|@import""", page)
    for word in (
        "p99.9",
        "average memory",
        "time to first inference",
        "sustained ratio",
        "worst slice",
        "night",
        "boom",
    ):
        assert word in page
    assert page.count("<polyline") == 2 + 2 + 2  # latencies, and over time latency and temperature
    assert page.count('class="hot"') == 4  # one window of each in two charts
    assert 'class="grey"' in page
    assert "75.0%, 1 node" in page


def test_a_page_of_little_is_a_page() -> None:
    bare = msgspec.structs.replace(subject("m", 1.0, 0.9), quality=None, run=None)
    assert "m.onnx" in html(msgspec.structs.replace(report(bare, FAILED), metric=None, samples=None))


def test_percentiles_of_too_few_queries_are_said_to_be_so() -> None:
    few = report(subject("m", 1.0, 0.9, queries=3))
    assert html(few).count("too few") >= 2  # p99 and p99.9
    assert "p99_ms" not in as_csv(few)


def test_csv_has_a_row_for_each_and_keeps_names_whole() -> None:
    rows = list(csv.DictReader(io.StringIO(as_csv(report(subject('a,"b"', 1.0, 0.9), FAILED)))))
    assert [row["model"] for row in rows] == ['a,"b"', "broken"]
    assert float(rows[0]["p99_ms"]) >= float(rows[0]["p50_high_ms"]) >= float(rows[0]["p50_ms"])
    assert float(rows[0]["mj_per_inference"]) == pytest.approx(2.5)
    assert (rows[1]["error"], rows[1]["p50_ms"]) == ("boom", "")


def test_junit_fails_what_failed_or_is_invalid() -> None:
    short = subject(HOSTILE, 1.0, 0.9, seconds=0.5)
    root = ET.fromstring(report_as_junit(report(subject("good", 1.0, 0.9), short, FAILED)))
    assert root[0].attrib["failures"] == "2"
    assert [len(case.findall("failure")) for case in root[0]] == [0, 1, 1]


def test_junit_of_a_gate_skips_what_is_unsure() -> None:
    verdicts = ("pass", "fail", "unsure")
    checks = tuple(LimitCheck(subject="m", what=one, verdict=one, value=1.0, limit=1.0, unit="ms") for one in verdicts)
    root = ET.fromstring(gate_as_junit(BenchGate(verdict="fail", checks=checks), "m"))
    assert {name: root[0].attrib[name] for name in ("tests", "failures", "skipped")} == {
        "tests": "3", "failures": "1", "skipped": "1",
    }  # fmt: skip


@pytest.mark.parametrize("name", DOCUMENTS)
def test_the_published_schemas_are_those_of_the_types(name: str) -> None:
    assert (FOLDER / f"{name}.schema.json").read_text() == schema_text(name)


def test_a_report_follows_its_schema() -> None:
    validator = jsonschema.Draft202012Validator(json.loads(schema_text("bench-report")))
    document = json.loads(json.dumps(plain(report(subject("a", 1.0, 0.9), FAILED))))
    validator.validate(document)
    with pytest.raises(jsonschema.ValidationError):
        validator.validate(document | {"surprise": 1})


def test_the_winner_is_named_only_beyond_what_processes_differ() -> None:
    assert remarks(report(subject("a", 1.0, 0.9), subject("b", 1.3, 0.9)))[0].startswith("Fastest: a; b, the next")
    assert remarks(report(subject("a", 1.0, 0.9), subject("b", 1.03, 0.9)))[0].startswith("No winner")


def test_dominated_is_what_another_beats_by_more_than_noise() -> None:
    a, b, c = (Measured(name=n, cost=c, score=s) for n, c, s in (("a", 1.0, 0.9), ("b", 2.0, 0.9), ("c", 2.0, 0.95)))
    assert [dominated(one, (a, b, c)) for one in (a, b, c)] == [False, True, False]
    near = Measured(name="d", cost=1.005, score=0.9)
    assert not dominated(near, (a, near))
    picture = pareto((a, near, b), title="t", x_title="ms", y_title="top1")
    assert [mark.label for mark in sorted(picture.marks, key=lambda m: m.number)] == ["1, 2", "", "3"]


def test_a_distribution_of_any_latencies_has_finite_points() -> None:
    assert distribution([("none", [])]) is None
    for values in ([1.0], [2.0, 2.0], [0.001, 5000.0], list(np.linspace(1, 2, 1000))):
        picture = distribution([("m", values)])
        assert picture is not None
        assert not re.search("nan|inf", picture.lines[0].points)
        assert len(picture.y_ticks) >= 1


@pytest.mark.parametrize(("low", "high"), [(0.9, 1.1), (1e-3, 1e4), (3.0, 4.0), (1.0, 1.0001)])
def test_ticks_of_logarithms_are_few_and_inside(low: float, high: float) -> None:
    found = log_ticks(low, high)
    assert 1 <= len(found) <= 9
    assert all(low * 0.999 <= value <= high * 1.001 for value in found)


def test_many_operators_end_in_others() -> None:
    many = tuple(OperatorCost(name=str(n), operator=f"Op{n}", ms=1.0, share=0.05) for n in range(20))
    bars = operator_bars("m", many).bars
    assert len(bars) == 13
    assert bars[-1].told == "40.0%, 8 nodes"


def test_the_sustained_ratio_is_the_speed_that_is_left() -> None:
    assert sustained_ratio(windows(1.0, 1.0, 1.0, 1.5, 2.0)) == pytest.approx(0.5)
    assert sustained_ratio(windows(1.0)) == 1.0
