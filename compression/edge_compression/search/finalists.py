"""What comes after trying: the shortlist is timed alone, rungs are chosen and confirmed until all of them hold."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_bench.measure import Measurement, RunnerError, measure_interleaved
from edge_bench.protocol import Opened
from edge_bench.task import Task
from edge_compression.evaluation.candidate import Candidate
from edge_compression.evaluation.evaluator import Evaluator, Original
from edge_compression.evaluation.judge import Jury
from edge_compression.evaluation.pareto import ORIGINAL, Costs, Ladder, Limits, build_ladder, shortlist, undecided
from edge_compression.evaluation.rung_merit import Evidence, SampledLoss
from edge_compression.evaluation.sample_splits import EvaluationSet
from edge_compression.search.build_process import BuildError
from edge_compression.search.progress import Progress
from edge_contracts.manifest import Input
from edge_contracts.profile import DeviceProfile

Array = NDArray[Any]
FINALISTS = 8
"""Candidates timed together: more processes at a time would not fit the memory a search may take."""

TIMING_SECONDS, TIMING_ROUNDS, FINALIST_S = 0.6, 12, 1.5
"""Inference time of each model in all rounds together; a round has at least one run, however slow. Of twelve rounds two
may be disturbed before a merit is doubted. And what one model takes with starting its process."""

CONFIRM_S = 600.0
"""Patience with one model's answers to all samples."""


@dataclass(frozen=True, kw_only=True)
class SearchResult:
    """The search's result. `samples` of each input, and `y` of the first output, are the evaluation samples used,
    `order` their places in the task's data, `slices` their groups if there are any, `confirming` which of them had no
    say in the choice; `outputs` the original's to them, `tensors` its inputs and `score` its first metric; `jury`
    judged, `classic` tells that a device knows how to; `outlook` says what could be won at best."""

    tensors: tuple[Input, ...]
    opened: Opened
    samples: list[Array | None]
    x: Array
    y: Array
    order: Array
    slices: Array | None
    confirming: slice
    outputs: list[Array]
    jury: Jury
    score: float
    classic: bool
    timing: Measurement
    candidates: tuple[Candidate, ...]
    ladder: Ladder
    limits: Limits
    outlook: tuple[str, ...] = ()


