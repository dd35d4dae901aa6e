"""Signing again before metadata expires, with whatever keys are at hand."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta

from edge_contracts.codec import Record
from edge_fleet.signing.keys import ROLLOUTS, SNAPSHOT, TIMESTAMP
from edge_fleet.signing.workspace import FleetWorkspace

ONLINE_ROLES = (ROLLOUTS, SNAPSHOT, TIMESTAMP)
"""What a controller signs again by itself. The others change only by a person's hand."""


class Refreshed(Record, frozen=True, kw_only=True):
    """Which roles were signed again, and which are due but have no key here."""

    signed: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()


def is_due(expires: datetime, lifetime: timedelta, now: datetime) -> bool:
    """Return whether to sign again: from half of the lifetime on, so that a day's outage costs nothing."""
    return now >= expires - lifetime / 2


def refresh(fleet: FleetWorkspace, now: datetime, only: Sequence[str] | None = None) -> Refreshed:
    """Sign every role again that is due (of `only`, or of all) and whose keys are here."""
    repository = fleet.read(now)
    due = [role for role in (repository.roles() if only is None else only) if _needs(fleet, role, now)]
    here = [role for role in due if _signable(fleet, role, now)]
    if here:
        with fleet.change(now, here) as changing:
            changing.refresh(here)
    return Refreshed(signed=tuple(here), missing=tuple(role for role in due if role not in here))


def _needs(fleet: FleetWorkspace, role: str, now: datetime) -> bool:
    """Whether the role was published and is due, or was signed by those who may not sign it any more."""
    repository = fleet.read(now)
    signed = repository.open(role).signed
    overdue = is_due(signed.expires, fleet.settings.expiry_days.of(role), now) or not repository.is_signed(role)
    return bool(signed.version) and overdue


def _signable(fleet: FleetWorkspace, role: str, now: datetime) -> bool:
    """Whether the role's own keys and those of the roles above the timestamp chain are here."""
    repository = fleet.read(now)
    chain = {role, TIMESTAMP} if role in (TIMESTAMP, "root") else {role, SNAPSHOT, TIMESTAMP}
    return all(len(names) >= threshold for names, threshold in map(repository.keys_at_hand, chain))
