"""Files an operator carries: claims for devices, certificates for brokers and services, the list of the revoked.

Everything here is done at an operator's command, at a time that is given; what devices ask for is in
`edge_fleet.identity.enrollment`.
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from datetime import datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding

from edge_contracts.codec import StrictRecord, encode
from edge_contracts.enrollment import Claim
from edge_fleet.database.certificates import CertificateStore, ClaimRow, Issued
from edge_fleet.errors import FleetError
from edge_fleet.identity.authority import (
    BROKER_CA,
    CLAIM_CA,
    DEVICE_CA,
    SERVICE_LIFE,
    SERVICES,
    Authority,
    Term,
    private_pem,
)
from edge_fleet.identity.enrollment import issued, utc_text
from edge_fleet.signing.workspace import FleetWorkspace
from edge_io.durable_files import PRIVATE_FILE, PRIVATE_FOLDER, make_folder, write_file

REVOKED_NAME = "revoked.pem"
OPERATOR = "operator"
"""The parent of a certificate that an operator asked for, with no claim."""


class ClaimOrder(StrictRecord, frozen=True, kw_only=True):
    """A claim to be made: for whom, and where the broker's enrollment listener is."""

    device: str
    host: str
    port: int


def authority_of(fleet: FleetWorkspace) -> Authority:
    """Return the fleet's certificate authority, which may not have been made yet."""
    return Authority(fleet.path / "authority")


def found_authority(fleet: FleetWorkspace, now: datetime) -> Authority:
    """Make the fleet's authority, with an empty list of the revoked. Raises FleetError if it has one."""
    made = authority_of(fleet)
    made.create(now)
    write_file(made.folder / REVOKED_NAME, made.sign_revocations((), now))
    return made


def make_claim(
    fleet: FleetWorkspace, store: CertificateStore, order: ClaimOrder, life: timedelta, now: datetime
) -> Claim:
    """Make a claim and remember it, to be redeemed within `life`. Raises FleetError for a name of a service or of
    another client."""
    if order.device in SERVICES:
        raise FleetError(f"{order.device!r} is the name of a service", subject="device")
    if any(row.parent == OPERATOR and row.revoked is None for row in store.certificates(order.device)):
        hint = "choose another device name, or revoke the client with `edgewright fleet identity revoke`"
        raise FleetError(f"{order.device!r} is the name of another client of the broker", subject="device", hint=hint)
    authority = authority_of(fleet)
    key = ec.generate_private_key(ec.SECP256R1())
    name = f"claim-{secrets.token_hex(8)}"
    term = Term.starting(now, life)
    certificate = authority.sign_client(CLAIM_CA, name, key.public_key(), term)
    claim = Claim(
        claim=name,
        tenant=fleet.tenant,
        device=order.device,
        host=order.host,
        port=order.port,
        expires=utc_text(term.end),
        ca=authority.pem(BROKER_CA).decode(),
        issuer=authority.pem(DEVICE_CA).decode(),
        certificate=certificate.public_bytes(Encoding.PEM).decode(),
        key=private_pem(key).decode(),
    )
    store.add_claim(ClaimRow(claim=name, device=order.device, made=utc_text(now), expires=claim.expires))
    return claim


def write_claim(claim: Claim, path: Path) -> None:
    """Write a claim file, readable by its owner only. Raises FleetError rather than replace a file."""
    if path.exists():
        raise FleetError("file exists; a claim is never overwritten", subject=str(path))
    write_file(path, encode(claim) + b"\n", PRIVATE_FILE)


def write_broker_files(fleet: FleetWorkspace, hosts: Sequence[str], out: Path, now: datetime) -> None:
    """Write what a broker needs into `out`: its certificate and key, whom it lets in, and who is revoked."""
    authority = authority_of(fleet)
    key = ec.generate_private_key(ec.SECP256R1())
    certificate = authority.sign_broker(hosts, key.public_key(), Term.starting(now, SERVICE_LIFE))
    make_folder(out, PRIVATE_FOLDER)
    write_file(out / "broker.key", private_pem(key), PRIVATE_FILE)
    write_file(out / "broker.pem", certificate.public_bytes(Encoding.PEM))
    for ca in (DEVICE_CA, CLAIM_CA):
        write_file(out / f"{ca}.pem", authority.pem(ca))
    write_file(out / REVOKED_NAME, (authority.folder / REVOKED_NAME).read_bytes())


def write_service_files(
    fleet: FleetWorkspace, store: CertificateStore, name: str, out: Path, now: datetime, *, file_name: str | None = None
) -> Issued:
    """Write a service's certificate, its key and whom it trusts as the broker (`ca.pem`) into `out`. The files are
    named like the service, or `file_name`."""
    authority = authority_of(fleet)
    key = ec.generate_private_key(ec.SECP256R1())
    certificate = authority.sign_client(DEVICE_CA, name, key.public_key(), Term.starting(now, SERVICE_LIFE))
    row = issued(certificate, OPERATOR, now)
    store.add_service(row)
    make_folder(out, PRIVATE_FOLDER)
    write_file(out / f"{file_name or name}.key", private_pem(key), PRIVATE_FILE)
    write_file(out / f"{file_name or name}.pem", certificate.public_bytes(Encoding.PEM))
    write_file(out / "ca.pem", authority.pem(BROKER_CA))
    return row


def write_client_files(fleet: FleetWorkspace, store: CertificateStore, name: str, out: Path, now: datetime) -> Issued:
    """Write the files of a client that is neither a device nor a service, such as a sensor on the data topics. Raises
    FleetError for a name that one of these has or may get."""
    if name in SERVICES:
        raise FleetError(f"{name!r} is the name of a service", subject="name")
    enrolled = any(row.parent != OPERATOR for row in store.certificates(name))
    if enrolled or store.has_claim(name, utc_text(now)):
        hint = "its certificate comes by `edgewright agent enroll`; choose another name for a client"
        raise FleetError(f"{name!r} is the name of a device", subject="name", hint=hint)
    return write_service_files(fleet, store, name, out, now)


def write_revocations(fleet: FleetWorkspace, store: CertificateStore, now: datetime) -> Path:
    """Sign the list of revoked certificates anew and return where it is.

    A running broker that reads it keeps the old list, too, and believes the newer one, by whole seconds.
    """
    authority = authority_of(fleet)
    path = authority.folder / REVOKED_NAME
    if path.exists():
        before = x509.load_pem_x509_crl(path.read_bytes()).last_update_utc
        now = max(now, before + timedelta(seconds=1))
    write_file(path, authority.sign_revocations(store.revoked(utc_text(now)), now))
    return path
