"""`edgewright fleet exposed`: which devices run a component."""

from __future__ import annotations

import contextlib
from pathlib import Path

import click

from edge_contracts.codec import plain
from edge_fleet.cli.output import db_option, emit, fleet_argument, json_option, show_table, utc_now
from edge_fleet.database.telemetry import TelemetryStore
from edge_fleet.releases.bill_of_materials import exposed
from edge_fleet.releases.release import manifests
from edge_fleet.signing.workspace import FleetWorkspace


@click.command("exposed")
@fleet_argument
@click.argument("package", metavar="PACKAGE[@VERSION]")
@db_option
@json_option
def exposed_command(folder: Path, package: str, db: str | None, as_json: bool) -> None:
    """Show which devices run a component.

    PACKAGE is a model, a file of a bundle, a tool that made it, an engine as devices report it, or the agent
    (edgewright). VERSION stands for all that begin with it. Exit code 0 whether any device is found or not.

    \b
    Examples:
      edgewright fleet exposed ~/fleet onnxruntime@1.17
      edgewright fleet exposed ~/fleet har@1.1.0
      edgewright fleet exposed ~/fleet onnx --json
    """
    fleet = FleetWorkspace(folder)
    with contextlib.closing(TelemetryStore(db or fleet.store_url)) as store:
        rows = [(row.reported, row.online) for row in store.devices() if row.reported is not None]
    found = exposed(package, rows, manifests(fleet.read(utc_now())))
    if as_json:
        emit({"package": package, "exposed": plain(found), "devices": sorted({one.device for one in found})}, True, "")
        return
    columns = ("device", "online", "slot", "component", "version", "role", "release", "kept only")
    lines = [
        [one.device, one.online, one.slot, one.component, one.version, one.role, one.release or None, one.kept]
        for one in found
    ]
    show_table(f"{package}: {len({one.device for one in found})} of {len(rows)} devices", columns, lines)
