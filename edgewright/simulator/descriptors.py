"""Room for as many connections as a simulation makes: the limit of open files, raised as far as this process may."""

from __future__ import annotations

import resource

from edgewright.simulator.errors import SimulationError

SPARE = 300
"""Files that a process has open besides its connections."""


def make_room(connections: int) -> None:
    """Raise the soft limit of open files, which child processes inherit. Raises SimulationError if the hard limit does
    not allow that many connections, and says what to do."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = connections + SPARE
    if soft == resource.RLIM_INFINITY or soft >= wanted:
        return
    if hard != resource.RLIM_INFINITY and hard < wanted:
        raise SimulationError(
            f"{connections} connections need {wanted} open files in the broker, this process may have {hard}",
            subject="open files",
            hint=f"as root: prlimit --pid $$ --nofile={wanted}:{wanted}, or LimitNOFILE={wanted} of the service; or "
            "simulate fewer --devices",
        )
    resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
