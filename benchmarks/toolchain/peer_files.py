"""The files that other quantizers make of a task's model, made once and kept: `compress_peers.py` compares them.

Every tool runs in an environment of its own, at the settings its documentation shows, on the task's calibration
samples. A file is made anew when anything it was made of changes: model, samples, script or versions.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from benchmarks.agent.serving_servers import environment_of
from edge_agent.inference.samples import to_model
from edge_bench.task import Task
from edge_contracts.manifest import Input

TOOLS: dict[str, tuple[str, ...]] = {
    "onnxruntime": ("static", "static_u8", "static_per_channel", "static_reduce_range", "dynamic"),
    "nncf": ("performance", "mixed", "accurate_bias"),
    "onnx_neural_compressor": ("static", "dynamic"),
    "quark": ("XINT8", "A8W8", "S8S8_AAWS"),
    "olive": ("static", "static_u8", "dynamic"),
    "onnxsim": ("static", "full", "dynamic", "auto"),
    "ai_edge_quantizer": ("static", "dynamic", "weight_only"),
}
"""A tool's folder under `peers/compress`, and the settings its script is given."""

SCRIPTS = Path(__file__).parents[1] / "peers" / "compress"
OURS = "onnxruntime"
"""The tool that is part of our own environment."""

TFLITE = "ai_edge_quantizer"
PATIENCE_S = 1800
"""For one setting."""

TAIL = 300
"""Characters kept of what a tool that failed said last."""

QUIET = {
    "HF_HUB_OFFLINE": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "NNCF_CI": "1",
    "OLIVE_DISABLE_TELEMETRY": "1",
    "OMP_NUM_THREADS": "1",
    "TQDM_DISABLE": "1",
}
"""No telemetry, no downloads, no bars, one thread."""


@dataclass(frozen=True, kw_only=True)
class PeerFile:
    """What a peer, a tool with a setting, made: `path`, or what it said instead in `failed`."""

    peer: str
    path: Path
    failed: str | None


@dataclass(frozen=True, kw_only=True)
class PeerBuilder:
    """Where tools are installed and where their files are kept, a folder a task."""

    environments: Path
    files: Path

    def made(self, tool: str, task: Task) -> list[PeerFile]:
        """Return what a tool makes of the task's model, or of the .tflite beside it, at all of its settings.
        Raises CalledProcessError when the tool cannot be installed."""
        model = task.model.with_suffix(".tflite") if tool == TFLITE else task.model
        if not model.is_file():
            return []
        folder = self.files / task.file.name
        record, wanted = folder / f"{tool}.json", ingredients(tool, model, calibration(task))
        kept = json.loads(record.read_text(encoding="utf-8")) if record.is_file() else {}
        failed: dict[str, str | None] = kept["failed"] if kept.get("ingredients") == wanted else {}
        missing = [setting for setting in TOOLS[tool] if setting not in failed]
        if missing:
            folder.mkdir(parents=True, exist_ok=True)
            print(f"{task.file.name}: {tool} {' '.join(missing)}", file=sys.stderr)
            failed = failed | dict(self._run(tool, missing, task, model))
            record.write_text(json.dumps({"ingredients": wanted, "failed": failed}, indent=1) + "\n", encoding="utf-8")
        return [
            PeerFile(peer=f"{tool}-{one}", path=folder / f"{tool}-{one}{model.suffix}", failed=failed[one])
            for one in TOOLS[tool]
        ]

    def python(self, tool: str) -> Path:
        """Return the interpreter of a tool's environment. Raises CalledProcessError when it cannot be installed."""
        return Path(sys.executable) if tool == OURS else environment_of(f"compress/{tool}", self.environments)

    def megabytes(self) -> dict[str, int]:
        """Return the size of each tool's installation with what it needs, of those that are there."""
        sizes = {}
        for tool in TOOLS:
            packages = (self.environments / "compress" / tool / "lib").glob("python*/site-packages")
            files = [path for folder in packages for path in folder.rglob("*") if not path.is_dir()]
            if files:
                sizes[tool] = round(sum(path.lstat().st_size for path in files) / 1e6)
        return sizes

    def _run(self, tool: str, settings: list[str], task: Task, model: Path) -> Iterator[tuple[str, str | None]]:
        """Run a tool's script in a folder of its own; yield what went wrong by setting, None where a file is made."""
        folder = self.files / task.file.name
        with tempfile.TemporaryDirectory(prefix="edgewright-peer-") as name:
            scratch = Path(name)
            np.save(scratch / "calibration.npy", calibration(task))
            words = [str(self.python(tool)), str(SCRIPTS / "each.py"), str(SCRIPTS / tool / "run.py")]
            words += [str(model.resolve()), "calibration.npy", ".", str(PATIENCE_S), *settings]
            subprocess.run(words, cwd=scratch, env=os.environ | QUIET, stdout=subprocess.DEVNULL, check=False)
            for setting in settings:
                made = scratch / f"{setting}{model.suffix}"
                failed = failure(scratch / f"{setting}.log", made)
                if failed is None:
                    whole(made)
                    shutil.move(made, folder / f"{tool}-{made.name}")
                yield setting, failed


def whole(made: Path) -> None:
    """Put weights that a tool left in a second file into the model: they count as well."""
    if made.suffix == ".onnx":
        onnx.save(onnx.load(made), made)


def failure(log: Path, made: Path) -> str | None:
    """Return what a tool said last, by the log of `each.py`, if it ended with an error or made no file."""
    if not log.is_file():
        return "its script could not be started"
    *said, status = [line for line in log.read_text(errors="replace").splitlines() if line.strip()]
    if status == str(-signal.SIGALRM):
        return f"took longer than {PATIENCE_S} s"
    if status == "0" and made.is_file():
        return None
    return (said or [f"nothing said, ended with {status}"])[-1].strip()[:TAIL]


def calibration(task: Task) -> np.ndarray[Any, Any]:
    """Return the task's calibration samples as the model is fed them."""
    shape = (-1, *task.x.shape[1:])
    return to_model(task.calibration, Input(name="x", dtype=task.file.input.dtype, shape=shape, sample=task.mapping))


def ingredients(tool: str, model: Path, samples: np.ndarray[Any, Any]) -> str:
    """Return the digest of all that a tool's files are made of."""
    import onnxruntime  # here, because edge_agent comes first and switches its reports off

    digest = hashlib.sha256(onnxruntime.__version__.encode() if tool == OURS else b"")
    digest.update(np.ascontiguousarray(samples).tobytes())
    for path in [model, *sorted((SCRIPTS / tool).glob("*.*"))]:
        digest.update(path.read_bytes())
    return digest.hexdigest()
