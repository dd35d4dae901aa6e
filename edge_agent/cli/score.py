"""The command `edgewright agent score`."""

from __future__ import annotations

from pathlib import Path

import click

from edge_agent.cli.serve import _FILE, _FOLDER
from edge_contracts.codec import encode
from edge_contracts.errors import OperatorError


@click.command()
@click.argument("bundle", type=_FOLDER)
@click.argument("source", type=click.Path(path_type=Path))
@click.argument("target", type=_FILE)
@click.option("--json", "as_json", is_flag=True, help="Print the summary as one JSON object.")
def score(bundle: Path, source: Path, target: Path, as_json: bool) -> None:
    """Score every sample of SOURCE and write the answers to TARGET.

    SOURCE is a .jsonl or .csv file, or a folder of PNG and JPEG images (needs the extra `images`); TARGET is a .jsonl
    file. An interrupted run continues where it stopped.

    \b
    Examples:
      edgewright agent score build/har samples.jsonl answers.jsonl
      edgewright agent score build/har samples.csv answers.jsonl --json
      edgewright agent score build/flowers photos/ answers.jsonl
    """
    from edge_agent.inference.runtime import Runtime
    from edge_agent.offline.score import score_file

    def progress(done: int) -> None:
        click.echo(f"\r{done} samples", nl=False, err=True)

    with Runtime.open(bundle) as runtime:
        scored = score_file(runtime, source, target, progress=progress)
    click.echo("", err=True)
    if as_json:
        click.echo(encode(scored))
    else:
        click.echo(
            f"{scored.answered} scored, {scored.failed} refused, {scored.skipped} skipped (already scored): {target}"
        )
    if scored.failed:
        raise OperatorError(f"{scored.failed} samples did not match the model's inputs", subject=str(source))
