"""Which variant is the lightest: by what was measured, never by its place on the ladder."""

from __future__ import annotations

from edge_agent.fallback_ladder import Rung, lightest

FLOAT = {"latency_ms": 0.0358, "memory_mb": 3.0, "model_bytes": 130_034}
INT8 = {"latency_ms": 0.0191, "memory_mb": 1.0, "model_bytes": 10_893}
SLIM = {"latency_ms": 0.05, "memory_mb": 0.5, "model_bytes": 5_000}


def rung(variant: str, sha: str = "a", **costs: float | None) -> Rung:
    known = {"folder": "f", "version": "1.0.0", "manifest_sha256": sha * 64}
    return Rung(role="active", variant=variant, **known, **costs)  # type: ignore[arg-type]


def chosen(ladder: list[Rung], *shortages: str) -> str:
    found = lightest(ladder, shortages)  # type: ignore[arg-type]
    assert found is not None
    return found.variant


def test_the_float_original_on_the_last_rung_is_not_the_lightest() -> None:
    ladder = [rung("int8", **INT8), rung("float", **FLOAT)]
    for shortages in (["compute"], ["memory"], ["compute", "memory"]):
        assert chosen(ladder, *shortages) == "int8"


def test_each_shortage_is_judged_by_its_own_figure_and_both_by_the_product() -> None:
    ladder = [rung("float", **FLOAT), rung("slim", **SLIM), rung("int8", **INT8)]
    assert chosen(ladder, "compute") == "int8"
    assert chosen(ladder, "memory") == "slim"
    assert chosen(ladder, "compute", "memory") == "int8"  # 0.0191 against 0.025


def test_nothing_short_leaves_the_preferred_variant() -> None:
    assert chosen([rung("float", **FLOAT), rung("int8", **INT8)]) == "float"
    assert lightest([], ["compute"]) is None


def test_figures_that_differ_by_less_than_two_measurements_do_count_as_equal() -> None:
    def two(second: float) -> list[Rung]:
        return [rung("first", **INT8), rung("second", **(INT8 | {"latency_ms": 0.0191 * second}))]

    assert chosen(two(0.96), "compute") == "first"
    assert chosen(two(0.94), "compute") == "second"


def test_a_variant_nobody_measured_leaves_the_bytes_to_judge_by() -> None:
    ladder = [rung("float", **(FLOAT | {"latency_ms": None})), rung("int8", **INT8), rung("slim", **SLIM)]
    assert chosen(ladder, "compute") == "slim"
    assert chosen(ladder, "memory") == "slim"


def test_another_release_is_never_the_lightest() -> None:
    assert chosen([rung("float", **FLOAT), rung("slim", "b", **SLIM)], "memory") == "float"
