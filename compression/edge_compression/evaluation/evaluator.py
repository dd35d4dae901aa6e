"""Judging: runs a built candidate in stages, each only when the one before leaves it a chance.

screen (a few samples) → choose (those for choosing; exact arithmetic; pace beside the original) → confirm (all samples,
only what is about to go on the ladder). The float original, which is a rung anyway, is screened and confirmed. The
arithmetic of verdicts is in `evaluate`.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from edge_bench.children import Starter
from edge_bench.measure import LOAD_TIMEOUT_S, ModelRefusedError, Runner
from edge_bench.protocol import Opened
from edge_compression.evaluation.candidate import Candidate
from edge_compression.evaluation.judge import Jury
from edge_compression.evaluation.quality import Quality
from edge_compression.evaluation.rung_merit import SampledLoss
from edge_compression.evaluation.sample_splits import (
    EXACT_CONFIRMED,
    EXACT_CONFIRMED_S,
    EXACT_S,
    EXACT_SAMPLES,
    PARTS,
    EvaluationSet,
    exact_samples,
)
from edge_contracts.manifest import Input

Array = NDArray[Any]

PACE_TURNS, PACE_SECONDS = 5, 0.04
"""Turns of candidate and original and the length of each: enough to decide half as fast from as fast."""

PACE_QUANTILE = 0.1
"""Builds run beside it and take the core away now and then: the fast runs of a turn are the undisturbed ones."""


@dataclass(frozen=True, kw_only=True)
class Original:
    """The given model: what it declares, its inputs, its outputs for all evaluation samples in the set's order, its
    outputs for the calibration samples where scores are to be mapped, and the seconds it took for one sample."""

    opened: Opened
    tensors: tuple[Input, ...]
    outputs: list[Array]
    calibrated: list[Array]
    sample_s: float


class Evaluator:
    """Judges candidates against one original, which runs on in the process `reference` for comparisons of pace; starts
    its own with `starter`. Thread-safe."""

    def __init__(
        self, sample_set: EvaluationSet, original: Original, jury: Jury, reference: Runner, starter: Starter
    ) -> None:
        self._sample_set, self._original, self._jury = sample_set, original, jury
        self._reference, self._pacing = reference, threading.Lock()
        self._starter = starter

    def judge(self, candidate: Candidate, *, timeout_s: float) -> None:
        """Fill in quality, exactness and pace, or drop the candidate out. Raises RunnerError."""
        patience = min(LOAD_TIMEOUT_S, timeout_s)
        with Runner(self._sample_set.plan(candidate.model), patience_s=patience, starter=self._starter) as runner:
            if kinds(runner.opened()) != kinds(self._original.opened):
                candidate.drop_out("failed", "its inputs or outputs are not of the original's types")
                return
            self._map_scores(candidate, runner, timeout_s)
            outputs = self._sample_set.answers(runner, ("screen",), timeout_s=timeout_s)
            self._weigh(candidate, outputs)
            if candidate.racing and not candidate.is_float:
                outputs = _joined(outputs, self._sample_set.answers(runner, ("choose",), timeout_s=timeout_s))
                self._weigh(candidate, outputs)
                self._sample_set.keep(candidate.sha256, outputs)
            if candidate.racing:
                candidate.pace = self._pace(runner)
        if candidate.quality is not None:
            count = exact_samples(EXACT_SAMPLES, EXACT_S, self._original.sample_s)
            self._exact(candidate, outputs, count, timeout_s)

    def losses(self, candidate: Candidate, *, timeout_s: float) -> list[SampledLoss]:
        """Return what a judged candidate loses of each output, for comparing it with others: on all samples once it is
        confirmed, else on those for choosing, which it answers again if another machine judged it. Raises RunnerError.
        """
        outputs = candidate.outputs or self._sample_set.kept(candidate.sha256)
        if outputs is None:
            with Runner(self._sample_set.plan(candidate.model), starter=self._starter) as runner:
                self._map_scores(candidate, runner, timeout_s)
                outputs = self._sample_set.answers(runner, ("screen", "choose"), timeout_s=timeout_s)
            self._sample_set.keep(candidate.sha256, outputs)
        return self._jury.losses(outputs, slice(0, outputs[0].shape[0]), candidate.score_maps)

    def confirm(self, candidate: Candidate, *, timeout_s: float) -> None:
        """Evaluator a candidate on all samples and keep its answers, or drop it out. Raises RunnerError."""
        where = self._sample_set.parts["confirm"]
        with Runner(self._sample_set.plan(candidate.model), starter=self._starter) as runner:
            known = self._sample_set.kept(candidate.sha256)
            rest = self._sample_set.answers(runner, PARTS if known is None else ("confirm",), timeout_s=timeout_s)
            candidate.outputs = self._sample_set.spilled(rest if known is None else _joined(known, rest))
            self._map_scores(candidate, runner, timeout_s)
            if self._jury.classic(self._sample_set.samples_count):
                candidate.calibration = self._sample_set.calibrated(runner, timeout_s=timeout_s)[0]
        outputs, everywhere = candidate.outputs, slice(0, self._sample_set.samples_count)
        chosen_by = candidate.quality
        slices, maps = self._sample_set.slices(everywhere), candidate.score_maps
        candidate.quality = self._jury.compare(outputs, everywhere, slices, maps)
        count = exact_samples(EXACT_CONFIRMED, EXACT_CONFIRMED_S, self._original.sample_s)
        self._exact(candidate, outputs, count, timeout_s)
        if where.stop > where.start:
            candidate.choosing = chosen_by
            held_back = [one[where] for one in outputs]
            candidate.confirmation = self._jury.compare(held_back, where, self._sample_set.slices(where), maps)
            lost = self._jury.refuted(held_back, where, maps)
            if lost is not None and not candidate.is_float:
                candidate.drop_out("left out", f"the held-back samples refute it: {lost}")
        if candidate.racing and not candidate.is_float and candidate.quality.verdict == "over":
            candidate.drop_out("left out", _why_over(candidate.quality, ""))

    def _weigh(self, candidate: Candidate, outputs: list[Array]) -> None:
        """Compare the answers so far; drop out what is surely over, or over with all samples for choosing seen."""
        where = slice(0, outputs[0].shape[0])
        for own, given in zip(outputs, self._original.outputs, strict=True):
            if own.shape != given[where].shape:
                text = f"it answers {list(own.shape[1:])} a sample, the original {list(given.shape[1:])}"
                candidate.drop_out("failed", text)
                return
            if own.dtype.kind == "f" and not np.array_equal(np.isfinite(own), np.isfinite(given[where])):
                candidate.drop_out("failed", "its outputs contain NaN or infinity where the original does not")
                return
        found = self._jury.compare(outputs, where, self._sample_set.slices(where), candidate.score_maps)
        candidate.quality = found
        last = where.stop == self._sample_set.parts["choose"].stop
        if not candidate.is_float and (found.surely_over or (last and found.verdict == "over")):
            seen = "" if last else f" in {where.stop} samples, enough to decide"
            candidate.drop_out("left out", _why_over(found, seen))

    def _map_scores(self, candidate: Candidate, runner: Runner, timeout_s: float) -> None:
        """Learn on the calibration samples how the candidate's scores become the original's, where thresholds count."""
        if self._original.calibrated and not candidate.is_float and not candidate.score_maps:
            answers = self._sample_set.calibrated(runner, timeout_s=timeout_s)
            candidate.score_maps = self._jury.score_maps(answers, self._original.calibrated)

    def _exact(self, candidate: Candidate, answers: list[Array], count: int, timeout_s: float) -> None:
        patience = min(LOAD_TIMEOUT_S, timeout_s)
        plan = self._sample_set.plan(candidate.model, optimize=False)
        unseen: str | None = None
        with Runner(plan, patience_s=patience, starter=self._starter) as runner:
            try:
                runner.loaded()
                exact = self._sample_set.first(runner, min(count, answers[0].shape[0]), timeout_s=timeout_s)
            except ModelRefusedError as error:  # operators that the engine has in its delegates only
                unseen = f"it runs with the engine's optimizations only: {error}"
                exact = [one[:count] for one in answers]
        found = self._jury.exactness(answers, exact)
        candidate.exactness = found if unseen is None else msgspec.structs.replace(found, hazard=unseen)

    def _pace(self, runner: Runner) -> float:
        """Return the latency relative to the original's: the median of a few turns, one pair at a time."""
        with self._pacing:
            ratios = []
            for _ in range(PACE_TURNS):
                own, base = _latencies(runner), _latencies(self._reference)
                ratios.append(float(np.quantile(own, PACE_QUANTILE) / np.quantile(base, PACE_QUANTILE)))
        return float(np.median(ratios))


def _latencies(runner: Runner) -> Array:
    """Return the latencies of one turn, ms; one that a busy machine let pass without a run is taken again."""
    while not (found := runner.measure(PACE_SECONDS)).size:
        pass
    return found


def _joined(first: list[Array], more: list[Array]) -> list[Array]:
    """Return the rows of both, output by output; `more` is empty where there were no further samples."""
    return [np.concatenate(pair) for pair in zip(first, more, strict=True)] if more else first


def _why_over(found: Quality, seen: str) -> str:
    worst = found.deciding
    return "loses more than is allowed" if worst is None else f"{worst.words}{seen}"


def kinds(opened: Opened) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the types of inputs and outputs: samples mapped for others would be cast into nonsense."""
    return tuple(info.dtype for info in opened.inputs), tuple(info.dtype for info in opened.outputs)
