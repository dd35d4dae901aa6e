"""What a signed channel or family document means where it leaves fields out, and what is no channel."""

from __future__ import annotations

import json
from typing import Any

import pytest

from edge_contracts import limits
from edge_contracts.channel import (
    Channel,
    Family,
    Gates,
    Retry,
    RetryRule,
    channel_target,
    family_target,
    manifest_target,
    next_serial,
    parse_channel,
    parse_family,
)
from edge_contracts.errors import ContractError

CHANNEL = {"schema": 1, "channel": "prod", "model": "har", "serial": 1}
RELEASE = {"version": "1.1.0", "manifest_sha256": "c" * 64}


def channel(**fields: Any) -> Channel:
    return parse_channel(json.dumps(CHANNEL | fields).encode())


def test_a_default_is_part_of_what_was_signed() -> None:
    """Another default would change what documents mean that are signed already: it needs a new schema."""
    gates = Gates()
    assert (gates.soak_s, gates.max_crashes, gates.max_error_share) == (600.0, 0, 0.05)
    assert (gates.min_requests, gates.shadow_requests, gates.min_agreement) == (0, 100, 0.9)
    rule = RetryRule(reason="x")
    assert (rule.attempts, rule.wait_s) == (1, 3600.0)
    retry = Retry(serial=1)
    assert (retry.devices, retry.reasons) == ((), ())
    found = channel()
    assert (found.percentage, found.mode, found.paused, found.gates) == (100.0, "live", False, gates)
    assert (found.stable, found.candidate, found.rollout, found.window, found.deadline) == (None,) * 5
    assert (found.selectors, found.blocked, found.retry, found.retries) == ((), (), None, ())
    family = parse_family(b'{"schema": 1, "model": "har", "serial": 1}')
    assert (family.minimum_version, family.revoked) == ("0.0.0", ())
    assert Family(model="har", serial=1).schema == channel().schema == 1


@pytest.mark.parametrize(
    ("fields", "subject"),
    [
        ({"schema": 2}, "channel.schema"),
        ({"candidate": RELEASE}, "channel.rollout"),
        ({"deadline": "tomorrow"}, "channel.deadline"),
        ({"deadline": "2026-13-01T00:00:00Z"}, "channel.deadline"),
        ({"serial": 0}, "channel.serial"),
        ({"serial": limits.MAX_SERIAL + 1}, "channel.serial"),
        ({"percentage": 100.1}, "channel.percentage"),
        ({"gates": {"max_crashes": -1}}, "channel.gates.max_crashes"),
        ({"gates": {"soak_s": -1.0}}, "channel.gates.soak_s"),
    ],
)
def test_what_is_no_channel_names_its_field(fields: dict[str, Any], subject: str) -> None:
    with pytest.raises(ContractError) as refused:
        channel(**fields)
    assert subject in str(refused.value)


def test_what_is_a_channel() -> None:
    assert channel(serial=1, rollout="r1").candidate is None
    assert channel(serial=limits.MAX_SERIAL, percentage=0.0).percentage == 0.0
    assert channel(candidate=RELEASE, rollout="r1").candidate is not None
    assert channel(stable=RELEASE, deadline="2026-12-01T00:00:00Z").deadline == "2026-12-01T00:00:00Z"


def test_a_family_of_another_schema_is_refused() -> None:
    with pytest.raises(ContractError, match=r"family\.schema"):
        parse_family(b'{"schema": 2, "model": "har", "serial": 1}')


def test_after_the_largest_serial_comes_the_first() -> None:
    assert (next_serial(1), next_serial(limits.MAX_SERIAL - 1)) == (2, limits.MAX_SERIAL)
    assert next_serial(limits.MAX_SERIAL) == 1


def test_where_the_signed_documents_lie() -> None:
    assert channel_target("prod") == "channels/prod.json"
    assert family_target("har") == "models/har/family.json"
    assert manifest_target("har", "1.0.0") == "models/har/1.0.0/manifest.json"
