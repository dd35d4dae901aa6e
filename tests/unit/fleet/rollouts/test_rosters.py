"""Who has which place: for good, in the order of the waves, in documents that stay small."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.makers import bundles

from edge_contracts.channel import Availability, Channel, Gates
from edge_contracts.codec import encode
from edge_contracts.selection import Facts, bucket
from edge_contracts.turns import place_of, turn_of
from edge_fleet.errors import RolloutError
from edge_fleet.releases.release import release
from edge_fleet.rollouts.channel_state import Plan, finish, pause, resume
from edge_fleet.rollouts.rollout import change_rollout, channels, read_channel, read_rosters, start_rollout
from edge_fleet.rollouts.rosters import SHARD_BYTES, fill_in, shards_for
from edge_fleet.signing.workspace import FleetWorkspace, NewFleet, found

NOW = datetime(2026, 12, 1, tzinfo=UTC)
RULE = Availability(group="tag.site", at_most=2, turn_s=1800.0, begins="2026-12-01T00:00:00Z", shards=4)


def devices(count: int, sites: int = 3, first: int = 0) -> list[Facts]:
    return [
        Facts(device=f"d{n}", board="b", architecture="a", tags={"site": f"s{n % sites}"})
        for n in range(first, first + count)
    ]


@given(st.integers(1, 40), st.integers(0, 40), st.integers(1, 5))
def test_who_joins_later_moves_nobody(count: int, later: int, at_most: int) -> None:
    rule = Availability(group="tag.site", at_most=at_most, turn_s=1800.0, begins=RULE.begins, shards=2)
    before = fill_in("c", "r1", rule, devices(count), {})
    after = fill_in("c", "r1", rule, devices(count + later), before)
    for number, roster in before.items():
        for name, group in roster.groups.items():
            grown = after[number].groups[name]
            assert grown.turns == group.turns
            assert grown.places[: len(group.places)] == group.places
            assert len(grown.places) <= grown.turns * at_most


def test_places_follow_the_order_of_the_waves() -> None:
    facts = devices(9, sites=1)
    (group,) = (group for roster in fill_in("c", "r1", RULE, facts, {}).values() for group in roster.groups.values())
    order = sorted(facts, key=lambda one: bucket("r1", one.device))
    assert group.places == tuple(place_of("c", one.device) for one in order)


def test_at_most_as_many_have_one_turn() -> None:
    rosters = fill_in("c", "r1", RULE, devices(31, sites=1), {})
    (roster,) = (roster for roster in rosters.values() if roster.groups)
    turns = [turn_of(RULE, roster, "s0", one.device) for one in devices(31, sites=1)]
    indices = [turn.index for turn in turns if turn is not None]
    assert len(indices) == 31
    assert max(indices.count(index) for index in set(indices)) == 2
    assert max(indices) < 16


def test_a_device_without_the_tag_is_in_no_roster() -> None:
    facts = [Facts(device="loner", board="b", architecture="a")]
    assert not any(roster.groups for roster in fill_in("c", "r1", RULE, facts, {}).values())


def test_ten_thousand_devices_fit_into_a_few_small_documents() -> None:
    shards = shards_for(10_000)
    rule = Availability(group="tag.site", at_most=2, turn_s=1800.0, begins=RULE.begins, shards=shards)
    sizes = [len(encode(roster)) for roster in fill_in("c", "r1", rule, devices(10_000, sites=500), {}).values()]
    assert shards == 20
    assert max(sizes) < 3 * SHARD_BYTES


def test_a_site_too_large_for_one_document_is_refused() -> None:
    with pytest.raises(RolloutError, match="20000 devices are 's0': too many"):
        fill_in("c", "r1", RULE, devices(20_000, sites=1), {})


def test_a_rollout_signs_a_roster_for_each_shard_once_and_one_document_for_each_change(tmp_path: Path) -> None:
    found(tmp_path / "fleet", NewFleet(families=("linear",)), NOW)
    fleet = FleetWorkspace(tmp_path / "fleet")
    bundles.make_bundle(tmp_path / "bundle")
    release(fleet, tmp_path / "bundle", NOW)
    plan = Plan(channel="test", model="linear", version="1.0.0", gates=Gates(soak_s=60.0), availability=RULE)
    channel = start_rollout(fleet, plan, NOW, devices=devices(12))
    assert channel.schema == 2
    assert _places(fleet, channel) == 12
    assert channels(fleet.read(NOW)) == ["test"]
    assert _signed_by(fleet, lambda: change_rollout(fleet, "test", pause, NOW, devices=devices(12))) == 1
    grown = change_rollout(fleet, "test", resume, NOW, devices=devices(13))
    assert _places(fleet, grown) == 13
    done = change_rollout(fleet, "test", finish, NOW)
    assert done.availability == RULE
    assert read_channel(fleet.read(NOW), "test") == done


def _places(fleet: FleetWorkspace, channel: Channel) -> int:
    rosters = read_rosters(fleet.read(NOW), channel).values()
    return sum(len(group.places) for roster in rosters for group in roster.groups.values())


def _signed_by(fleet: FleetWorkspace, act: object) -> int:
    """Return how many targets of the repository a change adds."""
    before = set((fleet.repository / "targets").rglob("*.json"))
    act()  # type: ignore[operator]
    return len(set((fleet.repository / "targets").rglob("*.json")) - before)
