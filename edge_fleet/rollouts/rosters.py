"""Filling in rosters: which device of a group has which place. Pure; signing is in `edge_fleet.rollouts.rollout`.

Places follow the hash that orders devices in waves, so that a canary's turns come first. Who joins later gets the next
free place; nobody's place ever changes.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

from edge_contracts.channel import Availability
from edge_contracts.codec import encode
from edge_contracts.limits import MAX_ROSTER_BYTES
from edge_contracts.selection import Facts, bucket
from edge_contracts.turns import Roster, RosterGroup, place_of, shard_of
from edge_fleet.errors import RolloutError

SPARE = 0.1
"""Share of the turns that is kept free for devices that join later; at least one turn."""

SHARD_BYTES = 8 * 1024
"""About what one roster weighs: each device fetches one whenever its own has changed."""

PLACE_BYTES = 16


def shards_for(devices: int) -> int:
    """Return into how many rosters so many devices are divided."""
    return min(max(1, math.ceil(devices * PLACE_BYTES / SHARD_BYTES)), 1024)


def fill_in(
    channel: str, rollout: str, availability: Availability, devices: Iterable[Facts], known: Mapping[int, Roster]
) -> dict[int, Roster]:
    """Return every roster with a place for each device that is in a group, those in `known` where they were.

    A device without the tag is in no group and waits for nobody. Devices beyond the free turns get no place: they wait
    for the rollout's end. Raises RolloutError for a group that does not fit into one signed document.
    """
    groups = {name: group for roster in known.values() for name, group in roster.groups.items()}
    members: dict[str, dict[str, float]] = {}
    for facts in devices:
        group = facts.value(availability.group)
        if group is not None:
            members.setdefault(group, {})[place_of(channel, facts.device)] = bucket(rollout, facts.device)
    for name, places in members.items():
        groups[name] = _filled(groups.get(name), places, availability.at_most)
    shards: dict[int, dict[str, RosterGroup]] = {number: {} for number in range(availability.shards)}
    for name in sorted(groups):
        shards[shard_of(name, availability.shards)][name] = groups[name]
    rosters = {number: Roster(channel=channel, shard=number, groups=found) for number, found in shards.items()}
    for roster in rosters.values():
        if len(encode(roster)) > MAX_ROSTER_BYTES:
            largest = max(roster.groups, key=lambda name: len(roster.groups[name].places))
            count = len(roster.groups[largest].places)
            hint = "choose a tag with smaller groups"
            raise RolloutError(f"{count} devices are {largest!r}: too many", subject="availability.group", hint=hint)
    return rosters


def _filled(known: RosterGroup | None, places: Mapping[str, float], at_most: int) -> RosterGroup:
    taken = () if known is None else known.places
    new = sorted(places.keys() - set(taken), key=lambda place: (places[place], place))
    if known is None:
        turns = math.ceil(len(new) / at_most)
        return RosterGroup(turns=turns + max(1, math.ceil(turns * SPARE)), places=tuple(new))
    free = known.turns * at_most - len(taken)
    return RosterGroup(turns=known.turns, places=(*taken, *new[: max(0, free)]))
