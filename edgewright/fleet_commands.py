"""`edgewright fleet` with the command that needs the device's side, too: `simulate`. The others are in
`edge_fleet.cli`, which does not know devices."""

from __future__ import annotations

from edge_fleet.cli.fleet import fleet
from edgewright.simulator.cli import simulate

__all__ = ["fleet"]

fleet.add_command(simulate)
