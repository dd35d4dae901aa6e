"""Inputs made up for a model that nobody gave samples for: of the sizes it declares, with those it leaves open given.

Used to measure a model and to record its own answers. What real samples become before they are fed is in `samples`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from edge_agent.ports import Array, TensorInfo
from edge_contracts.errors import OperatorError

Shapes = Mapping[str, tuple[int, ...]]
"""Sizes for inputs that leave some open, by the engine's name of the input."""

STEPS = 16
"""Parts of one in a made-up float: such numbers are exact in half precision, and a set of them packs well."""


def parse_shapes(words: Iterable[str]) -> dict[str, tuple[int, ...]]:
    """Return sizes by input of words such as `x=1,3,320,320`; a name may hold any character. Raises OperatorError."""
    found = {}
    for word in words:
        name, equals, text = word.rpartition("=")
        try:
            sizes = tuple(int(size) for size in text.split(",")) if text else ()
        except ValueError:
            sizes = (0,)
        if not equals or not name or min(sizes, default=1) < 1:
            raise OperatorError(f"{word[:80]!r} is no NAME=SIZES", subject="--shape", hint="such as x=1,3,320,320")
        found[name] = sizes
    return found


def sizes_of(inputs: Sequence[TensorInfo], shapes: Shapes) -> dict[str, tuple[int, ...]]:
    """Return the sizes to feed each input with, by its name: those given, else its own with a batch of one.

    Raises OperatorError when given sizes do not fit, and for an open axis other than the first: a model is not
    measured, and proves nothing, at a size that nobody uses.
    """
    by_name = {info.name: info for info in inputs}
    for name, given in shapes.items():
        if name not in by_name:
            known = ", ".join(one[:80] for one in by_name)
            raise OperatorError(f"the model has no input {name[:80]!r}", subject="--shape", hint=f"its inputs: {known}")
        if not _fits(given, by_name[name].shape):
            what = f"{list(given)} does not fit input {name[:80]}: {list(by_name[name].shape)}"
            raise OperatorError(what, subject="--shape")
    unknown = [info for info in inputs if info.name not in shapes and any(size < 0 for size in info.shape[1:])]
    if unknown:
        named = ", ".join(f"{info.name[:80]} {list(info.shape)}" for info in unknown[:5])
        example = " ".join(f"--shape {info.name}={_example(info)}" for info in unknown)
        hint = f"give them: {example[:300]}, with numbers for N"
        raise OperatorError(f"sizes are left open by the input {named}", subject="--shape", hint=hint)
    return {info.name: shapes.get(info.name, tuple(1 if size < 0 else size for size in info.shape)) for info in inputs}


def _fits(given: Sequence[int], shape: Sequence[int]) -> bool:
    return len(given) == len(shape) and all(size in (-1, own) for own, size in zip(given, shape, strict=True))


def _example(info: TensorInfo) -> str:
    return ",".join(str(size) if size > 0 else "N" if axis else "1" for axis, size in enumerate(info.shape))


def made_up(info: TensorInfo, sizes: Sequence[int], generator: np.random.Generator) -> Array:
    """Return an array of an input's dtype and of these sizes: normal numbers in `STEPS` parts, indices that stay inside
    any embedding table, and the full range of a quantized input."""
    kind = np.dtype(info.dtype)
    if kind.kind == "f":
        return (np.round(generator.standard_normal(sizes) * STEPS) / STEPS).astype(kind)
    if kind.kind == "b":
        return generator.integers(0, 2, sizes).astype(kind)
    high = 2 if kind.itemsize > 1 else int(np.iinfo(kind).max)
    return generator.integers(0, high, sizes).astype(kind)
