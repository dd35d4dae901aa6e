"""A device learns its turn from the signed roster of its group, and waits for a place if it has none."""

from __future__ import annotations

from pathlib import Path

import pytest
from msgspec.structs import replace
from support.sites.update_site import CHANNEL, MODEL, UpdateSite

from edge_agent.ipc.updater import FromUpdater, Hold, Offer
from edge_agent.ports import ObjectKind
from edge_agent.updater.__main__ import Updater
from edge_contracts.channel import Availability, Gates
from edge_contracts.selection import Facts
from edge_contracts.turns import DeviceTurn
from edge_fleet.rollouts.channel_state import Plan, pause, resume
from edge_fleet.rollouts.rollout import change_rollout, start_rollout

RULE = Availability(group="tag.site", at_most=1, turn_s=600.0, begins="2026-12-01T00:00:00Z")


def facts(*devices: str) -> list[Facts]:
    return [Facts(device=name, board="b", architecture="a", tags={"site": "north"}) for name in devices]


@pytest.fixture
def site(tmp_path: Path) -> UpdateSite:
    site = UpdateSite(tmp_path)
    site.release("1.0.0")
    return site


def start(site: UpdateSite, *devices: str) -> None:
    plan = Plan(channel=CHANNEL, model=MODEL, version="1.0.0", gates=Gates(soak_s=60.0), availability=RULE)
    start_rollout(site.fleet, plan, site.now, devices=facts(*devices))


def look(site: UpdateSite, tags: dict[str, str], carrier: Counting | None = None) -> list[FromUpdater]:
    said: list[FromUpdater] = []
    Updater(replace(site.plan(), tags=tags), carrier or site.carrier, said.append).run()
    return said


def offered(said: list[FromUpdater]) -> Offer:
    return next(one for one in said if isinstance(one, Offer))


class Counting:
    """Counts what is asked for."""

    def __init__(self, site: UpdateSite) -> None:
        self._inner = site.carrier
        self.rosters = 0

    def read(self, kind: ObjectKind, name: str, offset: int, length: int) -> tuple[bytes, int]:
        self.rosters += "turns." in name and kind == "target"
        return self._inner.read(kind, name, offset, length)


def test_the_offer_says_which_turn_is_the_devices_own(site: UpdateSite) -> None:
    start(site, "dev-1", "dev-2", "dev-3")
    turn = offered(look(site, {"site": "north"})).candidate.turn
    assert isinstance(turn, DeviceTurn)
    assert turn.of == 4
    assert turn.index in (0, 1, 2)


def test_a_device_without_a_place_waits_and_gets_one_with_the_next_document(site: UpdateSite) -> None:
    start(site, "dev-2", "dev-3")
    said = look(site, {"site": "north"})
    assert [one.reason for one in said if isinstance(one, Hold)] == ["no-place"]
    change_rollout(site.fleet, CHANNEL, pause, site.now)
    change_rollout(site.fleet, CHANNEL, resume, site.now, devices=facts("dev-1", "dev-2", "dev-3"))
    turn = offered(look(site, {"site": "north"})).candidate.turn
    assert turn is not None
    assert turn.index == 2


def test_a_device_in_no_group_waits_for_nobody(site: UpdateSite) -> None:
    start(site, "dev-2")
    assert offered(look(site, {})).candidate.turn is None


def test_a_roster_is_fetched_once(site: UpdateSite) -> None:
    start(site, "dev-1")
    carrier = Counting(site)
    look(site, {"site": "north"}, carrier)
    fetched = carrier.rosters
    look(site, {"site": "north"}, carrier)
    assert carrier.rosters == fetched > 0
