"""The text for Prometheus: read by its own client's parser, counter by counter."""

import pytest
from prometheus_client.parser import text_string_to_metric_families

from edge_agent.http.prometheus import exposition
from edge_agent.inference.counters import COUNTERS, Counters

LABELS = {"slot": 'a "b"\\\n', "model": "m", "version": "1"}
GAUGES = {"available_memory_mb": 12.5, "temperature_c": 51.5, "spooled": 3.0, "level": 0.0, "shadow_compared": 4.0}


@pytest.fixture
def samples():
    tally = Counters()
    tally.count("rejected", 3)
    for microseconds in (1, 3, 1000, 2**40):
        tally.answers("active:1/fp32").count(microseconds)
    text = exposition(tally, GAUGES, LABELS, {"connections_refused": 7}).decode()
    families = list(text_string_to_metric_families(text))
    assert all(family.documentation and family.type in ("counter", "gauge", "histogram") for family in families)
    return [sample for family in families for sample in family.samples]


def value(samples, name, **labels):
    (found,) = [one for one in samples if one.name == name and labels.items() <= one.labels.items()]
    return found.value, {key: text for key, text in found.labels.items() if key not in labels}


def test_every_counter_is_there_with_its_labels(samples):
    assert {f"edgewright_{name}_total" for name in COUNTERS} <= {one.name for one in samples}
    assert value(samples, "edgewright_rejected_total") == (3.0, LABELS)
    assert value(samples, "edgewright_requests_total") == (4.0, LABELS)
    assert value(samples, "edgewright_served_by_total", rung="active:1/fp32") == (4.0, LABELS)
    assert value(samples, "edgewright_connections_refused_total") == (7.0, LABELS)


def test_the_histogram_adds_up(samples):
    buckets = [one for one in samples if one.name == "edgewright_latency_seconds_bucket"]
    assert [one.value for one in buckets] == sorted(one.value for one in buckets)
    assert (buckets[-1].labels["le"], buckets[-1].value) == ("+Inf", 4.0)
    assert value(samples, "edgewright_latency_seconds_count") == (4.0, LABELS)
    assert value(samples, "edgewright_latency_seconds_sum")[0] == pytest.approx((1004 + 2**40) / 1e6)


def test_readings_of_the_agent_name_no_model_and_memory_is_in_bytes(samples):
    assert value(samples, "edgewright_agent_available_memory_bytes") == (12.5 * 2**20, {})
    assert value(samples, "edgewright_agent_temperature_c") == (51.5, {})
    assert value(samples, "edgewright_agent_shadow_compared") == (4.0, LABELS)
