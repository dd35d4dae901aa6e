"""Who gets a certificate: bytes of a request in, bytes of an answer out. No network and no clock of its own.

A request proves that it comes from the holder of a claim, or of the certificate that is to be renewed, by that key's
signature; the broker is not believed. Of the certification request only the public key is taken: name, term and use are
the authority's. What was issued is in `edge_fleet.database.certificates` before it is answered.
"""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime, timedelta

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.serialization import Encoding

from edge_contracts.codec import encode
from edge_contracts.enrollment import (
    CertificateAnswer,
    CertificateRequest,
    parse_certificate_request,
    signed_part,
)
from edge_contracts.errors import ContractError
from edge_contracts.topics import claim_topic, device_topic, parse_claim_topic, parse_device_topic
from edge_fleet.database.certificates import CertificateStore, Issued
from edge_fleet.errors import EnrollmentError
from edge_fleet.identity.authority import (
    CLAIM_CA,
    DEVICE_CA,
    SERVICES,
    Authority,
    CaName,
    PublicKey,
    Term,
    common_name,
    key_id,
)

DEVICE_LIFE = timedelta(days=90)


class Enrollment:
    """Answers requests for certificates. `life` is how long one is good; `newest` is the device that got the last."""

    def __init__(
        self, tenant: str, authority: Authority, store: CertificateStore, life: timedelta = DEVICE_LIFE
    ) -> None:
        self.counts: Counter[str] = Counter()
        self._tenant = tenant
        self._authority = authority
        self._store = store
        self._life = life
        self.newest = ""

    def answer(self, topic: str, payload: bytes, now: datetime) -> tuple[str, bytes] | None:
        """Return topic and bytes of the answer; None for what is no request. Refusals are counted by their reason.

        Raises KeyMissingError or KeyExposedError when the authority's key cannot be used.
        """
        try:
            ca, name, reply = self._origin(topic)
            request = parse_certificate_request(payload)
        except ContractError:
            self.counts["malformed"] += 1
            return None
        try:
            asker = self._check_asker(ca, name, request)
            given = self._redeem(name, request, now) if ca == CLAIM_CA else self._renew(name, asker, request, now)
        except EnrollmentError as error:
            self.counts[error.refusal] += 1
            return reply, encode(CertificateAnswer(nonce=request.nonce, refused=error.refusal))
        self.counts["issued"] += 1
        self.newest = given.device
        der = x509.load_pem_x509_certificate(given.certificate.encode()).public_bytes(Encoding.DER)
        return reply, encode(CertificateAnswer(nonce=request.nonce, certificate=der))

    def _origin(self, topic: str) -> tuple[CaName, str, str]:
        """Return who vouches for whoever asks on a topic, under which name, and where the answer goes. Raises
        ContractError for a topic where nobody asks."""
        claim = parse_claim_topic(topic)
        if claim is not None:
            return CLAIM_CA, claim, claim_topic(self._tenant, claim, "rsp")
        address = parse_device_topic(topic)
        if address.topic != "renew":
            raise ContractError("unexpected topic", subject=topic)
        return DEVICE_CA, address.device, device_topic(self._tenant, address.device, "certificate")

    def _redeem(self, claim: str, request: CertificateRequest, now: datetime) -> Issued:
        row = self._store.claim(claim)
        if row is None:
            raise EnrollmentError("unknown", claim)
        if datetime.fromisoformat(row.expires) <= now:
            raise EnrollmentError("expired", claim)
        return self._store.redeem(self._make(row.device, claim, request, now))

    def _renew(self, device: str, asker: x509.Certificate, request: CertificateRequest, now: datetime) -> Issued:
        row = self._store.certificate(f"{asker.serial_number:x}")
        if row is None or device in SERVICES:
            raise EnrollmentError("unknown", device)
        if asker.not_valid_after_utc <= now:
            raise EnrollmentError("expired", device)
        return self._store.renew(self._make(device, row.serial, request, now))

    def _check_asker(self, ca: CaName, name: str, request: CertificateRequest) -> x509.Certificate:
        """Return the certificate that asks: the authority's, of that name, and its key has signed the request."""
        try:
            asker = x509.load_der_x509_certificate(request.certificate)
            right = self._authority.signed(ca, asker) and common_name(asker) == name
            _verify(asker.public_key(), request)
        except (ValueError, UnsupportedAlgorithm) as error:
            raise EnrollmentError("malformed", name) from error
        except InvalidSignature as error:
            raise EnrollmentError("unknown", name) from error
        if not right:
            raise EnrollmentError("unknown", name)
        return asker

    def _make(self, device: str, parent: str, request: CertificateRequest, now: datetime) -> Issued:
        key, term = _asked_key(request), Term.starting(now, self._life)
        return issued(self._authority.sign_client(DEVICE_CA, device, key, term), parent, now)


def issued(certificate: x509.Certificate, parent: str, now: datetime) -> Issued:
    """Return what is stored of a certificate made `now`."""
    key = certificate.public_key()
    assert isinstance(key, PublicKey)
    return Issued(
        serial=f"{certificate.serial_number:x}",
        device=common_name(certificate),
        parent=parent,
        key=key_id(key),
        issued=utc_text(now),
        expires=utc_text(certificate.not_valid_after_utc),
        certificate=certificate.public_bytes(Encoding.PEM).decode(),
    )


def utc_text(moment: datetime) -> str:
    """Return a time in whole seconds as contracts write it; such texts sort by time."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _asked_key(request: CertificateRequest) -> PublicKey:
    """Return the public key of the certification request, which its holder has signed. Raises EnrollmentError."""
    try:
        csr = x509.load_der_x509_csr(request.csr)
        key = csr.public_key()
        good = csr.is_signature_valid
    except (ValueError, UnsupportedAlgorithm) as error:
        raise EnrollmentError("malformed", "csr") from error
    if isinstance(key, ec.EllipticCurvePublicKey) and not isinstance(key.curve, ec.SECP256R1):
        raise EnrollmentError("malformed", "csr")
    if not good or not isinstance(key, PublicKey):
        raise EnrollmentError("malformed", "csr")
    return key


def _verify(key: object, request: CertificateRequest) -> None:
    """Raise InvalidSignature unless `key` has signed the request."""
    covered = signed_part(request.nonce, request.csr)
    if isinstance(key, ec.EllipticCurvePublicKey):
        key.verify(request.signature, covered, ec.ECDSA(hashes.SHA256()))
    elif isinstance(key, ed25519.Ed25519PublicKey):
        key.verify(request.signature, covered)
    else:
        raise InvalidSignature
