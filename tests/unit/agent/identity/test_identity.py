"""The device's identity: on the disk, renewed in time, judged by a clock that may be wrong, and how TLS uses it."""

from __future__ import annotations

import ssl
import time
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import Encoding, load_pem_private_key
from hypothesis import given
from hypothesis import strategies as st
from support.brokers.broker_identities import Authority
from support.parts.identity import settings

from edge_agent.enrollment.certificates import CertificateSubject, accept, new_key
from edge_agent.errors import CertificateError
from edge_agent.identity.files import IdentityFolder, IdentityPaths
from edge_agent.identity.validity import RENEW_AFTER, SPREAD, Enrolled, believed_time, renewal_time, standing
from edge_agent.mqtt.tls import X509_V_FLAG_NO_CHECK_TIME, tls_context
from edge_agent.storage.durable import StateError
from edge_fleet.identity import authority as ca

DAY = 86400.0
SPAN = Enrolled(device="dev-1", tenant="default", serial="abc", begin=1000 * DAY, end=1090 * DAY)
PAPERS = IdentityPaths(certificate=b"certificate", key=b"key", ca=b"ca", issuer=b"issuer")


# When


@given(chance=st.floats(0, 1, exclude_max=True))
def test_renewal_is_due_after_two_thirds_of_the_life_and_before_three_quarters(chance: float) -> None:
    due = renewal_time(SPAN, chance)
    assert 1060 * DAY <= due <= 1060 * DAY + SPREAD * 90 * DAY
    assert standing(SPAN, due - 1, chance) == "good"
    assert standing(SPAN, due, chance) == "due"
    assert RENEW_AFTER + SPREAD < 0.75


def test_a_certificate_is_expired_from_its_end_on() -> None:
    assert standing(SPAN, 1090 * DAY - 1) == "due"
    assert standing(SPAN, 1090 * DAY) == "expired"


def test_a_clock_at_1970_makes_no_certificate_young_or_expired() -> None:
    assert believed_time(0.0, 0.0, SPAN) == SPAN.begin
    assert standing(SPAN, believed_time(0.0, 0.0, SPAN)) == "good"
    assert standing(SPAN, believed_time(0.0, 1095 * DAY, SPAN)) == "expired", "verified metadata is newer"


# On the disk


def test_a_new_identity_takes_the_place_of_the_old_and_one_before_it_stays(tmp_path: Path) -> None:
    folder = IdentityFolder(tmp_path / "identity")
    assert folder.current() is None
    for serial in ("a1", "b2", "c3"):
        with folder.hold():
            folder.keep_key(b"key")
            folder.adopt(Enrolled(device="dev-1", tenant="default", serial=serial, begin=0.0, end=1.0), PAPERS)
    found = folder.current()
    assert found is not None
    assert found.serial == "c3"
    assert folder.pending_key() is None
    assert sorted(path.name for path in folder.root.iterdir()) == ["b2", "c3", "current.json", "lock"]
    key = folder.files(found).key
    assert (key.read_bytes(), key.stat().st_mode & 0o777) == (b"key", 0o600)
    assert folder.root.stat().st_mode & 0o077 == 0


def test_a_key_waits_on_the_disk_readable_by_its_owner_only(tmp_path: Path) -> None:
    folder = IdentityFolder(tmp_path / "identity")
    with folder.hold():
        folder.keep_key(b"secret")
    assert folder.pending_key() == b"secret"
    assert (folder.root / "pending.key").stat().st_mode & 0o777 == 0o600


def test_a_damaged_record_is_said_and_not_taken_for_none(tmp_path: Path) -> None:
    folder = IdentityFolder(tmp_path)
    (tmp_path / "current.json").write_bytes(b"{")
    with pytest.raises(StateError):
        folder.current()


# What is accepted


def issued(folder: Path, device: str, key: bytes) -> tuple[bytes, CertificateSubject]:
    """Return a certificate of a new authority for the key, and what the device waits for."""
    authority = ca.Authority(folder / "authority")
    now = datetime.now(UTC)
    authority.create(now)
    public = load_pem_private_key(key, password=None).public_key()
    term = ca.Term.starting(now, timedelta(days=1))
    certificate = authority.sign_client(ca.DEVICE_CA, device, public, term)  # type: ignore[arg-type]
    issuer = authority.pem(ca.DEVICE_CA)
    wanted = CertificateSubject(claim="claim-1", device="dev-1", tenant="default", key=key, ca=b"", issuer=issuer)
    return certificate.public_bytes(Encoding.DER), wanted


def test_a_certificate_for_the_devices_name_and_key_is_accepted(tmp_path: Path) -> None:
    key = new_key()
    der, wanted = issued(tmp_path, "dev-1", key)
    enrolled, papers = accept(der, wanted)
    assert (enrolled.device, papers.key) == ("dev-1", key)
    assert enrolled.begin < time.time() < enrolled.end


def test_a_certificate_for_another_key_name_or_authority_is_refused(tmp_path: Path) -> None:
    key = new_key()
    der, wanted = issued(tmp_path / "mine", "dev-1", key)
    other_name, of_name = issued(tmp_path / "name", "dev-2", key)
    foreign, _ = issued(tmp_path / "stranger", "dev-1", key)
    other_key = replace(wanted, key=new_key())
    for answer, expected in ((der, other_key), (other_name, of_name), (foreign, wanted), (b"\x30\x03abc", wanted)):
        with pytest.raises(CertificateError):
            accept(answer, expected)


def test_with_a_clock_that_may_be_right_terms_are_checked(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    broker = settings(authority, 1, authority.issue("dev-a"))
    assert not tls_context(broker, clock=time.time()).verify_flags & X509_V_FLAG_NO_CHECK_TIME
    assert tls_context(broker, clock=0.0).verify_mode == ssl.CERT_REQUIRED
    assert tls_context(broker, clock=0.0).check_hostname
