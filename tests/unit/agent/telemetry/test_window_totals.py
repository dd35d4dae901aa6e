"""What a runtime counts, and what it shows of it."""

import pytest

from edge_agent.http.prometheus import exposition
from edge_agent.inference.counters import COUNTERS, LATENCY_BINS, Counters


@pytest.mark.parametrize(
    ("timing_us", "index"),
    [(0, 0), (1, 0), (2, 1), (3, 1), (4, 2), (1023, 9), (1024, 10), (2**31 - 1, 30), (2**31, 31), (2**50, 31)],
)
def test_an_answer_is_counted_in_the_bin_of_its_time(timing_us, index):
    tally = Counters()
    tally.answers("active:1/a").count(timing_us)
    assert len(tally.latency_log2_us) == LATENCY_BINS
    assert [number for number, count in enumerate(tally.latency_log2_us) if count] == [index]
    assert tally.latency_sum_us == timing_us


def test_requests_are_the_answers_of_all_rungs():
    tally = Counters()
    first, second, _ = map(tally.answers, ("active:1/a", "active:1/b", "never asked"))
    for timing_us in (100, 100, 200):
        first.count(timing_us)
    second.count(100)
    assert tally.answers("active:1/a") is first
    assert tally.served_by == {"active:1/a": 3, "active:1/b": 1}
    assert tally.counters["requests"] == sum(tally.latency_log2_us) == 4
    assert tally.latency_sum_us == 500


def test_a_tally_of_nothing_shows_zeros():
    tally = Counters()
    assert tally.counters == dict.fromkeys(COUNTERS, 0)
    assert tally.served_by == {}
    assert tally.latency_log2_us == [0] * LATENCY_BINS


def test_what_else_happens_is_counted_by_its_name():
    tally = Counters()
    tally.count("errors")
    tally.count("errors", 2)
    assert tally.counters["errors"] == 3
    with pytest.raises(KeyError, match="errers"):
        tally.count("errers")


def test_the_scrape_shows_the_same_numbers():
    tally = Counters()
    tally.answers("active:1/a").count(1500)
    text = exposition(tally, {}, {"model": "m"}).decode()
    assert 'edgewright_requests_total{model="m"} 1\n' in text
    assert 'edgewright_served_by_total{model="m",rung="active:1/a"} 1\n' in text
    assert 'edgewright_latency_seconds_bucket{le="0.002048",model="m"} 1\n' in text
    assert 'edgewright_latency_seconds_bucket{le="0.001024",model="m"} 0\n' in text
