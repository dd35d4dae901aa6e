"""The fleet's certificate authority: three independent keys, each good for one thing (docs/decisions/0010).

broker-ca.key   signs the broker's own certificate. Devices trust only this one; keep it offline after use.
device-ca.key   signs certificates of devices and services. The enrollment service needs it, nobody else online.
claim-ca.key    signs claims. `fleet enroll` needs it; the broker takes claims at its enrollment listener only.

Each has its certificate beside it (`.pem`). Who was issued what is in `edge_fleet.database.certificates`; who gets a
certificate is decided in `edge_fleet.identity.enrollment`. The keys that sign releases are others, in
`edge_fleet.signing.keys`.
"""

from __future__ import annotations

import ipaddress
import stat
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Literal

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from edge_fleet.errors import FleetError, KeyExposedError, KeyMissingError
from edge_fleet.signing.keys import check_outside_git
from edge_io.durable_files import PRIVATE_FILE, PRIVATE_FOLDER, make_folder, write_file

CaName = Literal["broker-ca", "device-ca", "claim-ca"]
BROKER_CA: CaName = "broker-ca"
DEVICE_CA: CaName = "device-ca"
CLAIM_CA: CaName = "claim-ca"
CA_NAMES: tuple[CaName, ...] = (BROKER_CA, DEVICE_CA, CLAIM_CA)

SERVICES = ("depot", "controller", "enrolment")
"""Names with rights of their own in the broker's ACL; no device may have them."""

CA_LIFE = timedelta(days=20 * 365)
SERVICE_LIFE = timedelta(days=825)
"""Of broker, depot, controller and enrollment service, which an operator renews: over two years, as Apple's clients
allow at most."""

BACKDATE = timedelta(minutes=5)
"""Certificates begin earlier, because clocks differ; a short-lived one by a tenth of its life at most."""

PublicKey = ec.EllipticCurvePublicKey | ed25519.Ed25519PublicKey


@dataclass(frozen=True, kw_only=True)
class Term:
    """From when to when a certificate is good."""

    begin: datetime
    end: datetime

    @classmethod
    def starting(cls, now: datetime, life: timedelta) -> Term:
        """Return the term of a certificate made `now`, begun a little earlier."""
        return cls(begin=now - min(BACKDATE, life / 10), end=now + life)


