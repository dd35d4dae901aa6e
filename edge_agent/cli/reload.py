"""The command `edgewright agent reload`. What takes effect without a restart is in `edge_agent.config.reload_plan`."""

from __future__ import annotations

import json
from pathlib import Path

import click

from edge_agent.config.agent_toml import load_config
from edge_agent.errors import ConfigError, UnreachableError
from edge_agent.ipc.control import ControlRequest, ask_agent
from edge_agent.storage.state_dir import StateFolder


@click.command()
@click.option("--config", type=click.Path(path_type=Path), required=True, help="The agent's configuration, agent.toml.")
@click.option("--timeout", default=60.0, show_default=True, help="Seconds to wait for the agent to apply it.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
def reload(config: Path, timeout: float, as_json: bool) -> None:
    """Apply a changed agent.toml to the running agent.

    All changes are applied, or none. Tags, polling, telemetry windows, slot limits, data topics, and added or removed
    slots need no restart. SIGHUP does the same and logs the result.

    \b
    Examples:
      edgewright agent reload --config /etc/edgewright/agent.toml
      systemctl reload edgewright-agent
    """
    reply = ask_agent(StateFolder(load_config(config).state), ControlRequest(ask="reload"), timeout_s=timeout)
    if reply is None:
        raise UnreachableError("agent not running", subject=str(config), hint="systemctl start edgewright-agent")
    if reply.refused is not None:
        raise ConfigError(reply.refused.text, hint=reply.refused.hint)
    if as_json:
        click.echo(json.dumps({"changed": reply.changed}))
    else:
        click.echo("\n".join(reply.changed) or "no changes")
