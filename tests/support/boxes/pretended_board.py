"""A real agent process on a board that is only pretended: its sensors are files, its thresholds are the test's.

board = Board(tmp_path / "board"); board.heat(71.0)
agent = BoardAgent(tmp_path, site, board=board, slots=factory_slot("camera", folder))
agent.profile(profile(temperature_c=(70, 80, 5))); agent.start()
"""

from __future__ import annotations

import contextlib
import http.client
import json
import sqlite3
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from support.makers import bundles
from support.sites.agent_process import AgentProcess, eventually
from support.sites.update_site import MODEL, UpdateSite

from edge_agent.host.sensors import architecture
from edge_agent.ipc.status import SlotStatus
from edge_contracts.telemetry import Event

BARE = f"""\
name = "pretended"
engines = ["onnxruntime"]
[board]
description = "a board whose sensors are files"
architecture = "{architecture()}"
cores = 2
memory_mb = 4096.0
source = "this test"
[model]
memory_mb = 256.0
[governor]
dwell_s = {{dwell_s}}
"""


def profile(dwell_s: float = 1.0, **thresholds: tuple[float, float, float]) -> str:
    """Return a profile with these thresholds of the governor: conserve, critical, hysteresis."""
    text = BARE.format(dwell_s=dwell_s)
    for name, (conserve, critical, hysteresis) in thresholds.items():
        text += f"[governor.{name}]\nconserve = {conserve}\ncritical = {critical}\nhysteresis = {hysteresis}\n"
    return text


class Board:
    """The files of /sys that sensors are read from."""

    def __init__(self, folder: Path) -> None:
        self.sys = folder / "sys"
        self.sys.mkdir(parents=True)

    def heat(self, celsius: float) -> None:
        self._write("class/thermal/thermal_zone0/temp", f"{celsius * 1000:.0f}\n")

    def battery(self, percent: float, status: str = "Discharging") -> None:
        supply = "class/power_supply/BAT0"
        self._write(f"{supply}/capacity", f"{percent:.0f}\n")
        self._write(f"{supply}/type", "Battery\n")
        self._write(f"{supply}/status", f"{status}\n")

    def throttle(self, flags: int) -> None:
        """Set the firmware's flags of a Raspberry Pi."""
        self._write("devices/platform/soc/soc:firmware/get_throttled", f"{flags:x}\n")

    def _write(self, name: str, text: str) -> None:
        path = self.sys / name
        path.parent.mkdir(parents=True, exist_ok=True)
        fresh = path.with_suffix(".fresh")
        fresh.write_text(text)
        fresh.replace(path)  # no reader sees half a number


@dataclass(frozen=True, kw_only=True)
class Reply:
    """What a slot answered over HTTP."""

    status: int
    retry_after: str | None
    body: dict[str, Any]

    @property
    def served_by(self) -> str:
        return str(self.body["parameters"]["served_by"])

    @property
    def output(self) -> list[float]:
        """The numbers of the one output; none when the answer is to abstain."""
        return [float(value) for output in self.body["outputs"] for value in output["data"]]


def factory_slot(name: str, folder: Path, lines: str = "") -> str:
    """Return the configuration of a slot that serves a factory bundle."""
    return f'[[slots]]\nname = "{name}"\nhttp = "127.0.0.1:0"\ndrain_s = 2.0\nfactory = "{folder}"\n{lines}\n'


class BoardAgent(AgentProcess):
    """An agent on that board with these further slots. `board` None: the machine's own sensors."""

    def __init__(
        self, folder: Path, site: UpdateSite | None, *, slots: str, board: Board | None = None, **options: Any
    ) -> None:
        super().__init__(folder, site, **options)
        self._profile = folder / "profile.toml"
        self.profile(profile())
        lines = f'profile = "{self._profile}"\n' + (f'sensors = "{board.sys}"\n' if board is not None else "")
        text = self.config.read_text()
        if site is None:
            text = text[: text.index("[[slots]]")]  # only the slots given here
        self.config.write_text(text.replace("[telemetry]", lines + "[telemetry]") + slots)

    def profile(self, text: str) -> None:
        """Write the device's profile; to be called before the start."""
        self._profile.write_text(text)

    def of(self, name: str) -> SlotStatus:
        """Return a slot's status."""
        return next(slot for slot in self.status().slots if slot.slot == name)

    def answer(self, name: str, value: float = 1.0, timeout_s: float = 10.0) -> Reply:
        """Ask a slot once, with `value` in every feature. Raises OSError or HTTPException when the answer is lost."""
        address = self.of(name).http
        assert address is not None
        return ask(address, value, timeout_s)

    def answers_from(self, name: str, rung: str, value: float = 1.0) -> Reply:
        """Wait until a slot answers from this rung, and return that answer."""

        def probe() -> Reply | None:
            with contextlib.suppress(OSError, http.client.HTTPException):
                reply = self.answer(name, value)
                return reply if reply.status == 200 and reply.served_by == rung else None
            return None

        try:
            return eventually(f"{name} is served by {rung}", probe)
        except AssertionError as error:
            raise AssertionError(f"{error}; {self.of(name)}\n{self.log}") from error

    def is_at(self, level: str) -> None:
        """Wait until the governor has this level."""
        eventually(f"level {level}", lambda: self.status().level == level)

    def stays_at(self, level: str, seconds: float) -> None:
        """Look for so long that the governor keeps this level."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            assert self.status().level == level
            time.sleep(0.1)

    def events(self, name: str) -> list[Event]:
        """Return the events of that name in the spool, oldest first; no controller has taken any."""
        with contextlib.closing(sqlite3.connect(self.state.outbox)) as database:
            rows = database.execute("SELECT body FROM messages WHERE kind = 'event' ORDER BY row").fetchall()
        events = [msgspec.json.decode(row[0], type=Event) for row in rows]
        return [event for event in events if event.event == name]


def ask(address: str, value: float, timeout_s: float = 10.0) -> Reply:
    """Ask one sample at an address, see `BoardAgent.answer`."""
    data = np.full(bundles.FEATURES, value).tolist()
    tensor = {"name": "x", "datatype": "FP32", "shape": [1, bundles.FEATURES], "data": data}
    with contextlib.closing(http.client.HTTPConnection(address, timeout=timeout_s)) as connection:
        connection.request("POST", f"/v2/models/{MODEL}/infer", json.dumps({"inputs": [tensor]}))
        response = connection.getresponse()
        body = json.loads(response.read())
        return Reply(status=response.status, retry_after=response.headers.get("retry-after"), body=body)
