"""The commands `serve` and `score` of the group `agent`: a bundle on this machine, without a fleet."""

from __future__ import annotations

import asyncio
import socket
from pathlib import Path

import click

from edge_contracts.codec import encode
from edge_contracts.errors import OperatorError
from edge_io.addresses import address_text

_FOLDER = click.Path(path_type=Path, file_okay=False, exists=True)
_FILE = click.Path(path_type=Path, dir_okay=False)


@click.command()
@click.argument("bundle", type=_FOLDER)
@click.option(
    "--http",
    "address",
    default="127.0.0.1:8080",
    show_default=True,
    help="Listen address, HOST:PORT; port 0 picks a free port.",
)
@click.option("--threads", default=1, show_default=True, type=click.IntRange(1, 256), help="Inference threads.")
@click.option("--memory-mb", type=click.FloatRange(min=1), help="Memory limit of the model in MB; default: none.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object with the URL once ready.")
def serve(bundle: Path, address: str, threads: int, memory_mb: float | None, as_json: bool) -> None:
    """Serve BUNDLE over HTTP, for development.

    Updates, telemetry and signature checks are off.

    \b
    Examples:
      edgewright agent serve build/har --http 127.0.0.1:8080
      curl http://127.0.0.1:8080/v2/models/har
    """
    from edge_agent.bundle import open_bundle
    from edge_agent.fallback_ladder import LadderRelease, build_ladder
    from edge_agent.ipc.in_flight import InFlightCounters
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
    url = f"http://{address_text(*listening.getsockname()[:2])}"
    if as_json:
        body = {"url": url, "model": manifest.name, "version": manifest.version, "development": True}
        click.echo(encode(body))
    else:
        click.echo(f"Development server for {manifest.name} {manifest.version}: {url}/v2/models/{manifest.name}")
        click.echo("Updates, telemetry and signature checks are off. Press Ctrl-C to stop.")
    code = asyncio.run(serve_plan(plan, listening, None, InFlightCounters.create()))
    if code:
        raise SystemExit(code)


def listen(address: str) -> socket.socket:
    """Return a listening socket for HOST:PORT. Raises OperatorError naming the address."""
    host, _, port = address.rpartition(":")
    host = host.strip("[]")
    try:
        if not 0 <= int(port) <= 65535:
            raise ValueError("port must be 0 to 65535")
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        listening = socket.create_server((host or "127.0.0.1", int(port)), family=family, backlog=1024)
    except (OSError, ValueError) as error:
        raise OperatorError(f"cannot listen on this address: {error}", subject=f"--http {address}") from error
    listening.setblocking(False)
    return listening
