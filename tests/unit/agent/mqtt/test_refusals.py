"""What a broker refuses is said once, stands in the status, and is taken back when it is taken again."""

from __future__ import annotations

from edge_agent.mqtt.refusals import CONTESTED_S, MAX_NAMED, BrokerRefusals
from edge_io.mqtt.brief_connections import BRIEF_IN_ROW, BRIEF_S
from edge_io.mqtt.words import BrokerLimits, Connected, Disconnected, Granted, RefusedSubscription


def test_a_refusal_is_one_event_until_it_changes() -> None:
    refusals = BrokerRefusals("the broker")
    (event,) = refusals.refuse("telemetry", "Not authorized (0x87)", "kept")
    assert (event.event, event.severity) == ("broker-refused", "warning")
    assert event.text == "the broker refuses telemetry: Not authorized (0x87); kept"
    assert refusals.refuse("telemetry", "Not authorized (0x87)", "kept") == ()
    assert len(refusals.refuse("telemetry", "Quota exceeded (0x97)", "kept")) == 1
    assert refusals.text(0.0) == "telemetry: Quota exceeded (0x97)"
    assert [event.event for event in refusals.take("telemetry")] == ["broker-accepts"]
    assert refusals.take("telemetry") == ()
    assert refusals.text(0.0) == ""


def test_a_refused_subscription_is_a_trouble_until_it_is_granted() -> None:
    refusals = BrokerRefusals("the broker")
    refused = RefusedSubscription(topic="sensors/x", reason="Not authorized (0x87)")
    assert [event.event for event in refusals.greeted(Connected(refused=(refused,)), 0.0)] == ["broker-refused"]
    assert refusals.text(0.0) == "subscription sensors/x: Not authorized (0x87)"
    assert refusals.greeted(Connected(refused=(refused,)), 1.0) == ()
    assert [event.event for event in refusals.greeted(Connected(), 2.0)] == ["broker-accepts"]
    assert refusals.text(2.0) == ""


def test_a_subscription_that_is_granted_later_is_a_trouble_no_more() -> None:
    refusals = BrokerRefusals("the broker")
    left = RefusedSubscription(topic="b", reason="Not authorized (0x87)")
    refusals.greeted(Connected(refused=(RefusedSubscription(topic="a", reason="Not authorized (0x87)"), left)), 0.0)
    (event,) = refusals.granted(Granted(topic="a", left=(left,)))
    assert (event.event, event.text) == ("broker-accepts", "the broker takes subscription a again")
    assert refusals.text(0.0) == "subscription b: Not authorized (0x87)"
    assert refusals.granted(Granted(topic="a", left=(left,))) == ()


def test_what_the_broker_says_it_cannot_do_is_a_trouble() -> None:
    refusals = BrokerRefusals("the broker")
    events = refusals.greeted(Connected(limits=BrokerLimits(retain=False, max_qos=0)), 0.0)
    assert len(events) == 2
    assert "retained messages" in refusals.text(0.0)
    assert "acknowledged messages" in refusals.text(0.0)


def test_a_takeover_is_named_for_a_while() -> None:
    refusals = BrokerRefusals("the broker")
    ending = Disconnected(reason="another client has ew-dev-1", ending="taken-over", code=0x8E)
    (event,) = refusals.ended(ending, 10.0)
    assert (event.event, event.severity) == ("client-id-contested", "error")
    assert "card image" in event.text
    assert refusals.ended(ending, 11.0) == ()
    assert refusals.text(12.0) == "another client has ew-dev-1"
    assert refusals.text(11.0 + CONTESTED_S) == ""


def test_connections_that_end_soon_again_and_again_are_a_trouble() -> None:
    refusals = BrokerRefusals("the broker")
    told = []
    for number in range(BRIEF_IN_ROW):
        refusals.greeted(Connected(), 10.0 * number)
        told.append(len(refusals.ended(Disconnected(reason="connection lost"), 10.0 * number + 1)))
    assert told == [0] * (BRIEF_IN_ROW - 1) + [1]
    assert "another client may have this client id" in refusals.text(100.0)
    refusals.greeted(Connected(), 100.0)
    assert refusals.lasts(100.0 + BRIEF_S - 1) == ()
    assert [event.event for event in refusals.lasts(100.0 + BRIEF_S)] == ["broker-accepts"]


def test_a_broker_that_is_away_is_no_brief_connection() -> None:
    refusals = BrokerRefusals("the broker")
    away = Disconnected(reason="no connection", ending="unreachable")
    assert not any(refusals.ended(away, float(number)) for number in range(20))


def test_more_troubles_than_can_be_read_are_left_out() -> None:
    refusals = BrokerRefusals("the broker")
    for number in range(2 * MAX_NAMED):
        refusals.refuse(f"topic {number}", "r", "o")
    assert refusals.text(0.0).count(";") == MAX_NAMED - 1
