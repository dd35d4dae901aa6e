"""Turns: at most so many devices of a group, of a site say, are at work on a release at once, decided by each alone.

A roster is signed once per rollout. In it each device of a group has a place for good; `at_most` places after one
another are one turn. Turns follow each other by the clock and come round: a device that was away in its turn, or did
not get done, takes the next one, and holds up nobody. A turn passes only while the maintenance window is open.
Pure; `edge_fleet.rollouts.rosters` fills rosters in, `edge_agent.supervisor.slots.slot` waits for the turn.
"""

from __future__ import annotations

import hashlib
from typing import Annotated

from msgspec import Meta

from edge_contracts import limits
from edge_contracts.channel import Availability, MaintenanceWindow
from edge_contracts.codec import Record, decode
from edge_contracts.errors import ContractError
from edge_contracts.names import Name, Text, parse_time

ROSTER_SCHEMA = 1
DAY_S = 86400.0
_PREFIX = "turns."

Place = Annotated[str, Meta(pattern=r"^[0-9a-f]{12}(?!\n)$")]


class RosterGroup(Record, frozen=True, kw_only=True):
    """One group: who has which place, and after how many turns the first comes round again. `turns` holds for the whole
    rollout: devices that join later get places that are still free, and nobody's turn moves."""

    turns: Annotated[int, Meta(ge=1, le=100_000)]
    places: tuple[Place, ...] = ()


class Roster(Record, frozen=True, kw_only=True):
    """The groups of one shard of a channel's devices, by the value of the channel's `availability.group`."""

    schema: int = ROSTER_SCHEMA
    channel: Name
    shard: Annotated[int, Meta(ge=0)]
    groups: dict[Text, RosterGroup] = {}


class DeviceTurn(Record, frozen=True, kw_only=True):
    """When a device may be at work: number `index` of `of` turns of `turn_s` seconds each, the first of which begins at
    `begins` (seconds since the epoch). The clocks of two devices may differ by `margin_s`."""

    begins: float
    turn_s: float
    margin_s: float
    index: Annotated[int, Meta(ge=0)]
    of: Annotated[int, Meta(ge=1)]


def parse_roster(data: bytes) -> Roster:
    """Parse a roster. Raises ContractError naming the field."""
    roster = decode(data, Roster, limit=limits.MAX_ROSTER_BYTES, what="roster")
    if roster.schema != ROSTER_SCHEMA:
        raise ContractError(f"schema {roster.schema} is not known here", subject="roster.schema")
    return roster


def roster_target(channel: str, shard: int) -> str:
    """Return the TUF target path of a roster. No channel may be named like that (`is_roster`)."""
    return f"channels/{_PREFIX}{hashlib.sha256(channel.encode()).hexdigest()[:12]}.{shard}.json"


def is_roster(name: str) -> bool:
    """Return whether a name below `channels/` is that of a roster, which no channel may have."""
    return name.startswith(_PREFIX)


def shard_of(group: str, shards: int) -> int:
    """Return which roster names a group."""
    return int.from_bytes(hashlib.sha256(group.encode()).digest()[:8], "big") % shards


def place_of(channel: str, device: str) -> str:
    """Return how a roster names a device: the first 6 bytes of SHA-256("channel/device") in hexadecimal."""
    return hashlib.sha256(f"{channel}/{device}".encode()).hexdigest()[:12]


def turn_of(availability: Availability, roster: Roster, group: str, device: str) -> DeviceTurn | None:
    """Return a device's turn; None if the roster has no place for it."""
    found = roster.groups.get(group)
    name = place_of(roster.channel, device)
    if found is None or name not in found.places:
        return None
    index = found.places.index(name) // availability.at_most
    if index >= found.turns:
        return None
    return DeviceTurn(
        begins=parse_time(availability.begins, what="availability.begins").timestamp(),
        turn_s=availability.turn_s,
        margin_s=availability.margin_s,
        index=index,
        of=found.turns,
    )


def may_begin(turn: DeviceTurn | None, window: MaintenanceWindow | None, now: float, needed_s: float) -> bool:
    """Return whether work of `needed_s` seconds that begins `now` (seconds since the epoch) ends within the device's
    own turn. Without a turn it always may."""
    if turn is None:
        return True
    number, passed_s = _position(turn, window, now)
    own = number >= 0 and number % turn.of == turn.index
    return own and turn.margin_s <= passed_s <= turn.turn_s - turn.margin_s - needed_s


def is_over(turn: DeviceTurn | None, window: MaintenanceWindow | None, now: float) -> bool:
    """Return whether the device's turn has passed, so that it may not be at work `now`."""
    if turn is None:
        return False
    number, passed_s = _position(turn, window, now)
    return number < 0 or number % turn.of != turn.index or passed_s > turn.turn_s - turn.margin_s


def opens_in_s(turn: DeviceTurn, window: MaintenanceWindow | None, now: float) -> float:
    """Return how many seconds of open window pass before the device's next turn begins; 0 while it is on."""
    number, passed_s = _position(turn, window, now)
    if number < 0:
        return -number * turn.turn_s - passed_s + turn.index * turn.turn_s
    ahead = (turn.index - number) % turn.of
    return 0.0 if ahead == 0 else ahead * turn.turn_s - passed_s


def _position(turn: DeviceTurn, window: MaintenanceWindow | None, now: float) -> tuple[int, float]:
    """Return the number of the turn that is on, negative before the first, and how many seconds of it have passed."""
    number, passed_s = divmod(open_seconds(window, now) - open_seconds(window, turn.begins), turn.turn_s)
    return int(number), passed_s


def open_seconds(window: MaintenanceWindow | None, moment: float) -> float:
    """Return for how many seconds the window has been open since the epoch until `moment`."""
    if window is None or window.start == window.end:
        return moment
    start, end = _seconds(window.start), _seconds(window.end)
    days, into = divmod(moment, DAY_S)
    if start < end:
        return days * (end - start) + min(max(into - start, 0.0), end - start)
    return days * (DAY_S - start + end) + min(into, end) + max(into - start, 0.0)


def _seconds(clock: str) -> float:
    return int(clock[:2]) * 3600.0 + int(clock[3:]) * 60.0
