"""The guarded pipeline, in process: input checks → mapping → input guard → engine → output guard → fallback ladder.

    from edge_agent import Runtime

    with Runtime.open("bundle") as runtime:
        answer = runtime.infer({"x": array})

Nothing of HTTP, processes or updates is here: the worker wires this into a process, `edge_agent.http` into a protocol.
"""

from __future__ import annotations

import itertools
import math
import threading
import time
from collections.abc import Sequence
from pathlib import Path

import msgspec

from edge_agent.answer import Answer, NodeAnswer
from edge_agent.bundle import open_bundle
from edge_agent.config.inference_options import Certainty
from edge_agent.errors import EngineMemoryError, TensorError
from edge_agent.fallback_ladder import ABSTAIN, LadderRelease, Rung, build_ladder
from edge_agent.host.request_memory import SizeWatcher
from edge_agent.inference.batch import answer_together
from edge_agent.inference.counters import Counters
from edge_agent.inference.descent import LadderDescent
from edge_agent.inference.rungs.pool import FaultListener, RungPool
from edge_agent.inference.rungs.rung import first_manifest
from edge_agent.inference.stream import Stream
from edge_agent.inference.streams import StreamLimits, StreamStates, StreamStep
from edge_agent.ports import Array, EngineSettings, Tensors
from edge_contracts.errors import EdgewrightError
from edge_contracts.manifest import Manifest

Tagged = tuple[Tensors, str | None]
"""A request's tensors and its tag."""

LOST = "stream {}: started anew, its state is not here (a swap, a long pause, or too many streams)"

_now_ns = time.monotonic_ns
_numbers = itertools.count(1)


