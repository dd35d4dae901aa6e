"""ai-edge-quantizer's recipes. `run.py MODEL.tflite CALIBRATION.npy OUT.tflite weight_only|dynamic|static`

For `static` the model is given the signature that older converters did not write and that ranges are looked up by;
what goes in and comes out stays in float, so that all files are fed the same.
"""

from __future__ import annotations

import sys
from pathlib import Path

import flatbuffers
import numpy as np
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.interpreter import Interpreter
from ai_edge_quantizer import quantizer, recipe

RECIPES = {
    "weight_only": recipe.weight_only_wi8_afp32,
    "dynamic": recipe.dynamic_wi8_afp32,
    "static": recipe.static_wi8_ai8,
}


def with_signature(model: bytes) -> bytes:
    parsed = schema.ModelT.InitFromObj(schema.Model.GetRootAs(model, 0))
    if parsed.signatureDefs:
        return model
    graph, signature = parsed.subgraphs[0], schema.SignatureDefT()
    signature.signatureKey, signature.subgraphIndex = b"serving_default", 0
    signature.inputs = [tensor(graph, index) for index in graph.inputs]
    signature.outputs = [tensor(graph, index) for index in graph.outputs]
    parsed.signatureDefs = [signature]
    builder = flatbuffers.Builder(len(model))
    builder.Finish(parsed.Pack(builder), b"TFL3")
    return bytes(builder.Output())


def tensor(graph: schema.SubGraphT, index: int) -> schema.TensorMapT:
    entry = schema.TensorMapT()
    entry.name, entry.tensorIndex = graph.tensors[index].name, index
    return entry


def main(model: str, calibration: str, out: str, setting: str) -> None:
    content = Path(model).read_bytes()
    if setting == "static":
        content = with_signature(content)
    tool = quantizer.Quantizer(bytearray(content), RECIPES[setting]())
    ranges = None
    if tool.need_calibration:
        for boundary in ("INPUT", "OUTPUT"):
            tool.update_quantization_recipe(".*", boundary, algorithm_key="no_quantize")
        signature, described = next(iter(Interpreter(model_content=content).get_signature_list().items()))
        samples = [{described["inputs"][0]: sample[None]} for sample in np.load(calibration)]
        ranges = tool.calibrate({signature: samples})
    Path(out).write_bytes(tool.quantize(ranges).quantized_model)


if __name__ == "__main__":
    main(*sys.argv[1:])
