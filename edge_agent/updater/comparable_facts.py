"""Facts of this device that selectors compare, and that do not flap. Part of the updater: looking for engines costs
more memory than the supervisor has to spare."""

from __future__ import annotations

from pathlib import Path

from edge_agent.engines.registry import installed_engines
from edge_agent.host.control_groups import ControlGroups
from edge_agent.host.sensors import memory_total_mb
from edge_contracts import __version__


def comparable_facts(sys: Path = Path("/sys"), proc: Path = Path("/proc")) -> dict[str, str]:
    """Return the facts by their selectors' names, as text; one that cannot be had is left out.

    `memory_mb` is what the box has, or what the agent's own limits allow of it.
    """
    groups = ControlGroups(sys, proc)
    limit = groups.memory()
    sizes = [memory_total_mb(proc), None if limit is None else limit.limit_mb]
    known = [size for size in sizes if size is not None]
    facts = {"agent_version": __version__, "cpus": f"{groups.cpus():g}"}
    if known:
        facts["memory_mb"] = f"{int(min(known))}"
    return facts | {f"engine.{name}": version for name, version in installed_engines().items()}
