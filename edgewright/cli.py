"""The command `edgewright`: one group whose sub-commands load only when they are called.

A device with the base install can run `agent` and never imports the engineers' side; a missing extra is named in the
error together with the command that installs it.
"""

from __future__ import annotations

import importlib
import json
import sys
from typing import Any

import click

from edge_contracts import __version__
from edge_contracts.errors import DeviceError, EdgewrightError, MissingExtraError

COMMANDS: dict[str, tuple[str, str]] = {
    "agent": ("edge_agent.cli:agent", "Run the agent on a device, look at it, import updates, score files."),
    "bench": ("edge_bench.cli:bench", "Measure a model or a bundle on the agent's own engines."),
    "bundle": ("edge_agent.bundle_cli:bundle", "Inspect, verify, compare and compose bundles."),
    "compress": ("edge_compression.cli:compress", "Turn a trained model into a bundle of proved variants."),
    "demo": ("edgewright.demo.cli:demo", "Show the whole product working on this machine."),
    "fleet": ("edge_fleet.cli:fleet", "Keys, releases, rollouts, depots and what the devices report."),
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
    """Edgewright: compress models, ship them signed over MQTT, serve them on small devices.

    \b
    Examples:
      edgewright compress task.toml --profile pi-4 --max-drop 0.5 --out bundle
      edgewright fleet init ~/fleet && edgewright fleet release ~/fleet bundle
      edgewright agent run --config agent.toml
    """


def main(arguments: list[str] | None = None) -> None:
    """Run the command. Deliberate errors end with one line, a hint and the exit code of whose fault it is; with
    `--json` among the arguments they are one JSON object on standard error."""
    words = sys.argv[1:] if arguments is None else arguments
    try:
        code = edgewright.main(args=words, prog_name="edgewright", standalone_mode=False)
    except EdgewrightError as error:
        _report(error, as_json="--json" in words)
        sys.exit(error.exit_code)
    except OSError as error:
        _report(DeviceError(error.strerror or str(error), subject=error.filename), as_json="--json" in words)
        sys.exit(DeviceError.exit_code)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except click.Abort:
        click.echo("Interrupted.", err=True)
        sys.exit(130)
    sys.exit(code if isinstance(code, int) else 0)


def _report(error: EdgewrightError, *, as_json: bool) -> None:
    if as_json:
        body: dict[str, Any] = {"error": str(error), "reason": error.reason, "hint": error.hint}
        click.echo(json.dumps(body), err=True)
        return
    click.echo(f"Error: {error}", err=True)
    if error.hint:
        click.echo(f"Hint: {error.hint}", err=True)


if __name__ == "__main__":
    main()
