"""One rung at work: a variant of a bundle loaded in its engine, what it accepts, and what it makes of an answer.

`RequestCheck` turns a request's tensors into what a release is fed; `LoadedRung` runs them and measures the answer.
Which rung answers, and what happens when one fails, is in `runtime`; the guards' decisions are in `core.guards`.
"""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np

from edge_agent.bundle import Bundle, open_bundle
from edge_agent.engines.registry import engine_for
from edge_agent.errors import EngineError, EngineMemoryError
from edge_agent.fallback_ladder import Rung
from edge_agent.host.request_memory import RequestMemory, growth_left_mb, peak_of
from edge_agent.inference.conformal import Predictor, predictor
from edge_agent.inference.counters import AnswerCounters
from edge_agent.inference.guard_policy import PASS, GuardVerdict, judge_confidence, judge_output
from edge_agent.inference.guards import as_held, is_finite, spread
from edge_agent.inference.request_check import RequestCheck
from edge_agent.inference.rungs import fast_path
from edge_agent.inference.sample_runs import SampleRuns, samples_at_a_time
from edge_agent.inference.samples import (
    bind_inputs,
    bind_outputs,
    read_arrays,
    sample_inputs,
    to_model,
)
from edge_agent.ports import Array, Composite, EngineSettings, Session, Tensors
from edge_agent.processing.postprocess import Postprocessor
from edge_contracts.errors import BundleError, EdgewrightError
from edge_contracts.manifest import Manifest, Output, Variant

PROBE_ROWS: Final = 64
PROBE_BYTES: Final = 64 * 1024
PROBE_S: Final = 0.2
"""At most so many rows, of tiny samples as many as make so many bytes, and about so many seconds of CPU go into
measuring what a batch costs in memory: less would be lost in what a process grows by anyway."""

GIVE_BACK_FROM: Final = 8
"""After a request of so many usual ones, one usual one more has the engine give the memory back."""


class GuardError(BundleError):
    """A model's answer is not finite or outside the range its manifest declares."""

    reason = "guard"


class _OutputCheck:
    """One output of a release, with what the check of an answer asks of it worked out beforehand."""

    __slots__ = ("bounded", "guard", "infinite", "judged", "logits", "name")

    def __init__(self, tensor: Output, *, has_thresholds: bool) -> None:
        self.name = tensor.name
        self.guard = as_held(tensor.guard, np.dtype(tensor.dtype))
        self.bounded = tensor.guard.minimum is not None or tensor.guard.maximum is not None
        self.infinite = tensor.infinite if isinstance(tensor.infinite, str) else None
        self.judged = has_thresholds and tensor.kind != "values"
        self.logits = tensor.kind == "logits"


