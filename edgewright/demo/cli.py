"""`edgewright demo`: runs the story and ends with its table, its report and its exit code."""

from __future__ import annotations

import shutil
import sys
import tempfile
from pathlib import Path

import click
from rich.console import Console

from edge_contracts.errors import EdgewrightError
from edgewright.demo.account import Account
from edgewright.demo.story import tell


@click.command()
@click.option(
    "--report",
    type=click.Path(dir_okay=False, path_type=Path),
    default=Path("demo-report.json"),
    show_default=True,
    help="File to write every check to, as {name, ok, detail}.",
)
@click.option("--keep", is_flag=True, help="Keep the working folder: keys, repository, logs, device state.")
@click.option("--json", "as_json", is_flag=True, help="Print the report as one JSON document.")
def demo(report: Path, keep: bool, as_json: bool) -> None:
    """Demonstrate the whole product on this machine.

    Takes about a minute and uses only the loopback interface. Exit code: 0 if every check passes, else 1.

    \b
    Examples:
      edgewright demo
      edgewright demo --keep --report /tmp/demo-report.json
    """
    account = Account(Console(stderr=as_json))
    folder = Path(tempfile.mkdtemp(prefix="edgewright-demo-"))
    try:
        tell(account, folder)
    except EdgewrightError as error:
        account.check("story-ends", False, str(error))
    finally:
        if keep:
            account.say(f"kept: {folder}")
        else:
            shutil.rmtree(folder, ignore_errors=True)
    account.summary()
    account.write(report)
    if as_json:
        click.echo(report.read_text(encoding="utf-8"), nl=False)
    sys.exit(0 if account.ok else 1)
