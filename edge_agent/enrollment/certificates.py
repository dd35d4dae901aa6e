"""The device's keys, the requests they sign and the certificates that come back. Bytes in, bytes out.

Imports `cryptography`, which costs 11 MB: never imported by the supervisor. Files are `edge_agent.identity.files`'s,
the way over the broker is in `edge_agent.enrollment.client`.
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import NameOID

from edge_agent.errors import CertificateError, ConfigError
from edge_agent.identity.files import IdentityPaths
from edge_agent.identity.validity import Enrolled
from edge_contracts.enrollment import CertificateRequest, signed_part


@dataclass(frozen=True, kw_only=True)
class CertificateSubject:
    """The certificate a device waits for: by which claim, for which name and key, signed by whom. Bytes are PEM."""

    claim: str
    device: str
    tenant: str
    key: bytes
    ca: bytes
    issuer: bytes


def new_key() -> bytes:
    """Return a new private key, P-256 in PEM: what every TLS stack takes."""
    key = ec.generate_private_key(ec.SECP256R1())
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def make_request(key: bytes, asker_certificate: bytes, asker_key: bytes) -> CertificateRequest:
    """Return a request for a certificate for `key`, made by the holder of another certificate and its key. All PEM.

    Raises ConfigError for what cannot be read.
    """
    try:
        asker = x509.load_pem_x509_certificate(asker_certificate)
        # The subject is empty: the authority sets it and looks at none.
        csr = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([])).sign(_load(key), hashes.SHA256())
        body, nonce = csr.public_bytes(Encoding.DER), secrets.token_hex(16)
        signature = _load(asker_key).sign(signed_part(nonce, body), ec.ECDSA(hashes.SHA256()))
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise ConfigError(f"the key or certificate cannot be used: {error}", subject="identity") from error
    certificate = asker.public_bytes(Encoding.DER)
    return CertificateRequest(nonce=nonce, certificate=certificate, csr=body, signature=signature)


def accept(der: bytes, wanted: CertificateSubject) -> tuple[Enrolled, IdentityPaths]:
    """Return the new identity. Raises CertificateError unless the certificate is for the device's name and key and
    signed by the authority the device was told of."""
    try:
        certificate = x509.load_der_x509_certificate(der)
        certificate.verify_directly_issued_by(x509.load_pem_x509_certificate(wanted.issuer))
        same_key = _public(certificate.public_key()) == _public(_load(wanted.key).public_key())
    except (ValueError, TypeError, InvalidSignature, UnsupportedAlgorithm) as error:
        raise CertificateError("the reply does not contain a certificate of the fleet's authority") from error
    names = [name.value for name in certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)]
    begin, end = certificate.not_valid_before_utc.timestamp(), certificate.not_valid_after_utc.timestamp()
    if not same_key or names != [wanted.device] or not begin < end:
        raise CertificateError("the certificate in the reply is for another device name or key")
    enrolled = Enrolled(
        device=wanted.device,
        tenant=wanted.tenant,
        serial=f"{certificate.serial_number:x}",
        begin=begin,
        end=end,
        claim=wanted.claim,
    )
    pem = certificate.public_bytes(Encoding.PEM)
    return enrolled, IdentityPaths(certificate=pem, key=wanted.key, ca=wanted.ca, issuer=wanted.issuer)


def _load(key: bytes) -> ec.EllipticCurvePrivateKey:
    loaded = load_pem_private_key(key, password=None)
    if not isinstance(loaded, ec.EllipticCurvePrivateKey):
        raise TypeError("not an elliptic-curve key")
    return loaded


def _public(key: object) -> bytes:
    if not isinstance(key, ec.EllipticCurvePublicKey):
        raise TypeError("not an elliptic-curve key")
    return key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
