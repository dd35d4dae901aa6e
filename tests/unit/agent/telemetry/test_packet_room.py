"""How long a payload may be, said by the broker or learned from the connections it ended."""

from __future__ import annotations

from edge_agent.telemetry.packet_room import LEARNED_S, SUSPICIONS, PacketRoom
from edge_io.mqtt.words import PACKET_TOO_LARGE, BrokerLimits, Disconnected

LOST = Disconnected(reason="connection lost")


def brief(room: PacketRoom, now: float, size: int, ending: Disconnected = LOST) -> int | None:
    room.connected(now)
    room.sent(1, 100)
    room.sent(2, size)
    return room.lost(ending, now + 0.5)


def test_the_reason_too_large_teaches_at_once() -> None:
    room = PacketRoom()
    assert brief(room, 0.0, 5000, Disconnected(reason="r", code=PACKET_TOO_LARGE)) == 4999
    assert room.limit(None) == 4999


def test_without_a_reason_only_the_same_message_again_and_again_teaches() -> None:
    room = PacketRoom()
    found = [brief(room, float(number), 5000) for number in range(SUSPICIONS)]
    assert found == [None] * (SUSPICIONS - 1) + [4999]


def test_different_messages_short_ones_or_long_connections_teach_nothing() -> None:
    room = PacketRoom()
    assert not any(brief(room, float(number), 5000 + number) for number in range(20))
    assert not any(brief(room, float(number), 200) for number in range(20))
    for number in range(20):
        room.connected(100.0 * number)
        room.sent(1, 5000)
        assert room.lost(LOST, 100.0 * number + 60) is None


def test_other_reasons_teach_nothing() -> None:
    room = PacketRoom()
    refused = Disconnected(reason="r", code=0x87)
    assert not any(brief(room, float(number), 5000, refused) for number in range(20))


def test_what_was_learned_is_tried_again_after_hours() -> None:
    room = PacketRoom()
    brief(room, 0.0, 5000, Disconnected(reason="r", code=PACKET_TOO_LARGE))
    room.connected(LEARNED_S + 2)
    assert room.limit(None) is None


def test_what_the_broker_says_and_what_was_learned_both_count() -> None:
    room = PacketRoom()
    assert room.limit(3000) == 3000
    brief(room, 0.0, 2000, Disconnected(reason="r", code=PACKET_TOO_LARGE))
    assert room.limit(3000) == 1999
    assert room.limit(1000) == 1000


def test_the_room_for_a_payload_counts_topic_and_header() -> None:
    assert BrokerLimits().payload_room("t") is None
    assert BrokerLimits(max_packet_bytes=3000).payload_room("ä" * 10) == 3000 - 20 - 16
    assert BrokerLimits(max_packet_bytes=10).payload_room("topic") == 0
