"""What the broker says to a device is heard: a refusal keeps the message, a limit is kept to, no dead are believed."""

from __future__ import annotations

import asyncio
import json
import struct
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from support.brokers.brokers import Mosquitto
from support.brokers.scripted_broker import PUBLISH, Published, ScriptedBroker, packet

from edge_agent.config.agent_toml import AgentConfig, BrokerConfig, DeviceConfig, SlotConfig
from edge_agent.device_event import DeviceEvent
from edge_agent.mqtt.client import MqttLink
from edge_agent.telemetry.outbox import Outbox
from edge_agent.telemetry.uplink import Uplink, utc_now
from edge_contracts.state import ReportedState
from edge_contracts.telemetry import Event
from edge_contracts.topics import collector_topic, device_topic
from edge_io.mqtt.words import LinkEvent, MessageReceived

TELE = device_topic("default", "dev-1", "tele")
ANSWER = device_topic("default", "dev-1", "collector")


class Deaf:
    def connected(self, up: bool) -> None: ...

    def hinted(self, timestamp_version: int) -> None: ...


class Device:
    """An uplink with its spool; `events` are what it tells."""

    def __init__(self, folder: Path, port: int, protocol: Any, boot: str) -> None:
        broker = BrokerConfig(host="127.0.0.1", port=port, keepalive_s=5, protocol=protocol)
        config = AgentConfig(
            device=DeviceConfig(id="dev-1"), broker=broker, slots=(SlotConfig(name="main", factory="x"),)
        )
        self.broker = broker
        self.box = Outbox(folder / "outbox.db", device="dev-1", boot_id=boot, limit_bytes=10**7)
        self.events: list[DeviceEvent] = []
        self.link = Uplink(config, boot, self.box, Deaf(), self._tell)

    def _tell(self, event: DeviceEvent) -> None:
        self.events.append(event)

    def put(self, count: int, detail: str = "") -> None:
        for _ in range(count):
            self.link.put(
                lambda number: Event(
                    device="dev-1",
                    boot_id="b1",
                    sequence=number,
                    time=utc_now(),
                    event="e",
                    detail={"d": detail} if detail else {},
                )
            )

    async def until(self, what: str, probe: Callable[[], Any], timeout_s: float = 20.0) -> None:
        deadline = asyncio.get_running_loop().time() + timeout_s
        while not probe():
            assert asyncio.get_running_loop().time() < deadline, f"{what}: {self.link.trouble}"
            self.link.tick()
            await asyncio.sleep(0.05)


@asynccontextmanager
async def device(folder: Path, port: int, protocol: Any = "5", boot: str = "b1") -> AsyncIterator[Device]:
    one = Device(folder, port, protocol, boot)
    one.link.start()
    try:
        await one.until("connected", lambda: one.link.up)
        yield one
    finally:
        await one.link.stop()


def collect(broker: ScriptedBroker) -> None:
    """Say to the device that a collector is there."""
    topic = ANSWER.encode()
    broker.send(packet(PUBLISH, len(topic).to_bytes(2, "big") + topic + b"\0c1"))


def telemetry(broker: ScriptedBroker) -> list[dict[str, Any]]:
    return [json.loads(message.payload) for message in broker.published if message.topic == TELE]


def test_telemetry_the_broker_refuses_is_kept_and_the_status_says_so(tmp_path: Path) -> None:
    def judge(message: Published) -> int:
        return 0x87 if message.topic == TELE else 0

    async def live(broker: ScriptedBroker) -> None:
        async with device(tmp_path, broker.port) as one:
            collect(broker)
            one.put(3)
            await one.until("refused", lambda: "Not authorized (0x87)" in one.link.trouble)
            assert one.box.spooled == 3
            assert one.box.dropped == 0
            await one.until("told", lambda: one.events)
            assert (one.events[0].event, one.events[0].severity) == ("broker-refused", "warning")
            broker.puback = lambda _: 0
            await one.until("sent once it is allowed", lambda: one.box.spooled == 0)
            assert one.link.trouble == ""
            await one.until("told too", lambda: one.events[-1].event == "broker-accepts")

    with ScriptedBroker(puback=judge) as broker:
        asyncio.run(live(broker))


