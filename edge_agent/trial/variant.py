"""One variant's trial, in a process of its own: `python -m edge_agent.trial.variant <TrialPlan JSON> <variant>`.

Load, golden outputs, probe score, latency and memory, in this order, stopping at the first that fails; the result is
one line of JSON on stdout. The processes and their wall-time limits are in `trial`, the metrics in `quality`.
"""

from __future__ import annotations

import os
import statistics
import sys
import time
from pathlib import Path

import msgspec
import numpy as np

from edge_agent.bundle import Bundle, open_bundle
from edge_agent.engines.registry import engine_for, import_engines
from edge_agent.errors import EngineMemoryError, EngineMissingError
from edge_agent.host.memory_limits import HEADROOM_MB, limit_growth, offer_to_oom_killer, read_status_mb
from edge_agent.inference.quality_metrics import golden_error, relative_error, score
from edge_agent.inference.sample_runs import predict
from edge_agent.inference.samples import read_arrays, sample_inputs
from edge_agent.ipc.trial import TrialPlan, TrialReason, VariantTrial
from edge_agent.ports import Array, Engine, EngineSettings, Session, Tensors
from edge_agent.trial.__main__ import EXIT_MEMORY
from edge_contracts.codec import encode
from edge_contracts.errors import BundleError, EdgewrightError
from edge_contracts.manifest import Variant
from edge_contracts.pipeline import check_contents

_WARM_RUNS = 3
_TIMED_RUNS = 30
_TIMED_S = 2.0
_OOM_SCORE = 1000


class _Failed(Exception):  # noqa: N818 - the outcome of a trial, not a fault in it
    def __init__(self, reason: TrialReason, text: str) -> None:
        super().__init__(text)
        self.reason, self.text = reason, text


class _Trial:
    """Collects what one variant did, up to where it failed."""

    def __init__(self, plan: TrialPlan, bundle: Bundle, variant: Variant) -> None:
        self._plan, self._bundle, self._variant = plan, bundle, variant
        self.seen: dict[str, float] = {}

    def run(self) -> None:
        """Do all checks. What takes longer than allowed is measured once more: the device may have been paused
        meanwhile. Raises _Failed, or the engine's errors."""
        engine = engine_for(self._variant.format)
        if self._variant.format == "pipeline":
            import_engines(self._bundle.manifest)
            check_contents(self._bundle.manifest, lambda path: self._bundle.check(path).read_bytes())
        budgets = self._bundle.manifest.budgets
        base_mb = read_status_mb("VmRSS")
        memory_mb = _strictest(budgets.memory_mb, self._plan.memory_mb)
        if memory_mb is not None:
            limit_growth(memory_mb + HEADROOM_MB)
        session, load_s = self._load(engine)
        limit_s = _strictest(budgets.load_s, self._plan.load_s)
        if limit_s is not None and load_s > limit_s:
            session.close()
            session, again_s = self._load(engine)
            load_s = min(load_s, again_s)
        self._within("load", "load_s", load_s, limit_s)
        self._golden(session)
        self._probe(session)
        limit_ms, latency_ms = _strictest(budgets.latency_ms, self._plan.latency_ms), self._latency_ms(session)
        if limit_ms is not None and latency_ms > limit_ms:
            latency_ms = min(latency_ms, self._latency_ms(session))
        self._within("latency", "latency_ms", latency_ms, limit_ms)
        self._within("memory", "memory_mb", max(0.0, read_status_mb("VmHWM") - base_mb), memory_mb)

    def _load(self, engine: Engine) -> tuple[Session, float]:
        """Return the loaded model and how long that took, in seconds."""
        started = time.perf_counter()
        session = engine.load(self._bundle.model_path(self._variant), EngineSettings(threads=self._plan.threads))
        return session, time.perf_counter() - started

    def _golden(self, session: Session) -> None:
        golden = self._bundle.manifest.golden
        if golden is None:
            return
        arrays = read_arrays(self._bundle.path(golden.file), what=golden.file)
        inputs = sample_inputs(arrays, self._bundle.manifest, what=golden.file)
        names = [f"{self._variant.id}/output_{index}" for index in range(len(self._bundle.manifest.outputs))]
        missing = [name for name in names if name not in arrays]
        if missing:
            raise BundleError(f"no array {missing[0]}", subject=golden.file)
        answers = predict(session, self._bundle.manifest, inputs)
        error = golden_error(answers, [arrays[name] for name in names])
        self._within("golden", "golden_error", error, self._variant.tolerance)
        self._floors(answers, arrays, golden.file)

    def _floors(self, answers: list[Array], arrays: Tensors, what: str) -> None:
        """Hold the answers against the original's, output by output, where the bundle says how near they must be."""
        places = {tensor.name: index for index, tensor in enumerate(self._bundle.manifest.outputs)}
        for floor in self._variant.floors:
            index = places.get(floor.output)
            original = arrays.get(f"_original/output_{index}")
            if index is None or original is None:
                raise BundleError(f"no answers of the original for output {floor.output[:80]!r}", subject=what)
            error = relative_error(answers[index], original)
            if not error <= floor.relative_error:
                text = f"{floor.output[:80]} differs from the original's answers by {error:.1%} of them"
                raise _Failed("golden", f"{text}, at most {floor.relative_error:.1%} is allowed")

    def _probe(self, session: Session) -> None:
        manifest = self._bundle.manifest
        if manifest.probe is None or manifest.metric is None:
            return
        arrays = read_arrays(self._bundle.path(manifest.probe.file), what=manifest.probe.file)
        if "y" not in arrays:
            raise BundleError("no array y", subject=manifest.probe.file)
        inputs = sample_inputs(arrays, manifest, what=manifest.probe.file)
        reached = score(manifest.metric, predict(session, manifest, inputs), arrays["y"])
        self.seen["score"] = reached
        floor = self._variant.min_score
        if floor is not None and not reached >= floor:
            raise _Failed(
                "quality", f"{manifest.metric} {reached:.4f} on the probe set, at least {floor:.4f} is required"
            )

    def _latency_ms(self, session: Session) -> float:
        """Median time of one run of the first sample, in milliseconds."""
        manifest = self._bundle.manifest
        samples = manifest.golden or manifest.probe
        if samples is None:
            feeds: list[Array] = _zeros(self._bundle)
        else:
            arrays = read_arrays(self._bundle.path(samples.file), what=samples.file)
            feeds = [array[:1] for array in sample_inputs(arrays, manifest, what=samples.file)]
            if any(tensor.feedback is not None for tensor in manifest.inputs):  # one step of a sequence is one request
                feeds = [array[:, :1] if array.size else array for array in feeds]
        times: list[float] = []
        end = time.perf_counter() + _TIMED_S
        for index in range(_WARM_RUNS + _TIMED_RUNS):
            started = time.perf_counter()
            predict(session, manifest, feeds)
            times.append(time.perf_counter() - started)
            if index >= _WARM_RUNS and started > end:
                break
        return statistics.median(times[_WARM_RUNS:]) * 1000

    def _within(self, reason: TrialReason, field: str, value: float, limit: float | None) -> None:
        self.seen[field] = value
        if limit is not None and not value <= limit:
            raise _Failed(reason, f"{field} {value:.4g}, at most {limit:.4g} is allowed")


