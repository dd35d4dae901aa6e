"""ONNX Runtime's own quantizer at its defaults. `run.py MODEL.onnx CALIBRATION.npy OUT.onnx static|dynamic`

It runs in our own environment: the same onnxruntime that ours uses.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from onnxruntime.quantization import CalibrationDataReader, quantize_dynamic, quantize_static
from onnxruntime.quantization.shape_inference import quant_pre_process


class Samples(CalibrationDataReader):
    """One calibration sample after another."""

    def __init__(self, name: str, samples: np.ndarray[Any, Any]) -> None:
        self._feeds = iter([{name: sample[None]} for sample in samples])

    def get_next(self) -> dict[str, Any] | None:
        return next(self._feeds, None)


def main(model: str, calibration: str, out: str, setting: str) -> None:
    name = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"]).get_inputs()[0].name
    with tempfile.TemporaryDirectory() as folder:
        prepared = str(Path(folder) / "prepared.onnx")
        quant_pre_process(model, prepared)
        if setting == "dynamic":
            quantize_dynamic(prepared, out)
        else:
            quantize_static(prepared, out, Samples(name, np.load(calibration)))


if __name__ == "__main__":
    main(*sys.argv[1:])