def test_a_reported_state_over_the_brokers_limit_is_shortened_on_one_connection(tmp_path: Path) -> None:
    state = ReportedState(
        device="dev-1",
        boot_id="b1",
        sequence=0,
        time=utc_now(),
        agent_version="1",
        board="b",
        architecture="a",
        tags={f"tag-{number}": "x" * 150 for number in range(20)} | {"site": "north"},
    )

    async def live(broker: ScriptedBroker) -> None:
        async with device(tmp_path, broker.port) as one:
            one.link.report(state)
            reported = device_topic("default", "dev-1", "reported")
            await one.until("reported", lambda: any(m.topic == reported for m in broker.published))
            payload = next(m.payload for m in broker.published if m.topic == reported)
            assert len(payload) < 2000
            assert json.loads(payload)["tags"]["site"] == "north"
            assert "reported state: over the" in one.link.trouble
            assert len(broker.connections) == 1

    with ScriptedBroker(connack=lambda _: (0, b"\x27" + struct.pack(">I", 2000))) as broker:
        asyncio.run(live(broker))


def test_a_broker_without_words_that_hangs_up_over_a_long_message_gets_it_short(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edge_agent.mqtt.client.RECONNECT_CAP_S", 0.2)

    def judge(message: Published) -> int:
        return -1 if len(message.payload) > 1000 else 0

    async def live(broker: ScriptedBroker) -> None:
        async with device(tmp_path, broker.port, "3.1.1") as one:
            one.put(1, "y" * 3000)
            one.put(1)
            known = 0
            while one.box.spooled:
                await asyncio.sleep(0.05)
                one.link.tick()
                if one.link.up and len(broker.connections) > known:
                    known = len(broker.connections)
                    topic = ANSWER.encode()
                    broker.send(packet(PUBLISH, len(topic).to_bytes(2, "big") + topic + b"c1"))
            assert known < 10
            assert [message["sequence"] for message in telemetry(broker)][-2:] == [0, 1]
            assert telemetry(broker)[-2]["detail"] == {}
            await one.until("told", lambda: any("it ends the connection over" in e.text for e in one.events))

    with ScriptedBroker(puback=judge) as broker:
        asyncio.run(asyncio.wait_for(live(broker), 40))


def test_another_client_with_this_devices_id_is_named(tmp_path: Path) -> None:
    async def live(broker: ScriptedBroker) -> None:
        async with device(tmp_path, broker.port) as one:
            broker.disconnect(0x8E)
            await one.until("named", lambda: "another client has connected with this client's id" in one.link.trouble)
            await one.until("told", lambda: [e.event for e in one.events] == ["client-id-contested"])
            await one.until("connected again", lambda: one.link.up)
            assert "ew-dev-1" in one.link.trouble

    with ScriptedBroker() as broker:
        asyncio.run(live(broker))


@pytest.mark.parametrize("protocol", ["5", "3.1.1"])
def test_two_devices_with_one_id_are_named_on_both_whatever_the_broker_says(tmp_path: Path, protocol: str) -> None:
    """Mosquitto 2.0 takes a connection over without a word, in both versions of MQTT."""

    async def live(broker: Mosquitto) -> None:
        (tmp_path / "a").mkdir()
        (tmp_path / "b").mkdir()
        async with (
            device(tmp_path / "a", broker.port, protocol) as one,
            device(tmp_path / "b", broker.port, protocol, boot="b2") as two,
        ):
            for twin in (one, two):
                await twin.until("named", lambda twin=twin: "client" in twin.link.trouble and twin.events, 40)
                assert twin.events[0].event == "client-id-contested"

    with Mosquitto(tmp_path) as broker:
        asyncio.run(live(broker))


def test_what_nobody_is_subscribed_to_stays_in_the_spool(tmp_path: Path) -> None:
    async def live(broker: ScriptedBroker) -> None:
        async with device(tmp_path, broker.port) as one:
            collect(broker)
            one.put(2)
            await one.until("said", lambda: "nobody is subscribed" in one.link.trouble)
            assert one.box.spooled == 2

    with ScriptedBroker(puback=lambda message: 0x10 if message.topic == TELE else 0) as broker:
        asyncio.run(live(broker))


class Collector:
    """A controller's place at the broker: subscribed to telemetry, answering presence, announced as one."""

    def __init__(self, broker: BrokerConfig) -> None:
        self.sequences: list[int] = []
        presence = device_topic("default", "dev-1", "presence")
        self._link = MqttLink(broker, "collector", ((TELE, 1), (presence, 1)), self._heard)
        self._link.start()
        assert self._link.wait_connected(20)

    def announce(self) -> None:
        self._link.publish(collector_topic("default", "collector"), b"1", qos=1, retain=True)

    def answer(self) -> None:
        self._link.publish(ANSWER, b"collector", qos=1)

    def _heard(self, event: LinkEvent) -> None:
        if isinstance(event, MessageReceived) and event.topic == TELE:
            self.sequences.append(json.loads(event.payload)["sequence"])

    def stop(self) -> None:
        self._link.stop()


def persistent(folder: Path) -> Mosquitto:
    broker = Mosquitto(folder)
    (folder / "kept").mkdir()
    broker._lines += [
        "persistence true",
        f"persistence_location {folder}/kept/",
        "autosave_interval 1",
        "autosave_on_changes true",
    ]
    return broker


@pytest.mark.parametrize("protocol", ["5", "3.1.1"])
def test_a_collector_that_died_with_a_persistent_broker_gets_nothing(tmp_path: Path, protocol: str) -> None:
    """Decision 0008: the announcement is still retained, and the device waits for a live word."""
    broker = persistent(tmp_path)

    async def live() -> None:
        async with device(tmp_path, broker.port, protocol) as one:
            before = Collector(one.broker)
            before.announce()
            one.put(5)
            await one.until("collected", lambda: before.sequences == [0, 1, 2, 3, 4])
            await asyncio.sleep(1.5)  # the broker has written down what is retained
            broker.kill()
            before.stop()
            await one.until("down", lambda: not one.link.up)
            one.put(5)
            broker.start()
            await one.until("up again", lambda: one.link.up)
            for _ in range(20):
                one.link.tick()
                await asyncio.sleep(0.1)
            assert one.link._collectors._announced == {"collector"}, "the dead one's word was retained"
            assert one.box.spooled == 5
            after = Collector(one.broker)
            after.answer()
            await one.until("collected by the living", lambda: after.sequences == [5, 6, 7, 8, 9])
            after.stop()

    broker.start()
    try:
        asyncio.run(asyncio.wait_for(live(), 50))
    finally:
        broker.stop()


def test_shared_subscribers_count_as_subscribers_to_mosquitto(tmp_path: Path) -> None:
    """A broker that would say "nobody" with only shared subscriptions would keep every spool full."""

    async def live(broker: Mosquitto) -> None:
        async with device(tmp_path, broker.port) as one:
            heard: list[LinkEvent] = []
            link = MqttLink(one.broker, "shared", ((f"$share/ingest/{TELE}", 1),), heard.append)
            link.start()
            assert await asyncio.to_thread(link.wait_connected, 10)
            link.publish(ANSWER, b"shared", qos=1)
            one.put(3)
            await one.until("taken", lambda: one.box.spooled == 0)
            assert one.link.trouble == ""
            link.stop()

    with Mosquitto(tmp_path) as broker:
        asyncio.run(live(broker))
