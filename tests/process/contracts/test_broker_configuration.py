"""The shipped Mosquitto configuration, enforced by a real Mosquitto: a device sees and writes what is its own."""

from __future__ import annotations

import ssl
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.brokers.broker_identities import Authority, Identity
from support.brokers.brokers import Mosquitto
from support.brokers.shipped_broker import CONFIGS, Ports, shipped_lines

from edge_contracts.topics import (
    DEPOT_GROUP,
    INGEST_GROUP,
    all_devices,
    claim_topic,
    collector_topic,
    device_topic,
    hint_topic,
    shared,
)

ANY = "ANY"  # stands for the level the ACL writes as %u or +


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("broker")


@pytest.fixture(scope="module")
def authority(folder: Path) -> Authority:
    return Authority(folder)


@pytest.fixture(scope="module")
def ports() -> Ports:
    return Ports()


@pytest.fixture(scope="module")
def broker(folder: Path, authority: Authority, ports: Ports) -> Iterator[Mosquitto]:
    with Mosquitto(folder, lines=shipped_lines(folder, ports), port=ports.devices) as running:
        yield running


class Fleet:
    """Makes clients by common name and closes them all."""

    def __init__(self, broker: Mosquitto, authority: Authority) -> None:
        self._broker = broker
        self._authority = authority
        self._made: list[Identity] = []

    def join(self, name: str, *topics: str, username: str | None = None) -> Identity:
        pair = self._authority.issue(name)
        identity = Identity(self._broker.port, self._authority.file, pair, username=username)
        self._made.append(identity)
        identity.subscribe(*topics)
        return identity

    def close(self) -> None:
        for identity in self._made:
            identity.close()


@pytest.fixture
def fleet(broker: Mosquitto, authority: Authority) -> Iterator[Fleet]:
    fleet = Fleet(broker, authority)
    yield fleet
    fleet.close()


def own(device: str, topic: str, nonce: str | None = None) -> str:
    return device_topic("default", device, topic, nonce)  # type: ignore[arg-type]


def granted(file: str) -> set[tuple[str, str, str]]:
    """Return who, how and where, as the file says."""
    found: set[tuple[str, str, str]] = set()
    who = "pattern"
    for line in (CONFIGS / file).read_text().splitlines():
        if line.startswith("user "):
            who = line.split()[1]
        elif line and line[0] != "#":
            kind, access, topic = line.split()
            assert kind == ("pattern" if who == "pattern" else "topic")
            found.add((who, access, topic))
    return found


def test_acl_covers_exactly_the_topic_tree() -> None:
    device = {
        (access, own(ANY, topic).replace(ANY, "%u"))
        for access, topic in [
            ("readwrite", "presence"),
            ("write", "reported"),
            ("write", "tele"),
            ("write", "req"),
            ("write", "renew"),
            ("read", "certificate"),
            ("read", "collector"),
        ]
    }
    answers = own(ANY, "rsp", ANY)
    collectors = collector_topic("default", "+")
    device |= {("read", answers.replace(ANY, "%u", 1).replace(ANY, "+"))}
    device |= {("read", hint_topic("default")), ("read", collectors)}
    depot = {
        ("read", all_devices("default", "req")),
        ("write", answers.replace(ANY, "+")),
        ("write", hint_topic("default")),
    }
    controller = {("read", all_devices("default", topic)) for topic in ("presence", "reported", "tele")}
    controller |= {("write", collectors), ("write", all_devices("default", "collector"))}
    enrollment = {
        ("read", claim_topic("default", "+", "req")),
        ("write", claim_topic("default", "+", "rsp")),
        ("read", all_devices("default", "renew")),
        ("write", all_devices("default", "certificate")),
    }
    expected = {"pattern": device, "depot": depot, "controller": controller, "enrolment": enrollment}
    assert granted("acl") == {(who, access, topic) for who, rights in expected.items() for access, topic in rights}


def test_a_claim_may_ask_and_be_answered_and_nothing_else() -> None:
    asked, answered = (claim_topic("default", ANY, topic).replace(ANY, "%u") for topic in ("req", "rsp"))  # type: ignore[arg-type]
    assert granted("acl-enrollment") == {("pattern", "write", asked), ("pattern", "read", answered)}


def test_a_device_reports_under_its_own_name(fleet: Fleet) -> None:
    controller = fleet.join("controller", *(all_devices("default", t) for t in ("presence", "reported", "tele")))
    device = fleet.join("dev-a")
    for topic in ("presence", "reported", "tele"):
        device.publish(own("dev-a", topic), topic.encode())
    controller.wait_for(b"tele")
    assert {name for name, _ in controller.received} == {own("dev-a", t) for t in ("presence", "reported", "tele")}


def test_device_a_cannot_write_the_topics_of_device_b(fleet: Fleet) -> None:
    controller = fleet.join("controller", *(all_devices("default", t) for t in ("presence", "reported", "tele")))
    depot = fleet.join("depot", all_devices("default", "req"))
    attacker = fleet.join("dev-a")
    for topic in ("presence", "reported", "tele", "req"):
        attacker.publish(own("dev-b", topic), b"forged")
    attacker.publish(own("dev-a", "tele"), b"last")
    attacker.publish(own("dev-a", "req"), b"last")
    assert controller.wait_for(b"last") == [(own("dev-a", "tele"), b"last")]
    assert depot.wait_for(b"last") == [(own("dev-a", "req"), b"last")]


