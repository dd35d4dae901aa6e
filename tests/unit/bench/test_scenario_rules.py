"""MLPerf's rules, percentiles with intervals, warming up, causes: the decisions of scenarios on made-up figures."""

from __future__ import annotations

import math

import msgspec
import numpy as np
import pytest

from edge_bench.protocol import RunnerPlan
from edge_bench.scenarios.causes import Block, causes
from edge_bench.scenarios.loadgen import parsed_summary
from edge_bench.scenarios.machine import MachineState, machine_state
from edge_bench.scenarios.percentiles import percentiles
from edge_bench.scenarios.rules import early_stopping_estimate, judge_run, least_queries
from edge_bench.scenarios.steady import steady
from edge_bench.scenarios.summary import thinned
from edge_bench.scenarios.sweep import parse_sweep, swept
from edge_contracts.errors import OperatorError


def chance(late: int, count: int, target: float) -> float:
    return math.fsum(math.comb(count, k) * (1 - target) ** k * target ** (count - k) for k in range(late + 1))


@pytest.mark.parametrize(("target", "late", "needed"), [(0.9, 0, 44), (0.9, 1, 64), (0.99, 0, 459), (0.99, 1, 662)])
def test_so_many_queries_are_needed_as_mlperf_says(target: float, late: int, needed: int) -> None:
    assert least_queries(late, target) == needed
    assert chance(late, needed, target) < 0.01 <= chance(late, needed - 1, target)


@pytest.mark.parametrize("late", [2, 7, 30])
def test_the_least_number_is_where_the_binomial_says(late: int) -> None:
    needed = least_queries(late, 0.9)
    assert chance(late, needed, 0.9) < 0.01 <= chance(late, needed - 1, 0.9)


def test_the_estimate_is_above_the_percentile_and_nears_it() -> None:
    draws = np.random.default_rng(1)
    gaps = []
    for count in (64, 1000, 50_000):
        values = draws.exponential(1.0, count)
        estimate = early_stopping_estimate(values, 0.9)
        assert estimate is not None
        gaps.append(estimate - float(np.quantile(values, 0.9)))
    assert all(gap >= 0 for gap in gaps)
    assert gaps[2] < 0.05 < gaps[0]
    assert early_stopping_estimate(draws.exponential(1.0, 63), 0.9) is None


def test_the_estimate_is_a_bound_as_often_as_it_says() -> None:
    draws, true = np.random.default_rng(2), -math.log(0.1)
    estimates = [early_stopping_estimate(draws.exponential(1.0, 500), 0.9) for _ in range(400)]
    assert sum(one is not None and one >= true for one in estimates) >= 390


def test_a_run_too_short_or_of_too_few_queries_is_invalid() -> None:
    few = judge_run("single_stream", np.ones(63), asked_s=1.0, ran_s=1.0, deadline_ms=None)
    assert not few.valid
    assert "64 are needed for p90" in few.reasons[0]
    short = judge_run("single_stream", np.ones(100), asked_s=2.0, ran_s=1.0, deadline_ms=None)
    assert "1 s of 2 s" in short.reasons[0]
    assert judge_run("single_stream", np.ones(64), asked_s=1.0, ran_s=1.0, deadline_ms=None).percentile_ms == 1.0
    assert not judge_run("offline", np.ones(24_575), asked_s=1.0, ran_s=1.0, deadline_ms=None).valid
    assert judge_run("offline", np.ones(24_576), asked_s=1.0, ran_s=1.0, deadline_ms=None).valid


@pytest.mark.parametrize(
    ("late", "valid", "why"), [(0, True, ""), (1, True, ""), (7, False, "too few to tell"), (30, False, "lower --rate")]
)
def test_a_server_run_is_valid_when_the_late_ones_are_surely_few(late: int, valid: bool, why: str) -> None:
    latencies = np.concatenate([np.full(late, 9.0), np.full(1000 - late, 1.0)])
    found = judge_run("server", latencies, asked_s=1.0, ran_s=1.0, deadline_ms=5.0)
    assert found.valid is valid
    assert why in " ".join(found.reasons)


def test_intervals_hold_the_true_percentiles_as_often_as_they_say() -> None:
    held, draws = 0, np.random.default_rng(3)
    for seed in range(60):
        blocks = list(draws.exponential(1.0, (8, 60)))
        (p50, p90, p99) = percentiles(blocks, seed=seed)
        held += p50.interval.low <= math.log(2) <= p50.interval.high
        assert p50.ms < p90.ms < p99.ms
    assert held >= 50


def test_blocks_that_differ_make_the_interval_wider() -> None:
    draws = np.random.default_rng(4)
    alike = percentiles([draws.normal(1.0, 0.01, 100) for _ in range(7)])[0].interval
    apart = percentiles([draws.normal(1.0 + 0.1 * k, 0.01, 100) for k in range(7)])[0].interval
    assert apart.high - apart.low > 20 * (alike.high - alike.low)


