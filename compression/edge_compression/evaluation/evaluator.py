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
from edge_compression.evaluation.quality import QualityRequest, compare, compare_exact, refuted
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
"""Turns of candidate and original and the length of each: enough to tell half as fast from as fast."""

PACE_QUANTILE = 0.1
"""Builds run beside it and take the core away now and then: the fast runs of a turn are the undisturbed ones."""


@dataclass(frozen=True, kw_only=True)
class Original:
    """The given model: what it declares, its input, its first output for all evaluation samples in the evaluation set's
    order, and the seconds it took for one."""

    opened: Opened
    tensor: Input
    answers: Array
    sample_s: float


class Evaluator:
    """Judges candidates against one original, which runs on in the process `beside` for comparisons of pace; starts
    its own with `starter`. Thread-safe."""

    def __init__(
        self, sample_set: EvaluationSet, original: Original, asked: QualityRequest, beside: Runner, starter: Starter
    ) -> None:
        self._sample_set, self._original, self._asked = sample_set, original, asked
        self._beside, self._pacing = beside, threading.Lock()
        self._starter = starter

    def judge(self, candidate: Candidate, *, timeout_s: float) -> None:
        """Fill in quality, exactness and pace, or drop the candidate out. Raises RunnerError."""
        patience = min(LOAD_TIMEOUT_S, timeout_s)
        with Runner(self._sample_set.plan(candidate.model), patience_s=patience, starter=self._starter) as runner:
            if kinds(runner.opened()) != kinds(self._original.opened):
                candidate.drop_out("failed", "its inputs or outputs are not of the original's types")
                return
            outputs = self._sample_set.answers(runner, ("screen",), timeout_s=timeout_s)
            self._weigh(candidate, outputs[0])
            if candidate.racing and not candidate.is_float:
                outputs = _joined(outputs, self._sample_set.answers(runner, ("choose",), timeout_s=timeout_s))
                self._weigh(candidate, outputs[0])
                self._sample_set.keep(candidate.sha256, outputs)
            if candidate.racing:
                candidate.pace = self._pace(runner)
        if candidate.quality is not None:
            count = exact_samples(EXACT_SAMPLES, EXACT_S, self._original.sample_s)
            self._exact(candidate, outputs[0], count, timeout_s)

    def confirm(self, candidate: Candidate, *, timeout_s: float) -> None:
        """Evaluator a candidate on all samples and keep its answers, or drop it out. Raises RunnerError."""
        where = self._sample_set.parts["confirm"]
        with Runner(self._sample_set.plan(candidate.model), starter=self._starter) as runner:
            known = self._sample_set.kept(candidate.sha256)
            rest = self._sample_set.answers(runner, PARTS if known is None else ("confirm",), timeout_s=timeout_s)
            candidate.outputs = rest if known is None else _joined(known, rest)
            candidate.calibration = self._sample_set.calibrated(runner, timeout_s=timeout_s)
        answers, original, y = candidate.outputs[0], self._original.answers, self._sample_set.y
        everywhere = slice(0, y.shape[0])
        chosen_by = candidate.quality
        candidate.quality = compare(self._asked, answers, original, y, self._sample_set.slices(everywhere))
        count = exact_samples(EXACT_CONFIRMED, EXACT_CONFIRMED_S, self._original.sample_s)
        self._exact(candidate, answers, count, timeout_s)
        if where.stop > where.start:
            candidate.choosing = chosen_by
            held_back = (answers[where], original[where], y[where])
            candidate.confirmation = compare(self._asked, *held_back, self._sample_set.slices(where))
            if refuted(self._asked, *held_back) and not candidate.is_float:
                lost = candidate.confirmation.drop
                candidate.drop_out("left out", f"the held-back samples refute it: {lost:.2f} points lost on them")

    def _weigh(self, candidate: Candidate, answers: Array) -> None:
        """Compare the answers so far; drop out what is surely over, or over with all samples for choosing seen."""
        if not np.isfinite(answers).all():
            candidate.drop_out("failed", "its outputs contain NaN or infinity")
            return
        where = slice(0, answers.shape[0])
        found = compare(
            self._asked,
            answers,
            self._original.answers[where],
            self._sample_set.y[where],
            self._sample_set.slices(where),
        )
        candidate.quality = found
        last = answers.shape[0] == self._sample_set.parts["choose"].stop
        if not candidate.is_float and (found.surely_over or (last and found.verdict == "over")):
            seen = "" if last else f" in {answers.shape[0]} samples, enough to decide"
            allowed = self._asked.limit
            candidate.drop_out("left out", f"loses {found.drop:.2f} points{seen}, limit {allowed:g}")

    def _exact(self, candidate: Candidate, answers: Array, count: int, timeout_s: float) -> None:
        patience = min(LOAD_TIMEOUT_S, timeout_s)
        plan = self._sample_set.plan(candidate.model, optimize=False)
        unseen: str | None = None
        with Runner(plan, patience_s=patience, starter=self._starter) as runner:
            try:
                runner.loaded()
                exact = self._sample_set.first(runner, min(count, answers.shape[0]), timeout_s=timeout_s)
            except ModelRefusedError as error:  # operators that the engine has in its delegates only
                exact, unseen = answers[:count], f"it runs with the engine's optimizations only: {error}"
        found = compare_exact(self._asked.metric, answers, exact, self._sample_set.y)
        candidate.exactness = found if unseen is None else msgspec.structs.replace(found, hazard=unseen)

    def _pace(self, runner: Runner) -> float:
        """Return the latency relative to the original's: the median of a few turns, one pair at a time."""
        with self._pacing:
            ratios = []
            for _ in range(PACE_TURNS):
                own, base = runner.measure(PACE_SECONDS), self._beside.measure(PACE_SECONDS)
                ratios.append(float(np.quantile(own, PACE_QUANTILE) / np.quantile(base, PACE_QUANTILE)))
        return float(np.median(ratios))


def _joined(first: list[Array], more: list[Array]) -> list[Array]:
    """Return the rows of both, output by output; `more` is empty where there were no further samples."""
    return [np.concatenate(pair) for pair in zip(first, more, strict=True)] if more else first


def kinds(opened: Opened) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the types of inputs and outputs: samples mapped for others would be cast into nonsense."""
    return tuple(info.dtype for info in opened.inputs), tuple(info.dtype for info in opened.outputs)
