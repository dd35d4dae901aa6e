"""The guards of a bundle: those that the task declares, and what calibration samples say where it declares nothing.

What guards mean is in `edge_contracts.guards`; devices judge requests with the same code that counts here what they
would say of the evaluation samples.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any, Final, Literal

import numpy as np
from msgspec.structs import replace
from numpy.typing import NDArray

from edge_agent.inference.guards import InputGuards
from edge_agent.inference.samples import to_model
from edge_agent.ports import TensorInfo
from edge_bench.task import Task
from edge_contracts.errors import BundleError
from edge_contracts.guards import FeatureGuard, InputGuard, OutputGuard, check_input_guard, check_output_guard
from edge_contracts.manifest import Input, check_last_resort

Array = NDArray[Any]

MARGIN: Final = 0.25
"""How far beyond the calibration samples' range, as a share of it, an input is not yet remarkable."""

_ENDS: Final = {
    "reject": "would be rejected",
    "fallback": "would get the last resort's answer",
    "clip": "would be clipped",
}
"""What becomes of a sample, the worst first."""


def guarded(task: Task, tensor: Input, index: int = 0) -> Input:
    """Return the task's input `index` with its guard: as the task declares it for the first that takes samples, ranges
    that it leaves open from calibration samples. Where features are guarded, there is a range of all numbers together
    only if one is declared. Where samples miss values, a NaN is told and not refused.

    Raises ContractError naming the task's field.
    """
    one = task.inputs[index]
    if one.calibration is None or one.samples is None:
        return tensor
    what = f"{task.path.name} guard.input"
    declared = task.file.guard.input if one is task.first else InputGuard()
    if one.samples.dtype.kind == "f" and np.isnan(one.samples).any():
        declared = replace(declared, not_finite="warn")
    steps = one.calibration.reshape(-1, *one.calibration.shape[2:]) if task.sequences else one.calibration
    fed = to_model(steps, tensor)
    low, high = (None, None) if declared.features else _range(fed)
    guard = replace(
        declared,
        minimum=_bound(declared.minimum, low),
        maximum=_bound(declared.maximum, high),
        features=tuple(_feature(one, fed, declared.axis % fed.ndim) for one in declared.features),
    )
    check_input_guard(guard, (-1, *tensor.shape[1:]), what)
    return replace(tensor, guard=guard)


def output_guard(declared: OutputGuard, kind: OutputKind) -> OutputGuard:
    """Return the guard of the answer that is judged; probabilities lie between 0 and 1, a quantization step aside,
    unless something else is declared."""
    low, high = (-0.05, 1.05) if kind == "probabilities" else (None, None)
    return OutputGuard(minimum=_bound(declared.minimum, low), maximum=_bound(declared.maximum, high))


def check_answers(task: Task, outputs: Sequence[TensorInfo]) -> None:
    """Check what the task declares of answers against a model's outputs. Raises ContractError naming the field."""
    check_output_guard(task.file.guard.output, f"{task.path.name} guard.output")
    check_last_resort(task.file.last_resort, [one.shape for one in outputs], f"{task.path.name} last_resort")


def check_finite(task: Task, names: Sequence[str], outputs: Sequence[Array], order: Array) -> None:
    """Refuse samples that the model answers with NaN; `order` is their place in the task's. Raises BundleError naming
    file, output and sample."""
    for name, array in zip(names, outputs, strict=True):
        if array.dtype.kind != "f" or not np.isnan(array).any():
            continue
        first = int(np.flatnonzero(np.isnan(array).reshape(len(array), -1).any(axis=1))[0])
        misses = any(one.samples is not None and np.isnan(one.samples.astype(np.float64)).any() for one in task.inputs)
        hint = "it does not take missing values: fill them in" if misses else "check scale and offset of its inputs"
        text = f"the model answers NaN in {name!r}, first to sample {order[first]}"
        raise BundleError(text, subject=task.data.name, hint=hint)


def objections(tensor: Input, x: Array) -> Iterator[str]:
    """Say how many samples the device would not take as they are, and why, the worst first."""
    guard = tensor.guard
    if {guard.out_of_range, *(one.action for one in guard.features)} == {"warn"}:
        return
    judged = InputGuards(tensor)
    counts: Counter[str] = Counter()
    first: dict[str, str] = {}
    for index in range(x.shape[0]):
        _, verdicts = judged.judge(to_model(x[index : index + 1], tensor))
        actions = {verdict.action: verdict.text for verdict in reversed(verdicts)}
        worst = next((action for action in _ENDS if action in actions), None)
        if worst is not None:
            counts[worst] += 1
            first.setdefault(worst, actions[worst])
    for action in filter(counts.__getitem__, _ENDS):
        yield (
            f"{counts[action]} of {x.shape[0]} evaluation samples {_ENDS[action]} on a device, the first because "
            f"{tensor.name}: {first[action]}; they were scored unchanged here"
        )


def _feature(declared: FeatureGuard, fed: Array, axis: int) -> FeatureGuard:
    """Return the guard of one feature; one that says nothing gets the range of the calibration samples."""
    low, high = _bound(declared.minimum, None), _bound(declared.maximum, None)
    is_open = declared.minimum is None and declared.maximum is None and not declared.categories
    if is_open and declared.index < fed.shape[axis]:  # one that is beyond is refused by its index
        low, high = _range(fed.take(declared.index, axis))
    return replace(declared, minimum=low, maximum=high)


def _range(fed: Array) -> tuple[float, float]:
    if fed.dtype.kind == "b":
        return 0.0, 1.0
    low, high = float(np.fmin.reduce(fed, None)), float(np.fmax.reduce(fed, None))
    if not math.isfinite(low) or not math.isfinite(high):
        return -math.inf, math.inf
    margin = MARGIN * (high - low)
    return low - margin, high + margin


def _bound(declared: float | None, seen: float | None) -> float | None:
    """Return a bound as declared, else as seen; an infinite one is none."""
    bound = seen if declared is None else declared
    return None if bound is None or math.isinf(bound) else bound


OutputKind = Literal["logits", "probabilities", "values"]
