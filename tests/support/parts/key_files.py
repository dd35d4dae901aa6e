"""What `test_key_files.py` and `test_key_files_processes.py` share."""

from __future__ import annotations

from support.makers.fleets import NOW

from edge_fleet.signing.ceremony import apply, propose, sign_proposal, start
from edge_fleet.signing.key_changes import replace
from edge_fleet.signing.roles import Lifetimes
from edge_fleet.signing.workspace import FleetWorkspace


def give(fleet: FleetWorkspace, role: str, name: str) -> None:
    """Put a key whose halves are in the fleet's folder in place of a role's only one."""
    key = fleet.keys.public(name)
    proposal = propose(start(fleet.read(NOW)), lambda draft: replace(draft, role, key), Lifetimes(), NOW)
    apply(fleet, sign_proposal(proposal, fleet.keys)[0], NOW)
