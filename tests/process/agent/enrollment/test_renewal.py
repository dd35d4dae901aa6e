"""Renewing over a broker whose owner answers, too: only a certificate that fits ends it."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, load_pem_private_key
from cryptography.x509 import load_der_x509_certificate
from msgspec.structs import replace
from support.brokers.brokers import EmbeddedBroker
from support.makers import fleets

from edge_agent.config.agent_toml import BrokerConfig
from edge_agent.enrollment.certificates import CertificateSubject, accept, new_key
from edge_agent.enrollment.client import renew
from edge_agent.errors import CertificateError
from edge_agent.identity.files import IdentityFolder
from edge_agent.mqtt.client import MqttLink
from edge_contracts.codec import encode
from edge_contracts.enrollment import CertificateAnswer, parse_certificate_request
from edge_contracts.topics import all_devices
from edge_fleet.database.certificates import CertificateStore
from edge_fleet.identity.authority import BROKER_CA, DEVICE_CA, Authority, Term
from edge_fleet.identity.claims import found_authority
from edge_fleet.identity.enrollment import DEVICE_LIFE, Enrollment, issued
from edge_io.mqtt.words import LinkEvent, MessageReceived

DEVICE = "dev-1"
NO_NONCE = "0" * 32


class Service:
    """The enrollment service; `instead` is what the broker's owner puts in the place of its next answer."""

    def __init__(self, folder: Path, broker: BrokerConfig) -> None:
        fleet = fleets.make_fleet(folder)
        self.authority = found_authority(fleet, datetime.now(UTC))
        self.store = CertificateStore(fleet.store_url)
        self.instead: CertificateAnswer | None = None
        self._enrollment = Enrollment("default", self.authority, self.store)
        self._link = MqttLink(broker, "service", ((all_devices("default", "renew"), 1),), self._hear)
        self._link.start()
        assert self._link.wait_connected(10)

    def close(self) -> None:
        self._link.stop()
        self.store.close()

    def _hear(self, event: LinkEvent) -> None:
        if not isinstance(event, MessageReceived):
            return
        answer = self._enrollment.answer(event.topic, event.payload, datetime.now(UTC))
        assert answer is not None
        topic, body = answer
        if self.instead is not None:
            body = encode(replace(self.instead, nonce=parse_certificate_request(event.payload).nonce))
            self.instead = None
        self._link.publish(topic, body, qos=1)


def certify(authority: Authority, key: bytes) -> bytes:
    """Return a certificate (DER) for the device."""
    private = load_pem_private_key(key, password=None)
    assert isinstance(private, ec.EllipticCurvePrivateKey)
    term = Term.starting(datetime.now(UTC), DEVICE_LIFE)
    certificate = authority.sign_client(DEVICE_CA, DEVICE, private.public_key(), term)
    return certificate.public_bytes(Encoding.DER)


@pytest.fixture(name="broker")
def _broker() -> Iterator[BrokerConfig]:
    with EmbeddedBroker() as broker:
        yield BrokerConfig(host="127.0.0.1", port=broker.port, protocol="3.1.1")


@pytest.fixture(name="service")
def _service(tmp_path: Path, broker: BrokerConfig) -> Iterator[Service]:
    service = Service(tmp_path, broker)
    yield service
    service.close()


@pytest.fixture(name="folder")
def _folder(tmp_path: Path, service: Service) -> IdentityFolder:
    """A device with its first identity."""
    folder, key = IdentityFolder(tmp_path / "identity"), new_key()
    authority = service.authority
    ca, issuer = authority.pem(BROKER_CA), authority.pem(DEVICE_CA)
    der = certify(authority, key)
    service.store.add_service(issued(load_der_x509_certificate(der), "claim-1", datetime.now(UTC)))
    wanted = CertificateSubject(claim="claim-1", device=DEVICE, tenant="default", key=key, ca=ca, issuer=issuer)
    with folder.hold():
        folder.adopt(*accept(der, wanted))
    return folder


def test_renewal_goes_on_after_refusals_nobody_has_signed(
    folder: IdentityFolder, service: Service, broker: BrokerConfig
) -> None:
    first = folder.current()
    service.instead = CertificateAnswer(nonce=NO_NONCE, refused="revoked")
    with pytest.raises(CertificateError, match="refused: revoked"):
        renew(folder, broker, 10)
    key = folder.pending_key()
    assert (folder.current(), key is not None) == (first, True)
    renewed = renew(folder, broker, 10)
    assert folder.current() == renewed != first
    assert folder.files(renewed).key.read_bytes() == key
    assert len(service.store.certificates(DEVICE)) == 2


def test_renewal_takes_no_certificate_that_is_not_for_its_key(
    folder: IdentityFolder, service: Service, broker: BrokerConfig
) -> None:
    first = folder.current()
    service.instead = CertificateAnswer(nonce=NO_NONCE, certificate=certify(service.authority, new_key()))
    with pytest.raises(CertificateError, match="another device name or key"):
        renew(folder, broker, 10)
    assert folder.current() == first
