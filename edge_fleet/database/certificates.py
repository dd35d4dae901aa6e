"""Which claims were made and which certificates were issued: two tables in the fleet's database.

A certificate is here, durably, before it leaves: `redeem` and `renew` commit with full synchronization and give back
what is stored, so that asking again with the same key gets the same certificate and two services on one database
agree. Deciding who may have one is in `edge_fleet.identity.enrollment`; telemetry is in
`edge_fleet.database.telemetry`.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import (
    Boolean,
    Column,
    Connection,
    MetaData,
    String,
    Table,
    Text,
    UniqueConstraint,
    func,
    select,
    update,
)

from edge_contracts.codec import Record
from edge_contracts.enrollment import Refusal
from edge_fleet.database.engine import open_database
from edge_fleet.errors import EnrollmentError

MAX_SUCCESSORS = 4
"""Certificates one may be renewed into: more than one, because a device may lose the key it has just made."""

_METADATA = MetaData()
_NAME = String(64)

CLAIMS = Table(
    "claims",
    _METADATA,
    Column("claim", _NAME, primary_key=True),
    Column("device", _NAME, nullable=False),
    Column("made", String(32), nullable=False),
    Column("expires", String(32), nullable=False),
    Column("void", Boolean, nullable=False, default=False),
)
CERTIFICATES = Table(
    "certificates",
    _METADATA,
    Column("serial", String(64), primary_key=True),
    Column("device", _NAME, nullable=False),
    Column("parent", _NAME, nullable=False),
    Column("key", String(64), nullable=False),
    Column("issued", String(32), nullable=False),
    Column("expires", String(32), nullable=False),
    Column("revoked", String(32)),
    Column("certificate", Text, nullable=False),
    UniqueConstraint("parent", "key"),
)


class ClaimRow(Record, frozen=True, kw_only=True):
    """A claim that was made; `void` once its device was revoked."""

    claim: str
    device: str
    made: str
    expires: str
    void: bool = False


class Issued(Record, frozen=True, kw_only=True):
    """A certificate (PEM). `parent` is the claim, or the serial of the certificate, that asked for it; `key` is the
    SHA-256 of its public key. Serials are hexadecimal, times UTC."""

    serial: str
    device: str
    parent: str
    key: str
    issued: str
    expires: str
    certificate: str
    revoked: str | None = None


class CertificateStore:
    """Reads and writes of claims and certificates."""

    def __init__(self, url: str) -> None:
        """Open, and create what is missing. Raises FleetError."""
        self._engine, self._insert = open_database(url, _METADATA, durable=True)

    def close(self) -> None:
        """Close all connections."""
        self._engine.dispose()

    def add_claim(self, row: ClaimRow) -> None:
        """Remember a claim before it is given away."""
        with self._engine.begin() as connection:
            connection.execute(self._insert(CLAIMS).values(**_values(row)))

    def claim(self, name: str) -> ClaimRow | None:
        """Return a claim, if there is such a one."""
        with self._engine.connect() as connection:
            found = connection.execute(select(CLAIMS).where(CLAIMS.c.claim == name)).first()
        return None if found is None else ClaimRow(**found._mapping)

    def has_claim(self, device: str, now: str) -> bool:
        """Return whether a claim for that device can still be redeemed at UTC time `now`."""
        open_ones = (CLAIMS.c.device == device) & CLAIMS.c.void.is_(False) & (CLAIMS.c.expires > now)
        with self._engine.connect() as connection:
            return connection.execute(select(CLAIMS.c.claim).where(open_ones)).first() is not None

    def certificate(self, serial: str) -> Issued | None:
        """Return a certificate by its serial, if it was issued here."""
        with self._engine.connect() as connection:
            found = connection.execute(select(CERTIFICATES).where(CERTIFICATES.c.serial == serial)).first()
        return None if found is None else Issued(**found._mapping)

    def certificates(self, device: str | None = None) -> list[Issued]:
        """Return every certificate, or one device's, oldest first."""
        query = select(CERTIFICATES).order_by(CERTIFICATES.c.issued, CERTIFICATES.c.serial)
        if device is not None:
            query = query.where(CERTIFICATES.c.device == device)
        with self._engine.connect() as connection:
            return [Issued(**row._mapping) for row in connection.execute(query)]

    def redeem(self, wanted: Issued) -> Issued:
        """Use up the claim `wanted.parent` for its key and return what is stored for it, durably.

        Raises EnrollmentError if the claim is void or was used with another key.
        """
        return self._issue(wanted, limit=1, full="used")

    def renew(self, wanted: Issued) -> Issued:
        """Issue a successor of the certificate `wanted.parent` and return what is stored for its key, durably.

        Raises EnrollmentError if that certificate is revoked or has `MAX_SUCCESSORS` of them.
        """
        return self._issue(wanted, limit=MAX_SUCCESSORS, full="too-often")

    def add_service(self, issued: Issued) -> None:
        """Remember the certificate of a service, which an operator asked for."""
        with self._engine.begin() as connection:
            connection.execute(self._insert(CERTIFICATES).values(**_values(issued)))

    def revoke(self, device: str, now: str) -> list[Issued]:
        """Revoke what a device has and void its claims; return the certificates that were good until now."""
        good = (CERTIFICATES.c.device == device) & CERTIFICATES.c.revoked.is_(None)
        with self._engine.begin() as connection:
            connection.execute(update(CLAIMS).where(CLAIMS.c.device == device).values(void=True))
            rows = connection.execute(select(CERTIFICATES).where(good)).all()
            connection.execute(update(CERTIFICATES).where(good).values(revoked=now))
        return [Issued(**row._mapping) for row in rows]

    def revoked(self, now: str) -> list[int]:
        """Return the serials of revoked certificates that would otherwise still be good at UTC time `now`."""
        query = select(CERTIFICATES.c.serial).where(CERTIFICATES.c.revoked.is_not(None), CERTIFICATES.c.expires > now)
        with self._engine.connect() as connection:
            return [int(serial, 16) for serial in connection.scalars(query)]

    def _issue(self, wanted: Issued, *, limit: int, full: Refusal) -> Issued:
        """Write first, which takes the database's write lock or waits for whoever has the same row, and look then: an
        error rolls the row back."""
        of_parent = CERTIFICATES.c.parent == wanted.parent
        with self._engine.begin() as connection:
            connection.execute(self._insert(CERTIFICATES).values(**_values(wanted)).on_conflict_do_nothing())
            _check_parent(connection, wanted.parent)
            count = connection.scalar(select(func.count()).where(of_parent)) or 0
            stored = connection.execute(
                select(CERTIFICATES).where(of_parent & (CERTIFICATES.c.key == wanted.key))
            ).one()
            if count > limit:
                raise EnrollmentError(full, wanted.parent)
        return Issued(**stored._mapping)


def _check_parent(connection: Connection, parent: str) -> None:
    """Raise EnrollmentError if the claim is void or the certificate revoked. The row is locked where rows can be, so
    that a revocation comes either before this or sees what was issued."""
    claim = select(CLAIMS.c.void).where(CLAIMS.c.claim == parent).with_for_update()
    certificate = select(CERTIFICATES.c.revoked).where(CERTIFICATES.c.serial == parent).with_for_update()
    if connection.scalar(claim) or connection.scalar(certificate) is not None:
        raise EnrollmentError("revoked", parent)


def _values(row: Record) -> dict[str, Any]:
    return {name: getattr(row, name) for name in row.__struct_fields__}
