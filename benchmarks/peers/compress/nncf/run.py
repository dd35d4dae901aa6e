"""NNCF's post-training quantization. `run.py MODEL.onnx CALIBRATION.npy OUT.onnx performance|mixed|accurate_bias`

`performance` is its default preset with fast bias correction; `mixed` has asymmetric activations; `accurate_bias`
corrects biases layer by layer instead.
"""

from __future__ import annotations

import sys
from typing import Any

import nncf
import numpy as np
import onnx

SETTINGS: dict[str, dict[str, Any]] = {
    "performance": {},
    "mixed": {"preset": nncf.QuantizationPreset.MIXED},
    "accurate_bias": {"preset": nncf.QuantizationPreset.MIXED, "fast_bias_correction": False},
}


def main(model: str, calibration: str, out: str, setting: str) -> None:
    graph, samples = onnx.load(model), np.load(calibration)
    constants = {tensor.name for tensor in graph.graph.initializer}
    name = next(info.name for info in graph.graph.input if info.name not in constants)
    data = nncf.Dataset([{name: sample[None]} for sample in samples])
    onnx.save(nncf.quantize(graph, data, subset_size=len(samples), **SETTINGS[setting]), out)


if __name__ == "__main__":
    main(*sys.argv[1:])
