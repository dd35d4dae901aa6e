"""A real Mosquitto with persistence that is killed again and again: no message is lost, none is counted twice.

Device, depot and controller are real processes; the controller is killed in between, so that it gets again what it had
stored and not acknowledged. The sequence numbers in the store show it.
"""

from __future__ import annotations

import contextlib
import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.brokers.brokers import Mosquitto
from support.makers import bundles, fleets
from support.makers.fleets import FleetProcess, MqttDevice, fleet_process
from support.sites.agent_process import AgentProcess, eventually

from edge_contracts.codec import encode
from edge_contracts.state import Presence
from edge_contracts.telemetry import Event
from edge_contracts.topics import device_topic
from edge_fleet.database.telemetry import TelemetryStore
from edge_fleet.signing.workspace import FleetWorkspace

pytestmark = pytest.mark.timeout(180)

TELE = device_topic("default", "dev-1", "tele")


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[Mosquitto]:
    """Keeps what it is told at every change, as after a power cut that it had time before."""
    (tmp_path / "kept").mkdir()
    broker = Mosquitto(tmp_path)
    broker._lines += [
        "persistence true",
        f"persistence_location {tmp_path}/kept/",
        "autosave_interval 1",
        "autosave_on_changes true",
    ]
    with broker:
        yield broker


@pytest.fixture
def fleet(tmp_path: Path) -> FleetWorkspace:
    return fleets.make_released(tmp_path)


def controller(fleet: FleetWorkspace, broker: Mosquitto) -> tuple[str, ...]:
    return "controller", str(fleet.path), "--broker", f"127.0.0.1:{broker.port}"


def stored(fleet: FleetWorkspace) -> tuple[str, list[int]]:
    """Return the device's newest boot and the sequence numbers of it that are stored."""
    store = TelemetryStore(fleet.store_url)
    try:
        boot = next((row.boot_id for row in store.devices() if row.boot_id), "")
        return boot, store.sequences("dev-1", boot)
    finally:
        store.close()


def spooled(agent: AgentProcess) -> int:
    return agent.status().spooled


def test_a_broker_killed_again_and_again_loses_no_telemetry(
    tmp_path: Path, broker: Mosquitto, fleet: FleetWorkspace
) -> None:
    bundles.make_bundle(tmp_path / "factory", version="0.1.0")
    agent = AgentProcess(tmp_path, None, factory=tmp_path / "factory", broker_port=broker.port)
    agent.config.write_text(agent.config.read_text().replace('protocol = "3.1.1"', 'protocol = "auto"'))
    with fleet_process(*controller(fleet, broker)) as service, agent:
        service.wait_for("controller ready")
        for _ in range(3):
            before = len(stored(fleet)[1])
            eventually("more is stored", lambda before=before: len(stored(fleet)[1]) > before + 3)
            broker.kill()
            time.sleep(1.5)
            broker.start()
            service.wait_for("controller ready", 30)
        eventually("the device is back and its spool is empty", lambda: spooled(agent) <= 1, 60)
        boot, numbers = stored(fleet)
        assert numbers == list(range(len(numbers))), "each number once, none missing"
        assert agent.status().dropped == 0
        store = TelemetryStore(fleet.store_url)
        assert store.gaps("dev-1", boot) == []
        eventually("it is shown as online", lambda: store.devices()[0].online)
        store.close()


def test_a_depot_answers_after_each_death_of_its_broker(broker: Mosquitto, fleet: FleetWorkspace) -> None:
    with fleet_process("depot", str(fleet.path), "--broker", f"127.0.0.1:{broker.port}") as depot:
        depot.wait_for("depot ready")
        for _ in range(3):
            broker.kill()
            broker.start()
            depot.wait_for("depot ready", 30)
            with MqttDevice(broker.port) as device:
                assert device.ask("metadata", "timestamp.json") is not None


def test_what_is_delivered_twice_is_stored_once(broker: Mosquitto, fleet: FleetWorkspace) -> None:
    """A controller that dies after the write and before the acknowledgement gets everything again."""
    with MqttDevice(broker.port) as device:
        for turn in range(3):
            with fleet_process(*controller(fleet, broker)) as service:
                service.wait_for("controller ready")
                publish(device, range(20 * turn, 20 * turn + 20))
                publish(device, range(20 * turn, 20 * turn + 20))  # what a device sends again after a broken connection
                device.publish(
                    device_topic("default", "dev-1", "presence"),
                    encode(Presence(device="dev-1", boot_id="b1", online=True)),
                    retain=True,
                )
                if turn < 2:
                    killed_while_storing(service, fleet, 20 * turn + 1)
                else:
                    wait_for_rows(fleet, 60)
                    assert service.terminate() == 0
    store = TelemetryStore(fleet.store_url)
    assert store.sequences("dev-1", "b1") == list(range(60))
    store.close()


def publish(device: MqttDevice, numbers: range) -> None:
    for number in numbers:
        event = Event(device="dev-1", boot_id="b1", sequence=number, time="2026-11-22T06:00:00Z", event="e")
        device.publish(TELE, encode(event))


def rows(fleet: FleetWorkspace) -> int:
    with contextlib.closing(sqlite3.connect(fleet.store_url.removeprefix("sqlite:///"))) as database:
        return int(database.execute("SELECT count(*) FROM messages").fetchone()[0])


def wait_for_rows(fleet: FleetWorkspace, count: int) -> None:
    eventually(f"{count} messages are stored", lambda: rows(fleet) >= count, 60)


def killed_while_storing(service: FleetProcess, fleet: FleetWorkspace, count: int) -> None:
    wait_for_rows(fleet, count)
    service.kill()
