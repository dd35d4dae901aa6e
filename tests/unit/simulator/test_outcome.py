"""Adding up what processes of devices say, counting who is busy at once, and drawing it."""

from __future__ import annotations

import resource
from xml.etree import ElementTree

import pytest

from edgewright.simulator import descriptors
from edgewright.simulator.descriptors import make_room
from edgewright.simulator.errors import SimulationError
from edgewright.simulator.outcome import CpuSeconds, CurvePoint, GroupWatch, Outcome, added
from edgewright.simulator.picture import completion
from edgewright.simulator.words import Tally, Unavailable


def test_numbers_of_processes_add_up() -> None:
    total = added([Tally(connected=2, refused={"trial-quality": 1}), Tally(connected=3, refused={"trial-quality": 2})])
    assert (total.connected, total.refused) == (5, {"trial-quality": 3})


def test_more_of_a_group_than_allowed_is_a_violation_each_time() -> None:
    watch = GroupWatch(1)
    words = [("a", 1, 1.0), ("b", 1, 2.0), ("a", 1, 3.0), ("a", -1, 4.0), ("a", -1, 5.0), ("a", 1, 5.0)]
    watch.take(Unavailable(group=group, by=by, at=at) for group, by, at in reversed(words))
    assert (watch.violations, watch.most) == (1, 2)


def test_without_a_limit_nothing_is_a_violation() -> None:
    watch = GroupWatch(None)
    watch.take([Unavailable(group="a", by=1, at=float(moment)) for moment in range(9)])
    assert (watch.violations, watch.most) == (0, 9)


def test_the_picture_is_the_same_for_the_same_numbers_and_holds_every_point() -> None:
    curve = tuple(
        CurvePoint(seconds=float(t), committed=t, failed=1, bearing=t, reverted=0, connected=9) for t in range(5)
    )  # fmt: skip
    drawn = completion(_outcome(curve))
    assert drawn == completion(_outcome(curve))
    lines = [one for one in ElementTree.fromstring(drawn).iter() if one.tag.endswith("polyline")]
    assert [len(line.attrib["points"].split()) for line in lines] == [5, 5, 5, 5]


def test_a_simulation_that_never_began_has_a_picture_too() -> None:
    assert "<svg" in completion(_outcome(()))


def test_a_hard_limit_that_is_too_low_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(descriptors.resource, "getrlimit", lambda _kind: (1024, 4096))
    with pytest.raises(SimulationError, match="5000 connections") as caught:
        make_room(5000)
    assert "prlimit" in str(caught.value.hint)


def test_the_soft_limit_is_raised_only_where_it_is_too_low(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[int, int]] = []
    monkeypatch.setattr(descriptors.resource, "getrlimit", lambda _kind: (1024, 1_000_000))
    monkeypatch.setattr(descriptors.resource, "setrlimit", lambda _kind, limits: asked.append(limits))
    make_room(100)
    make_room(10_000)
    assert asked == [(10_000 + descriptors.SPARE, 1_000_000)]
    assert resource.RLIMIT_NOFILE >= 0


def _outcome(curve: tuple[CurvePoint, ...]) -> Outcome:
    return Outcome(
        devices=9, committed=4, failed=1, halted=False, why="", reverted=0, availability_violations=0, at_most=None,
        most_at_once=0, signed_documents=5, waves=4, seconds=4.0, bytes_per_device=1.0, messages_per_device=1.0,
        windows_stored=0, windows_sent=0, asked_again=0, lost_connections=0, refused={}, release_bytes=1,
        cpu_s=CpuSeconds(controller=0.0, depot=0.0, broker=None, devices=0.0), curve=curve,
    )  # fmt: skip
