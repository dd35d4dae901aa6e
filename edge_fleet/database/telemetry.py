"""The fleet's memory: devices as they last reported, every telemetry message, the history of rollouts.

SQLAlchemy Core on SQLite (WAL) by default and PostgreSQL by URL. Messages are inserted at most once by
`(device, boot_id, sequence)`, so that a redelivery changes nothing and a gap is provable. Parsing and checking what
arrives is in `ingest`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Connection,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    UniqueConstraint,
    bindparam,
    func,
    insert,
    select,
)

from edge_contracts.channel import Channel
from edge_contracts.codec import Record, encode
from edge_contracts.state import Presence, ReportedState, parse_reported
from edge_contracts.telemetry import Event, TelemetryWindow, Tombstone
from edge_fleet.database.batches import LastSeen, MessageRow, insert_messages
from edge_fleet.database.engine import open_database

Message = TelemetryWindow | Event | Tombstone
Arrival = Presence | ReportedState | Message

_METADATA = MetaData()
_NAME = String(64)

MESSAGES = Table(
    "messages",
    _METADATA,
    Column("id", Integer, primary_key=True),
    Column("device", _NAME, nullable=False),
    Column("boot_id", String(128), nullable=False),
    Column("sequence", BigInteger, nullable=False),
    Column("kind", String(16), nullable=False),
    Column("time", String(32), nullable=False),
    Column("slot", _NAME),
    Column("body", Text, nullable=False),
    UniqueConstraint("device", "boot_id", "sequence"),
)
FLOORS = Table(
    "message_floors",
    _METADATA,
    Column("device", _NAME, primary_key=True),
    Column("boot_id", String(128), primary_key=True),
    Column("below", BigInteger, nullable=False),
)
"""The numbers of a boot that were looked at and removed: those below."""
DEVICES = Table(
    "devices",
    _METADATA,
    Column("device", _NAME, primary_key=True),
    Column("last_seen", String(32), nullable=False),
    Column("online", Boolean),
    Column("presence_boot", String(128)),
    Column("boot_id", String(128)),
    Column("sequence", BigInteger),
    Column("reported", Text),
)
SLOT_CHANGES = Table(
    "slot_changes",
    _METADATA,
    Column("id", Integer, primary_key=True),
    Column("time", String(32), nullable=False),
    Column("device", _NAME, nullable=False),
    Column("slot", _NAME, nullable=False),
    Column("channel", _NAME, nullable=False, index=True),
    Column("online", Boolean),
    Column("board", Text, nullable=False),
    Column("architecture", Text, nullable=False),
    Column("tags", Text, nullable=False),
    Column("facts", Text, nullable=False),
    Column("state", String(16), nullable=False),
    Column("reason", Text),
    Column("rollout", _NAME),
    Column("manifest", String(64)),
    Column("serving", String(64)),
    Column("compared", Integer, nullable=False),
)
"""What a device's slot on a channel last reported, one row for each change: what a rollout follows, so that its cost is
that of the changes and not of the fleet."""
ROLLOUTS = Table(
    "rollouts",
    _METADATA,
    Column("id", Integer, primary_key=True),
    Column("time", String(32), nullable=False),
    Column("channel", _NAME, nullable=False),
    Column("serial", Integer, nullable=False),
    Column("verb", String(16), nullable=False),
    Column("rollout", _NAME),
    Column("body", Text, nullable=False),
)


_KNOWN = select(DEVICES).where(DEVICES.c.device == bindparam("name"))

GONE = "gone"
"""State of a slot that its device has not any more, or has on another channel."""


class DeviceRow(Record, frozen=True, kw_only=True):
    """A device as the fleet knows it. `online` is None until a presence message arrived."""

    device: str
    last_seen: str
    online: bool | None = None
    presence_boot: str | None = None
    boot_id: str | None = None
    sequence: int | None = None
    reported: ReportedState | None = None


class TelemetryStore:
    """Reads and writes of the fleet's database."""

    def __init__(self, url: str) -> None:
        """Open, and create what is missing. Raises FleetError for a URL that is none or needs another driver."""
        self._engine, self._insert = open_database(url, _METADATA)
        self._seen = LastSeen()
        self._upserts: dict[tuple[str, ...], Any] = {}

    def close(self) -> None:
        """Close all connections."""
        self._engine.dispose()

    def ingest(
        self, arrivals: Sequence[Arrival], now: str, *, retained: Sequence[Presence | ReportedState] = ()
    ) -> None:
        """Store a batch in one transaction, received at UTC time `now`. Doing it twice is doing it once. `retained`
        are earlier words: they do not say that their devices were seen now."""
        messages = [arrival for arrival in arrivals if isinstance(arrival, Message)]
        heard = self._seen.due((message.device for message in messages), now)
        with self._engine.begin() as connection:
            if messages:
                insert_messages(connection, [_message_row(message) for message in messages])
            for earlier in retained:
                self._update_device(connection, earlier, now, seen=False)
            for arrival in arrivals:
                if isinstance(arrival, Presence | ReportedState):
                    self._update_device(connection, arrival, now)
            self._seen.write(connection, heard, now)
        self._seen.done(heard, now)

    def devices(self) -> list[DeviceRow]:
        """Return every device, by name."""
        with self._engine.connect() as connection:
            return [_device(row._mapping) for row in connection.execute(select(DEVICES).order_by(DEVICES.c.device))]

    def count_reporting(self) -> int:
        """Return how many devices have reported their state."""
        with self._engine.connect() as connection:
            return connection.scalar(select(func.count()).where(DEVICES.c.reported.is_not(None))) or 0

    def count_messages(self, kind: str) -> int:
        """Return how many messages of a kind are stored."""
        with self._engine.connect() as connection:
            return connection.scalar(select(func.count()).where(MESSAGES.c.kind == kind)) or 0

    def online(self) -> list[Presence]:
        """Return the devices that were online when they were heard last, by name."""
        query = select(DEVICES.c.device, DEVICES.c.presence_boot).where(DEVICES.c.online.is_(True))
        with self._engine.connect() as connection:
            found = connection.execute(query.order_by(DEVICES.c.device)).all()
        return [Presence(device=device, boot_id=boot, online=True) for device, boot in found]

    def gaps(self, device: str, boot_id: str) -> list[range]:
        """Return the runs of a boot's numbers, counted from 0, that neither arrived nor are owned up to. Of numbers
        below those that were removed for their age, nothing is said any more."""
        sequence = MESSAGES.c.sequence
        of_boot = (MESSAGES.c.device == device) & (MESSAGES.c.boot_id == boot_id)
        removed = select(FLOORS.c.below).where(FLOORS.c.device == device, FLOORS.c.boot_id == boot_id)
        with self._engine.connect() as connection:
            floor = connection.scalar(removed) or 0
            of_boot &= sequence >= floor
            last, count = connection.execute(select(func.max(sequence), func.count()).where(of_boot)).one()
            if not count or last + 1 - floor == count:
                return []
            seen = [range(number, number + 1) for number in connection.scalars(select(sequence).where(of_boot))]
            tombs = connection.scalars(select(MESSAGES.c.body).where(of_boot & (MESSAGES.c.kind == "dropped")))
            dropped = [msgspec.json.decode(body, type=Tombstone) for body in tombs]
        return missing_runs([range(floor), *seen] + [range(tomb.first, tomb.first + tomb.count) for tomb in dropped])

    def messages(self, kind: str | None = None, device: str | None = None, limit: int = 100) -> list[dict[str, Any]]:
        """Return the newest messages as plain values, newest last."""
        query = select(MESSAGES.c.body).order_by(MESSAGES.c.id.desc()).limit(limit)
        if kind is not None:
            query = query.where(MESSAGES.c.kind == kind)
        if device is not None:
            query = query.where(MESSAGES.c.device == device)
        with self._engine.connect() as connection:
            return [msgspec.json.decode(body) for body in reversed(connection.scalars(query).all())]

    def sequences(self, device: str, boot_id: str) -> list[int]:
        """Return the sequence numbers that arrived in one boot, in order."""
        query = select(MESSAGES.c.sequence).where(MESSAGES.c.device == device, MESSAGES.c.boot_id == boot_id)
        with self._engine.connect() as connection:
            return list(connection.scalars(query.order_by(MESSAGES.c.sequence)))

    def record_rollout(self, verb: str, channel: Channel, now: str) -> None:
        """Add a signed change to the history of its channel."""
        row = {"time": now, "channel": channel.channel, "serial": channel.serial, "verb": verb}
        with self._engine.begin() as connection:
            connection.execute(insert(ROLLOUTS), row | {"rollout": channel.rollout, "body": encode(channel).decode()})

    def rollout_history(self, channel: str) -> list[dict[str, Any]]:
        """Return a channel's changes, oldest first: time, serial, verb, rollout."""
        columns = (ROLLOUTS.c.time, ROLLOUTS.c.serial, ROLLOUTS.c.verb, ROLLOUTS.c.rollout)
        query = select(*columns).where(ROLLOUTS.c.channel == channel).order_by(ROLLOUTS.c.id)
        with self._engine.connect() as connection:
            return [dict(row._mapping) for row in connection.execute(query)]

    def _update_device(
        self, connection: Connection, arrival: Presence | ReportedState, now: str, *, seen: bool = True
    ) -> None:
        found = connection.execute(_KNOWN, {"name": arrival.device}).first()
        known = None if found is None else _device(found._mapping)
        if isinstance(arrival, Presence):
            if is_late_will(known, arrival):
                return
            values: dict[str, Any] = {"online": arrival.online, "presence_boot": arrival.boot_id}
        else:
            if is_old_report(known, arrival):
                return
            body = encode(arrival).decode()
            values = {"boot_id": arrival.boot_id, "sequence": arrival.sequence, "reported": body}
        kept = ("device",) if seen else ("device", "last_seen")
        self._upsert(connection, {"device": arrival.device, "last_seen": now} | values, kept)
        changes = slot_changes(known, arrival)
        if changes:
            connection.execute(insert(SLOT_CHANGES), [change | {"time": now} for change in changes])

    def _upsert(self, connection: Connection, row: dict[str, Any], kept: Sequence[str] = ("device",)) -> None:
        """Add a device's row, or change it except for what is `kept`."""
        key = (*row, "", *kept)
        statement = self._upserts.get(key)
        if statement is None:  # building one costs more than running it
            plain = self._insert(DEVICES).values({name: bindparam(name) for name in row})
            changes = {name: plain.excluded[name] for name in row if name not in kept}
            statement = self._upserts[key] = plain.on_conflict_do_update(index_elements=["device"], set_=changes)
        connection.execute(statement, row)


