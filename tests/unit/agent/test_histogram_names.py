"""Tags of requests: counted apart in the runtime, bounded wherever they are kept, judged and told of by name."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace
from support.makers.referenced_bundles import make_referenced_bundle
from support.parts.histogram_names import BASES, X, seen_by_tag

from edge_agent import Runtime
from edge_agent.errors import TensorError
from edge_agent.histogram_names import OTHER, TagSlots, feature_name, parted, references, tagged, window_bytes
from edge_agent.inference.histograms import REST_BYTES, TagCounters, tag_room
from edge_agent.ipc.worker import MAX_LINE_BYTES, Heartbeat, line
from edge_agent.telemetry.drift_monitor import DriftMonitor
from edge_agent.telemetry.window_totals import WindowTotals
from edge_contracts.codec import encode
from edge_contracts.limits import (
    MAX_MESSAGE_BYTES,
    MAX_SAMPLE_TAG_BYTES,
    MAX_SAMPLE_TAG_CHARS,
    MAX_SAMPLE_TAGS,
)
from edge_contracts.names import NAME_PATTERN
from edge_contracts.reference import AnswerReference, Feature, Histogram, InputReference
from edge_contracts.telemetry import TelemetryWindow, parse_window

BAD_TAGS = ["", "line 2", "-a", "a@b", "a/b", "a\n", "é", "a" * (MAX_SAMPLE_TAG_CHARS + 1)]


@pytest.fixture
def runtime(tmp_path):
    with Runtime.open(make_referenced_bundle(tmp_path / "b").folder) as made:
        yield made


# Names


@given(
    st.sampled_from(["x/mean", "x/12", "a@b/mean", "@/std", "int8/class"]),
    st.from_regex(NAME_PATTERN).filter(lambda tag: len(tag) <= MAX_SAMPLE_TAG_CHARS),
)
def test_a_histogram_s_name_says_whose_it_is(name, tag):
    assert parted(tagged(name, tag)) == (name, tag)
    assert parted(name) == (name, "")


# The runtime


def test_requests_of_a_tag_are_counted_beside_all_requests(runtime):
    runtime.infer({"x": X[0]})
    assert runtime.histograms.keys() == BASES
    runtime.seen.due_ns = 0
    runtime.infer({"x": X[1]}, tag="line-2")
    assert runtime.histograms.keys() == BASES | {tagged(name, "line-2") for name in BASES}
    assert seen_by_tag(runtime.histograms) == {"": 2, "line-2": 1}
    assert runtime.tally.counters["requests"] == 2


def test_a_busy_tag_leaves_a_rare_one_its_place(runtime):
    """All requests and those of the busy tag have just been counted: those of the rare one are due all the same."""
    runtime.seen.due_ns = math.inf
    for x in X:
        runtime.infer({"x": x}, tag="busy")
    runtime.infer({"x": X[0]}, "rare")
    found = seen_by_tag(runtime.histograms)
    assert found["rare"] == 1
    assert 1 <= found["busy"] < len(X)


def test_what_a_tag_s_counts_say_is_what_those_of_all_requests_say(runtime):
    for x in X:
        runtime.seen.due_ns = runtime.seen_by_tag.of("a").due_ns = 0
        runtime.infer({"x": x}, tag="a")
    found = runtime.histograms
    assert {name: found[tagged(name, "a")] for name in BASES} == {name: found[name] for name in BASES}


def test_tags_too_many_are_counted_together(runtime):
    for number in range(3 * MAX_SAMPLE_TAGS):
        if OTHER in seen_by_tag(runtime.histograms):
            runtime.seen_by_tag.of(OTHER).due_ns = 0
        runtime.infer({"x": X[0]}, tag=f"camera-{number}")
    found = seen_by_tag(runtime.histograms)
    assert found.pop("") >= 1
    assert found.pop(OTHER) == 2 * MAX_SAMPLE_TAGS
    assert found == {f"camera-{number}": 1 for number in range(MAX_SAMPLE_TAGS)}


def test_a_tag_of_the_common_name_takes_no_place(runtime):
    for tag in (OTHER, *map(str, range(MAX_SAMPLE_TAGS))):
        runtime.infer({"x": X[0]}, tag=tag)
    assert seen_by_tag(runtime.histograms).keys() == {"", OTHER, *map(str, range(MAX_SAMPLE_TAGS))}


@pytest.mark.parametrize("tag", BAD_TAGS)
def test_a_tag_that_is_none_is_refused_by_name(runtime, tag):
    with pytest.raises(TensorError, match=r"^tag: "):
        runtime.infer({"x": X[0]}, tag=tag)
    assert runtime.tally.counters["rejected"] == 1
    assert runtime.tally.counters["requests"] == 0
    assert runtime.infer_together([({"x": X[0]}, "good"), ({"x": X[1]}, tag)], 2) is None
    assert runtime.histograms == {}


def test_a_request_that_takes_the_long_way_is_counted_for_its_tag(tmp_path):
    """The express lane has no answer to it: a batch."""
    with Runtime.open(make_referenced_bundle(tmp_path / "b").folder) as runtime:
        runtime.infer({"x": np.concatenate(X)}, tag="a")
        assert seen_by_tag(runtime.histograms) == {"": 1, "a": 1}


def test_what_is_forgotten_is_forgotten_of_tags(runtime):
    runtime.infer({"x": X[0]}, tag="a")
    runtime.forget()
    assert runtime.histograms == {}
    for number in range(MAX_SAMPLE_TAGS):
        runtime.infer({"x": X[0]}, tag=f"new-{number}")
    assert OTHER not in seen_by_tag(runtime.histograms)


# How much it is


def _manifest(folder, *, features, bins, classes, variants=1):
    """Return a manifest of a release with so many histograms of inputs, and classes of its answers."""
    share = Histogram(edges=tuple(map(float, range(bins - 1))), counts=(1,) * bins)
    made = make_referenced_bundle(folder).manifest
    one = made.variants[0]
    answers = AnswerReference(
        model_sha256=one.reference.model_sha256, samples=max(bins, classes), confidence=share, classes=(1,) * classes
    )
    described = InputReference(
        samples=bins,
        features=tuple(
            Feature(input="x", statistic="element", index=index, histogram=share) for index in range(features)
        ),
    )
    ladder = tuple(replace(one, id=f"variant-{number}", reference=answers) for number in range(variants))
    return replace(made, reference=described, variants=ladder)


@pytest.mark.parametrize(
    ("features", "bins", "classes", "variants"),
    [(4, 10, 10, 6), (20, 10, 10, 6), (20, 10, 100, 6), (4, 10, 1000, 6), (128, 10, 10, 32), (128, 64, 10, 1)],
)
def test_the_largest_window_with_all_tags_is_within_its_limit(tmp_path, features, bins, classes, variants):
    manifest = _manifest(tmp_path / "b", features=features, bins=bins, classes=classes, variants=variants)
    whole = {name: [99_999] * len(counts) for name, counts in references(manifest).items()}
    counters, room = TagCounters(manifest), tag_room(manifest)
    for number in range(MAX_SAMPLE_TAGS + 1):
        counter = counters.of(f"{number:0{MAX_SAMPLE_TAG_CHARS}}")
        for name, counts in references(manifest).items():
            counter._add(name, len(counts), 0)
    by_tag = {name: [99_999] * len(bins) for name, bins in counters.totals().items()}
    alone, window = (
        encode(
            TelemetryWindow(
                device="d",
                boot_id="b",
                sequence=0,
                start="2026-01-01T00:00:00Z",
                end="2026-01-01T00:01:00Z",
                slot="s",
                histograms=histograms,
                drift=dict.fromkeys(histograms, 1234.567),
            )
        )
        for histograms in (whole, whole | by_tag)
    )
    assert len(window) - len(alone) <= (MAX_SAMPLE_TAGS + 1) * room
    assert len(window) <= max(len(alone), MAX_MESSAGE_BYTES - REST_BYTES)
    if features < 128:
        parse_window(window)
        assert room == MAX_SAMPLE_TAG_BYTES or classes == 1000
        assert sum(feature_name(one) in name for one in manifest.reference.features for name in by_tag) >= features
    beat = Heartbeat(
        counters={}, served_by={}, latency_log2_us=(), rung="", idle_s=0.0,
        histograms={name: (2**40,) * len(bins) for name, bins in by_tag.items()},
    )  # fmt: skip
    assert len(line(beat)) < MAX_LINE_BYTES / 2


def test_a_histogram_too_large_for_a_tag_is_counted_of_all_requests_only(tmp_path):
    manifest = _manifest(tmp_path / "b", features=4, bins=10, classes=1000)
    assert window_bytes("variant-0/class", 1000) > tag_room(manifest)
    counter = TagCounters(manifest).of("a")
    for name, counts in references(manifest).items():
        counter._add(name, len(counts), 0)
        counter._add(name, len(counts), 0)
    assert counter.totals.keys() == references(manifest).keys() - {"variant-0/class"}
    assert all(sum(bins) == 2 for bins in counter.totals.values())


# The supervisor


def _beat(histograms):
    return Heartbeat(counters={}, served_by={}, latency_log2_us=(), rung="", idle_s=0.0, histograms=histograms)


def test_workers_that_meet_ever_other_tags_fill_no_window():
    tally, workers = WindowTotals(), 20
    for worker in range(workers):
        first = {"x/mean": (1, 0)} | {f"x/mean@{worker}-{number}": (1, 0) for number in range(8)}
        then = dict.fromkeys(first, (3, 1)) | {"x/mean@other": (5, 0)}
        tally.add(None, _beat(first))
        tally.add(_beat(first), _beat(then))
    found = seen_by_tag(tally.histograms)
    assert len(found) == MAX_SAMPLE_TAGS + 2
    assert found.pop("") == 4 * workers
    assert sum(found.values()) == (4 * 8 + 5) * workers
    assert all(count == 4 for tag, count in found.items() if tag != OTHER)
    tally.clear()
    tally.add(None, _beat({"x/mean@new": (1, 0)}))
    assert tally.histograms == {"x/mean@new": [1, 0]}


def test_a_window_takes_no_more_of_tags_than_it_has_room_for():
    apart = TagSlots()
    placed = [name for name in (f"{number}/mean@a" for number in range(10_000)) if apart.place(name, 10) is not None]
    assert sum(window_bytes(parted(name)[0], 10) for name in placed) <= (MAX_SAMPLE_TAGS + 1) * MAX_SAMPLE_TAG_BYTES
    assert 100 < len(placed) < 1000
    assert apart.place(placed[0], 10) == placed[0]
    assert apart.place("10000/mean", 10) == "10000/mean"


def _window(counts, manifest, tags, drifted=(), seed=0):
    """Return a window of all requests and of each tag's, drawn from the reference; of those that have drifted, three
    samples in ten have moved into the last bin."""
    rng = np.random.default_rng(seed)
    found = {}
    for name, reference in references(manifest).items():
        alike = np.array(reference) / sum(reference)
        moved = 0.7 * alike + 0.3 * np.eye(len(alike))[-1]
        drawn = {tagged(name, tag): rng.multinomial(counts, moved if tag in drifted else alike) for tag in tags}
        found[name] = sum(drawn.values()).tolist()
        found |= {own: bins.tolist() for own, bins in drawn.items()}
    return found


def test_a_drift_in_one_tag_is_told_by_its_name_where_the_whole_shows_none(tmp_path):
    manifest = make_referenced_bundle(tmp_path / "b").manifest
    told = []
    watch = DriftMonitor("main", told.append)
    tags = [f"line-{number}" for number in range(1, 9)]
    alike, drifting = _window(60, manifest, tags), _window(60, manifest, tags, drifted=["line-2"])
    watch.close(manifest, alike)
    assert told == []
    found = watch.close(manifest, alike | {name: drifting[name] for name in ("x/mean", "x/mean@line-2")})
    assert found["x/mean@line-2"] > 1.0
    assert found["x/mean"] < 1.0
    assert [(news.event, news.text.split(":")[0]) for news in told] == [("drift", "x/mean@line-2")]
    watch.close(manifest, alike)
    assert [(news.event, news.text) for news in told[1:]] == [("drift-ended", "x/mean@line-2")]


def test_small_windows_of_a_tag_are_gathered_by_themselves(tmp_path):
    manifest = make_referenced_bundle(tmp_path / "b").manifest
    watch = DriftMonitor("main", [].append)
    for _ in range(2):
        assert "x/mean@rare" not in watch.close(manifest, _window(10, manifest, ["rare", "a", "b", "c"]))
    assert "x/mean@rare" in watch.close(manifest, _window(10, manifest, ["rare"]))


def test_another_release_starts_its_tags_anew(tmp_path):
    first = make_referenced_bundle(tmp_path / "b").manifest
    second = make_referenced_bundle(tmp_path / "c", version="2.0.0").manifest
    watch = DriftMonitor("main", [].append)
    watch.close(first, _window(20, first, ["a"]))
    assert "x/mean@a" not in watch.close(second, _window(20, second, ["a"]))


def test_the_watch_keeps_no_more_tags_than_a_window_has(tmp_path):
    manifest = make_referenced_bundle(tmp_path / "b").manifest
    watch = DriftMonitor("main", [].append)
    for window in range(50):
        tags = [f"{window}-{number}" for number in range(MAX_SAMPLE_TAGS)]
        watch.close(manifest, _window(1, manifest, tags, seed=window))  # too few to be judged
        watch.close(manifest, _window(100, manifest, tags, drifted=tags, seed=window))  # alarms that nothing ends
    for kept in (watch._gathered, watch._alarms, watch._means):
        assert len({parted(name)[1] for name in kept} - {""}) <= MAX_SAMPLE_TAGS + 1
    assert {parted(name)[1] for name in watch._alarms} >= set(tags)


def test_a_slow_change_is_followed_of_all_requests_only(tmp_path):
    manifest = make_referenced_bundle(tmp_path / "b").manifest
    watch = DriftMonitor("main", [].append)
    for seed in range(12):
        watch.close(manifest, _window(100, manifest, ["a"], seed=seed))
    assert watch._means.keys() == {"fp32/confidence"}
