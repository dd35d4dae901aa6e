"""The walkers over model files know every place where a tensor can be: the tables are held against the libraries'."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from support.makers import tflite_files

from edge_agent.engines.onnx_external_data import refuse_external_data
from edge_agent.errors import EngineError
from edge_io.onnx_tensors import CHILDREN, MAX_DEPTH, tensor_messages
from edge_io.tflite_tensors import has_external_buffers, is_tflite, tensors

MESSAGES = {
    "ModelProto": "model",
    "TrainingInfoProto": "training",
    "GraphProto": "graph",
    "FunctionProto": "function",
    "NodeProto": "node",
    "AttributeProto": "attribute",
    "SparseTensorProto": "sparse",
    "TensorProto": "tensor",
}


def hold_tensors(message: object) -> dict[str, dict[int, str]]:
    """Return onnx's own table: of each message that can hold a tensor, the fields that can, and what is in them."""
    found: dict[str, dict[int, str]] = {}
    waiting = [message]
    while waiting:
        descriptor = waiting.pop()
        kept = {
            field.number: MESSAGES[field.message_type.name]
            for field in descriptor.fields  # type: ignore[attr-defined]
            if field.message_type is not None and field.message_type.name in MESSAGES
        }
        name = MESSAGES[descriptor.name]  # type: ignore[attr-defined]
        if name != "tensor" and name not in found:
            found[name] = kept
            waiting += [
                field.message_type
                for field in descriptor.fields  # type: ignore[attr-defined]
                if field.number in kept
            ]
    return found


def test_the_walk_knows_every_field_of_onnx_that_can_hold_a_tensor() -> None:
    assert hold_tensors(onnx.ModelProto.DESCRIPTOR) == CHILDREN


def everywhere() -> onnx.ModelProto:
    """Return a model with a tensor in every place there is; each has its own number of values."""
    model = onnx.ModelProto(ir_version=10)
    places = [
        model.graph.initializer.add(),
        model.graph.sparse_initializer.add().values,
        model.training_info.add().algorithm.initializer.add(),
        model.training_info[0].initialization.initializer.add(),
        model.functions.add().node.add().attribute.add().t,
        model.functions[0].attribute_proto.add().t,
        model.graph.node.add().attribute.add().tensors.add(),
        model.graph.node[0].attribute.add().sparse_tensor.indices,
        model.graph.node[0].attribute.add().sparse_tensors.add().values,
        model.graph.node[0].attribute.add().g.initializer.add(),
        model.graph.node[0].attribute.add().graphs.add().initializer.add(),
    ]
    for count, place in enumerate(places, start=20):
        place.CopyFrom(helper.make_tensor(f"t{count}", TensorProto.FLOAT, [count], np.zeros(count, np.float32)))
    return model


def test_a_tensor_is_found_wherever_it_may_be() -> None:
    data = everywhere().SerializeToString()
    found = sorted(TensorProto.FromString(data[a:b]).dims[0] for a, b in tensor_messages(memoryview(data)))
    assert found == list(range(20, 31))


@pytest.mark.parametrize("place", range(11))
def test_external_data_is_refused_wherever_it_is(place: int) -> None:
    data = everywhere().SerializeToString()
    model = everywhere()
    spans = sorted(tensor_messages(memoryview(data)))
    wanted = TensorProto.FromString(data[slice(*spans[place])]).name

    def mark(message: object) -> None:
        for field, value in message.ListFields():  # type: ignore[attr-defined]
            for item in value if field.is_repeated else [value]:
                if getattr(item, "name", None) == wanted and isinstance(item, TensorProto):
                    item.external_data.add(key="location", value="weights.bin")
                elif hasattr(item, "ListFields"):
                    mark(item)

    mark(model)
    with pytest.raises(EngineError, match="another file"):
        refuse_external_data(model.SerializeToString(), what="m.onnx")


def test_small_attributes_are_left_out_on_demand() -> None:
    data = everywhere().SerializeToString()
    assert len(list(tensor_messages(memoryview(data), smallest_attribute=10_000))) == 4


def test_a_model_nested_too_deeply_is_refused_and_not_followed() -> None:
    graph = b""
    for _ in range(MAX_DEPTH):
        attribute = b"\x32" + _length(graph) + graph  # AttributeProto.g
        node = b"\x2a" + _length(attribute) + attribute  # NodeProto.attribute
        graph = b"\x0a" + _length(node) + node  # GraphProto.node
    model = b"\x3a" + _length(graph) + graph  # ModelProto.graph
    with pytest.raises(ValueError, match="nested deeper"):
        list(tensor_messages(memoryview(model)))


def _length(data: bytes) -> bytes:
    number, out = len(data), b""
    while number > 127:
        out += bytes([number & 127 | 128])
        number >>= 7
    return out + bytes([number])


def test_tflite_tensors_lie_where_their_bytes_are() -> None:
    weights = np.arange(12, dtype=np.float32).reshape(3, 4)
    data = tflite_files.linear_tflite(weights)
    assert is_tflite(data)
    assert not has_external_buffers(data)
    (found,) = [t for t in tensors(data) if t.length == weights.nbytes]
    rows = np.frombuffer(data[found.offset : found.offset + found.length], np.float32).reshape(4, 3)
    assert (rows == weights.T).all()  # TFLite keeps a fully connected layer's weights as (outputs, inputs)
    assert np.frombuffer(found.shape, np.int32).tolist() == [4, 3]


def test_tflite_with_weights_in_another_file_is_known_by_its_root() -> None:
    assert has_external_buffers(tflite_files.external_tflite(np.ones((2, 2), np.float32)))
