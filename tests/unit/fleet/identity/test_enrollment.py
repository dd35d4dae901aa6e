"""Who gets a certificate, decided on bytes: what was lost is given again; what is forged, used or late is refused."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, load_pem_private_key
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from support.makers import fleets

from edge_contracts.codec import encode
from edge_contracts.enrollment import CertificateAnswer, CertificateRequest, parse_certificate_answer, signed_part
from edge_contracts.limits import MAX_ENROLLMENT_BYTES
from edge_contracts.topics import claim_topic, device_topic
from edge_fleet.database.certificates import MAX_SUCCESSORS, CertificateStore
from edge_fleet.errors import FleetError, KeyExposedError
from edge_fleet.identity.authority import CLAIM_CA, DEVICE_CA, Authority, Term, common_name
from edge_fleet.identity.claims import (
    ClaimOrder,
    authority_of,
    found_authority,
    make_claim,
    write_client_files,
    write_revocations,
)
from edge_fleet.identity.enrollment import Enrollment, utc_text
from edge_fleet.signing.workspace import FleetWorkspace

NOW = datetime(2026, 11, 22, 6, tzinfo=UTC)
NONCE = "0123456789abcdef" * 2
Key = ec.EllipticCurvePrivateKey


@dataclass(frozen=True, kw_only=True)
class Asker:
    """A certificate and its key: a claim's or a device's."""

    name: str
    certificate: x509.Certificate
    key: Key


class Office:
    """A fleet with an authority, its store and the service's decisions."""

    def __init__(self, fleet: FleetWorkspace) -> None:
        self.fleet = fleet
        self.authority = found_authority(fleet, NOW)
        self.store = CertificateStore(fleet.store_url)
        self.enrollment = Enrollment("default", self.authority, self.store)

    def claim(self, device: str = "dev-1", life: timedelta = timedelta(days=7)) -> Asker:
        """Make a claim and return its identity."""
        claim = make_claim(self.fleet, self.store, ClaimOrder(device=device, host="b", port=1), life, NOW)
        key = load_pem_private_key(claim.key.encode(), password=None)
        assert isinstance(key, Key)
        return Asker(name=claim.claim, certificate=x509.load_pem_x509_certificate(claim.certificate.encode()), key=key)

    def redeem(self, claim: Asker, key: Key, now: datetime = NOW) -> CertificateAnswer:
        """Ask with a claim for a certificate for `key`."""
        return self.ask(claim_topic("default", claim.name, "req"), request(claim, key), now)

    def enrolled(self, device: str = "dev-1") -> Asker:
        """Return a device with its first certificate."""
        key = new_key()
        return Asker(name=device, certificate=certificate(self.redeem(self.claim(device), key)), key=key)

    def renew(self, device: Asker, key: Key, now: datetime = NOW) -> CertificateAnswer:
        """Ask with a device's certificate for the next."""
        return self.ask(device_topic("default", device.name, "renew"), request(device, key), now)

    def ask(self, topic: str, asked: CertificateRequest, now: datetime = NOW) -> CertificateAnswer:
        """Ask, and check that the answer goes to who asked."""
        answer = self.enrollment.answer(topic, encode(asked), now)
        assert answer is not None
        assert answer[0] == topic.replace("/req", "/rsp").replace("/renew", "/certificate")
        return parse_certificate_answer(answer[1])


def new_key() -> Key:
    return ec.generate_private_key(ec.SECP256R1())


def csr(key: Key | ed25519.Ed25519PrivateKey | rsa.RSAPrivateKey, subject: str = "") -> bytes:
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, subject)] if subject else [])
    algorithm = None if isinstance(key, ed25519.Ed25519PrivateKey) else hashes.SHA256()
    draft = x509.CertificateSigningRequestBuilder().subject_name(name)
    draft = draft.add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
    return draft.sign(key, algorithm).public_bytes(Encoding.DER)


def request(asker: Asker, key: Key, body: bytes | None = None) -> CertificateRequest:
    body = body or csr(key)
    signature = asker.key.sign(signed_part(NONCE, body), ec.ECDSA(hashes.SHA256()))
    return CertificateRequest(
        nonce=NONCE, certificate=asker.certificate.public_bytes(Encoding.DER), csr=body, signature=signature
    )


def certificate(answer: CertificateAnswer) -> x509.Certificate:
    assert answer.certificate is not None, answer.refused
    return x509.load_der_x509_certificate(answer.certificate)


@pytest.fixture(name="office")
def _office(tmp_path: Path) -> Iterator[Office]:
    office = Office(fleets.make_fleet(tmp_path))
    yield office
    office.store.close()


def test_a_claim_gets_one_certificate_for_the_devices_name_and_key(office: Office) -> None:
    key = new_key()
    found = certificate(office.redeem(office.claim("dev-1"), key))
    assert common_name(found) == "dev-1"
    assert found.public_key() == key.public_key()
    assert office.authority.signed(DEVICE_CA, found)
    assert found.not_valid_after_utc == NOW + timedelta(days=90)
    usage = found.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert list(usage) == [ExtendedKeyUsageOID.CLIENT_AUTH]


