"""What a running agent answers when asked for its status."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edge_agent.identity.validity import IdentityStatus
from edge_contracts.codec import Record
from edge_contracts.shadow import ShadowCounts
from edge_contracts.state import Level, SlotState

if TYPE_CHECKING:
    pass


class UpdateRefusal(Record, frozen=True, kw_only=True):
    """An update that was refused, rejected or rolled back, and why. `time` in seconds since the epoch."""

    time: float
    event: str
    slot: str | None = None
    reason: str = ""
    text: str = ""


class CaptureStatus(Record, frozen=True, kw_only=True):
    """What a slot's captures take on the disk, and whether they go on now."""

    folder: str
    megabytes: float
    limit_mb: float
    today_mb: float
    allowed: bool


class SlotStatus(SlotState, frozen=True, kw_only=True):
    """One slot: what is reported of it, and where it answers, which processes serve it and what they have counted."""

    http: str | None = None
    workers: tuple[int, ...] = ()
    counters: dict[str, int] = {}
    nodes: dict[str, str] = {}
    rejected: tuple[str, ...] = ()
    shadow_counts: ShadowCounts | None = None
    captured: CaptureStatus | None = None
    unloaded: bool = False


class WriteStatus(Record, frozen=True, kw_only=True):
    """What the agent has written to storage today (UTC), against the profile's budget, and whether it saves on it."""

    today_mb: float
    budget_mb: float
    saving: bool = False


class AgentStatus(Record, frozen=True, kw_only=True):
    """The whole device. Without a running agent `running` is false and what only a process knows is missing.
    `updates_wait` says why nothing new is installed now, though it may be offered."""

    running: bool
    device: str = ""
    pid: int | None = None
    updater_pid: int | None = None
    boot_id: str | None = None
    level: Level | None = None
    level_reasons: tuple[str, ...] = ()
    updates_wait: str = ""
    storage_trouble: str = ""
    broker: str | None = None
    broker_connected: bool = False
    broker_trouble: str = ""
    data_broker: str | None = None
    data_broker_connected: bool = False
    data_broker_trouble: str = ""
    identity: IdentityStatus | None = None
    memory_mb: float | None = None
    writes: WriteStatus | None = None
    slots: tuple[SlotStatus, ...] = ()
    trusted: dict[str, int] = {}
    spooled: int = 0
    dropped: int = 0
    audit_head: str | None = None
    audit_problem: str | None = None
    refusals: tuple[UpdateRefusal, ...] = ()
