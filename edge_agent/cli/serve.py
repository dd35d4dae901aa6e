"""The commands `serve` and `score` of the group `agent`: a bundle on this machine, without a fleet."""

from __future__ import annotations

import asyncio
import socket
from pathlib import Path

import click

from edge_contracts.codec import encode
from edge_contracts.errors import OperatorError

_FOLDER = click.Path(path_type=Path, file_okay=False, exists=True)
_FILE = click.Path(path_type=Path, dir_okay=False)


@click.command()
@click.argument("bundle", type=_FOLDER)
@click.option("--http", "address", default="127.0.0.1:8080", show_default=True, help="Port 0 asks the system for one.")
@click.option("--threads", default=1, show_default=True, type=click.IntRange(1, 256), help="Threads of the engine.")
@click.option("--memory-mb", type=click.FloatRange(min=1), help="Memory the model may add; default no bound.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object with the URL once it serves.")
def serve(bundle: Path, address: str, threads: int, memory_mb: float | None, as_json: bool) -> None:
    """Serve BUNDLE over HTTP, for development: no updates, no telemetry, no signatures.

    \b
    Examples:
      edgewright agent serve build/har --http 127.0.0.1:8080
      curl http://127.0.0.1:8080/v2/models/har
    """
    from edge_agent.bundle import open_bundle
    from edge_agent.inference.rung_health import LadderRelease, build_ladder
    from edge_agent.ipc.in_flight import FlightPage
    from edge_agent.ipc.worker import WorkerPlan
    from edge_agent.worker.__main__ import serve as serve_plan

    opened = open_bundle(bundle)
    manifest = opened.manifest
    release = LadderRelease(role="local", folder=str(bundle), manifest_sha256=opened.manifest_sha256, manifest=manifest)
    plan = WorkerPlan(
        slot=manifest.name,
        ladder=build_ladder([release]),
        threads=threads,
        memory_limit_mb=memory_mb,
        drain_s=1.0,
    )
    listening = listen(address)
    url = "http://{}:{}".format(*listening.getsockname()[:2])
    if as_json:
        body = {"url": url, "model": manifest.name, "version": manifest.version, "development": True}
        click.echo(encode(body))
    else:
        click.echo(f"Development server for {manifest.name} {manifest.version}: {url}/v2/models/{manifest.name}")
        click.echo("This is one local bundle: updates, telemetry and signature checks are off. Ctrl-C ends it.")
    code = asyncio.run(serve_plan(plan, listening, None, FlightPage.create()))
    if code:
        raise SystemExit(code)


@click.command()
@click.argument("bundle", type=_FOLDER)
@click.argument("source", type=click.Path(path_type=Path))
@click.argument("target", type=_FILE)
@click.option("--json", "as_json", is_flag=True, help="Print the summary as one JSON object.")
def score(bundle: Path, source: Path, target: Path, as_json: bool) -> None:
    """Answer every sample of SOURCE into TARGET (.jsonl); run again to go on where it stopped.

    SOURCE is a .jsonl or .csv file, or a folder of PNG and JPEG images (needs the extra `images`).

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
            f"{scored.answered} answered, {scored.failed} refused, {scored.skipped} were there already: {target}"
        )
    if scored.failed:
        raise OperatorError(f"{scored.failed} samples did not fit the model", subject=str(source))


def listen(address: str) -> socket.socket:
    """Return a listening socket for HOST:PORT. Raises OperatorError naming the address."""
    host, _, port = address.rpartition(":")
    host = host.strip("[]")
    try:
        if not 0 <= int(port) <= 65535:
            raise ValueError("a port lies between 0 and 65535")
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        listening = socket.create_server((host or "127.0.0.1", int(port)), family=family, backlog=1024)
    except (OSError, ValueError) as error:
        raise OperatorError(f"cannot listen: {error}", subject=f"--http {address}") from error
    listening.setblocking(False)
    return listening
