"""The commands of a ceremony, `edgewright fleet keys show | sign | apply`, and how a change becomes a proposal."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from edge_fleet.cli.output import FOLDER, emit, fleet_argument, json_option, utc_now
from edge_fleet.errors import CeremonyError, FleetError, KeyMissingError
from edge_fleet.signing.ceremony import (
    MAX_PROPOSAL_BYTES,
    AppliedChange,
    Proposal,
    apply,
    check_base,
    needs,
    pack_proposal,
    parse_proposal,
    propose,
    sign_proposal,
    start,
)
from edge_fleet.signing.ceremony_text import changes, describe_need, key_words, outcome
from edge_fleet.signing.key_changes import Draft, Holding
from edge_fleet.signing.keys import KeyRing
from edge_fleet.signing.metadata import read_metadata
from edge_fleet.signing.workspace import SETTINGS_NAME, FleetWorkspace
from edge_io.durable_files import write_file

FILE = click.Path(path_type=Path, dir_okay=False)

file_argument = click.argument("file", metavar="FILE", type=FILE)
trusted_option = click.option(
    "--trusted", type=FILE, help="Your own copy of the current root.json; proposals based on another one are refused."
)


@click.command()
@file_argument
@trusted_option
@json_option
def show(file: Path, trusted: Path | None, as_json: bool) -> None:
    """Show the change in FILE and the signatures it has.

    \b
    Examples:
      edgewright fleet keys show change.json
    """
    proposal = read_proposal(file, trusted)
    if as_json:
        emit(report(proposal), True, "")
    else:
        say(proposal, err=False)


@click.command()
@file_argument
@click.option("--keys", "folder", type=FOLDER, required=True, help="Key folder, or a fleet folder.")
@trusted_option
@click.option("--yes", is_flag=True, help="Sign without a prompt.")
@json_option
def sign(file: Path, folder: Path, trusted: Path | None, yes: bool, as_json: bool) -> None:
    """Show the change in FILE, confirm, and sign it with local keys.

    Needs no network and no fleet folder.

    \b
    Examples:
      edgewright fleet keys sign change.json --keys /media/stick/keys
    """
    proposal = read_proposal(file, trusted)
    say(proposal, err=True)
    if not yes:
        click.confirm("Sign this change?", abort=True, err=True)
    signed, names = sign_proposal(proposal, key_folder(folder))
    write_file(file, pack_proposal(signed))
    emit(report(signed), as_json, "\n".join([f"Signed by {', '.join(names)}.", *map(describe_need, needs(signed))]))


@click.command("apply")
@fleet_argument
@file_argument
@json_option
def apply_command(folder: Path, file: Path, as_json: bool) -> None:
    """Apply a key change that has enough signatures.

    Publishes the metadata in FILE and re-signs the metadata it affects.

    \b
    Examples:
      edgewright fleet keys apply ~/fleet change.json
    """
    fleet = FleetWorkspace(folder)
    emit_applied(apply(fleet, read_proposal(file), utc_now()), as_json)


def key_folder(folder: Path) -> KeyRing:
    """Return the keys of a fleet folder, or of a folder that holds nothing but keys."""
    return KeyRing(folder / "keys" if (folder / SETTINGS_NAME).exists() else folder)


def read_proposal(file: Path, trusted: Path | None = None) -> Proposal:
    """Read a proposal and check that it starts from a state that was signed. Raises FleetError, CeremonyError."""
    try:
        with file.open("rb") as source:
            data = source.read(MAX_PROPOSAL_BYTES + 1)
    except OSError as error:
        raise FleetError(f"cannot be read: {error.strerror}", subject=str(file)) from error
    proposal = parse_proposal(data)
    check_base(proposal, None if trusted is None else read_metadata(trusted).signed)
    return proposal


def say(proposal: Proposal, *, err: bool) -> None:
    """Print what a proposal means."""
    lines = ["Changes:", *(f"  {line}" for line in changes(proposal)), "Keys afterwards:"]
    lines += [f"  {_holding_words(holding)}" for holding in outcome(proposal)]
    lines += ["Signatures:", *(f"  {describe_need(need)}" for need in needs(proposal))]
    click.echo("\n".join(lines), err=err)


def change_keys(
    fleet: FleetWorkspace, edit: Callable[[Draft], None], out: Path | None, renew: tuple[str, ...] = ()
) -> Proposal | AppliedChange:
    """Propose a change: with `out` write it there and return the proposal, else sign and apply it with the keys here.

    Raises KeyMissingError, naming `--out`, if the root keys here are not enough.
    """
    now = utc_now()
    proposal = propose(begun(fleet, out), edit, fleet.settings.expiry_days, now, renew)
    if out is not None:
        write_file(out, pack_proposal(proposal))
        return proposal
    try:
        proposal, _ = sign_proposal(proposal, fleet.keys)
        return apply(fleet, proposal, now)
    except CeremonyError as error:
        if not any(need.missing for need in needs(proposal)):
            raise
        raise KeyMissingError(
            "not enough root keys available here for this change",
            subject=str(fleet.keys.folder),
            hint="write the change to a file with --out and run `edgewright fleet keys sign` where the keys are",
        ) from error


def begun(fleet: FleetWorkspace, out: Path | None) -> Proposal:
    """Return what `out` proposes already, or no change. Raises CeremonyError if `out` is of an earlier ceremony."""
    current = start(fleet.read(utc_now()))
    if out is None or not out.exists():
        return current
    proposal = read_proposal(out)
    if (proposal.root.signed, proposal.targets.signed) != (current.root.signed, current.targets.signed):
        raise CeremonyError(
            "this proposal is based on metadata that has been replaced",
            subject=str(out),
            hint="remove it or choose another file",
        )
    return proposal


def emit_applied(done: AppliedChange, as_json: bool) -> None:
    """Print what is in force now, and what waits."""
    text = f"Applied: root version {done.root}, targets version {done.targets}."
    if done.signed:
        text += f" Re-signed: {', '.join(done.signed)}."
    if done.waiting:
        text += (
            f" Devices refuse {', '.join(done.waiting)} until `edgewright fleet refresh` has run where the new key is."
        )
    emit(done, as_json, text)


def report(proposal: Proposal) -> dict[str, Any]:
    """Return what a proposal means as plain values."""
    found = needs(proposal)
    return {
        "changes": changes(proposal),
        "holders": [
            {"role": h.role, "threshold": h.threshold, "keys": [key.keyid for key in h.keys]} for h in outcome(proposal)
        ],
        "signatures": found,
        "complete": bool(found) and not any(need.missing for need in found),
    }


def _holding_words(holding: Holding) -> str:
    return f"{holding.role}: {holding.threshold} of {', '.join(key_words(key) for key in holding.keys)}"
