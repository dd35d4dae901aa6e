"""What a device's certificate says about when to renew it and whether it still is good. Times in seconds since 1970.

The certificate itself is on the disk (`edge_agent.identity.files`) and asked for in `edge_agent.enrollment.client`.
"""

from __future__ import annotations

from typing import Literal

from edge_contracts.codec import Record, StrictRecord
from edge_contracts.names import Name

RENEW_AFTER = 2 / 3
"""Share of its life after which a certificate is renewed: a third is left for a device or a service that is away."""

SPREAD = 0.05
"""Share of its life over which the renewals of devices that enrolled together are spread."""

PAUSE = 0.1
"""Share of a certificate's life that passes between two renewals at least: to a clock that is ahead, each is due."""

RETRY_BASE_S, RETRY_CAP_S = 10.0, 6 * 3600.0
"""Waits after a renewal that did not work."""


Standing = Literal["none", "good", "due", "expired"]


class Enrolled(StrictRecord, frozen=True, kw_only=True):
    """A certificate this device has: for which name, under which serial (hexadecimal), good from `begin` to `end`; and
    the claim that it, or the first of its line, was given for."""

    device: Name
    tenant: Name
    serial: Name
    begin: float
    end: float
    claim: str = ""


class IdentityStatus(Record, frozen=True, kw_only=True):
    """The enrolled identity in `agent status`. `advice` says what to do about it, if there is anything."""

    standing: Standing
    device: str = ""
    serial: str = ""
    expires: str = ""
    advice: str = ""


def believed_time(clock: float, floor: float, enrolled: Enrolled | None) -> float:
    """Return the device's time: its clock, unless that is behind what is known to be past. A certificate is issued
    after it begins, so that its beginning is past, as is `floor`, the newest time in verified metadata."""
    return max(clock, floor, 0.0 if enrolled is None else enrolled.begin)


def renewal_time(enrolled: Enrolled, chance: float) -> float:
    """Return when to renew; `chance`, in [0, 1), is the device's place in the spread."""
    return enrolled.begin + (enrolled.end - enrolled.begin) * (RENEW_AFTER + SPREAD * chance)


def standing(enrolled: Enrolled | None, now: float, chance: float = 0.0) -> Standing:
    """Return how the certificate stands at the believed time `now`."""
    if enrolled is None:
        return "none"
    if now >= enrolled.end:
        return "expired"
    return "due" if now >= renewal_time(enrolled, chance) else "good"


ENROL_HINT = "create a claim with `edgewright fleet enroll` and run `edgewright agent enroll` here"
