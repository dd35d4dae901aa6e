"""Planned rollouts in the fleet's database: where each one is, what its devices did, the evidence, the decisions.

Evidence and decisions are only ever added, with the numbers that order them, so that the same verdicts come out again.
A lease picks the one controller that decides. What devices reported is in `edge_fleet.database.telemetry`, what
follows from it in `edge_fleet.rollouts.plan_state`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import groupby
from typing import Any, Literal, TypeVar

import msgspec
from sqlalchemy import (
    Boolean,
    Column,
    Connection,
    Float,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    UniqueConstraint,
    delete,
    func,
    insert,
    select,
    update,
)

from edge_contracts.codec import Record, encode
from edge_contracts.telemetry import TelemetryWindow
from edge_fleet.database.engine import open_database
from edge_fleet.database.telemetry import DEVICES, MESSAGES, SLOT_CHANGES
from edge_fleet.evidence.gates import Observation
from edge_fleet.rollouts.plan import RolloutPlan
from edge_fleet.rollouts.plan_state import StepDecision, StepState

Status = Literal["starting", "running", "stopped", "finished", "ended"]
_Row = TypeVar("_Row", bound=Record)

_METADATA = MetaData()
_NAME = String(64)

PLANNED = Table(
    "planned_rollouts",
    _METADATA,
    Column("rollout", _NAME, primary_key=True),
    Column("channel", _NAME, nullable=False),
    Column("manifest", String(64), nullable=False),
    Column("plan", Text, nullable=False),
    Column("step", Integer, nullable=False),
    Column("entered", Float, nullable=False),
    Column("status", String(16), nullable=False),
    Column("change", Integer, nullable=False),
    Column("began", String(32), nullable=False),
)
PARTICIPANTS = Table(
    "rollout_devices",
    _METADATA,
    Column("rollout", _NAME, primary_key=True),
    Column("device", _NAME, primary_key=True),
    Column("state", String(16), nullable=False),
    Column("reason", Text),
    Column("compared", Integer, nullable=False),
    Column("changed", Float, nullable=False),
    Column("outcome", String(16)),
    Column("message", Integer),
    Column("observe_until", Float),
    Column("observed", Boolean, nullable=False),
)
EVIDENCE = Table(
    "rollout_evidence",
    _METADATA,
    Column("id", Integer, primary_key=True),
    Column("rollout", _NAME, nullable=False, index=True),
    Column("gate", _NAME, nullable=False),
    Column("device", _NAME, nullable=False),
    Column("time", String(32), nullable=False),
    Column("value", Float, nullable=False),
    Column("text", Text, nullable=False),
    UniqueConstraint("rollout", "gate", "device"),
)
CONTROLS = Table(
    "rollout_controls",
    _METADATA,
    Column("rollout", _NAME, primary_key=True),
    Column("device", _NAME, primary_key=True),
)
DECISIONS = Table(
    "rollout_decisions",
    _METADATA,
    Column("id", Integer, primary_key=True),
    Column("rollout", _NAME, nullable=False, index=True),
    Column("time", String(32), nullable=False),
    Column("action", String(16), nullable=False),
    Column("why", Text, nullable=False),
    Column("state", Text, nullable=False),
    Column("evidence", Integer, nullable=False),
    Column("log_e", Text, nullable=False),
)
APPROVALS = Table(
    "rollout_approvals",
    _METADATA,
    Column("rollout", _NAME, primary_key=True),
    Column("step", Integer, primary_key=True),
    Column("who", Text, nullable=False),
    Column("time", String(32), nullable=False),
)
LEASES = Table(
    "leases",
    _METADATA,
    Column("name", _NAME, primary_key=True),
    Column("holder", Text, nullable=False),
    Column("until", Float, nullable=False),
)


class PlannedRollout(Record, frozen=True, kw_only=True):
    """A rollout under a plan. `entered` is when its step began, in seconds since the epoch; `change` is the last row of
    `slot_changes` that was followed."""

    rollout: str
    channel: str
    manifest: str
    plan: RolloutPlan
    step: int
    entered: float
    status: Status
    change: int
    began: str


class Participant(Record, frozen=True, kw_only=True):
    """What a device did with the release: its last state, and its first `outcome`. It is observed from a message's
    number until a time."""

    device: str
    state: str
    reason: str | None = None
    compared: int = 0
    changed: float = 0.0
    outcome: str | None = None
    message: int | None = None
    observe_until: float | None = None
    observed: bool = False


class SlotChange(Record, frozen=True, kw_only=True):
    """A row of `slot_changes`."""

    id: int
    time: str
    device: str
    slot: str
    channel: str
    online: bool | None
    board: str
    architecture: str
    tags: dict[str, str]
    facts: dict[str, str]
    state: str
    reason: str | None
    rollout: str | None
    manifest: str | None
    serving: str | None
    compared: int


class DecisionRow(Record, frozen=True, kw_only=True):
    """A decision as it was made: on which state, and on the evidence up to which row."""

    id: int
    time: str
    action: str
    why: str
    state: StepState
    evidence: int
    log_e: dict[str, float]


class RolloutStore:
    """Reads and writes of planned rollouts."""

    def __init__(self, url: str) -> None:
        """Open, and create what is missing. Raises FleetError as `open_database` does."""
        self._engine, self._insert = open_database(url, _METADATA)
        for table in (MESSAGES, DEVICES, SLOT_CHANGES):
            table.create(self._engine, checkfirst=True)

    def close(self) -> None:
        """Close all connections."""
        self._engine.dispose()

    def lease(self, name: str, holder: str, now: float, length_s: float) -> bool:
        """Take or renew a lease until `now + length_s`; return whether it is ours."""
        with self._engine.begin() as connection:
            row = {"name": name, "holder": holder, "until": now + length_s}
            connection.execute(self._insert(LEASES).values(row).on_conflict_do_nothing())
            free = (LEASES.c.holder == holder) | (LEASES.c.until < now) | (LEASES.c.until > now + 10 * length_s)
            taken = update(LEASES).where(LEASES.c.name == name, free).values(row)
            connection.execute(taken)
            # Not by the number of rows, which PostgreSQL's driver does not tell of an insert that may conflict.
            return connection.scalar(select(LEASES.c.holder).where(LEASES.c.name == name)) == holder

    def begin(self, rollout: str, manifest: str, plan: RolloutPlan, entered: float, now: str) -> None:
        """Store a plan that starts. What was reported before it is looked at when it is first driven."""
        row = {
            "rollout": rollout,
            "channel": plan.channel,
            "manifest": manifest,
            "plan": encode(plan).decode(),
            "step": 0,
            "entered": entered,
            "status": "starting",
            "change": 0,
            "began": now,
        }
        with self._engine.begin() as connection:
            connection.execute(self._insert(PLANNED).values(row).on_conflict_do_nothing())

    def planned(self, channel: str | None = None, status: Sequence[Status] = ()) -> list[PlannedRollout]:
        """Return rollouts under a plan, oldest first: of a channel, of one of some statuses."""
        query = select(PLANNED).order_by(PLANNED.c.began, PLANNED.c.rollout)
        if channel is not None:
            query = query.where(PLANNED.c.channel == channel)
        if status:
            query = query.where(PLANNED.c.status.in_(status))
        with self._engine.connect() as connection:
            return [_planned(row._mapping) for row in connection.execute(query)]

    def changes(self, channel: str, after: int, limit: int = 1000) -> list[list[SlotChange]]:
        """Return what slots on a channel reported after a row, oldest first: a list for each report, always whole."""
        query = select(SLOT_CHANGES).where(SLOT_CHANGES.c.channel == channel, SLOT_CHANGES.c.id > after)
        with self._engine.connect() as connection:
            rows = connection.execute(query.order_by(SLOT_CHANGES.c.id).limit(limit))
            changes = [_change(row._mapping) for row in rows]
        reports = [list(group) for _, group in groupby(changes, key=lambda one: (one.device, one.time))]
        # The last of a full page may go on behind it.
        return reports[:-1] if len(changes) == limit and len(reports) > 1 else reports

    def roster(self, channel: str, up_to: int) -> list[SlotChange]:
        """Return the newest report of every slot on a channel up to a row: what the changes add up to."""
        newest = (
            select(func.max(SLOT_CHANGES.c.id))
            .where(SLOT_CHANGES.c.channel == channel, SLOT_CHANGES.c.id <= up_to)
            .group_by(SLOT_CHANGES.c.device, SLOT_CHANGES.c.slot)
        )
        query = select(SLOT_CHANGES).where(SLOT_CHANGES.c.id.in_(newest)).order_by(SLOT_CHANGES.c.id)
        with self._engine.connect() as connection:
            return [_change(row._mapping) for row in connection.execute(query)]

    def participants(self, rollout: str) -> list[Participant]:
        """Return every device that said something about a rollout."""
        query = select(PARTICIPANTS).where(PARTICIPANTS.c.rollout == rollout).order_by(PARTICIPANTS.c.device)
        with self._engine.connect() as connection:
            return [_record(Participant, row._mapping) for row in connection.execute(query)]

    def follow(
        self, rollout: str, change: int, seen: Iterable[Participant], evidence: Sequence[Observation], now: str
    ) -> None:
        """Store what followed from the changes up to `change`, all or nothing: devices, and evidence that is not there
        yet (a device gives a gate one observation)."""
        with self._engine.begin() as connection:
            for one in seen:
                self._put(connection, rollout, one)
            self._add(connection, rollout, evidence, now)
            moved = update(PLANNED).where(PLANNED.c.rollout == rollout, PLANNED.c.change < change)
            connection.execute(moved.values(change=change))

    def observe(
        self, rollout: str, one: Participant, controls: Sequence[str], evidence: Sequence[Observation], now: str
    ) -> None:
        """Store that a device was compared with others, which are not compared again in this rollout."""
        with self._engine.begin() as connection:
            self._put(connection, rollout, one)
            self._add(connection, rollout, evidence, now)
            if controls:
                rows = [{"rollout": rollout, "device": device} for device in controls]
                connection.execute(self._insert(CONTROLS).on_conflict_do_nothing(), rows)

    def used_controls(self, rollout: str) -> set[str]:
        """Return the devices that a candidate was compared with already."""
        with self._engine.connect() as connection:
            return set(connection.scalars(select(CONTROLS.c.device).where(CONTROLS.c.rollout == rollout)))

    def evidence(self, rollout: str, after: int = 0) -> list[tuple[int, Observation]]:
        """Return the observations after a row with their numbers, in their order."""
        query = select(EVIDENCE).where(EVIDENCE.c.rollout == rollout, EVIDENCE.c.id > after).order_by(EVIDENCE.c.id)
        with self._engine.connect() as connection:
            return [(row.id, _record(Observation, row._mapping)) for row in connection.execute(query)]

    def last_message(self) -> int:
        """Return the number of the newest telemetry message; 0 without any."""
        with self._engine.connect() as connection:
            return connection.scalar(select(func.max(MESSAGES.c.id))) or 0

    def windows(self, device: str, after: int) -> list[TelemetryWindow]:
        """Return a device's telemetry windows after a message's number."""
        query = select(MESSAGES.c.body).where(MESSAGES.c.device == device, MESSAGES.c.kind == "window")
        with self._engine.connect() as connection:
            bodies = connection.scalars(query.where(MESSAGES.c.id > after).order_by(MESSAGES.c.id))
            return [msgspec.json.decode(body, type=TelemetryWindow) for body in bodies]

    def decide(
        self, rollout: str, made: StepDecision, state: StepState, evidence: int, log_e: dict[str, float], now: str
    ) -> None:
        """Add a decision, with all that it was made from."""
        row = {
            "rollout": rollout,
            "time": now,
            "action": made.action,
            "why": made.why,
            "state": encode(state).decode(),
            "evidence": evidence,
            "log_e": msgspec.json.encode(log_e, order="sorted").decode(),
        }
        with self._engine.begin() as connection:
            connection.execute(insert(DECISIONS), row)

    def decisions(self, rollout: str) -> list[DecisionRow]:
        """Return a rollout's decisions, oldest first."""
        query = select(DECISIONS).where(DECISIONS.c.rollout == rollout).order_by(DECISIONS.c.id)
        with self._engine.connect() as connection:
            return [_decision(row._mapping) for row in connection.execute(query)]

    def enter(self, rollout: str, step: int, entered: float) -> None:
        """Begin a step; the ones before it stay behind."""
        with self._engine.begin() as connection:
            where = update(PLANNED).where(PLANNED.c.rollout == rollout, PLANNED.c.step < step)
            connection.execute(where.values(step=step, entered=entered))

    def withdraw(self, rollout: str) -> None:
        """Forget a plan whose rollout was never signed."""
        with self._engine.begin() as connection:
            connection.execute(delete(PLANNED).where(PLANNED.c.rollout == rollout, PLANNED.c.status == "starting"))

    def set_status(self, rollout: str, status: Status) -> None:
        """Say that a rollout runs, or how it ended."""
        with self._engine.begin() as connection:
            connection.execute(update(PLANNED).where(PLANNED.c.rollout == rollout).values(status=status))

    def approve(self, rollout: str, step: int, who: str, now: str) -> None:
        """Store who said yes to a step; the first one stays."""
        row = {"rollout": rollout, "step": step, "who": who, "time": now}
        with self._engine.begin() as connection:
            connection.execute(self._insert(APPROVALS).values(row).on_conflict_do_nothing())

    def approval(self, rollout: str, step: int) -> str | None:
        """Return who approved a step."""
        query = select(APPROVALS.c.who).where(APPROVALS.c.rollout == rollout, APPROVALS.c.step == step)
        with self._engine.connect() as connection:
            found: str | None = connection.scalar(query)
            return found

    def _put(self, connection: Connection, rollout: str, one: Participant) -> None:
        row = msgspec.structs.asdict(one) | {"rollout": rollout}
        statement = self._insert(PARTICIPANTS).values(row)
        kept = {name: statement.excluded[name] for name in row if name not in ("rollout", "device")}
        connection.execute(statement.on_conflict_do_update(index_elements=["rollout", "device"], set_=kept))

    def _add(self, connection: Connection, rollout: str, evidence: Sequence[Observation], now: str) -> None:
        rows = [msgspec.structs.asdict(one) | {"rollout": rollout, "time": now} for one in evidence]
        for row in rows:
            connection.execute(self._insert(EVIDENCE).values(row).on_conflict_do_nothing())


def _planned(row: Any) -> PlannedRollout:
    plan = msgspec.json.decode(row["plan"], type=RolloutPlan)
    return PlannedRollout(**(dict(row) | {"plan": plan}))


def _change(row: Any) -> SlotChange:
    told = {name: msgspec.json.decode(row[name], type=dict[str, str]) for name in ("tags", "facts")}
    return _record(SlotChange, dict(row) | told)


def _decision(row: Any) -> DecisionRow:
    state = msgspec.json.decode(row["state"], type=StepState)
    log_e = msgspec.json.decode(row["log_e"], type=dict[str, float])
    return _record(DecisionRow, dict(row) | {"state": state, "log_e": log_e})


def _record(kind: type[_Row], row: Any) -> _Row:
    return kind(**{name: row[name] for name in kind.__struct_fields__ if name in row})
