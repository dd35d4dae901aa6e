"""Checks whether a request fits the model: names, dtypes, shapes."""

from __future__ import annotations

import numpy as np

from edge_agent.errors import TensorError
from edge_agent.inference.guard_policy import GuardVerdict
from edge_agent.inference.guards import InputGuards, is_finite
from edge_agent.inference.sample_runs import resting
from edge_agent.inference.samples import to_model
from edge_agent.ports import Array, Tensors
from edge_contracts.errors import ContractError
from edge_contracts.manifest import Input, Manifest

MOST_SHOWN = 8
"""Values of a constant that an error shows."""


class _InputCheck:
    """One input of a release, with what a request's check asks of it worked out beforehand."""

    __slots__ = ("as_is", "constant", "dtypes", "guarding", "name", "resting", "tensor", "usual")

    def __init__(self, tensor: Input) -> None:
        mapping = tensor.sample
        self.tensor = tensor
        self.name = tensor.name
        self.dtypes = tuple(np.dtype(name) for name in dict.fromkeys((mapping.dtype, tensor.dtype)))
        # A batch of one; a sample that goes through steps has another shape than one that is fed as it is.
        self.usual = None if mapping.steps else tuple(size if size != -1 else 1 for size in tensor.shape)
        is_mapped = mapping.offset != 0.0 or mapping.scale != 1.0 or bool(mapping.steps)
        self.as_is = len(self.dtypes) == 1 and not is_mapped
        self.guarding = InputGuards(tensor)
        self.constant = None if tensor.constant is None else resting(tensor)
        self.resting = None if tensor.sampled else resting(tensor)  # what it is where a request leaves it out


class RequestCheck:
    """What one release accepts: checks, maps and guards the tensors of a request."""

    def __init__(self, manifest: Manifest) -> None:
        self._inputs = [_InputCheck(tensor) for tensor in manifest.inputs]

    def fit(self, tensors: Tensors) -> list[Array]:
        """Return the tensors in the manifest's order, each mapped to what the model is fed. A constant or a state that
        a request leaves out is as declared, or as at the first step.

        Raises TensorError naming a tensor that is unknown, missing, of the wrong dtype or shape, or a constant with
        another value: variants are made for that one.
        """
        if len(tensors) != len(self._inputs):
            self._refuse_names(tensors)
        return [self._fit_one(tensors, check) for check in self._inputs]

    def guard(self, feeds: list[Array]) -> list[GuardVerdict]:
        """Judge every feed; return the verdicts that object, after clipping in place in the list what may be clipped.

        Raises TensorError for a verdict of reject.
        """
        objections: list[GuardVerdict] = []
        for index, check in enumerate(self._inputs):
            feeds[index], verdicts = check.guarding.judge(feeds[index])
            for verdict in verdicts:
                if verdict.action == "reject":
                    raise TensorError(verdict.text, subject=check.name)
                objections.append(GuardVerdict(action=verdict.action, text=f"{check.name}: {verdict.text}"))
        return objections

    def _fit_one(self, tensors: Tensors, check: _InputCheck) -> Array:
        array = tensors.get(check.name)
        if array is None and check.resting is not None:
            return check.resting
        if array is None:
            self._refuse_names(tensors)
            raise TensorError("missing", subject=check.name)
        if not isinstance(array, np.ndarray):
            raise TensorError(f"not a NumPy array but {type(array).__name__}", subject=check.name)
        if array.dtype not in check.dtypes:
            wanted = " or ".join(str(dtype) for dtype in check.dtypes)
            raise TensorError(f"dtype is {array.dtype}, not {wanted}", subject=check.name)
        if array.shape != check.usual:
            processed = check.tensor.sample.steps and array.dtype == check.dtypes[0]
            _check_shape(array.shape, check.tensor.sample_shape if processed else check.tensor.shape, check.name)
        if check.constant is not None and not np.array_equal(array, check.constant):
            wanted = _shown(check.constant)
            raise TensorError(f"is {_shown(array)}, this release answers for {wanted}", subject=check.name)
        if check.as_is:
            return array
        if array.dtype.kind == "f" and check.tensor.dtype[0] not in "fb" and not is_finite(array):
            raise TensorError("contains NaN or infinity, which has no integer value", subject=check.name)
        try:
            return to_model(array, check.tensor)
        except ContractError as error:  # a sample of open size that a step cannot take
            raise TensorError(str(error), subject=check.name) from error

    def _refuse_names(self, tensors: Tensors) -> None:
        known = [check.name for check in self._inputs]
        for name in tensors:
            if name not in known:
                raise TensorError(f"not an input of this model, which has {', '.join(known)}", subject=str(name)[:80])
        for check in self._inputs:
            if check.name not in tensors and check.resting is None:
                raise TensorError("missing", subject=check.name)


def _shown(values: Array) -> str:
    return str(np.asarray(values).ravel()[:MOST_SHOWN].tolist()).strip("[]")


def _check_shape(shape: tuple[int, ...], declared: tuple[int, ...], name: str) -> None:
    if len(shape) != len(declared) or any(w not in (-1, s) for s, w in zip(shape, declared, strict=True)):
        raise TensorError(f"shape is {list(shape)}, not {list(declared)}", subject=name)
    if 0 in shape:
        raise TensorError(f"shape {list(shape)} holds no element", subject=name)
