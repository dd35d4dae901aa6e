"""onnxsim's quantizers. `run.py MODEL.onnx CALIBRATION.npy OUT.onnx static|full|dynamic|auto`

`static` and `dynamic` are its defaults, `full` quantizes the whole graph, `auto` is its own search within an accuracy
budget of two points. Models are simplified before, without which it leaves many of their nodes alone, and after, which
removes the float weights that it leaves beside the integers.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import onnxsim

Feeds = list[dict[str, np.ndarray[Any, Any]]]
SETTINGS: dict[str, Callable[[onnx.ModelProto, Feeds], onnx.ModelProto]] = {
    "static": lambda model, feeds: onnxsim.quantize_static(model, feeds),
    "full": lambda model, feeds: onnxsim.quantize_static(model, feeds, full_graph=True),
    "dynamic": lambda model, _: onnxsim.quantize_dynamic(model),
    "auto": lambda model, feeds: onnxsim.quantize_auto(model, 0.02, calibration_data=feeds),
}


def main(model: str, calibration: str, out: str, setting: str) -> None:
    graph, samples = onnx.load(model), np.load(calibration)
    constants = {tensor.name for tensor in graph.graph.initializer}
    name = next(info.name for info in graph.graph.input if info.name not in constants)
    plain, _ = onnxsim.simplify(graph)
    made, _ = onnxsim.simplify(SETTINGS[setting](plain, [{name: sample[None]} for sample in samples]))
    onnx.save(made, out)


if __name__ == "__main__":
    main(*sys.argv[1:])
