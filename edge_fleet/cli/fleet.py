"""`edgewright fleet`: the group, and the commands that change what is signed. Rollouts, services and views have
their own modules; the work itself is in `folder`, `release`, `refresh` and `export`."""

from __future__ import annotations

import os
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

from edge_contracts.codec import convert
from edge_fleet.cli.identity import authority, enroll, enrollment, identity
from edge_fleet.cli.key_ceremony import FILE, change_keys
from edge_fleet.cli.keys import keys
from edge_fleet.cli.output import FOLDER, emit, fleet_argument, json_option, utc_now
from edge_fleet.cli.rollout import rollout
from edge_fleet.cli.services import controller, depot
from edge_fleet.cli.views import devices, events, status
from edge_fleet.releases.deltas.build import DeltaPlan
from edge_fleet.releases.export import export
from edge_fleet.releases.garbage import YOUNG, collect_garbage
from edge_fleet.releases.release import add_family, release, revoke, set_floor
from edge_fleet.signing import key_changes
from edge_fleet.signing.keys import RELEASES
from edge_fleet.signing.passphrases import VARIABLE
from edge_fleet.signing.refresh import refresh
from edge_fleet.signing.workspace import FleetWorkspace, NewFleet, found


@click.group()
@click.option(
    "--passphrase-file",
    type=FILE,
    envvar=VARIABLE,
    help="Opens encrypted keys with the first line of this file, or that of EDGEWRIGHT_PASSPHRASE_FILE; else asks.",
)
def fleet(passphrase_file: Path | None) -> None:
    """Keys, releases, rollouts, depots and what the devices report.

    \b
    Examples:
      edgewright fleet init ~/fleet --tenant acme --family har
      edgewright fleet release ~/fleet bundle
      edgewright fleet rollout start ~/fleet --model har --version 1.0.0 --channel stable
      edgewright fleet depot ~/fleet --broker broker.local:1883
      edgewright fleet devices ~/fleet
    """
    if passphrase_file is not None:
        os.environ[VARIABLE] = str(passphrase_file)


@fleet.command()
@fleet_argument
@click.option("--tenant", default="default", show_default=True, help="The fleet's name on the broker.")
@click.option("--family", "families", multiple=True, help="A model family to delegate right away; may be repeated.")
@click.option("--root-threshold", default=1, show_default=True, help="Root keys needed to sign as root.")
@click.option("--root-keys", type=int, help="Root keys made; as many as needed by default.")
@json_option
def init(folder: Path, as_json: bool, **asked: Any) -> None:
    """Make a new fleet: keys, settings and the first signed metadata in DIR.

    \b
    Examples:
      edgewright fleet init ~/fleet
      edgewright fleet init ~/fleet --tenant acme --family har --root-keys 3 --root-threshold 2
    """
    founding = convert(asked, NewFleet, what="init")
    fleet = found(folder, founding, utc_now())
    emit(
        {"folder": str(fleet.path), "tenant": fleet.tenant, "root": str(fleet.path / "root.json")},
        as_json,
        f"FleetWorkspace {fleet.tenant!r} is ready in {fleet.path}.\n"
        f"Give every device {fleet.path / 'root.json'} as its [trust] root.\n"
        f"Move {fleet.keys.folder / 'root.pem'} to a safe place; it is needed for new families and keys only.",
    )


