"""The commands of `edgewright`: one group whose sub-commands load only when they are called.

A device with the base install can run `agent` and never imports the engineers' side; a missing extra is named in the
error together with the command that installs it.
"""

from __future__ import annotations

import importlib

import click

from edge_contracts import __version__
from edge_contracts.errors import MissingExtraError

COMMANDS: dict[str, tuple[str, str]] = {
    "agent": ("edge_agent.cli.agent:agent", "Run and inspect the agent; serve or score a bundle."),
    "bench": ("edge_bench.cli:bench", "Measure latency, memory and quality of a model or bundle."),
    "bundle": ("edge_agent.cli.bundle:bundle", "Create, inspect, verify, compare and compose bundles."),
    "compress": (
        "edge_compression.cli.compress:compress",
        "Compress a trained model into a bundle of measured variants.",
    ),
    "demo": ("edgewright.demo.cli:demo", "Demonstrate the whole product on this machine."),
    "example": ("edgewright.examples:example", "Show an example file: agent.toml, systemd units, profiles."),
    "fleet": ("edgewright.fleet_commands:fleet", "Sign releases, roll them out, serve devices and watch the fleet."),
}
EXTRAS = {"bench": "bench", "compress": "compress", "demo": "demo", "fleet": "fleet"}


class LazyGroup(click.Group):
    """A group that knows its commands' names and one-line helps without importing them."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002
        return sorted(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        if cmd_name not in COMMANDS:
            return None
        module, _, attribute = COMMANDS[cmd_name][0].partition(":")
        try:
            command = getattr(importlib.import_module(module), attribute)
        except ModuleNotFoundError as error:
            if cmd_name not in EXTRAS or error.name is None or error.name.split(".")[0].startswith("edge"):
                raise
            raise MissingExtraError(EXTRAS[cmd_name], error.name) from error
        assert isinstance(command, click.Command)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        with formatter.section("Commands"):
            formatter.write_dl([(name, COMMANDS[name][1]) for name in sorted(COMMANDS)])


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="edgewright")
def edgewright() -> None:
    """Compress models, ship them signed, serve them on small devices.

    \b
    Examples:
      edgewright compress task.toml --profile pi-4 --max-drop 0.5 --out bundle
      edgewright fleet init ~/fleet && edgewright fleet release ~/fleet bundle
      edgewright agent run --config agent.toml
    """
