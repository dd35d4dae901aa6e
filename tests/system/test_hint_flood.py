"""Whoever may publish can hint at something new as often as they like: the device looks ever more rarely."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import psutil
import pytest
from support.sites.fleet_site import Site

from edge_agent.config.agent_toml import BrokerConfig
from edge_agent.mqtt.client import MqttLink
from edge_contracts.codec import encode
from edge_contracts.topics import hint_topic
from edge_contracts.transfer import Hint
from edgewright.demo.stage import wait_for

pytestmark = pytest.mark.timeout(120)

FLOOD_S = 20.0
LOOKS = 4
"""At 0, 5 and 15 seconds, and one more for slow machines."""


@contextmanager
def flood(site: Site) -> Iterator[set[int]]:
    """Publish false hints, fifty a second, each naming another version; yields the updaters seen so far."""
    settings = BrokerConfig(host="127.0.0.1", port=site.broker.port, protocol="3.1.1")
    link = MqttLink(settings, "flooder", (), lambda _event: None)
    link.start()
    assert link.wait_connected(10)
    seen: set[int] = set()
    over = threading.Event()

    def publish() -> None:
        supervisor = psutil.Process(site.pid("agent"))
        for version in itertools.count(10**6):
            if over.wait(0.02):
                return
            link.publish(hint_topic("default"), encode(Hint(timestamp_version=version)), qos=0, retain=True)
            seen.update(child.pid for child in supervisor.children() if is_updater(child))

    thread = threading.Thread(target=publish)
    thread.start()
    try:
        yield seen
    finally:
        over.set()
        thread.join()
        link.stop()


def is_updater(process: psutil.Process) -> bool:
    try:
        return "edge_agent.updater" in process.cmdline()
    except psutil.Error:
        return False


@pytest.fixture
def patient(serving: Site) -> Site:
    """A site whose device looks by itself only once an hour."""
    serving.stop("agent")
    serving.poll_s = 3600.0
    serving.start_agent()
    newest = serving.newest_timestamp()
    wait_for("the first look", lambda: serving.status()["trusted"].get("timestamp") == newest)
    return serving


def test_flood_of_false_hints_costs_a_few_looks(patient: Site) -> None:
    with flood(patient) as looks:
        threading.Event().wait(FLOOD_S)
        patient.serves("1.0.0")
    assert 1 <= len(looks) <= LOOKS


def test_release_arrives_in_a_flood_of_false_hints(patient: Site) -> None:
    with flood(patient):
        patient.publish("1.1.0", padding=500_000)
        patient.roll_out("1.1.0")
        patient.wait_for_state("committed", "1.1.0", timeout_s=60)
