"""Small TFLite models, written table by table: no converter is needed."""

from typing import Any

import flatbuffers
import numpy as np
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.interpreter import Interpreter, OpResolverType
from support.makers import onnx_models

Array = np.ndarray[Any, Any]

INPUTS = onnx_models.CHANNELS * onnx_models.LENGTH
HIDDEN = 64
IMAGE = (1, 8, 8, 3)
NONE, RELU = schema.ActivationFunctionType.NONE, schema.ActivationFunctionType.RELU
SAME, VALID = schema.Padding.SAME, schema.Padding.VALID


class Sketch:
    """A model in the making, as older converters write one: without a signature, a buffer for every tensor."""

    def __init__(self) -> None:
        self.graph = schema.SubGraphT()
        self.graph.tensors, self.graph.operators = [], []
        self.model = schema.ModelT()
        self.model.version, self.model.subgraphs, self.model.operatorCodes = 3, [self.graph], []
        self.model.buffers = [schema.BufferT()]

    def tensor(self, name: str, shape: tuple[int, ...], values: Array | None = None) -> int:
        """Add a float tensor, a constant if it has values; return its index."""
        buffer, tensor = schema.BufferT(), schema.TensorT()
        if values is not None:
            buffer.data = np.frombuffer(values.astype(np.float32).tobytes(), np.uint8)
        self.model.buffers.append(buffer)
        tensor.name, tensor.shape, tensor.buffer = name.encode(), list(shape), len(self.model.buffers) - 1
        tensor.type = schema.TensorType.FLOAT32
        self.graph.tensors.append(tensor)
        return len(self.graph.tensors) - 1

    def constant(self, name: str, values: Array) -> int:
        return self.tensor(name, values.shape, values)

    def operator(self, kind: str, inputs: list[int], output: int, options: Any) -> None:
        code, node = schema.OperatorCodeT(), schema.OperatorT()
        code.builtinCode = code.deprecatedBuiltinCode = getattr(schema.BuiltinOperator, kind)
        code.version = 1
        self.model.operatorCodes.append(code)
        node.opcodeIndex, node.inputs, node.outputs = len(self.model.operatorCodes) - 1, inputs, [output]
        node.builtinOptionsType = getattr(schema.BuiltinOptions, type(options).__name__[:-1])
        node.builtinOptions = options
        self.graph.operators.append(node)

    def done(self, given: int, answer: int) -> bytes:
        self.graph.inputs, self.graph.outputs = [given], [answer]
        return packed(self.model)


def packed(model: Any) -> bytes:
    builder = flatbuffers.Builder(1024)
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(builder.Output())


def parsed(model: bytes) -> Any:
    return schema.ModelT.InitFromObj(schema.Model.GetRootAs(model, 0))


def dense(activation: int = NONE) -> Any:
    options = schema.FullyConnectedOptionsT()
    options.fusedActivationFunction = activation
    return options


def convolution(padding: int, *, stride: int = 1, dilation: int = 1, activation: int = NONE) -> Any:
    return _windows(schema.Conv2DOptionsT(), padding, stride, dilation, activation)


def depthwise(padding: int, *, multiplier: int = 1, stride: int = 1, activation: int = NONE) -> Any:
    options = schema.DepthwiseConv2DOptionsT()
    options.depthMultiplier = multiplier
    return _windows(options, padding, stride, 1, activation)


def _windows(options: Any, padding: int, stride: int, dilation: int, activation: int) -> Any:
    options.padding, options.fusedActivationFunction = padding, activation
    options.strideH = options.strideW = stride
    options.dilationHFactor = options.dilationWFactor = dilation
    return options


