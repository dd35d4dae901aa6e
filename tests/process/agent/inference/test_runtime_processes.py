"""What `test_runtime.py` tests, where it takes a real process or a wait."""

import subprocess
import sys

from support.makers import bundles


def test_the_pipeline_loads_no_prometheus_and_no_server(tmp_path):
    bundles.make_bundle(tmp_path / "b")
    script = (
        f"import sys; from edge_agent import Runtime; Runtime.open({str(tmp_path / 'b')!r});"
        "print({'prometheus_client', 'httptools', 'paho', 'tuf', 'asyncio', 'onnx'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=50)
    assert done.stdout == "set()\n", done.stderr
