"""The spool over a link: what the broker refuses is kept or named, and nothing changes its order."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from edge_agent.device_event import DeviceEvent
from edge_agent.mqtt.refusals import BrokerRefusals
from edge_agent.telemetry.outbox import Outbox
from edge_agent.telemetry.spool_sender import IN_FLIGHT, REFUSED_S, UNHEARD_TRIES, UNSAID_TRIES, SpoolSender
from edge_contracts.telemetry import Event
from edge_io.mqtt.words import Acknowledged, Refused

TIME = "2026-11-22T06:00:00Z"


class Line:
    """A sender with a spool, and a link that takes everything; `sent` has (number, message) in order."""

    def __init__(self, folder: Path) -> None:
        self.box = Outbox(folder / "outbox.db", device="dev-1", boot_id="b1", limit_bytes=10**6)
        self.refusals = BrokerRefusals("the broker")
        self.sent: list[tuple[int, dict[str, object]]] = []
        self.events: list[DeviceEvent] = []
        self.sender = SpoolSender(self.box, self.refusals, self._publish, self.events.extend, lambda: TIME)

    def _publish(self, body: bytes) -> int:
        self.sent.append((len(self.sent) + 1, json.loads(body)))
        return len(self.sent)

    def put(self, count: int, text: str = "x") -> None:
        for _ in range(count):
            self.box.put(
                lambda number: Event(
                    device="dev-1", boot_id="b1", sequence=number, time=TIME, event="e", text=text, detail={"a": text}
                )
            )

    def refuse(self, number: int, code: int, now: float) -> None:
        self.sender.refused(Refused(number=number, topic="t", code=code, reason=f"reason {code}"), now)

    def take(self, number: int, now: float, *, unheard: bool = False, must_be_heard: bool = True) -> None:
        self.sender.taken(Acknowledged(number=number, unheard=unheard), must_be_heard=must_be_heard, now=now)

    @property
    def sequences(self) -> list[object]:
        return [message["sequence"] for _, message in self.sent]


@pytest.fixture
def line(tmp_path: Path) -> Iterator[Line]:
    line = Line(tmp_path)
    yield line
    line.box.close()


def test_a_refused_message_is_kept_and_goes_again_before_the_next_ones(line: Line) -> None:
    line.put(3)
    line.sender.pump(0.0, None)
    for number in (1, 2, 3):
        line.refuse(number, 0x87, 0.0)
    assert line.box.spooled == 3
    line.sender.pump(REFUSED_S[0] - 0.1, None)
    assert len(line.sent) == 3, "it waits"
    line.sender.pump(REFUSED_S[0], None)
    assert line.sequences[3:] == [0], "one message, to see"
    line.take(4, 6.0)
    line.sender.pump(6.0, None)
    assert line.sequences[4:] == [1, 2]
    assert line.refusals.text(6.0) == ""
    assert [event.event for event in line.events] == ["broker-refused", "broker-accepts"]


def test_the_wait_after_refusals_doubles_up_to_five_minutes(line: Line) -> None:
    line.put(1)
    now, waits = 0.0, []
    for number in range(1, 10):
        line.sender.pump(now, None)
        line.refuse(number, 0x97, now)
        began = now
        while len(line.sent) == number:
            now += 1.0
            line.sender.pump(now, None)
        waits.append(now - began)
    assert waits == [5, 10, 20, 40, 80, 160, 300, 300, 300]
    assert line.box.spooled == 1
    assert "reason 151" in line.refusals.text(now)


@pytest.mark.parametrize("code", [0x90, 0x95, 0x99])
def test_what_the_broker_will_never_take_is_named_in_a_tombstone(line: Line, code: int) -> None:
    line.put(2)
    line.sender.pump(0.0, None)
    line.refuse(1, code, 0.0)
    line.take(2, 0.0)
    line.sender.pump(0.0, None)
    assert line.sent[-1][1] | {"time": ""} == {
        "kind": "dropped",
        "device": "dev-1",
        "boot_id": "b1",
        "sequence": 0,
        "time": "",
        "first": 0,
        "count": 1,
    }
    assert line.box.dropped == 1


def test_a_tombstone_that_is_refused_is_kept(line: Line) -> None:
    line.put(1)
    line.sender.pump(0.0, None)
    line.refuse(1, 0x99, 0.0)
    line.sender.pump(0.0, None)
    line.refuse(2, 0x99, 0.0)
    assert line.box.spooled == 1
    line.sender.pump(REFUSED_S[0], None)
    assert line.sent[-1][1]["kind"] == "dropped"


def test_a_message_refused_without_a_reason_for_minutes_gives_way(line: Line) -> None:
    line.put(1)
    now = 0.0
    while not line.box.dropped:
        before = len(line.sent)
        while len(line.sent) == before:
            line.sender.pump(now, None)
            now += 1.0
        line.refuse(len(line.sent), 0x83, now)
    assert line.sequences == [0] * UNSAID_TRIES
    assert 240 < now < 400


def test_a_message_that_nobody_is_subscribed_to_is_kept(line: Line) -> None:
    line.put(1)
    line.sender.pump(0.0, None)
    line.take(1, 0.0, unheard=True)
    assert line.box.spooled == 1
    assert "nobody is subscribed" in line.refusals.text(0.0)
    line.sender.pump(REFUSED_S[0], None)
    line.take(2, REFUSED_S[0])
    assert line.box.spooled == 0


def test_without_the_wish_for_a_collector_an_unheard_message_is_delivered(line: Line) -> None:
    line.put(1)
    line.sender.pump(0.0, None)
    line.take(1, 0.0, unheard=True, must_be_heard=False)
    assert line.box.spooled == 0


def test_a_broker_that_always_says_nobody_is_not_believed_for_ever(line: Line) -> None:
    line.put(1)
    now = 0.0
    for _ in range(UNHEARD_TRIES + 1):
        before = len(line.sent)
        while len(line.sent) == before:
            line.sender.pump(now, None)
            now += 1.0
        line.take(len(line.sent), now, unheard=True)
    assert line.box.spooled == 0
    assert 150 < now < 400


def test_a_message_over_the_limit_is_shortened_and_keeps_its_number(line: Line) -> None:
    line.put(1, "y" * 300)
    line.sender.pump(0.0, 400)
    ((_, message),) = line.sent
    assert message["sequence"] == 0
    assert message["detail"] == {}
    assert "over the 400 bytes" in line.refusals.text(0.0)


def test_a_message_that_cannot_be_shortened_enough_is_named(line: Line) -> None:
    line.put(1)
    line.sender.pump(0.0, 30)
    assert line.box.dropped == 1
    assert line.sent[0][1]["kind"] == "dropped"


def test_the_window_is_bounded_and_a_new_connection_starts_from_the_first(line: Line) -> None:
    line.put(IN_FLIGHT + 5)
    line.sender.pump(0.0, None)
    assert len(line.sent) == IN_FLIGHT
    line.take(1, 0.0)
    line.sender.restart()
    assert line.sender.idle
    line.sender.pump(1.0, None)
    assert line.sequences[IN_FLIGHT:] == list(range(1, IN_FLIGHT + 1))


def test_answers_to_what_is_not_of_the_spool_change_nothing(line: Line) -> None:
    assert not line.sender.taken(Acknowledged(number=99), must_be_heard=True, now=0.0)
    assert not line.sender.refused(Refused(number=99, topic="t", code=0x87, reason="r"), 0.0)
    assert line.events == []
