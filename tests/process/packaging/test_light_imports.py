"""What an import may not load: a device's memory is spent by imports."""

from __future__ import annotations

import subprocess
import sys

import pytest

ENGINES = ("numpy", "onnxruntime", "ai_edge_litert", "tflite_runtime")
NETWORK = ("paho", "tuf", "securesystemslib", "cryptography", "urllib3", "httptools")
TOOLCHAIN = (
    "onnx",
    "onnxslim",
    "rich",
    "sqlalchemy",
    "torch",
    "optuna",
    "scipy",
    "edge_fleet",
    "edge_compression",
    "edge_bench",
)


def loaded_by(module: str) -> set[str]:
    """Return the top-level modules that importing `module` loads in a fresh interpreter."""
    code = f"import {module}, sys; print(*sorted({{name.split('.')[0] for name in sys.modules}}))"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=50)
    return set(result.stdout.split())


@pytest.mark.parametrize(
    ("module", "kept_out"),
    [
        ("edge_contracts", (*ENGINES, *NETWORK, *TOOLCHAIN, "msgspec", "edge_agent")),
        ("edge_io.durable_files", (*ENGINES, *NETWORK, *TOOLCHAIN, "msgspec", "edge_contracts", "edge_agent")),
        ("edge_agent", (*ENGINES, *NETWORK, *TOOLCHAIN, "psutil", "prometheus_client")),
        ("edge_agent.ports", (*ENGINES, *NETWORK, *TOOLCHAIN)),
        (
            "edge_agent.supervisor.supervisor",
            (
                *ENGINES,
                *TOOLCHAIN,
                "tuf",
                "securesystemslib",
                "cryptography",
                "urllib3",
                "httptools",
                "psutil",
                "json",
                "shutil",
                "dataclasses",
                "paho",
            ),
        ),
        ("edge_agent.worker", (*TOOLCHAIN, "tuf", "securesystemslib", "cryptography", "urllib3", "paho")),
        ("edge_agent.updater", (*ENGINES, *TOOLCHAIN, "httptools")),
        ("edge_agent.cli.agent", (*ENGINES, *NETWORK, *TOOLCHAIN)),
        ("edgewright.cli", (*ENGINES, *NETWORK, *TOOLCHAIN, "edge_agent", "click")),
        ("edgewright.commands", (*ENGINES, *NETWORK, *TOOLCHAIN, "edge_agent")),
    ],
)
def test_importing_loads_nothing_heavy(module: str, kept_out: tuple[str, ...]) -> None:
    assert not loaded_by(module) & set(kept_out)


def test_a_core_module_imports_without_any_dependency_but_msgspec() -> None:
    ours = {"edge_agent", "edge_contracts"}
    heavy = {*ENGINES, *NETWORK, *TOOLCHAIN, "psutil", "sqlite3", "asyncio", "socket"}
    loaded = loaded_by("edge_agent.update.state_machine")
    assert ours <= loaded
    assert not loaded & heavy


@pytest.mark.parametrize(
    ("start", "needed"),
    [
        (
            "from edgewright.cli import main; main(['agent', 'run', '--config', 'nowhere.toml'])",
            "edge_agent.supervisor",
        ),
        ("from edge_agent.host.lean_imports import import_lean as f; f(); import edge_agent.mqtt.client", "paho.mqtt"),
        ("import runpy; runpy.run_module('edge_agent.worker.__main__', run_name='__main__')", "numpy"),
    ],
)
def test_what_runs_for_years_holds_no_library_that_it_does_not_use(start: str, needed: str) -> None:
    code = f"import sys\ntry: {start}\nfinally: print(*sys.modules, sep='\\n')"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=50)
    loaded = set(result.stdout.split())
    assert {"asyncio", needed} <= loaded
    unused = {
        "numpy._core._add_newdocs",
        "ssl",
        "_ssl",
        "_hashlib",
        "typing_extensions",
        "click",
        "http.client",
        "urllib.request",
        "email",
    }
    assert not loaded & unused


@pytest.mark.parametrize("more", [[], ["--verbose"]])
def test_it_says_the_same_of_a_missing_configuration_with_and_without_that_library(more: list[str]) -> None:
    words = [sys.executable, "-m", "edgewright.cli", "agent", "run", "--config", "nowhere.toml", *more]
    result = subprocess.run(words, capture_output=True, text=True, check=False, timeout=50)
    assert (result.returncode, result.stdout) == (2, "")
    assert result.stderr.splitlines()[-1] == "Error: nowhere.toml: cannot be read: No such file or directory"
