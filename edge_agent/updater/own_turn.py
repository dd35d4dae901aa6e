"""The device's own turn, from the roster of its group. What a turn means is in `edge_contracts.turns`."""

from __future__ import annotations

import contextlib
from pathlib import Path

from edge_agent.storage.durable import StateError, write_durably
from edge_agent.updater.trusted_repository import TrustedRepository
from edge_contracts import limits
from edge_contracts.channel import Channel
from edge_contracts.selection import Facts
from edge_contracts.turns import DeviceTurn, parse_roster, roster_target, shard_of, turn_of


def own_turn(channel: Channel, facts: Facts, repository: TrustedRepository, folder: Path) -> DeviceTurn | None:
    """Return the device's turn on a channel; None if it has no place, or nobody takes turns. `folder` keeps the roster,
    which is fetched again only when another one is signed. Raises EdgewrightError."""
    rule = channel.availability
    group = None if rule is None else facts.value(rule.group)
    if rule is None or group is None:
        return None
    target = roster_target(channel.channel, shard_of(group, rule.shards))
    kept = folder / f"roster-{channel.channel}.json"
    known = None
    with contextlib.suppress(OSError):
        known = kept.read_bytes()
    data = repository.fetch(target, limits.MAX_ROSTER_BYTES, known)
    if data != known:
        with contextlib.suppress(StateError):
            write_durably(kept, data)
    return turn_of(rule, parse_roster(data), group, facts.device)
