"""Where news goes: into the log, the audit log and the telemetry spool; the newest refusals are kept for the status."""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable

from edge_agent.device_event import News
from edge_agent.storage.audit_chain import Entry
from edge_agent.storage.audit_log import AuditLog
from edge_agent.storage.state_dir import StateError
from edge_agent.supervisor.status import Refusal, refusal_of
from edge_agent.telemetry.uplink import utc_now
from edge_contracts.telemetry import Event

_LEVELS = {"info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}
_log = logging.getLogger(__name__)


class Journal:
    """Used on the supervisor's event loop. `spool` takes what builds an event from its sequence number."""

    def __init__(
        self,
        device: str,
        boot_id: str,
        audit: AuditLog,
        refusals: deque[Refusal],
        spool: Callable[[Callable[[int], Event]], None],
    ) -> None:
        self._device = device
        self._boot_id = boot_id
        self._audit = audit
        self._spool = spool
        self.refusals = refusals

    def tell(self, news: News) -> None:
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

    def _record(self, news: News) -> None:
        now = time.time()
        try:
            self._audit.append(news.event, now, slot=news.slot, text=news.text, detail=news.detail)
        except StateError as error:
            _log.error("%s", error)
        entry = Entry(
            serial=0, time=now, event=news.event, slot=news.slot, text=news.text, detail=news.detail, previous=""
        )
        refusal = refusal_of(entry)
        if refusal is not None:
            self.refusals.append(refusal)
