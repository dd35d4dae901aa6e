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
    help="Where every check is written as {name, ok, detail}.",
)
@click.option("--keep", is_flag=True, help="Keep the folder with keys, repository, logs and device state.")
@click.option("--json", "as_json", is_flag=True, help="Print the report instead of the account.")
def demo(report: Path, keep: bool, as_json: bool) -> None:
    """Show the whole product working on this machine, in about a minute, over loopback only.

    Exit code 0 only if every check holds.

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
