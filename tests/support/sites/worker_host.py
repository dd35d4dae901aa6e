"""A stand-in for the supervisor: starts real workers on one shared socket and speaks the link's lines with them."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

from edge_agent.bundle import Bundle
from edge_agent.fallback_ladder import LadderRelease, Rung, build_ladder
from edge_agent.host.memory_limits import LEAN_ENVIRONMENT
from edge_agent.ipc.in_flight import InFlightCounters
from edge_agent.ipc.worker import Ready, ToSupervisor, ToWorker, WorkerPlan, line, parse_to_supervisor


def ladder_of(*bundles: Bundle) -> tuple[Rung, ...]:
    """Return the ladder of an active bundle and, optionally, a last-good and a factory one."""
    roles = ("active", "last-good", "factory")
    releases = [
        LadderRelease(
            role=role,  # type: ignore[arg-type]
            folder=str(bundle.folder),
            manifest_sha256=bundle.manifest_sha256,
            manifest=bundle.manifest,
        )
        for role, bundle in zip(roles, bundles, strict=False)
    ]
    return build_ladder(releases)


class HostedWorker:
    """One worker process, its link and its flight page."""

    def __init__(self, listening: socket.socket, ladder: tuple[Rung, ...], **plan: Any) -> None:
        self.flight = InFlightCounters.create()
        self.link, theirs = socket.socketpair()
        made = WorkerPlan(
            slot="test",
            ladder=ladder,
            listen_fd=listening.fileno(),
            link_fd=theirs.fileno(),
            flight_fd=self.flight.fd,
            **{"heartbeat_s": 0.2, **plan},
        )
        self.process = subprocess.Popen(
            [sys.executable, "-m", "edge_agent.worker", msgspec.json.encode(made).decode()],
            pass_fds=[made.listen_fd, made.link_fd, made.flight_fd],
            stderr=subprocess.PIPE,
            env=os.environ | LEAN_ENVIRONMENT,
        )
        theirs.close()
        self.link.settimeout(20)
        self._lines = self.link.makefile("rb")

    def say(self, message: ToWorker) -> None:
        self.link.sendall(line(message))

    def hear(self, kind: type, where: Callable[[Any], bool] = lambda _: True) -> Any:
        """Return the next message of that kind for which `where` holds."""
        for data in self._lines:
            message: ToSupervisor = parse_to_supervisor(data)
            if isinstance(message, kind) and where(message):
                return message
        raise AssertionError(f"the worker ended without {kind.__name__}")

    def ready(self) -> Ready:
        message: Ready = self.hear(Ready)
        return message

    def close(self) -> None:
        if self.process.poll() is None:
            os.kill(self.process.pid, signal.SIGKILL)
        self.process.wait()
        assert self.process.stderr is not None
        self.process.stderr.close()
        self._lines.close()
        self.link.close()
        self.flight.close()


def listening_socket() -> socket.socket:
    """Return a listening socket on a port the system chose."""
    return socket.create_server(("127.0.0.1", 0), backlog=128)


def url_of(listening: socket.socket) -> str:
    return f"http://127.0.0.1:{listening.getsockname()[1]}"


def infer_json(url: str, rows: list[list[float]], model: str = "linear") -> dict[str, Any]:
    """Send one inference request as JSON and return the parsed answer."""
    tensor = {"name": "x", "datatype": "FP32", "shape": [len(rows), len(rows[0])], "data": rows}
    return call(f"{url}/v2/models/{model}/infer", {"inputs": [tensor]})


def call(url: str, body: Any = None) -> dict[str, Any]:
    """GET, or POST `body` as JSON; return the parsed answer. Raises urllib.error.HTTPError."""
    data = None if body is None else json.dumps(body).encode()
    with urllib.request.urlopen(url, data, timeout=20) as response:
        answer: dict[str, Any] = json.loads(response.read())
        return answer


def wait_until(holds: Callable[[], bool], timeout_s: float = 10.0) -> None:
    """Wait until something holds. Raises AssertionError after the time."""
    end = time.monotonic() + timeout_s
    while not holds():
        assert time.monotonic() < end, "did not come true in time"
        time.sleep(0.02)


def proportional_memory_mb(pid: int) -> float:
    """Return a process's PSS in megabytes of 2^20 bytes."""
    for text in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if text.startswith("Pss:"):
            return int(text.split()[1]) / 1024
    raise AssertionError("no PSS")
