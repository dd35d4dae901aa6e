"""`edgewright agent run` itself: what a device runs for years, without the command line's library around it."""

from __future__ import annotations

import gc
from pathlib import Path

from edge_agent.host.lean_imports import import_lean


def run(config: Path, *, verbose: bool = False) -> None:
    """Run the agent of that configuration file until SIGTERM or Ctrl-C. Raises ConfigError, StateError."""
    gc.disable()  # imports make next to no garbage, and looking for it is a thirtieth of the start
    import_lean()
    import asyncio

    from edge_agent.host.logs import configure_logging
    from edge_agent.supervisor.supervisor import run_agent

    gc.enable()
    configure_logging(verbose=verbose)
    asyncio.run(run_agent(config))
