"""`fleet depot --upstream` as a process: a site's cache between a real broker and a real web server."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.brokers.brokers import BROKERS, Mosquitto, make_broker
from support.makers import fleets
from support.makers.fleets import FleetProcess, MqttDevice, eventually, fleet_process
from support.sites.web_site import WebSite, giving

from edge_contracts.topics import hint_topic
from edge_contracts.transfer import Response
from edge_fleet.signing.workspace import FleetWorkspace


class SiteFleet:
    """A fleet behind a web server, and the objects that a device would ask for."""

    def __init__(self, folder: Path) -> None:
        self.fleet: FleetWorkspace = fleets.make_released(folder)
        self.cache = folder / "cache"
        self.web = WebSite(self.fleet.repository)
        self.web.start()
        self.blob = max(self.fleet.repository.glob("blobs/*/*"), key=lambda path: path.stat().st_size)
        manifest = next(self.fleet.repository.glob("targets/models/har/1.0.0/*"))
        self.objects = (
            ("metadata", "timestamp.json", self.fleet.repository / "metadata/timestamp.json"),
            ("metadata", "1.root.json", self.fleet.repository / "metadata/1.root.json"),
            ("target", f"models/har/1.0.0/{manifest.name}", manifest),
            ("blob", self.blob.name, self.blob),
        )

    def arguments(self, port: int, *more: str) -> tuple[str, ...]:
        return ("depot", str(self.cache), "--broker", f"127.0.0.1:{port}", "--upstream", self.web.url, *more)

    def asked_for(self, path: Path) -> int:
        return self.web.asked.count(f"/{path.relative_to(self.fleet.repository).as_posix()}")


@pytest.fixture(name="site")
def _site(tmp_path: Path) -> Iterator[SiteFleet]:
    site = SiteFleet(tmp_path)
    yield site
    site.web.stop()


@pytest.fixture(name="broker", params=BROKERS)
def _broker(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Any]:
    with make_broker(request.param, tmp_path) as broker:
        yield broker


@pytest.fixture(name="mosquitto")
def _mosquitto(tmp_path: Path) -> Iterator[Mosquitto]:
    with Mosquitto(tmp_path) as broker:
        yield broker


def ask(device: MqttDevice, kind: str, name: str, **request: Any) -> Response:
    """Ask as a device does: again while it is told to come back at once."""
    for _ in range(10):
        response = device.ask(kind, name, **request)
        assert response is not None
        if response.status != "retry_after" or response.retry_after > 1.0:
            return response
    raise AssertionError("never answered")


def test_devices_of_a_site_get_everything_and_upstream_is_asked_once(site: SiteFleet, broker: Any) -> None:
    with fleet_process(*site.arguments(broker.port)) as depot:
        depot.wait_for("depot ready")
        for name in ("dev-1", "dev-2"):
            with MqttDevice(broker.port, device=name) as device:
                for kind, object_, path in site.objects:
                    response = ask(device, kind, object_)
                    assert (response.body, response.total) == (path.read_bytes()[:65536], path.stat().st_size)
                piece = ask(device, "blob", site.blob.name, offset=65536, length=65536)
                assert piece.body == site.blob.read_bytes()[65536:131072]
                assert ask(device, "metadata", "2.root.json").status == "not_found"
                assert ask(device, "metadata", "../../keys/root.pem").status == "refused"
        assert depot.terminate() == 0
    timestamp, *others = (site.asked_for(path) for _, _, path in site.objects)
    assert others == [1, 1, 1]
    assert timestamp in (2, 3), "once for each device, and at the start"


def test_a_site_goes_on_without_its_uplink_even_after_a_restart(site: SiteFleet, mosquitto: Mosquitto) -> None:
    with fleet_process(*site.arguments(mosquitto.port)) as depot, MqttDevice(mosquitto.port) as device:
        depot.wait_for("depot ready")
        for kind, name, _ in site.objects:
            ask(device, kind, name)
        assert ask(device, "metadata", "2.root.json").status == "not_found"
    site.web.stop()
    with fleet_process(*site.arguments(mosquitto.port)) as depot, MqttDevice(mosquitto.port) as device:
        depot.wait_for("depot ready")
        for kind, name, path in site.objects:
            assert ask(device, kind, name).body == path.read_bytes()[:65536]
        assert ask(device, "metadata", "2.root.json").status == "not_found"
        absent = ask(device, "metadata", "9.snapshot.json")
        assert (absent.status, absent.body) == ("retry_after", b"")
        site.web.start()
        assert ask(device, "metadata", "9.snapshot.json").status == "not_found"
    assert any("upstream unreachable, serving cached files" in line for line in depot.log)


def test_a_poisoned_blob_reaches_nobody(site: SiteFleet, mosquitto: Mosquitto) -> None:
    place = f"/{site.blob.relative_to(site.fleet.repository).as_posix()}"
    site.web.answers[place] = giving(site.blob.read_bytes()[:-1] + b"!")
    with fleet_process(*site.arguments(mosquitto.port)) as depot, MqttDevice(mosquitto.port) as device:
        depot.wait_for("depot ready")
        assert ask(device, "blob", site.blob.name).status == "not_found"
        assert list(site.cache.glob("blobs/*/*")) == []
        del site.web.answers[place]
        assert ask(device, "blob", site.blob.name).body == site.blob.read_bytes()[:65536]


def test_the_hint_follows_upstream_before_any_device_asks(site: SiteFleet, mosquitto: Mosquitto) -> None:
    arguments = site.arguments(mosquitto.port, "--poll", "0.3")
    with fleet_process(*arguments) as depot, MqttDevice(mosquitto.port) as device:
        depot.wait_for("depot ready")
        device.subscribe(hint_topic("default"))
        assert json.loads(device.arrived.get(timeout=10).payload) == {"timestamp_version": 2}
        fleets.start(site.fleet)
        assert json.loads(device.arrived.get(timeout=10).payload) == {"timestamp_version": 3}


def test_a_device_verifies_what_comes_through_a_sites_cache(site: SiteFleet, mosquitto: Mosquitto) -> None:
    with fleet_process(*site.arguments(mosquitto.port)) as depot, MqttDevice(mosquitto.port) as device:
        depot.wait_for("depot ready")
        for path in site.fleet.repository.rglob("*.json"):
            kind, _, name = path.relative_to(site.fleet.repository).as_posix().partition("/")
            ask(device, "metadata" if kind == "metadata" else "target", name)
    targets = ("models/har/1.0.0/manifest.json",)
    got = fleets.device_download(site.fleet, site.cache.parent / "device", *targets, repository=site.cache)
    assert got == [site.objects[2][2].read_bytes()]


def refused(arguments: tuple[str, ...]) -> FleetProcess:
    with fleet_process(*arguments) as depot:
        assert depot.process.wait(15) == 2
    eventually(lambda: bool(depot.log))
    return depot


def test_a_fleets_own_folder_is_no_cache(site: SiteFleet) -> None:
    for folder in (site.fleet.path, site.fleet.repository):
        depot = refused(("depot", str(folder), "--broker", "127.0.0.1:1", "--upstream", site.web.url))
        assert any("would overwrite" in line for line in depot.log)


def test_an_upstream_that_is_no_web_address_is_refused(site: SiteFleet) -> None:
    depot = refused(("depot", str(site.cache), "--broker", "127.0.0.1:1", "--upstream", "file:///etc"))
    assert any("is not an http or https URL" in line for line in depot.log)
