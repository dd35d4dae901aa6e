"""What `test_prune.py` and `test_prune_processes.py` share."""

from collections.abc import Iterator
from typing import Any

import numpy as np
from support.makers import onnx_models

from edge_compression.pass_api import Context

Array = np.ndarray[Any, Any]
CALIBRATION, _ = onnx_models.samples(96, seed=10)


def feeds() -> Iterator[dict[str, Array]]:
    for sample in CALIBRATION:
        yield {"x": sample[None]}


def context(model: bytes) -> Context:
    return Context(calibration=feeds, unquantized=model)
