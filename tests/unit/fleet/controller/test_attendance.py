"""Who is there: the retained word of a device that died with its broker is not believed."""

from __future__ import annotations

from edge_contracts.state import Presence
from edge_contracts.telemetry import Event
from edge_fleet.controller.attendance import BOOTS, CONFIRM_S, Attendance

TIME = "2026-11-22T06:00:{:02}Z"


def presence(boot: str = "b1", *, online: bool = True, second: int = 0, device: str = "dev-1") -> Presence:
    time = TIME.format(second) if online else None
    return Presence(device=device, boot_id=boot, online=online, time=time)


EVENT = Event(device="dev-1", boot_id="b1", sequence=0, time=TIME.format(0), event="e")


def test_a_live_presence_is_stored_at_once() -> None:
    for online in (True, False):
        arrival = presence(online=online)
        assert Attendance().heard(arrival, retained=False, now=0.0) == [arrival]


def test_a_retained_online_waits_until_the_device_is_heard() -> None:
    attendance = Attendance()
    assert attendance.heard(presence(), retained=True, now=0.0) == []
    assert attendance.heard(EVENT, retained=False, now=1.0) == [presence(), EVENT]
    assert attendance.overdue(CONFIRM_S + 9) == []


def test_a_retained_offline_is_stored() -> None:
    assert len(Attendance().heard(presence(online=False), retained=True, now=0.0)) == 1


def test_a_retained_online_that_nothing_confirms_becomes_offline() -> None:
    attendance = Attendance()
    attendance.heard(presence(), retained=True, now=0.0)
    assert attendance.overdue(CONFIRM_S - 1) == []
    said, gone = attendance.overdue(CONFIRM_S)
    assert (said.online, gone.online, gone.boot_id) == (True, False, "b1")
    assert attendance.overdue(CONFIRM_S + 1) == []


def test_a_device_that_was_taken_for_gone_and_speaks_is_online() -> None:
    attendance = Attendance()
    attendance.heard(presence(), retained=True, now=0.0)
    attendance.overdue(CONFIRM_S)
    assert attendance.heard(EVENT, retained=False, now=CONFIRM_S + 5) == [presence(), EVENT]
    assert attendance.heard(EVENT, retained=False, now=CONFIRM_S + 6) == [EVENT]


def test_whoever_the_store_has_as_online_has_to_show_it_too() -> None:
    attendance = Attendance()
    attendance.expect([presence(), presence(device="dev-2")], 0.0)
    attendance.heard(presence(second=5), retained=False, now=3.0)
    assert {word.device for word in attendance.overdue(CONFIRM_S)} == {"dev-2"}


def test_a_retained_report_confirms_nothing() -> None:
    attendance = Attendance()
    attendance.heard(presence(), retained=True, now=0.0)
    assert attendance.heard(EVENT, retained=True, now=1.0) == [EVENT]
    assert len(attendance.overdue(CONFIRM_S)) == 2


def test_two_boots_that_take_turns_are_two_devices() -> None:
    attendance = Attendance()
    turns = [presence("a", second=0), presence("b", second=1), presence("a", second=2)]
    assert [attendance.contested(one) for one in turns] == [None, None, ("b", "a")]


def test_restarts_are_one_device() -> None:
    attendance = Attendance()
    assert not any(attendance.contested(presence(f"boot-{n}", second=n)) for n in range(3 * BOOTS))


def test_a_redelivered_presence_is_no_second_device() -> None:
    attendance = Attendance()
    words = [presence("a", second=0), presence("a", second=1), presence("b", second=2)]
    assert not any(attendance.contested(one) for one in words + words)


def test_a_last_will_is_no_second_device() -> None:
    attendance = Attendance()
    words = [presence("a", second=0), presence("b", second=1), presence("a", online=False)]
    assert not any(attendance.contested(one) for one in words)
