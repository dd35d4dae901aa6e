"""Olive's quantization of an ONNX model. `run.py MODEL.onnx CALIBRATION.npy OUT.onnx static|static_u8|dynamic`

`static` and `dynamic` are its passes at their defaults. Olive reads calibration data through a registered data set;
ours is registered here, so the workflow runs in this process.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from olive import run
from olive.data.registry import Registry

DATASET = "calibration_samples"
U8 = {"per_channel": True, "precision": "uint8", "activation_type": "uint8", "weight_symmetric": True}

PASSES: dict[str, dict[str, Any]] = {
    "static": {"type": "OnnxStaticQuantization", "data_config": "calibration"},
    "static_u8": {"type": "OnnxStaticQuantization", "data_config": "calibration", **U8},
    "dynamic": {"type": "OnnxDynamicQuantization"},
}


class Samples:
    """Samples with a label that nobody reads, as Olive's loader wants them."""

    def __init__(self, name: str, samples: np.ndarray[Any, Any]) -> None:
        self._name, self._samples = name, samples

    def __len__(self) -> int:
        return len(self._samples)

    def __getitem__(self, index: int) -> tuple[dict[str, Any], int]:
        return {self._name: self._samples[index]}, 0


def main(model: str, calibration: str, out: str, setting: str) -> None:
    graph = onnx.load(model).graph
    constants = {tensor.name for tensor in graph.initializer}
    name = next(info.name for info in graph.input if info.name not in constants)
    samples = np.load(calibration)

    @Registry.register_dataset(DATASET)
    def dataset(**_: Any) -> Samples:
        return Samples(name, samples)

    data = {
        "name": "calibration",
        "type": "DataContainer",
        "load_dataset_config": {"type": DATASET},
        "dataloader_config": {"batch_size": 1},
    }
    with tempfile.TemporaryDirectory() as folder:
        run(
            {
                "input_model": {"type": "ONNXModel", "model_path": model},
                "data_configs": [data],
                "passes": {"quantize": PASSES[setting]},
                "output_dir": folder,
            }
        )
        shutil.copy(next(Path(folder).rglob("*.onnx")), out)


if __name__ == "__main__":
    main(*sys.argv[1:])
