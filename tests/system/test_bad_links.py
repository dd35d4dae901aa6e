"""An update over links that are slow, far away or keep hanging up: it completes, and asks for little twice."""

from __future__ import annotations

import os
import re
import shutil
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from support.brokers.brokers import EmbeddedBroker, Mosquitto
from support.brokers.fault_proxy import FaultProxy
from support.sites.update_site import UpdateSite, names, troubles
from support.sites.web_site import WebSite

from edge_agent.backoff import RoundTrip
from edge_agent.config.agent_toml import BrokerConfig
from edge_agent.errors import NotFoundError
from edge_agent.mqtt.client import MqttLink
from edge_agent.ports import ObjectKind, Transport
from edge_agent.storage.state_dir import read_manifest
from edge_agent.updater.transports.directory import DirectoryTransport
from edge_agent.updater.transports.http import HttpTransport
from edge_agent.updater.transports.mqtt import MqttTransport
from edge_contracts.topics import all_devices
from edge_contracts.transfer import Response, pack, unpack_request
from edge_io.mqtt.words import LinkEvent, MessageReceived
from edgewright.demo.stage import Stage

pytestmark = pytest.mark.timeout(150)


class CountingCarrier:
    """Counts which pieces another carrier brings. After `left` of them `then` happens, or it brings nothing more."""

    def __init__(self, inner: Transport, left: int = 0, then: Callable[[], object] | None = None) -> None:
        self.brought: Counter[tuple[str, int]] = Counter()
        self._inner, self._left, self._then = inner, left, then
        self._lock = threading.Lock()

    def read(self, kind: ObjectKind, name: str, offset: int, length: int) -> tuple[bytes, int]:
        if self._then is None and 0 < self._left <= self.brought.total():
            raise NotFoundError("out of reach")
        answer = self._inner.read(kind, name, offset, length)
        if kind == "blob":
            with self._lock:
                self.brought[name, offset] += 1
                if self._then is not None and self.brought.total() == self._left:
                    self._then()
        return answer


@contextmanager
def depots(folder: Path, broker: EmbeddedBroker | Mosquitto, *names: str) -> Iterator[Stage]:
    """Depots on the fleet's repository, which share the requests."""
    with Stage(folder) as stage:
        options = ("--broker", f"127.0.0.1:{broker.port}", "--protocol", "3.1.1")
        for name in names or ("depot",):
            stage.start(name, "fleet", "depot", str(folder / "fleet"), *options, ready="depot ready")
        yield stage


def given(stage: Stage) -> int:
    """End the depot and return how many bytes it gave out, by its own count."""
    stage.stop("depot")
    (total,) = re.findall(r"bytes=(\d+)", stage.log_tail("depot", 1))
    return int(total)


@contextmanager
def connected(port: int, timer: RoundTrip | None = None) -> Iterator[MqttTransport]:
    """A device's carrier on a broker or a bad link to it."""
    settings = BrokerConfig(host="127.0.0.1", port=port, protocol="3.1.1")
    mqtt = MqttTransport(settings, "default", "dev-1", timeout_s=30.0, timer=timer or RoundTrip())
    try:
        yield mqtt
    finally:
        mqtt.close()


@contextmanager
def carrier(port: int, timer: RoundTrip | None = None) -> Iterator[CountingCarrier]:
    """The same, counting."""
    with connected(port, timer) as mqtt:
        yield CountingCarrier(mqtt)


def released(folder: Path, padding: int) -> UpdateSite:
    site = UpdateSite(folder)
    site.release("1.0.0", padding=padding)
    site.start("1.0.0")
    return site


def update(site: UpdateSite, over: CountingCarrier, attempts: int) -> None:
    """Look until the release is stored, as the supervisor would after trouble on the way."""
    for _ in range(attempts):
        said = site.look(over)
        if names(said)[-1] == "Stored":
            return
        assert {fault for fault, _ in troubles(said)} == {"transport"}
    raise AssertionError(f"not stored after {attempts} attempts: {troubles(said)}")


class Impatient(RoundTrip, frozen=True, kw_only=True):
    """A timer that learns nothing: asks again after a second, come what may."""

    timeout_s: float = 1.0

    def observed(self, sample_s: float) -> RoundTrip:
        return self

    def missed(self) -> RoundTrip:
        return self


def excess(folder: Path, padding: int, timer: RoundTrip) -> float:
    """Return how much more than its needs a depot gave out over 30 kB/s and 0.3 s each way, as a share."""
    site = released(folder, padding)
    with (
        Mosquitto(folder) as broker,
        depots(folder, broker) as stage,
        FaultProxy(broker.port, rate=30_000, delay_s=0.3) as link,
        carrier(link.port, timer) as over,
    ):
        update(site, over, attempts=1)
        given_out = given(stage)
    # What a new device asks for: the bundle, what is signed about it, each file of metadata but the first root.
    needed = sum(path.stat().st_size for path in (folder / "bundle-1.0.0").rglob("*") if path.is_file())
    for room in ("metadata", "targets"):
        needed += sum(path.stat().st_size for path in newest(site.repository / room))
    return given_out / needed - 1


