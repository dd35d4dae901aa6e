"""The text of `edgewright agent status`, and the status that the state folder holds while no agent runs."""

from __future__ import annotations

import contextlib
import sqlite3
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from edge_agent.answer_comparison import most_confused, words
from edge_agent.ipc.status import AgentStatus, SlotStatus
from edge_agent.storage.audit_log import verify_audit
from edge_agent.storage.state_dir import StateFolder
from edge_agent.supervisor.event_log import stored_refusals
from edge_agent.update.record import UpdateRecord, installed

if TYPE_CHECKING:
    pass


def stored_status(state: StateFolder) -> AgentStatus:
    """Return what the records of a stopped agent say; nothing when none has ever run here. Raises StateError for
    records that cannot be read."""
    if not state.slots.is_dir():
        return AgentStatus(running=False)
    head, problem = None, None
    try:
        head = verify_audit(state.audit).digest
    except (OSError, ValueError) as error:
        problem = str(error)
    return AgentStatus(
        running=False,
        slots=tuple(_slot(state.read_record(path.stem)) for path in sorted(state.slots.glob("*.json"))),
        spooled=_spooled(state),
        audit_head=head,
        audit_problem=problem,
        refusals=tuple(stored_refusals(state)),
    )


def _slot(record: UpdateRecord) -> SlotStatus:
    return SlotStatus(
        slot=record.slot,
        channel=record.candidate.channel if record.candidate else None,
        model=record.candidate.model if record.candidate else None,
        state=record.state,
        reason=record.reason,
        serving=record.serving,
        last_good=record.last_good,
        candidate=installed(record.candidate) if record.candidate else None,
        rollout=record.candidate.rollout if record.candidate else None,
        rejected=record.rejected,
        saved=record.saved,
    )


def _spooled(state: StateFolder) -> int:
    if not state.outbox.exists():
        return 0
    try:
        with contextlib.closing(sqlite3.connect(f"file:{state.outbox}?mode=ro", uri=True)) as database:
            return int(database.execute("SELECT count(*) FROM messages").fetchone()[0])
    except sqlite3.Error:
        return 0


def status_text(status: AgentStatus) -> str:
    """Return the status as a screen of text."""
    lines = [_headline(status)]
    if status.storage_trouble:
        lines.append(f"storage   {status.storage_trouble}; look for I/O errors in dmesg, a worn card ends like this")
    if status.updates_wait:
        lines.append(f"updates   nothing new is installed now: {status.updates_wait}")
    for slot in status.slots:
        lines.extend(_slot_lines(slot))
    if status.broker is not None:
        lines.append(_broker_line("broker", status.broker, status.broker_connected, status.broker_trouble))
    if status.data_broker is not None:
        connected, trouble = status.data_broker_connected, status.data_broker_trouble
        lines.append(_broker_line("data", status.data_broker, connected, trouble))
    if status.identity is not None:
        advice = f" ({status.identity.advice})" if status.identity.advice else ""
        who = f"{status.identity.device} until {status.identity.expires}" if status.identity.device else "none"
        lines.append(f"identity  {who}{advice}")
    lines.append(f"outbox    {status.spooled} messages waiting, {status.dropped} dropped")
    if status.writes is not None:
        saving = ", over budget: telemetry windows wait until tomorrow" if status.writes.saving else ""
        lines.append(f"writes    {status.writes.today_mb:.1f} of {status.writes.budget_mb:g} MB today{saving}")
    lines.append(f"audit     {status.audit_problem or (status.audit_head or '-')[:16]}")
    lines.extend(
        f"refused   {_when(refusal.time)} {refusal.slot or '*'}: {refusal.reason or refusal.event}"
        f" ({refusal.text[:160]})"
        for refusal in status.refusals[-5:]
    )
    return "\n".join(lines)


def _when(seconds: float) -> str:
    """Return seconds since 1970 as a time in UTC; a clock that was wrong may have given any."""
    try:
        return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    except (OverflowError, OSError, ValueError):
        return "(no time)"


def _broker_line(label: str, address: str, connected: bool, trouble: str) -> str:
    return f"{label:<9} {address} {'connected' if connected else 'not connected'}{f' ({trouble})' if trouble else ''}"


def _headline(status: AgentStatus) -> str:
    if not status.running:
        return "agent not running; showing its last saved state"
    reasons = f" ({', '.join(status.level_reasons)})" if status.level_reasons else ""
    memory = "" if status.memory_mb is None else f", {status.memory_mb:.0f} MB"
    return f"device    {status.device}, agent {status.pid}{memory}, level {status.level}{reasons}"


def _slot_lines(slot: SlotStatus) -> list[str]:
    reason = f" ({slot.reason})" if slot.reason else ""
    progress = "" if slot.progress is None else f" {slot.progress:.0%}"
    lines = [f"slot      {slot.slot}: {slot.state}{reason}{progress}"]
    for name in ("serving", "candidate", "last_good", "factory"):
        release = getattr(slot, name)
        if release is not None:
            lines.append(f"  {name:<10}{release.version}  {release.manifest_sha256[:16]}")
    if slot.faults:
        lines.append(f"  fault     {', '.join(slot.faults)}")
    if slot.saved:
        lines.append(f"  deltas    saved {slot.saved / 1e6:.2f} MB of download")
    if slot.shadow_counts is not None:
        lines.append(f"  shadow    {words(slot.shadow_counts)}")
        lines.extend(f"            {pair}  {count}" for pair, count in most_confused(slot.shadow_counts.confusion, 3))
    if slot.captured is not None:
        captured = slot.captured
        off = "" if captured.allowed else ", paused"
        lines.append(f"  captures  {captured.megabytes:.1f} of {captured.limit_mb:g} MB in {captured.folder}{off}")
    if slot.http is not None:
        workers = ", ".join(map(str, slot.workers)) or "none"
        nobody = "served by: none" if slot.serving or slot.factory else "503: no release installed"
        nobody = "idle, unloaded to save memory; loads on the next request" if slot.unloaded else nobody
        by = f"served by: {slot.served_by}" if slot.served_by else nobody
        lines.append(f"  answers   http://{slot.http}  {by}  workers {workers}")
    lines.extend(f"    node    {node}  served by: {served_by}" for node, served_by in slot.nodes.items())
    return lines