def is_late_will(known: DeviceRow | None, presence: Presence) -> bool:
    """Return whether this is the Last Will of a boot before the one that is online now."""
    if known is None or presence.online or not known.online:
        return False
    return known.presence_boot != presence.boot_id


def is_old_report(known: DeviceRow | None, report: ReportedState) -> bool:
    """Return whether a newer report of the device is stored: same boot and later, or the boot that is present now."""
    if known is None or known.boot_id is None or known.sequence is None:
        return False
    if known.boot_id == report.boot_id:
        return report.sequence < known.sequence
    return known.presence_boot == known.boot_id


def slot_changes(known: DeviceRow | None, arrival: Presence | ReportedState) -> list[dict[str, Any]]:
    """Return the rows of `slot_changes` that an arrival makes, without their time: one for each slot on a channel of
    which it tells something new, and one in state `GONE` for a slot that is on that channel no more."""
    before = None if known is None else known.reported
    was_online = None if known is None else known.online
    after, online = (before, arrival.online) if isinstance(arrival, Presence) else (arrival, was_online)
    old = {row["slot"]: row for row in _slot_rows(before, was_online)}
    rows = {row["slot"]: row for row in _slot_rows(after, online)}
    gone = [row | {"state": GONE} for name, row in old.items() if rows.get(name, {}).get("channel") != row["channel"]]
    return gone + [row for name, row in rows.items() if row != old.get(name)]


