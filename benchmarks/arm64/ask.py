"""Has another interpreter serve the bundles of `bundles.py`, asks over HTTP, and compares the answers with NumPy's.

    python benchmarks/arm64/ask.py INTERPRETER FOLDER

One JSON line for each bundle; exit code 1 if one is not answered for in time, wrongly, or by another rung than its
first. The server is the agent's worker (`edgewright agent serve`). The supervisor around it gives a worker a minute to
start, which emulation on a busy machine does not keep; nothing of it depends on the processor.
"""

from __future__ import annotations

import http.client
import json
import subprocess
import sys
import time
import urllib.parse
from pathlib import Path
from typing import Any

import numpy as np

sys.path.append(str(Path(__file__).resolve().parents[2] / "tests"))

from support.makers import bundles as bundle_maker

BUNDLES = {"onnx": "local:1.0.0/fp32", "tflite": "local:1.0.0/lite"}
"""The bundles and who should answer for them."""

WAIT_S = 900.0
"""For one answer: an emulated interpreter needs half a minute of a whole core to import an engine."""


def answer_of(interpreter: str, bundle: Path) -> dict[str, Any] | None:
    """Serve a bundle until it has answered one sample; None if it does not in time."""
    words = [interpreter, "-m", "edgewright.cli", "agent", "serve", str(bundle), "--http", "127.0.0.1:0", "--json"]
    deadline, answer = time.monotonic() + WAIT_S, None
    with subprocess.Popen(words, stdout=subprocess.PIPE) as server:
        assert server.stdout is not None
        line = server.stdout.readline()
        while line and answer is None and server.poll() is None and time.monotonic() < deadline:
            answer = ask(**json.loads(line))
        server.terminate()
    return answer


def ask(url: str, model: str, **_more: object) -> dict[str, Any] | None:
    """Return the answer to one sample; None while there is none."""
    x, _ = bundle_maker.samples(1)
    tensor = {"name": "x", "datatype": "FP32", "shape": list(x.shape), "data": x.ravel().tolist()}
    body, head = json.dumps({"inputs": [tensor]}), {"Content-Type": "application/json"}
    connection = http.client.HTTPConnection(urllib.parse.urlsplit(url).netloc, timeout=WAIT_S)
    try:
        connection.request("POST", f"/v2/models/{model}/infer", body, head)
        given = connection.getresponse()
        return dict(json.loads(given.read())) if given.status == 200 else None
    except (OSError, http.client.HTTPException):
        time.sleep(1.0)
        return None


def judge(name: str, answer: dict[str, Any] | None) -> bool:
    """Print a bundle's answer; return whether it is right."""
    x, _ = bundle_maker.samples(1)
    given = [] if answer is None else answer["outputs"][0]["data"]
    by = None if answer is None else answer["parameters"]["served_by"]
    wanted = (x @ bundle_maker.WEIGHTS).ravel()
    right = by == BUNDLES[name] and len(given) == wanted.size and bool(np.allclose(given, wanted, atol=1e-4))
    sys.stdout.write(json.dumps({"bundle": name, "served_by": by, "answer": given, "right": right}) + "\n")
    sys.stdout.flush()
    return right


def main() -> int:
    interpreter, folder = sys.argv[1], Path(sys.argv[2]).resolve()
    verdicts = [judge(name, answer_of(interpreter, folder / name)) for name in BUNDLES]
    return 0 if all(verdicts) else 1


if __name__ == "__main__":
    sys.exit(main())
