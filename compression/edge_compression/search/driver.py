"""The search: tries recipes and variations of them, several at a time, times the best alone, and chooses the rungs.

The order of things: the original answers all samples; the float recipe is judged; then workers take turns from the
study, build and score them; the shortlist is timed interleaved on an otherwise idle machine; rungs are confirmed on all
samples. What is tried is in `study`, how a candidate is scored in `evaluation.evaluator`, what dominates what in
`evaluation.pareto`, what comes after trying in `finalists`.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass, replace
from pathlib import Path

from edge_bench.children import Children
from edge_bench.judged import AnswerJudge, manifest_inputs
from edge_bench.measure import Runner, RunnerError
from edge_bench.task import Task, check_model
from edge_compression.evaluation.candidate import Candidate, restored
from edge_compression.evaluation.evaluator import Evaluator, Original
from edge_compression.evaluation.graph_profile import ProfilePlan, graph_facts
from edge_compression.evaluation.judge import Jury
from edge_compression.evaluation.quality import Quality
from edge_compression.evaluation.sample_splits import (
    EXACT_CONFIRMED,
    EXACT_CONFIRMED_S,
    EXACT_SLOWER,
    PARTS,
    EvaluationSet,
    SplitSettings,
    exact_samples,
)
from edge_compression.guards import check_answers, check_finite, guarded
from edge_compression.options import Options, Work
from edge_compression.recipes.recipe import Recipe
from edge_compression.search.base_selection import FORESEEN, PATIENCE, wins
from edge_compression.search.build_process import BuildError, LateError, RuledOutError, UnfitError
from edge_compression.search.builder import Builder
from edge_compression.search.cache_keys import build_identity, study_identity
from edge_compression.search.finalists import FINALIST_S, FINALISTS, FinalSelection, SearchResult
from edge_compression.search.foresight import Fate, Foresight
from edge_compression.search.memory_admission import DRIVER_MB, MemoryAdmission, estimate_mb
from edge_compression.search.model_cache import ModelCache
from edge_compression.search.progress import Progress
from edge_compression.search.prospects import outlook
from edge_compression.search.study import Study, Turn
from edge_compression.search.time_budget import (
    BudgetSpentError,
    TimeBudget,
    default_budget,
    expected_seconds,
    stopped_by_interrupt,
)
from edge_compression.search.work_meter import WorkMeter
from edge_contracts.errors import BundleError
from edge_contracts.profile import DeviceProfile

PARALLEL = min(4, os.cpu_count() or 1)
LOOK_S, IDLE_S = 0.1, 0.5
"""How often the main thread looks whether somebody pressed Ctrl-C, and a worker without a turn whether there is one."""

PATIENCE_S = 1800.0
"""With one process's answers to all samples: a guard against one that hangs, not a bound of the search's work."""

LOST = "the search was killed each time this candidate was built"

RUNGS_CONFIRMED = 4
"""For the time kept at the end: rungs to confirm."""


@dataclass(frozen=True, kw_only=True)
class SearchFolder:
    """Where a search works: `scratch` is its own and removed by the caller, `work` outlives it."""

    scratch: Path
    work: Work


class Search:
    """One search. Raises on construction what is wrong with its samples or its storage."""

    def __init__(
        self, task: Task, profile: DeviceProfile, options: Options, place: SearchFolder, progress: Progress
    ) -> None:
        self._task, self._profile, self._options, self._progress = task, profile, options, progress
        self._place = place
        budget = options.budget_s if options.budget_s is not None else default_budget(task.model.stat().st_size)
        self._clock = TimeBudget(budget, WorkMeter(PARALLEL))
        settings = SplitSettings(
            calibration=options.calibration, evaluation=options.evaluation, memory_mb=options.memory_mb
        )
        self._sample_set = EvaluationSet(task, profile, settings, place.scratch)
        self._cache = ModelCache(place.work.folder, build_identity(task, self._sample_set.count))
        if not place.work.shared:
            self._cache.sweep()
        self._lock, self._children = threading.Lock(), Children()
        self._candidates: dict[str, Candidate] = {}
        self._variations = self._trying = 0
        self._patience = PATIENCE
        self._foresight = Foresight(None, 0, self._options)
        self._outlook: tuple[str, ...] = ()
        self._written: frozenset[str] = frozenset()

    def run(self, recipes: Sequence[Recipe]) -> SearchResult:
        """Try the recipes, the float one first among them, and variations of them.

        Raises ContractError, RunnerError or BundleError when the original itself does not fit or run; BundleError
        when no variant keeps limits that were asked for. Ctrl-C once the float original is judged ends the search
        with what is judged; before that, or while models are timed, it is a KeyboardInterrupt as usual.
        """
        self._written = frozenset(recipe.id for recipe in recipes)
        with Runner(self._sample_set.plan(self._task.model)) as reference:
            self._original = self._answer(reference)
            self._limits = self._options.limits(
                self._profile, self._jury.first_limit.value, self._jury.first_limit.unit
            )
            self._builder = self._set_up(reference)
            self._evaluator = Evaluator(self._sample_set, self._original, self._jury, reference, self._children.start)
            self._float = self._try_float(recipes[0])
            self._foresight = self._look_ahead(recipes)
            with stopped_by_interrupt(self._clock):
                name = study_identity(self._cache.source, recipes, self._options, self._profile)
                study = Study(self._place.work.url, name, recipes[1:])
                self._take_over(study)
                self._try_all(study)
        self._take_over(study)
        self._account_for(recipes)
        finish = FinalSelection(
            self._task, self._profile, self._limits, self._sample_set, self._evaluator, self._jury, self._progress
        )
        found = finish.run(list(self._candidates.values()), self._original, self._rebuild)
        self._check_asked(found)
        return replace(found, outlook=self._outlook)

    def _check_asked(self, found: SearchResult) -> None:
        """Raise BundleError when nothing keeps the limits that the caller gave; the profile's own bend to the float
        original, which devices try anyway."""
        asked = replace(
            found.limits,
            max_size=self._options.max_size,
            max_latency_ms=self._options.max_latency_ms,
            max_memory_mb=self._options.max_memory_mb,
        )
        reason = asked.objection(self._float.costs())
        if found.ladder.rungs == (self._float.id,) and reason is not None:
            raise BundleError(
                f"no variant is within the limits; the float original {reason}",
                subject=self._task.file.name,
                hint="built candidates are kept: run the same command with other limits to continue",
            )

    def _set_up(self, reference: Runner) -> Builder:
        memory_mb = self._options.memory_mb
        return Builder(
            sample_set=self._sample_set,
            cache=self._cache,
            clock=self._clock,
            admission=MemoryAdmission(max(memory_mb - DRIVER_MB, 1.0)),
            starter=self._children.start,
            progress=self._progress,
            model=self._task.model,
            tensors=self._original.tensors,
            estimate_mb=estimate_mb(self._task.model.stat().st_size, reference.loaded().peak_memory_mb),
            memory_mb=memory_mb,
        )

    def _answer(self, runner: Runner) -> Original:
        self._progress.said(f"{self._task.file.name}: original on {self._sample_set.samples_count} samples")
        opened = runner.opened()
        check_model(self._task, opened.inputs, opened.outputs)
        check_answers(self._task, opened.outputs)
        plain = manifest_inputs(self._task, opened.inputs)
        runner.loaded()
        names = [info.name for info in opened.outputs]
        judge = AnswerJudge(self._task, plain, opened.outputs, self._sample_set.order)
        began = time.monotonic()
        outputs = self._sample_set.answers(runner, PARTS, timeout_s=PATIENCE_S)
        sample_s = (time.monotonic() - began) / outputs[0].shape[0]
        outputs = self._sample_set.spilled(outputs)
        check_finite(self._task, names, outputs, self._sample_set.order)
        asked, confidence = self._options.allowance, self._options.confidence
        self._jury = Jury(judge, names, outputs, asked=asked, confidence=confidence)
        tensors = tuple(guarded(self._task, tensor, index) for index, tensor in enumerate(plain))
        self._sample_set.unroll(runner, tensors, names, timeout_s=PATIENCE_S)
        calibrated = []
        if self._jury.maps_scores:
            calibrated = self._sample_set.calibrated(runner, timeout_s=PATIENCE_S)
        exact = EXACT_SLOWER * exact_samples(EXACT_CONFIRMED, EXACT_CONFIRMED_S, sample_s)
        fresh = self._sample_set.count + outputs[0].shape[0] - self._sample_set.parts["confirm"].start
        confirming = RUNGS_CONFIRMED * sample_s * (fresh + exact) / PARALLEL
        self._clock.reserve(FINALISTS * FINALIST_S + confirming)
        return Original(opened=opened, tensors=tensors, outputs=outputs, calibrated=calibrated, sample_s=sample_s)

    def _try_float(self, recipe: Recipe) -> Candidate:
        candidate = Candidate(recipe=recipe)
        self._candidates[recipe.id] = candidate
        if not self._try(candidate, None):
            raise BudgetSpentError(
                f"{self._clock.why()} before the float original was scored",
                subject=self._task.file.name,
                hint="built candidates are kept: run the same command with a larger --budget to continue",
            )
        if not candidate.racing:
            what = f"the float original cannot be served: {candidate.reason}"
            raise BundleError(what, subject=self._task.model.name)
        return candidate

    def _look_ahead(self, recipes: Sequence[Recipe]) -> Foresight:
        """Look where time and bytes are, and say what can win and how long it takes."""
        facts = None
        if self._task.format == "onnx":
            facts = graph_facts(
                ProfilePlan(
                    model=str(self._float.model),
                    calibration=str(self._sample_set.calibration),
                    tensors=self._original.tensors,
                    memory_limit_mb=self._options.memory_mb,
                )
            )
        self._outlook = () if facts is None else outlook(facts)
        for line in self._outlook:
            self._progress.said(line)
        size = self._task.model.stat().st_size
        foresight = Foresight(facts, size, self._options, self._limits.max_drop)
        hopeful = [
            one for one in recipes[1:] if self._refusal(one) is None and foresight.fate(one, [self._float]) is None
        ]
        choosing = self._sample_set.parts["choose"].stop
        seconds = min(expected_seconds(hopeful, self._original.sample_s, choosing) / PARALLEL, self._clock.left)
        what = f"{len(hopeful)} of {len(recipes) - 1} recipes can win here"
        self._progress.said(
            f"{what}: about {seconds:.0f} s on an idle machine" if hopeful else f"nothing can win: {what}"
        )
        return foresight

    def _take_over(self, study: Study) -> None:
        """Add what the study knows from earlier or elsewhere."""
        count = 0
        for record in study.finished():
            one = restored(record)
            if one.id not in self._candidates and not self._foregone(one):
                self._candidates[one.id] = one
                count += 1
        if count:
            self._progress.said(f"reusing {count} finished candidates")

    def _try_all(self, study: Study) -> None:
        with ThreadPoolExecutor(PARALLEL) as pool:
            workers = [pool.submit(self._work, study) for _ in range(PARALLEL)]
            while wait(workers, timeout=LOOK_S).not_done:
                if self._clock.stopped:
                    self._children.kill()
        for worker in workers:
            worker.result()
        if not self._clock.over:
            self._progress.said("nothing else can win: the search ends before its budget")
        if self._clock.stopped:
            self._progress.said("stopping: candidates scored so far are timed and written")

    def _work(self, study: Study) -> None:
        """Take turns until there are none or the time is over. What goes wrong with one worker stops all."""
        try:
            self._take_turns(study)
        except BaseException:
            self._clock.stop()
            raise

    def _take_turns(self, study: Study) -> None:
        while not self._clock.stopped:
            with self._lock:
                core_only = self._clock.over
                vary = not core_only and self._patience > 0.0 and self._variations < self._options.variations
                turn = study.take(vary=vary, core_only=core_only)
                self._trying += turn is not None
                if not self._trying:
                    return
            if turn is None:
                time.sleep(IDLE_S)
                continue
            candidate = Candidate(recipe=turn.recipe)
            done = self._try(candidate, self._float)
            with self._lock:
                self._trying -= 1
                self._write_down(study, turn, candidate, done=done)

    def _write_down(self, study: Study, turn: Turn, candidate: Candidate, *, done: bool) -> None:
        if not done:
            study.give_back(turn)
            self._candidates.pop(candidate.id, None)
            return
        foreseen = self._foregone(candidate)
        self._lose_patience(turn, candidate, foreseen=foreseen)
        self._variations += turn.varied and not foreseen
        if not foreseen:
            self._candidates[candidate.id] = candidate
        values, limits = None, {}
        if candidate.status == "duplicate":
            # Values that give what others gave are no place to draw from again.
            limits["duplicate"] = 1.0
            if candidate.sha256:
                candidate.quality, candidate.pace = self._twin(candidate)
        quality = candidate.quality
        if quality is not None and candidate.status in ("pending", "left out", "duplicate"):
            size = candidate.size / self._task.model.stat().st_size
            values = [quality.drop, size, candidate.pace if candidate.pace is not None else 1.0]
            limits["drop"] = (quality.drop if self._limits.accept_undecided else quality.bound) - self._limits.max_drop
            if self._limits.max_size is not None:
                limits["size"] = candidate.size / self._limits.max_size - 1.0
        study.finish(turn, candidate, limits, values)
        if candidate.sha256 or candidate.status == "failed":
            self._progress.judged(candidate, self._candidates.values(), self._task.model.stat().st_size)

    def _foregone(self, one: Candidate) -> bool:
        """Return whether it is a variation that was not built, for its effect was known: no news to anybody."""
        return one.id not in self._written and not one.sha256 and one.status in ("duplicate", "not tried")

    def _lose_patience(self, turn: Turn, candidate: Candidate, *, foreseen: bool) -> None:
        """Count variations that win nothing, from anew after one that does."""
        if not turn.varied:
            return
        others = [
            one.preliminary()
            for one in self._candidates.values()
            if one.racing and one.pace is not None and one.quality is not None and one.id != candidate.id
        ]
        known = candidate.racing and candidate.quality is not None and candidate.pace is not None
        if known and wins(candidate.preliminary(), others, self._limits.max_drop):
            self._patience = PATIENCE
        else:
            self._patience -= FORESEEN if foreseen else 1.0

    def _try(self, candidate: Candidate, first: Candidate | None) -> bool:
        """Build a candidate and judge what was made, unless there is a reason not to. Return whether its fate is
        known: it is not when the search ended before."""
        refusal = self._refusal(candidate.recipe)
        if refusal is not None:
            candidate.drop_out("not tried", refusal)
            return True
        fate = self._foreseen(candidate.recipe)
        if fate is not None:
            self._follow(candidate, fate)
            return True
        try:
            self._builder.supply(candidate, first)
            self._claim(candidate)
            if candidate.racing:
                self._progress.said(f"scoring {candidate.id}")
                self._evaluator.judge(candidate, timeout_s=PATIENCE_S)
        except (BuildError, RunnerError) as error:
            if self._clock.stopped or (isinstance(error, LateError) and self._clock.over):
                return False
            if isinstance(error, RuledOutError):
                self._foresight.learn(candidate.recipe, error.refusal)
            unfit = isinstance(error, UnfitError)
            candidate.drop_out("not tried" if unfit else "failed", str(error).removeprefix(f"{error.subject}: "))
        except BudgetSpentError as over:
            candidate.drop_out("not tried", str(over))
            return False
        return True

    def _foreseen(self, recipe: Recipe) -> Fate | None:
        with self._lock:
            known = [*self._candidates.values()]
        return self._foresight.fate(recipe, known)

    def _follow(self, candidate: Candidate, fate: Fate) -> None:
        if fate.twin is None:
            candidate.drop_out("not tried", fate.reason)
            return
        candidate.quality, candidate.pace, candidate.size = fate.twin.quality, fate.twin.pace, fate.twin.size
        candidate.drop_out("duplicate", fate.reason)

    def _refusal(self, recipe: Recipe) -> str | None:
        """Return why a recipe is not for this task or profile, or None."""
        if recipe.full_range_weights and self._profile.model.reduce_range:
            return "the profile asks for 7-bit weights (model.reduce_range)"
        if recipe.trains and self._sample_set.training is None:
            return "needs training samples; the task has no data.train"
        return None

    def _claim(self, candidate: Candidate) -> None:
        """Drop out a candidate that another one has made already."""
        with self._lock:
            others = [*self._candidates.values()]
            same = next((o for o in others if o.sha256 == candidate.sha256 and o.id != candidate.id), None)
            self._candidates.setdefault(candidate.id, candidate)
        if same is not None:
            candidate.drop_out("duplicate", f"the same bytes as {same.id}: the extra steps had no effect")

    def _twin(self, candidate: Candidate) -> tuple[Quality | None, float | None]:
        """Return what is known by now of the candidate that has the same bytes."""
        others = (one for one in self._candidates.values() if one.status != "duplicate")
        same = next((one for one in others if one.sha256 == candidate.sha256), candidate)
        return same.quality, same.pace

    def _rebuild(self, candidate: Candidate) -> None:
        """Make sure that a candidate's model is here; another machine may have made it. Passes that train may make
        other bytes here: what becomes a rung is judged again on all samples. Raises BuildError."""
        if candidate.path is None:
            try:
                self._builder.supply(candidate, self._float, judged=True)
            except BudgetSpentError as over:
                raise BuildError(str(over), subject=candidate.id) from over

    def _account_for(self, recipes: Sequence[Recipe]) -> None:
        """Say of every recipe that was not tried why."""
        for recipe in recipes:
            one = self._candidates.setdefault(recipe.id, Candidate(recipe=recipe))
            first = self._candidates.get(recipe.after or "")
            if not one.racing or (one.quality is not None and one.pace is not None):
                continue
            reason = self._clock.why() if self._clock.over else LOST
            if first is not None and first.status in ("failed", "not tried", "duplicate", "left out"):
                reason = f"depends on {first.id}, which was left out: {first.reason}"
            one.drop_out("not tried", reason)
