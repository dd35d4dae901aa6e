"""What Triton adds to the Open Inference Protocol and its clients ask for: a model's configuration and its statistics.

Source: triton-inference-server/server `docs/protocol/extension_model_configuration.md` and `extension_statistics.md`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Final

import numpy as np

from edge_agent.http.oip_codec import datatype
from edge_agent.inference.counters import Counters
from edge_contracts.limits import MAX_TENSOR_BYTES
from edge_contracts.manifest import Manifest

EXTENSIONS: Final = ("model_configuration", "statistics")

_BACKENDS: Final = {"onnx": "onnxruntime", "tflite": "litert", "pipeline": "edgewright"}
_TYPES: Final = {"BYTES": "TYPE_STRING"}


def model_config(manifest: Manifest, platform: str) -> dict[str, Any]:
    """Return the model's configuration. Where every tensor begins with a dimension of any size, that is the batch: it
    is left out of `dims`, and `max_batch_size` is what one request may hold of it; else that is 0."""
    inputs = [(tensor.name, tensor.sample.dtype, tensor.sample_shape) for tensor in manifest.inputs]
    outputs = [(name, spec.dtype, spec.shape) for name, spec in manifest.answers.items()]
    batches = all(tuple(shape[:1]) == (-1,) for _, _, shape in (*inputs, *outputs))
    row = sum(math.prod(abs(size) for size in shape) * np.dtype(dtype).itemsize for _, dtype, shape in inputs)
    return {
        "name": manifest.name,
        "platform": platform,
        "backend": _BACKENDS[manifest.variants[0].format],
        "version_policy": {"specific": {"versions": [manifest.version]}},
        "max_batch_size": MAX_TENSOR_BYTES // max(row, 1) if batches else 0,
        "input": [_tensor(*one, batches=batches) for one in inputs],
        "output": [_tensor(*one, batches=batches) for one in outputs],
    }


def model_statistics(manifest: Manifest, counters: Counters, last_ms: int) -> dict[str, Any]:
    """Return the model's statistics since this worker's start; a request counts once, whatever its batch. Times are of
    answering as a whole; reading and encoding are not measured apart, and nothing is kept that could be hit or missed.
    `last_ms`: milliseconds since the epoch."""
    totals = counters.counters
    answered = _duration(totals["requests"], counters.latency_sum_us)
    none = _duration(0, 0)
    return {
        "model_stats": [
            {
                "name": manifest.name,
                "version": manifest.version,
                "last_inference": last_ms,
                "inference_count": totals["requests"],
                "execution_count": totals["requests"],
                "inference_stats": {
                    "success": answered,
                    "fail": _duration(totals["rejected"] + totals["shed"], 0),
                    "queue": none,
                    "compute_input": none,
                    "compute_infer": answered,
                    "compute_output": none,
                    "cache_hit": none,
                    "cache_miss": none,
                },
                "response_stats": {},
                "batch_stats": [],
                "memory_usage": [],
            }
        ]
    }


def _duration(count: int, microseconds: int) -> dict[str, int]:
    return {"count": count, "ns": microseconds * 1000}


def _tensor(name: str, dtype: str, shape: Sequence[int], *, batches: bool) -> dict[str, Any]:
    known = datatype(dtype)
    return {
        "name": name,
        "data_type": _TYPES.get(known, f"TYPE_{known}"),
        "dims": list(shape[1:] if batches else shape),
    }
