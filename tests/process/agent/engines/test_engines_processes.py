"""What `test_engines.py` tests, where it takes a real process or a wait."""

import subprocess
import sys

from support.makers import bundles
from support.parts.engines import write

from edge_agent.engines.registry import engine_for, installed_engines


def test_a_failed_allocation_is_typed(tmp_path):
    path = write(tmp_path / "m.onnx", bundles.exploding_model())
    script = f"""
import numpy as np
from pathlib import Path
from edge_agent.engines.registry import engine_for
from edge_agent.errors import EngineMemoryError
from edge_agent.host.memory_limits import limit_growth
from edge_agent.ports import EngineSettings
session = engine_for("onnx").load(Path({str(path)!r}), EngineSettings())
limit_growth(64)
for size in (1e8, 1e10, 1e17):
    try:
        session.run({{"x": np.full((1, 4), size, np.float32)}})
    except EngineMemoryError as error:
        print("typed")
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=50)
    assert done.stdout.split() == ["typed"] * 3, done.stderr


def test_engines_are_named_without_importing_them():
    script = (
        "import sys; from edge_agent.engines.registry import installed_engines as i; print(sorted(i()));"
        "print({'numpy', 'onnxruntime', 'ai_edge_litert'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=50)
    assert done.stdout == "['litert', 'onnxruntime']\nset()\n"
    assert installed_engines()["onnxruntime"] == engine_for("onnx").version
