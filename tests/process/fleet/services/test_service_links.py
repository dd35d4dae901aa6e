"""A service and its broker: what goes wrong is said at once, what was retained is not believed, and turns are named."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from support.brokers.brokers import Mosquitto, free_port
from support.brokers.scripted_broker import ScriptedBroker
from support.makers import fleets
from support.makers.fleets import FleetProcess, MqttDevice, eventually, fleet_process

from edge_contracts.codec import encode
from edge_contracts.state import Presence, ReportedState
from edge_contracts.telemetry import Event
from edge_contracts.topics import device_topic
from edge_fleet.database.telemetry import TelemetryStore
from edge_fleet.mqtt import REPEAT_S, Broker, BrokerConnection, RepeatedLog, ServiceLink
from edge_io.mqtt.words import Subscription

TIME = "2026-11-22T06:00:{:02}Z"


@pytest.fixture(name="mosquitto")
def _mosquitto(tmp_path: Path) -> Iterator[Mosquitto]:
    with Mosquitto(tmp_path) as broker:
        yield broker


def at(port: int) -> tuple[str, str]:
    return "--broker", f"127.0.0.1:{port}"


def logged(service: FleetProcess, text: str) -> int:
    return sum(text in line for line in service.log)


def report(sequence: int) -> ReportedState:
    return ReportedState(
        device="dev-1",
        boot_id="b1",
        sequence=sequence,
        time=TIME.format(0),
        agent_version="0",
        board="b",
        architecture="a",
    )


def presence(boot: str, second: int = 0) -> Presence:
    return Presence(device="dev-1", boot_id=boot, online=True, time=TIME.format(second))


@pytest.mark.parametrize("name", ["depot", "controller"])
def test_a_broker_that_cannot_be_reached_is_named_at_once(tmp_path: Path, name: str) -> None:
    fleet, port = fleets.make_released(tmp_path), free_port()
    with fleet_process(name, str(fleet.path), *at(port)) as service:
        eventually(lambda: logged(service, f"broker 127.0.0.1:{port}: no connection: ") == 1)
        time.sleep(2.0)
        assert logged(service, "no connection") == 1, "not with every attempt"


def test_a_host_that_does_not_exist_is_named_at_once(tmp_path: Path) -> None:
    fleet = fleets.make_released(tmp_path)
    with fleet_process("depot", str(fleet.path), "--broker", "no-such-host.invalid:1883") as depot:
        eventually(lambda: logged(depot, "no-such-host.invalid:1883: no connection: ") > 0)


def test_a_broker_that_goes_and_comes_is_named_both_times(tmp_path: Path, mosquitto: Mosquitto) -> None:
    fleet = fleets.make_released(tmp_path)
    with fleet_process("depot", str(fleet.path), *at(mosquitto.port)) as depot:
        depot.wait_for("depot ready")
        mosquitto.kill()
        eventually(lambda: logged(depot, "no connection") > 0)
        mosquitto.start()
        depot.wait_for("depot ready")
        eventually(lambda: logged(depot, f"broker 127.0.0.1:{mosquitto.port}: connected") == 1)


def test_a_trouble_that_lasts_is_named_again_ever_more_seldom() -> None:
    now, lines = [0.0], list[tuple[float, str]]()
    log = RepeatedLog(lambda line: lines.append((now[0], line)), lambda: now[0])
    while now[0] < 2000:
        log.say("away", "the broker is away")
        now[0] += 0.5
    times = [when for when, _ in lines]
    assert times[:4] == [0.0, REPEAT_S[0], 3 * REPEAT_S[0], 7 * REPEAT_S[0]]
    assert times[-1] - times[-2] == REPEAT_S[1]
    log.say("refused", "another trouble")
    assert lines[-1][1] == "another trouble"


def test_a_controller_answers_a_live_presence_and_no_retained_one(tmp_path: Path, mosquitto: Mosquitto) -> None:
    fleet = fleets.make_fleet(tmp_path)
    topic, answers = device_topic("default", "dev-1", "presence"), device_topic("default", "dev-1", "collector")
    with MqttDevice(mosquitto.port) as device:
        device.subscribe(answers)
        device.publish(topic, encode(presence("b1")), retain=True)
        with fleet_process("controller", str(fleet.path), *at(mosquitto.port), "--client-id", "c1") as controller:
            controller.wait_for("controller ready")
            time.sleep(1.0)
            assert device.arrived.empty()
            device.publish(topic, encode(presence("b1", 1)), retain=True)
            answer = device.arrived.get(timeout=10)
            assert (answer.topic, answer.payload, answer.retain) == (answers, b"c1", False)


def test_a_retained_online_is_shown_once_the_device_is_heard(tmp_path: Path, mosquitto: Mosquitto) -> None:
    fleet = fleets.make_fleet(tmp_path)
    store = TelemetryStore(fleet.store_url)
    store.ingest([report(1)], "2020-01-01T00:00:00.000000Z")
    with MqttDevice(mosquitto.port) as device:
        device.publish(device_topic("default", "dev-1", "presence"), encode(presence("b1")), retain=True)
        device.publish(device_topic("default", "dev-1", "reported"), encode(report(2)), retain=True)
        with fleet_process("controller", str(fleet.path), *at(mosquitto.port)) as controller:
            controller.wait_for("controller ready")
            eventually(lambda: store.devices()[0].reported == report(2))
            (row,) = store.devices()
            assert (row.online, row.last_seen[:4]) == (None, "2020"), "nothing of it was said now"
            event = Event(device="dev-1", boot_id="b1", sequence=0, time=TIME.format(0), event="e")
            device.publish(device_topic("default", "dev-1", "tele"), encode(event))
            eventually(lambda: bool(store.devices()[0].online))
            assert store.devices()[0].last_seen[:4] != "2020"
    store.close()


def test_two_devices_with_one_identity_are_named(tmp_path: Path, mosquitto: Mosquitto) -> None:
    fleet = fleets.make_fleet(tmp_path)
    topic = device_topic("default", "dev-1", "presence")
    with (
        MqttDevice(mosquitto.port) as device,
        fleet_process("controller", str(fleet.path), *at(mosquitto.port)) as controller,
    ):
        controller.wait_for("controller ready")
        for second, boot in enumerate(["b1", "b2", "b1", "b2", "b1"]):
            device.publish(topic, encode(presence(boot, second)), retain=True)
        eventually(lambda: logged(controller, "two devices connect as dev-1, taking turns (boots b2 and b1)") == 1)
        assert controller.terminate() == 0
    assert logged(controller, "two devices connect") == 1
    assert "contested=1" in controller.log[-1]


def test_two_controllers_with_one_client_id_are_named_and_do_not_race(tmp_path: Path, mosquitto: Mosquitto) -> None:
    fleet = fleets.make_fleet(tmp_path)
    words = ("controller", str(fleet.path), *at(mosquitto.port), "--client-id", "twin")
    with fleet_process(*words) as one, fleet_process(*words) as two:
        for service in (one, two):
            eventually(lambda service=service: logged(service, "another client may have this client id") > 0, 30)
        before = connections(tmp_path)
        time.sleep(5.0)
        assert connections(tmp_path) - before < 10


def connections(folder: Path) -> int:
    return next(folder.glob("mosquitto-*.log")).read_text().count("New client connected")


def test_what_a_broker_lacks_is_named(tmp_path: Path) -> None:
    fleet = fleets.make_fleet(tmp_path)
    properties = b"\x11\0\0\x0e\x10" + b"\x2a\0"  # keeps a session for 3600 s; no shared subscriptions
    with (
        ScriptedBroker(connack=lambda _: (0, properties)) as broker,
        fleet_process("controller", str(fleet.path), *at(broker.port)) as controller,
    ):
        controller.wait_for("controller ready")
        eventually(lambda: logged(controller, "no shared subscriptions: only one service of this kind may run") == 1)
        eventually(lambda: logged(controller, "while this service is away for 3600 s only") == 1)


def test_a_service_whose_rights_come_back_while_it_is_connected_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """It had them, lost them with a broker's restart, and got them back when somebody corrected the broker's file."""
    monkeypatch.setattr("edge_io.mqtt.session.RESUBSCRIBE_S", 0.2)
    lines, ready, stop, denied = list[str](), list[int](), threading.Event(), set[str]()
    with ScriptedBroker(suback=lambda topic: 0x87 if topic in denied else 1) as broker:
        post = ServiceLink(
            broker=Broker(host="127.0.0.1", port=broker.port, protocol="5"),
            subscriptions=(Subscription(topic="asks", qos=1),),
            client_id="depot-1",
        )
        connection = BrokerConnection(post, lambda _: None, lambda: ready.append(1), lines.append)
        thread = threading.Thread(target=connection.run, args=(lambda: 0.05, stop.is_set))
        thread.start()
        try:
            eventually(lambda: len(ready) == 1)
            denied.add("asks")
            broker.disconnect(0x8B)
            eventually(lambda: any("refuses subscriptions: asks (Not authorized" in line for line in lines))
            assert len(ready) == 1
            denied.clear()
            eventually(lambda: len(ready) == 2)
            assert "the broker grants asks" in lines
        finally:
            stop.set()
            thread.join(20)


def test_a_refused_announcement_is_named(tmp_path: Path) -> None:
    fleet = fleets.make_released(tmp_path)
    with (
        ScriptedBroker(puback=lambda _: 0x87) as broker,
        fleet_process("depot", str(fleet.path), *at(broker.port)) as depot,
    ):
        eventually(lambda: logged(depot, "the broker refused a message on 'ew/v1/default/hint': Not authorized") == 1)


def test_an_upstream_that_is_away_or_is_none_is_named_at_once(tmp_path: Path, mosquitto: Mosquitto) -> None:
    away = f"http://127.0.0.1:{free_port()}"
    words = ("--tenant", "default", *at(mosquitto.port), "--upstream")
    with fleet_process("depot", str(tmp_path / "a"), *words, away) as depot:
        eventually(lambda: logged(depot, "upstream unreachable, serving cached files") == 1)
    with web_server(tmp_path / "empty") as url, fleet_process("depot", str(tmp_path / "b"), *words, url) as depot:
        eventually(lambda: logged(depot, "upstream has no metadata/timestamp.json: its URL must be") == 1)


@contextmanager
def web_server(folder: Path) -> Iterator[str]:
    """Serve a folder with nothing in it."""
    folder.mkdir()
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(SimpleHTTPRequestHandler, directory=folder))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
