"""The command `edgewright agent`: run the agent, look at it, import updates, check a configuration.

`serve` and `score` are in `edge_agent.cli.serve` and load only when they are called.
"""

from __future__ import annotations

import importlib
import json
from pathlib import Path

import click
import msgspec

from edge_agent.config.agent_toml import AgentConfig, load_config, missing_files
from edge_agent.errors import ConfigError
from edge_io.addresses import address_text

LAZY = {
    "enroll": ("edge_agent.cli.enroll:enroll", "Enroll this device: exchange a claim for its certificate."),
    "capture-key": ("edge_agent.cli.capture:capture_key", "Create the key pair that encrypts captured requests."),
    "replay": ("edge_agent.cli.capture:replay", "Replay captured requests and report differing answers."),
    "doctor": ("edge_agent.cli.doctor.command:doctor", "Diagnose why this device does not update or answer."),
    "repair": (
        "edge_agent.cli.imports:repair",
        "Check the installed releases and fetch damaged files again.",
    ),
    "import": ("edge_agent.cli.imports:import_", "Import updates from an exported repository, such as a USB stick."),
    "reload": ("edge_agent.cli.reload:reload", "Apply a changed agent.toml to the running agent."),
    "serve": ("edge_agent.cli.serve:serve", "Serve a local bundle over HTTP, without a fleet."),
    "score": ("edge_agent.cli.score:score", "Score a file of inputs or a folder of images."),
}

_state_option = click.option(
    "--state", type=click.Path(path_type=Path), help="State folder to read; replaces --config."
)
_config_option = click.option(
    "--config", type=click.Path(path_type=Path), help="The agent's configuration, agent.toml."
)
_json_option = click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")


class AgentGroup(click.Group):
    """Knows the lazy commands' names and one-line helps without importing them."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted([*super().list_commands(ctx), *LAZY])

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in LAZY:
            return super().get_command(ctx, cmd_name)
        module, _, attribute = LAZY[cmd_name][0].partition(":")
        command = getattr(importlib.import_module(module), attribute)
        assert isinstance(command, click.Command)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        own = {name: command.get_short_help_str(80) for name, command in self.commands.items()}
        texts = own | {name: text for name, (_, text) in LAZY.items()}
        with formatter.section("Commands"):
            formatter.write_dl(sorted(texts.items()))


@click.group(cls=AgentGroup, short_help="Run and inspect the agent; serve or score a bundle.")
def agent() -> None:
    """Run and inspect the agent on a device; serve or score a local bundle.

    \b
    Examples:
      edgewright agent check --config agent.toml
      edgewright agent run --config agent.toml
      edgewright agent status --config agent.toml --json
      edgewright agent import /media/usb --config agent.toml
    """


@agent.command()
@click.option("--config", type=click.Path(path_type=Path), required=True, help="The agent's configuration, agent.toml.")
@click.option("--verbose", is_flag=True, help="Log debug messages, too; default: state changes, warnings and errors.")
def run(config: Path, verbose: bool) -> None:
    """Run the agent until SIGTERM or Ctrl-C.

    \b
    Example:
      edgewright agent run --config /etc/edgewright/agent.toml
    """
    from edge_agent.supervisor import run as running

    running.run(config, verbose=verbose)


@agent.command()
@_config_option
@_state_option
@_json_option
def status(config: Path | None, state: Path | None, as_json: bool) -> None:
    """Show what the device serves, its updates and refusals.

    Without a running agent the last saved state is shown.

    \b
    Examples:
      edgewright agent status --config agent.toml
      edgewright agent status --state /var/lib/edgewright --json
    """
    from edge_agent.cli.status import status_text, stored_status
    from edge_agent.ipc.control import ControlRequest, ask_agent
    from edge_agent.storage.state_dir import StateFolder

    folder = StateFolder(_state_of(config, state))
    reply = ask_agent(folder, ControlRequest(ask="status"), timeout_s=10.0)
    found = stored_status(folder) if reply is None else reply.status
    if not as_json and not folder.root.is_dir():
        click.echo(f"no saved state: {folder.root} does not exist")
        return
    click.echo(json.dumps(msgspec.to_builtins(found)) if as_json else status_text(found))


@agent.command()
@click.option("--config", type=click.Path(path_type=Path), required=True, help="The agent's configuration, agent.toml.")
@_json_option
def check(config: Path, as_json: bool) -> None:
    """Check a configuration file and show the settings in effect.

    Looks at what doctor looks at, as far as it needs no network and no running agent: files, their rights under the
    shipped unit, the board, engines, factory bundles. Exits with 1 if something is wrong.

    \b
    Example:
      edgewright agent check --config agent.toml
    """
    import time

    from edge_agent.cli.doctor.device_checks import examine_configuration
    from edge_agent.cli.doctor.finding import Target
    from edge_agent.config.profiles import load_profile
    from edge_agent.engines.registry import installed_engines
    from edge_agent.storage.state_dir import read_manifest

    found = load_config(config)
    profile = load_profile(found.device.profile)
    _check_files(found)
    factories = {slot.name: read_manifest(Path(slot.factory))[0].version for slot in found.slots if slot.factory}
    used = {
        "device": found.device.id,
        "profile": profile.name,
        "state": found.device.state,
        "broker": None if found.broker is None else address_text(found.broker.host, found.broker.port),
        "http_mirror": found.updates.http,
        "engines": installed_engines(),
        "slots": {slot.name: {"http": slot.http, "channel": slot.channel} for slot in found.slots},
        "factory_versions": factories,
    }
    findings = [f for f in examine_configuration(Target(config=found, now=time.time())) if f.verdict != "ok"]
    if as_json:
        problems = [f"{finding.check}: {finding.text}" for finding in findings if finding.verdict == "failure"]
        click.echo(json.dumps({**used, "problems": problems, "findings": [msgspec.to_builtins(f) for f in findings]}))
    else:
        for name, value in used.items():
            click.echo(f"{name:<17}{_words(value)}")
        for finding in findings:
            click.echo(f"{finding.verdict.capitalize()}: {finding.check}: {finding.text}. {finding.fix}", err=True)
    if any(finding.verdict == "failure" for finding in findings):
        raise SystemExit(1)


def _words(value: object) -> str:
    """Return plain values as a line for people."""
    if isinstance(value, dict):
        return ", ".join(f"{key} {_words(item)}" for key, item in value.items()) or "-"
    return "-" if value is None else str(value)


def _check_files(config: AgentConfig) -> None:
    for field, path in missing_files(config).items():
        hint = (
            "copy root.json from the fleet folder that `edgewright fleet init` made"
            if field == "config.trust.root"
            else None
        )
        raise ConfigError(f"file not found: {path}", subject=field, hint=hint)
    for slot in config.slots:
        if slot.capture is not None:
            from edge_agent.capture.sealing import load_sealer

            load_sealer(Path(slot.capture.key))


def _state_of(config: Path | None, state: Path | None) -> Path:
    if state is not None:
        return state
    if config is None:
        raise ConfigError("give --config or --state", hint="edgewright agent status --config agent.toml")
    return load_config(config).state
