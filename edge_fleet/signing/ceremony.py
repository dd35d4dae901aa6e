"""A change of keys as a portable file: proposed where the fleet is, signed where the root keys are, applied when enough
have signed.

The file carries root and targets as they are and as they shall be, so that an offline machine can say what changes
and check that the one follows from the other. Nothing in it is secret; what is not signed by a threshold of the
present root's keys, and of the new root's, changes nothing. The changes themselves are in `key_changes`, what is said
of them in `ceremony_words`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from copy import deepcopy
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, TypeVar

from securesystemslib.signer import Key
from tuf.api.metadata import Metadata, Root, Targets

from edge_contracts.codec import Record, StrictRecord, decode, encode
from edge_contracts.limits import MIB
from edge_fleet.errors import CeremonyError
from edge_fleet.signing.key_changes import Draft, check_frame
from edge_fleet.signing.keys import SNAPSHOT, KeyRing, key_name, sign
from edge_fleet.signing.repository import FleetRepository
from edge_fleet.signing.roles import Lifetimes, delegated
from edge_fleet.signing.workspace import FleetWorkspace
from edge_io.durable_files import write_file

PROPOSAL_SCHEMA = 1
MAX_PROPOSAL_BYTES = MIB
"""Largest proposal read: four documents of some kilobytes, more where a fleet has thousands of families."""

_Kind = TypeVar("_Kind", Root, Targets)


class _File(StrictRecord, frozen=True, kw_only=True):
    """A proposal as it is written down; each document is TUF metadata."""

    schema: int = PROPOSAL_SCHEMA
    root: dict[str, Any]
    targets: dict[str, Any]
    new_root: dict[str, Any] | None = None
    new_targets: dict[str, Any] | None = None


@dataclass(frozen=True, kw_only=True)
class Proposal:
    """Root and targets in force, and what shall follow each, if anything."""

    root: Metadata[Root]
    targets: Metadata[Targets]
    new_root: Metadata[Root] | None = None
    new_targets: Metadata[Targets] | None = None

    @property
    def root_after(self) -> Root:
        """The root that will hold."""
        return (self.new_root or self.root).signed

    @property
    def targets_after(self) -> Targets:
        """The delegations that will hold."""
        return (self.new_targets or self.targets).signed

    @property
    def documents(self) -> list[tuple[str, Metadata[Any]]]:
        """What is to be signed, by role."""
        found: list[tuple[str, Metadata[Any] | None]] = [
            (Root.type, self.new_root),
            (Targets.type, self.new_targets),
        ]
        return [(role, metadata) for role, metadata in found if metadata is not None]


class Need(Record, frozen=True, kw_only=True):
    """Signatures on one document under one set of keys: who has signed, who still may, and how many it takes."""

    document: str
    under: str
    threshold: int
    signed: tuple[str, ...]
    unsigned: tuple[str, ...]

    @property
    def missing(self) -> int:
        """How many more signatures it takes."""
        return max(0, self.threshold - len(self.signed))


class AppliedChange(Record, frozen=True, kw_only=True):
    """The versions now in force, the roles that were signed again under new keys, and those that wait for a key."""

    root: int
    targets: int
    signed: tuple[str, ...] = ()
    waiting: tuple[str, ...] = ()


def start(repository: FleetRepository) -> Proposal:
    """Return a proposal of no change to what is in force."""
    return Proposal(root=repository.open(Root.type), targets=repository.open(Targets.type))


def propose(
    proposal: Proposal,
    edit: Callable[[Draft], None],
    lifetimes: Lifetimes,
    now: datetime,
    renew: Iterable[str] = (),
) -> Proposal:
    """Return the proposal with one more change, and without signatures: whoever signs, signs all of it.

    A document follows when its content changes, when `renew` names it, or when its own signers change.
    """
    draft = Draft.of(proposal.root_after, proposal.targets_after)
    edit(draft)
    wanted = {role for role, _ in proposal.documents} | set(renew)
    new_root = new_targets = None
    if Root.type in wanted or draft.root != proposal.root.signed:
        new_root = _follow(proposal.root, draft.root, now, lifetimes)
    old = proposal.targets
    signers_hold = draft.root.get_verification_result(Targets.type, old.signed_bytes, old.signatures).verified
    if Targets.type in wanted or draft.targets != old.signed or not signers_hold:
        new_targets = _follow(old, draft.targets, now, lifetimes)
    return replace(proposal, new_root=new_root, new_targets=new_targets)


def sign_proposal(proposal: Proposal, keys: KeyRing) -> tuple[Proposal, list[str]]:
    """Return the proposal signed with every key here that counts, and the names of those keys.

    Raises CeremonyError if there is none, KeyLockedError if one does not open.
    """
    signed, names = deepcopy(proposal), set()
    for role, metadata in signed.documents:
        entitled = {key.keyid: key for need_keys in _authorities(signed, role).values() for key in need_keys[0]}
        signers = keys.signers(role, list(entitled.values()), 0)
        sign(metadata, signers)
        names |= {key_name(entitled[signer.public_key.keyid]) for signer in signers}
    if not names:
        raise CeremonyError(
            "no key here may sign this",
            subject=str(keys.folder),
            hint="see who may sign with `edgewright fleet keys show FILE`",
        )
    return signed, sorted(names)


def needs(proposal: Proposal) -> list[Need]:
    """Return what has been signed and what has not, for each document and each set of keys that must sign it."""
    found = []
    for role, metadata in proposal.documents:
        for under, (_, root) in _authorities(proposal, role).items():
            result = root.get_verification_result(role, metadata.signed_bytes, metadata.signatures)
            found.append(
                Need(
                    document=role,
                    under=under,
                    threshold=result.threshold,
                    signed=tuple(sorted(map(key_name, result.signed.values()))),
                    unsigned=tuple(sorted(map(key_name, result.unsigned.values()))),
                )
            )
    return found


def check_base(proposal: Proposal, trusted: Root | None = None) -> None:
    """Raise CeremonyError unless the new documents follow the present ones, and those are what they say.

    With `trusted`, the signer's own copy of the root, nobody can pretend that something was in force before.
    """
    root, targets = proposal.root, proposal.targets
    if trusted is not None and root.signed != trusted:
        raise CeremonyError("not based on the root that you trust", subject=f"root {root.signed.version}")
    for role, metadata in ((Root.type, root), (Targets.type, targets)):
        if not root.signed.get_verification_result(role, metadata.signed_bytes, metadata.signatures).verified:
            raise CeremonyError("the state it starts from is not signed by the root keys", subject=role)
    for before, after in ((root, proposal.new_root), (targets, proposal.new_targets)):
        if after is not None and after.signed.version != before.signed.version + 1:
            raise CeremonyError("does not follow the current version", subject=after.signed.type)
    check_frame(
        Draft(root=root.signed, targets=targets.signed),
        Draft(root=proposal.root_after, targets=proposal.targets_after),
    )


def apply(fleet: FleetWorkspace, proposal: Proposal, now: datetime) -> AppliedChange:
    """Put a proposal in force: publish what it holds, and sign again what its changes leave without valid signatures.

    May be repeated after it was interrupted. Roles whose new key is elsewhere wait for `fleet refresh` there; devices
    refuse them until then. Raises CeremonyError while signatures are missing, or if another change came first,
    KeyMissingError without the keys of snapshot and timestamp; nothing is changed then.
    """
    check_base(proposal)
    _check_complete(proposal, now)
    with fleet.hold(now) as repository:
        for role, metadata in proposal.documents:
            before = proposal.root if role == Root.type else proposal.targets
            _check_current(repository, role, before, metadata)
            repository.adopt(role, metadata)
        broken = [role for role in delegated(repository.targets()) if not repository.is_signed(role)]
        here = [role for role in broken if _has_keys(repository, role)]
        fleet.check_keys(repository, [*here, SNAPSHOT])
        repository.refresh(here)
        repository.publish()
        # Devices installed from now on start here, beyond the reach of keys that were revoked.
        write_file(fleet.path / "root.json", repository.open(Root.type).to_bytes())
    return AppliedChange(
        root=proposal.root_after.version,
        targets=proposal.targets_after.version,
        signed=tuple(here),
        waiting=tuple(role for role in broken if role not in here),
    )


def pack_proposal(proposal: Proposal) -> bytes:
    """Return the file of a proposal."""
    return encode(
        _File(
            root=proposal.root.to_dict(),
            targets=proposal.targets.to_dict(),
            new_root=None if proposal.new_root is None else proposal.new_root.to_dict(),
            new_targets=None if proposal.new_targets is None else proposal.new_targets.to_dict(),
        )
    )


def parse_proposal(data: bytes) -> Proposal:
    """Read the file of a proposal. Raises ContractError or CeremonyError naming what is wrong."""
    file = decode(data, _File, limit=MAX_PROPOSAL_BYTES, what="proposal")
    if file.schema != PROPOSAL_SCHEMA:
        raise CeremonyError(f"schema {file.schema} is unknown; use a newer version", subject="proposal.schema")
    return Proposal(
        root=_metadata(file.root, Root),
        targets=_metadata(file.targets, Targets),
        new_root=None if file.new_root is None else _metadata(file.new_root, Root),
        new_targets=None if file.new_targets is None else _metadata(file.new_targets, Targets),
    )


def _follow(before: Metadata[_Kind], signed: _Kind, now: datetime, lifetimes: Lifetimes) -> Metadata[_Kind]:
    signed.version = before.signed.version + 1
    signed.expires = (now + lifetimes.of(signed.type)).replace(microsecond=0)
    return Metadata(signed)


def _authorities(proposal: Proposal, role: str) -> dict[str, tuple[list[Key], Root]]:
    """Return who must sign a document: for a root, the keys in force as well as its own."""
    roots = {"the current root" if proposal.new_root is None else "the new root": proposal.root_after}
    if role == Root.type:
        roots = {"the current root": proposal.root.signed, **roots}
    return {under: ([root.keys[keyid] for keyid in root.roles[role].keyids], root) for under, root in roots.items()}


def _check_complete(proposal: Proposal, now: datetime) -> None:
    if not proposal.documents:
        raise CeremonyError("changes nothing", subject="proposal")
    for need in needs(proposal):
        if need.missing:
            raise CeremonyError(
                f"{need.missing} more signature(s) needed by the keys of {need.under}: {', '.join(need.unsigned)}",
                subject=need.document,
                hint="run `edgewright fleet keys sign FILE --keys FOLDER` where such a key is",
            )
    for role, metadata in proposal.documents:
        if metadata.signed.is_expired(now):
            raise CeremonyError(f"expired at {metadata.signed.expires}: propose it again", subject=role)


def _check_current(repository: FleetRepository, role: str, before: Metadata[Any], after: Metadata[Any]) -> None:
    current = repository.open(role).signed
    if current not in (before.signed, after.signed):
        raise CeremonyError(
            f"is based on version {before.signed.version}, {current.version} is current: propose it again",
            subject=role,
        )


def _has_keys(repository: FleetRepository, role: str) -> bool:
    names, threshold = repository.keys_at_hand(role)
    return len(names) >= threshold


def _metadata(document: dict[str, Any], kind: type[_Kind]) -> Metadata[_Kind]:
    try:
        found: Metadata[Any] = Metadata.from_dict(document)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise CeremonyError(f"not TUF metadata: {error!r}", subject=f"proposal.{kind.type}") from error
    if not isinstance(found.signed, kind):
        raise CeremonyError(f"is {found.signed.type} metadata", subject=f"proposal.{kind.type}")
    return found
