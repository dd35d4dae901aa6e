"""Depot and controller as processes, over real brokers, with brokers and processes that die."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.brokers.broker_identities import Authority
from support.brokers.brokers import BROKERS, Mosquitto, make_broker
from support.brokers.shipped_broker import Ports, shipped_lines
from support.makers import fleets
from support.makers.fleets import MqttDevice, eventually, fleet_process

from edge_contracts.codec import encode
from edge_contracts.state import Presence, ReportedState
from edge_contracts.telemetry import Event
from edge_contracts.topics import device_topic, hint_topic
from edge_fleet.database.telemetry import TelemetryStore
from edge_fleet.signing.roles import Lifetimes
from edge_fleet.signing.workspace import FleetWorkspace

TIME = "2026-11-22T06:00:00Z"


@pytest.fixture(name="broker", params=BROKERS)
def _broker(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Any]:
    broker = make_broker(request.param, tmp_path)
    broker.start()
    yield broker
    broker.stop()


@pytest.fixture(name="mosquitto")
def _mosquitto(tmp_path: Path) -> Iterator[Mosquitto]:
    with Mosquitto(tmp_path) as broker:
        yield broker


def address(broker: Any) -> tuple[str, str]:
    return "--broker", f"127.0.0.1:{broker.port}"


def publish_events(device: MqttDevice, first: int, count: int) -> None:
    topic = device_topic("default", device.device, "tele")
    for number in range(first, first + count):
        event = Event(device=device.device, boot_id="b1", sequence=number, time=TIME, event="started")
        device.publish(topic, encode(event))


def test_a_device_fetches_every_kind_of_object_from_a_depot(tmp_path: Path, broker: Any) -> None:
    fleet = fleets.make_released(tmp_path)
    blob = max(fleet.repository.glob("blobs/*/*"), key=lambda path: path.stat().st_size)
    manifest = next(fleet.repository.glob("targets/models/har/1.0.0/*"))
    with fleet_process("depot", str(fleet.path), *address(broker)) as depot:
        depot.wait_for("depot ready")
        with MqttDevice(broker.port) as device:
            timestamp = device.ask("metadata", "timestamp.json")
            target = device.ask("target", f"models/har/1.0.0/{manifest.name}")
            piece = device.ask("blob", blob.name, offset=65536, length=65536)
            missing = device.ask("metadata", "2.root.json")
            refused = device.ask("metadata", "../../keys/root.pem")
        assert depot.terminate() == 0
    assert timestamp is not None
    assert timestamp.body == (fleet.repository / "metadata/timestamp.json").read_bytes()
    assert target is not None
    assert target.body == manifest.read_bytes()
    assert piece is not None
    assert (piece.body, piece.total) == (blob.read_bytes()[65536:131072], blob.stat().st_size)
    assert missing is not None
    assert refused is not None
    assert (missing.status, refused.status) == ("not_found", "refused")
    assert "ok=3" in depot.log[-1]


def test_a_depot_comes_back_after_its_broker_was_killed(tmp_path: Path, broker: Any) -> None:
    fleet = fleets.make_released(tmp_path)
    with fleet_process("depot", str(fleet.repository), *address(broker)) as depot:
        depot.wait_for("depot ready")
        broker.kill()
        broker.start()
        depot.wait_for("depot ready")
        with MqttDevice(broker.port) as device:
            assert device.ask("metadata", "timestamp.json") is not None


def test_a_depot_waits_for_a_broker_that_starts_later(tmp_path: Path) -> None:
    fleet = fleets.make_released(tmp_path)
    late = Mosquitto(tmp_path)
    with fleet_process("depot", str(fleet.path), *address(late)) as depot, late:
        depot.wait_for("depot ready")


def test_the_hint_follows_the_timestamp_and_survives_the_brokers_death(tmp_path: Path, mosquitto: Mosquitto) -> None:
    fleet = fleets.make_released(tmp_path)
    with fleet_process("depot", str(fleet.path), *address(mosquitto)) as depot:
        depot.wait_for("depot ready")
        with MqttDevice(mosquitto.port) as device:
            device.subscribe(hint_topic("default"))
            assert json.loads(device.arrived.get(timeout=5).payload) == {"timestamp_version": 2}
            fleets.start(fleet)
            assert json.loads(device.arrived.get(timeout=5).payload) == {"timestamp_version": 3}
        mosquitto.kill()
        mosquitto.start()
        depot.wait_for("depot ready")
        with MqttDevice(mosquitto.port) as device:
            device.subscribe(hint_topic("default"))
            assert json.loads(device.arrived.get(timeout=5).payload) == {"timestamp_version": 3}


def test_a_device_cannot_make_a_depot_write_to_another(tmp_path: Path, mosquitto: Mosquitto) -> None:
    fleet = fleets.make_released(tmp_path)
    with fleet_process("depot", str(fleet.path), *address(mosquitto)) as depot, MqttDevice(mosquitto.port) as victim:
        depot.wait_for("depot ready")
        with MqttDevice(mosquitto.port, device="dev-2") as attacker:
            assert attacker.ask("metadata", "timestamp.json", timeout_s=0.5, reply=victim.reply) is None
            assert attacker.ask("metadata", "timestamp.json") is not None
        assert victim.arrived.empty()


def test_two_depots_share_the_requests(tmp_path: Path, mosquitto: Mosquitto) -> None:
    fleet = fleets.make_released(tmp_path)
    arguments = ("depot", str(fleet.path), *address(mosquitto))
    with fleet_process(*arguments) as one, fleet_process(*arguments) as two:
        one.wait_for("depot ready")
        two.wait_for("depot ready")
        with MqttDevice(mosquitto.port) as device:
            for _ in range(20):
                assert device.ask("metadata", "timestamp.json") is not None
        one.terminate()
        two.terminate()
    served = [int(depot.log[-1].split("ok=")[1].split()[0]) for depot in (one, two)]
    assert sum(served) == 20
    assert min(served) > 0


def test_reads_are_consistent_while_releases_are_published(tmp_path: Path, mosquitto: Mosquitto) -> None:
    fleet = fleets.make_released(tmp_path)
    with fleet_process("depot", str(fleet.path), *address(mosquitto)) as depot, MqttDevice(mosquitto.port) as device:
        depot.wait_for("depot ready")
        for round_ in range(5):
            fleets.release(fleet, fleets.make_bundle(tmp_path / f"b{round_}", version=f"2.0.{round_}"), fleets.NOW)
            timestamp = device.ask("metadata", "timestamp.json")
            assert timestamp is not None
            version = json.loads(timestamp.body)["signed"]["meta"]["snapshot.json"]["version"]
            snapshot = device.ask("metadata", f"{version}.snapshot.json")
            assert snapshot is not None
            assert snapshot.status == "ok"


def test_a_refused_password_ends_a_depot_with_the_reason(tmp_path: Path) -> None:
    fleet = fleets.make_released(tmp_path)
    passwords = tmp_path / "passwords"
    passwords.write_text("")
    broker = Mosquitto(tmp_path)
    broker._lines += ["allow_anonymous false", f"password_file {passwords}"]
    broker._lines.remove("allow_anonymous true")
    with broker, fleet_process("depot", str(fleet.path), *address(broker)) as depot:
        assert depot.process.wait(15) == 4
    eventually(lambda: any("refused the connection" in line for line in depot.log))


def test_certificates_that_cannot_be_read_end_a_depot_with_the_reason(tmp_path: Path) -> None:
    fleet = fleets.make_fleet(tmp_path)
    (tmp_path / "ca.pem").write_text("no certificate")
    with fleet_process("depot", str(fleet.path), "--broker", "127.0.0.1:1", "--ca", str(tmp_path / "ca.pem")) as depot:
        assert depot.process.wait(15) == 2
    assert any("certificates or key cannot be used" in line for line in depot.log)


def test_a_certificate_the_broker_does_not_know_ends_a_depot_with_the_reason(tmp_path: Path) -> None:
    fleet, authority, ports = fleets.make_fleet(tmp_path), Authority(tmp_path), Ports()
    certificate, key = Authority(tmp_path / "stranger").issue("depot")
    files = ("--ca", str(authority.file), "--cert", str(certificate), "--key", str(key))
    broker = Mosquitto(tmp_path, lines=shipped_lines(tmp_path, ports), port=ports.devices)
    with broker, fleet_process("depot", str(fleet.path), *address(broker), *files) as depot:
        assert depot.process.wait(30) == 4
    eventually(lambda: any("TLS" in line for line in depot.log))


def test_a_controller_stores_what_devices_report(tmp_path: Path, broker: Any) -> None:
    fleet = fleets.make_fleet(tmp_path)
    store = TelemetryStore(fleet.store_url)
    report = ReportedState(
        device="dev-1", boot_id="b1", sequence=1, time=TIME, agent_version="0", board="pc", architecture="x86_64"
    )
    with MqttDevice(broker.port) as device:
        device.publish(device_topic("default", "dev-1", "reported"), encode(report), retain=True)
        with fleet_process("controller", str(fleet.path), *address(broker)) as controller:
            controller.wait_for("controller ready")
            born = Presence(device="dev-1", boot_id="b1", online=True)
            device.publish(device_topic("default", "dev-1", "presence"), encode(born), retain=True)
            publish_events(device, 0, 30)
            device.publish(device_topic("default", "dev-1", "tele"), b"{nonsense")
            device.publish(device_topic("default", "dev-2", "tele"), encode(born))
            eventually(lambda: len(store.sequences("dev-1", "b1")) == 30 and bool(store.devices()[0].online))
            assert controller.terminate() == 0
    (found,) = store.devices()
    assert found.reported == report
    assert store.gaps("dev-1", "b1") == []
    store.close()
    assert "malformed=2" in controller.log[-1]
    assert sum("malformed message on 'ew/v1/default/d/dev-" in line for line in controller.log) == 2


def test_what_arrives_while_a_controller_is_dead_is_stored_later(tmp_path: Path, mosquitto: Mosquitto) -> None:
    fleet = fleets.make_fleet(tmp_path)
    store = TelemetryStore(fleet.store_url)
    arguments = ("controller", str(fleet.path), *address(mosquitto))
    with MqttDevice(mosquitto.port) as device:
        with fleet_process(*arguments) as first:
            first.wait_for("controller ready")
            publish_events(device, 0, 10)
            first.kill()
        publish_events(device, 10, 10)
        with fleet_process(*arguments) as second:
            second.wait_for("controller ready")
            eventually(lambda: len(store.sequences("dev-1", "b1")) == 20)
    assert store.gaps("dev-1", "b1") == []
    store.close()


def test_a_controller_signs_the_timestamp_again_before_it_expires(tmp_path: Path, mosquitto: Mosquitto) -> None:
    lifetimes = Lifetimes(timestamp=3.0 / 86400)
    fleet = fleets.make_fleet(tmp_path, expiry_days=lifetimes)
    timestamp = fleet.repository / "metadata/timestamp.json"
    before = hashlib.sha256(timestamp.read_bytes()).digest()
    with fleet_process("controller", str(fleet.path), *address(mosquitto)) as controller:
        controller.wait_for("controller ready")
        eventually(lambda: hashlib.sha256(timestamp.read_bytes()).digest() != before)
    assert any("re-signed: timestamp" in line for line in controller.log)
    assert FleetWorkspace(fleet.path).settings.expiry_days == lifetimes
