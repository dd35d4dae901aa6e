"""Classifiers as scikit-learn's users export them: dictionaries and text become, or leave, arrays of probabilities."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from edge_compression.importers.import_process import import_model
from edge_compression.importers.label_outputs import class_names, has_text_outputs, servable_outputs
from edge_compression.onnx_tools.graph import session

X = np.random.default_rng(0).standard_normal((20, 3)).astype(np.float32)


def classifier(*, text: bool, zipmap: bool) -> onnx.ModelProto:
    """Return a linear classifier of two classes: the label first, then probabilities, as converters write it."""
    nodes = [
        helper.make_node(
            "LinearClassifier",
            ["x"],
            ["label", "scores"],
            domain="ai.onnx.ml",
            coefficients=[1.0, -2.0, 0.5, -1.0, 2.0, 1.0],
            intercepts=[0.1, -0.1],
            post_transform="SOFTMAX",
            **({"classlabels_strings": ["no", "yes"]} if text else {"classlabels_ints": [0, 1]}),
        ),
    ]
    label = helper.make_tensor_value_info("label", TensorProto.STRING if text else TensorProto.INT64, [None])
    scores = helper.make_tensor_value_info("scores", TensorProto.FLOAT, [None, 2])
    if zipmap:
        key = {"classlabels_strings": ["no", "yes"]} if text else {"classlabels_int64s": [0, 1]}
        nodes.append(helper.make_node("ZipMap", ["scores"], ["maps"], domain="ai.onnx.ml", **key))
        kind = helper.make_map_type_proto(
            TensorProto.STRING if text else TensorProto.INT64, helper.make_tensor_type_proto(TensorProto.FLOAT, None)
        )
        scores = helper.make_value_info("maps", helper.make_sequence_type_proto(kind))
    graph = helper.make_graph(
        nodes, "g", [helper.make_tensor_value_info("x", TensorProto.FLOAT, [None, 3])], [label, scores]
    )
    # As onnxmltools does: no operator set for the default domain, which no node uses.
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("ai.onnx.ml", 1)], ir_version=8)


@pytest.mark.parametrize("text", [True, False])
@pytest.mark.parametrize("zipmap", [True, False])
def test_probabilities_are_an_array_under_the_name_they_had(tmp_path: Path, text: bool, zipmap: bool) -> None:
    made = classifier(text=text, zipmap=zipmap)
    onnx.save(made, tmp_path / "m.onnx")
    truth = session(made.SerializeToString()).run(None, {"x": X})
    data = import_model(tmp_path / "m.onnx", X[:1])
    opened = session(data)
    names = [one.name for one in opened.get_outputs()]
    assert names == (["maps" if zipmap else "scores"] if text else ["label", "maps" if zipmap else "scores"])
    found = dict(zip(names, opened.run(None, {"x": X}), strict=True))
    expected = np.array([list(one.values()) for one in truth[1]]) if zipmap else truth[1]
    np.testing.assert_allclose(found[names[-1]], expected, atol=1e-6)
    assert class_names(made) == (("no", "yes") if text else ())


def test_a_model_of_numbers_is_left_and_a_single_text_output_stays() -> None:
    plain = classifier(text=False, zipmap=False)
    assert not has_text_outputs(plain)
    assert servable_outputs(plain) == ()
    alone = classifier(text=True, zipmap=False)
    del alone.graph.output[1]
    assert not has_text_outputs(alone)
    assert servable_outputs(alone) == ()
    assert len(alone.graph.output) == 1


def test_two_inputs_are_fixed_and_compared_by_name(tmp_path: Path) -> None:
    inputs = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", "length"]) for name in "ab"]
    output = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", "length"])
    graph = helper.make_graph([helper.make_node("Sub", ["a", "b"], ["y"])], "g", inputs, [output])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), tmp_path / "m.onnx")
    data = import_model(tmp_path / "m.onnx", {"b": X[:1], "a": 2 * X[:1]})
    assert [one.shape[1:] for one in session(data).get_inputs()] == [[3], [3]]
