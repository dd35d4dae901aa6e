"""AMD Quark for ONNX with one of its configurations by name. `run.py MODEL.onnx CALIBRATION.npy OUT.onnx XINT8|...`"""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
import onnx
from onnxruntime.quantization import CalibrationDataReader
from quark.onnx import ModelQuantizer
from quark.onnx.quantization.config import Config, get_default_config


class Samples(CalibrationDataReader):
    """One calibration sample after another."""

    def __init__(self, name: str, samples: np.ndarray[Any, Any]) -> None:
        self._feeds = iter([{name: sample[None]} for sample in samples])

    def get_next(self) -> dict[str, Any] | None:
        return next(self._feeds, None)


def main(model: str, calibration: str, out: str, setting: str) -> None:
    graph = onnx.load(model).graph
    constants = {tensor.name for tensor in graph.initializer}
    name = next(info.name for info in graph.input if info.name not in constants)
    quantizer = ModelQuantizer(Config(global_quant_config=get_default_config(setting)))
    quantizer.quantize_model(model, out, Samples(name, np.load(calibration)))


if __name__ == "__main__":
    main(*sys.argv[1:])
