"""A link over brokers of many habits: what they say is heard, what they refuse is told, and no packet ends the link."""

from __future__ import annotations

import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import pytest
from support.brokers.scripted_broker import Published, ScriptedBroker, packet, publish

from edge_io.mqtt.link import BrokerLink
from edge_io.mqtt.session import LinkSettings
from edge_io.mqtt.words import (
    Acknowledged,
    Connected,
    Disconnected,
    Granted,
    LinkEvent,
    MessageReceived,
    Refused,
    RefusedSubscription,
    Subscription,
    Will,
)

_Event = TypeVar("_Event", bound=LinkEvent)


class Heard:
    """What a link told, waited for by kind."""

    def __init__(self) -> None:
        self._news = threading.Condition()
        self._events: list[LinkEvent] = []

    def __call__(self, event: LinkEvent) -> None:
        with self._news:
            self._events.append(event)
            self._news.notify_all()

    def of(self, kind: type[_Event]) -> list[_Event]:
        return [event for event in self._events if isinstance(event, kind)]

    def wait(self, kind: type[_Event], count: int = 1, timeout_s: float = 15.0) -> _Event:
        with self._news:
            assert self._news.wait_for(lambda: len(self.of(kind)) >= count, timeout_s), self._events
            return self.of(kind)[count - 1]


@contextmanager
def linked(
    broker: ScriptedBroker, wait: Callable[[int], float] = lambda _: 0.05, **settings: Any
) -> Iterator[tuple[BrokerLink, Heard]]:
    heard = Heard()
    chosen = {"protocol": "5", "keepalive_s": 5} | settings
    link = BrokerLink(LinkSettings(host="127.0.0.1", port=broker.port, client_id="c", **chosen), heard, wait)
    link.start()
    try:
        yield link, heard
    finally:
        link.stop()


