"""What a link decides about connections, acknowledgements and reason codes."""

from __future__ import annotations

import pytest
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode

from edge_io.mqtt.link import STEADY_S, UNCONTESTED_S, next_attempt
from edge_io.mqtt.paho_answers import REASON_CHARS, code_of, limits_of, properties_in, reason_text, suback_codes
from edge_io.mqtt.unacknowledged import ACKNOWLEDGE_S, LONGEST_S, Unacknowledged
from edge_io.mqtt.words import SESSION_TAKEN_OVER, BrokerLimits


def test_a_connection_that_lasts_a_second_is_no_success() -> None:
    assert next_attempt(5, 1.0, None) == 5
    assert next_attempt(5, STEADY_S, None) == 0


def test_a_short_connection_that_carried_messages_both_ways_is_tried_again_soon() -> None:
    assert next_attempt(5, 1.0, None, exchanged=True) == 1
    assert next_attempt(0, 1.0, None, exchanged=True) == 0
    assert next_attempt(5, 1.0, SESSION_TAKEN_OVER, exchanged=True) == 5, "the broker said why it ends"


def test_after_a_takeover_only_a_long_connection_is_one() -> None:
    assert next_attempt(5, STEADY_S, SESSION_TAKEN_OVER) == 5
    assert next_attempt(5, UNCONTESTED_S, SESSION_TAKEN_OVER) == 0


def test_an_acknowledgement_is_missing_after_its_time_and_not_before() -> None:
    sent = Unacknowledged(limit=2)
    sent.add(1, 10, "t", 0.0)
    sent.add(2, 11, "t", 20.0)
    assert sent.full
    assert sent.missing(ACKNOWLEDGE_S) is None
    found = sent.missing(ACKNOWLEDGE_S + 0.1)
    assert found is not None
    assert found.number == 10
    sent.take(1)
    assert sent.missing(ACKNOWLEDGE_S + 0.1) is None
    assert not sent.full


def test_a_pause_of_this_process_is_nobody_elses_silence() -> None:
    sent = Unacknowledged(limit=2)
    sent.add(1, 10, "t", 0.0)
    sent.paused(600.0)
    assert sent.missing(620.0) is None
    assert sent.missing(631.0) is not None


def test_a_slow_link_is_waited_for_but_not_for_ever() -> None:
    sent = Unacknowledged(limit=2)
    sent.add(1, 10, "t", 0.0)
    for now in range(0, int(LONGEST_S), 10):
        sent.look(leaving=True, now=float(now))
        assert sent.missing(float(now)) is None
    sent.look(leaving=True, now=LONGEST_S + 50)
    assert sent.missing(LONGEST_S + 50) is not None


def test_what_is_sent_later_is_no_excuse_for_a_message_that_has_left() -> None:
    sent = Unacknowledged(limit=9)
    sent.add(1, 10, "t", 0.0)
    sent.look(leaving=False, now=1.0)
    for now in range(5, 30, 5):  # a PINGREQ, or another message, is on its way at each look
        sent.add(now, now, "t", float(now))
        sent.look(leaving=True, now=float(now))
    found = sent.missing(ACKNOWLEDGE_S + 1)
    assert found is not None
    assert found.number == 10


def test_an_answer_to_a_message_that_is_not_known_is_none() -> None:
    assert Unacknowledged(limit=1).take(7) is None


@pytest.mark.parametrize(("old", "new"), [(0, 0), (1, 0x84), (2, 0x85), (3, 0x88), (4, 0x86), (5, 0x87)])
def test_return_codes_of_mqtt_3_are_told_as_those_of_mqtt_5(old: int, new: int) -> None:
    assert code_of(old) == new


def test_subscriptions_refused_by_mqtt_3_are_0x80() -> None:
    assert suback_codes([0, 1, 2, 0x80]) == [0, 1, 2, 0x80]
    assert suback_codes([ReasonCode(PacketTypes.SUBACK, identifier=0x87)]) == [0x87]


def test_connack_without_properties_has_the_standards_limits() -> None:
    assert limits_of(None) == BrokerLimits()
    assert limits_of(Properties(PacketTypes.CONNACK)) == BrokerLimits()


def test_connacks_limits_are_read() -> None:
    properties = Properties(PacketTypes.CONNACK)
    properties.MaximumPacketSize = 3000
    properties.ReceiveMaximum = 4
    properties.MaximumQoS = 1
    properties.RetainAvailable = 0
    properties.SharedSubscriptionAvailable = 0
    properties.WildcardSubscriptionAvailable = 0
    properties.ServerKeepAlive = 17
    properties.SessionExpiryInterval = 3600
    assert limits_of(properties) == BrokerLimits(
        max_packet_bytes=3000,
        receive_maximum=4,
        max_qos=1,
        retain=False,
        shared_subscriptions=False,
        wildcard_subscriptions=False,
        keepalive_s=17,
        session_s=3600,
    )


def test_a_reason_has_its_name_its_number_and_what_the_broker_adds() -> None:
    properties = Properties(PacketTypes.PUBACK)
    properties.ReasonString = "quota of tenant 7\n" + "x" * 1000
    text = reason_text(0x97, properties_in((object(), properties)))
    assert text.startswith("Quota exceeded (0x97): quota of tenant 7x")
    assert "\n" not in text
    assert len(text) < REASON_CHARS + 30
    assert reason_text(0x87) == "Not authorized (0x87)"
    assert reason_text(0xEE) == "refused (0xEE)"
    assert reason_text(0x10) == "0x10"