def newest(folder: Path) -> list[Path]:
    """Return the newest version of each file in a room of the repository; the manifest is counted with the bundle."""
    found = sorted(path for path in folder.rglob("*.json") if not path.name.endswith((".root.json", ".manifest.json")))
    return list({path.name.partition(".")[2]: path for path in found}.values())


def test_link_of_30_kilobytes_a_second_completes_and_is_sent_little_twice(tmp_path: Path) -> None:
    assert excess(tmp_path, 600_000, RoundTrip()) < 0.05


def test_impatient_timer_would_be_sent_much_twice_over_the_same_link(tmp_path: Path) -> None:
    assert excess(tmp_path, 100_000, Impatient()) > 0.5


def test_lost_answer_on_a_quick_link_is_missed_soon(tmp_path: Path) -> None:
    """The other side of the timer: what it has learnt from quick answers makes it ask again after a second, not ten."""
    with Mosquitto(tmp_path) as broker, connected(broker.port) as over:
        settings = BrokerConfig(host="127.0.0.1", port=broker.port, protocol="3.1.1")
        depot = DeafDepot(settings, deaf_to=9)
        for number in range(8):
            over.read("blob", "ab" * 32, number, 1)
        begun = time.monotonic()
        over.read("blob", "ab" * 32, 8, 1)
        assert 0.5 < time.monotonic() - begun < 5.0
        depot.stop()


class DeafDepot:
    """Answers every request but one, which is lost."""

    def __init__(self, broker: BrokerConfig, deaf_to: int) -> None:
        self._left = deaf_to
        self._link = MqttLink(broker, "deaf", ((all_devices("default", "req"), 0),), self._heard)
        self._link.start()
        assert self._link.wait_connected(10)

    def _heard(self, event: LinkEvent) -> None:
        if isinstance(event, MessageReceived):
            self._left -= 1
            if self._left:
                request = unpack_request(event.payload)
                answer = Response(id=request.id, status="ok", offset=request.offset, total=99, body=b"x")
                self._link.publish(request.reply, pack(answer))

    def stop(self) -> None:
        self._link.stop()


def test_link_that_hangs_up_every_second_and_a_half_completes(tmp_path: Path) -> None:
    site = released(tmp_path, padding=1_500_000)
    with (
        EmbeddedBroker() as broker,
        depots(tmp_path, broker),
        FaultProxy(broker.port, rate=600_000, cut_every_s=1.5) as link,
        carrier(link.port) as over,
    ):
        update(site, over, attempts=5)
        assert link.cuts >= 1
    assert set(over.brought.values()) == {1}, "a chunk that had been verified was fetched again"


def test_broker_killed_every_two_seconds_completes_and_fetches_no_verified_chunk_twice(tmp_path: Path) -> None:
    site = released(tmp_path, padding=3_000_000)
    done = threading.Event()

    def flap(broker: EmbeddedBroker) -> None:
        while not done.wait(2.0):
            broker.kill()
            time.sleep(0.2)
            broker.start()

    with EmbeddedBroker() as broker, depots(tmp_path, broker):
        flapping = threading.Thread(target=flap, args=(broker,))
        with FaultProxy(broker.port, rate=1_000_000) as link, carrier(link.port) as over:
            flapping.start()
            try:
                update(site, over, attempts=5)
            finally:
                done.set()
                flapping.join()
    assert set(over.brought.values()) == {1}


def test_depot_killed_in_the_middle_leaves_its_work_to_the_other(tmp_path: Path) -> None:
    site = released(tmp_path, padding=3_000_000)
    with Mosquitto(tmp_path) as broker, depots(tmp_path, broker, "depot", "second") as stage:
        with FaultProxy(broker.port, rate=1_500_000) as link, connected(link.port) as over:
            counting = CountingCarrier(over, 10, lambda: os.kill(stage.pid("second"), signal.SIGKILL))
            update(site, counting, attempts=1)
        stage.wait("second")
        assert set(counting.brought.values()) == {1}
        assert given(stage) > 1_000_000, "the one that lived gave out the rest"


def test_release_that_came_by_mqtt_stick_and_http_is_fetched_once(tmp_path: Path) -> None:
    site = released(tmp_path, padding=3_000_000)
    stick = tmp_path / "stick"
    shutil.copytree(site.repository, stick)
    with Mosquitto(tmp_path) as broker, depots(tmp_path, broker), connected(broker.port) as over:
        first = CountingCarrier(over, 6)
        assert troubles(site.look(first)) == [("transport", "not-found")]
    second = CountingCarrier(DirectoryTransport(stick), 6, lambda: shutil.move(stick, tmp_path / "pulled out"))
    assert troubles(site.look(second)) == [("transport", "not-found")]
    with WebSite(site.repository) as web:
        third = CountingCarrier(HttpTransport(web.url, timeout_s=10.0))
        assert names(site.look(third))[-1] == "Stored"
    chunks = first.brought + second.brought + third.brought
    assert set(chunks.values()) == {1}, "a chunk that had been verified was fetched again"
    assert min(first.brought.total(), second.brought.total(), third.brought.total()) >= 6
    (folder,) = site.state.releases.iterdir()
    assert chunks.total() == sum(len(entry.chunks) for entry in read_manifest(folder)[0].files)
