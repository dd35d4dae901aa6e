"""Where news goes: into the log, the audit log and the telemetry spool; the newest refusals are kept for the status."""

from __future__ import annotations

import contextlib
import logging
import time
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING

import msgspec

from edge_agent.device_event import DeviceEvent
from edge_agent.ipc.status import UpdateRefusal
from edge_agent.storage.audit_chain import AuditEntry
from edge_agent.storage.audit_log import AuditLog, audit_files
from edge_agent.storage.durable import StateError
from edge_agent.storage.state_dir import StateFolder
from edge_agent.telemetry.uplink import utc_now
from edge_contracts.telemetry import Event

if TYPE_CHECKING:
    pass

if TYPE_CHECKING:
    pass

_LEVELS = {"info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}
_log = logging.getLogger(__name__)


class EventLog:
    """Used on the supervisor's event loop. `spool` takes what builds an event from its sequence number."""

    def __init__(
        self,
        device: str,
        boot_id: str,
        audit: AuditLog,
        refusals: deque[UpdateRefusal],
        spool: Callable[[Callable[[int], Event]], None],
    ) -> None:
        self._device = device
        self._boot_id = boot_id
        self._audit = audit
        self._spool = spool
        self.refusals = refusals

    def tell(self, news: DeviceEvent) -> None:
        """Put news into the log, the audit log and the spool."""
        # The event stands in the format itself: that makes it a kind of line of its own (edge_agent.host.logs).
        _log.log(_LEVELS[news.severity], f"%s {news.event} %s", news.slot or "-", news.text)
        self._record(news)
        self._spool(
            lambda sequence: Event(
                device=self._device,
                boot_id=self._boot_id,
                sequence=sequence,
                time=utc_now(),
                event=news.event,
                severity=news.severity,  # type: ignore[arg-type]
                slot=news.slot,
                text=news.text[:2000],
                detail=news.detail,
            )
        )

    def _record(self, news: DeviceEvent) -> None:
        now = time.time()
        try:
            self._audit.append(news.event, now, slot=news.slot, text=news.text, detail=news.detail)
        except StateError as error:
            _log.error("%s", error)
        entry = AuditEntry(
            serial=0, time=now, event=news.event, slot=news.slot, text=news.text, detail=news.detail, previous=""
        )
        refusal = refusal_of(entry)
        if refusal is not None:
            self.refusals.append(refusal)


REFUSALS = 10
"""Refusals shown, newest last."""


def refusal_of(entry: AuditEntry) -> UpdateRefusal | None:
    """Return the refusal an audit entry tells of, if it does."""
    if entry.event not in ("update-refused", "update-held", "update-rejected", "update-rolled-back"):
        return None
    reason = str(entry.detail.get("reason", ""))
    return UpdateRefusal(time=entry.time, event=entry.event, slot=entry.slot, reason=reason, text=entry.text)


def stored_refusals(state: StateFolder) -> deque[UpdateRefusal]:
    """Return the newest refusals in the audit log, oldest first."""
    found: deque[UpdateRefusal] = deque(maxlen=REFUSALS)
    for path in audit_files(state.audit):
        for line in path.read_bytes().splitlines():
            with contextlib.suppress(msgspec.MsgspecError, UnicodeDecodeError):
                refusal = refusal_of(msgspec.json.decode(line, type=AuditEntry))
                if refusal is not None:
                    found.append(refusal)
    return found
