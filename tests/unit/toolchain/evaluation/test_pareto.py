"""Which candidates become rungs, as a table of decisions."""

from dataclasses import dataclass, replace

import pytest

from edge_compression.evaluation.pareto import (
    LATENCY_STEP,
    MAX_RUNGS,
    Costs,
    Limits,
    PreliminaryMeasurement,
    build_ladder,
    exceeds,
    shortlist,
)
from edge_compression.evaluation.rung_merit import LOSS_STEP

MB = 1_000_000
ORIGINAL = Costs(score=0.9, drop=0.0, latency_ms=1.0, size=10 * MB, memory_mb=20.0)
LIMITS = Limits(max_drop=0.5, disk_bytes=100 * MB)


@dataclass(frozen=True)
class Steps:
    """Merits of candidates that were measured so well that only the steps count."""

    known: dict[str, Costs]

    def loses_less(self, a: str, b: str) -> bool:
        return self.known[a].loss < self.known[b].loss - LOSS_STEP

    def faster(self, a: str, b: str) -> bool:
        other = ORIGINAL if b == "original" else self.known[b]
        return self.known[a].latency_ms * LATENCY_STEP < other.latency_ms


def costs(drop: float = 0.0, latency: float = 1.0, size: float = 1.0, memory: float = 1.0) -> Costs:
    """Costs relative to the original."""
    return Costs(
        score=0.9 - drop / 100, drop=drop, latency_ms=latency, size=int(size * 10 * MB), memory_mb=20.0 * memory
    )


def ladder(candidates: dict[str, Costs], limits: Limits = LIMITS, prefer: str = "balanced") -> tuple[str, ...]:
    known = {"float": ORIGINAL, **candidates}
    found = build_ladder(known, ORIGINAL, limits, Steps(known), prefer=prefer, float_id="float")  # type: ignore[arg-type]
    assert set(found.rungs) | set(found.left_out) == {"float", *candidates}
    assert not set(found.rungs) & set(found.left_out)
    return found.rungs


def test_a_drop_at_the_limit_is_within_it_whatever_the_subtraction_rounds_to() -> None:
    assert not exceeds(100 * (0.7735 - 0.7635), 1.0)
    assert exceeds(1.01, 1.0)


def test_the_float_original_is_the_last_rung_even_alone() -> None:
    assert ladder({}) == ("float",)
    assert ladder({"small": costs(size=0.3)}) == ("small", "float")


def test_what_loses_more_than_allowed_is_out_however_small() -> None:
    assert ladder({"tiny": costs(drop=0.51, size=0.01, latency=0.1)}) == ("float",)
    assert ladder({"tiny": costs(drop=0.5, size=0.01)}) == ("tiny", "float")


def test_slower_and_not_smaller_is_out() -> None:
    assert ladder({"slow": costs(latency=1.5)}) == ("float",)
    assert ladder({"slow": costs(latency=1.5, size=0.3)}) == ("slow", "float")
    assert ladder({"fast": costs(latency=0.5)}) == ("fast", "float")
    assert ladder({"same": costs()}) == ("float",)


def test_a_dominated_candidate_is_out_and_incomparable_ones_stay() -> None:
    rungs = ladder({"a": costs(size=0.3), "b": costs(size=0.4, drop=0.2)})
    assert rungs == ("a", "float")
    assert set(ladder({"a": costs(size=0.3, drop=0.2), "b": costs(size=0.4)})) == {"a", "b", "float"}


def test_accuracy_is_not_given_up_for_a_difference_within_measuring_accuracy() -> None:
    rungs = ladder({"sloppy": costs(drop=0.4, size=0.3, latency=0.90), "exact": costs(size=0.3, latency=0.92)})
    assert rungs == ("exact", "float")
    assert ladder({"fast": costs(drop=0.4, size=0.3, latency=0.5), "exact": costs(size=0.3)})[0] == "fast"


def test_differences_within_measuring_accuracy_make_no_rung() -> None:
    assert ladder({"a": costs(size=0.3), "b": costs(size=0.31, latency=0.97)}) == ("a", "float")


@pytest.mark.parametrize(
    ("prefer", "first"), [("latency", "fast"), ("size", "small"), ("memory", "lean"), ("balanced", "small")]
)
def test_the_profile_decides_which_rung_is_first(prefer: str, first: str) -> None:
    candidates = {
        "fast": costs(latency=0.5, size=0.9),
        "small": costs(latency=1.2, size=0.2),
        "lean": costs(latency=1.1, size=0.8, memory=0.5),
    }
    assert ladder(candidates, prefer=prefer)[0] == first


def test_the_ladder_is_short_and_within_the_disk_budget() -> None:
    many = {f"v{index}": costs(size=0.1 + 0.05 * index, latency=1.0 - 0.1 * index) for index in range(8)}
    assert len(ladder(many)) == MAX_RUNGS
    room = Limits(max_drop=0.5, disk_bytes=14 * MB)
    assert ladder({"a": costs(size=0.3), "b": costs(size=0.35, latency=0.5)}, room) == ("b", "float")


