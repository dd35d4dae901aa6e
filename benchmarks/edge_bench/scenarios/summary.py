"""What is said of one model under one scenario: the record in a report, made of its blocks. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from edge_bench.protocol import Loaded, Profiled
from edge_bench.scenarios.causes import Block, causes
from edge_bench.scenarios.percentiles import Percentile, percentiles
from edge_bench.scenarios.rules import STREAMS, Judgement, ScenarioName, judge_run
from edge_bench.scenarios.sustain import Sustained
from edge_bench.stats import UNSTABLE_CV, coefficient_of_variation
from edge_contracts.codec import StrictRecord

Floats = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class LoadSettings:
    """How load is put on each model: `seconds` in all, in `blocks` of random order between models; `count` ends a model
    earlier, after so many queries. `rate` and `deadline_ms` are those of the scenario "server"; a deadline counts
    misses in every scenario."""

    scenario: ScenarioName = "single_stream"
    seconds: float = 3.0
    count: int | None = None
    rate: float = 0.0
    deadline_ms: float | None = None
    streams: int = STREAMS
    blocks: int = 7
    seed: int = 0
    driver: str = "own"


@dataclass(kw_only=True)
class DrivenSubject:
    """One model's blocks: latencies of queries in milliseconds, what happened in each, how it warmed up."""

    loaded: Loaded
    latencies: list[Floats] = field(default_factory=list)
    facts: list[Block] = field(default_factory=list)
    warmup_s: float = 0.0
    warm: bool = True
    loadgen: dict[str, str] = field(default_factory=dict)


class MemoryUse(StrictRecord, frozen=True, kw_only=True):
    """Memory of a process of its own that answers and is not timed, in megabytes over what interpreter and engine take:
    the peak, and the average while it answers."""

    peak_mb: float
    average_mb: float


class EnergyUse(StrictRecord, frozen=True, kw_only=True):
    """Energy of the blocks by a meter: millijoules an inference and watts in the mean, all that the meter sees: what
    the board takes idle is in it. `note` says by which meter, or why nothing was measured."""

    note: str
    mj_per_inference: float | None = None
    watts: float | None = None


class ScenarioRun(StrictRecord, frozen=True, kw_only=True):
    """One model under one scenario. `cpu_ms` is CPU time an inference, `frames_per_s` samples answered a second,
    `late` the queries over `deadline_ms`, `prepare_ms` what mapping a sample took beside the latency. `cv` is between
    the medians of blocks; above 5 % the run is not `stable` and `causes` say why. They also say why a p99 is `TAIL`
    times the median where queries do not wait for each other. `loadgen` is what LoadGen itself said, where it drove."""

    scenario: ScenarioName
    driver: str
    judgement: Judgement
    queries: int
    samples: int
    seconds: float
    warmup_s: float
    warm: bool
    percentiles: tuple[Percentile, ...]
    frames_per_s: float
    cpu_ms: float
    prepare_ms: float
    cv: float
    stable: bool
    causes: tuple[str, ...]
    rate: float | None = None
    deadline_ms: float | None = None
    late: int | None = None
    memory: MemoryUse | None = None
    energy: EnergyUse = EnergyUse(note="not measured: no meter")
    sustained: Sustained | None = None
    profile: Profiled | None = None
    blocks: tuple[Block, ...] = ()
    loadgen: dict[str, str] = {}


@dataclass(frozen=True, kw_only=True)
class Passes:
    """What was measured in passes of their own, beside the blocks, and by which meter."""

    memory: MemoryUse | None = None
    sustained: Sustained | None = None
    profile: Profiled | None = None
    meter: str | None = None


def summarized(one: DrivenSubject, how: LoadSettings, passes: Passes) -> ScenarioRun:
    """Return what is said of a model's blocks and other passes."""
    whole = np.concatenate(one.latencies) if one.latencies else np.empty(0)
    wall, samples = (sum(values) for values in zip(*((b.wall_s, b.samples) for b in one.facts), strict=True))
    cv = coefficient_of_variation(np.array([np.median(block) for block in one.latencies if block.size]))
    calm = cv <= UNSTABLE_CV and one.warm
    deadline = how.deadline_ms
    judged = judge_run(how.scenario, whole, asked_s=how.seconds, ran_s=wall, deadline_ms=deadline)
    return ScenarioRun(
        scenario=how.scenario,
        driver=how.driver,
        judgement=_with_loadgen(judged, one.loadgen),
        queries=int(whole.size),
        samples=samples,
        seconds=wall,
        warmup_s=one.warmup_s,
        warm=one.warm,
        percentiles=percentiles(one.latencies, seed=how.seed),
        frames_per_s=samples / wall if wall else 0.0,
        cpu_ms=1e3 * sum(block.cpu_s for block in one.facts) / max(samples, 1),
        prepare_ms=one.loaded.prepare_ms,
        cv=cv,
        stable=calm,
        causes=_why(one, how, whole, calm=calm),
        rate=how.rate or None,
        deadline_ms=deadline,
        late=None if deadline is None else int((whole > deadline).sum()),
        memory=passes.memory,
        energy=_energy(one.facts, passes.meter),
        sustained=passes.sustained,
        profile=passes.profile,
        blocks=tuple(one.facts),
        loadgen=one.loadgen,
    )


def _energy(facts: Sequence[Block], meter: str | None) -> EnergyUse:
    told = [block for block in facts if block.joules is not None]
    if meter is None or not told:
        return EnergyUse(note="not measured: no meter")
    joules = sum(block.joules or 0.0 for block in told)
    samples, wall = sum(block.samples for block in told), sum(block.wall_s for block in told)
    return EnergyUse(note=meter, mj_per_inference=1e3 * joules / max(samples, 1), watts=joules / wall if wall else None)


TAIL = 3.0
"""A p99 of so many medians is other programs' doing rather than the model's."""


def _why(one: DrivenSubject, how: LoadSettings, whole: Floats, *, calm: bool) -> tuple[str, ...]:
    if not calm:
        return causes(one.facts, warm=one.warm) or UNKNOWN
    if how.scenario == "server" or not whole.size or np.quantile(whole, 0.99) <= TAIL * np.median(whole):
        return ()
    return causes(one.facts, warm=one.warm)


UNKNOWN = ("cause not found: no other load, throttling, change of frequency or page faults seen; measure for longer",)


def _with_loadgen(ours: Judgement, said: Mapping[str, str]) -> Judgement:
    """Return LoadGen's own verdict where it drove."""
    if not said or said.get("Result is") == "VALID":
        return ours
    return Judgement(
        valid=False, reasons=(f"LoadGen: {said.get('Result is', 'no result')}", *ours.reasons),
        percentile=ours.percentile, percentile_ms=ours.percentile_ms,
    )  # fmt: skip


def thinned(blocks: Sequence[Floats], most: int) -> tuple[tuple[float, ...], ...]:
    """Return the latencies of each block, evenly spaced ones where there are more than `most`: what goes into a
    report."""
    told = []
    for block in blocks:
        places = np.unique(np.linspace(0, block.size - 1, min(block.size, most)).astype(np.intp))
        told.append(tuple(float(value) for value in block[places]))
    return tuple(told)
