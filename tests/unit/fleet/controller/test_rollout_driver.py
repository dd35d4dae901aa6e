"""Planned rollouts carried on by the controller, with devices that select themselves."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest
from support.makers.fleets import NOW
from support.parts.planned_rollouts import WAVES, PretendFleet, make_plan

from edge_contracts.state import Installed, Presence, SlotState
from edge_fleet.errors import FleetError, RolloutError
from edge_fleet.rollouts.channel_state import pause, resume
from edge_fleet.rollouts.planned import forecast, replay
from edge_fleet.rollouts.rollout import change_rollout

LAST = '[[steps]]\nkind = "wave"\npercent = 100\n'
Make = Callable[..., PretendFleet]


@pytest.fixture(name="make")
def _make(tmp_path: Path) -> Iterator[Make]:
    made: list[PretendFleet] = []

    def make(**options: object) -> PretendFleet:
        made.append(PretendFleet(tmp_path, **options))  # type: ignore[arg-type]
        return made[-1]

    yield make
    for fleet in made:
        fleet.close()


def test_a_good_release_goes_through_its_waves_and_becomes_stable(make: Make) -> None:
    fleet = make()
    fleet.start(make_plan())
    fleet.run()
    assert fleet.status() == "finished"
    channel = fleet.channel()
    assert (channel.stable.version if channel.stable else None, channel.candidate) == ("1.1.0", None)
    actions = [made.action for made in fleet.rollouts.decisions(fleet.rollouts.planned()[-1].rollout)]
    assert [action for action in actions if action != "stay"] == ["next", "next", "finish"]


def test_each_wave_costs_one_signed_document(make: Make) -> None:
    fleet = make()
    before = fleet.channel().serial
    fleet.start(make_plan())
    fleet.run()
    assert fleet.channel().serial - before == 4  # three waves and the end


def test_a_bad_release_is_aborted_and_blocked(make: Make) -> None:
    fleet = make(fails=lambda _: True)
    fleet.start(make_plan())
    fleet.run()
    assert fleet.status() == "stopped"
    channel = fleet.channel()
    assert channel.candidate is None
    assert len(channel.blocked) == 1
    assert channel.stable is not None
    assert channel.stable.version == "1.0.0"


def test_a_plan_may_pause_instead(make: Make) -> None:
    fleet = make(fails=lambda _: True)
    fleet.start(make_plan(head='on_failure = "pause"\n'))
    fleet.run()
    assert fleet.channel().paused
    assert fleet.channel().blocked == ()
    assert fleet.status() == "stopped"


def test_an_approval_waits_for_a_person(make: Make) -> None:
    fleet = make()
    steps = '[[steps]]\nkind = "wave"\npercent = 50\n[[steps]]\nkind = "approval"\nwho = "anna"\n'
    fleet.start(make_plan(steps + '[[steps]]\nkind = "wave"\npercent = 100\n'))
    fleet.run(4)
    assert fleet.status() == "running"
    assert fleet.channel().percentage == 50.0
    fleet.rollouts.approve(fleet.rollouts.planned()[-1].rollout, 1, "anna", fleet.now())
    fleet.run()
    assert fleet.status() == "finished"


def test_a_count_takes_in_as_many_devices_and_a_wider_wave_keeps_them(make: Make) -> None:
    fleet = make()
    steps = "".join(f'[[steps]]\nkind = "wave"\ncount = {count}\n' for count in (3, 11))
    fleet.start(make_plan(steps))
    fleet.act()
    first = {one.device for one in _followed(fleet)}
    assert len(first) == 3
    fleet.look(2)
    fleet.act()
    fleet.look()
    second = {one.device for one in _followed(fleet)}
    assert len(second) == 11
    assert first < second


def _followed(fleet: PretendFleet) -> list[object]:
    fleet.look()
    return list(fleet.rollouts.participants(fleet.rollouts.planned()[-1].rollout))  # type: ignore[arg-type]


def test_a_device_that_falls_silent_counts_as_failed_after_the_deadline(make: Make) -> None:
    fleet = make(devices=4)
    fleet.start(make_plan('[[steps]]\nkind = "wave"\npercent = 100\ndeadline_s = 1000\n'))
    fleet.act("downloading")
    fleet.look()
    assert fleet.rollouts.evidence(fleet.rollouts.planned()[-1].rollout) == []
    fleet.look(1, 999.0)
    found = fleet.rollouts.evidence(fleet.rollouts.planned()[-1].rollout)
    assert [(one.value, one.text) for _, one in found] == [(1.0, "downloading: silent")] * 4
    assert fleet.status() == "stopped"


def test_devices_that_are_offline_hold_up_nobody(make: Make) -> None:
    fleet = make(devices=6)
    for device in fleet.devices[3:]:
        fleet.telemetry.ingest([Presence(device=device, boot_id="b", online=False)], fleet.now())
    fleet.devices = fleet.devices[:3]
    fleet.start(make_plan('[[steps]]\nkind = "wave"\npercent = 100\n'))
    fleet.run()
    assert fleet.status() == "finished"


def test_a_slower_release_is_stopped_by_its_latency(make: Make) -> None:
    fleet = make(devices=150)
    fleet.start(make_plan('[[steps]]\nkind = "wave"\npercent = 50\n', 'on_failure = "abort"\n[gates]\nlatency = 1.2\n'))
    fleet.act("active")
    fleet.look()
    new = {one.device for one in fleet.rollouts.participants(fleet.rollouts.planned()[-1].rollout)}
    for device in fleet.devices:
        slow = device in new
        buckets = (0,) * 10 + ((0, 30) if slow else (30, 0))
        fleet.window(device, "1.1.0" if slow else "1.0.0", latency_log2_us=buckets, counters={"requests": 30})
    fleet.act()
    fleet.look(3)
    assert fleet.status() == "stopped"
    assert "latency 2.00 times" in fleet.rollouts.decisions(fleet.rollouts.planned()[-1].rollout)[-1].why


def test_a_person_may_pause_and_resume(make: Make) -> None:
    fleet = make()
    fleet.start(make_plan())
    change_rollout(fleet.workspace, "stable", pause, NOW)
    fleet.run(3)
    assert fleet.channel().percentage == 20.0
    change_rollout(fleet.workspace, "stable", resume, NOW)
    fleet.run()
    assert fleet.status() == "finished"


def test_of_two_controllers_one_decides_until_its_lease_is_over(make: Make) -> None:
    fleet = make()
    fleet.start(make_plan())
    fleet.look()
    other = fleet.new_driver("two")
    fleet.act()
    other.look(1e9)
    assert fleet.channel().percentage == 20.0
    fleet.clock += 20.0
    other.look(2e9)
    assert fleet.channel().percentage == 60.0
    other.close()


class PowerCutError(Exception):
    """The controller dies here."""


@pytest.mark.parametrize("cut", range(1, 25))
def test_a_controller_killed_at_any_write_goes_on_to_the_same_end(
    make: Make, cut: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    fleet = make(devices=9)
    fleet.start(make_plan(WAVES))
    writes = 0

    def counted(original: Callable[..., object], *args: object, **kwargs: object) -> object:
        nonlocal writes
        writes += 1
        if writes == cut:
            raise PowerCutError
        return original(*args, **kwargs)

    def arm() -> None:
        for name in ("follow", "observe", "decide", "enter", "set_status"):
            original = getattr(fleet.driver._store, name)
            monkeypatch.setattr(fleet.driver._store, name, partial(counted, original))
        monkeypatch.setattr(fleet.driver, "_sign", partial(counted, fleet.driver._sign))

    arm()
    for _ in range(14):
        try:
            fleet.run(1)
        except PowerCutError:
            fleet.driver.close()
            fleet.driver = fleet.new_driver()
    assert writes >= cut
    planned = fleet.rollouts.planned()[-1]
    assert fleet.status() == "finished"
    devices = [one.device for _, one in fleet.rollouts.evidence(planned.rollout)]
    assert sorted(devices) == fleet.devices
    done = [made.action for made in fleet.rollouts.decisions(planned.rollout) if made.action != "stay"]
    assert done == ["next", "next", "finish"]
    assert all(one.same for one in replay(fleet.rollouts, planned))


def test_replay_finds_evidence_that_was_changed_afterwards(make: Make) -> None:
    fleet = make(fails=lambda device: device.endswith("3"))
    fleet.start(make_plan())
    fleet.run()
    planned = fleet.rollouts.planned()[-1]
    assert all(one.same for one in replay(fleet.rollouts, planned))
    with fleet.rollouts._engine.begin() as connection:
        connection.exec_driver_sql("UPDATE rollout_evidence SET value = 1 - value WHERE id = 1")
    assert not all(one.same for one in replay(fleet.rollouts, planned))


def test_a_forecast_says_who_is_in_which_wave_and_signs_nothing(make: Make) -> None:
    fleet = make(devices=20)
    serial = fleet.channel().serial
    plan = make_plan('[[steps]]\nkind = "wave"\ncount = 5\n[[steps]]\nkind = "hold"\nseconds = 60\n' + LAST)
    found = forecast(fleet.workspace, plan, NOW, None)
    assert (found.matching, [wave.devices for wave in found.waves]) == (20, [5, 20])
    assert found.waves[0].boards == {"pi-4": 5}
    assert found.waves[1].new == 15
    assert [wave.bytes for wave in found.waves] == [5 * found.waves[0].bytes // 5, 3 * found.waves[0].bytes]
    assert found.seconds_at_least == 60 + 2 * 600
    assert fleet.channel().serial == serial


def test_a_name_is_planned_once(make: Make) -> None:
    fleet = make(fails=lambda _: True)
    fleet.start(make_plan(head='name = "again"\n'))
    fleet.run()
    with pytest.raises(RolloutError, match="planned before"):
        fleet.start(make_plan(head='name = "again"\n'))


def test_a_rollout_that_a_person_ends_is_no_longer_followed(make: Make) -> None:
    from edge_fleet.rollouts.channel_state import abort

    fleet = make()
    fleet.start(make_plan())
    fleet.look()
    change_rollout(fleet.workspace, "stable", abort, NOW)
    fleet.look(2)
    assert fleet.status() == "stopped"


def _slot(fleet: PretendFleet, name: str, state: str) -> SlotState:
    channel = fleet.channel()
    assert channel.candidate is not None
    new = Installed(version=channel.candidate.version, manifest_sha256=channel.candidate.manifest_sha256)
    serving = new if state == "committed" else fleet.stable
    return SlotState(
        slot=name, channel="stable", state=state, serving=serving, candidate=new, rollout=channel.rollout
    )  # type: ignore[arg-type]  # fmt: skip


@pytest.mark.parametrize("order", [("committed", "rejected"), ("rejected", "committed")])
def test_a_device_has_failed_when_one_of_its_slots_has(make: Make, order: tuple[str, str]) -> None:
    fleet = make(devices=1)
    fleet.start(make_plan(LAST))
    fleet.report("dev-000", _slot(fleet, "left", order[0]), _slot(fleet, "right", "trial"))
    fleet.look()
    fleet.report("dev-000", _slot(fleet, "left", order[0]), _slot(fleet, "right", order[1]))
    fleet.look()
    (found,) = fleet.rollouts.evidence(fleet.rollouts.planned()[-1].rollout)
    assert found[1].value == 1.0


def test_a_device_is_through_when_all_its_slots_are(make: Make) -> None:
    fleet = make(devices=1)
    fleet.start(make_plan(LAST))
    fleet.report("dev-000", _slot(fleet, "left", "committed"), _slot(fleet, "right", "trial"))
    fleet.look(2)
    assert fleet.status() == "running"
    fleet.driver.close()
    fleet.driver = fleet.new_driver()  # what it knows of both slots is in the database
    fleet.report("dev-000", _slot(fleet, "left", "committed"), _slot(fleet, "right", "committed"))
    fleet.look(2)
    assert fleet.status() == "finished"


def test_a_slot_that_left_the_channel_holds_up_nobody(make: Make) -> None:
    fleet = make(devices=2)
    fleet.start(make_plan(LAST))
    fleet.report("dev-000", _slot(fleet, "main", "committed"))
    fleet.report("dev-001", _slot(fleet, "main", "trial"))
    fleet.look(2)
    assert fleet.status() == "running"
    fleet.report("dev-001", SlotState(slot="main", channel="beta", state="idle"))
    fleet.look(2)
    assert fleet.status() == "finished"


def test_a_device_s_other_models_say_nothing_of_the_release(make: Make) -> None:
    fleet = make(devices=150)
    fleet.start(make_plan('[[steps]]\nkind = "wave"\npercent = 50\n', "[gates]\nlatency = 1.2\n"))
    fleet.act("active")
    fleet.look()
    new = {one.device for one in fleet.rollouts.participants(fleet.rollouts.planned()[-1].rollout)}
    fast, slow = (0,) * 10 + (30,), (0,) * 11 + (30,)
    for device in fleet.devices:
        fleet.window(device, "1.1.0" if device in new else "1.0.0", latency_log2_us=fast)
        fleet.window(device, "1.1.0", model="voice", latency_log2_us=slow if device in new else fast)
    fleet.act()
    fleet.look(3)
    assert fleet.status() == "finished"


def test_a_start_that_could_not_be_signed_may_be_tried_again(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    fleet = make(devices=10)
    with monkeypatch.context() as broken:

        def fail(*_: object, **__: object) -> None:
            raise FleetError("no key", subject="rollouts")

        broken.setattr("edge_fleet.rollouts.planned.start_rollout", fail)
        with pytest.raises(FleetError, match="no key"):
            fleet.start(make_plan())
    fleet.start(make_plan())
    fleet.run()
    assert fleet.status() == "finished"
