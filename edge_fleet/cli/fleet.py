"""`edgewright fleet`: the group, and the commands that change what is signed. Rollouts, services and views have
their own modules; the work itself is in `folder`, `release`, `refresh` and `export`."""

from __future__ import annotations

import copy
import os
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

from edge_contracts.codec import convert
from edge_fleet.cli.exposure import exposed_command
from edge_fleet.cli.identity import authority, enroll, enrollment, identity
from edge_fleet.cli.key_ceremony import FILE, change_keys
from edge_fleet.cli.keys import keys
from edge_fleet.cli.output import FOLDER, emit, fleet_argument, json_option, utc_now
from edge_fleet.cli.plans import why
from edge_fleet.cli.rollout import promote_command, rollout
from edge_fleet.cli.services import controller, depot
from edge_fleet.cli.views import devices, events, retention, status
from edge_fleet.releases.deltas.build import DeltaPlan
from edge_fleet.releases.export import export, not_mounted
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
    help="Passphrase file for encrypted keys (first line); default: $EDGEWRIGHT_PASSPHRASE_FILE, else a prompt.",
)
def fleet(passphrase_file: Path | None) -> None:
    """Sign releases, roll them out, serve devices and watch the fleet.

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
@click.option("--tenant", default="default", show_default=True, help="The fleet's name in broker topics.")
@click.option("--family", "families", multiple=True, help="Model family to delegate; may be repeated.")
@click.option("--root-threshold", default=1, show_default=True, help="Number of root keys that must sign.")
@click.option("--root-keys", type=int, help="Number of root keys to create; default: --root-threshold.")
@json_option
def init(folder: Path, as_json: bool, **asked: Any) -> None:
    """Create a fleet in DIR: keys, settings and signed metadata.

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
        f"Fleet {fleet.tenant!r} is ready in {fleet.path}.\n"
        f"Copy {fleet.path / 'root.json'} to every device and name it in agent.toml as `root` of [trust].\n"
        f"Move {fleet.keys.folder / 'root.pem'} to offline storage; it is needed only to add families and change keys.",
    )


@fleet.command("release")
@fleet_argument
@click.argument("bundle", type=FOLDER)
@click.option("--deltas", default=3, show_default=True, help="Number of earlier releases to make deltas from; 0: none.")
@click.option(
    "--delta-codec",
    type=click.Choice(["zstd", "zlib"]),
    default="zstd",
    show_default=True,
    help="Compression of the deltas; 32-bit Arm devices read only zlib.",
)
@json_option
def release_command(folder: Path, bundle: Path, deltas: int, delta_codec: str, as_json: bool) -> None:
    """Verify the folder BUNDLE and sign it as a release.

    The release belongs to the model family that the bundle names. Devices that have an earlier release download a
    delta instead of a changed file where that is smaller.

    \b
    Examples:
      edgewright fleet release ~/fleet out/har-1.0.0
      edgewright fleet release ~/fleet out/har-1.1.0 --deltas 5 --delta-codec zlib
    """
    plan = convert({"releases": deltas, "codec": delta_codec}, DeltaPlan, what="deltas")
    done = release(FleetWorkspace(folder), bundle, utc_now(), plan)
    what = f"{done.model} {done.version}, {done.files} files, {done.bytes / 1e6:.2f} MB"
    made = f"\n{done.deltas} deltas, {done.delta_bytes / 1e6:.2f} MB" if done.deltas else ""
    hint = f"\nNo deltas: this family was added before deltas existed. {done.hint}" if done.hint else ""
    head = "Released" if done.new else "Already released, unchanged:"
    emit(done, as_json, f"{head} {what} ({done.manifest_sha256}){made}{hint}")


@fleet.group(short_help="Manage model families: signers, floors, revocations.")
def family() -> None:
    """Manage a model family: its signers, oldest version and revocations.

    \b
    Examples:
      edgewright fleet family add ~/fleet har
      edgewright fleet family floor ~/fleet har 1.2.0
      edgewright fleet family revoke ~/fleet har 1.1.0
    """


