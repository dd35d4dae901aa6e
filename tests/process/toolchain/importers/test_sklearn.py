"""An estimator saved by skops comes in as one ONNX file that answers the same; nothing is ever unpickled."""

import pickle
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import skops.io
from sklearn.cluster import KMeans
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler
from support.makers import onnx_models

from edge_bench.task import read_task
from edge_compression.importers.import_process import ImportingError, import_model
from edge_compression.importers.prepare import prepare_model
from edge_compression.onnx_tools.graph import session
from edge_contracts.errors import OperatorError

pytestmark = pytest.mark.filterwarnings("ignore")  # scikit-learn warns of iterations that tests keep short

X, Y = onnx_models.samples(300, seed=1)
X = X.reshape(len(X), -1)


def saved(estimator: Any, folder: Path) -> Path:
    skops.io.dump(estimator, folder / "m.skops")
    return folder / "m.skops"


def answers(model: bytes) -> Any:
    return session(model).run(None, {"x": X})[0]


@pytest.mark.parametrize(
    "estimator",
    [
        LogisticRegression(max_iter=20),
        RandomForestClassifier(5, random_state=0),
        make_pipeline(StandardScaler(), MLPClassifier((16,), max_iter=10, random_state=0)),
    ],
)
def test_a_classifier_gives_its_class_probabilities(tmp_path: Path, estimator: Any) -> None:
    estimator.fit(X, Y)
    data = import_model(saved(estimator, tmp_path), X[:1])
    assert len(onnx.load_model_from_string(data).graph.output) == 1
    np.testing.assert_allclose(answers(data), estimator.predict_proba(X), atol=1e-4)


def test_a_regressor_gives_its_values(tmp_path: Path) -> None:
    estimator = Ridge().fit(X, Y)
    np.testing.assert_allclose(
        answers(import_model(saved(estimator, tmp_path), X[:1]))[:, 0], estimator.predict(X), atol=1e-3
    )


@pytest.mark.timeout(240)
def test_a_task_names_an_estimator(tmp_path: Path) -> None:
    task = onnx_models.write_task(tmp_path)
    with np.load(tmp_path / "waves.npz") as arrays:
        flat = {name: values.reshape(len(values), -1) if values.ndim > 1 else values for name, values in arrays.items()}
    np.savez(tmp_path / "waves.npz", **flat)
    saved(LogisticRegression(max_iter=20).fit(X, Y), tmp_path).rename(tmp_path / "waves.skops")
    task.write_text(task.read_text().replace("waves.onnx", "waves.skops"))
    found = prepare_model(read_task(task), tmp_path / "work", 2048, print)
    assert found.format == "onnx"
    assert found.source == tmp_path / "waves.skops"
    again = prepare_model(read_task(task), tmp_path / "work", 2048, pytest.fail)
    assert again.model == found.model


class Owned:
    """What a hostile pickle would run."""

    def __reduce__(self) -> Any:
        return (Path.touch, (Path("owned"),))


def test_a_pickle_by_any_name_is_not_unpickled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "m.skops").write_bytes(pickle.dumps(Owned()))
    with pytest.raises(ImportingError, match=r"m\.skops"):
        import_model(tmp_path / "m.skops")
    (tmp_path / "m.pkl").write_bytes(pickle.dumps(Owned()))
    with pytest.raises(OperatorError, match=r"m\.pkl"):
        import_model(tmp_path / "m.pkl")
    assert not (tmp_path / "owned").exists()


def test_a_type_that_is_not_known_to_be_harmless_is_named(tmp_path: Path) -> None:
    path = saved(make_pipeline(FunctionTransformer(np.fromfile), LogisticRegression()), tmp_path)
    with pytest.raises(ImportingError, match=r"numpy.*fromfile"):
        import_model(path)


def test_an_estimator_without_answers_to_score_is_named(tmp_path: Path) -> None:
    with pytest.raises(ImportingError, match="KMeans gives neither"):
        import_model(saved(KMeans(2, n_init=1).fit(X), tmp_path))


def test_a_damaged_file_is_named(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "m.skops", "w") as archive:
        archive.writestr("schema.json", "{}")
    with pytest.raises(ImportingError, match=r"m\.skops"):
        import_model(tmp_path / "m.skops")
