"""What `test_repository.py` tests, where it takes a real process or a wait."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from support.makers import fleets
from support.makers.fleets import NOW, device_download

from edge_fleet.errors import FleetBusyError
from edge_fleet.signing.workspace import locked


def test_a_second_command_waits_for_the_lock_and_says_so_in_the_end(tmp_path: Path) -> None:
    with locked(tmp_path / ".lock", 1.0), pytest.raises(FleetBusyError), locked(tmp_path / ".lock", 0.1):
        pass


def test_two_commands_at_once_both_take_effect(tmp_path: Path) -> None:
    fleet = fleets.make_fleet(tmp_path)
    running = [
        subprocess.Popen([sys.executable, "-m", "edgewright.cli", "fleet", "family", "add", str(fleet.path), name])
        for name in ("one", "two", "three")
    ]
    assert [process.wait(30) for process in running] == [0, 0, 0]
    assert sorted(fleet.read(NOW).families()) == ["one", "three", "two"]
    device_download(fleet, tmp_path)
