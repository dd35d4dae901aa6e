"""Storing many telemetry messages at once, by the database's own driver, and once each.

SQLAlchemy's own executemany costs several times what the driver's does. The tables are in
`edge_fleet.database.telemetry`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from sqlalchemy import Connection

MessageRow = tuple[str, str, int, str, str, str | None, str]
"""device, boot_id, sequence, kind, time, slot, body."""

_MESSAGES = (
    "INSERT INTO messages (device, boot_id, sequence, kind, time, slot, body) "
    "VALUES (?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING"
)
_DEVICES = (
    "INSERT INTO devices (device, last_seen) VALUES (?, ?) "
    "ON CONFLICT (device) DO UPDATE SET last_seen = excluded.last_seen"
)

SEEN_CHARS = 18
"""How much of a UTC time is compared to tell whether a device's `last_seen` is old: all but the last digit of the
seconds, since it is for people and would otherwise be written with every message."""

MAX_SEEN = 200_000
"""Devices of which that is remembered."""


def insert_messages(connection: Connection, rows: Sequence[MessageRow]) -> None:
    """Insert messages that are not there yet."""
    _execute(connection, _MESSAGES, rows)


def _execute(connection: Connection, statement: str, rows: Sequence[tuple[object, ...]]) -> None:
    sqlite = connection.dialect.name == "sqlite"
    connection.exec_driver_sql(statement if sqlite else statement.replace("?", "%s"), list(rows))


class LastSeen:
    """Writes when devices were seen, each at most once in ten seconds."""

    def __init__(self) -> None:
        self._written: dict[str, str] = {}

    def due(self, devices: Iterable[str], now: str) -> list[str]:
        """Return the devices whose time is to be written at UTC time `now`, in one order for all workers: two that
        change the same rows must not wait for each other."""
        moment = now[:SEEN_CHARS]
        return sorted(device for device in set(devices) if self._written.get(device) != moment)

    def write(self, connection: Connection, devices: Sequence[str], now: str) -> None:
        """Write them."""
        if devices:
            _execute(connection, _DEVICES, [(device, now) for device in devices])

    def done(self, devices: Iterable[str], now: str) -> None:
        """Remember it, once it is committed."""
        if len(self._written) > MAX_SEEN:
            self._written.clear()
        self._written.update(dict.fromkeys(devices, now[:SEEN_CHARS]))
