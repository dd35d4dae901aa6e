"""What a proposed change of keys means, in sentences for whoever is asked to sign it.

What the file claims to change is only as true as its starting point, so the whole of what will hold is listed as well.
"""

from __future__ import annotations

from collections.abc import Iterable

from securesystemslib.signer import Key

from edge_fleet.signing.ceremony import Need, Proposal
from edge_fleet.signing.key_changes import Holding, holdings
from edge_fleet.signing.keys import key_name
from edge_fleet.signing.roles import delegated

SHOWN_KEYID = 16


def changes(proposal: Proposal) -> list[str]:
    """Return one sentence for each thing that changes."""
    said = []
    for role, metadata in proposal.documents:
        before = proposal.root.signed if role == "root" else proposal.targets.signed
        after = metadata.signed
        said.append(f"{role}: version {before.version} -> {after.version}, valid until {after.expires:%Y-%m-%d}")
    old = {holding.role: holding for holding in holdings(proposal.root.signed, proposal.targets.signed)}
    new = {holding.role: holding for holding in holdings(proposal.root_after, proposal.targets_after)}
    for role in dict.fromkeys([*old, *new]):
        said += _role_changes(role, old.get(role), new.get(role))
    had, have = delegated(proposal.targets.signed), delegated(proposal.targets_after)
    for role in sorted(had.keys() & have.keys()):
        more = [path for path in have[role].paths or () if path not in (had[role].paths or ())]
        said += [f"+ {role}: may sign {path}" for path in more]
    if not any(": version" not in line for line in said):
        said.append("no key or threshold changes: renewal only")
    return said


def outcome(proposal: Proposal) -> list[Holding]:
    """Return who may sign what once the proposal is in force."""
    return holdings(proposal.root_after, proposal.targets_after)


def describe_need(need: Need) -> str:
    """Return how far the signatures of one document are."""
    have = f"{len(need.signed)} of {need.threshold} signatures by the keys of {need.under}"
    who = f" ({', '.join(need.signed)})" if need.signed else ""
    still = f"; may still sign: {', '.join(need.unsigned)}" if need.missing else "; enough"
    return f"{need.document}: {have}{who}{still}"


def key_words(key: Key) -> str:
    """Return a key's name and as much of its id as people can compare."""
    return f"{key_name(key)} [{key.keyid[:SHOWN_KEYID]}]"


def _role_changes(role: str, old: Holding | None, new: Holding | None) -> list[str]:
    before, after = _keys(old), _keys(new)
    said = [f"+ {role}: key {key_words(after[keyid])} may sign" for keyid in after if keyid not in before]
    said += [f"- {role}: key {key_words(before[keyid])} may no longer sign" for keyid in before if keyid not in after]
    was, becomes = (0 if holding is None else holding.threshold for holding in (old, new))
    if was != becomes:
        said.append(f"! {role}: {becomes} signature(s) needed instead of {was}")
    return said


def _keys(holding: Holding | None) -> dict[str, Key]:
    keys: Iterable[Key] = () if holding is None else holding.keys
    return {key.keyid: key for key in keys}
