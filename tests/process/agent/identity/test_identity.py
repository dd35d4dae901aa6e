"""The device's identity: on the disk, renewed in time, judged by a clock that may be wrong, and how TLS uses it."""

from __future__ import annotations

import socket
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
from support.brokers.brokers import Mosquitto
from support.brokers.shipped_broker import Ports, shipped_lines

from edge_agent.config.agent_toml import BrokerConfig
from edge_agent.enrollment.certificates import CertificateSubject, accept, new_key
from edge_agent.errors import CertificateError
from edge_agent.identity.files import IdentityFolder, IdentityPaths
from edge_agent.identity.validity import RENEW_AFTER, SPREAD, Enrolled, believed_time, renewal_time, standing
from edge_agent.mqtt.client import Connected, Disconnected, LinkEvent, MqttLink
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


# Over TLS


def settings(authority: Authority, port: int, pair: tuple[Path, Path]) -> BrokerConfig:
    certificate, key = map(str, pair)
    return BrokerConfig(
        host="127.0.0.1",
        port=port,
        tls=True,
        ca_file=str(authority.file),
        certificate_file=certificate,
        key_file=key,
    )


def shake_hands(context: ssl.SSLContext, port: int) -> None:
    with socket.create_connection(("127.0.0.1", port)) as plain:
        context.wrap_socket(plain, server_hostname="127.0.0.1").close()


def first_event(broker: BrokerConfig) -> LinkEvent:
    """Return the first event of a connection."""
    events: list[LinkEvent] = []
    link = MqttLink(broker, "dev-a", (), events.append)
    link.start()
    deadline = time.monotonic() + 20
    while not events:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    link.stop()
    return events[0]


def test_a_refused_certificate_is_said_to_be_the_reason(tmp_path: Path) -> None:
    authority, ports = Authority(tmp_path), Ports()
    pair = authority.issue("dev-a")
    authority.revoke(pair[0])
    with Mosquitto(tmp_path, lines=shipped_lines(tmp_path, ports), port=ports.devices) as broker:
        time.sleep(1.2)  # the list begins in a second
        # A broker that closes at once may take its own word back (TCP's reset): it is asked again.
        refused = first_event(settings(authority, broker.port, pair))
    assert isinstance(refused, Disconnected)
    assert "did not accept" in refused.reason
    assert "revoked" in refused.reason


def test_a_clock_behind_its_own_authority_does_not_shut_the_device_out(tmp_path: Path) -> None:
    """A broker whose certificate has not begun yet is to our clock what any broker is to a clock at 1970."""
    authority, ports = Authority(tmp_path), Ports()
    authority.write_broker(begin=timedelta(hours=6))
    broker = settings(authority, ports.devices, authority.issue("dev-a"))
    stranger = settings(Authority(tmp_path / "stranger"), ports.devices, authority.issue("dev-a"))
    with Mosquitto(tmp_path, lines=shipped_lines(tmp_path, ports), port=ports.devices):
        with pytest.raises(ssl.SSLCertVerificationError, match="not yet valid"):
            shake_hands(tls_context(broker, clock=time.time()), broker.port)
        shake_hands(tls_context(broker, clock=0.0), broker.port)
        with pytest.raises(ssl.SSLCertVerificationError, match="certificate verify failed"):
            shake_hands(tls_context(stranger, clock=0.0), broker.port)


def test_a_certificate_of_the_device_authority_is_no_broker(tmp_path: Path) -> None:
    authority, ports = Authority(tmp_path), Ports()
    broker = settings(authority, ports.devices, authority.issue("dev-a"))
    for stolen, path in zip(
        authority.issue("127.0.0.1"), (tmp_path / "broker.pem", tmp_path / "broker.key"), strict=True
    ):
        path.write_bytes(stolen.read_bytes())
    with Mosquitto(tmp_path, lines=shipped_lines(tmp_path, ports), port=ports.devices):
        for clock in (0.0, time.time()):
            with pytest.raises(ssl.SSLCertVerificationError, match=r"verify failed: (self-signed|unable to get)"):
                shake_hands(tls_context(broker, clock), broker.port)


def test_with_a_clock_that_may_be_right_terms_are_checked(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    broker = settings(authority, 1, authority.issue("dev-a"))
    assert not tls_context(broker, clock=time.time()).verify_flags & X509_V_FLAG_NO_CHECK_TIME
    assert tls_context(broker, clock=0.0).verify_mode == ssl.CERT_REQUIRED
    assert tls_context(broker, clock=0.0).check_hostname


def test_files_that_are_not_there_are_a_reason_to_be_offline_and_no_reason_to_end(tmp_path: Path) -> None:
    event = first_event(BrokerConfig(host="127.0.0.1", port=1, tls=True, ca_file=str(tmp_path / "none.pem")))
    assert isinstance(event, Disconnected)
    assert "TLS files cannot be used" in event.reason
    assert str(tmp_path / "none.pem") in event.reason
    assert not isinstance(event, Connected)
