"""NNCF's post-training quantization at its defaults. `run.py MODEL.onnx CALIBRATION.npy OUT.onnx`"""

from __future__ import annotations

import sys

import nncf
import numpy as np
import onnx


def main(model: str, calibration: str, out: str) -> None:
    graph, samples = onnx.load(model), np.load(calibration)
    constants = {tensor.name for tensor in graph.graph.initializer}
    name = next(info.name for info in graph.graph.input if info.name not in constants)
    data = nncf.Dataset([{name: sample[None]} for sample in samples])
    onnx.save(nncf.quantize(graph, data, subset_size=len(samples)), out)


if __name__ == "__main__":
    main(*sys.argv[1:])