def test_device_a_cannot_read_the_responses_or_requests_of_device_b(fleet: Fleet) -> None:
    attacker = fleet.join("dev-a", "#", own("dev-b", "rsp", "n1"), all_devices("default", "rsp") + "/+", "ew/v1/#")
    victim = fleet.join("dev-b", own("dev-b", "rsp", "n1"))
    depot = fleet.join("depot")
    victim.publish(own("dev-b", "req"), b"secret question")
    depot.publish(own("dev-b", "rsp", "n1"), b"secret answer")
    assert victim.wait_for(b"secret answer") == [(own("dev-b", "rsp", "n1"), b"secret answer")]
    depot.publish(own("dev-a", "rsp", "n2"), b"mine")
    assert {body for _, body in attacker.wait_for(b"mine")} == {b"mine"}


def test_a_device_cannot_answer_in_place_of_a_depot(fleet: Fleet) -> None:
    victim = fleet.join("dev-b", own("dev-b", "rsp", "n1"), hint_topic("default"))
    attacker = fleet.join("dev-a")
    attacker.publish(own("dev-b", "rsp", "n1"), b"forged")
    attacker.publish(hint_topic("default"), b"forged")
    fleet.join("depot").publish(own("dev-b", "rsp", "n1"), b"true")
    assert victim.wait_for(b"true") == [(own("dev-b", "rsp", "n1"), b"true")]


def test_the_user_name_is_the_certificates_whatever_the_client_claims(fleet: Fleet) -> None:
    controller = fleet.join("controller", all_devices("default", "tele"))
    attacker = fleet.join("dev-a", username="dev-b")
    attacker.publish(own("dev-b", "tele"), b"forged")
    attacker.publish(own("dev-a", "tele"), b"last")
    assert controller.wait_for(b"last") == [(own("dev-a", "tele"), b"last")]


def test_depots_and_ingesters_share_their_subscriptions(fleet: Fleet) -> None:
    depot = fleet.join("depot", shared(DEPOT_GROUP, all_devices("default", "req")))
    ingest = fleet.join("controller", shared(INGEST_GROUP, all_devices("default", "tele")))
    device = fleet.join("dev-a")
    device.publish(own("dev-a", "req"), b"question")
    device.publish(own("dev-a", "tele"), b"window")
    depot.wait_for(b"question")
    ingest.wait_for(b"window")


def test_no_certificate_no_connection(broker: Mosquitto, authority: Authority) -> None:
    with pytest.raises((ssl.SSLError, ConnectionError)):
        Identity(broker.port, authority.file, None, username="dev-a")


def test_a_certificate_of_another_authority_is_refused(broker: Mosquitto, authority: Authority, tmp_path: Path) -> None:
    stranger = Authority(tmp_path).issue("dev-a")
    before = len(broker.log.read_text())
    with pytest.raises((ssl.SSLError, ConnectionError)):
        Identity(broker.port, authority.file, stranger)
    deadline = time.monotonic() + 10
    while "certificate verify failed" not in (said := broker.log.read_text()[before:]):
        assert time.monotonic() < deadline, said
        time.sleep(0.05)
    assert " as dev-a " not in said


def test_a_claim_reads_no_other_topic_and_is_refused_where_devices_are(
    broker: Mosquitto, authority: Authority, ports: Ports, fleet: Fleet
) -> None:
    pair = authority.issue_claim("claim-1")
    with pytest.raises((ssl.SSLError, ConnectionError)):
        Identity(broker.port, authority.file, pair)
    claim = Identity(ports.claims, authority.file, pair)
    claim.subscribe("#", hint_topic("default"), claim_topic("default", "claim-2", "rsp"))
    claim.subscribe(own("claim-1", "rsp", "n1"), claim_topic("default", "claim-1", "rsp"))
    controller = fleet.join("controller", *(all_devices("default", t) for t in ("presence", "reported", "tele")))
    service = fleet.join("enrolment", claim_topic("default", "+", "req"))
    for topic in ("presence", "reported", "tele", "req", "renew"):
        claim.publish(own("claim-1", topic), b"forged")
    claim.publish(claim_topic("default", "claim-2", "req"), b"forged")
    claim.publish(claim_topic("default", "claim-1", "req"), b"question")
    assert service.wait_for(b"question") == [(claim_topic("default", "claim-1", "req"), b"question")]
    depot = fleet.join("depot")
    depot.publish(hint_topic("default"), b"hint", retain=True)
    depot.publish(own("claim-1", "rsp", "n1"), b"download")
    service.publish(claim_topic("default", "claim-2", "rsp"), b"another's answer")
    service.publish(claim_topic("default", "claim-1", "rsp"), b"answer")
    assert claim.wait_for(b"answer") == [(claim_topic("default", "claim-1", "rsp"), b"answer")]
    assert controller.received == []
    claim.close()


def test_a_device_is_refused_where_claims_are(broker: Mosquitto, authority: Authority, ports: Ports) -> None:
    with pytest.raises((ssl.SSLError, ConnectionError)):
        Identity(ports.claims, authority.file, authority.issue("dev-a"))


def test_a_revoked_certificate_is_refused_after_a_reload_and_others_go_on(
    broker: Mosquitto, authority: Authority, fleet: Fleet
) -> None:
    stolen, other = authority.issue("dev-stolen"), authority.issue("dev-other")
    Identity(broker.port, authority.file, stolen).close()
    authority.revoke(stolen[0])
    broker.reload()
    time.sleep(1.5)  # the list it has read is newer by a whole second
    with pytest.raises((ssl.SSLError, ConnectionError)):
        Identity(broker.port, authority.file, stolen)
    Identity(broker.port, authority.file, other).close()
