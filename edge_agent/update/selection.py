"""What a device wants, from a channel and a family document and the facts about itself. Pure; nothing is fetched here.

A device puts itself into a rollout's wave by hashing, so raising the percentage only ever adds devices and a wave
costs one signed document whatever the size of the fleet.
"""

from __future__ import annotations

from collections.abc import Sequence

from msgspec import Struct

from edge_contracts.channel import Channel, ChannelRelease, Family, RetryRule
from edge_contracts.names import version_key
from edge_contracts.selection import Facts, in_wave


class Holdings(Struct, frozen=True, kw_only=True):
    """Manifests of the slot: `running` are served or on their way, `ready` are those of which every byte is here."""

    running: frozenset[str] = frozenset()
    ready: frozenset[str] = frozenset()


class Decision(Struct, frozen=True, kw_only=True):
    """What to do. `wish` is the release the device should run; `hold` says why a new start has to wait, `refused` why
    it may not happen at all; `withdraw` names the running manifests that must go at once, each with the reason."""

    wish: ChannelRelease | None = None
    hold: str | None = None
    refused: str | None = None
    withdraw: tuple[tuple[str, str], ...] = ()


def wanted(channel: Channel, facts: Facts) -> ChannelRelease | None:
    """Return the release this device should run by the channel, before any rule of the family."""
    candidate = channel.candidate
    if candidate is None or candidate.manifest_sha256 in channel.blocked or not in_wave(channel, facts):
        return channel.stable
    return candidate


def decide(channel: Channel, family: Family, facts: Facts, held: Holdings, now: str) -> Decision:
    """Return what to do about a slot; `now` is UTC time as in the documents.

    A release that is blocked or revoked is withdrawn from the device; one that is blocked, revoked or below the
    family's floor is not installed, whatever the channel says; a pause or a passed deadline stops new starts only.
    """
    withdraw = _withdrawal(channel, family, held.running)
    wish = wanted(channel, facts)
    if wish is None:
        return Decision(withdraw=withdraw)
    refused = _refusal(wish, channel, family)
    if refused is not None:
        return Decision(refused=refused, withdraw=withdraw)
    if wish.manifest_sha256 in held.ready:
        return Decision(wish=wish, withdraw=withdraw)
    if version_key(wish.version) < version_key(family.minimum_version):
        return Decision(refused="below-minimum", withdraw=withdraw)
    if channel.paused:
        return Decision(hold="paused", withdraw=withdraw)
    if wish == channel.candidate and channel.deadline is not None and now > channel.deadline:
        return Decision(hold="deadline", withdraw=withdraw)
    return Decision(wish=wish, withdraw=withdraw)


def retry_due(rules: Sequence[RetryRule], reason: str | None, tries: int, passed_s: float) -> bool:
    """Return whether a release that was given up for `reason`, `passed_s` seconds ago, after `tries` retries under this
    document, is to be tried once more."""
    rule = next((rule for rule in rules if rule.reason == reason), None)
    return rule is not None and tries < rule.attempts and passed_s >= rule.wait_s


def _refusal(wish: ChannelRelease, channel: Channel, family: Family) -> str | None:
    if wish.manifest_sha256 in family.revoked:
        return "revoked"
    return "blocked" if wish.manifest_sha256 in channel.blocked else None


def _withdrawal(channel: Channel, family: Family, running: frozenset[str]) -> tuple[tuple[str, str], ...]:
    revoked = running & set(family.revoked)
    aborted = (running & set(channel.blocked)) - revoked
    return tuple((sha, "revoked") for sha in sorted(revoked)) + tuple((sha, "aborted") for sha in sorted(aborted))
