"""How long telemetry is kept: windows as they came, then in steps of five minutes, then in days.

A window goes into its five minutes in the transaction that removes it, and those into their day likewise, so that
nothing is counted twice or lost, whenever the process dies. What is added up: counters, answers by rung, latencies,
histograms; of resources and drift the largest reading. Events and tombstones are kept as long as the five minutes.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
from sqlalchemy import (
    Column,
    Connection,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    bindparam,
    delete,
    func,
    select,
)

from edge_contracts.codec import Record, encode
from edge_contracts.telemetry import TelemetryWindow
from edge_fleet.database.engine import open_database
from edge_fleet.database.telemetry import FLOORS, MESSAGES
from edge_fleet.retention import Retention

BATCH = 1000
"""Rows in one transaction: others wait for it less than a tenth of a second."""

DETAIL_S = 300
"""Seconds that a row of `windows_5min` is about."""

MAX_NAMES = 1000
"""Names in one map of a row; what comes beyond is added to `other`, as by the devices."""

_METADATA = MetaData()
_NAME = String(64)


def _table(name: str) -> Table:
    return Table(
        name,
        _METADATA,
        Column("device", _NAME, primary_key=True),
        Column("slot", _NAME, primary_key=True),
        Column("version", String(64), primary_key=True),
        Column("start", String(32), primary_key=True, index=True),
        Column("windows", Integer, nullable=False),
        Column("body", Text, nullable=False),
    )


_BY_TIME = Index("messages_time", MESSAGES.c.time)
"""Finds what is old without looking at what is not."""

DETAILED = _table("windows_5min")
DAILY = _table("windows_daily")
_PLACE = (MESSAGES.c.id, MESSAGES.c.device, MESSAGES.c.boot_id, MESSAGES.c.sequence)
_NAMES = ("device", "slot", "version", "start")
_Key = tuple[str, str, str, str]


class RolledUp(Record, frozen=True, kw_only=True):
    """Windows added up: `windows` of them."""

    windows: int = 0
    model: str | None = None
    counters: dict[str, int] = {}
    served_by: dict[str, int] = {}
    latency_log2_us: tuple[int, ...] = ()
    histograms: dict[str, tuple[int, ...]] = {}
    resources: dict[str, float] = {}
    drift: dict[str, float] = {}


class Swept(Record, frozen=True, kw_only=True):
    """What one sweep did: rows that went into five minutes, those that went into days, and rows that were removed."""

    windows: int = 0
    detailed: int = 0
    removed: int = 0

    def and_then(self, other: Swept) -> Swept:
        """Return both together."""
        return Swept(
            windows=self.windows + other.windows,
            detailed=self.detailed + other.detailed,
            removed=self.removed + other.removed,
        )

    @property
    def any(self) -> bool:
        """Whether anything was found."""
        return bool(self.windows or self.detailed or self.removed)


class RetentionStore:
    """The tables of what was rolled up, and the sweeping into them."""

    def __init__(self, url: str) -> None:
        """Open, and create what is missing. Raises FleetError as `open_database` does."""
        self._engine, self._insert = open_database(url, _METADATA)
        for table in (MESSAGES, FLOORS):
            table.create(self._engine, checkfirst=True)
        _BY_TIME.create(self._engine, checkfirst=True)

    def close(self) -> None:
        """Close all connections."""
        self._engine.dispose()

    def sweep(self, kept: Retention, now: datetime) -> Swept:
        """Roll up and remove what is too old, at most `BATCH` rows of each kind. Doing it again goes on; it is all done
        when nothing is found any more."""
        raw_until = _text(now - timedelta(days=kept.raw_days))
        detailed_until = _text(now - timedelta(days=max(kept.raw_days, kept.detailed_days)))
        with self._engine.begin() as connection:
            windows = self._sweep_windows(connection, raw_until)
        with self._engine.begin() as connection:
            detailed = self._sweep_detailed(connection, detailed_until)
        with self._engine.begin() as connection:
            old = (MESSAGES.c.kind != "window") & (MESSAGES.c.time < detailed_until)
            removed = connection.execute(select(*_PLACE).where(old).order_by(MESSAGES.c.time).limit(BATCH)).all()
            self._remove(connection, removed)
        return Swept(windows=windows, detailed=detailed, removed=len(removed))

    def rolled_up(self, device: str, *, daily: bool = False) -> list[tuple[str, str, str, RolledUp]]:
        """Return a device's rows, oldest first: start (UTC), slot, version, and what was added up."""
        table = DAILY if daily else DETAILED
        query = select(table).where(table.c.device == device).order_by(table.c.start, table.c.slot, table.c.version)
        with self._engine.connect() as connection:
            return [(row.start, row.slot, row.version, _parsed(row.body)) for row in connection.execute(query)]

    def counts(self) -> dict[str, int]:
        """Return how many rows there are of each kind."""
        tables = {"windows_5min": DETAILED, "windows_daily": DAILY}
        with self._engine.connect() as connection:
            kinds = connection.execute(select(MESSAGES.c.kind, func.count()).group_by(MESSAGES.c.kind))
            found = {f"raw_{kind}": int(count) for kind, count in kinds}
            rolled = {name: connection.scalar(select(func.count()).select_from(t)) or 0 for name, t in tables.items()}
        return found | rolled

    def _sweep_windows(self, connection: Connection, until: str) -> int:
        old = (MESSAGES.c.kind == "window") & (MESSAGES.c.time < until)
        query = select(*_PLACE, MESSAGES.c.body).where(old).order_by(MESSAGES.c.time).limit(BATCH)
        rows = connection.execute(query.with_for_update(skip_locked=True)).all()
        groups: dict[_Key, RolledUp] = defaultdict(RolledUp)
        for row in rows:
            window = msgspec.json.decode(row.body, type=TelemetryWindow)
            key = (window.device, window.slot, window.version or "", _bucket(window.end))
            groups[key] = merged(groups[key], of_window(window))
        self._put(connection, DETAILED, groups)
        self._remove(connection, rows)
        return len(rows)

    def _sweep_detailed(self, connection: Connection, until: str) -> int:
        query = select(DETAILED).where(DETAILED.c.start < until).order_by(DETAILED.c.start).limit(BATCH)
        rows = connection.execute(query.with_for_update(skip_locked=True)).all()
        groups: dict[_Key, RolledUp] = defaultdict(RolledUp)
        for row in rows:
            key = (row.device, row.slot, row.version, f"{row.start[:10]}T00:00:00Z")
            groups[key] = merged(groups[key], _parsed(row.body))
        self._put(connection, DAILY, groups)
        if rows:
            one = delete(DETAILED)
            for name in _NAMES:
                one = one.where(DETAILED.c[name] == bindparam(f"the_{name}"))
            connection.execute(one, [{f"the_{name}": getattr(row, name) for name in _NAMES} for row in rows])
        return len(rows)

    def _remove(self, connection: Connection, rows: Sequence[Any]) -> None:
        """Remove messages; that they were there is remembered, or their numbers would be gaps."""
        if not rows:
            return
        one = delete(MESSAGES).where(MESSAGES.c.id == bindparam("the_id"))
        connection.execute(one, [{"the_id": row.id} for row in rows])
        below: dict[tuple[str, str], int] = {}
        for row in rows:
            boot = (row.device, row.boot_id)
            below[boot] = max(below.get(boot, 0), row.sequence + 1)
        for (device, boot_id), number in sorted(below.items()):
            statement = self._insert(FLOORS).values(device=device, boot_id=boot_id, below=number)
            higher = FLOORS.c.below < statement.excluded.below
            connection.execute(
                statement.on_conflict_do_update(
                    index_elements=["device", "boot_id"], set_={"below": statement.excluded.below}, where=higher
                )
            )

    def _put(self, connection: Connection, table: Table, groups: Mapping[_Key, RolledUp]) -> None:
        """Add to what is there already."""
        for key in sorted(groups):
            where = dict(zip(_NAMES, key, strict=True))
            query = select(table.c.body)
            for name, value in where.items():
                query = query.where(table.c[name] == value)
            known = connection.scalar(query.with_for_update())
            total = groups[key] if known is None else merged(_parsed(known), groups[key])
            row: dict[str, Any] = where | {"windows": total.windows, "body": encode(total).decode()}
            statement = self._insert(table).values(row)
            changes = {"windows": statement.excluded.windows, "body": statement.excluded.body}
            connection.execute(statement.on_conflict_do_update(index_elements=_NAMES, set_=changes))


