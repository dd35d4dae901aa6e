"""The command `edgewright agent doctor`. The checks are in `edge_agent.cli.doctor.device_checks`."""

from __future__ import annotations

import json
import time
from pathlib import Path

import click
import msgspec

from edge_agent.cli.doctor.device_checks import examine
from edge_agent.cli.doctor.finding import Finding, Target
from edge_agent.config.agent_toml import load_config

_SIGNS = {"ok": "ok     ", "warning": "WARNING", "failure": "FAILURE", "skipped": "-      "}


@click.command()
@click.option("--config", type=click.Path(path_type=Path), required=True, help="The agent's configuration, agent.toml.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
def doctor(config: Path, as_json: bool) -> None:
    """Diagnose why this device does not update or answer.

    Prints every check with a fix for each problem. Changes nothing and can run beside a running agent. Exit code: 1 if
    a check failed, else 0.

    \b
    Examples:
      edgewright agent doctor --config /etc/edgewright/agent.toml
      edgewright agent doctor --config agent.toml --json
    """
    findings: list[Finding] = []
    for finding in examine(Target(config=load_config(config), now=time.time())):
        findings.append(finding)
        if not as_json:
            _show(finding)
    failed = [finding for finding in findings if finding.verdict == "failure"]
    if as_json:
        click.echo(json.dumps({"ok": not failed, "findings": [msgspec.to_builtins(found) for found in findings]}))
    else:
        warnings = sum(finding.verdict == "warning" for finding in findings)
        click.echo(f"{len(findings)} checks: {len(failed)} failed, {warnings} with warnings")
    raise SystemExit(1 if failed else 0)


def _show(finding: Finding) -> None:
    click.echo(f"{_SIGNS[finding.verdict]}  {finding.check}: {finding.text}")
    if finding.fix is not None:
        click.echo(f"         fix: {finding.fix}")
