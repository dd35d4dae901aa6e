"""Where news goes: into the log, the audit log and the telemetry spool; the newest refusals are kept for the status."""

from __future__ import annotations

import contextlib
import logging
import time
from collections import deque
from collections.abc import Callable

import msgspec

from edge_agent.device_event import DeviceEvent
from edge_agent.ipc.status import UpdateRefusal
from edge_agent.storage.audit_chain import AuditEntry
from edge_agent.storage.audit_log import AuditLog, audit_files
from edge_agent.storage.durable import StateError
from edge_agent.storage.state_dir import StateFolder
from edge_agent.telemetry.uplink import utc_now
from edge_contracts.telemetry import Event

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
                log=news.log,
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
        remember(self.refusals, entry)

    def trusted(self) -> None:
        """The metadata verifies: what was refused of it as a whole is over."""
        _forget(self.refusals, lambda old: old.event == "update-refused" and old.slot is None)


REFUSALS = 10
"""Refusals shown, newest last."""


def refusal_of(entry: AuditEntry) -> UpdateRefusal | None:
    """Return the refusal an audit entry tells of, if it does."""
    if entry.event not in ("update-refused", "update-held", "update-rejected", "update-rolled-back", "import-failed"):
        return None
    reason = str(entry.detail.get("reason", ""))
    return UpdateRefusal(time=entry.time, event=entry.event, slot=entry.slot, reason=reason, text=entry.text)


def remember(refusals: deque[UpdateRefusal], entry: AuditEntry) -> None:
    """Take in what an audit entry tells: a refusal, or what ends one. An offer ends what was refused of its slot's
    channel and of the metadata as a whole, a commit all that was refused, rejected or rolled back in its slot, an
    import that works one from the same folder that did not."""
    refusal = refusal_of(entry)
    if refusal is not None:
        refusals.append(refusal)
    elif entry.event == "update-offered" and "reason" not in entry.detail:  # with one: back there after a failure
        _forget(refusals, lambda old: old.event == "update-refused" and old.slot in (None, entry.slot))
    elif entry.event == "update-committed":
        _forget(refusals, lambda old: old.slot is not None and old.slot == entry.slot)
    elif entry.event == "import-done":
        _forget(refusals, lambda old: old.event == "import-failed" and old.reason == entry.detail.get("reason"))


def _forget(refusals: deque[UpdateRefusal], over: Callable[[UpdateRefusal], bool]) -> None:
    kept = [refusal for refusal in refusals if not over(refusal)]
    refusals.clear()
    refusals.extend(kept)


def stored_refusals(state: StateFolder) -> deque[UpdateRefusal]:
    """Return the newest refusals in the audit log that nothing has ended since, oldest first."""
    found: deque[UpdateRefusal] = deque(maxlen=REFUSALS)
    for path in audit_files(state.audit):
        for line in path.read_bytes().splitlines():
            with contextlib.suppress(msgspec.MsgspecError, UnicodeDecodeError):
                remember(found, msgspec.json.decode(line, type=AuditEntry))
    return found
