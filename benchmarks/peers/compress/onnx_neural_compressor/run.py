"""ONNX Neural Compressor at its defaults. `run.py MODEL.onnx CALIBRATION.npy OUT.onnx static|dynamic`"""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
import onnx
from onnx_neural_compressor import data_reader
from onnx_neural_compressor.quantization import config, quantize


class Samples(data_reader.CalibrationDataReader):
    """One calibration sample after another, from the beginning again when asked."""

    def __init__(self, name: str, samples: np.ndarray[Any, Any]) -> None:
        self._name, self._samples = name, samples
        self.rewind()

    def get_next(self) -> dict[str, Any] | None:
        return next(self._feeds, None)

    def rewind(self) -> None:
        self._feeds = iter([{self._name: sample[None]} for sample in self._samples])


def main(model: str, calibration: str, out: str, setting: str) -> None:
    graph = onnx.load(model).graph
    constants = {tensor.name for tensor in graph.initializer}
    name = next(info.name for info in graph.input if info.name not in constants)
    if setting == "dynamic":
        quantize(model, out, config.DynamicQuantConfig())
    else:
        quantize(model, out, config.StaticQuantConfig(calibration_data_reader=Samples(name, np.load(calibration))))


if __name__ == "__main__":
    main(*sys.argv[1:])
