"""What a slot sees: counted into the bundle's bins, judged against its reference, told of once."""

import numpy as np
import pytest
from support.makers import bundles
from support.makers.referenced_bundles import make_referenced_bundle

from edge_agent import Runtime
from edge_agent.histogram_names import references
from edge_agent.telemetry.drift_monitor import DriftMonitor


def _see(folder, x):
    """Return what a runtime counted that was asked one sample after the other, without its limit a second."""
    with Runtime.open(folder) as runtime:
        for index in range(len(x)):
            runtime.seen.due_ns = 0
            runtime.infer({"x": x[index : index + 1]})
        return {name: tuple(bins) for name, bins in runtime.seen.totals.items()}


def test_the_reference_samples_are_counted_into_the_reference(tmp_path):
    manifest = make_referenced_bundle(tmp_path / "b").manifest
    x, _ = bundles.samples(1000, seed=5)
    assert _see(tmp_path / "b", x) == references(manifest)


@pytest.mark.parametrize(("apart_ms", "counted"), [(0, 1), (40, 17), (50, 25), (99, 25), (100, 50), (500, 50)])
def test_at_most_ten_requests_a_second_are_counted(tmp_path, monkeypatch, apart_ms, counted):
    make_referenced_bundle(tmp_path / "b")
    x, _ = bundles.samples(1)
    now = [10**12]
    for module in ("runtime", "descent"):
        monkeypatch.setattr(f"edge_agent.inference.{module}._now_ns", lambda: now[0])
    with Runtime.open(tmp_path / "b") as runtime:
        for _ in range(50):
            runtime.infer({"x": x})
            now[0] += apart_ms * 1_000_000
        assert sum(runtime.seen.totals["x/mean"]) == counted
        assert runtime.tally.counters["requests"] == 50


def test_fresh_samples_alike_raise_no_alarm_and_shifted_ones_do_once(tmp_path):
    manifest = make_referenced_bundle(tmp_path / "b").manifest
    told = []
    watch = DriftMonitor("main", told.append)
    alike, _ = bundles.samples(200, seed=6)
    found = watch.close(manifest, _see(tmp_path / "b", alike))
    assert set(found) == {"x/mean", "x/2", "fp32/confidence", "fp32/class"}
    assert max(found.values()) < 1.0
    assert told == []
    shifted = np.clip(alike + np.float32([0, 0, 0.8, 0]), -1, 1).astype(np.float32)
    for _ in range(2):
        assert watch.close(manifest, _see(tmp_path / "b", shifted))["x/2"] > 1.0
    begun = [news.text.split(":")[0] for news in told]
    assert "x/2" in begun
    assert len(begun) == len(set(begun))
    assert all(news.event == "drift" and news.detail["samples"] == 200 for news in told)
    watch.close(manifest, _see(tmp_path / "b", alike))
    assert {news.text for news in told if news.event == "drift-ended"} == set(begun)


def test_small_windows_are_gathered_until_they_say_something(tmp_path):
    manifest = make_referenced_bundle(tmp_path / "b").manifest
    watch = DriftMonitor("main", [].append)
    x, _ = bundles.samples(12, seed=6)
    counts = _see(tmp_path / "b", x)
    assert watch.close(manifest, counts) == {}
    assert watch.close(manifest, counts) == {}
    assert watch.close(manifest, counts)["x/mean"] >= 0.0
    assert watch.close(manifest, {}) == {}


def test_another_release_starts_anew(tmp_path):
    manifest = make_referenced_bundle(tmp_path / "b").manifest
    bundles.make_bundle(tmp_path / "c", version="2.0.0")
    x, _ = bundles.samples(20, seed=6)
    watch = DriftMonitor("main", [].append)
    counts = _see(tmp_path / "b", x)
    watch.close(manifest, counts)
    with Runtime.open(tmp_path / "c") as other:
        assert watch.close(other.manifest, {}) == {}
    assert watch.close(manifest, counts) == {}


def test_a_slow_change_of_confidence_is_told_of(tmp_path):
    manifest = make_referenced_bundle(tmp_path / "b").manifest
    told = []
    watch = DriftMonitor("main", told.append)
    name = "fp32/confidence"
    steady = references(manifest)[name]
    share = np.array(steady) / sum(steady)
    rng = np.random.default_rng(0)
    for step in range(60):
        moved = share + np.array([0.02, 0, 0, -0.02]) * min(max(step - 20, 0) / 10, 3.0)
        watch.close(manifest, {name: rng.multinomial(200, moved / moved.sum()).tolist()})
    assert any("gradually" in news.text for news in told)


def test_what_cannot_be_read_is_not_judged():
    assert DriftMonitor("main", [].append).close(None, {"x": [100]}) == {}
