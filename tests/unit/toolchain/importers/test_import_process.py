"""Models with their data elsewhere, old operator sets and broken files, brought into one file or refused by name."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from support.makers import onnx_models

from edge_compression.importers.import_process import ImportingError, import_model, main
from edge_compression.onnx_tools.graph import opset, session
from edge_contracts.errors import OperatorError

X, _ = onnx_models.samples(8, seed=3)


def answers(model: bytes) -> np.ndarray:
    return np.asarray(session(model).run(None, {"x": X})[0])


def test_data_beside_the_file_comes_into_it(tmp_path: Path) -> None:
    made = onnx_models.conv_classifier()
    expected = answers(made.SerializeToString())
    onnx.save(made, tmp_path / "m.onnx", save_as_external_data=True, location="m.data", size_threshold=0)
    data = import_model(tmp_path / "m.onnx")
    (tmp_path / "m.data").unlink()
    np.testing.assert_allclose(answers(data), expected, atol=1e-6)


def test_data_outside_the_folder_is_not_read(tmp_path: Path) -> None:
    inside = tmp_path / "inside"
    inside.mkdir()
    made = onnx_models.conv_classifier()
    onnx.save(made, inside / "m.onnx", save_as_external_data=True, location="m.data", size_threshold=0)
    (inside / "m.data").rename(tmp_path / "m.data")
    graph = onnx.load(inside / "m.onnx", load_external_data=False)
    for tensor in graph.graph.initializer:
        for entry in tensor.external_data:
            entry.value = "../m.data" if entry.key == "location" else entry.value
    (inside / "m.onnx").write_bytes(graph.SerializeToString())
    with pytest.raises(ImportingError, match=r"m\.onnx"):
        import_model(inside / "m.onnx")


def test_an_old_operator_set_is_raised(tmp_path: Path) -> None:
    made = onnx_models.conv_classifier()
    made.opset_import[0].version = 11
    onnx.save(made, tmp_path / "m.onnx")
    found = import_model(tmp_path / "m.onnx")
    assert opset(onnx.load_model_from_string(found)) == 17
    np.testing.assert_allclose(answers(found), answers(made.SerializeToString()), atol=1e-5)


def test_a_file_that_is_no_model_and_one_of_another_kind_are_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "m.onnx").write_bytes(b"\x08\xff not a model")
    with pytest.raises(ImportingError, match=r"m\.onnx"):
        import_model(tmp_path / "m.onnx")
    with pytest.raises(OperatorError, match=r"m\.pkl"):
        import_model(tmp_path / "m.pkl")
    assert main([str(tmp_path / "m.onnx"), str(tmp_path / "out.onnx")]) != 0
    assert "m.onnx" in capsys.readouterr().err
    assert not (tmp_path / "out.onnx").exists()


def test_the_command_writes_the_file(tmp_path: Path) -> None:
    onnx.save(onnx_models.conv_classifier(), tmp_path / "m.onnx")
    assert main([str(tmp_path / "m.onnx"), str(tmp_path / "out.onnx")]) == 0
    np.testing.assert_allclose(
        answers((tmp_path / "out.onnx").read_bytes()), answers((tmp_path / "m.onnx").read_bytes()), atol=1e-6
    )
