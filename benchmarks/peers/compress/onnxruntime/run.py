"""ONNX Runtime's own quantizer. `run.py MODEL.onnx CALIBRATION.npy OUT.onnx SETTING`

`static` and `dynamic` are its defaults; the other settings are what its documentation names for accuracy and for CPUs
without VNNI. It runs in our own environment: the same onnxruntime that ours uses.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from onnxruntime.quantization import CalibrationDataReader, QuantType, quantize_dynamic, quantize_static
from onnxruntime.quantization.shape_inference import quant_pre_process

STATIC: dict[str, dict[str, Any]] = {
    "static": {},
    "static_u8": {"per_channel": True, "activation_type": QuantType.QUInt8},
    "static_per_channel": {"per_channel": True},
    "static_reduce_range": {"per_channel": True, "reduce_range": True},
}


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
        try:
            quant_pre_process(model, prepared)
        except Exception:  # "Incomplete symbolic shape inference": its documentation says to skip that then
            quant_pre_process(model, prepared, skip_symbolic_shape=True)
        if setting == "dynamic":
            quantize_dynamic(prepared, out)
        else:
            quantize_static(prepared, out, Samples(name, np.load(calibration)), **STATIC[setting])


if __name__ == "__main__":
    main(*sys.argv[1:])