def test_a_percentile_that_nothing_lies_beyond_is_left_out() -> None:
    assert [one.share for one in percentiles([np.arange(1.0, 100.0)])] == [0.5, 0.9]
    assert [one.share for one in percentiles([np.arange(1000.0)])] == [0.5, 0.9, 0.99, 0.999]
    assert percentiles([np.empty(0)]) == ()


@pytest.mark.parametrize(
    ("medians", "found"),
    [
        ([1.0, 1.0], False),
        ([1.0, 1.01, 1.0], True),
        ([9.0, 5.0, 3.0, 2.0], False),
        ([5.0, 5.0, 1.0, 1.0, 1.0], False),  # just became faster: one more window
        ([5.0, 1.0, 1.0, 1.0, 1.0], True),
    ],
)
def test_warming_up_ends_when_windows_agree_and_fall_no_more(medians: list[float], found: bool) -> None:
    assert steady(medians) is found


IDLE = MachineState(at_s=0.0, frequency_mhz=2000.0)


def block(*, cpu_s: float = 1.0, samples: int = 1000, **more: object) -> Block:
    after = msgspec.structs.replace(IDLE, at_s=1.0, busy_s=cpu_s)
    made = Block(queries=samples, samples=samples, wall_s=1.0, cpu_s=cpu_s, before=IDLE, after=after)
    return msgspec.structs.replace(made, **more)


def ended(**more: object) -> MachineState:
    return msgspec.structs.replace(IDLE, **{"at_s": 1.0, "busy_s": 1.0, **more})


@pytest.mark.parametrize(
    ("one", "named"),
    [
        (block(after=ended(busy_s=2.0)), "other load: other programs took 0.5 cores"),
        (block(given_way=300), "give way 150 times"),
        (block(after=ended(stolen_s=0.2)), "hypervisor gave 10%"),
        (block(after=ended(throttled=True, temperature_c=85.0)), "throttling: in 1 of 2 blocks, 85 °C"),
        (block(after=ended(throttle_count=3)), "throttling"),
        (block(after=ended(frequency_mhz=1200.0)), "frequency: between 1200 and 2000 MHz"),
        (block(major_faults=4), "page faults: 4 from the disk"),
        (block(minor_faults=500_000), "page faults: 250 an inference"),
    ],
)
def test_an_unstable_run_names_its_cause(one: Block, named: str) -> None:
    told = causes([block(), one])
    assert len(told) == 1
    assert named in told[0]


def test_few_samples_and_no_steady_state_are_causes_and_quiet_blocks_have_none() -> None:
    assert causes([block(), block()]) == ()
    assert "too few samples: 20 queries" in causes([block(samples=10), block(samples=10)])[0]
    assert "still warming up" in causes([block()], warm=False)[0]
    assert causes([]) == ("too few samples: nothing was answered",)


def test_the_machine_tells_its_state() -> None:
    before, after = machine_state(), machine_state()
    assert after.at_s >= before.at_s
    assert after.busy_s >= before.busy_s >= 0


def test_a_sweep_is_every_combination_under_a_name_of_its_own() -> None:
    plan = RunnerPlan(model="m.onnx", format="onnx", samples="")
    made = swept({"m": plan}, parse_sweep(["threads=1,2", "optimize=on,off"]))
    assert list(made) == [f"m threads={n} optimize={o}" for n in (1, 2) for o in ("on", "off")]
    assert (made["m threads=2 optimize=off"].threads, made["m threads=2 optimize=off"].optimize) == (2, False)
    assert swept({"m": plan}, {}) == {"m": plan}


@pytest.mark.parametrize(
    "word", ["threads=", "threads=0", "threads=x", "optimize=maybe", "providers=gpu", "threads", "threads=1_0"]
)
def test_what_cannot_be_swept_is_named(word: str) -> None:
    with pytest.raises(OperatorError, match="--sweep"):
        parse_sweep([word])
    with pytest.raises(OperatorError, match="65 combinations"):
        swept({"m": RunnerPlan(model="m", format="onnx", samples="")}, {"threads": list(range(1, 66))})


def test_a_report_keeps_evenly_spaced_latencies() -> None:
    assert thinned([np.arange(10.0), np.arange(3.0)], 4) == ((0.0, 3.0, 6.0, 9.0), (0.0, 1.0, 2.0))
    assert thinned([np.empty(0)], 4) == ((),)


def test_loadgen_s_summary_is_read_up_to_its_settings() -> None:
    text = (
        "====\nMLPerf Results Summary\nScenario : SingleStream\n90.0th percentile latency (ns) : 317000\n"
        "Result is : INVALID\n  Min duration satisfied : NO\n * Early stopping 90th percentile estimate: 320000\n"
        "=====\nTest Parameters Used\nsamples_per_query : 1\n"
    )
    assert parsed_summary(text) == {
        "Scenario": "SingleStream", "90.0th percentile latency (ms)": "0.317", "Result is": "INVALID",
        "Min duration satisfied": "NO", "Early stopping 90th percentile estimate": "320000",
    }  # fmt: skip
