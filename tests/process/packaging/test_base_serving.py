"""The base install serves a bundle: a real worker, a real model, nothing of the toolchain."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.makers import bundles
from support.sites.install_sites import ENGINEERS_SIDE, Environment


@pytest.fixture
def server(base_install: Environment, tmp_path: Path) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """`agent serve` from the base install, and its address."""
    bundles.make_bundle(tmp_path / "bundle")
    command = ("-m", "edgewright.cli", "agent", "serve", tmp_path / "bundle", "--http", "127.0.0.1:0")
    process = subprocess.Popen(
        [base_install.python, "-I", *command],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=base_install.variables,
    )
    assert process.stdout is not None
    said = []
    for line in process.stdout:
        said.append(line)
        if found := re.search(r"http://127\.0\.0\.1:\d+", line):
            break
    else:
        pytest.fail("".join(said))
    yield process, found.group()
    if process.poll() is None:
        process.kill()
    process.stdout.close()
    process.wait()


def ask(url: str, body: object = None) -> object:
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=10) as answer:
        return json.loads(answer.read())


def test_a_bundle_is_served_from_the_base_install(server: tuple[subprocess.Popen[str], str]) -> None:
    process, address = server
    x, classes = bundles.samples(8)
    tensor = {"name": "x", "datatype": "FP32", "shape": list(x.shape), "data": x.ravel().tolist()}
    answer = ask(f"{address}/v2/models/linear/infer", {"inputs": [tensor]})
    assert isinstance(answer, dict)
    scores = answer["outputs"][0]["data"]
    rows = [scores[start : start + 3] for start in range(0, len(scores), 3)]
    assert [row.index(max(row)) for row in rows] == classes.tolist()
    maps = Path(f"/proc/{process.pid}/maps").read_text()
    assert not [name for name in ENGINEERS_SIDE if f"/site-packages/{name}/" in maps]
    process.send_signal(signal.SIGINT)
    assert process.wait(20) == 0