class LoadedRung:
    """A variant in its engine. Not thread-safe. Raises EngineError when the model is not the manifest's."""

    def __init__(self, rung: Rung, bundle: Bundle, variant: Variant, session: Session) -> None:
        manifest = bundle.manifest
        self.rung, self.bundle, self.variant, self.session = rung, bundle, variant, session
        self.intake = RequestCheck(manifest)
        self.model_sha256 = bundle.model_sha256(variant)
        self.served_by, self.version = rung.served_by, rung.version
        self.answers = AnswerCounters()  # where they are counted; the runtime's tally has its own
        self.predictor: Predictor | None = None  # where the slot asks for certainty
        self.is_plain = False  # whether an answer of its express lane needs nothing but to be counted
        self.batches: bool | None = None  # whether it may answer in batches, once that was looked at; see `together`
        self._inputs = bind_inputs(session, manifest)
        self._outputs = tuple(zip(manifest.outputs, bind_outputs(session, manifest), strict=True))
        self._renamed = any(tensor.name != name for tensor, name in self._outputs)
        thresholds = variant.confidence
        has_thresholds = thresholds.energy is not None or thresholds.max_softmax is not None
        self.express: fast_path.FastPath | None = None  # once it is warm
        self.warm_s = math.inf  # CPU seconds of its first run
        self.composite = session if isinstance(session, Composite) else None
        self.memory = RequestMemory()  # the runtime's, where there is one
        self._small: dict[str, Array] = {}  # a usual request, of a model in an engine that gives memory back
        self._finisher = Postprocessor(manifest, variant.score_maps) if manifest.answer else None
        self._checks = tuple(_OutputCheck(tensor, has_thresholds=has_thresholds) for tensor in manifest.outputs)

    def run(self, feeds: Sequence[Array]) -> dict[str, Array]:
        """Return the outputs under the manifest's names. Raises EngineError."""
        answer = self.session.run(dict(zip(self._inputs, feeds)))  # noqa: B905 - checked before; it costs as much again
        if not self._renamed:
            return answer
        return {tensor.name: answer[name] for tensor, name in self._outputs}

    def predicts(self, coverage: float) -> bool:
        """Prepare to say what is certain of each answer; return whether the variant has a threshold that covers enough.

        Raises ContractError for a threshold of another file."""
        self.predictor = predictor(self.bundle.manifest, self.variant, coverage)
        return self.predictor is not None

    def refit(self, tensors: Tensors) -> list[Array]:
        """Return what this rung's own release feeds for a request. Raises TensorError if it does not fit it."""
        feeds = self.intake.fit(tensors)
        self.intake.guard(feeds)
        return feeds

    def answer(self, feeds: Sequence[Array]) -> tuple[dict[str, Array], GuardVerdict]:
        """Return the outputs and, if the variant declares thresholds, the confidence verdict.

        Raises EngineError, GuardError for an answer that an output guard refuses, and as `RequestMemory.begin`.
        """
        outputs = self._run_within_memory(feeds)
        confidence = PASS
        for check in self._checks:
            array = outputs[check.name]
            if (check.bounded or not is_finite(array)) and array.size:
                verdict = judge_output(check.guard, spread(array), infinite=check.infinite)
                if verdict is not PASS:
                    raise GuardError(verdict.text, subject=check.name)
            if check.judged and confidence is PASS and array.size:
                confidence = self._confidence(array, logits=check.logits)
        return outputs, confidence

    def _run_within_memory(self, feeds: Sequence[Array]) -> dict[str, Array]:
        size, memory = sum([feed.nbytes for feed in feeds]), self.memory
        if not memory.begin(size, _rows(feeds)):
            return self.run(feeds)
        try:
            outputs = self.run(feeds)
        except EngineMemoryError:
            raise  # its size stays behind
        except BaseException:
            memory.leave()
            raise
        memory.end(size)
        if self._small and size >= GIVE_BACK_FROM * sum([array.nbytes for array in self._small.values()]):
            return self._given_back(outputs)
        return outputs

    def _given_back(self, outputs: dict[str, Array]) -> dict[str, Array]:
        """Return the outputs in memory of their own. The engine's lie in a region that all of the run was in, and it
        gives that back no sooner than at the end of a run during which nothing lies there."""
        own = {name: array.copy() for name, array in outputs.items()}
        outputs.clear()
        try:
            self.session.run(self._small, shrink=True)
        except EngineMemoryError:
            raise
        except EngineError:
            pass  # the answer is there
        return own

    def finish(self, outputs: dict[str, Array], tensors: Tensors) -> dict[str, Array]:
        """Return the outputs with what the manifest's steps make of them for this request. Raises EngineError."""
        return outputs if self._finisher is None else self._finisher.finish(outputs, tensors)

    def warm(self) -> None:
        """Run on the first golden sample where there is one, else on zeros, and open the express lane for requests of
        that shape. Raises EngineError, BundleError."""
        feeds = dict(zip(self._inputs, self.usual(), strict=True))
        start = time.thread_time()  # what else the box does is no reason to do without a lane
        answer: dict[str, Array] = {}
        peak_mb = peak_of(lambda: answer.update(self.session.run(feeds)))
        self.warm_s = time.thread_time() - start
        if self.variant.format == "onnx":
            self._small = feeds
        self._probe_memory(list(feeds.values()), peak_mb)
        if self._finisher is None and self.warm_s < fast_path.MAX_S:
            fetched = {name: answer[name] for _, name in self._outputs}
            self.express = fast_path.fast_path(self.bundle.manifest, self.variant, self.session, feeds, fetched)

    def _probe_memory(self, feeds: Sequence[Array], first_mb: float) -> None:
        """Learn what a batch costs in memory from a small one, where that is quick and sure to fit; `first_mb` is what
        the first run took, engine's own buffers included."""
        before = sum(feed.nbytes for feed in feeds)
        self.memory.learn(before, before, 0.0)
        left = growth_left_mb()
        most = max(PROBE_ROWS, PROBE_BYTES // max(before, 1))
        rows = int(min(most, PROBE_S / max(self.warm_s, 1e-6), (left or 0.0) / 4 / max(first_mb, 0.1)))
        is_open = all(tensor.shape[:1] == (-1,) and tensor.sampled for tensor in self.bundle.manifest.inputs)
        if self.variant.format != "onnx" or rows < 2 or not is_open:
            return
        batch = [np.repeat(feed, rows, axis=0) for feed in feeds]
        with contextlib.suppress(EngineError):  # not made for batches after all
            feeds_of_batch = dict(zip(self._inputs, batch, strict=True))
            peak_mb = peak_of(lambda: self.session.run(feeds_of_batch, shrink=True))
            self.memory.learn(before * rows, before, peak_mb)

    def usual(self) -> list[Array]:
        """Return a usual request's tensors as the model is fed them: one sample, or the batch of a fixed shape."""
        manifest = self.bundle.manifest
        if manifest.golden is None:
            shapes = [[max(size, 1) for size in tensor.shape] for tensor in manifest.inputs]
            return [np.zeros(shape, tensor.dtype) for shape, tensor in zip(shapes, manifest.inputs, strict=True)]
        arrays = read_arrays(self.bundle.check(manifest.golden.file), what=manifest.golden.file)
        samples = sample_inputs(arrays, manifest, what=manifest.golden.file)
        batch = samples_at_a_time(manifest, samples)
        if batch > 1:
            pairs = zip(samples, manifest.inputs, strict=True)
            return [to_model(np.repeat(array[:1], batch, axis=0), tensor) for array, tensor in pairs]
        return SampleRuns(manifest.inputs, [tensor.name for tensor in manifest.inputs], samples).usual()

    def _confidence(self, outputs: Array, *, logits: bool) -> GuardVerdict:
        thresholds = self.variant.confidence
        values: np.ndarray[Any, np.dtype[np.float64]] = outputs.astype(np.float64)
        if not logits:
            return judge_confidence(thresholds, energy=float("nan"), max_softmax=float(values.max(axis=-1).min()))
        top = values.max(axis=-1)
        log_sum = top + np.log(np.exp(values - top[..., None]).sum(axis=-1))
        # The most unusual sample of the batch decides.
        worst = float(np.exp(top - log_sum).min())
        return judge_confidence(thresholds, energy=float((-log_sum).max()), max_softmax=worst)


def _rows(feeds: Sequence[Array]) -> int:
    """Return how many rows a request has: the first dimension that its tensors share; 1 without one."""
    firsts = {feed.shape[0] for feed in feeds if feed.shape}
    return firsts.pop() if len(firsts) == 1 else 1


def load_rung(rung: Rung, settings: EngineSettings) -> LoadedRung:
    """Load a rung after checking its model file's bytes. Raises BundleError, ContractError, EngineError or
    EngineMissingError."""
    bundle = open_bundle(Path(rung.folder), verify=False)
    variant = bundle.manifest.variant(rung.variant)
    session = engine_for(variant.format).load(bundle.check(variant.file), settings)
    return LoadedRung(rung, bundle, variant, session)


def first_manifest(ladder: Sequence[Rung]) -> Manifest:
    """Return the first manifest of a ladder that can be read. Raises BundleError if there is none."""
    problem: EdgewrightError = BundleError("no release or factory bundle to serve", subject="ladder")
    for rung in ladder:
        try:
            return open_bundle(Path(rung.folder), verify=False).manifest
        except EdgewrightError as error:
            problem = error
    raise problem
