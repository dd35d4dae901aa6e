"""One rung at work: a variant of a bundle loaded in its engine, what it accepts, and what it makes of an answer.

`Intake` turns a request's tensors into what a release is fed; `LoadedRung` runs them and measures the answer. Which
rung answers, and what happens when one fails, is in `runtime`; the guards' decisions are in `core.guards`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from edge_agent.bundle import Bundle, open_bundle
from edge_agent.core.guards import PASS, Spread, Verdict, judge_confidence, judge_input, judge_output
from edge_agent.engines import engine_for
from edge_agent.errors import TensorError
from edge_agent.messages import Rung
from edge_agent.ports import Array, EngineSettings, Session, Tensors
from edge_agent.samples import bind_inputs, bind_outputs, read_arrays, sample_inputs, to_model
from edge_contracts.errors import BundleError
from edge_contracts.manifest import Input, Manifest, Variant


class GuardError(BundleError):
    """A model's answer is not finite or outside the range its manifest declares."""

    reason = "guard"


class Intake:
    """What one release accepts: checks, maps and guards the tensors of a request."""

    def __init__(self, manifest: Manifest) -> None:
        self._inputs = manifest.inputs

    def fit(self, tensors: Tensors) -> list[Array]:
        """Return the tensors in the manifest's order, each mapped to what the model is fed.

        Raises TensorError naming a tensor that is unknown, missing, or of the wrong dtype or shape.
        """
        if len(tensors) != len(self._inputs):
            self._refuse_names(tensors)
        return [self._fit_one(tensors, tensor) for tensor in self._inputs]

    def guard(self, feeds: list[Array]) -> list[Verdict]:
        """Judge every feed; return the verdicts that object, after clipping in place in the list what may be clipped.

        Raises TensorError for a verdict of reject.
        """
        objections: list[Verdict] = []
        for index, tensor in enumerate(self._inputs):
            guard = tensor.guard
            if guard.minimum is None and guard.maximum is None and is_finite(feeds[index]):
                continue
            verdict = judge_input(guard, spread(feeds[index]))
            if verdict is PASS:
                continue
            if verdict.action == "reject":
                raise TensorError(verdict.text, subject=tensor.name)
            if verdict.action == "clip":
                feeds[index] = _clip(feeds[index], tensor)
            objections.append(Verdict(action=verdict.action, text=f"{tensor.name}: {verdict.text}"))
        return objections

    def _fit_one(self, tensors: Tensors, tensor: Input) -> Array:
        array = tensors.get(tensor.name)
        if array is None:
            self._refuse_names(tensors)
            raise TensorError("missing", subject=tensor.name)
        if not isinstance(array, np.ndarray):
            raise TensorError(f"not a NumPy array but {type(array).__name__}", subject=tensor.name)
        if array.dtype != tensor.sample.dtype and array.dtype != tensor.dtype:
            wanted = " or ".join(dict.fromkeys((tensor.sample.dtype, tensor.dtype)))
            raise TensorError(f"dtype is {array.dtype}, not {wanted}", subject=tensor.name)
        shape = array.shape
        if len(shape) != len(tensor.shape) or any(w not in (-1, s) for s, w in zip(shape, tensor.shape, strict=True)):
            raise TensorError(f"shape is {list(shape)}, not {list(tensor.shape)}", subject=tensor.name)
        if 0 in shape:
            raise TensorError(f"shape {list(shape)} holds no element", subject=tensor.name)
        if array.dtype.kind == "f" and tensor.dtype[0] not in "fb" and not is_finite(array):
            raise TensorError("holds NaN or infinity, which no integer can stand for", subject=tensor.name)
        return to_model(array, tensor)

    def _refuse_names(self, tensors: Tensors) -> None:
        known = [tensor.name for tensor in self._inputs]
        for name in tensors:
            if name not in known:
                raise TensorError(f"not an input of this model, which has {', '.join(known)}", subject=str(name)[:80])
        for name in known:
            if name not in tensors:
                raise TensorError("missing", subject=name)


