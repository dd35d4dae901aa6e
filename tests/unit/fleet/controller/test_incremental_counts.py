"""What a controller keeps from look to look comes out as if it were counted anew."""

from __future__ import annotations

import random
from collections import Counter

from edge_contracts.selection import bucket
from edge_fleet.controller.control_devices import ControlDevices
from edge_fleet.controller.wave_count import WaveCount
from edge_fleet.database.rollouts import SlotChange
from edge_fleet.rollouts.waves import Standing

STANDINGS: list[Standing | None] = ["passed", "failed", "busy", "waiting", "offline", None]


def _place(device: str) -> float:
    return bucket("r1", device)


def _report(device: str, draw: random.Random) -> SlotChange:
    return SlotChange(
        id=1,
        time="2026-11-01T00:00:00Z",
        device=device,
        slot="main",
        channel="stable",
        online=draw.random() < 0.7,
        board=draw.choice(["pi-4", "pi-5"]),
        architecture="aarch64",
        tags={"site": draw.choice(["a", "b"])},
        facts={},
        state="idle",
        reason=None,
        rollout=None,
        manifest=None,
        serving=None,
        compared=0,
    )


def test_the_likest_devices_are_those_that_sorting_the_whole_fleet_gives() -> None:
    draw = random.Random(5)
    free, roster = ControlDevices(_place), {}
    names = [f"d{number}" for number in range(40)]
    for _ in range(400):
        device = draw.choice(names)
        if draw.random() < 0.3:
            free.drop(device)
            roster.pop(device, None)
        else:
            roster[device] = _report(device, draw)
            free.put(roster[device])
        mine = _report("mine", draw)
        wanted = sorted(
            (one for one in roster.values() if one.online),
            key=lambda one: (one.board != mine.board, one.tags != mine.tags, _place(one.device)),
        )
        assert [one.device for one in free.likest(mine, roster)] == [one.device for one in wanted]


def test_a_step_counted_by_what_changed_is_the_step_counted_anew() -> None:
    draw = random.Random(6)
    count = WaveCount()
    known = {f"d{number}": draw.choice(STANDINGS) for number in range(30)}
    for turn in range(200):
        changed = draw.sample(sorted(known), draw.randrange(4))
        for device in changed:
            known[device] = draw.choice(STANDINGS)
        found = count.progress(turn // 50, known, changed, known.get)
        whole = Counter(known.values())
        assert (found.passed, found.failed, found.busy) == (whole["passed"], whole["failed"], whole["busy"])
        assert (found.waiting, found.offline) == (whole["waiting"], whole["offline"])


def test_only_what_changed_is_looked_at() -> None:
    count, asked = WaveCount(), []

    def standing(device: str) -> Standing:
        asked.append(device)
        return "waiting"

    count.progress("step 1", ["a", "b", "c"], [], standing)
    assert asked == ["a", "b", "c"]
    count.progress("step 1", ["a", "b", "c"], ["b"], standing)
    assert asked[3:] == ["b"]
    count.progress("step 2", ["a", "b", "c"], ["b"], standing)
    assert asked[4:] == ["a", "b", "c"]
