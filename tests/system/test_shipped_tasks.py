"""The small tasks that ship: each is compressed, served over HTTP, and answers as its rung's own file does."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
from numpy.typing import NDArray
from support.sites.install_sites import ROOT

import edge_agent  # noqa: F401 - before onnxruntime, which would report to its maker otherwise
from edge_agent.processing.postprocess import Postprocessor
from edge_bench.task import Task, read_task
from edge_contracts.manifest import MANIFEST_NAME, Manifest, parse_manifest

TASKS = ROOT / "edgewright" / "demo" / "data" / "tasks"
NAMES = sorted(one.stem for one in TASKS.glob("*.toml"))
CLI = [sys.executable, "-m", "edgewright.cli"]
NUMPY_TO_OIP = {"float32": "FP32", "int64": "INT64", "uint8": "UINT8", "int16": "INT16"}
FRAMES = 8
NOTHING_GAINED = 4
"""Exit code of a search whose only rung is the original, as it is of trees; the bundle is written."""

Array = NDArray[Any]


@contextmanager
def served(bundle: Path) -> Iterator[str]:
    """Serve a bundle at a free port until the context ends; yields the address."""
    words = [*CLI, "agent", "serve", str(bundle), "--http", "127.0.0.1:0"]
    log = bundle.with_suffix(".log")
    with log.open("wb") as file:
        process = subprocess.Popen(words, stdout=file, stderr=subprocess.STDOUT, env=os.environ)
    try:
        for _ in range(600):
            found = re.search(r"http://127\.0\.0\.1:\d+", log.read_text())
            if found is not None:
                break
            assert process.poll() is None, log.read_text()
            try:
                process.wait(0.1)
            except subprocess.TimeoutExpired:
                continue
        assert found is not None, log.read_text()
        yield found[0]
    finally:
        process.terminate()
        process.wait(30)


def ask(url: str, name: str, tensors: dict[str, Array], **parameters: Any) -> dict[str, Array]:
    """Return the answers by name."""
    inputs = [
        {"name": key, "datatype": NUMPY_TO_OIP[one.dtype.name], "shape": one.shape, "data": one.reshape(-1).tolist()}
        for key, one in tensors.items()
    ]
    text = json.dumps({"inputs": inputs, "parameters": parameters}).encode()
    request = urllib.request.Request(f"{url}/v2/models/{name}/infer", text, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=60) as response:
        given = json.load(response)["outputs"]
    return {one["name"]: np.array(one["data"]).reshape(one["shape"]) for one in given}


def fed(task: Task, sample: slice, frame: int | None) -> tuple[dict[str, Array], dict[str, Array]]:
    """Return what a client sends of some samples and what the model is given."""
    sent: dict[str, Array] = {}
    for one in task.sampled:
        assert one.samples is not None
        chosen = np.nan_to_num(one.samples[sample])  # JSON has no NaN
        sent[str(one.name)] = chosen if frame is None else chosen[:, frame]
    scales = {str(one.name): (one.scale, one.offset, one.dtype) for one in task.sampled}
    given = {
        name: ((x - np.float32(scales[name][1])) * np.float32(scales[name][0])).astype(scales[name][2])
        for name, x in sent.items()
    }
    return sent, given


def rung_file(bundle: Path) -> tuple[Manifest, Path]:
    """Return the manifest and the file of the first rung, which serves."""
    manifest = parse_manifest((bundle / MANIFEST_NAME).read_bytes())
    return manifest, bundle / manifest.variants[0].file


@pytest.mark.timeout(400)
@pytest.mark.parametrize("name", NAMES)
def test_a_shipped_task_is_served_as_its_rung_answers(name: str, tmp_path: Path) -> None:
    task, bundle = read_task(TASKS / f"{name}.toml"), tmp_path / "bundle"
    words = [*CLI, "compress", str(task.path), "--profile", "x86-gateway", "--budget", "15s", "--out", str(bundle)]
    done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode in (0, NOTHING_GAINED), done.stdout[-2000:] + done.stderr[-2000:]
    manifest, file = rung_file(bundle)
    session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    steps = Postprocessor(manifest, manifest.variants[0].score_maps)
    outputs = [one.name for one in session.get_outputs()]
    states = {one.name: one.feedback for one in task.inputs if one.feedback is not None}
    held = {one.name: np.zeros((1, *one.shape[1:]), np.float32) for one in session.get_inputs() if one.name in states}
    with served(bundle) as url:
        for step in range(FRAMES):
            sample = slice(0, 1) if states else slice(step, step + 1)
            sent, given = fed(task, sample, step if states else None)
            more = {"sequence_id": "one", "sequence_start": step == 0} if states else {}
            answers = ask(url, manifest.name, sent, **more)
            raw = dict(zip(outputs, session.run(None, given | held), strict=True))
            held = {key: raw[str(output)] for key, output in states.items()}
            wanted = steps.finish(raw, given)
            compared = [key for key in wanted if key in answers]
            assert compared, answers.keys()
            for key in compared:
                assert answers[key] == pytest.approx(wanted[key], rel=1e-4, abs=1e-4), key


def test_the_shipped_tasks_weigh_at_most_two_megabytes() -> None:
    assert len(NAMES) >= 6
    assert sum(one.stat().st_size for one in TASKS.iterdir()) <= 2_000_000
