"""The roles of a fleet's repository: their names, the paths they may sign, how long their signatures hold, who signs.

Pure; what signs and writes is in `edge_fleet.signing.repository`, what changes the signers in
`edge_fleet.signing.key_changes`.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import Annotated

from msgspec import Meta
from securesystemslib.signer import Key
from tuf.api.metadata import DelegatedRole, Delegations, Targets

from edge_contracts.channel import family_target, manifest_target
from edge_contracts.codec import StrictRecord
from edge_contracts.delta import deltas_target
from edge_fleet.errors import FleetError
from edge_fleet.signing.keys import RELEASES

Days = Annotated[float, Meta(gt=0.0, le=3650.0)]

ROLLOUTS_PATHS = ["channels/*", "jobs/*"]


class Lifetimes(StrictRecord, frozen=True, kw_only=True):
    """Days from signing to expiry. Online roles live shortly, so that a frozen repository is noticed."""

    root: Days = 365.0
    targets: Days = 90.0
    releases: Days = 90.0
    rollouts: Days = 90.0
    snapshot: Days = 7.0
    timestamp: Days = 1.0

    def of(self, role: str) -> timedelta:
        """Return the lifetime of a role's metadata."""
        name = RELEASES if role.startswith(f"{RELEASES}-") else role
        return timedelta(days=getattr(self, name))


def releases_role(family: str) -> str:
    """Return the name of the role that signs the releases of a model family."""
    return f"{RELEASES}-{family}"


def releases_paths(family: str) -> list[str]:
    """Return the target paths a family's role may sign; patterns match segment by segment."""
    return [manifest_target(family, "*"), deltas_target(family, "*"), family_target(family)]


def delegated(targets: Targets) -> dict[str, DelegatedRole]:
    """Return the roles that targets delegates to, by name."""
    return {} if targets.delegations is None else dict(targets.delegations.roles or {})


def family_roles(targets: Targets) -> list[str]:
    """Return the names of the roles that sign releases."""
    return [name for name in delegated(targets) if name.startswith(f"{RELEASES}-")]


def delegate(targets: Targets, role: str, paths: list[str], keys: Sequence[Key], threshold: int = 1) -> None:
    """Let `threshold` of `keys` sign `paths` as `role`, and nobody else."""
    if targets.delegations is None:
        targets.delegations = Delegations({}, {})
    assert targets.delegations.roles is not None
    targets.delegations.roles[role] = DelegatedRole(role, [], threshold, True, paths)
    for key in keys:
        targets.add_key(key, role)


def family_signers(targets: Targets) -> tuple[list[Key], int] | None:
    """Return the keys and the threshold that every family has, for the next one; None while there is no family.

    Raises FleetError if families differ: whose a new one is, a person must say.
    """
    families = [delegated(targets)[name] for name in family_roles(targets)]
    if not families:
        return None
    if len({(frozenset(role.keyids), role.threshold) for role in families}) > 1:
        raise FleetError("the families have different signers", subject="family", hint="choose the signer with --key")
    assert targets.delegations is not None
    return [targets.delegations.keys[keyid] for keyid in families[0].keyids], families[0].threshold