class Authority:
    """An authority's folder. Keys are loaded when they are used, so that any of them may be elsewhere."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def create(self, now: datetime) -> None:
        """Make the three keys and their certificates. Raises FleetError if there are any, KeyExposedError in git."""
        check_outside_git(self.folder)
        if any((self.folder / f"{name}.pem").exists() for name in CA_NAMES):
            raise FleetError("an authority exists here and is never overwritten", subject=str(self.folder))
        make_folder(self.folder, PRIVATE_FOLDER)
        for name in CA_NAMES:
            key = ec.generate_private_key(ec.SECP256R1())
            certificate = _self_signed(f"edgewright {name}", key, Term.starting(now, CA_LIFE))
            write_file(self.folder / f"{name}.key", private_pem(key), PRIVATE_FILE)
            write_file(self.folder / f"{name}.pem", certificate.public_bytes(Encoding.PEM))

    def check_key(self, ca: CaName) -> None:
        """Raise FleetError, KeyMissingError or KeyExposedError unless that key and its certificate can be used here."""
        self.certificate(ca)
        self._key(ca)

    def certificate(self, ca: CaName) -> x509.Certificate:
        """Return the certificate of one of the three. Raises FleetError if it is not here."""
        path = self.folder / f"{ca}.pem"
        try:
            return x509.load_pem_x509_certificate(path.read_bytes())
        except FileNotFoundError as error:
            hint = f"edgewright fleet authority init {self.folder.parent}"
            raise FleetError("the fleet has no certificate authority", subject=str(path), hint=hint) from error
        except (OSError, ValueError) as error:
            raise FleetError(f"not a certificate: {error}", subject=str(path)) from error

    def pem(self, ca: CaName) -> bytes:
        """Return that certificate as PEM."""
        return self.certificate(ca).public_bytes(Encoding.PEM)

    def sign_client(self, ca: CaName, name: str, key: PublicKey, term: Term) -> x509.Certificate:
        """Return a certificate for a client with the common name `name`. Raises KeyMissingError, KeyExposedError."""
        draft = self._draft(ca, name, key, term)
        usage = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH])
        return draft.add_extension(usage, critical=False).sign(self._key(ca), hashes.SHA256())

    def sign_broker(self, hosts: Iterable[str], key: PublicKey, term: Term) -> x509.Certificate:
        """Return a certificate for a broker reached under `hosts`, DNS names or addresses."""
        names = [_general_name(host) for host in hosts]
        draft = self._draft(BROKER_CA, "broker", key, term)
        draft = draft.add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        draft = draft.add_extension(x509.SubjectAlternativeName(names), critical=False)
        return draft.sign(self._key(BROKER_CA), hashes.SHA256())

    def sign_revocations(self, serials: Iterable[int], now: datetime) -> bytes:
        """Return the list of revoked device certificates (CRL, PEM) as a broker reads it from its disk.

        It has no useful expiry: a broker refuses everybody once its list has one and it is over, and freshness is given
        by who puts the file there.
        """
        issuer = self.certificate(DEVICE_CA)
        draft = x509.CertificateRevocationListBuilder().issuer_name(issuer.subject)
        draft = draft.last_update(now).next_update(issuer.not_valid_after_utc)
        for serial in sorted(serials):
            entry = x509.RevokedCertificateBuilder().serial_number(serial).revocation_date(now).build()
            draft = draft.add_revoked_certificate(entry)
        return draft.sign(self._key(DEVICE_CA), hashes.SHA256()).public_bytes(Encoding.PEM)

    def signed(self, ca: CaName, certificate: x509.Certificate) -> bool:
        """Return whether that key signed the certificate."""
        try:
            certificate.verify_directly_issued_by(self.certificate(ca))
        except (ValueError, TypeError, InvalidSignature):
            return False
        return True

    def _draft(self, ca: CaName, name: str, key: PublicKey, term: Term) -> x509.CertificateBuilder:
        issuer = self.certificate(ca)
        draft = _begun(name, issuer.subject, key, term)
        draft = draft.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        draft = draft.add_extension(_key_usage(digital_signature=True), critical=True)
        identifier = x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer.public_key())  # type: ignore[arg-type]
        return draft.add_extension(identifier, critical=False)

    def _key(self, ca: CaName) -> ec.EllipticCurvePrivateKey:
        path = self.folder / f"{ca}.key"
        if not path.exists():
            hint = "run this on the machine that has the key, or copy the key file here temporarily"
            raise KeyMissingError("the key is not available here", subject=str(path), hint=hint)
        if stat.S_IMODE(path.stat().st_mode) & 0o077:
            raise KeyExposedError("private key is readable by other users", subject=str(path), hint=f"chmod 600 {path}")
        try:
            key = load_pem_private_key(path.read_bytes(), password=None)
        except (ValueError, TypeError, UnsupportedAlgorithm) as error:
            raise FleetError("not an unencrypted private key in PEM form", subject=str(path)) from error
        if not isinstance(key, ec.EllipticCurvePrivateKey):
            raise FleetError("not an elliptic-curve key", subject=str(path))
        return key


def private_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    """Return a private key as unencrypted PKCS8."""
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def key_id(key: PublicKey) -> str:
    """Return the SHA-256 of a public key (SubjectPublicKeyInfo, DER), in hex."""
    digest = hashes.Hash(hashes.SHA256())
    digest.update(key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo))
    return digest.finalize().hex()


def common_name(certificate: x509.Certificate) -> str:
    """Return the common name, "" if there is not exactly one."""
    names = certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    return str(names[0].value) if len(names) == 1 else ""


def _self_signed(name: str, key: ec.EllipticCurvePrivateKey, term: Term) -> x509.Certificate:
    draft = _begun(name, _name(name), key.public_key(), term)
    draft = draft.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
    draft = draft.add_extension(_key_usage(key_cert_sign=True, crl_sign=True), critical=True)
    identifier = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
    return draft.add_extension(identifier, critical=False).sign(key, hashes.SHA256())


def _begun(name: str, issuer: x509.Name, key: PublicKey, term: Term) -> x509.CertificateBuilder:
    draft = x509.CertificateBuilder().subject_name(_name(name)).issuer_name(issuer).public_key(key)
    draft = draft.serial_number(x509.random_serial_number())
    return draft.not_valid_before(term.begin).not_valid_after(term.end)


def _name(common: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common)])


def _general_name(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        pass
    try:
        return x509.DNSName(host)
    except ValueError as error:
        raise FleetError(f"{host!r} is not a host name", subject="host") from error


def _key_usage(
    *, digital_signature: bool = False, key_cert_sign: bool = False, crl_sign: bool = False
) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=digital_signature,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=key_cert_sign,
        crl_sign=crl_sign,
        encipher_only=False,
        decipher_only=False,
    )
