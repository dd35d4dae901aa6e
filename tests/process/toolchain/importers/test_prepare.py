"""A task's model may be of other kinds than an engine takes: what is made of it goes through the same search."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from click.testing import CliRunner
from support.makers import onnx_models

from edge_agent.bundle import hash_file, open_bundle
from edge_bench.task import read_task
from edge_compression.cli.compress import compress
from edge_compression.importers.import_process import ImportingError, import_model
from edge_compression.importers.mlflow import MlflowModelError, model_in
from edge_compression.importers.prepare import prepare_model
from edge_compression.onnx_tools.graph import opset, session
from edge_contracts.errors import ContractError, MissingExtraError

X, _ = onnx_models.samples(8, seed=3)
MEMORY_MB = 2048


def answers(model: Path) -> Any:
    return np.asarray(session(model.read_bytes()).run(None, {"x": X[:1]})[0])


def bring(task: Path, said: list[str] | None = None) -> Any:
    return prepare_model(read_task(task), task.parent / "work", MEMORY_MB, [].append if said is None else said.append)


def mlflow_model(folder: Path, text: str) -> Path:
    folder.mkdir()
    (folder / "MLmodel").write_text(text)
    return folder


def test_a_plain_model_is_taken_as_it_is(tmp_path: Path) -> None:
    task = onnx_models.write_task(tmp_path)
    found = bring(task)
    assert found.model == found.source == tmp_path / "waves.onnx"
    assert not (tmp_path / "work").exists()


@pytest.mark.timeout(240)
def test_data_beside_the_model_goes_through_the_search(tmp_path: Path) -> None:
    task = onnx_models.write_task(tmp_path)
    whole = onnx.load(tmp_path / "waves.onnx")
    onnx.save(whole, tmp_path / "waves.onnx", save_as_external_data=True, location="waves.data", size_threshold=0)
    recipes = Path(__file__).resolve().parents[4] / "compression" / "recipes"
    chosen = tmp_path / "recipes"
    chosen.mkdir()
    for name in ("float.toml", "int8-weights.toml"):
        (chosen / name).write_bytes((recipes / name).read_bytes())
    words = [str(task), "--profile", "pi-4", "--max-drop", "2", "--out", str(tmp_path / "out"), "--json"]
    done = CliRunner().invoke(
        compress, [*words, "--recipes", str(chosen), "--variations", "0", "--budget", "10m"], catch_exceptions=False
    )
    assert json.loads(done.stdout)["eight_bit"]["in_ladder"]
    manifest = open_bundle(tmp_path / "out").manifest
    assert manifest.lineage is not None
    assert manifest.lineage.source_sha256 == hash_file(tmp_path / "waves.onnx")


def test_axes_of_any_size_take_the_sample_s_and_the_batch_stays(tmp_path: Path) -> None:
    made = onnx_models.conv_classifier()
    made.graph.input[0].type.tensor_type.shape.dim[2].dim_param = "T"
    found = bring(onnx_models.write_task(tmp_path, made=made))
    batch, channels, length = onnx.load(found.model).graph.input[0].type.tensor_type.shape.dim
    assert batch.dim_param == "N"
    assert (channels.dim_value, length.dim_value) == (onnx_models.CHANNELS, onnx_models.LENGTH)
    np.testing.assert_allclose(answers(found.model), answers(found.source), atol=1e-6)


def test_an_old_operator_set_is_raised_for_the_search(tmp_path: Path) -> None:
    made = onnx_models.conv_classifier()
    made.opset_import[0].version = 11
    found = bring(onnx_models.write_task(tmp_path, made=made))
    assert opset(onnx.load(found.model)) == 17
    np.testing.assert_allclose(answers(found.model), answers(found.source), atol=1e-5)


def test_an_operator_set_that_cannot_be_raised_is_said_and_left(tmp_path: Path) -> None:
    made = onnx_models.conv_classifier()
    made.opset_import[0].version = 11
    made.graph.node[1].op_type = "Upsample"  # gone since 10: no converter knows it in 11
    said: list[str] = []
    found = bring(onnx_models.write_task(tmp_path, made=made), said)
    assert found.model == tmp_path / "waves.onnx"
    assert "Upsample" in said[-1]


def test_a_sample_the_model_cannot_take_names_the_file(tmp_path: Path) -> None:
    made = onnx_models.conv_classifier()
    onnx.save(made, tmp_path / "m.onnx")
    with pytest.raises(ImportingError, match=r"m\.onnx.*cannot be run on a sample"):
        import_model(tmp_path / "m.onnx", X[:1, :2])


def test_data_that_does_not_fit_one_message_is_refused_before_it_is_read(tmp_path: Path) -> None:
    made = onnx_models.conv_classifier()
    onnx.save(made, tmp_path / "m.onnx", save_as_external_data=True, location="m.data", size_threshold=0)
    large = onnx.load(tmp_path / "m.onnx", load_external_data=False)
    large.graph.initializer[0].dims[:] = [2**20, 2**10]
    (tmp_path / "m.onnx").write_bytes(large.SerializeToString())
    with pytest.raises(ImportingError, match=r"m\.onnx: is 4096 MiB"):
        import_model(tmp_path / "m.onnx")


@pytest.mark.parametrize(
    ("text", "file"),
    [
        ("flavors:\n  onnx:\n    data: m.onnx\n    onnx_version: 1.2\n", "m.onnx"),
        ("flavors:\n  python_function: {data: x.pkl}\n  onnx:\n    data: m.onnx\n", "m.onnx"),
        ("flavors:\n  tflite: {}\n", "model.tflite"),
        ("flavors:\n  pytorch:\n    model_data: data\n", "data/model.pt2"),
        ("flavors:\n  sklearn:\n    pickled_model: m.skops\n    serialization_format: skops\n", "m.skops"),
    ],
)
def test_a_flavour_that_is_no_pickle_is_found_in_an_mlflow_folder(tmp_path: Path, text: str, file: str) -> None:
    folder = mlflow_model(tmp_path / "model", text)
    (folder / file).parent.mkdir(exist_ok=True)
    (folder / file).write_bytes(b"")
    assert model_in(folder) == (folder / file).resolve()


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("flavors:\n  sklearn:\n    pickled_model: model.pkl\n    serialization_format: cloudpickle\n", "sklearn"),
        ("flavors:\n  pytorch:\n    model_data: data\n", "pytorch"),
        ("flavors:\n  onnx:\n    data: ../../secret.onnx\n", "outside"),
        ("flavors:\n  onnx:\n    data: absent.onnx\n", "no such file"),
        ("flavors: [onnx]\n", "cannot be read"),
        ("flavors: {onnx: ]\n", "cannot be read"),
        ("x: " + "[" * 5000, "cannot be read"),
        ("a: !!python/object/apply:os.system [id]\nflavors: {}\n", "flavors: none"),
        ("a: &a {k: v}\n" + "".join(f"b{n}: &a {{<<: [*a, *a], k{n}: v}}\n" for n in range(60)), "cannot be read"),
        ("#" * 300_000, "over the limit"),
    ],
)
def test_an_mlflow_folder_with_pickles_or_tricks_is_refused(tmp_path: Path, text: str, named: str) -> None:
    folder = mlflow_model(tmp_path / "model", text)
    with pytest.raises(MlflowModelError, match="MLmodel") as caught:
        model_in(folder)
    assert named in str(caught.value)


def test_a_task_may_name_the_folder_of_an_mlflow_model(tmp_path: Path) -> None:
    task = onnx_models.write_task(tmp_path)
    folder = mlflow_model(tmp_path / "model", "flavors:\n  onnx:\n    data: model.onnx\n")
    (tmp_path / "waves.onnx").rename(folder / "model.onnx")
    task.write_text(task.read_text().replace("waves.onnx", "model"))
    assert bring(task).model == folder / "model.onnx"


def test_a_model_in_a_registry_is_refused_with_the_command_that_fetches_it(tmp_path: Path) -> None:
    task = onnx_models.write_task(tmp_path)
    task.write_text(task.read_text().replace("waves.onnx", "models:/har/3"))
    with pytest.raises(ContractError, match=r"waves\.toml model") as caught:
        read_task(task)
    assert "mlflow artifacts download --artifact-uri models:/har/3" in str(caught.value.hint)


def test_a_model_that_no_engine_takes_is_said_so_by_what_cannot_bring_it_in(tmp_path: Path) -> None:
    task = onnx_models.write_task(tmp_path)
    (tmp_path / "waves.pt2").write_bytes(b"")
    task.write_text(task.read_text().replace("waves.onnx", "waves.pt2"))
    with pytest.raises(ContractError, match=r"waves\.pt2"):
        _ = read_task(task).format


HIDE = """
import importlib.machinery, sys
hidden, task, folder = sys.argv[1:4]
finders = sys.meta_path[:]
class Finder:
    @staticmethod
    def find_spec(name, path=None, target=None):
        if name.split(".")[0] == hidden:
            return None
        for finder in finders:
            found = finder.find_spec(name, path, target)
            if found is not None:
                return found
        return None