class Runtime:
    """Serves a ladder of rungs; rungs below the first are loaded when first needed. Thread-safe: one at a time.

    Raises from `infer` only for what the caller must act on: TensorError (the request does not fit) and
    EngineMemoryError (an allocation failed inside the engine: end the process, its heap is not to be trusted).
    """

    def __init__(
        self,
        ladder: Sequence[Rung],
        *,
        settings: EngineSettings | None = None,
        certainty: Certainty | None = None,
        on_fault: FaultListener | None = None,
        streams: StreamLimits | None = None,
        watcher: SizeWatcher | None = None,
        refused_bytes: int | None = None,
    ) -> None:
        """Open the first release of the ladder whose manifest can be read. `watcher` is told of large requests; those
        of `refused_bytes` and more are refused. Raises BundleError if there is none."""
        self.ladder = tuple(ladder)
        self.manifest: Manifest = first_manifest(self.ladder)
        self.tally = Counters()
        self.busy_since: float | None = None
        self._streams = StreamStates(self.manifest, self.tally.count, streams or StreamLimits())
        self._ladder = RungPool(
            self.ladder,
            self.manifest,
            self.tally,
            settings=settings or EngineSettings(),
            certainty=certainty,
            on_fault=on_fault,
            watcher=watcher,
            refused_bytes=refused_bytes,
        )
        most: float = math.inf if certainty is None else certainty.abstain_over or math.inf
        self._descent = LadderDescent(self.manifest, self._ladder, self.tally, self._streams, most)
        self.seen, self.seen_by_tag = self._descent.seen, self._descent.seen_by_tag
        self._lock = threading.Lock()

    @classmethod
    def open(
        cls, folder: str | Path, *, settings: EngineSettings | None = None, certainty: Certainty | None = None
    ) -> Runtime:
        """Open one bundle folder, verify all its files and load its first variant that works.

        Raises BundleError or ContractError naming the file or field.
        """
        bundle = open_bundle(Path(folder))
        release = LadderRelease(
            role="local",
            folder=str(folder),
            manifest_sha256=bundle.manifest_sha256,
            manifest=bundle.manifest,
        )
        runtime = cls(build_ladder([release]), settings=settings, certainty=certainty)
        runtime.warm()
        return runtime

    def __enter__(self) -> Runtime:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def serving(self) -> str:
        """Who answers now: `served_by` of the first rung that is loaded and has not failed since, else of the last
        resort, as far as it has something to give. From any thread."""
        rung = self._ladder.answering()
        return self._descent.resort.state(time.monotonic()) if rung is None else rung.served_by

    @property
    def ready(self) -> bool:
        """Whether a request would be answered with something: by a model, or by what the release declares instead.
        From any thread."""
        now = time.monotonic()
        return self._ladder.may_answer(now) or self._descent.resort.state(now) != ABSTAIN

    @property
    def nodes(self) -> tuple[NodeAnswer, ...]:
        """What the nodes did at the last request, where the preferred rung is a pipeline."""
        rung = self._ladder.loaded.get(self._ladder.first)
        return () if rung is None or rung.composite is None else rung.composite.nodes

    def warm(self) -> str:
        """Load rungs from the top until one has run once, and look whether those whose every answer was refused have
        one now; return who serves. Raises EngineMemoryError."""
        with self._lock:
            now = time.monotonic()
            next(self._ladder.walk(now), None)
            self._ladder.look_again(now)
        return self.serving

    def prefer(self, variant: str | None, threads: int | None = None) -> str:
        """Serve from this variant of the first release from now on (None: the ladder's first); return who serves."""
        with self._lock:
            self._ladder.prefer(variant, threads)
        return self.warm()

    @property
    def histograms(self) -> dict[str, tuple[int, ...]]:
        """What was counted of all requests and of each tag's, named as `edge_agent.histogram_names` says. From any
        thread."""
        found = self.seen.totals | self.seen_by_tag.totals()
        return {name: tuple(bins) for name, bins in found.items()}

    def infer(self, tensors: Tensors, tag: str | None = None) -> Answer:
        """Answer one request: arrays by input name, in the input's `sample.dtype` or the model's own dtype. `tag` says
        where the samples come from: what is seen of them is counted apart as well.

        Raises TensorError naming the tensor that does not fit or the tag that is none, EngineMemoryError.
        """
        with self._lock:
            start = _now_ns()
            self.busy_since = start / 1e9
            try:
                own = None if tag is None else self.seen_by_tag.of(tag)
                rung, outputs = self._ladder.quick, None
                if rung is not None and rung.express is not None:
                    try:
                        outputs = rung.express.outputs(tensors)
                    except EngineMemoryError as error:
                        self._ladder.tell(self._ladder.first, error.reason, str(error))
                        raise
                if rung is None or outputs is None:
                    return self._descent.answer((tensors, start, own))
                if not rung.is_plain or start >= self.seen.due_ns or (own is not None and start >= own.due_ns):
                    return self._descent.finished(self._ladder.first, rung, (tensors, start, own), outputs)
                # What `finished` would do here, without its call: to a small model each call of Python's shows.
                timing_us = (_now_ns() - start) // 1000
                rung.answers.count(timing_us)
                return Answer(
                    outputs=outputs,
                    served_by=rung.served_by,
                    version=rung.version,
                    model_sha256=rung.model_sha256,
                    abstained=False,
                    warnings=(),
                    timing_us=timing_us,
                )
            except TensorError:
                self.tally.count("rejected")
                raise
            finally:
                self.busy_since = None

    @property
    def remembers(self) -> bool:
        """Whether the model feeds outputs back, so that a step of a stream depends on those before it."""
        return self._streams.remembers

    def infer_step(self, tensors: dict[str, Array], step: StreamStep, tag: str | None = None) -> Answer:
        """Answer one step of a stream: what the model fed back at the step before is fed to it, and `tensors` has it
        afterwards. The answer says whether the stream started with it.

        Raises what `infer` raises, and TensorError for a state among the tensors.
        """
        with self._lock:
            start = _now_ns()
            self.busy_since = start / 1e9
            try:
                own = None if tag is None else self.seen_by_tag.of(tag)
                release = self._ladder.release(self._ladder.first)
                began = self._streams.fill_in(step, tensors, release, start / 1e9)
                answer = self._descent.answer((tensors, start, own), step)
            except TensorError:
                self.tally.count("rejected")
                raise
            finally:
                self.busy_since = None
        if began is None:
            return answer
        warnings = (*answer.warnings, LOST.format(step.stream)) if began == "lost" else answer.warnings
        return msgspec.structs.replace(answer, stream_start=True, warnings=warnings)

    def stream(self, name: str | int | None = None) -> Stream:
        """Return a stream of this runtime, to be fed step by step; see `Stream`. Without a name it has one of its own.

        Raises TensorError if the model remembers nothing.
        """
        if not self._streams.remembers:
            raise TensorError("no input of this model is fed back: it has no streams", subject=self.manifest.name)
        return Stream(self, f"stream-{next(_numbers)}" if name is None else name)

    def infer_together(self, requests: Sequence[Tagged], size: int) -> list[Answer] | None:
        """Answer requests as one batch of the first rung, or return None where each must be asked alone: that rung does
        not serve, it has not proved that up to `size` requests in a batch get the answers they would get alone, or
        something is unusual about one of them. Raises EngineMemoryError."""
        with self._lock:
            start = _now_ns()
            first, rung = self._ladder.first, self._ladder.quick
            if rung is None:
                return None
            self.busy_since = start / 1e9
            try:
                counters = [None if tag is None else self.seen_by_tag.of(tag) for _, tag in requests]
                outputs = answer_together(rung, self._descent.intake, [tensors for tensors, _ in requests], size)
                if outputs is None:
                    return None
                asked = [(tensors, start, own) for (tensors, _), own in zip(requests, counters, strict=True)]
                return [
                    self._descent.finished(first, rung, one, rung.finish(answer, one[0]))
                    for one, answer in zip(asked, outputs, strict=True)
                ]
            except EngineMemoryError as error:
                self._ladder.tell(first, error.reason, str(error))
                raise
            except EdgewrightError:
                return None  # whom to blame shows when they are asked alone
            finally:
                self.busy_since = None

    def usual(self, within_s: float) -> dict[str, Array]:
        """Return the tensors of a usual request, as the first rung is fed them; empty while that one does not serve, or
        if one answer takes it longer."""
        rung = self._ladder.quick
        if rung is None or rung.warm_s > within_s:
            return {}
        return {tensor.name: array for tensor, array in zip(self.manifest.inputs, rung.usual(), strict=True)}

    def end_stream(self, name: str | int) -> None:
        """Forget the state of a stream, if there is one."""
        with self._lock:
            self._streams.forget(name)

    def forget(self) -> None:
        """Forget what was counted and remembered of all requests so far."""
        with self._lock:
            self.tally.clear()
            self._descent.forget()
            self.seen, self.seen_by_tag = self._descent.seen, self._descent.seen_by_tag

    def close(self) -> None:
        """Unload every rung."""
        with self._lock:
            self._ladder.unload()
