"""ai-edge-quantizer's recipes. `run.py MODEL.tflite CALIBRATION.npy OUT.tflite weight_only|dynamic|static`"""

from __future__ import annotations

import sys

import numpy as np
from ai_edge_litert.interpreter import Interpreter
from ai_edge_quantizer import quantizer, recipe

RECIPES = {
    "weight_only": recipe.weight_only_wi8_afp32,
    "dynamic": recipe.dynamic_wi8_afp32,
    "static": recipe.static_wi8_ai8,
}


def main(model: str, calibration: str, out: str, setting: str) -> None:
    tool = quantizer.Quantizer(model, RECIPES[setting]())
    ranges = None
    if tool.need_calibration:
        signatures = Interpreter(model_path=model).get_signature_list()
        if not signatures:
            raise SystemExit("static: the model has no signature, which the quantizer looks ranges up by")
        signature, described = next(iter(signatures.items()))
        samples = [{described["inputs"][0]: sample[None]} for sample in np.load(calibration)]
        ranges = tool.calibrate({signature: samples})
    tool.quantize(ranges).export_model(out)


if __name__ == "__main__":
    main(*sys.argv[1:])
