"""A scikit-learn estimator saved by skops, as an ONNX model with one output: class probabilities, or values.

Pickles are never read: anything that can be pickled can run code. skops builds only types that are listed; an estimator
with others is refused by their names, and its owner exports it with skl2onnx instead (docs/how-to/compress-a-model.md
has the lines).
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from edge_compression.onnx_tools.graph import Array

ML_OPSET = 3
"""Operator set of trees, scalers and the like."""

INPUT = "x"

TRUSTED = [
    "sklearn.neural_network._stochastic_optimizers.AdamOptimizer",
    "sklearn.neural_network._stochastic_optimizers.SGDOptimizer",
    "sklearn.tree._tree.Tree",
]
"""Types that skops does not vouch for and that hold numbers only. The optimizers are left over from training. Asking a
damaged tree may crash the process, which is why `bring_in` does all this in one of its own."""


class EstimatorError(Exception):
    """The estimator is of a kind that has no answer a task can score; the message names its class."""


def from_sklearn(path: Path, opset: int, dtype: str) -> tuple[onnx.ModelProto, Callable[[Array], Array]]:
    """Return the ONNX model of a saved estimator, samples [N, features] of `dtype` in, and the estimator's own answer.

    Class probabilities are in the order of the estimator's `classes_`. Raises EstimatorError, and whatever skops and
    skl2onnx raise: types that are not trusted, steps that cannot be converted, both by name.
    """
    import skops.io
    from skl2onnx import convert_sklearn
    from skl2onnx.common import data_types
    from sklearn.base import is_classifier, is_regressor

    estimator: Any = skops.io.load(path, trusted=TRUSTED)
    classifies = is_classifier(estimator) and hasattr(estimator, "predict_proba")
    if not classifies and not is_regressor(estimator):
        raise EstimatorError(f"{type(estimator).__name__} gives neither class probabilities nor values")
    width = getattr(estimator, "n_features_in_", None)
    if width is None:
        raise EstimatorError(f"{type(estimator).__name__} does not say how many features it takes: is it fitted?")
    kinds = {"float64": data_types.DoubleTensorType, "int64": data_types.Int64TensorType}
    kind = kinds.get(dtype, data_types.FloatTensorType)
    model = convert_sklearn(
        estimator,
        initial_types=[(INPUT, kind([None, width]))],
        target_opset={"": opset, "ai.onnx.ml": ML_OPSET},
        options={id(estimator): {"zipmap": False}} if classifies else None,
    )
    _keep_last_output(model)

    def answer(x: Array) -> Array:
        found = np.asarray(estimator.predict_proba(x) if classifies else estimator.predict(x))
        return found if found.ndim > 1 else found[:, None]

    return model, answer


def _keep_last_output(model: onnx.ModelProto) -> None:
    """Leave out the label a classifier gives first: scores are what answers are compared by."""
    del model.graph.output[:-1]
