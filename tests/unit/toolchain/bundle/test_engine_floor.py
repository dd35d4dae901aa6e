"""The oldest engine a bundle asks for, from what its models declare."""

import onnx
import pytest
from onnx import helper

from edge_compression.bundle.engine_floor import onnxruntime_floor

TRIED = "9.9.9"


def model(imports: dict[str, int], *, ir: int = 8, domain: str = "") -> onnx.ModelProto:
    node = helper.make_node("Relu", ["x"], ["y"], domain=domain)
    values = [helper.make_tensor_value_info(name, 1, [1]) for name in ("x", "y")]
    graph = helper.make_graph([node], "one", values[:1], values[1:])
    opsets = [helper.make_opsetid(name, version) for name, version in imports.items()]
    return helper.make_model(graph, opset_imports=opsets, ir_version=ir)


@pytest.mark.parametrize(
    ("imports", "ir", "floor"),
    [
        ({"": 11}, 6, "1.17"),
        ({"": 17, "ai.onnx.ml": 2, "com.microsoft": 1}, 8, "1.17"),
        ({"": 20}, 9, "1.17"),
        ({"": 21}, 9, "1.20"),
        ({"": 17}, 10, "1.20"),
        ({"": 17, "ai.onnx.ml": 5}, 8, "1.20"),
        ({"": 22}, 10, TRIED),
        ({"": 17}, 11, TRIED),
        ({"": 17, "com.example": 1}, 8, TRIED),
    ],
)
def test_operator_sets_and_ir_decide(imports: dict[str, int], ir: int, floor: str) -> None:
    assert onnxruntime_floor([model(imports, ir=ir)], TRIED) == floor


def test_the_newest_need_of_all_models_decides_and_an_unknown_one_most() -> None:
    old, new, unknown = model({"": 17}), model({"": 21}), model({"": 99})
    assert onnxruntime_floor([old, new], TRIED) == "1.20"
    assert onnxruntime_floor([old, unknown, new], TRIED) == TRIED
    assert onnxruntime_floor([], TRIED) == TRIED


def test_operators_outside_the_standard_ask_for_the_version_tried() -> None:
    assert onnxruntime_floor([model({"": 17, "com.microsoft": 1}, domain="com.microsoft")], TRIED) == TRIED
    function = model({"": 17})
    function.functions.append(onnx.FunctionProto(name="f"))
    assert onnxruntime_floor([function], TRIED) == TRIED
