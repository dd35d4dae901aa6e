"""What a gate decides, on made-up reports."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest

from edge_bench.compare import LatencyComparison
from edge_bench.decisions.gate import (
    Allowed,
    LimitCheck,
    against_baseline,
    against_budget,
    latency_check,
    result,
    sentence,
)
from edge_bench.decisions.history import history_of
from edge_bench.environment import environment
from edge_bench.quality import TaskQuality
from edge_bench.report import BenchReport, SubjectReport
from edge_bench.stats import Interval, summarize
from edge_contracts.errors import OperatorError
from edge_contracts.profile import ModelBudget

MACHINE = environment()


def quality(score: float, *, better: int = 1, unit: str = "points") -> TaskQuality:
    return msgspec.convert(
        {"metric": "m", "unit": unit, "better": better, "score": score, "interval": None, "samples": 9}, TaskQuality
    )


def subject(ms: float, *, name: str = "m", noise: float = 0.002, seed: int = 1, **more: object) -> SubjectReport:
    draws = np.random.default_rng(seed)
    rounds = [ms * (1 + noise * draws.standard_normal(50)) for _ in range(7)]
    made = SubjectReport(
        name=name, size=2_000_000, sha256="0" * 64, latency=summarize(rounds), load_ms=20.0, peak_memory_mb=10.0,
        rounds_ms=tuple(tuple(one) for one in rounds),
    )  # fmt: skip
    return msgspec.structs.replace(made, **more)


def report(*subjects: SubjectReport, at: str = "2026-01-01T00:00:00Z", **more: object) -> BenchReport:
    made = BenchReport(
        subject="m.onnx", inputs="t.toml", threads=1, seconds=1.0, metric="m", samples=9, stable=True,
        environment=MACHINE, subjects=subjects, measured_at=at,
    )  # fmt: skip
    return msgspec.structs.replace(made, **more)


def verdicts(checks: list[LimitCheck]) -> dict[str, str]:
    return {one.what: one.verdict for one in checks}


def test_each_part_of_a_budget_is_checked() -> None:
    budget = ModelBudget(latency_ms=0.5, memory_mb=9.0, disk_mb=1.0, load_s=0.01)
    assert set(verdicts(against_budget(subject(1.0), budget)).values()) == {"fail"}
    roomy = ModelBudget(latency_ms=2.0)
    assert verdicts(against_budget(subject(1.0), roomy)) == {
        "latency p50": "pass", "file": "pass", "peak memory": "pass", "load": "pass",
    }  # fmt: skip


def test_a_limit_inside_the_interval_decides_nothing() -> None:
    one = subject(1.0, noise=0.2)
    assert one.latency is not None
    budget = ModelBudget(latency_ms=one.latency.p50_interval.high - 1e-9)
    assert verdicts(against_budget(one, budget))["latency p50"] == "unsure"


def test_ten_percent_slower_fails_and_the_same_passes() -> None:
    old = report(subject(1.0))
    assert verdicts(against_baseline(report(subject(1.1, seed=2)), old, Allowed()))["slower"] == "fail"
    assert verdicts(against_baseline(report(subject(1.0, seed=2)), old, Allowed()))["slower"] == "pass"
    assert verdicts(against_baseline(report(subject(1.1, seed=2)), old, Allowed(slower=20.0)))["slower"] == "pass"


def test_growth_of_memory_and_lost_quality_fail() -> None:
    old = report(subject(1.0, quality=quality(0.9)))
    worse = report(subject(1.0, seed=2, peak_memory_mb=12.0, quality=quality(0.88)))
    assert verdicts(against_baseline(worse, old, Allowed())) == {
        "slower": "pass", "memory growth": "fail", "m lost": "fail",
    }  # fmt: skip


@pytest.mark.parametrize(("new", "verdict"), [(2.1, "fail"), (1.9, "pass"), (2.01, "pass")])
def test_an_error_that_grows_is_a_loss_in_percent_of_itself(new: float, verdict: str) -> None:
    old = report(subject(1.0, quality=quality(2.0, better=-1, unit="percent")))
    now = report(subject(1.0, quality=quality(new, better=-1, unit="percent")))
    assert verdicts(against_baseline(now, old, Allowed()))["m lost"] == verdict


def test_another_machine_shows_nothing_about_latency() -> None:
    other = report(subject(1.0), environment=msgspec.structs.replace(MACHINE, cpu="another"))
    checks = against_baseline(report(subject(3.0)), other, Allowed())
    assert verdicts(checks)["slower"] == "unsure"
    assert "another machine (another)" in sentence(checks[0])


def test_a_model_that_no_longer_runs_fails() -> None:
    broken = SubjectReport(name="m", size=1, sha256="0" * 64, error="boom")
    assert verdicts(against_baseline(report(broken), report(subject(1.0)), Allowed())) == {"runs": "fail"}
    assert verdicts(against_budget(broken, ModelBudget())) == {"runs": "fail"}


def test_subjects_are_paired_by_name_where_there_are_several() -> None:
    old = report(subject(1.0, name="float"), subject(2.0, name="int8"))
    checks = against_baseline(report(subject(2.0, name="int8", seed=4), subject(9.0, name="new")), old, Allowed())
    assert {one.subject: one.verdict for one in checks if one.what == "slower"} == {"int8": "pass"}
    with pytest.raises(OperatorError, match="no subject of these names"):
        against_baseline(report(subject(1.0, name="x"), subject(1.0, name="y")), old, Allowed())


def test_the_worst_check_is_the_verdict_and_none_is_no_pass() -> None:
    ratio = LatencyComparison(
        a="a", b="b", verdict="none", ratio=1.04, low=1.0, high=1.08, confidence=0.98, interleaved=True, a_ms=1.0,
        b_ms=1.04, pairs=8, seconds=1.0, ratios=(1.04,),
    )  # fmt: skip
    unsure = latency_check("m", ratio, Allowed())
    assert unsure.verdict == "unsure"
    passed = latency_check("m", ratio, Allowed(slower=9.0))
    failed = latency_check("m", ratio, Allowed(slower=0.0))
    assert failed.verdict == "unsure"
    assert result([passed, unsure]).verdict == "unsure"
    assert result([passed]).verdict == "pass"
    with pytest.raises(OperatorError, match="nothing to check"):
        result([])


def test_history_compares_each_report_with_the_one_before() -> None:
    stamps = [f"2026-01-0{day}T00:00:00Z" for day in range(1, 6)]
    other = msgspec.structs.replace(MACHINE, cpu="another")
    broken = SubjectReport(name="m", size=1, sha256="0" * 64, error="boom")
    reports = [
        ("b", report(subject(1.2, seed=2), at=stamps[1])),
        ("a", report(subject(1.0), at=stamps[0])),
        ("c", report(broken, at=stamps[2])),
        ("d", report(subject(1.2, seed=3), at=stamps[3])),
        ("e", report(subject(0.5), at=stamps[4], environment=other)),
    ]
    found = history_of(reports).entries
    assert [one.change for one in found] == ["first", "slower", "failed", "same", "other machine"]
    assert found[1].ratio == pytest.approx(1.2, rel=0.01)


def test_quality_keeps_its_interval_in_json() -> None:
    one = msgspec.structs.replace(quality(0.5), interval=Interval(low=0.4, high=0.6))
    assert msgspec.json.decode(msgspec.json.encode(one), type=TaskQuality) == one
