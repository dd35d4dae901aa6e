"""`edgewright fleet simulate` over a small fleet: fifty devices on real connections, and the fleet's real services."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from edgewright.demo.stage import run

pytestmark = pytest.mark.timeout(240)

DEVICES = 50
PLAN = """\
channel = "main"
model = "cam"
version = "1.0.0"
observe_s = 0.5
[gates]
failures = 0.05
[device]
soak_s = 1.0
[[steps]]
kind = "wave"
percent = 40
[[steps]]
kind = "wave"
percent = 100
"""


def _simulate(folder: Path, scenario: str, *words: str) -> dict[str, Any]:
    (folder / "plan.toml").write_text(PLAN)
    (folder / "scenario.toml").write_text(f"connects_per_s = 100\ntrial_s = 0.5\nrelease_bytes = 200000\n{scenario}")
    out = folder / "out.json"
    files = ("--plan", str(folder / "plan.toml"), "--scenario", str(folder / "scenario.toml"), "--json", str(out))
    run("fleet", "simulate", "--devices", str(DEVICES), "--broker", "embedded", *files, *words)
    found: dict[str, Any] = json.loads(out.read_bytes())
    return found


def test_a_good_release_reaches_every_device_through_power_cuts_and_absences(tmp_path: Path) -> None:
    picture = tmp_path / "curve.svg"
    scenario = "power_cuts = 0.2\noffline = 0.2\noffline_s = 3\nloss = 0.01\nwindow_s = 2\nclock_off = 0.1"
    found = _simulate(tmp_path, scenario, "--picture", str(picture))
    assert (found["committed"], found["failed"], found["halted"]) == (DEVICES, 0, False)
    assert (found["waves"], found["signed_documents"]) == (2, 3)  # the waves, and the end
    assert found["bytes_per_device"] > 200_000
    assert found["lost_connections"] > 0
    assert all(found["cpu_s"][name] > 0.0 for name in ("controller", "depot", "broker"))
    assert found["windows_stored"] > 0
    assert picture.read_text().startswith("<svg")


def test_a_bad_release_is_stopped_and_every_device_goes_back(tmp_path: Path) -> None:
    found = _simulate(tmp_path, 'failing = 0.6\nfailing_by = "errors"\nrequests_per_s = 50')
    assert found["halted"], found["why"]
    assert found["committed"] == 0
    assert 0 < found["failed"] < DEVICES / 2
    assert found["refused"] == {"error-share": found["failed"]}
    assert found["reverted"] >= found["failed"]
