"""Acting on a rollout: read the channel's document, decide the next one, sign it as `rollouts`, keep its history.

One document is signed for each change, whatever the size of the fleet; devices select themselves from it.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime

from edge_contracts.channel import Channel, ChannelRelease, channel_target, parse_channel
from edge_contracts.codec import convert, encode
from edge_contracts.names import Name, version_key
from edge_fleet.errors import RolloutError
from edge_fleet.releases.release import manifest_hash, read_family
from edge_fleet.rollouts.channel_state import Plan, start
from edge_fleet.signing.keys import ROLLOUTS
from edge_fleet.signing.repository import FleetRepository
from edge_fleet.signing.workspace import FleetWorkspace


def find_release(repository: FleetRepository, model: str, version: str) -> ChannelRelease:
    """Return a release that may be rolled out. Raises FleetError if there is none, RolloutError if it is forbidden."""
    digest = manifest_hash(repository, model, version)
    family = read_family(repository, model)
    if version_key(version) < version_key(family.minimum_version):
        raise RolloutError(f"below the family's minimum version {family.minimum_version}", subject=f"{model} {version}")
    if digest in family.revoked:
        raise RolloutError("this release is revoked", subject=f"{model} {version}")
    return ChannelRelease(version=version, manifest_sha256=digest)


def start_rollout(fleet: FleetWorkspace, plan: Plan, now: datetime) -> Channel:
    """Sign the start of a rollout. Raises RolloutError or FleetError if it cannot start, KeyMissingError."""
    convert(plan.channel, Name, what="channel")
    with fleet.change(now, [ROLLOUTS]) as repository:
        if find_release(repository, plan.model, plan.release.version) != plan.release:
            raise RolloutError("the release has another manifest", subject=f"{plan.model} {plan.release.version}")
        return _sign(repository, start(read_channel(repository, plan.channel), plan))


def change_rollout(fleet: FleetWorkspace, channel: str, change: Callable[[Channel], Channel], now: datetime) -> Channel:
    """Sign the next document of a channel, decided by one of the verbs of `channel_changes`."""
    with fleet.change(now, [ROLLOUTS]) as repository:
        before = read_channel(repository, channel)
        if before is None:
            known = ", ".join(channels(repository)) or "none"
            raise RolloutError(f"no such channel (channels: {known})", subject=channel)
        return _sign(repository, change(before))


def read_channel(repository: FleetRepository, channel: str) -> Channel | None:
    """Return a channel's current document, or None if nothing was ever rolled out there."""
    data = repository.read_target(ROLLOUTS, channel_target(channel))
    return None if data is None else parse_channel(data)


def channels(repository: FleetRepository) -> list[str]:
    """Return the names of the channels that have a document."""
    parts = [path.split("/") for path in repository.targets(ROLLOUTS).targets]
    return sorted(name.removesuffix(".json") for folder, name in parts if folder == "channels")


def _sign(repository: FleetRepository, channel: Channel) -> Channel:
    data = encode(channel)
    parse_channel(data)
    repository.put_target(ROLLOUTS, channel_target(channel.channel), data)
    return channel
