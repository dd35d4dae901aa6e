"""How a device gets its certificate: the claim it is given, what it asks, what it is answered. JSON, under limits.

A request is signed with the key of the certificate it presents: a claim's for the first certificate, the device's own
for the next. So whoever owns the broker cannot ask in a device's name. Making keys and checking certificates is in
`edge_agent.enrollment.certificates`, deciding and signing in `edge_fleet.identity.enrollment`, topics in
`edge_contracts.topics`.
"""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta

from edge_contracts.codec import Record, decode
from edge_contracts.limits import MAX_CLAIM_BYTES, MAX_ENROLLMENT_BYTES
from edge_contracts.names import Name, UtcTime

MAX_CERTIFICATE_BYTES = 4096
"""A certificate in DER; ours are about 450 bytes."""

MAX_CSR_BYTES = 2048
"""A certification request (PKCS#10, DER); with an elliptic key it is about 200 bytes."""

Nonce = Annotated[str, Meta(pattern=r"^[0-9a-f]{32}(?!\n)$")]
Pem = Annotated[str, Meta(max_length=8192)]
Der = Annotated[bytes, Meta(max_length=MAX_CERTIFICATE_BYTES)]

Refusal = Literal["malformed", "unknown", "expired", "used", "revoked", "too-often"]
"""Why there is no certificate. Nobody has signed the answer, so a device believes none of them for good."""


class Claim(Record, frozen=True, kw_only=True):
    """A single-use right to one certificate for `device`, a secret file that an operator carries to it.

    `certificate` and `key` are the claim's own identity, good for the broker's enrollment listener at `host`:`port` and
    nowhere else. `ca` is whom the device trusts as the broker, `issuer` who signs device certificates. All PEM.
    """

    claim: Name
    tenant: Name
    device: Name
    host: Annotated[str, Meta(min_length=1, max_length=255)]
    port: Annotated[int, Meta(ge=1, le=65535)]
    expires: UtcTime
    ca: Pem
    issuer: Pem
    certificate: Pem
    key: Pem


class CertificateRequest(Record, frozen=True, kw_only=True):
    """Ask for a certificate for the key in `csr` (DER; its subject is not looked at). `certificate` (DER) is the
    identity that asks, and `signature` its key's over `signed_part`."""

    nonce: Nonce
    certificate: Der
    csr: Annotated[bytes, Meta(max_length=MAX_CSR_BYTES)]
    signature: Annotated[bytes, Meta(max_length=256)]


class CertificateAnswer(Record, frozen=True, kw_only=True):
    """The certificate (DER), or why there is none. `nonce` is the request's."""

    nonce: Nonce
    certificate: Der | None = None
    refused: Refusal | None = None


def signed_part(nonce: str, csr: bytes) -> bytes:
    """Return what the signature of a request covers."""
    return b"edgewright certificate request 1\n" + nonce.encode() + b"\n" + csr


def parse_claim(data: bytes) -> Claim:
    """Parse a claim file. Raises ContractError naming the field."""
    return decode(data, Claim, limit=MAX_CLAIM_BYTES, what="claim")


def parse_certificate_request(data: bytes) -> CertificateRequest:
    """Parse a request. Raises ContractError naming the field."""
    return decode(data, CertificateRequest, limit=MAX_ENROLLMENT_BYTES, what="certificate request")


def parse_certificate_answer(data: bytes) -> CertificateAnswer:
    """Parse an answer. Raises ContractError naming the field."""
    return decode(data, CertificateAnswer, limit=MAX_ENROLLMENT_BYTES, what="certificate answer")
