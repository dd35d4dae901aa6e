"""`pip install edgewright` is a working agent and nothing of the engineers' side."""

from __future__ import annotations

import json

import pytest
from support.sites.install_sites import ENGINEERS_SIDE, Environment, closure, installed_mb

COMMAND = ("-m", "edgewright.cli")
EXTRAS = {"bench": "bench", "compress": "compress", "demo": "demo", "fleet": "fleet"}


def test_base_closure_holds_nothing_of_the_engineers_side() -> None:
    installed = closure("edgewright")
    assert not {name.replace("_", "-") for name in ENGINEERS_SIDE} & installed
    assert {"numpy", "msgspec", "paho-mqtt", "tuf", "psutil", "click"} <= installed


@pytest.mark.parametrize(
    "heavy", ["pydantic", "scipy", "river", "mapie", "whylogs", "opentelemetry-api", "fastapi", "uvicorn"]
)
def test_what_was_measured_as_too_heavy_stays_out(heavy: str) -> None:
    assert heavy not in closure("edgewright")


def test_extras_bring_what_they_are_named_for() -> None:
    assert {"onnx", "onnxslim", "rich"} <= closure("edgewright", frozenset({"compress"}))
    assert {"sqlalchemy", "rich"} <= closure("edgewright", frozenset({"fleet"}))
    assert "torch" not in closure("edgewright", frozenset({"all"}))


def test_compressing_onnx_models_needs_neither_torch_nor_scipy_nor_litert() -> None:
    light = closure("edgewright", frozenset({"compress"}))
    assert not {"torch", "scipy", "ai-edge-litert", "ai-edge-quantizer", "scikit-learn"} & light
    assert "ai-edge-quantizer" in closure("edgewright", frozenset({"compress-tflite"}))
    assert {"skops", "skl2onnx"} <= closure("edgewright", frozenset({"sklearn"}))


def test_compress_is_at_most_400_megabytes_installed() -> None:
    assert 100.0 < installed_mb(closure("edgewright", frozenset({"compress"}))) < 400.0


def test_the_base_install_cannot_import_the_engineers_side(base_install: Environment) -> None:
    code = "import importlib.util, sys; print([n for n in sys.argv[1:] if importlib.util.find_spec(n)])"
    assert base_install.run("-c", code, *ENGINEERS_SIDE).stdout.strip() == "[]"


def test_the_agent_command_starts_from_the_base_install(base_install: Environment) -> None:
    result = base_install.run(*COMMAND, "agent", "--help")
    assert result.returncode == 0, result.stderr
    assert "run" in result.stdout


def test_the_version_is_told_without_loading_a_command(base_install: Environment) -> None:
    result = base_install.run(*COMMAND, "--version")
    assert result.stdout.startswith("edgewright, version ")


@pytest.mark.parametrize("command", EXTRAS)
def test_a_missing_extra_is_named_with_the_command_that_installs_it(base_install: Environment, command: str) -> None:
    result = base_install.run(*COMMAND, command, "--help")
    assert result.returncode == 2, result.stdout
    assert f"pip install '.[{EXTRAS[command]}]'" in result.stderr
    assert "Traceback" not in result.stderr


def test_a_missing_extra_is_machine_readable(base_install: Environment) -> None:
    result = base_install.run(*COMMAND, "compress", "task.toml", "--json")
    assert result.returncode == 2
    assert json.loads(result.stderr)["reason"] == "missing-extra"
    assert result.stdout == ""
