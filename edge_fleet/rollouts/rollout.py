"""Acting on a rollout: read the channel's document, decide the next one, sign it as `rollouts`, keep its history.

`start_rollout` and `change_rollout` do all of that, for the command line and for whoever calls them from Python. One
document is signed for each change, whatever the size of the fleet; devices select themselves from it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime

from edge_contracts.channel import Channel, ChannelRelease, channel_target, next_serial, parse_channel
from edge_contracts.codec import convert, encode
from edge_contracts.names import Name, version_key
from edge_contracts.selection import Facts
from edge_contracts.turns import Roster, is_roster, parse_roster, roster_target
from edge_fleet.database.telemetry import TelemetryStore
from edge_fleet.errors import RolloutError
from edge_fleet.releases.release import manifest_hash, read_family
from edge_fleet.rollouts.channel_state import ALLOWED, Plan, Verb, check_proved, rollout_name, start
from edge_fleet.rollouts.rosters import fill_in
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


def start_rollout(
    fleet: FleetWorkspace, plan: Plan, now: datetime, *, db: str | None = None, devices: Iterable[Facts] = ()
) -> Channel:
    """Check the plan's release, sign the start of its rollout and add it to the history in the database at the URL `db`
    (default: the fleet's own). Where devices take turns, `devices` get a place each. Raises RolloutError or FleetError
    if it cannot start, KeyMissingError."""
    convert(plan.channel, Name, what="channel")

    def decide(repository: FleetRepository) -> Channel:
        release = find_release(repository, plan.model, plan.version)
        return start(read_channel(repository, plan.channel), plan, release)

    return _act(fleet, "start", decide, now, db, devices)


def promote(
    fleet: FleetWorkspace,
    release: tuple[Name, str],
    channels: tuple[Name, Name],
    now: datetime,
    *,
    percentage: float = 100.0,
    db: str | None = None,
) -> Channel:
    """Offer a model's version that is stable on the first channel on the second: the same bytes, by their hash.

    The second channel's gates, window and retry rules hold, or the first one's if nothing was rolled out there yet.
    Raises as `start_rollout` does; RolloutError also if the version is not what is stable on the first channel."""
    (model, version), (source, target) = release, channels
    convert(target, Name, what="channel")

    def decide(repository: FleetRepository) -> Channel:
        proved, before = read_channel(repository, source), read_channel(repository, target)
        found = find_release(repository, model, version)
        check_proved(proved, source, found)
        assert proved is not None
        rules = before or proved
        plan = Plan(
            channel=target,
            model=model,
            version=version,
            percentage=percentage,
            gates=rules.gates,
            window=rules.window,
            retries=rules.retries,
        )
        return start(before, plan, found)

    return _act(fleet, "start", decide, now, db)


def change_rollout(
    fleet: FleetWorkspace,
    channel: str,
    change: Callable[[Channel], Channel],
    now: datetime,
    *,
    db: str | None = None,
    devices: Iterable[Facts] = (),
) -> Channel:
    """Sign the next document of a channel, decided by one of the verbs of `channel_state`, and add it to the history.

    `change` is a verb, or a partial of one. Where devices take turns, those of `devices` that have no place get one.
    Raises as `start_rollout` does."""
    name = getattr(change, "func", change).__name__
    verb = next(verb for verb in ALLOWED if verb == name)

    def decide(repository: FleetRepository) -> Channel:
        before = read_channel(repository, channel)
        if before is None:
            known = ", ".join(channels(repository)) or "none"
            raise RolloutError(f"no such channel (channels: {known})", subject=channel)
        return change(before)

    return _act(fleet, verb, decide, now, db, devices)


def read_channel(repository: FleetRepository, channel: str) -> Channel | None:
    """Return a channel's current document, or None if nothing was ever rolled out there."""
    data = repository.read_target(ROLLOUTS, channel_target(channel))
    return None if data is None else parse_channel(data)


def next_rollout_name(before: Channel | None, version: str) -> Name:
    """Return what the next rollout of a channel is called if it is given no name."""
    return rollout_name(1 if before is None else next_serial(before.serial), version)


def channels(repository: FleetRepository) -> list[str]:
    """Return the names of the channels that have a document."""
    parts = [path.split("/") for path in repository.targets(ROLLOUTS).targets]
    return sorted(name.removesuffix(".json") for folder, name in parts if folder == "channels" and not is_roster(name))


def read_rosters(repository: FleetRepository, channel: Channel) -> dict[int, Roster]:
    """Return the rosters of a channel whose devices take turns, by shard."""
    shards = 0 if channel.availability is None else channel.availability.shards
    found = {
        number: repository.read_target(ROLLOUTS, roster_target(channel.channel, number)) for number in range(shards)
    }
    return {number: parse_roster(data) for number, data in found.items() if data is not None}


def _act(
    fleet: FleetWorkspace,
    verb: Verb,
    decide: Callable[[FleetRepository], Channel],
    now: datetime,
    db: str | None,
    devices: Iterable[Facts] = (),
) -> Channel:
    """Sign what is decided and record it. Without a database for the history nothing is signed."""
    with contextlib.closing(TelemetryStore(db or fleet.store_url)) as store:
        with fleet.change(now, [ROLLOUTS]) as repository:
            channel = decide(repository)
            _sign_rosters(repository, channel, {} if verb == "start" else read_rosters(repository, channel), devices)
            channel = _sign(repository, channel)
        store.record_rollout(verb, channel, now.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ"))
    return channel


def _sign_rosters(
    repository: FleetRepository, channel: Channel, known: Mapping[int, Roster], devices: Iterable[Facts]
) -> None:
    """Sign the rosters in which a device has got a place."""
    rule = channel.availability
    if rule is None or channel.rollout is None:
        return
    for number, roster in fill_in(channel.channel, channel.rollout, rule, devices, known).items():
        if roster != known.get(number):
            repository.put_target(ROLLOUTS, roster_target(channel.channel, number), encode(roster))


def _sign(repository: FleetRepository, channel: Channel) -> Channel:
    data = encode(channel)
    parse_channel(data)
    repository.put_target(ROLLOUTS, channel_target(channel.channel), data)
    return channel
