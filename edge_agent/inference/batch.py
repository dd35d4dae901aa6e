"""Several requests answered as one batch: when a rung may do that, and taking its answer apart again.

Allowed is only what gives every request the answer it would have had alone. A dynamically quantized model does not: its
scales depend on what else is in the batch. So each rung proves itself on its golden samples, on this device, when it
is first asked. Collecting requests that arrive together is `adapters.batching`'s.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from edge_agent.inference.guard_policy import PASS
from edge_agent.inference.request_check import RequestCheck
from edge_agent.inference.rungs.rung import LoadedRung
from edge_agent.inference.samples import read_arrays, sample_inputs, to_model
from edge_agent.ports import Array, Tensors
from edge_contracts import limits
from edge_contracts.errors import EdgewrightError

TOLERANCE = 1e-5
"""Largest difference between an answer in a batch and alone, relative to the largest number in it: sums taken in
another order, and nothing more."""


def batches_equally(rung: LoadedRung, size: int) -> bool:
    """Return whether a rung answers up to `size` golden samples in one batch as it answers each alone."""
    manifest = rung.bundle.manifest
    shapes = [tensor.shape for tensor in manifest.inputs] + [tensor.shape for tensor in manifest.outputs]
    if not all(tensor.sampled for tensor in manifest.inputs):
        return False
    if manifest.golden is None or manifest.golden.samples < 2 or any(shape[:1] != (-1,) for shape in shapes):
        return False
    try:
        arrays = read_arrays(rung.bundle.check(manifest.golden.file), what=manifest.golden.file)
        samples = sample_inputs(arrays, manifest, what=manifest.golden.file)
        feeds = [to_model(array[:size], tensor) for array, tensor in zip(samples, manifest.inputs, strict=True)]
        alone = [rung.run([feed[index : index + 1] for feed in feeds]) for index in range(len(feeds[0]))]
        together = rung.run(feeds)
    except EdgewrightError:
        return False
    return all(_close(np.concatenate([one[name] for one in alone]), array) for name, array in together.items())


def answer_together(
    rung: LoadedRung, intake: RequestCheck, requests: Sequence[Tensors], size: int
) -> list[dict[str, Array]] | None:
    """Return the outputs of each of at most `size` requests, or None where they must be asked one by one: the rung has
    not proved itself, they differ in shape, are too large together, or a guard has something to say.

    Raises TensorError, EngineError and GuardError: what they are about shows when the requests are asked one by one.
    """
    if rung.batches is None:
        rung.batches = batches_equally(rung, size)
    if not rung.batches:
        return None
    feeds = [intake.fit(tensors) for tensors in requests]
    shapes = {tuple(feed.shape for feed in feed_list) for feed_list in feeds}
    total = sum(feed.nbytes for feed_list in feeds for feed in feed_list)
    if len(shapes) > 1 or total > limits.MAX_TENSOR_BYTES or any(intake.guard(feed_list) for feed_list in feeds):
        return None
    outputs, confidence = rung.answer([np.concatenate(parts) for parts in zip(*feeds, strict=True)])
    if confidence is not PASS:
        return None
    parts = {name: np.split(array, len(requests)) for name, array in outputs.items()}
    return [{name: split[index] for name, split in parts.items()} for index in range(len(requests))]


def _close(alone: Array, together: Array) -> bool:
    if alone.shape != together.shape:
        return False
    values: np.ndarray[tuple[int, ...], np.dtype[np.float64]] = alone.astype(np.float64)
    largest = float(np.abs(values).max(initial=0.0))
    return bool(np.allclose(together.astype(np.float64), values, rtol=0.0, atol=TOLERANCE * largest))
