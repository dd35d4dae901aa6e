"""The changes of keys there are, as edits to a draft of root and targets metadata. Pure: nothing is signed here.

The root keys sign both `root` and `targets`, so whoever holds the one role holds the other; `releases` stands for the
roles of all families at once.
"""

from __future__ import annotations

import hashlib
import re
from copy import deepcopy
from dataclasses import dataclass
from typing import Any, Self

from securesystemslib.formats import encode_canonical
from securesystemslib.signer import Key
from tuf.api.metadata import DelegatedRole, Role, Root, Snapshot, Targets, Timestamp

from edge_contracts.codec import convert
from edge_contracts.names import NAME_PATTERN, Name
from edge_fleet.errors import CeremonyError
from edge_fleet.signing.keys import RELEASES, key_name
from edge_fleet.signing.roles import delegate, delegated, family_roles, family_signers, releases_paths, releases_role

MIN_KEYID_CHARS = 8
"""A key may be named by the beginning of its id, from this length on."""


@dataclass(frozen=True, kw_only=True)
class Draft:
    """Root and targets as they will be. The two are edited in place."""

    root: Root
    targets: Targets

    @classmethod
    def of(cls, root: Root, targets: Targets) -> Self:
        """Return a draft that starts from copies."""
        return cls(root=deepcopy(root), targets=deepcopy(targets))


@dataclass(frozen=True, kw_only=True)
class Holding:
    """Who may sign a role: these keys, so many of them together."""

    role: str
    threshold: int
    keys: tuple[Key, ...]


def holdings(root: Root, targets: Targets) -> list[Holding]:
    """Return who may sign what, root first. `targets` itself is left out: its keys are the root's."""
    own = [(name, root.roles[name], root.keys) for name in (Root.type, Snapshot.type, Timestamp.type)]
    given = [(name, role, _keys(targets)) for name, role in delegated(targets).items()]
    return [
        Holding(role=name, threshold=role.threshold, keys=tuple(known[keyid] for keyid in role.keyids))
        for name, role, known in own + given
    ]


def add(draft: Draft, role: str, key: Key) -> None:
    """Let one more key sign a role. Raises CeremonyError if it may already."""
    for delegator, name in _places(draft, role):
        if key.keyid in _role(delegator, name).keyids:
            raise CeremonyError(f"key {key_name(key)} may already sign it", subject=name)
        delegator.add_key(key, name)


def revoke(draft: Draft, role: str, named: str) -> None:
    """Take a role from a key, given by its name or the beginning of its id.

    Raises CeremonyError if no such key, or more than one, may sign it, or if too few would be left.
    """
    for delegator, name in _places(draft, role):
        keyid = _find(delegator, name, named)
        left, threshold = len(_role(delegator, name).keyids) - 1, _role(delegator, name).threshold
        if left < threshold:
            raise CeremonyError(
                f"{left} key(s) would remain, {threshold} must sign",
                subject=name,
                hint="add a key first, or lower the threshold",
            )
        delegator.revoke_key(keyid, name)


def set_threshold(draft: Draft, role: str, threshold: int) -> None:
    """Change how many keys sign a role together. Raises CeremonyError for more than there are, or none."""
    for delegator, name in _places(draft, role):
        held = len(_role(delegator, name).keyids)
        if not 1 <= threshold <= held:
            raise CeremonyError(f"{threshold} of {held} keys is not possible", subject=name)
        _role(delegator, name).threshold = threshold


def replace(draft: Draft, role: str, key: Key) -> None:
    """Put one key in place of the only one of a role. Raises CeremonyError if there are several."""
    add(draft, role, key)
    for delegator, name in _places(draft, role):
        others = [keyid for keyid in _role(delegator, name).keyids if keyid != key.keyid]
        if len(others) != 1:
            raise CeremonyError(
                f"{len(others)} keys may sign it; which one goes must be said",
                subject=name,
                hint="edgewright fleet keys add, then edgewright fleet keys revoke",
            )
        delegator.revoke_key(others[0], name)


