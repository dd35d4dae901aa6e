"""A wave that each kind of device has its share of, widened without moving anybody out, decided by devices alone."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from edge_contracts.channel import Channel, ChannelRelease, MaintenanceWindow, Strata
from edge_contracts.selection import in_wave
from edge_fleet.database.rollouts import SlotChange
from edge_fleet.errors import RolloutError
from edge_fleet.rollouts.channel_state import Plan, start
from edge_fleet.rollouts.plan import RolloutPlan, WaveStep
from edge_fleet.rollouts.waves import facts_of, members, percentage_for, strata_for

NEW = ChannelRelease(version="1.1.0", manifest_sha256="b" * 64)


def roster(**boards: int) -> list[SlotChange]:
    return [_device(board, number) for board, count in boards.items() for number in range(count)]


def _device(board: str, number: int) -> SlotChange:
    return SlotChange(
        id=1, time="2026-12-01T00:00:00Z", device=f"{board}-{number}", slot="main", channel="c", online=True,
        board=board, architecture="a", tags={"site": f"s{number % 2}"}, facts={}, state="idle", reason=None,
        rollout=None, manifest=None, serving=None, compared=0,
    )  # fmt: skip


def wave(step: WaveStep, fleet: list[SlotChange], before: Strata | None = None) -> tuple[set[str], Strata | None]:
    strata = strata_for(step, fleet, (), "r1", before)
    percentage = percentage_for(step, fleet, (), "r1")
    return {one.device for one in members(fleet, (), "r1", percentage, strata)}, strata


def test_a_small_canary_holds_each_board_that_random_ones_would_miss() -> None:
    fleet = roster(pi4=95, pi5=4, jetson=1)
    taken, _ = wave(WaveStep(count=5, strata=("board",)), fleet)
    boards = Counter(name.partition("-")[0] for name in taken)
    assert boards == {"pi4": 3, "pi5": 1, "jetson": 1}
    without, _ = wave(WaveStep(count=5), fleet)
    assert len(without) == 5
    assert Counter(name.partition("-")[0] for name in without) != boards


def test_a_percentage_is_each_stratum_s_own() -> None:
    taken, _ = wave(WaveStep(percent=10.0, strata=("board", "tag.site")), roster(pi4=60, pi5=40))
    assert Counter((name.partition("-")[0], int(name.partition("-")[2]) % 2) for name in taken) == {
        ("pi4", 0): 3, ("pi4", 1): 3, ("pi5", 0): 2, ("pi5", 1): 2,
    }  # fmt: skip


@given(
    st.dictionaries(st.sampled_from(["pi3", "pi4", "pi5", "x86"]), st.integers(1, 30), min_size=1),
    st.lists(st.one_of(st.integers(1, 60), st.floats(0.5, 100.0)), min_size=2, max_size=4).map(
        lambda sizes: sorted(sizes, key=float)
    ),
    st.integers(0, 9),
)
def test_a_wider_wave_never_moves_a_device_out(boards: dict[str, int], sizes: list[float], joined: int) -> None:
    fleet = roster(**boards)
    strata: Strata | None = None
    waves: list[set[str]] = []
    percentage = 0.0
    for number, size in enumerate(sizes):
        named = ("board",) if number == 0 else ()
        step = WaveStep(count=size, strata=named) if isinstance(size, int) else WaveStep(percent=size, strata=named)
        strata = strata_for(step, fleet, (), "r1", strata)
        percentage = max(percentage, percentage_for(step, fleet, (), "r1"))
        if step.percent == 100.0:
            strata = None
        waves.append({one.device for one in members(fleet, (), "r1", percentage, strata)})
        fleet = fleet + roster(late=joined) if number == 0 else fleet
    assert all(smaller <= wider for smaller, wider in pairwise(waves))


@pytest.mark.parametrize("step", [WaveStep(count=7, strata=("board",)), WaveStep(percent=30.0, strata=("board",))])
def test_devices_decide_the_same_by_the_signed_document(step: WaveStep) -> None:
    fleet = roster(pi4=20, pi5=9)
    taken, strata = wave(step, fleet)
    channel = Channel(
        channel="c", model="m", serial=1, candidate=NEW, rollout="r1", strata=strata,
        percentage=percentage_for(step, fleet, (), "r1"),
    )  # fmt: skip
    assert {one.device for one in fleet if in_wave(channel, facts_of(one))} == taken


def test_a_newer_rollout_replaces_one_that_runs_and_the_others_go_back() -> None:
    old = ChannelRelease(version="1.0.0", manifest_sha256="a" * 64)
    middle = ChannelRelease(version="1.0.5", manifest_sha256="c" * 64)
    running = Channel(channel="c", model="m", serial=4, stable=old, candidate=middle, rollout="r4")
    plan = Plan(channel="c", model="m", version="1.1.0", percentage=30.0, name="r5")
    with pytest.raises(RolloutError, match="cannot start while running"):
        start(running, plan, NEW)
    channel = start(running, replace(plan, supersede=True), NEW)
    assert (channel.candidate, channel.rollout, channel.stable, channel.blocked) == (NEW, "r5", old, ())
    fleet = roster(pi4=40)
    inside = {one.device for one in members(fleet, (), "r5", 30.0)}
    assert {one.device for one in fleet if in_wave(channel, facts_of(one))} == inside


def test_a_step_has_its_own_soak_and_window() -> None:
    night = MaintenanceWindow(start="01:00", end="04:00")
    plan = RolloutPlan(
        channel="c", model="m", version="1.1.0",
        steps=(WaveStep(percent=5.0, soak_s=3600.0), WaveStep(percent=100.0, window=night)),
    )  # fmt: skip
    assert [plan.gates_of(step).soak_s for step in plan.steps] == [3600.0, 600.0]
    assert [plan.window_of(step) for step in plan.steps] == [None, night]
