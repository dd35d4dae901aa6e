"""A small real TFLite model for tests, built from the schema that ships with LiteRT: y = x @ weights.T in float32."""

from __future__ import annotations

import flatbuffers
import numpy as np
from ai_edge_litert import schema_py_generated as schema


def linear_tflite(weights: np.ndarray) -> bytes:
    """Return a model of one fully connected operator; `weights` [features, classes]; input [1, features] named "x"."""
    features, classes = weights.shape
    model = schema.ModelT()
    model.version = 3
    model.operatorCodes = [_operator_code()]
    model.buffers = [schema.BufferT(), schema.BufferT()]
    model.buffers[1].data = np.frombuffer(np.ascontiguousarray(weights.T, np.float32).tobytes(), np.uint8)
    graph = schema.SubGraphT()
    graph.name = b"main"
    graph.tensors = [
        _tensor(b"x", [1, features], 0),
        _tensor(b"w", [classes, features], 1),
        _tensor(b"y", [1, classes], 0),
    ]
    graph.inputs, graph.outputs = [0], [2]
    operator = schema.OperatorT()
    operator.opcodeIndex = 0
    operator.inputs, operator.outputs = [0, 1, -1], [2]
    operator.builtinOptionsType = schema.BuiltinOptions.FullyConnectedOptions
    operator.builtinOptions = schema.FullyConnectedOptionsT()
    graph.operators = [operator]
    model.subgraphs = [graph]
    return _packed(model)


def external_tflite(weights: np.ndarray) -> bytes:
    """Return the same model, which says that it has weights in another file."""
    model = schema.ModelT.InitFromObj(schema.Model.GetRootAs(linear_tflite(weights)))
    group = schema.ExternalBufferGroupT()
    group.name = b"../../etc/passwd"
    outside = schema.ExternalBufferT()
    outside.id, outside.length = 1, weights.nbytes
    model.externalBufferGroups, model.externalBuffers = [group], [outside]
    return _packed(model)


def custom_tflite(weights: np.ndarray) -> bytes:
    """Return the same model with an operator that only a library of the model's author would have."""
    model = schema.ModelT.InitFromObj(schema.Model.GetRootAs(linear_tflite(weights)))
    code = model.operatorCodes[0]
    code.builtinCode = schema.BuiltinOperator.CUSTOM
    code.deprecatedBuiltinCode = schema.BuiltinOperator.CUSTOM
    code.customCode = b"Backdoor"
    model.subgraphs[0].operators[0].builtinOptionsType = 0
    model.subgraphs[0].operators[0].builtinOptions = None
    return _packed(model)


def _packed(model: schema.ModelT) -> bytes:
    builder = flatbuffers.Builder(1024)
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(builder.Output())


def _operator_code() -> schema.OperatorCodeT:
    code = schema.OperatorCodeT()
    code.builtinCode = code.deprecatedBuiltinCode = schema.BuiltinOperator.FULLY_CONNECTED
    code.version = 1
    return code


def _tensor(name: bytes, shape: list[int], buffer: int) -> schema.TensorT:
    tensor = schema.TensorT()
    tensor.name, tensor.shape, tensor.buffer = name, shape, buffer
    tensor.type = schema.TensorType.FLOAT32
    return tensor
