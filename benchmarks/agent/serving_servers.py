"""The servers that `serving.py` compares: how each is started, each in an environment of its own, installed by pip.

The agent is the real one, `edgewright agent run` with its supervisor and worker, connected to a broker.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

from benchmarks.common.process_tree import cpu_seconds, tree
from edgewright.demo.broker import free_port

PEERS = ("asgi", "asgi-granian", "fastapi", "fastapi-threads", "mlserver", "litserve", "stdlib")
"""A peer's name is its folder under `peers`, then its server's further arguments."""

SPEAK_BINARY = ("asgi", "asgi-granian")
"""Peers that take binary tensors as well."""

AGENT = "edgewright"
START_S = 60.0

ENVIRONMENT = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
"""The same for all: no idle BLAS threads."""

CONFIG = """\
[device]
id = "serving"
state = "{state}"

[broker]
host = "127.0.0.1"
port = {broker}
protocol = "3.1.1"

[[slots]]
name = "main"
factory = "{bundle}"
http = "127.0.0.1:{port}"
"""


@dataclass(frozen=True, kw_only=True)
class Started:
    """A running server, and what it took until its first answer: wall and CPU seconds of the whole process tree."""

    name: str
    port: int
    process: subprocess.Popen[bytes]
    wall_s: float
    cpu_s: float

    def stop(self) -> None:
        """End it, and what it leaves behind: LitServe's own processes outlive it."""
        children = tree(self.process.pid)[1:]
        self.process.terminate()
        try:
            self.process.wait(15)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        for child in children:
            with contextlib.suppress(psutil.NoSuchProcess):
                child.kill()


def environment_of(peer: str, cache: Path) -> Path:
    """Return the interpreter of a peer's environment, made in `cache` if it is not there yet."""
    peer = peer.partition("-")[0]
    folder, wanted = cache / peer, Path(__file__).parents[1] / "peers" / peer / "requirements.txt"
    python, stamp = folder / "bin" / "python", folder / "installed.txt"
    if not stamp.exists() or stamp.read_bytes() != wanted.read_bytes():
        print(f"installing {peer} into {folder}", file=sys.stderr)
        subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
        subprocess.run([str(python), "-m", "pip", "install", "--quiet", "-r", str(wanted)], check=True)
        stamp.write_bytes(wanted.read_bytes())
    return python


def environment_of_agent(cache: Path) -> Path:
    """Return the interpreter of an environment with the agent as a device has it: this source as a wheel, installed.

    Not the developers' environment: pip compiles what it installs, and an agent that compiles its source at each start
    takes a third longer.
    """
    root, python = Path(__file__).parents[2], cache / AGENT / "bin" / "python"
    if not python.exists():
        subprocess.run([sys.executable, "-m", "venv", str(cache / AGENT)], check=True)
    words = ["--quiet", "--disable-pip-version-check", "--constraint", str(root / "constraints.txt"), str(root)]
    subprocess.run([str(python), "-m", "pip", "install", *words], check=True)
    return python


def start_peer(peer: str, python: Path, model: Path, body: bytes) -> Started:
    """Start a peer on a free port and wait for its first answer to `body`."""
    folder, *more = peer.split("-")
    server, port = Path(__file__).parents[1] / "peers" / folder / "server.py", free_port()
    return _start(peer, [str(python), str(server), str(model), str(port), *more], port, ("model", body))


def start_agent(python: Path, folder: Path, bundle: Path, broker: int, model_body: tuple[str, bytes]) -> Started:
    """Start the agent with nothing in its state folder yet and wait for the first answer of its slot."""
    port = free_port()
    config = folder / f"agent-{port}.toml"
    config.write_text(CONFIG.format(state=folder / f"state-{port}", broker=broker, bundle=bundle, port=port))
    words = [str(python), "-m", "edgewright.cli", "agent", "run", "--config", str(config)]
    return _start(AGENT, words, port, model_body)


def _start(name: str, words: Sequence[str], port: int, model_body: tuple[str, bytes]) -> Started:
    model, body = model_body
    url = f"http://127.0.0.1:{port}/v2/models/{model}/infer"
    start = time.monotonic()
    process = subprocess.Popen(
        words, env=os.environ | ENVIRONMENT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    while not _answers(url, body):
        if process.poll() is not None or time.monotonic() - start > START_S:
            process.kill()
            raise RuntimeError(f"{name} does not answer: {' '.join(words)}")
        time.sleep(0.01)
    wall_s = time.monotonic() - start
    return Started(name=name, port=port, process=process, wall_s=wall_s, cpu_s=cpu_seconds(process.pid))


def _answers(url: str, body: bytes) -> bool:
    request = urllib.request.Request(url, body, {"content-type": "application/json"})  # noqa: S310 - our own URL
    try:
        with urllib.request.urlopen(request, timeout=10) as response:  # noqa: S310
            return bool(response.status == 200)
    except OSError as error:  # refused, or 503 while it starts
        if isinstance(error, urllib.error.HTTPError):
            error.close()
        return False
