"""The device's link: a broker that dies and comes back, whoever is back first, costs no message and no order."""

from __future__ import annotations

import asyncio
import json
import socket
import time
from pathlib import Path
from typing import Any

import pytest
from support.brokers.brokers import BROKERS, make_broker

from edge_agent.config.agent_toml import AgentConfig, BrokerConfig, DeviceConfig, SlotConfig
from edge_agent.host.systemd_notify import Notifier
from edge_agent.mqtt.client import MqttLink
from edge_agent.telemetry.outbox import Outbox
from edge_agent.telemetry.uplink import Uplink, utc_now
from edge_contracts.telemetry import Event
from edge_contracts.topics import all_devices, collector_topic
from edge_io.mqtt.words import LinkEvent, MessageReceived


class Fleet:
    """Collects what the device sends, in a session of its own, and says so once it is subscribed."""

    def __init__(self, broker: BrokerConfig) -> None:
        self.telemetry: list[int] = []
        self.presence: list[bool] = []
        topics = ((all_devices("default", "tele"), 1), (all_devices("default", "presence"), 1))
        self._link = MqttLink(broker, "fleet", topics, self._heard)
        self._link.start()

    def _heard(self, event: LinkEvent) -> None:
        if not isinstance(event, MessageReceived):
            return
        message: dict[str, Any] = json.loads(event.payload)
        if event.topic.endswith("presence"):
            self.presence.append(message["online"])
        else:
            self.telemetry.append(message["sequence"])

    def wait_connected(self) -> None:
        assert self._link.wait_connected(20)  # its subscriptions are confirmed then
        self._link.publish(collector_topic("default", "fleet"), b"1", qos=1, retain=True)

    def stop(self) -> None:
        self._link.stop()


class Deaf:
    def connected(self, up: bool) -> None: ...

    def hinted(self, timestamp_version: int) -> None: ...


async def until(what: str, probe: Any) -> None:
    deadline = time.monotonic() + 30
    while not probe():
        assert time.monotonic() < deadline, what
        await asyncio.sleep(0.05)


@pytest.mark.parametrize("kind", BROKERS)
def test_spool_drains_without_gap_or_disorder_over_a_broker_restart(tmp_path: Path, kind: str) -> None:
    broker = make_broker(kind, tmp_path)
    settings = BrokerConfig(host="127.0.0.1", port=broker.port, keepalive_s=5, protocol="3.1.1")
    config = AgentConfig(
        device=DeviceConfig(id="dev-1"), broker=settings, slots=(SlotConfig(name="main", factory="unused"),)
    )
    box = Outbox(tmp_path / "outbox.db", device="dev-1", boot_id="b1", limit_bytes=10**7)

    async def live() -> None:
        link = Uplink(config, "b1", box, Deaf())
        link.start()
        fleet = Fleet(settings)
        await asyncio.to_thread(fleet.wait_connected)
        await until("connected", lambda: link.up)
        for _ in range(100):
            link.put(event)
        await until("first half", lambda: len(set(fleet.telemetry)) == 100)
        await asyncio.to_thread(broker.kill)
        await until("down", lambda: not link.up)
        for _ in range(100):
            link.put(event)
        assert box.spooled >= 100
        await asyncio.to_thread(fleet.stop)
        await asyncio.to_thread(broker.start)
        await until("up again", lambda: link.up)
        await asyncio.sleep(0.5)
        assert box.spooled >= 100, "handed to a broker that has no receiver for it"
        again = Fleet(settings)
        await asyncio.to_thread(again.wait_connected)
        await until("drained", lambda: box.spooled == 0)
        await until("second half", lambda: again.telemetry[-1:] == [199])
        first_seen = list(dict.fromkeys(fleet.telemetry + again.telemetry))
        missing = set(range(200)) - set(first_seen)
        # What the dying broker had acknowledged and not delivered is the broker's loss; ours must be none.
        assert all(number < 100 for number in missing)
        assert first_seen == sorted(first_seen)
        await link.stop()
        await until("goodbye", lambda: again.presence[-1:] == [False])
        await asyncio.to_thread(again.stop)

    broker.start()
    try:
        asyncio.run(live())
    finally:
        broker.stop()


def event(sequence: int) -> Event:
    return Event(device="dev-1", boot_id="b1", sequence=sequence, time=utc_now(), event="e")


def test_systemd_hears_ready_watchdog_and_status(tmp_path: Path) -> None:
    path = tmp_path / "notify"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind(str(path))
        notifier = Notifier({"NOTIFY_SOCKET": str(path), "WATCHDOG_USEC": "2000000"})
        notifier.ready()
        notifier.alive()
        notifier.status("two\nlines")
        heard = [systemd.recv(100) for _ in range(3)]
    assert heard == [b"READY=1", b"WATCHDOG=1", b"STATUS=two lines"]
    assert notifier.watchdog_s == 2.0


def test_without_systemd_nothing_is_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[object] = []
    monkeypatch.setattr("edge_agent.host.systemd_notify.socket.socket", lambda *words: opened.append(words))
    notifier = Notifier({})
    for tell in (notifier.ready, notifier.alive, notifier.stopping, lambda: notifier.status("x")):
        tell()
    assert opened == []
    assert notifier.watchdog_s is None
