"""The processes of the demonstration: every one is the documented command, started as a user would start it."""

from __future__ import annotations

import contextlib
import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

from edge_contracts.errors import EdgewrightError

T = TypeVar("T")

AGENT = """\
[device]
id = "{device}"
profile = "x86-gateway"
state = "{state}"
tags = {{ site = "demo" }}

[broker]
host = "127.0.0.1"
port = {port}
protocol = "{protocol}"

[trust]
root = "{root}"

[updates]
poll_s = 3.0
timeout_s = 5.0

[telemetry]
window_s = 1.0

[[slots]]
name = "wrist"
channel = "wrist"
http = "127.0.0.1:0"
"""


class DemoError(EdgewrightError):
    """A command of the demonstration failed or something did not happen in time."""

    reason = "demo"


def command(*words: str) -> list[str]:
    """Return the command line of `edgewright WORDS`, with this interpreter."""
    return [sys.executable, "-m", "edgewright.cli", *words]


def run(*words: str) -> str:
    """Run `edgewright WORDS` to its end and return its standard output. Raises DemoError with its last words."""
    done = subprocess.run(command(*words), capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise DemoError(f"edgewright {' '.join(words[:3])} ended with {done.returncode}: {done.stderr[-2000:]}")
    return done.stdout


def run_json(*words: str) -> Any:
    """Run `edgewright WORDS --json` and return the parsed document."""
    return json.loads(run(*words, "--json"))


def wait_for(what: str, probe: Callable[[], T | None], *, timeout_s: float = 30.0) -> T:
    """Return the first value of `probe` that is true. Raises DemoError when the time is over."""
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        with contextlib.suppress(OSError, ValueError):
            value = probe()
            if value:
                return value
        time.sleep(0.1)
    raise DemoError(f"did not happen within {timeout_s:g} s: {what}")


class Stage:
    """The folder everything lives in and the long-running processes, all ended on exit."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._processes: dict[str, subprocess.Popen[bytes]] = {}

    def start(self, name: str, *words: str, ready: str | None = None) -> None:
        """Start `edgewright WORDS` in the background, its output in `<name>.log`; wait for the line `ready`."""
        self.start_process(name, command(*words), ready)

    def start_process(self, name: str, words: list[str], ready: str | None = None) -> None:
        """Start any command line the same way."""
        log = self.folder / f"{name}.log"
        with log.open("ab") as out:
            start = out.tell()
            self._processes[name] = subprocess.Popen(words, stdout=out, stderr=out)
        if ready is not None:
            wait_for(f"{name} says {ready!r}", lambda: ready in self._fresh(name, log, start))

    def stop(self, name: str) -> None:
        """Ask a process to end and wait; SIGKILL after ten seconds."""
        process = self._processes.pop(name)
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def runs(self, name: str) -> bool:
        """Return whether a process of that name was started and not stopped since."""
        return name in self._processes

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the processes that were started and not stopped since."""
        return tuple(self._processes)

    def pid(self, name: str) -> int:
        """Return the process id of a running process."""
        return self._processes[name].pid

    def wait(self, name: str) -> None:
        """Wait until a process that was killed is gone, and forget it."""
        self._processes.pop(name).wait(10)

    def log_tail(self, name: str, lines: int = 15) -> str:
        """Return the last lines of a process's output."""
        log = self.folder / f"{name}.log"
        return "\n".join(log.read_text(errors="replace").splitlines()[-lines:]) if log.exists() else ""

    def _fresh(self, name: str, log: Path, start: int) -> str:
        code = self._processes[name].poll()
        text = log.read_bytes()[start:].decode(errors="replace")
        if code is not None:
            raise DemoError(f"{name} ended with {code}: {text[-2000:]}")
        return text

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        for name in list(self._processes)[::-1]:
            self.stop(name)
