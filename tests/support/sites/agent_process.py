"""A real agent process on a state folder of its own, fed from an exported repository instead of a broker.

with AgentProcess(tmp_path, site, factory=folder) as agent: agent.bring(); agent.wait_for("committed")
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from support.makers import bundles
from support.sites.update_site import CHANNEL, MODEL, UpdateSite

from edge_agent.cli.status import stored_status
from edge_agent.ipc.control import ControlRequest, ask_agent
from edge_agent.ipc.status import AgentStatus, SlotStatus
from edge_agent.storage.state_dir import StateFolder

T = TypeVar("T")


def eventually(what: str, probe: Callable[[], T | None], timeout_s: float = 30.0) -> T:
    """Return the first true value of `probe`."""
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        if found := probe():
            return found
        time.sleep(0.05)
    raise AssertionError(f"did not happen: {what}")


class AgentProcess:
    """See the module. `broker_port` connects it; `factory` is a bundle folder."""

    def __init__(
        self, folder: Path, site: UpdateSite | None, *, factory: Path | None = None, broker_port: int | None = None
    ) -> None:
        self.site = site
        self.config = folder / "agent.toml"
        self.state = StateFolder(folder / "agent-state")
        self._log = folder / "agent.log"
        text = f'[device]\nid = "dev-1"\nstate = "{self.state.root}"\n[telemetry]\nwindow_s = 0.5\n'
        if broker_port is not None:
            text += f'[broker]\nhost = "127.0.0.1"\nport = {broker_port}\nprotocol = "3.1.1"\n'
        if site is not None:
            text += f'[trust]\nroot = "{site.folder / "fleet" / "root.json"}"\n'
        text += '[[slots]]\nname = "main"\nhttp = "127.0.0.1:0"\ndrain_s = 2.0\n'
        text += f'channel = "{CHANNEL}"\n' if site is not None else ""
        text += f'factory = "{factory}"\n' if factory is not None else ""
        self.config.write_text(text)
        self.process: subprocess.Popen[bytes]

    def start(self) -> None:
        """Start and wait until it can be asked."""
        words = [sys.executable, "-m", "edgewright.cli", "agent", "run", "--config", str(self.config)]
        with self._log.open("ab") as log:
            self.process = subprocess.Popen(words, stdout=log, stderr=log)
        eventually("the agent runs", lambda: self.status().running)

    def stop(self) -> None:
        """Stop in order."""
        if self.process.poll() is None:
            self.process.terminate()
            assert self.process.wait(20) == 0, self.log

    def kill(self) -> None:
        """End with SIGKILL."""
        self.process.kill()
        self.process.wait(10)

    def __enter__(self) -> AgentProcess:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def log(self) -> str:
        return self._log.read_text()

    def status(self) -> AgentStatus:
        """Return the status, of the running agent or of its records."""
        try:
            reply = ask_agent(self.state, ControlRequest(ask="status"), timeout_s=10.0)
        except Exception:
            reply = None
        return stored_status(self.state) if reply is None else reply.status

    def slot(self) -> SlotStatus:
        return self.status().slots[0]

    def bring(self) -> None:
        """Import from the site's repository."""
        assert self.site is not None
        reply = ask_agent(self.state, ControlRequest(ask="import", folder=str(self.site.repository)), timeout_s=30.0)
        assert reply is not None

    def wait_for(self, state: str, version: str | None = None) -> SlotStatus:
        """Wait until the slot's update is in `state` with the candidate `version`."""

        def probe() -> SlotStatus | None:
            slot = self.slot()
            right = version is None or (slot.candidate is not None and slot.candidate.version == version)
            return slot if slot.state == state and right else None

        try:
            return eventually(f"{version} is {state}", probe)
        except AssertionError as error:
            raise AssertionError(f"{error}; {self.slot()}\n{self.log}") from error

    def ask(self, value: float | None = None, timeout_s: float = 10.0) -> dict[str, Any]:
        """ControlRequest one sample, or one filled with `value`; return the whole answer."""
        x = bundles.samples(1)[0].tolist() if value is None else [[value] * bundles.FEATURES]
        body = {"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, bundles.FEATURES], "data": x}]}
        url = f"http://{self.slot().http}/v2/models/{MODEL}/infer"
        request = urllib.request.Request(url, json.dumps(body).encode(), {"Content-Type": "application/json"})
        with urllib.request.urlopen(request, timeout=timeout_s) as answer:
            found: dict[str, Any] = json.loads(answer.read())
            return found

    def served_by(self) -> str:
        """Return the rung that answers, once one does."""

        def probe() -> str | None:
            try:
                return str(self.ask()["parameters"]["served_by"])
            except (OSError, urllib.error.URLError):
                return None

        return eventually("an answer", probe)