@fleet.command("release")
@fleet_argument
@click.argument("bundle", type=FOLDER)
@click.option("--deltas", default=3, show_default=True, help="Make deltas from this many releases before it; 0: none.")
@click.option(
    "--delta-codec",
    type=click.Choice(["zstd", "zlib"]),
    default="zstd",
    show_default=True,
    help="What compresses them; 32-bit Arm devices read zlib only.",
)
@json_option
def release_command(folder: Path, bundle: Path, deltas: int, delta_codec: str, as_json: bool) -> None:
    """Check the bundle folder BUNDLE and sign it as a release of its model family.

    Devices that have one of the releases before it fetch a delta instead of a changed file, where that is smaller.

    \b
    Examples:
      edgewright fleet release ~/fleet out/har-1.0.0
      edgewright fleet release ~/fleet out/har-1.1.0 --deltas 5 --delta-codec zlib
    """
    plan = convert({"releases": deltas, "codec": delta_codec}, DeltaPlan, what="deltas")
    done = release(FleetWorkspace(folder), bundle, utc_now(), plan)
    what = f"{done.model} {done.version}, {done.files} files, {done.bytes / 1e6:.2f} MB"
    made = f"\n{done.deltas} deltas, {done.delta_bytes / 1e6:.2f} MB" if done.deltas else ""
    hint = f"\nNo deltas: the family is older than they are. {done.hint}" if done.hint else ""
    head = "Released" if done.new else "Released before, unchanged:"
    emit(done, as_json, f"{head} {what} ({done.manifest_sha256}){made}{hint}")


@fleet.group()
def family() -> None:
    """What holds for every release of a model: its signers, its oldest allowed version, its revoked releases."""


@family.command("add")
@fleet_argument
@click.argument("name")
@click.option("--key", help="Key that signs it; by default the keys that sign the other families.")
@click.option("--out", type=FILE, help="Propose only: write the change to this file for the root keys elsewhere.")
@json_option
def family_add(folder: Path, name: str, key: str | None, out: Path | None, as_json: bool) -> None:
    """Delegate the model family NAME to the releases key. Needs the root key.

    \b
    Examples:
      edgewright fleet family add ~/fleet har
      edgewright fleet family add ~/fleet har --out change.json
    """
    fleet = FleetWorkspace(folder)
    if out is None:
        add_family(fleet, name, utc_now(), key)
        emit({"family": name}, as_json, f"Family {name!r} may be released now.")
        return
    signer = None if key is None else fleet.keys.public(key)
    first = signer or fleet.keys.public(RELEASES)
    change_keys(fleet, partial(key_changes.add_family, family=name, key=signer, first=first), out)
    emit({"family": name, "proposal": str(out)}, as_json, f"Written to {out}; nothing is changed yet.")


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
    document = set_floor(FleetWorkspace(folder), name, version, utc_now())
    emit(document, as_json, f"{name}: nothing older than {document.minimum_version} may be installed.")


@family.command("revoke")
@fleet_argument
@click.argument("name")
@click.argument("version")
@json_option
def family_revoke(folder: Path, name: str, version: str, as_json: bool) -> None:
    """Forbid the release VERSION of NAME on every device. A release that is not yours is named by its SHA-256.

    \b
    Examples:
      edgewright fleet family revoke ~/fleet har 1.1.0
    """
    document = revoke(FleetWorkspace(folder), name, version, utc_now())
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
    done = refresh(FleetWorkspace(folder), utc_now())
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
            FleetWorkspace(folder), out, model, utc_now(), lambda now, all_: bar.update(task, completed=now, total=all_)
        )
    emit(done, as_json, f"{done.files} files, {done.bytes / 1e6:.2f} MB in {out} ({done.copied} copied).")


@fleet.command("gc")
@fleet_argument
@click.option(
    "--older-than", default=YOUNG.days, show_default=True, type=click.FloatRange(min=0), help="In days; younger stays."
)
@click.option("--dry-run", is_flag=True, help="Only count what would go.")
@json_option
def gc(folder: Path, older_than: float, dry_run: bool, as_json: bool) -> None:
    """Remove files that nothing signed names any more: of releases that were broken off, or that newer ones replaced.

    \b
    Examples:
      edgewright fleet gc ~/fleet --dry-run
      edgewright fleet gc ~/fleet --older-than 30
    """
    done = collect_garbage(FleetWorkspace(folder), utc_now(), timedelta(days=older_than), dry=dry_run)
    emit(done, as_json, f"{done.files} files, {done.bytes / 1e6:.2f} MB {'would go' if dry_run else 'removed'}.")


for _command in (keys, rollout, depot, controller, devices, events, status, authority, enroll, enrollment, identity):
    fleet.add_command(_command)
fleet.add_command(enrollment, "enrolment")  # the spelling of 0.1's first units
