"""What can keep a simulation from being made."""

from __future__ import annotations

from edge_contracts.errors import OperatorError


class SimulationError(OperatorError):
    """A simulation cannot be started, or did not get as far as it should; says why and what to do."""

    reason = "simulation"