def test_a_message_with_a_topic_that_is_not_utf_8_is_dropped_and_the_link_goes_on(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with ScriptedBroker() as broker, linked(broker) as (link, heard):
        heard.wait(Connected)
        broker.send(publish(b"\xff\xfe", b"poison"))
        broker.send(publish(b"good", b"after"))
        assert heard.wait(MessageReceived).payload == b"after"
        assert link.connected
        assert link.watch() == ""
        assert len(broker.connections) == 1
    assert "its topic is not UTF-8" in caplog.text
    assert "Traceback" not in caplog.text


@pytest.mark.parametrize(
    "poison",
    [
        packet(3, b"\0\1t\x05\xee\0\0\0\0x"),  # PUBLISH with a property that does not exist
        packet(9, b"\0\1"),  # SUBACK that ends too soon
        packet(15, b""),  # AUTH out of nowhere
        packet(3, b"\0\xffshort"),  # topic longer than its packet
        packet(4, b"\0"),  # PUBACK of one byte
        b"\xf0\xff\xff\xff\xff\xff",  # a length that does not end
    ],
)
def test_a_packet_that_cannot_be_read_costs_one_connection(poison: bytes) -> None:
    with ScriptedBroker() as broker, linked(broker) as (_, heard):
        heard.wait(Connected)
        broker.send(poison)
        heard.wait(Connected, 2)
        broker.send(publish(b"good", b"after"))
        assert heard.wait(MessageReceived).payload == b"after"


def test_what_the_owner_raises_ends_nothing() -> None:
    heard = Heard()

    def owner(event: LinkEvent) -> None:
        heard(event)
        raise RuntimeError("the owner's own error")

    with ScriptedBroker() as broker:
        link = BrokerLink(LinkSettings(host="127.0.0.1", port=broker.port, client_id="c"), owner, lambda _: 0.05)
        link.start()
        heard.wait(Connected)
        broker.send(publish(b"t", b"1"))
        broker.send(publish(b"t", b"2"))
        assert heard.wait(MessageReceived, 2).payload == b"2"
        assert link.connected
        link.stop()


def test_a_thread_that_died_is_started_again(monkeypatch: pytest.MonkeyPatch) -> None:
    heard = Heard()
    with ScriptedBroker() as broker:
        link = BrokerLink(LinkSettings(host="127.0.0.1", port=broker.port, client_id="c"), heard, lambda _: 0.05)
        with monkeypatch.context() as patch:
            patch.setattr(link, "_run_on", lambda: None)
            link.start()
            assert link._thread is not None
            link._thread.join(5)
        assert not link.connected
        assert link.watch() == ""
        heard.wait(Connected)
        link.stop()


def test_a_machine_without_a_thread_to_spare_gets_its_link_later(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    heard = Heard()
    with ScriptedBroker() as broker:
        link = BrokerLink(LinkSettings(host="127.0.0.1", port=broker.port, client_id="c"), heard, lambda _: 0.05)
        with monkeypatch.context() as patch:
            patch.setattr(threading.Thread, "start", refuse)
            link.start()
            assert link.watch() == "no thread for the connection to the broker"
        assert link.watch() == ""
        heard.wait(Connected)
        link.stop()


def test_a_thread_that_hangs_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    with ScriptedBroker() as broker, linked(broker) as (link, heard):
        heard.wait(Connected)
        monkeypatch.setattr("edge_io.mqtt.link.STUCK_S", -1.0)
        assert "has hung for" in link.watch()


def test_a_refused_message_is_told_with_the_brokers_reason() -> None:
    with ScriptedBroker(puback=lambda _: 0x97) as broker, linked(broker) as (link, heard):
        heard.wait(Connected)
        number = link.publish("t", b"x", qos=1)
        refused = heard.wait(Refused)
        assert (refused.number, refused.topic, refused.code) == (number, "t", 0x97)
        assert refused.reason == "Quota exceeded (0x97)"
        assert heard.of(Acknowledged) == []


def test_no_matching_subscribers_is_no_failure_and_is_told() -> None:
    with ScriptedBroker(puback=lambda _: 0x10) as broker, linked(broker) as (link, heard):
        heard.wait(Connected)
        link.publish("t", b"x", qos=1)
        assert heard.wait(Acknowledged).unheard
        assert heard.of(Refused) == []


@pytest.mark.parametrize(("protocol", "code", "text"), [("5", 0x87, "Not authorized (0x87)"), ("3.1.1", 0x80, "0x80")])
def test_a_refused_subscription_is_told_and_the_others_work(protocol: str, code: int, text: str) -> None:
    topics = (Subscription(topic="mine", qos=1), Subscription(topic="theirs", qos=1))
    with (
        ScriptedBroker(suback=lambda topic: code if topic == "theirs" else 1) as broker,
        linked(broker, protocol=protocol, subscriptions=topics) as (_, heard),
    ):
        (refused,) = heard.wait(Connected).refused
        assert refused.topic == "theirs"
        assert text in refused.reason


@pytest.mark.parametrize(("protocol", "code"), [("5", 0x87), ("3.1.1", 0x80)])
def test_a_refused_subscription_is_asked_for_again_on_the_same_connection(
    monkeypatch: pytest.MonkeyPatch, protocol: str, code: int
) -> None:
    """Rights are corrected at a broker while we are connected; nobody restarts every device for that."""
    monkeypatch.setattr("edge_io.mqtt.session.RESUBSCRIBE_S", 0.2)
    denied = {"a", "b"}
    topics = tuple(Subscription(topic=topic, qos=1) for topic in ("a", "b", "c"))
    with (
        ScriptedBroker(suback=lambda topic: code if topic in denied else 1) as broker,
        linked(broker, protocol=protocol, subscriptions=topics) as (_, heard),
    ):
        assert {one.topic for one in heard.wait(Connected).refused} == {"a", "b"}
        denied.discard("a")
        granted = heard.wait(Granted)
        assert (granted.topic, [one.topic for one in granted.left]) == ("a", ["b"])
        denied.clear()
        granted = heard.wait(Granted, 2)
        assert (granted.topic, granted.left) == ("b", ())
        asked = broker.connections[0].topics
        assert (asked.count("a") >= 2, asked.count("c"), len(broker.connections)) == (True, 1, 1)
        assert len(heard.of(Connected)) == 1
        had = list(asked)
        time.sleep(0.6)  # three times as long as a refused one waits
        assert asked == had


def test_what_the_broker_cannot_do_is_not_asked_of_it() -> None:
    properties = b"\x24\0" + b"\x25\0" + b"\x28\0" + b"\x2a\0"  # QoS 0 only, nothing retained, no wildcards, no shares
    topics = (Subscription(topic="$share/g/a", qos=1), Subscription(topic="b/+", qos=1))
    with (
        ScriptedBroker(connack=lambda _: (0, properties)) as broker,
        linked(broker, subscriptions=topics) as (link, heard),
    ):
        connected = heard.wait(Connected)
        assert connected.refused == (
            RefusedSubscription(topic="b/+", reason="Wildcard subscription not supported (0xA2)"),
        )
        assert broker.connections[0].topics == ["a"]
        link.publish("t", b"x", qos=1, retain=True)
        heard.wait(Acknowledged)
        while not broker.published:
            time.sleep(0.01)
        assert broker.published == [Published(topic="t", payload=b"x", qos=0, retain=False)]


def test_a_will_that_the_broker_refuses_is_given_without_retain() -> None:
    refusals = [0x9A, 0]
    with (
        ScriptedBroker(connack=lambda number: (refusals[min(number, 1)], b"")) as broker,
        linked(broker, will=Will(topic="w", payload=b"gone")) as (_, heard),
    ):
        assert "Retain not supported" in heard.wait(Disconnected).reason
        heard.wait(Connected)


def test_a_message_over_the_brokers_limit_is_refused_here_and_the_connection_stays() -> None:
    with (
        ScriptedBroker(connack=lambda _: (0, b"\x27" + struct.pack(">I", 100))) as broker,
        linked(broker) as (link, heard),
    ):
        heard.wait(Connected)
        link.publish("t", b"x" * 200, qos=1)
        assert heard.wait(Refused).code == 0x95
        link.publish("t", b"x" * 50, qos=1)
        heard.wait(Acknowledged)
        assert [len(message.payload) for message in broker.published] == [50]
        assert len(broker.connections) == 1


def test_no_more_is_under_way_than_the_broker_wants() -> None:
    with (
        ScriptedBroker(connack=lambda _: (0, b"\x21\0\2"), puback=lambda _: None) as broker,
        linked(broker) as (link, heard),
    ):
        heard.wait(Connected)
        for _ in range(9):
            link.publish("t", b"x", qos=1)
        time.sleep(0.5)
        assert len(broker.published) == 2


def test_an_acknowledgement_that_never_comes_ends_the_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    """Although the broker answers pings, which come more often than an acknowledgement may take."""
    monkeypatch.setattr("edge_io.mqtt.unacknowledged.ACKNOWLEDGE_S", 2.5)
    with ScriptedBroker(puback=lambda _: None) as broker, linked(broker, keepalive_s=1) as (link, heard):
        heard.wait(Connected)
        link.publish("t", b"x", qos=1)
        assert "did not acknowledge a message on t" in heard.wait(Disconnected).reason
        broker.puback = lambda _: 0
        heard.wait(Connected, 2)
        link.publish("t", b"again", qos=1)
        heard.wait(Acknowledged)


def test_a_broker_that_does_not_confirm_a_subscription_is_silent_not_ready() -> None:
    with (
        ScriptedBroker(suback=lambda _: None) as broker,
        linked(broker, subscriptions=(Subscription(topic="t"),), handshake_s=0.5) as (link, heard),
    ):
        lost = heard.wait(Disconnected)
        assert (lost.ending, "no SUBACK" in lost.reason) == ("silent", True)
        assert not link.connected
        assert heard.of(Connected) == []


@pytest.mark.parametrize(
    ("code", "ending", "text"),
    [
        (0x8E, "taken-over", "another client has connected with this client's id, c"),
        (0x87, "lost", "Not authorized (0x87)"),
        (0x95, "lost", "Packet too large (0x95)"),
        (0x97, "lost", "Quota exceeded (0x97)"),
        (0x9C, "lost", "Use another server (0x9C)"),
    ],
)
def test_the_reason_of_a_disconnect_is_told(code: int, ending: str, text: str) -> None:
    with ScriptedBroker() as broker, linked(broker) as (_, heard):
        heard.wait(Connected)
        broker.disconnect(code)
        lost = heard.wait(Disconnected)
        assert (lost.ending, lost.code) == (ending, code)
        assert text in lost.reason


@pytest.mark.parametrize("code", [None, 0x8E, 0x97])
def test_connections_that_end_at_once_are_made_ever_more_seldom(code: int | None) -> None:
    attempts: list[int] = []

    def wait(attempt: int) -> float:
        attempts.append(attempt)
        return 0.01

    with ScriptedBroker() as broker, linked(broker, wait) as (_, heard):
        for number in range(1, 6):
            heard.wait(Connected, number)
            if code is None:
                broker.connections[-1].stream.shutdown(2)
            else:
                broker.disconnect(code)
        heard.wait(Disconnected, 5)
        assert attempts[:4] == [0, 1, 2, 3]


def test_what_is_published_last_is_there_before_the_link_ends() -> None:
    with ScriptedBroker(puback=slowly) as broker, linked(broker) as (link, heard):
        heard.wait(Connected)
        for number in range(60):
            link.publish("t", b"%d" % number, qos=1, retain=True)
        link.stop()
        assert len(broker.published) == 60
        assert len(heard.of(Acknowledged)) == 60


def test_what_is_published_before_a_new_connection_is_made_on_purpose_is_there_first() -> None:
    with ScriptedBroker(puback=slowly) as broker, linked(broker) as (link, heard):
        heard.wait(Connected)
        for number in range(40):
            link.publish("t", b"%d" % number, qos=1)
        link.reconnect()
        heard.wait(Connected, 2)
        assert len(broker.connections[0].published) == 40
        assert len(heard.of(Acknowledged)) == 40


def test_a_broker_that_acknowledges_nothing_delays_the_end_and_does_not_prevent_it() -> None:
    with ScriptedBroker(puback=lambda _: None) as broker, linked(broker) as (link, heard):
        heard.wait(Connected)
        link.publish("t", b"x", qos=1)
        began = time.monotonic()
        link.stop()
        assert 2.0 < time.monotonic() - began < 8.0


def test_a_server_keep_alive_is_kept() -> None:
    with (
        ScriptedBroker(connack=lambda _: (0, b"\x13\0\1")) as broker,
        linked(broker, keepalive_s=600) as (link, heard),
    ):
        heard.wait(Connected)
        time.sleep(2.5)
        assert link.connected
        assert link.limits.keepalive_s == 1
        assert link._connection is not None
        assert link._connection._client._keepalive == 1


def slowly(_: Published) -> int:
    time.sleep(0.01)
    return 0
