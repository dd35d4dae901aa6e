"""The two signed documents of a rollout: the channel (who runs what now) and the family (what may run at all).

A channel is signed by the `rollouts` role and can only choose among releases; a family document is signed by the
releases role of its model and sets the floor below which no channel may go. Devices select themselves from the
channel document (`edge_agent.update.selection`), so a wave costs one document whatever the size of the fleet.
"""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta

from edge_contracts import limits
from edge_contracts.codec import Record, decode
from edge_contracts.errors import ContractError
from edge_contracts.names import Name, Sha256, Text, UtcTime, Version, parse_time
from edge_contracts.selector import Fact, Selector, check_selectors

Serial = Annotated[int, Meta(ge=1, le=limits.MAX_SERIAL)]

CHANNEL_SCHEMA = 1
TURNS_SCHEMA = 2
"""Schema of a channel whose devices take turns: agents that know nothing of turns refuse it."""

FAMILY_SCHEMA = 1


class ChannelRelease(Record, frozen=True, kw_only=True):
    """A release as a channel names it: the version and the SHA-256 of its manifest, which the device checks against
    the release's own signed target."""

    version: Version
    manifest_sha256: Sha256


class Gates(Record, frozen=True, kw_only=True):
    """What the device itself checks before a candidate is committed. Times in seconds."""

    soak_s: Annotated[float, Meta(ge=0.0)] = 600.0
    max_crashes: Annotated[int, Meta(ge=0)] = 0
    max_error_share: Annotated[float, Meta(ge=0.0, le=1.0)] = 0.05
    min_requests: Annotated[int, Meta(ge=0)] = 0
    shadow_requests: Annotated[int, Meta(ge=0)] = 100
    min_agreement: Annotated[float, Meta(ge=0.0, le=1.0)] = 0.9


class MaintenanceWindow(Record, frozen=True, kw_only=True):
    """A maintenance window in the device's UTC time; `start` and `end` as HH:MM, across midnight when end < start."""

    start: Annotated[str, Meta(pattern=r"^([01][0-9]|2[0-3]):[0-5][0-9](?!\n)$")]
    end: Annotated[str, Meta(pattern=r"^([01][0-9]|2[0-3]):[0-5][0-9](?!\n)$")]


class Retry(Record, frozen=True, kw_only=True):
    """Who of those that rejected or left a release is to try it again: `devices` by name, those that gave one of
    `reasons`; empty means any. It holds for the document of `serial` only."""

    serial: Serial
    devices: Annotated[tuple[Name, ...], Meta(max_length=256)] = ()
    reasons: Annotated[tuple[Text, ...], Meta(max_length=32)] = ()


class RetryRule(Record, frozen=True, kw_only=True):
    """Devices that gave a release up for this reason try it again by themselves: `wait_s` seconds after each time, and
    at most `attempts` times under one document."""

    reason: Text
    attempts: Annotated[int, Meta(ge=1, le=16)] = 1
    wait_s: Annotated[float, Meta(ge=60.0, le=30 * 86400.0)] = 3600.0


class Strata(Record, frozen=True, kw_only=True):
    """A wave that reaches each stratum by a percentage of its own, so that few devices stand for all: strata are the
    values of `facts`, joined by `|` (`edge_contracts.selection.stratum`)."""

    facts: Annotated[tuple[Fact, ...], Meta(min_length=1, max_length=3)]
    percentages: Annotated[dict[Text, Annotated[float, Meta(ge=0.0, le=100.0)]], Meta(max_length=512)] = {}


class Availability(Record, frozen=True, kw_only=True):
    """At most `at_most` devices that share the fact `group` (`tag.site`) are at work on a release at once: each in its
    turn of `turn_s` seconds (`edge_contracts.turns`). Turns count from `begins`; clocks of devices may differ by
    `margin_s`. Who has which turn is in the channel's rosters, `shards` documents."""

    group: Annotated[str, Meta(pattern=r"^(board|architecture|tag\.[A-Za-z0-9_.-]{1,64})(?!\n)$")]
    at_most: Annotated[int, Meta(ge=1, le=10_000)]
    turn_s: Annotated[float, Meta(gt=0.0, le=30 * 86400.0)]
    margin_s: Annotated[float, Meta(ge=0.0, le=86400.0)] = 60.0
    begins: UtcTime
    shards: Annotated[int, Meta(ge=1, le=1024)] = 1