def test_a_float_original_over_the_disk_budget_makes_way_if_anything_else_fits() -> None:
    tight = Limits(max_drop=0.5, disk_bytes=5 * MB)
    assert ladder({"a": costs(size=0.3)}, tight) == ("a",)
    assert ladder({}, tight) == ("float",)


@pytest.mark.parametrize(
    ("limit", "value", "named"),
    [("max_size", 2 * MB, "bytes"), ("max_latency_ms", 0.4, "ms"), ("max_memory_mb", 12.0, "memory")],
)
def test_a_limit_that_was_asked_for_holds_for_every_rung(limit: str, value: float, named: str) -> None:
    limits = Limits(max_drop=0.5, disk_bytes=100 * MB, **{limit: value})  # type: ignore[arg-type]
    kept, out = costs(size=0.2, latency=0.3, memory=0.5), costs(size=0.3, latency=0.5, memory=0.7)
    known = {"float": ORIGINAL, "kept": kept, "out": out}
    found = build_ladder(known, ORIGINAL, limits, Steps(known), prefer="size", float_id="float")
    assert found.rungs == ("kept",)
    assert named in found.left_out["out"]
    assert "float" in found.left_out


def test_what_the_samples_cannot_decide_is_out_unless_it_is_accepted() -> None:
    unsure = Costs(score=0.9, drop=0.1, latency_ms=0.5, size=MB, memory_mb=10.0, bound=0.7)
    assert ladder({"unsure": unsure}) == ("float",)
    accepting = Limits(max_drop=0.5, disk_bytes=100 * MB, accept_undecided=True)
    assert ladder({"unsure": unsure}, accepting) == ("unsure", "float")


def test_a_full_ladder_keeps_the_fastest_and_the_smallest() -> None:
    many = {f"v{index}": costs(size=0.30 - index / 50, latency=0.6 + index / 15, drop=-index / 5) for index in range(5)}
    rungs = ladder({**many, "fast": costs(size=0.9, latency=0.4), "tiny": costs(size=0.1, latency=3.0)})
    assert len(rungs) == MAX_RUNGS
    assert {"fast", "tiny"} < set(rungs)


def test_a_gain_too_small_to_matter_makes_no_rung() -> None:
    assert ladder({"small": costs(size=0.3), "large": costs(size=0.9, drop=-0.04)}) == ("small", "float")
    assert set(ladder({"small": costs(size=0.3), "large": costs(size=0.9, drop=-0.2)})) == {"small", "large", "float"}


def test_of_two_that_lose_as_much_here_the_one_that_proved_it_better_goes_first() -> None:
    lucky, proved = (replace(costs(size=0.3), bound=bound) for bound in (0.4, 0.1))
    assert ladder({"lucky": lucky, "proved": proved}) == ("proved", "float")


def test_the_shortlist_drops_only_what_is_clearly_beaten() -> None:
    seen = {
        "good": PreliminaryMeasurement(loss=0.0, size=100, pace=0.5),
        "beaten": PreliminaryMeasurement(loss=0.1, size=100, pace=0.9),
        "near": PreliminaryMeasurement(
            loss=0.1, size=100, pace=0.6
        ),  # a preliminary measurement cannot tell it from good
        "small": PreliminaryMeasurement(loss=0.4, size=50, pace=1.5),
    }
    chosen, left_out = shortlist(seen, 3, prefer="size")
    assert set(chosen) == {"good", "near", "small"}
    assert set(left_out) == {"beaten"}
    assert "good" in left_out["beaten"]


def test_what_only_a_glance_has_beaten_is_timed_where_there_is_room() -> None:
    seen = {
        "lucky": PreliminaryMeasurement(loss=0.0, size=100, pace=0.4),
        "fast": PreliminaryMeasurement(loss=0.3, size=104, pace=0.7),
    }
    assert shortlist(seen, 8, prefer="size") == (("lucky", "fast"), {})


def test_a_full_shortlist_has_the_best_of_every_kind() -> None:
    seen = {f"v{index}": PreliminaryMeasurement(loss=index / 10, size=100 - index, pace=1.0) for index in range(20)}
    seen["fast"] = PreliminaryMeasurement(loss=2.0, size=200, pace=0.1)
    chosen, left_out = shortlist(seen, 4, prefer="size")
    assert {"fast", "v19", "v0"} <= set(chosen)
    assert len(chosen) == 4
    assert len(left_out) == 17


def test_no_rung_is_as_good_in_every_respect_as_another_one() -> None:
    # The second is slower, but not by more than measuring tells, and smaller: the first has nothing of its own.
    assert ladder({"a": costs(latency=0.80, size=0.5), "b": costs(latency=0.82, size=0.3)}, prefer="latency") == (
        "b",
        "float",
    )
    full = {f"v{index}": costs(size=0.6 - 0.1 * index, latency=0.5 + 0.1 * index) for index in range(3)}
    better = costs(size=0.2, latency=0.71)
    assert ladder({**full, "better": better}, prefer="latency") == ("v0", "v1", "better", "float")
