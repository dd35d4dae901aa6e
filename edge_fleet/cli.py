"""`edgewright fleet`: the group, and the commands that change what is signed. Rollouts, services and views have
their own modules; the work itself is in `folder`, `release`, `refresh` and `export`."""

from __future__ import annotations

from pathlib import Path

import click
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

from edge_contracts.codec import convert
from edge_fleet.export import export
from edge_fleet.folder import Fleet, Founding, found
from edge_fleet.output import FOLDER, emit, fleet_argument, json_option, utc_now
from edge_fleet.refresh import refresh
from edge_fleet.release import add_family, release, revoke, set_floor
from edge_fleet.rollout_cli import rollout
from edge_fleet.service_cli import controller, depot
from edge_fleet.view_cli import devices, events, status


@click.group()
def fleet() -> None:
    """Keys, releases, rollouts, depots and what the devices report.

    \b
    Examples:
      edgewright fleet init ~/fleet --tenant acme --family har
      edgewright fleet release ~/fleet bundle
      edgewright fleet rollout start ~/fleet --model har --version 1.0.0 --channel stable
      edgewright fleet depot ~/fleet --broker broker.local:1883
      edgewright fleet devices ~/fleet
    """


@fleet.command()
@fleet_argument
@click.option("--tenant", default="default", show_default=True, help="The fleet's name on the broker.")
@click.option("--family", "families", multiple=True, help="A model family to delegate right away; may be repeated.")
@click.option("--root-threshold", default=1, show_default=True, help="Root keys made, all needed to sign as root.")
@json_option
def init(folder: Path, tenant: str, families: tuple[str, ...], root_threshold: int, as_json: bool) -> None:
    """Make a new fleet: keys, settings and the first signed metadata in DIR.

    \b
    Examples:
      edgewright fleet init ~/fleet
      edgewright fleet init ~/fleet --tenant acme --family har --root-threshold 2
    """
    asked = {"tenant": tenant, "families": list(families), "root_threshold": root_threshold}
    founding = convert(asked, Founding, what="init")
    fleet = found(folder, founding, utc_now())
    emit(
        {"folder": str(fleet.path), "tenant": fleet.tenant, "root": str(fleet.path / "root.json")},
        as_json,
        f"Fleet {fleet.tenant!r} is ready in {fleet.path}.\n"
        f"Give every device {fleet.path / 'root.json'} as its [trust] root.\n"
        f"Move {fleet.keys.folder / 'root.pem'} to a safe place; it is needed for new families only.",
    )


@fleet.command("release")
@fleet_argument
@click.argument("bundle", type=FOLDER)
@json_option
def release_command(folder: Path, bundle: Path, as_json: bool) -> None:
    """Check the bundle folder BUNDLE and sign it as a release of its model family.

    \b
    Examples:
      edgewright fleet release ~/fleet out/har-1.0.0
    """
    done = release(Fleet(folder), bundle, utc_now())
    what = f"{done.model} {done.version}, {done.files} files, {done.bytes / 1e6:.2f} MB"
    emit(done, as_json, f"{'Released' if done.new else 'Released before, unchanged:'} {what} ({done.manifest_sha256})")


@fleet.group()
def family() -> None:
    """What holds for every release of a model: its signers, its oldest allowed version, its revoked releases."""


@family.command("add")
@fleet_argument
@click.argument("name")
@json_option
def family_add(folder: Path, name: str, as_json: bool) -> None:
    """Delegate the model family NAME to the releases key. Needs the root key.

    \b
    Examples:
      edgewright fleet family add ~/fleet har
    """
    add_family(Fleet(folder), name, utc_now())
    emit({"family": name}, as_json, f"Family {name!r} may be released now.")


@family.command("floor")
@fleet_argument
@click.argument("name")
@click.argument("version")
@json_option
def family_floor(folder: Path, name: str, version: str, as_json: bool) -> None:
    """Forbid every release of NAME older than VERSION, on every device and whatever a rollout says.

    \b
    Examples:
      edgewright fleet family floor ~/fleet har 1.2.0
    """
    document = set_floor(Fleet(folder), name, version, utc_now())
    emit(document, as_json, f"{name}: nothing older than {document.minimum_version} may be installed.")


@family.command("revoke")
@fleet_argument
@click.argument("name")
@click.argument("version")
@json_option
def family_revoke(folder: Path, name: str, version: str, as_json: bool) -> None:
    """Forbid the release VERSION of NAME on every device.

    \b
    Examples:
      edgewright fleet family revoke ~/fleet har 1.1.0
    """
    document = revoke(Fleet(folder), name, version, utc_now())
    emit(document, as_json, f"{name} {version} is revoked ({len(document.revoked)} in all).")


@fleet.command("refresh")
@fleet_argument
@json_option
def refresh_command(folder: Path, as_json: bool) -> None:
    """Sign again what has passed half of its lifetime, with the keys that are here. Good for a timer.

    \b
    Examples:
      edgewright fleet refresh ~/fleet
    """
    done = refresh(Fleet(folder), utc_now())
    missing = f" Due, but the key is not here: {', '.join(done.missing)}." if done.missing else ""
    emit(done, as_json, f"Signed again: {', '.join(done.signed) or 'nothing was due'}.{missing}")


@fleet.command("export")
@fleet_argument
@click.argument("out", type=FOLDER)
@click.option("--model", help="Only this model's releases and channels.")
@json_option
def export_command(folder: Path, out: Path, model: str | None, as_json: bool) -> None:
    """Copy the repository to the folder OUT, for a USB stick or a web server. `edgewright agent import` reads it.

    \b
    Examples:
      edgewright fleet export ~/fleet /media/stick/edgewright --model har
    """
    columns = (TextColumn("exporting"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with Progress(*columns, console=Console(stderr=True), disable=as_json) as bar:
        task = bar.add_task("exporting", total=None)
        done = export(
            Fleet(folder), out, model, utc_now(), lambda now, all_: bar.update(task, completed=now, total=all_)
        )
    emit(done, as_json, f"{done.files} files, {done.bytes / 1e6:.2f} MB in {out} ({done.copied} copied).")


for _command in (rollout, depot, controller, devices, events, status):
    fleet.add_command(_command)