class Channel(Record, frozen=True, kw_only=True):
    """What the devices subscribed to a channel run. `serial` is another one with every signed change. It says which
    document this is, not which is newer: that, the signed metadata's versions say.

    A device runs `candidate` if it matches every selector and its hash of (`rollout`, device) falls below
    `percentage`; otherwise `stable`. Without `stable`, devices outside the wave keep what they have. `paused` stops
    new starts and leaves running candidates alone. `blocked` lists manifests that were aborted: a device that runs
    one goes back. Devices that rejected or left a release try it again with the next document, unless that one has a
    `retry` for others; under the same document they do so by the rule of `retries` for their reason, if there is one.
    Devices of a stratum that `strata` names are in the wave below its percentage instead. With `availability` devices
    of a group take turns; it stays when the rollout is over, for those that were away.
    """

    schema: int = CHANNEL_SCHEMA
    channel: Name
    model: Name
    serial: Serial
    stable: ChannelRelease | None = None
    candidate: ChannelRelease | None = None
    rollout: Name | None = None
    percentage: Annotated[float, Meta(ge=0.0, le=100.0)] = 100.0
    selectors: Annotated[tuple[Selector, ...], Meta(max_length=limits.MAX_TAGS)] = ()
    mode: Literal["shadow", "live"] = "live"
    paused: bool = False
    gates: Gates = Gates()
    window: MaintenanceWindow | None = None
    deadline: UtcTime | None = None
    blocked: Annotated[tuple[Sha256, ...], Meta(max_length=64)] = ()
    retry: Retry | None = None
    retries: Annotated[tuple[RetryRule, ...], Meta(max_length=32)] = ()
    availability: Availability | None = None
    strata: Strata | None = None


class Family(Record, frozen=True, kw_only=True):
    """What holds for every release of a model: the oldest version any device may install, and revoked manifests."""

    schema: int = FAMILY_SCHEMA
    model: Name
    serial: Serial
    minimum_version: Version = "0.0.0"
    revoked: Annotated[tuple[Sha256, ...], Meta(max_length=512)] = ()


def parse_channel(data: bytes) -> Channel:
    """Parse a channel document. Raises ContractError naming the field."""
    channel = decode(data, Channel, limit=limits.MAX_DOCUMENT_BYTES, what="channel")
    if channel.schema != channel_schema(channel.availability):
        raise ContractError(f"schema {channel.schema} is not known here", subject="channel.schema")
    if channel.candidate is not None and channel.rollout is None:
        raise ContractError("a candidate needs the name of its rollout", subject="channel.rollout")
    if channel.deadline is not None:
        parse_time(channel.deadline, what="channel.deadline")
    check_selectors(channel.selectors, what="channel.selectors")
    if channel.availability is not None:
        _check_turns(channel.availability, channel.gates)
    return channel


def channel_schema(availability: Availability | None) -> int:
    """Return the schema number of a channel with, or without, turns."""
    return CHANNEL_SCHEMA if availability is None else TURNS_SCHEMA


def _check_turns(availability: Availability, gates: Gates) -> None:
    parse_time(availability.begins, what="channel.availability.begins")
    room = availability.turn_s - 2 * availability.margin_s - gates.soak_s
    if room <= 0:
        text = f"{availability.turn_s:g} s hold no soak of {gates.soak_s:g} s between two margins"
        raise ContractError(f"{text} of {availability.margin_s:g} s", subject="channel.availability.turn_s")


def parse_family(data: bytes) -> Family:
    """Parse a family document. Raises ContractError naming the field."""
    family = decode(data, Family, limit=limits.MAX_DOCUMENT_BYTES, what="family")
    if family.schema != FAMILY_SCHEMA:
        raise ContractError(f"schema {family.schema} is not known here", subject="family.schema")
    return family


def next_serial(serial: int) -> int:
    """Return the serial of the document that follows. After the largest comes 1, so no serial is the last."""
    return serial + 1 if serial < limits.MAX_SERIAL else 1


def channel_target(channel: str) -> str:
    """Return the TUF target path of a channel document."""
    return f"channels/{channel}.json"


def family_target(model: str) -> str:
    """Return the TUF target path of a family document."""
    return f"models/{model}/family.json"


def manifest_target(model: str, version: str) -> str:
    """Return the TUF target path of a release's manifest."""
    return f"models/{model}/{version}/manifest.json"
