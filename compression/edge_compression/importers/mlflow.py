"""The model file inside the folder of an MLflow model, by what its `MLmodel` file says.

Flavours whose file is no pickle are taken: onnx, tflite, pytorch saved as an exported program, sklearn saved by skops.
The rest of the folder is not looked at, and nothing is downloaded.
"""

from __future__ import annotations

from pathlib import Path

import msgspec

from edge_bench.task import MLFLOW_MODEL
from edge_contracts.codec import Record
from edge_contracts.errors import BundleError
from edge_contracts.limits import MAX_CONFIG_BYTES

PROGRAM = "model.pt2"
"""What MLflow names an exported program in the folder that `model_data` says."""

HINT = "log it with mlflow.onnx, or serialization_format='pt2' (mlflow.pytorch), 'skops' (mlflow.sklearn)"


class MlflowModelError(BundleError):
    """The folder holds no model that can be read without unpickling."""

    reason = "mlflow-model"


class _Flavours(Record, frozen=True, kw_only=True):
    flavors: dict[str, dict[str, object]]


def model_in(folder: Path) -> Path:
    """Return the model file of an MLflow model's folder. Raises MlflowModelError naming the flavours it has."""
    file = folder / MLFLOW_MODEL
    flavours = _flavours(file)
    for name, flavour in flavours.items():
        found = _named(folder, name, flavour)
        if found is not None:
            return _inside(folder, found, f"{file} flavors.{name}")
    has = ", ".join(sorted(flavours))[:200] or "none"
    raise MlflowModelError(
        f"no flavor that can be read without unpickling (flavors: {has})", subject=str(file), hint=HINT
    )


def _named(folder: Path, flavour: str, said: dict[str, object]) -> str | None:
    """Return the path a flavour gives its model, None when there is none or it is pickled."""
    if flavour in ("onnx", "tflite"):
        return str(said.get("data", f"model.{flavour}"))
    if flavour == "pytorch":  # MLmodel does not say how it was saved, the name of the file does
        program = f"{said.get('model_data', 'data')}/{PROGRAM}"
        return program if (folder / program).is_file() else None
    if flavour == "sklearn" and said.get("serialization_format") == "skops":
        return str(said.get("pickled_model", "model.skops"))
    return None


def _flavours(file: Path) -> dict[str, dict[str, object]]:
    import yaml

    data = file.read_bytes() if file.stat().st_size <= MAX_CONFIG_BYTES else None
    if data is None:
        raise MlflowModelError(f"over the limit of {MAX_CONFIG_BYTES} bytes", subject=str(file))
    try:
        # Scalars stay text, and keys are not merged: nothing is built that is larger than what was read.
        said = yaml.load(data, Loader=yaml.BaseLoader)  # noqa: S506 - makes strings, lists and dicts only
        return msgspec.convert(said, _Flavours).flavors
    except (yaml.YAMLError, msgspec.ValidationError, ValueError, RecursionError) as error:
        raise MlflowModelError(f"cannot be read: {str(error)[:300]}", subject=str(file)) from error


def _inside(folder: Path, name: str, subject: str) -> Path:
    path = (folder / name).resolve()
    if not path.is_relative_to(folder.resolve()):
        raise MlflowModelError(f"{name[:100]!r} is outside of the folder", subject=subject)
    if not path.is_file():
        raise MlflowModelError(f"no such file: {name[:100]}", subject=subject)
    return path