def add_family(draft: Draft, family: str, key: Key | None, first: Key) -> None:
    """Delegate a new family to `key`, or to those who sign the others, or to `first`. A family from before there were
    deltas may sign them from then on. Raises CeremonyError if it exists and may already."""
    convert(family, Name, what="family")
    role = delegated(draft.targets).get(releases_role(family))
    if role is not None:
        if role.paths == releases_paths(family):
            raise CeremonyError("this family exists", subject=family)
        role.paths = releases_paths(family)
        return
    keys, threshold = ([key], 1) if key is not None else family_signers(draft.targets) or ([first], 1)
    delegate(draft.targets, releases_role(family), releases_paths(family), keys, threshold)


def check_frame(before: Draft, after: Draft) -> None:
    """Raise CeremonyError if anything but keys, thresholds and families' usual paths differs: what is said of a
    proposal says nothing of other changes, so there may be none."""
    known, later = delegated(before.targets), delegated(after.targets)
    if _frame(before.root) != _frame(after.root) or _frame(before.targets) != _frame(after.targets):
        raise CeremonyError("more than keys and families changes", subject="proposal")
    if not known.keys() <= later.keys():
        raise CeremonyError("more than keys and families changes: a role goes", subject=Targets.type)
    for name, role in later.items():
        same = name in known and role.paths == known[name].paths
        if not role.terminating or not (same or _is_family(role)):
            raise CeremonyError("more than keys and families changes: its paths", subject=repr(name))
    for key in (*after.root.keys.values(), *_keys(after.targets).values()):
        if key.keyid != _true_id(key):
            raise CeremonyError("is not the id of the key it stands at", subject=repr(key.keyid))


def check_role(draft: Draft, role: str) -> None:
    """Raise CeremonyError naming the roles there are, if `role` is none of them."""
    _places(draft, role)


def _places(draft: Draft, role: str) -> list[tuple[Root | Targets, str]]:
    """Return where a role's keys are listed: by whom, and under which names."""
    if role == Root.type:
        return [(draft.root, Root.type), (draft.root, Targets.type)]
    if role in (Snapshot.type, Timestamp.type):
        return [(draft.root, role)]
    names = family_roles(draft.targets) if role == RELEASES else [role]
    known = delegated(draft.targets)
    if not names or any(name not in known for name in names):
        roles = ", ".join([Root.type, Snapshot.type, Timestamp.type, RELEASES, *known])
        raise CeremonyError(f"no such role (roles: {roles})", subject=role)
    return [(draft.targets, name) for name in names]


def _frame(signed: Root | Targets) -> dict[str, Any]:
    varying = ("version", "expires", "keys", "roles", "delegations")
    return {name: value for name, value in signed.to_dict().items() if name not in varying}


def _true_id(key: Key) -> str:
    """Return the id that follows from the key itself, as securesystemslib derives it. TUF takes any text for an id, and
    people compare ids, so a thief's key must not go under the id of another."""
    content = {"keytype": key.keytype, "scheme": key.scheme, "keyval": key.keyval}
    return hashlib.sha256(str(encode_canonical(content)).encode()).hexdigest()


def _keys(targets: Targets) -> dict[str, Key]:
    return {} if targets.delegations is None else targets.delegations.keys


def _is_family(role: DelegatedRole) -> bool:
    """Whether a role is a model family's, with the paths that every family has."""
    family = role.name.removeprefix(f"{RELEASES}-")
    named = role.name == releases_role(family) and re.fullmatch(NAME_PATTERN, family)
    return bool(named) and role.paths == releases_paths(family)


def _role(delegator: Root | Targets, name: str) -> Role:
    return delegator.roles[name] if isinstance(delegator, Root) else delegated(delegator)[name]


def _find(delegator: Root | Targets, role: str, named: str) -> str:
    keys = (
        delegator.keys if isinstance(delegator, Root) else delegator.delegations.keys if delegator.delegations else {}
    )
    holders = [keys[keyid] for keyid in _role(delegator, role).keyids]
    by_id = len(named) >= MIN_KEYID_CHARS
    found = [key for key in holders if key_name(key) == named or (by_id and key.keyid.startswith(named))]
    if len(found) != 1:
        listed = ", ".join(f"{key_name(key)} {key.keyid[:MIN_KEYID_CHARS]}" for key in holders)
        raise CeremonyError(f"{named!r} names {len(found)} of its keys ({listed})", subject=role)
    return found[0].keyid
