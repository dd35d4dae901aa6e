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


def test_measuring_what_a_batch_costs_leaves_no_memory_behind(tmp_path):
    """64 rows of this model take 51 MB while they run."""
    bundles.make_bundle(tmp_path / "b", models=[("wide", bundles.wide_model(200_000))])
    script = (
        "import onnxruntime; from edge_agent import Runtime; from edge_agent.host.memory_limits import read_status_mb;"
        f"before = read_status_mb('VmRSS'); runtime = Runtime.open({str(tmp_path / 'b')!r});"
        "print(read_status_mb('VmRSS') - before, read_status_mb('VmHWM') - before)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=50)
    kept, peak = map(float, done.stdout.split())
    assert peak > 40, "the batch was measured"
    assert kept < 25