class FinalSelection:
    """The end of one search, over candidates that were judged."""

    def __init__(
        self,
        task: Task,
        profile: DeviceProfile,
        limits: Limits,
        sample_set: EvaluationSet,
        judge: Evaluator,
        jury: Jury,
        progress: Progress,
    ) -> None:
        self._task, self._prefer, self._limits = task, profile.model.prefer, limits
        self._sample_set, self._evaluator, self._jury, self._progress = sample_set, judge, jury, progress

    def run(
        self,
        candidates: list[Candidate],
        original: Original,
        rebuild: Callable[[Candidate], None],
    ) -> SearchResult:
        """Time, choose, confirm; whatever was judged and may become a rung has its turns, however late it is. `rebuild`
        brings a model here that another machine has made."""
        first = next(one for one in candidates if one.is_float)
        self._shorten(candidates, rebuild)
        timing = self._time_all(candidates, first)
        ladder = self._climb(candidates, first, timing)
        for one in candidates:
            if one.id in ladder.rungs:
                one.status, one.reason = "kept", None
            elif one.racing:
                one.drop_out("left out", ladder.left_out[one.id])
        return SearchResult(
            tensors=original.tensors,
            opened=original.opened,
            samples=self._sample_set.samples,
            x=self._sample_set.x,
            y=self._sample_set.y,
            order=self._sample_set.order,
            slices=self._sample_set.slices(slice(0, self._sample_set.samples_count)),
            confirming=self._sample_set.parts["confirm"],
            outputs=original.outputs,
            jury=self._jury,
            score=self._jury.original_scores[0],
            classic=self._jury.classic(self._sample_set.samples_count),
            timing=timing,
            candidates=tuple(candidates),
            ladder=ladder,
            limits=self._limits,
        )

    def _shorten(self, candidates: list[Candidate], rebuild: Callable[[Candidate], None]) -> None:
        for one in candidates:
            reason = self._hopeless(one) if one.racing and not one.is_float else None
            if reason is not None:
                one.drop_out("left out", reason)
        seen = {one.id: one.preliminary() for one in candidates if one.racing and not one.is_float}
        _, left_out = shortlist(seen, FINALISTS, prefer=self._prefer)
        for one in candidates:
            if one.id in left_out:
                one.drop_out("left out", left_out[one.id])
            elif one.racing:
                try:
                    rebuild(one)
                except BuildError as error:
                    one.drop_out("failed", str(error))

    def _hopeless(self, one: Candidate) -> str | None:
        """Return why a candidate cannot become a rung however fast it is, or None."""
        size = self._task.model.stat().st_size
        if one.size > size:
            return f"{one.size} bytes, more than the original's {size}"
        if self._limits.max_size is not None and one.size > self._limits.max_size:
            return f"{one.size} bytes, limit {self._limits.max_size}"
        final = self._sample_set.parts["confirm"].start == self._sample_set.parts["confirm"].stop
        if final and one.quality is not None and one.quality.undecided and not self._limits.accept_undecided:
            return undecided(one.quality.drop, one.quality.bound, self._limits.max_drop)
        return None

    def _time_all(self, candidates: list[Candidate], first: Candidate) -> Measurement:
        racing = {one.id: one for one in candidates if one.racing}
        plans = {
            ORIGINAL: self._sample_set.plan(self._task.model),
            **{name: self._sample_set.plan(one.model) for name, one in racing.items()},
        }
        self._progress.said(f"timing {len(plans)} models, interleaved")
        measured, failures = measure_interleaved(plans, seconds=TIMING_SECONDS, rounds=TIMING_ROUNDS)
        for name, error in failures.items():
            if name in (ORIGINAL, first.id):
                raise error
            racing[name].drop_out("failed", str(error))
        for name, one in racing.items():
            one.measured = measured.get(name)
        return measured[ORIGINAL]

    def _climb(self, candidates: list[Candidate], first: Candidate, timing: Measurement) -> Ladder:
        """Choose rungs and confirm them, again without those that do not hold, until all hold."""
        base = Costs(
            score=0.0,
            drop=0.0,
            latency_ms=timing.latency.p50,
            size=self._task.model.stat().st_size,
            memory_mb=timing.loaded.peak_memory_mb,
        )
        rounds = {
            one.id: [float(np.median(turn)) for turn in one.measured.rounds]
            for one in candidates
            if one.measured is not None
        }
        rounds[ORIGINAL] = [float(np.median(turn)) for turn in timing.rounds]
        choosing = {one.id: self._losses(one) for one in candidates if one.racing and not one.is_float}
        everywhere: dict[str, list[SampledLoss]] = {}
        evidence = Evidence(choosing=choosing, everywhere=everywhere, rounds=rounds)
        confirmed: set[str] = set()
        while True:
            racing = {one.id: one for one in candidates if one.racing}
            costs = {name: one.costs() for name, one in racing.items()}
            ladder = build_ladder(costs, base, self._limits, evidence, prefer=self._prefer, float_id=first.id)
            unsure = [racing[name] for name in ladder.rungs if name not in confirmed]
            if not unsure:
                return ladder
            with ThreadPoolExecutor(2) as pool:
                list(pool.map(self._confirm, unsure))
            confirmed |= {one.id for one in unsure}
            everywhere |= {one.id: self._losses(one) for one in unsure if one.racing and not one.is_float}

    def _losses(self, candidate: Candidate) -> list[SampledLoss]:
        try:
            return self._evaluator.losses(candidate, timeout_s=CONFIRM_S)
        except RunnerError as error:
            candidate.drop_out("failed", str(error))
            return []

    def _confirm(self, candidate: Candidate) -> None:
        self._progress.said(f"confirming {candidate.id}")
        try:
            self._evaluator.confirm(candidate, timeout_s=CONFIRM_S)
        except RunnerError as error:
            if candidate.is_float:
                raise
            candidate.drop_out("failed", str(error))