sys.meta_path[:] = [Finder]
from pathlib import Path
from edge_bench.task import read_task
from edge_compression.importers.prepare import prepare_model
from edge_contracts.errors import MissingExtraError
try:
    prepare_model(read_task(Path(task)), Path(folder), 2048, print)
except MissingExtraError as error:
    print(error.hint)
"""


@pytest.mark.parametrize(
    ("suffix", "hidden", "extra"),
    [
        (".tflite", "ai_edge_quantizer", "compress-tflite"),
        (".tflite", "ai_edge_litert", "compress-tflite"),
        (".pt2", "torch", "train"),
        (".skops", "skops", "sklearn"),
    ],
)
def test_the_extra_that_reads_a_kind_of_model_is_named(tmp_path: Path, suffix: str, hidden: str, extra: str) -> None:
    task = onnx_models.write_task(tmp_path)
    (tmp_path / f"waves{suffix}").write_bytes(b"")
    task.write_text(task.read_text().replace("waves.onnx", f"waves{suffix}"))
    words = [sys.executable, "-c", HIDE, hidden, str(task), str(tmp_path / "work")]
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    assert f"pip install '.[{extra}]'" in done.stdout


def test_missing_extras_are_the_operator_s_to_install() -> None:
    assert MissingExtraError("sklearn", "skops").exit_code == 2
