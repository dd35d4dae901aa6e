"""The script of docs/how-to/camera.md goes on through every ordinary answer."""

import json
import re
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

PAGE = Path(__file__).parents[4] / "docs" / "how-to" / "camera.md"
MODEL = {"inputs": [{"name": "x", "datatype": "UINT8", "shape": [-1, 2, 2, 3]}]}
SCORES = {"outputs": [{"name": "y", "datatype": "FP32", "shape": [1, 3], "data": [0.1, 0.7, 0.2]}]}
LABEL = {"outputs": [{"name": "label", "datatype": "BYTES", "shape": [1, 1], "data": ["cat"]}]}
ABSTAINED = {"outputs": [], "parameters": {"abstained": True}}
REFUSED = {"error": "overloaded"}


class Slot(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    models = [REFUSED, MODEL]
    answers = []

    def do_GET(self):
        self._answer(Slot.models.pop(0))

    def do_POST(self):
        self.rfile.read(int(self.headers["content-length"]))
        self._answer(Slot.answers.pop(0))

    def _answer(self, answer):
        if answer is None:
            self.close_connection = True  # as a worker that has just been replaced
            return
        body = json.dumps(answer).encode()
        self.send_response(503 if "error" in answer else 200)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


@pytest.fixture
def port():
    server = HTTPServer(("127.0.0.1", 0), Slot)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield server.server_address[1]
    server.shutdown()
    server.server_close()


def test_it_prints_what_is_answered_and_outlives_what_is_not(tmp_path, port):
    script = tmp_path / "camera.py"
    script.write_text(re.search(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)[1])
    Slot.answers = [SCORES, REFUSED, ABSTAINED, None, LABEL, SCORES]
    frames = bytes(12) * len(Slot.answers)
    command = [sys.executable, str(script), f"127.0.0.1:{port}", "cam"]
    done = subprocess.run(command, input=frames, capture_output=True, timeout=30, check=False)
    assert (done.returncode, done.stdout.decode().splitlines()) == (0, ["1 0.7", "cat", "1 0.7"])
    assert done.stderr.count(b"overloaded") == 2
    assert b"too uncertain" in done.stderr