@dataclass(frozen=True, kw_only=True)
class LoadedRung:
    """A variant in its engine. Not thread-safe."""

    rung: Rung
    bundle: Bundle
    variant: Variant
    intake: Intake
    session: Session
    input_names: tuple[str, ...]
    output_names: tuple[str, ...]
    model_sha256: str
    served_by: str

    def run(self, feeds: Sequence[Array]) -> dict[str, Array]:
        """Return the outputs under the manifest's names. Raises EngineError."""
        answer = self.session.run(dict(zip(self.input_names, feeds, strict=True)))
        outputs = self.bundle.manifest.outputs
        return {tensor.name: answer[name] for tensor, name in zip(outputs, self.output_names, strict=True)}

    def refit(self, tensors: Tensors) -> list[Array]:
        """Return what this rung's own release feeds for a request. Raises TensorError if it does not fit it."""
        feeds = self.intake.fit(tensors)
        self.intake.guard(feeds)
        return feeds

    def answer(self, feeds: Sequence[Array]) -> tuple[dict[str, Array], Verdict]:
        """Return the outputs and, if the variant declares thresholds, the confidence verdict.

        Raises EngineError, and GuardError for an answer that an output guard refuses.
        """
        outputs = self.run(feeds)
        confidence = PASS
        for tensor in self.bundle.manifest.outputs:
            array, guard = outputs[tensor.name], tensor.guard
            bounded = guard.minimum is not None or guard.maximum is not None
            if array.size and (bounded or not is_finite(array)):
                verdict = judge_output(guard, spread(array))
                if verdict is not PASS:
                    raise GuardError(verdict.text, subject=tensor.name)
            if confidence is PASS and tensor.kind != "values":
                confidence = self._confidence(array, logits=tensor.kind == "logits")
        return outputs, confidence

    def warm(self) -> None:
        """Run once, on the first golden sample where there is one, else on zeros. Raises EngineError, BundleError."""
        manifest = self.bundle.manifest
        if manifest.golden is None:
            shapes = [[max(size, 1) for size in tensor.shape] for tensor in manifest.inputs]
            self.run([np.zeros(shape, tensor.dtype) for shape, tensor in zip(shapes, manifest.inputs, strict=True)])
            return
        arrays = read_arrays(self.bundle.check(manifest.golden.file), what=manifest.golden.file)
        feeds = []
        for array, tensor in zip(
            sample_inputs(arrays, manifest, what=manifest.golden.file), manifest.inputs, strict=True
        ):
            batch = max(tensor.shape[0], 1) if tensor.shape else 1
            feeds.append(to_model(np.repeat(array[:1], batch, axis=0), tensor))
        self.run(feeds)

    def _confidence(self, outputs: Array, *, logits: bool) -> Verdict:
        thresholds = self.variant.confidence
        if (thresholds.energy is None and thresholds.max_softmax is None) or not outputs.size:
            return PASS
        values: np.ndarray[Any, np.dtype[np.float64]] = outputs.astype(np.float64)
        if not logits:
            return judge_confidence(thresholds, energy=float("nan"), max_softmax=float(values.max(axis=-1).min()))
        top = values.max(axis=-1)
        log_sum = top + np.log(np.exp(values - top[..., None]).sum(axis=-1))
        # The most unusual sample of the batch decides.
        worst = float(np.exp(top - log_sum).min())
        return judge_confidence(thresholds, energy=float((-log_sum).max()), max_softmax=worst)


def load_rung(rung: Rung, settings: EngineSettings) -> LoadedRung:
    """Load a rung after checking its model file's bytes. Raises BundleError, ContractError, EngineError or
    EngineMissingError."""
    bundle = open_bundle(Path(rung.folder), verify=False)
    variant = bundle.manifest.variant(rung.variant)
    session = engine_for(variant.format).load(bundle.check(variant.file), settings)
    return LoadedRung(
        rung=rung,
        bundle=bundle,
        variant=variant,
        intake=Intake(bundle.manifest),
        session=session,
        input_names=bind_inputs(session, bundle.manifest),
        output_names=bind_outputs(session, bundle.manifest),
        model_sha256=bundle.model_sha256(variant),
        served_by=rung.served_by,
    )


def spread(array: Array) -> Spread:
    """Return the smallest and largest element; both are NaN where the array holds one."""
    values: Any = array
    return Spread(minimum=float(values.min()), maximum=float(values.max()))


def is_finite(array: Array) -> bool:
    """Return whether an array holds neither NaN nor infinity; integers never do.

    The sum of squares is finite only then, and costs a fifth of looking for the extremes; where it overflowed they are
    looked for after all.
    """
    if array.dtype.kind != "f":
        return True
    values: Any = array
    return math.isfinite(np.vdot(values, values)) or spread(array).finite


def _clip(array: Array, tensor: Input) -> Array:
    low, high = tensor.guard.minimum, tensor.guard.maximum
    if array.dtype.kind == "f":
        middle = 0.0 if low is None or high is None else (low + high) / 2
        array = np.nan_to_num(array, nan=middle, posinf=high, neginf=low)
    clipped: Array = np.clip(array, low, high).astype(array.dtype, copy=False)
    return clipped
