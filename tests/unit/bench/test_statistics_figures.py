"""What the benchmarks of certainty and drift compute themselves: intervals, counts of windows, pictures."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest

from benchmarks.common.svg_line_chart import Curve, Panel, draw
from benchmarks.statistics import conformal_coverage as certainty
from benchmarks.statistics import drift_detection as drift


@pytest.mark.parametrize(
    ("count", "n", "low", "high"),
    [(0, 10, 0.0, 0.3085), (5, 10, 0.1871, 0.8129), (10, 10, 0.6915, 1.0), (81, 263, 0.2527, 0.3676)],
)
def test_intervals_of_a_share_are_those_of_the_tables(count: int, n: int, low: float, high: float) -> None:
    assert certainty.clopper_pearson(count, n) == pytest.approx([low, high], abs=2e-4)


def test_uniform_coverage_makes_every_count_as_likely() -> None:
    assert certainty.beta_binomial_range(99, 1, 1) == (2, 97)


def test_range_of_chance_is_that_of_drawn_bundles() -> None:
    rng = np.random.default_rng(0)
    covered = [
        int((rng.random(200) <= np.sort(rng.random(100))[90]).sum())  # the 91st of 100 scores is the threshold at 0.1
        for _ in range(4000)
    ]
    low, high = certainty.beta_binomial_range(200, 91, 10)
    assert (low, high) == pytest.approx(tuple(np.quantile(covered, (0.025, 0.975))), abs=2)


def seen(rng: np.random.Generator, samples: int) -> drift.Seen:
    names = ("mean", "std", "minimum", "maximum", "confidence")
    numbers: dict[str, Any] = {name: rng.normal(size=samples) for name in names}
    return drift.Seen(numbers=numbers, classes=rng.integers(4, size=samples), count=4)


def test_windows_of_unchanged_samples_rarely_alarm(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(drift, "WINDOWS", 100)
    counted = drift.null_windows(seen(np.random.default_rng(1), 1500), 500, 200)
    assert counted["windows"] == 100
    assert counted["alarms"] <= 4


def test_added_noise_stays_within_what_the_sensor_can_show() -> None:
    x = np.random.default_rng(2).integers(0, 256, (20, 8, 8, 3), dtype=np.uint8)
    held: Any = SimpleNamespace(task="ic_resnet8", x=x)
    assert (drift.ADDED["mean shift"](held, 0.0) == x).all()
    shifted = drift.ADDED["mean shift"](held, 1.0)
    assert shifted.dtype == np.uint8
    assert (shifted >= x).all()
    assert shifted.max() == 255
    assert (drift.dead(held)[..., 0] == 0).all()
    assert (drift.dead(held)[..., 1:] == x[..., 1:]).all()


def test_picture_is_the_same_for_the_same_numbers_and_parses() -> None:
    panel = Panel(
        title="a < b", x_title="x", marks=(0.0, 1.0), curves=[Curve(name="c & d", points=[(0.0, 0.0), (1.0, 1.0)])]
    )
    picture = draw([panel, panel], label='say "it"')
    assert picture == draw([panel, panel], label='say "it"')
    lines = ElementTree.fromstring(picture).findall(".//{http://www.w3.org/2000/svg}polyline")
    assert [line.get("points") for line in lines] == ["40.0,152.0 238.0,26.0"] * 2