def test_asking_again_after_a_lost_answer_gives_the_same_certificate(office: Office) -> None:
    claim, key = office.claim(), new_key()
    first = certificate(office.redeem(claim, key))
    assert certificate(office.redeem(claim, key, NOW + timedelta(hours=1))) == first
    assert len(office.store.certificates("dev-1")) == 1


def test_a_certificate_is_in_the_store_before_it_is_answered(office: Office) -> None:
    answered = certificate(office.redeem(office.claim(), new_key()))
    again = CertificateStore(office.fleet.store_url)
    stored = again.certificate(f"{answered.serial_number:x}")
    again.close()
    assert stored is not None
    assert x509.load_pem_x509_certificate(stored.certificate.encode()) == answered


def test_a_used_claim_gives_nothing_to_another_key(office: Office) -> None:
    claim, key = office.claim(), new_key()
    certificate(office.redeem(claim, key))
    assert office.redeem(claim, new_key()).refused == "used"
    assert office.redeem(claim, key).certificate is not None
    assert len(office.store.certificates("dev-1")) == 1


def test_an_expired_claim_is_refused(office: Office) -> None:
    claim = office.claim(life=timedelta(hours=1))
    assert office.redeem(claim, new_key(), NOW + timedelta(hours=2)).refused == "expired"


def test_a_request_that_names_another_device_gets_a_certificate_for_its_own(office: Office) -> None:
    claim, key = office.claim("dev-a"), new_key()
    asked = request(claim, key, csr(key, subject="dev-b"))
    found = certificate(office.ask(claim_topic("default", claim.name, "req"), asked))
    assert common_name(found) == "dev-a"
    assert not found.extensions.get_extension_for_class(x509.BasicConstraints).value.ca


def test_whoever_owns_the_broker_cannot_ask_with_a_key_of_his_own(office: Office) -> None:
    claim, device, thief = office.claim("dev-a"), office.enrolled("dev-b"), new_key()
    for asker, topic in (
        (claim, claim_topic("default", claim.name, "req")),
        (device, device_topic("default", device.name, "renew")),
    ):
        forged = Asker(name=asker.name, certificate=asker.certificate, key=thief)
        assert office.ask(topic, request(forged, thief)).refused == "unknown"


def test_a_claim_of_another_device_or_fleet_is_unknown(office: Office, tmp_path: Path) -> None:
    claim, other = office.claim("dev-a"), office.claim("dev-b")
    topic = claim_topic("default", claim.name, "req")
    assert office.ask(topic, request(other, new_key())).refused == "unknown"
    stranger = Office(fleets.make_fleet(tmp_path / "stranger"))
    assert office.redeem(stranger.claim(), new_key()).refused == "unknown"
    stranger.store.close()


def test_a_claim_that_the_fleet_did_not_make_is_unknown(office: Office) -> None:
    key = new_key()
    term = Term.starting(NOW, timedelta(days=1))
    forged = office.authority.sign_client(CLAIM_CA, "claim-forged", key.public_key(), term)
    asker = Asker(name="claim-forged", certificate=forged, key=key)
    assert office.redeem(asker, new_key()).refused == "unknown"


def test_a_device_cannot_renew_as_another(office: Office) -> None:
    device = office.enrolled("dev-a")
    office.enrolled("dev-b")
    assert office.ask(device_topic("default", "dev-b", "renew"), request(device, new_key())).refused == "unknown"


def test_a_claim_cannot_renew_and_a_certificate_cannot_redeem(office: Office) -> None:
    claim, device = office.claim("dev-a"), office.enrolled("dev-a")
    assert office.ask(device_topic("default", "dev-a", "renew"), request(claim, new_key())).refused == "unknown"
    assert office.ask(claim_topic("default", claim.name, "req"), request(device, new_key())).refused == "unknown"


def test_renewal_gives_a_new_certificate_and_again_the_same_for_the_same_key(office: Office) -> None:
    device, key, later = office.enrolled(), new_key(), NOW + timedelta(days=60)
    renewed = certificate(office.renew(device, key, later))
    assert common_name(renewed) == "dev-1"
    assert renewed.not_valid_after_utc == later + timedelta(days=90)
    assert certificate(office.renew(device, key, later)) == renewed


def test_an_expired_certificate_is_not_renewed(office: Office) -> None:
    assert office.renew(office.enrolled(), new_key(), NOW + timedelta(days=91)).refused == "expired"


def test_one_certificate_is_renewed_a_few_times_only(office: Office) -> None:
    device = office.enrolled()
    answers = [office.renew(device, new_key()).refused for _ in range(MAX_SUCCESSORS + 1)]
    assert answers == [None] * MAX_SUCCESSORS + ["too-often"]