@family.command("add")
@fleet_argument
@click.argument("name")
@click.option("--key", help="Name of the key that signs the family; default: the keys of the other families.")
@click.option("--out", type=FILE, help="Write the change to this file, to be signed by root keys elsewhere.")
@json_option
def family_add(folder: Path, name: str, key: str | None, out: Path | None, as_json: bool) -> None:
    """Add the model family NAME and delegate it to the releases key.

    Needs the root key.

    \b
    Examples:
      edgewright fleet family add ~/fleet har
      edgewright fleet family add ~/fleet har --out change.json
    """
    fleet = FleetWorkspace(folder)
    if out is None:
        add_family(fleet, name, utc_now(), key)
        emit({"family": name}, as_json, f"Family {name!r} is added; its bundles can be released.")
        return
    signer = None if key is None else fleet.keys.public(key)
    first = signer or fleet.keys.public(RELEASES)
    change_keys(fleet, partial(key_changes.add_family, family=name, key=signer, first=first), out)
    emit({"family": name, "proposal": str(out)}, as_json, f"Proposal written to {out}; nothing has changed yet.")


@family.command("floor")
@fleet_argument
@click.argument("name")
@click.argument("version")
@json_option
def family_floor(folder: Path, name: str, version: str, as_json: bool) -> None:
    """Forbid releases of NAME older than VERSION on every device.

    The floor overrides rollouts.

    \b
    Examples:
      edgewright fleet family floor ~/fleet har 1.2.0
    """
    document = set_floor(FleetWorkspace(folder), name, version, utc_now())
    emit(document, as_json, f"{name}: releases older than {document.minimum_version} are forbidden.")


@family.command("revoke")
@fleet_argument
@click.argument("name")
@click.argument("version")
@json_option
def family_revoke(folder: Path, name: str, version: str, as_json: bool) -> None:
    """Forbid the release VERSION of NAME on every device.

    For a release that is not in this repository give the SHA-256 of its manifest as VERSION.

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
    """Re-sign metadata past half of its lifetime.

    Signs with the keys available here; run it from a timer.

    \b
    Examples:
      edgewright fleet refresh ~/fleet
    """
    done = refresh(FleetWorkspace(folder), utc_now())
    missing = f" Due, but no key available here: {', '.join(done.missing)}." if done.missing else ""
    emit(done, as_json, f"Re-signed: {', '.join(done.signed) or 'nothing was due'}.{missing}")


@fleet.command("export")
@fleet_argument
@click.argument("out", type=FOLDER)
@click.option("--model", help="Model family to export; default: all.")
@json_option
def export_command(folder: Path, out: Path, model: str | None, as_json: bool) -> None:
    """Export the repository to the folder OUT.

    OUT can be on a USB stick, for `edgewright agent import`, or behind a web server.

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
    if not_mounted(out):
        click.echo(f"Warning: nothing is mounted at {out}: this is the disk of this machine, not a medium.", err=True)


@fleet.command("gc")
@fleet_argument
@click.option(
    "--older-than",
    default=YOUNG.days,
    show_default=True,
    type=click.FloatRange(min=0),
    help="Minimum age in days of files to remove.",
)
@click.option("--dry-run", is_flag=True, help="Count the files without removing them.")
@json_option
def gc(folder: Path, older_than: float, dry_run: bool, as_json: bool) -> None:
    """Remove files that no signed metadata refers to.

    Such files remain from interrupted releases and from replaced ones.

    \b
    Examples:
      edgewright fleet gc ~/fleet --dry-run
      edgewright fleet gc ~/fleet --older-than 30
    """
    done = collect_garbage(FleetWorkspace(folder), utc_now(), timedelta(days=older_than), dry=dry_run)
    emit(
        done, as_json, f"{done.files} files, {done.bytes / 1e6:.2f} MB {'would be removed' if dry_run else 'removed'}."
    )


def _alias(command: click.Command) -> click.Command:
    """Return a command that works and is not listed."""
    hidden = copy.copy(command)
    hidden.hidden = True
    return hidden


for _command in (
    keys,
    rollout,
    promote_command,
    depot,
    controller,
    devices,
    events,
    status,
    retention,
    why,
    exposed_command,
    authority,
    enroll,
    enrollment,
    identity,
):
    fleet.add_command(_command)
fleet.add_command(_alias(enrollment), "enrolment")  # the spelling of 0.1's first service units
