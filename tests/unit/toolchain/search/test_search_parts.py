"""The parts of a search that decide alone: time, memory, the model cache."""

from __future__ import annotations

from pathlib import Path

import pytest

from edge_compression.evaluation.sample_splits import CONFIRM_FROM, cut
from edge_compression.recipes.recipe import parse_recipe
from edge_compression.search.build_process import Built
from edge_compression.search.memory_admission import estimate_mb
from edge_compression.search.model_cache import ModelCache
from edge_compression.search.time_budget import (
    CORE_BUILD_S,
    LONGEST_S,
    SMALL_S,
    BudgetSpentError,
    TimeBudget,
    default_budget,
)
from edge_compression.search.work_meter import WorkMeter

RECIPE = parse_recipe('summary = "s"\n[[passes]]\npass = "compact"\n', "one")
BUILT = Built(changes=(), seconds=1.0, peak_memory_mb=10.0)


def test_small_models_have_less_than_two_minutes_and_none_more_than_a_quarter_of_an_hour() -> None:
    assert default_budget(98_000) == SMALL_S < 120
    assert SMALL_S < default_budget(18_600_000) < LONGEST_S < 900
    assert default_budget(2_000_000_000) == LONGEST_S


def test_work_is_kept_for_what_follows_the_trying() -> None:
    clock = TimeBudget(100.0, lambda: 0.0)
    clock.reserve(10.0)
    assert clock.left == 90.0
    clock.reserve(1000.0)  # never more than a share
    assert clock.allowance(core=False) == 60.0
    clock.stop()
    with pytest.raises(BudgetSpentError, match="stopped"):
        clock.allowance(core=True)


def test_a_budget_counts_work_and_not_the_time_that_passes() -> None:
    worked = [0.0]
    clock = TimeBudget(10.0, lambda: worked[0])
    assert not clock.over  # however long the machine let it wait
    worked[0] = 10.5
    assert clock.over
    with pytest.raises(BudgetSpentError, match="used up"):
        clock.allowance(core=False)


def test_the_core_is_built_when_the_budget_is_used_up() -> None:
    assert TimeBudget(1.0, lambda: 50.0).allowance(core=True) == CORE_BUILD_S


def test_work_is_processor_time_and_never_falls() -> None:
    meter = WorkMeter(2)
    meter._read_at = 0.0
    before = meter()
    sum(index * index for index in range(2_000_000))
    meter._read_at = 0.0
    assert 0.0 <= before < meter() < 5.0


def test_a_larger_model_is_expected_to_take_more() -> None:
    assert estimate_mb(18_600_000, 60.0) > estimate_mb(98_000, 10.0) > 100


def test_a_model_is_on_the_shelf_once_and_found_again(tmp_path: Path) -> None:
    cache = ModelCache(tmp_path, "source")
    made = cache.room(RECIPE)
    made.write_bytes(b"model")
    placed = cache.place(RECIPE, made, BUILT)
    assert not made.exists()
    assert cache.path(RECIPE, placed.sha256).read_bytes() == b"model"
    assert ModelCache(tmp_path, "source").find(RECIPE) == placed
    assert ModelCache(tmp_path, "another source").find(RECIPE) is None


def test_a_damaged_model_is_built_again(tmp_path: Path) -> None:
    cache = ModelCache(tmp_path, "source")
    made = cache.room(RECIPE)
    made.write_bytes(b"model")
    placed = cache.place(RECIPE, made, BUILT)
    cache.path(RECIPE, placed.sha256).write_bytes(b"mode")
    assert cache.find(RECIPE) is None


def test_what_a_killed_build_left_is_swept(tmp_path: Path) -> None:
    cache = ModelCache(tmp_path, "source")
    cache.room(RECIPE).write_bytes(b"half")
    cache.sweep()
    assert list((tmp_path / "models").iterdir()) == []


@pytest.mark.parametrize("count", [1, 20, 128, CONFIRM_FROM - 1, CONFIRM_FROM, 5000])
def test_every_sample_has_its_part(count: int) -> None:
    parts = cut(count)
    assert parts["screen"].start == 0
    assert parts["screen"].stop == parts["choose"].start
    assert parts["choose"].stop == parts["confirm"].start
    assert parts["confirm"].stop == count
    assert (parts["confirm"].start == count) == (count < CONFIRM_FROM)
