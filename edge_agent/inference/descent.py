"""Answering a request with everything that may be asked of it: guards, the rungs in order, the last resort.

The usual request goes another way, which `edge_agent.inference.runtime` takes first. Which rungs there are and how they
are is `edge_agent.inference.rungs`.
"""

from __future__ import annotations

import time
from collections.abc import Sequence

from edge_agent.answer import Answer
from edge_agent.errors import EngineMemoryError, RequestMemoryError
from edge_agent.fallback_ladder import ABSTAIN
from edge_agent.inference.counters import Counters
from edge_agent.inference.histograms import HistogramSampler, TagCounters
from edge_agent.inference.last_resort import LastResortAnswers
from edge_agent.inference.request_check import RequestCheck
from edge_agent.inference.rungs.pool import RungPool
from edge_agent.inference.rungs.rung import GuardError, LoadedRung
from edge_agent.inference.streams import StreamStates, StreamStep
from edge_agent.ports import Array, Tensors
from edge_contracts.errors import EdgewrightError
from edge_contracts.manifest import Manifest

Asked = tuple[Tensors, int, HistogramSampler | None]
"""A request's tensors, when it came, in nanoseconds of the monotonic clock, and the counter of its tag."""

_now_ns = time.monotonic_ns


class LadderDescent:
    """See the module. One request at a time."""

    def __init__(
        self, manifest: Manifest, ladder: RungPool, tally: Counters, streams: StreamStates, most_classes: float
    ) -> None:
        """`most_classes` is how many classes an answer may leave possible before it abstains."""
        self.intake = RequestCheck(manifest)
        self._manifest = manifest
        self._ladder, self._tally, self._streams, self._most = ladder, tally, streams, most_classes
        self.forget()

    def forget(self) -> None:
        """Forget what was seen and remembered of all requests so far."""
        self.seen = HistogramSampler(self._manifest)
        self.seen_by_tag = TagCounters(self._manifest)
        self.resort = LastResortAnswers(self._manifest)

    def answer(self, asked: Asked, step: StreamStep | None = None) -> Answer:
        """Answer a request, or a step of a stream. Raises TensorError, EngineMemoryError."""
        feeds = self.intake.fit(asked[0])
        objections = self.intake.guard(feeds)
        warnings: list[str] = []
        trusted = True
        if objections:
            self._tally.count("guard_input")
            warnings = [verdict.text for verdict in objections]
            trusted = all(verdict.action != "fallback" for verdict in objections)
        answer = self._climb_down(asked, step, feeds, warnings) if trusted else None
        if trusted and answer is None:
            self._ladder.all_were_refused()
        return answer or self._last_resort(asked, len(feeds[0]) if feeds[0].shape else 1, warnings)

    def _climb_down(
        self, asked: Asked, step: StreamStep | None, feeds: list[Array], warnings: list[str]
    ) -> Answer | None:
        """Try the rungs in order. A rung is blamed for failing only if another one could answer the same request:
        when none can, the request is at fault, and a hostile client cannot put the whole ladder to rest."""
        blamed: list[tuple[int, str, str]] = []
        ladder = self._ladder
        for index, rung in ladder.walk(asked[1] / 1e9):
            try:
                made, confidence = rung.answer(self._feeds_of(index, rung, asked[0], step, feeds))
                outputs = rung.finish(made, asked[0])
            except EngineMemoryError as error:
                ladder.tell(index, error.reason, str(error))
                raise
            except RequestMemoryError:
                raise  # no rung is to blame for a request's size
            except EdgewrightError as error:
                self._tally.count("errors")
                self._tally.count("guard_output", isinstance(error, GuardError))
                warnings.append(f"{rung.served_by}: {error}")
                blamed.append((index, error.reason, str(error)))
                continue
            if confidence.action == "warn":
                self._tally.count("out_of_distribution")
                warnings.append(confidence.text)
            for culprit in blamed:
                ladder.has_failed(*culprit)
            if step is not None and ladder.is_fed_alike(index):
                self._streams.keep(step, made, ladder.release(index), asked[1] / 1e9)
            return self.finished(index, rung, asked, outputs, warnings)
        return None

    def _feeds_of(
        self, index: int, rung: LoadedRung, tensors: Tensors, step: StreamStep | None, feeds: list[Array]
    ) -> list[Array]:
        """Return what a rung is fed: what the first one is, or what its own release makes of the request. Of a stream's
        state another release makes nothing: there the stream starts anew."""
        ladder = self._ladder
        if step is not None and ladder.release(index) != ladder.release(ladder.first):
            return rung.refit(self._streams.without(tensors))
        return feeds if ladder.is_fed_alike(index) else rung.refit(tensors)

    def finished(
        self, index: int, rung: LoadedRung, asked: Asked, outputs: dict[str, Array], warnings: Sequence[str] = ()
    ) -> Answer:
        """Return the answer that a rung's outputs make, counted and remembered."""
        self._ladder.has_answered(index)
        if index != self._ladder.first:
            self._tally.count("fallbacks")
        if self.resort.remembers:
            self.resort.remember(outputs, asked[1] / 1e9)
        tensors, start, own = asked
        if start >= self.seen.due_ns and self._ladder.is_fed_alike(index):
            self.seen.count(self.intake.fit(tensors), rung.variant, outputs, start)
        if own is not None and start >= own.due_ns and self._ladder.is_fed_alike(index):
            own.count(self.intake.fit(tensors), rung.variant, outputs, start)
        prediction, abstained = None, False
        if rung.predictor is not None:
            prediction = rung.predictor.predict(outputs)
            abstained = prediction.largest > self._most
            self._tally.count("abstained", abstained)
        if rung.composite is not None:
            self._ladder.tell_of_nodes(index, rung.composite)
        timing_us = (_now_ns() - start) // 1000
        rung.answers.count(timing_us)
        return Answer(
            outputs={} if abstained else outputs,
            served_by=rung.served_by,
            version=rung.version,
            model_sha256=rung.model_sha256,
            abstained=abstained,
            warnings=tuple(warnings),
            timing_us=timing_us,
            prediction=prediction,
            nodes=() if rung.composite is None else rung.composite.nodes,
        )

    def _last_resort(self, asked: Asked, batch: int, warnings: list[str]) -> Answer:
        outputs = self.resort.outputs(batch, time.monotonic(), asked[0])
        if not outputs:
            self._tally.count("abstained")
        timing_us = (_now_ns() - asked[1]) // 1000
        served_by = self.resort.name if outputs else ABSTAIN
        self._tally.count("fallbacks")
        self._tally.answers(served_by).count(timing_us)
        return Answer(
            outputs=outputs,
            served_by=served_by,
            version=None,
            model_sha256=None,
            abstained=not outputs,
            warnings=tuple(warnings),
            timing_us=timing_us,
        )
