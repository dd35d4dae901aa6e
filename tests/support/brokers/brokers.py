"""Real brokers for tests, each on a loopback port of its own: Mosquitto when it is installed, and the embedded one.

    with Mosquitto(tmp_path) as broker: ...      broker.port, broker.kill(), broker.start()
    with EmbeddedBroker() as broker: ...         the same verbs

`BROKERS` lists the classes to parametrize over. In CI (`CI=true`) Mosquitto must be there; elsewhere tests that need it
are skipped with the reason.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import time
from pathlib import Path

import pytest

from edgewright.demo.broker import EmbeddedBroker, free_port

__all__ = ["BROKERS", "EmbeddedBroker", "Mosquitto", "free_port", "make_broker", "mosquitto_program"]


def mosquitto_program() -> str:
    """Return Mosquitto's path; skip the test without it, but fail in CI."""
    found = shutil.which("mosquitto") or shutil.which("/usr/sbin/mosquitto")
    if found is None:
        if os.environ.get("CI"):
            pytest.fail("mosquitto is not installed in CI")
        pytest.skip("mosquitto is not installed")
    return found


class Mosquitto:
    """Mosquitto with an anonymous loopback listener, or with a configuration of the test's own (`lines`)."""

    protocol = "auto"

    def __init__(self, folder: Path, *, lines: list[str] | None = None, port: int | None = None) -> None:
        self.port = port or free_port()
        self._folder = folder
        self._lines = ["allow_anonymous true", f"listener {self.port} 127.0.0.1"] if lines is None else lines
        self._process: subprocess.Popen[bytes] | None = None
        self.log = folder / f"mosquitto-{self.port}.log"

    def start(self) -> None:
        """Start and return once it accepts connections."""
        config = self._folder / f"mosquitto-{self.port}.conf"
        config.write_text("\n".join([*self._lines, "user root", ""]))
        with self.log.open("ab") as log:
            self._process = subprocess.Popen([mosquitto_program(), "-c", str(config)], stdout=log, stderr=log)
        deadline = time.monotonic() + 10
        while time.monotonic() < deadline:
            with socket.socket() as probe:
                probe.settimeout(0.2)
                if probe.connect_ex(("127.0.0.1", self.port)) == 0:
                    return
            assert self._process.poll() is None, self.log.read_text()
            time.sleep(0.02)
        raise AssertionError("mosquitto did not start")

    def kill(self) -> None:
        """End it with SIGKILL: retained messages and sessions are gone."""
        assert self._process is not None
        self._process.kill()
        self._process.wait()

    def reload(self) -> None:
        """Tell it to read its files again (SIGHUP)."""
        assert self._process is not None
        self._process.send_signal(signal.SIGHUP)

    def stop(self) -> None:
        """End it; harmless when it does not run."""
        if self._process is not None and self._process.poll() is None:
            self._process.terminate()
            self._process.wait(10)

    def __enter__(self) -> Mosquitto:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()


BROKERS = ("mosquitto", "embedded")


def make_broker(kind: str, folder: Path) -> Mosquitto | EmbeddedBroker:
    """Return a broker of that kind, not yet started."""
    return Mosquitto(folder) if kind == "mosquitto" else EmbeddedBroker()