def _slot_rows(report: ReportedState | None, online: bool | None) -> list[dict[str, Any]]:
    if report is None:
        return []
    facts = {"device": report.device, "board": report.board, "architecture": report.architecture, "online": online}
    facts["tags"] = msgspec.json.encode(report.tags, order="sorted").decode()
    facts["facts"] = msgspec.json.encode(report.facts, order="sorted").decode()
    return [
        facts
        | {
            "slot": slot.slot,
            "channel": slot.channel,
            "state": slot.state,
            "reason": slot.reason,
            "rollout": slot.rollout,
            "manifest": None if slot.candidate is None else slot.candidate.manifest_sha256,
            "serving": None if slot.serving is None else slot.serving.manifest_sha256,
            "compared": 0 if slot.shadow is None else slot.shadow.compared,
        }
        for slot in report.slots
        if slot.channel is not None
    ]


def missing_runs(accounted: Sequence[range]) -> list[range]:
    """Return the runs of numbers, from 0 to the largest of them, that no given run covers."""
    missing: list[range] = []
    reached = 0
    for run in sorted(accounted, key=lambda run: run.start):
        if run.start > reached:
            missing.append(range(reached, run.start))
        reached = max(reached, run.stop)
    return missing


def _message_row(message: Message) -> MessageRow:
    time = message.end if isinstance(message, TelemetryWindow) else message.time
    slot = None if isinstance(message, Tombstone) else message.slot
    body = encode(message).decode()
    return message.device, message.boot_id, message.sequence, message.kind, time, slot, body


def _device(row: Any) -> DeviceRow:
    reported = None if row["reported"] is None else parse_reported(row["reported"].encode())
    return DeviceRow(**(dict(row) | {"reported": reported}))