def test_a_revoked_device_gets_no_renewal_and_its_claims_are_void(office: Office) -> None:
    device, unused = office.enrolled("dev-1"), office.claim("dev-1")
    office.store.revoke("dev-1", utc_text(NOW))
    assert office.renew(device, new_key()).refused == "revoked"
    assert office.redeem(unused, new_key()).refused == "revoked"
    assert certificate(office.redeem(office.claim("dev-1"), new_key())), "an operator may take it back"


def test_revocation_lists_every_good_certificate_of_the_device_and_no_other(office: Office) -> None:
    device, other = office.enrolled("dev-1"), office.enrolled("dev-2")
    renewed = certificate(office.renew(device, new_key()))
    office.store.revoke("dev-1", utc_text(NOW))
    path = write_revocations(office.fleet, office.store, NOW)
    found = x509.load_pem_x509_crl(path.read_bytes())
    assert {entry.serial_number for entry in found} == {device.certificate.serial_number, renewed.serial_number}
    assert found.get_revoked_certificate_by_serial_number(other.certificate.serial_number) is None
    assert found.is_signature_valid(office.authority.certificate(DEVICE_CA).public_key())  # type: ignore[arg-type]
    again = x509.load_pem_x509_crl(write_revocations(office.fleet, office.store, NOW).read_bytes())
    assert again.last_update_utc > found.last_update_utc, "a running broker believes the newer list"


@pytest.mark.parametrize("name", ["depot", "controller", "enrolment"])
def test_no_device_gets_the_name_of_a_service(office: Office, name: str) -> None:
    with pytest.raises(FleetError):
        office.claim(name)


def test_only_two_kinds_of_key_are_certified(office: Office) -> None:
    keys = (rsa.generate_private_key(65537, 2048), ec.generate_private_key(ec.SECP384R1()))
    for key in keys:
        claim = office.claim()
        asked = request(claim, new_key(), csr(key))
        assert office.ask(claim_topic("default", claim.name, "req"), asked).refused == "malformed"
    claim = office.claim()
    asked = request(claim, new_key(), csr(ed25519.Ed25519PrivateKey.generate()))
    assert certificate(office.ask(claim_topic("default", claim.name, "req"), asked))


def test_a_certification_request_with_a_false_signature_is_refused(office: Office) -> None:
    claim, body = office.claim(), bytearray(csr(new_key()))
    body[-3] ^= 1
    asked = request(claim, new_key(), bytes(body))
    assert office.ask(claim_topic("default", claim.name, "req"), asked).refused == "malformed"


def test_an_oversized_or_senseless_request_is_dropped_before_it_is_parsed(office: Office) -> None:
    claim = office.claim()
    topic = claim_topic("default", claim.name, "req")
    asked = request(claim, new_key())
    huge = CertificateRequest(nonce=NONCE, certificate=asked.certificate, csr=b"0" * 3000, signature=b"")
    for payload in (encode(huge), b"0" * (MAX_ENROLLMENT_BYTES + 1), b"{", b"", encode(asked)[:-9]):
        assert office.enrollment.answer(topic, payload, NOW) is None
    assert office.enrollment.counts["malformed"] == 5
    noise = CertificateRequest(nonce=NONCE, certificate=b"x", csr=b"y", signature=b"z")
    assert office.ask(topic, noise).refused == "malformed"


def test_an_authority_is_never_overwritten_and_its_keys_are_private(office: Office) -> None:
    with pytest.raises(FleetError):
        found_authority(office.fleet, NOW)
    for path in authority_of(office.fleet).folder.glob("*.key"):
        assert path.stat().st_mode & 0o777 == 0o600
        path.chmod(0o640)
        with pytest.raises(KeyExposedError):
            Authority(path.parent).check_key(path.stem)  # type: ignore[arg-type]


def test_a_name_on_the_broker_belongs_to_a_device_or_to_another_client_and_never_to_both(
    office: Office, tmp_path: Path
) -> None:
    row = write_client_files(office.fleet, office.store, "sensor-1", tmp_path, NOW)
    made = x509.load_pem_x509_certificate((tmp_path / "sensor-1.pem").read_bytes())
    assert (common_name(made), row.device) == ("sensor-1", "sensor-1")
    assert (tmp_path / "sensor-1.key").stat().st_mode & 0o077 == 0
    with pytest.raises(FleetError, match="another client"):
        office.claim("sensor-1")
    office.enrolled("dev-1")
    office.claim("dev-2")
    for name in ("dev-1", "dev-2", "depot", "enrolment"):
        with pytest.raises(FleetError, match=f"{name}' is the name of a (device|service)"):
            write_client_files(office.fleet, office.store, name, tmp_path, NOW)
        assert not (tmp_path / f"{name}.key").exists()
    office.store.revoke("sensor-1", utc_text(NOW))
    assert office.enrolled("sensor-1").name == "sensor-1", "a revoked client's name is free again"
