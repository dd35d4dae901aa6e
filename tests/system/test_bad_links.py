"""An update over links that are slow, far away or keep hanging up: it completes, and asks for little twice."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from brokers import EmbeddedBroker, Mosquitto
from fault_proxy import FaultProxy
from update_site import UpdateSite, names, troubles

from edge_agent.adapters.mqtt_carrier import MqttCarrier
from edge_agent.config import BrokerConfig
from edge_agent.ports import Carrier, ObjectKind
from edgewright.demo.stage import Stage

pytestmark = pytest.mark.timeout(150)


class CountingCarrier:
    """Counts which pieces another carrier has brought."""

    def __init__(self, inner: Carrier) -> None:
        self.brought: Counter[tuple[str, int]] = Counter()
        self._inner = inner

    def read(self, kind: ObjectKind, name: str, offset: int, length: int) -> tuple[bytes, int]:
        answer = self._inner.read(kind, name, offset, length)
        if kind == "blob":
            self.brought[name, offset] += 1
        return answer


@contextmanager
def depot(folder: Path, broker: EmbeddedBroker | Mosquitto) -> Iterator[None]:
    """A depot on the fleet's repository."""
    with Stage(folder) as stage:
        options = ("--broker", f"127.0.0.1:{broker.port}", "--protocol", "3.1.1")
        stage.start("depot", "fleet", "depot", str(folder / "fleet"), *options, ready="depot ready")
        yield


@contextmanager
def carrier(port: int) -> Iterator[CountingCarrier]:
    """A device's carrier over the bad link."""
    mqtt = MqttCarrier(BrokerConfig(host="127.0.0.1", port=port, protocol="3.1.1"), "default", "dev-1", timeout_s=30.0)
    try:
        yield CountingCarrier(mqtt)
    finally:
        mqtt.close()


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


def test_link_of_30_kilobytes_a_second_completes_and_asks_for_nothing_twice(tmp_path: Path) -> None:
    site = released(tmp_path, padding=600_000)
    with (
        Mosquitto(tmp_path) as broker,
        depot(tmp_path, broker),
        FaultProxy(broker.port, rate=30_000, delay_s=0.3) as link,
        carrier(link.port) as over,
    ):
        update(site, over, attempts=1)
        received = link.received
    files = sum(path.stat().st_size for path in (tmp_path / "bundle-1.0.0").rglob("*") if path.is_file())
    metadata = sum(path.stat().st_size for path in (site.repository / "metadata").iterdir())
    assert received < 1.05 * (files + metadata) + 10_000, "answers were asked for again that were only slow"


def test_link_that_hangs_up_every_second_and_a_half_completes(tmp_path: Path) -> None:
    site = released(tmp_path, padding=1_500_000)
    with (
        EmbeddedBroker() as broker,
        depot(tmp_path, broker),
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

    with EmbeddedBroker() as broker, depot(tmp_path, broker):
        flapping = threading.Thread(target=flap, args=(broker,))
        with FaultProxy(broker.port, rate=1_000_000) as link, carrier(link.port) as over:
            flapping.start()
            try:
                update(site, over, attempts=5)
            finally:
                done.set()
                flapping.join()
    assert set(over.brought.values()) == {1}
