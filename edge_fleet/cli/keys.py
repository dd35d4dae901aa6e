"""`edgewright fleet keys`: which key may sign what, and how that is changed, by whoever holds the root keys.

The commands that change something either do it at once, with the root keys that are here, or with `--out` write it to
a file that other machines sign.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import click
from securesystemslib.signer import Key
from tuf.api.metadata import Root, Targets

from edge_fleet.cli.key_ceremony import (
    FILE,
    apply_command,
    begun,
    change_keys,
    emit_applied,
    key_folder,
    report,
    say,
    show,
    sign,
)
from edge_fleet.cli.output import FOLDER, emit, fleet_argument, json_option, show_table, utc_now
from edge_fleet.signing import key_changes
from edge_fleet.signing.ceremony import AppliedChange
from edge_fleet.signing.key_changes import Draft, Holding
from edge_fleet.signing.keys import key_name
from edge_fleet.signing.passphrases import new_passphrase
from edge_fleet.signing.workspace import FleetWorkspace

out_option = click.option(
    "--out", type=FILE, help="Write the change to this file for others to sign; adds to an existing proposal."
)


@click.group(short_help="Create, rotate and revoke signing keys.")
def keys() -> None:
    """Manage signing keys: create, add, rotate, revoke, sign offline.

    \b
    Examples:
      edgewright fleet keys list ~/fleet
      edgewright fleet keys rotate ~/fleet rollouts --out change.json
      edgewright fleet keys sign change.json --keys ~/root-key
      edgewright fleet keys apply ~/fleet change.json
    """


@keys.command("list")
@fleet_argument
@json_option
def list_command(folder: Path, as_json: bool) -> None:
    """List keys with their roles, expiry and location.

    \b
    Examples:
      edgewright fleet keys list ~/fleet
    """
    fleet = FleetWorkspace(folder)
    rows = held_keys(fleet)
    held = {row["id"] for row in rows}
    idle = [
        {"key": name, "id": keyid, "private": fleet.keys.form(name)}
        for keyid, name in fleet.keys.names().items()
        if keyid not in held
    ]
    if as_json:
        emit({"keys": rows, "unused": idle}, True, "")
        return
    show_table("Keys", list(rows[0]), [list(row.values()) for row in rows])
    for row in idle:
        click.echo(f"unused: {row['key']} [{row['id']}], private key here: {row['private'] or 'no'}")


@keys.command()
@click.argument("folder", metavar="DIR", type=FOLDER)
@click.argument("name")
@click.option("--passphrase", is_flag=True, help="Encrypt the private key; prompts for a passphrase.")
@click.option("--passphrase-file", type=FILE, help="Encrypt the private key with the first line of this file.")
@click.option("--hsm", is_flag=True, help="Use a key on a PKCS#11 token; $PYKCS11LIB names its library.")
@click.option("--token", help="With --hsm: label of the token; needed if there are several.")
@click.option("--slot", type=int, help="With --hsm: ID of the key on the token; default: 2 (PIV slot 9c).")
@json_option
def create(folder: Path, name: str, as_json: bool, **asked: Any) -> None:
    """Create the key NAME in DIR.

    DIR is a fleet folder, or a key folder on another machine. The key signs nothing until `keys add` gives it a role.
    Copy only NAME.pub to other machines.

    \b
    Examples:
      edgewright fleet keys create /media/stick/keys alice --passphrase
      edgewright fleet keys create ~/keys yubikey --hsm
    """
    ring = key_folder(folder)
    if asked["hsm"]:
        ring.adopt_token(name, asked["token"], asked["slot"])
    else:
        wanted = asked["passphrase"] or asked["passphrase_file"]
        ring.create([name], new_passphrase(asked["passphrase_file"]) if wanted else None)
    public = ring.public(name)
    emit(
        {"key": name, "id": public.keyid, "public": str(ring.folder / f"{name}.pub"), "private": ring.form(name)},
        as_json,
        f"Created key {name} [{public.keyid}]. Copy {ring.folder / f'{name}.pub'} to the fleet folder's keys.",
    )


@keys.command()
@fleet_argument
@click.argument("role")
@click.argument("name")
@out_option
@json_option
def add(folder: Path, role: str, name: str, out: Path | None, as_json: bool) -> None:
    """Allow the key NAME to sign ROLE.

    NAME is a public key in DIR/keys. ROLE is root, releases, releases-FAMILY, rollouts, snapshot or timestamp.

    \b
    Examples:
      edgewright fleet keys add ~/fleet root alice --out change.json
    """
    fleet = FleetWorkspace(folder)
    _change(fleet, partial(key_changes.add, role=role, key=fleet.keys.public(name)), out, as_json)


@keys.command()
@fleet_argument
@click.argument("role")
@click.argument("key")
@out_option
@json_option
def revoke(folder: Path, role: str, key: str, out: Path | None, as_json: bool) -> None:
    """Remove ROLE from KEY, given by name or by the start of its ID.

    \b
    Examples:
      edgewright fleet keys revoke ~/fleet root bob --out change.json
    """
    _change(FleetWorkspace(folder), partial(key_changes.revoke, role=role, named=key), out, as_json)


@keys.command()
@fleet_argument
@click.argument("role")
@click.argument("number", type=int)
@out_option
@json_option
def threshold(folder: Path, role: str, number: int, out: Path | None, as_json: bool) -> None:
    """Set the number of keys that must sign ROLE.

    \b
    Examples:
      edgewright fleet keys threshold ~/fleet root 2 --out change.json
    """
    _change(FleetWorkspace(folder), partial(key_changes.set_threshold, role=role, threshold=number), out, as_json)


@keys.command()
@fleet_argument
@click.argument("roles", metavar="ROLE...", nargs=-1, required=True)
@click.option("--key", help="Name of the new key, whose .pub is in DIR/keys; default: create one here.")
@out_option
@json_option
def rotate(folder: Path, roles: tuple[str, ...], key: str | None, out: Path | None, as_json: bool) -> None:
    """Replace the key that signs ROLE by a new one.

    Replacing snapshot and timestamp together also recovers from fast-forwarded versions.

    \b
    Examples:
      edgewright fleet keys rotate ~/fleet rollouts snapshot timestamp --out change.json
    """
    fleet = FleetWorkspace(folder)
    chosen = {role: key or fleet.keys.free_name(role) for role in roles}
    if key is None:
        _check_rotation(fleet, roles, out)
        fleet.keys.create(chosen.values())

    def edit(draft: Draft) -> None:
        for role, name in chosen.items():
            key_changes.replace(draft, role, fleet.keys.public(name))

    _change(fleet, edit, out, as_json)


@keys.command()
@fleet_argument
@out_option
@json_option
def renew(folder: Path, out: Path | None, as_json: bool) -> None:
    """Re-sign root and targets before they expire.

    For root keys that are kept offline, where `fleet refresh` does not find them.

    \b
    Examples:
      edgewright fleet keys renew ~/fleet --out renewal.json
    """
    _change(FleetWorkspace(folder), lambda _draft: None, out, as_json, renew=(Root.type, Targets.type))


def held_keys(fleet: FleetWorkspace) -> list[dict[str, Any]]:
    """Return one line for every key of every role."""
    repository = fleet.read(utc_now())
    names = fleet.keys.names()

    def line(holding: Holding, key: Key) -> dict[str, Any]:
        signed = repository.open(holding.role).signed
        return {
            "role": holding.role,
            "threshold": holding.threshold,
            "key": key_name(key),
            "id": key.keyid,
            "kind": key.keytype,
            "private": fleet.keys.form(names[key.keyid]) if key.keyid in names else None,
            "expires": signed.expires.strftime("%Y-%m-%dT%H:%M:%SZ") if signed.version else None,
        }

    found = key_changes.holdings(repository.root(), repository.targets())
    return [line(holding, key) for holding in found for key in holding.keys]


def _check_rotation(fleet: FleetWorkspace, roles: tuple[str, ...], out: Path | None) -> None:
    """Raise before keys are made that no change would use: no such role, or no root key here."""
    proposal = begun(fleet, out)
    for role in roles:
        key_changes.check_role(Draft.of(proposal.root_after, proposal.targets_after), role)
    if out is None:
        fleet.read(utc_now()).require([Root.type])


def _change(
    fleet: FleetWorkspace, edit: Callable[[Draft], None], out: Path | None, as_json: bool, renew: tuple[str, ...] = ()
) -> None:
    done = change_keys(fleet, edit, out, renew)
    if isinstance(done, AppliedChange):
        emit_applied(done, as_json)
    elif as_json:
        emit(report(done), True, "")
    else:
        say(done, err=False)
        click.echo(f"Proposal written to {out}; nothing has changed yet.")


for _command in (show, sign, apply_command):
    keys.add_command(_command)
