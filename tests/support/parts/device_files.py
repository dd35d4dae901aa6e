"""What `test_device_files.py` and `test_device_files_processes.py` share."""

from __future__ import annotations

from support.sites.install_sites import ROOT

CONFIGS = ROOT / "firmware_configs"
UNIT = CONFIGS / "systemd" / "edgewright-agent.service"
