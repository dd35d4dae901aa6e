"""What `test_device_files.py` and `test_device_files_processes.py` share."""

from __future__ import annotations

from pathlib import Path

from support.sites.install_sites import ROOT

CONFIGS = ROOT / "firmware_configs"
UNIT = CONFIGS / "systemd" / "edgewright-agent.service"
SERVICES = ("depot", "controller", "enrollment")


def service_unit(name: str) -> Path:
    """Return the unit file of one of the fleet's services."""
    return CONFIGS / "systemd" / f"edgewright-{name}.service"


def command_of(unit: Path, **values: str) -> list[str]:
    """Return the words of a unit's ExecStart behind the program, with its own environment or these values put in."""
    lines = unit.read_text().splitlines()
    (start,) = (line.partition("=")[2] for line in lines if line.startswith("ExecStart="))
    for line in lines:
        for name, value in (pair.split("=", 1) for pair in line.removeprefix("Environment=").split() if "=" in pair):
            start = start.replace(f"${{{name}}}", values.get(name, value))
    return start.split()[1:]
