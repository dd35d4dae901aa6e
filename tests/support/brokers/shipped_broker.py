"""The shipped Mosquitto configuration on loopback ports, with every path put where the test has its files.

lines = shipped_lines(folder, Ports()); with Mosquitto(folder, lines=lines, port=ports.devices): ...
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path

from support.brokers.brokers import free_port

CONFIGS = Path(__file__).parents[3] / "firmware_configs" / "mosquitto"


@dataclass(frozen=True, kw_only=True)
class Ports:
    """Where the two listeners are."""

    devices: int = field(default_factory=free_port)
    claims: int = field(default_factory=free_port)


def shipped_lines(folder: Path, ports: Ports) -> list[str]:
    """Return the shipped configuration as it is but for paths and ports; `folder` stands for /etc/mosquitto/certs.
    Nothing is kept over a restart, and the log goes where the test can read it."""
    text = (CONFIGS / "mosquitto.conf").read_text()
    lines = [line for line in text.splitlines() if line and not line.startswith(("#", "persistence", "log_dest"))]
    text = "\n".join(lines).replace("/etc/mosquitto/certs", str(folder)).replace("/etc/mosquitto", str(CONFIGS))
    text = re.sub(r"^listener 8883$", f"listener {ports.devices} 127.0.0.1", text, flags=re.MULTILINE)
    text = re.sub(r"^listener 8884$", f"listener {ports.claims} 127.0.0.1", text, flags=re.MULTILINE)
    return [*text.splitlines(), "log_dest stderr"]