def of_window(window: TelemetryWindow) -> RolledUp:
    """Return one window as what can be added up."""
    return RolledUp(
        windows=1,
        model=window.model,
        counters=window.counters,
        served_by=window.served_by,
        latency_log2_us=window.latency_log2_us,
        histograms=window.histograms,
        resources=window.resources,
        drift=window.drift,
    )


def merged(one: RolledUp, other: RolledUp) -> RolledUp:
    """Return both added up; the order does not matter."""
    return RolledUp(
        windows=one.windows + other.windows,
        model=max(one.model or "", other.model or "") or None,
        counters=_sums(one.counters, other.counters),
        served_by=_sums(one.served_by, other.served_by),
        latency_log2_us=_bins(one.latency_log2_us, other.latency_log2_us),
        histograms={
            name: _bins(one.histograms.get(name, ()), other.histograms.get(name, ()))
            for name in sorted(one.histograms.keys() | other.histograms.keys())[:MAX_NAMES]
        },
        resources=_largest(one.resources, other.resources),
        drift=_largest(one.drift, other.drift),
    )


def _sums(one: Mapping[str, int], other: Mapping[str, int]) -> dict[str, int]:
    return {name: one.get(name, 0) + other.get(name, 0) for name in sorted(one.keys() | other.keys())[:MAX_NAMES]}


def _largest(one: Mapping[str, float], other: Mapping[str, float]) -> dict[str, float]:
    names = sorted(one.keys() | other.keys())[:MAX_NAMES]
    return {name: max(each[name] for each in (one, other) if name in each) for name in names}


def _bins(one: tuple[int, ...], other: tuple[int, ...]) -> tuple[int, ...]:
    short, long = sorted((one, other), key=len)
    return tuple(count + (short[place] if place < len(short) else 0) for place, count in enumerate(long))


def _parsed(body: str) -> RolledUp:
    return msgspec.json.decode(body, type=RolledUp)


def _bucket(end: str) -> str:
    """Return the start of the five minutes that a UTC time is in."""
    minute = int(end[14:16]) // (DETAIL_S // 60) * (DETAIL_S // 60)
    return f"{end[:14]}{minute:02d}:00Z"


def _text(moment: datetime) -> str:
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
