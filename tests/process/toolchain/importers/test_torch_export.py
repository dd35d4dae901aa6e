"""A program saved by torch.export comes in as one ONNX file that answers the same; what cannot is named."""

import io
import json
import zipfile
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from support.makers import onnx_models
from torch import nn

from edge_bench.task import read_task
from edge_compression.importers.import_process import ImportingError, import_model
from edge_compression.importers.prepare import prepare_model
from edge_compression.importers.torch_export import ArchiveError, without_pickles
from edge_compression.onnx_tools.graph import session

pytestmark = [pytest.mark.timeout(400), pytest.mark.filterwarnings("ignore")]  # torch warns of its own deprecations


class _Eigen(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.linalg.eigvalsh(x)


def saved(module: nn.Module, example: torch.Tensor, path: Path) -> Path:
    torch.export.save(torch.export.export(module.eval(), (example,)), path)
    return path


def test_a_saved_program_answers_as_the_module_does(tmp_path: Path) -> None:
    module = nn.Sequential(nn.Conv1d(3, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 14, 4))
    example = torch.randn(1, 3, 16)
    data = import_model(saved(module, example, tmp_path / "m.pt2"), example.numpy())
    opened = session(data)
    found = opened.run(None, {opened.get_inputs()[0].name: example.numpy()})[0]
    np.testing.assert_allclose(found, module(example).detach().numpy(), atol=1e-5)
    assert not [tensor for tensor in onnx.load_model_from_string(data).graph.initializer if tensor.external_data]


def test_an_operator_onnx_does_not_have_is_named(tmp_path: Path) -> None:
    path = saved(_Eigen(), torch.randn(1, 4, 4), tmp_path / "m.pt2")
    with pytest.raises(ImportingError, match="linalg_eigh"):
        import_model(path)


def test_a_file_torch_cannot_read_is_named(tmp_path: Path) -> None:
    (tmp_path / "m.pt2").write_bytes(b"nothing")
    with pytest.raises(ImportingError, match=r"m\.pt2"):
        import_model(tmp_path / "m.pt2")


def test_a_task_names_a_program_of_any_batch_and_every_conversion_is_the_same(tmp_path: Path) -> None:
    task = onnx_models.write_task(tmp_path)
    module = nn.Sequential(nn.Conv1d(3, 4, 9), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 24, 4)).eval()
    anything = ({0: torch.export.Dim("n")},)
    torch.export.save(
        torch.export.export(module, (torch.randn(2, 3, 32),), dynamic_shapes=anything), tmp_path / "m.pt2"
    )
    task.write_text(task.read_text().replace("waves.onnx", "m.pt2"))
    made = prepare_model(read_task(task), tmp_path / "work", 2048, print)
    data = made.model.read_bytes()
    assert data == import_model(tmp_path / "m.pt2", made.x[:1])
    assert made.source == tmp_path / "m.pt2"
    opened = session(data)
    x = made.x[:5]
    found = opened.run(None, {opened.get_inputs()[0].name: x})[0]
    np.testing.assert_allclose(found, module(torch.from_numpy(x)).detach().numpy(), atol=1e-5)


def changed(path: Path, ending: str, data: bytes) -> None:
    """Replace the content of the record whose name ends so, or add it."""
    with zipfile.ZipFile(path) as archive:
        records = {name: archive.read(name) for name in archive.namelist()}
    name = next((name for name in records if name.endswith(ending)), f"m/{ending}")
    with zipfile.ZipFile(path, "w") as archive:
        for known, content in {**records, name: data}.items():
            archive.writestr(known, content)


class Owned:
    """What a hostile pickle would run."""

    def __reduce__(self) -> object:
        return (Path.touch, (Path("owned"),))


def hostile() -> bytes:
    buffer = io.BytesIO()
    torch.save(Owned(), buffer)
    return buffer.getvalue()


def test_pickled_example_inputs_are_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    path = saved(nn.Linear(4, 2), torch.randn(1, 4), tmp_path / "m.pt2")
    changed(path, "data/sample_inputs/model.pt", hostile())
    import_model(path, np.zeros((1, 4), np.float32))
    assert not (tmp_path / "owned").exists()


def test_pickled_weights_and_compiled_code_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    config = {"config": {"weight": {"path_name": "weight_0", "is_param": True, "use_pickle": True}}}
    for ending, data, named in (
        ("data/weights/model_weights_config.json", json.dumps(config).encode(), "pickled"),
        ("data/aotinductor/model/run.so", b"", "aotinductor"),
    ):
        path = saved(nn.Linear(4, 2), torch.randn(1, 4), tmp_path / "m.pt2")
        changed(path, "data/weights/weight_0", hostile())
        changed(path, ending, data)
        with pytest.raises(ArchiveError, match=named):
            without_pickles(path)
        with pytest.raises(ImportingError, match=r"m\.pt2"):
            import_model(path)
    assert not (tmp_path / "owned").exists()