def try_variant(plan: TrialPlan, variant: str) -> VariantTrial:
    """Try one variant in this process."""
    bundle = open_bundle(Path(plan.folder), verify=False)  # the parent has verified it
    trial = _Trial(plan, bundle, bundle.manifest.variant(variant))
    reason: TrialReason = "ok"
    text = ""
    try:
        trial.run()
    except _Failed as failed:
        reason, text = failed.reason, failed.text
    except (EngineMemoryError, MemoryError) as error:
        reason, text = "memory", str(error) or "an allocation failed"
    except EngineMissingError as error:
        reason, text = "engine-missing", str(error)
    except EdgewrightError as error:
        reason, text = "load", str(error)
    seen = {field: value if abs(value) != float("inf") else None for field, value in trial.seen.items()}
    return VariantTrial(variant=variant, reason=reason, text=text[:2000], **seen)


def _zeros(bundle: Bundle) -> list[Array]:
    sequences = any(tensor.feedback is not None for tensor in bundle.manifest.inputs)
    shapes = []
    for tensor in bundle.manifest.inputs:
        shape = [max(size, 1) for size in tensor.sample_shape]
        shapes.append(([1, 1, *shape[1:]] if sequences else shape) if tensor.sampled else [0])
    return [np.zeros(shape, tensor.sample.dtype) for shape, tensor in zip(shapes, bundle.manifest.inputs, strict=True)]


def _strictest(*limits: float | None) -> float | None:
    return min((limit for limit in limits if limit is not None), default=None)


def main(arguments: list[str]) -> int:
    """Try the variant; the report is the last line of stdout."""
    offer_to_oom_killer(_OOM_SCORE)
    result = try_variant(msgspec.json.decode(arguments[0], type=TrialPlan), arguments[1])
    sys.stdout.buffer.write(encode(result) + b"\n")
    return EXIT_MEMORY if result.reason == "memory" else 0


if __name__ == "__main__":
    code = main(sys.argv[1:])
    sys.stdout.flush()
    os._exit(code)  # after a failed allocation the engine's destructors are not to be trusted