def dense_constants() -> list[Array]:
    """Return weights and biases of two fully connected layers, the first random, the second fitted."""
    generator = np.random.default_rng(0)
    first = (generator.standard_normal((HIDDEN, INPUTS)) / 6).astype(np.float32)
    bias = generator.standard_normal(HIDDEN).astype(np.float32)
    x, y = onnx_models.samples(1500, seed=1)
    hidden = np.maximum(x.reshape(len(x), -1) @ first.T + bias, 0)
    design = np.hstack([hidden, np.ones((len(x), 1))])
    fitted = np.linalg.lstsq(design, np.eye(4)[y] * 5.0, rcond=None)[0].astype(np.float32)
    return [first, bias, np.ascontiguousarray(fitted[:-1].T), fitted[-1]]


def dense_classifier() -> bytes:
    """Return them as a model."""
    sketch = Sketch()
    x, hidden, logits = (
        sketch.tensor(*one) for one in (("x", (1, INPUTS)), ("hidden", (1, HIDDEN)), ("logits", (1, 4)))
    )
    first, bias, last, offset = (sketch.constant(f"constant{i}", values) for i, values in enumerate(dense_constants()))
    sketch.operator("FULLY_CONNECTED", [x, first, bias], hidden, dense(RELU))
    sketch.operator("FULLY_CONNECTED", [hidden, last, offset], logits, dense())
    return sketch.done(x, logits)


def images(count: int, seed: int) -> Array:
    """Return images whose neighboring pixels and channels are alike, as those of cameras are."""
    noise = np.random.default_rng(seed).standard_normal((count, *IMAGE[1:])).astype(np.float32)
    smooth = noise.cumsum(axis=1).cumsum(axis=2) / 8
    return np.asarray(smooth + smooth.mean(axis=3, keepdims=True), np.float32)


def convolutional() -> bytes:
    """Return a model with every kind of layer that is rounded anew: a strided and a dilated convolution, one of each
    channel with two outputs each, and a fully connected layer that reads an image. Two of the biases are equal."""
    generator = np.random.default_rng(5)

    def weights(*shape: int) -> Array:
        return (generator.standard_normal(shape) / np.sqrt(np.prod(shape[1:]))).astype(np.float32)

    sketch, eight = Sketch(), weights(8)
    x, a, b, c = (
        sketch.tensor(*one) for one in (("x", IMAGE), ("a", (1, 4, 4, 8)), ("b", (1, 4, 4, 16)), ("c", (1, 2, 2, 8)))
    )
    logits = sketch.tensor("logits", (1, 10))
    first, middle = sketch.constant("first", weights(8, 3, 3, 3)), sketch.constant("middle", weights(1, 3, 3, 16))
    last, whole = sketch.constant("last", weights(8, 2, 2, 16)), sketch.constant("whole", weights(10, 32))
    biases = [sketch.constant(f"bias{i}", one) for i, one in enumerate((eight, weights(16), eight, weights(10)))]
    sketch.operator("CONV_2D", [x, first, biases[0]], a, convolution(SAME, stride=2))
    sketch.operator("DEPTHWISE_CONV_2D", [a, middle, biases[1]], b, depthwise(SAME, multiplier=2))
    sketch.operator("CONV_2D", [b, last, biases[2]], c, convolution(VALID, dilation=2))
    sketch.operator("FULLY_CONNECTED", [c, whole, biases[3]], logits, dense())
    return sketch.done(x, logits)


def answers(model: bytes, x: Array, *, optimized: bool = False) -> Array:
    """Return the answers to the samples, which have no batch axis, with the file's own kernels or the delegate's."""
    kernels = OpResolverType.AUTO if optimized else OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES
    interpreter = Interpreter(model_content=model, experimental_op_resolver_type=kernels)
    interpreter.allocate_tensors()
    fed, given = interpreter.get_input_details()[0], interpreter.get_output_details()[0]
    assert fed["dtype"] == given["dtype"] == np.float32
    found = []
    for one in x:
        interpreter.set_tensor(fed["index"], one[None])
        interpreter.invoke()
        found.append(interpreter.get_tensor(given["index"])[0].copy())
    return np.array(found)
