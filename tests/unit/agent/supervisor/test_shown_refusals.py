"""Which refusals `agent status` shows: until something ends them, and a failed attempt ends none."""

from __future__ import annotations

from collections import deque

from edge_agent.ipc.status import UpdateRefusal
from edge_agent.storage.audit_chain import AuditEntry
from edge_agent.supervisor.event_log import remember


def entry(event: str, **detail: str) -> AuditEntry:
    return AuditEntry(serial=1, time=1.0, event=event, slot="main", detail=dict(detail), previous="")


def shown(*entries: AuditEntry) -> list[str]:
    refusals: deque[UpdateRefusal] = deque(maxlen=10)
    for one in entries:
        remember(refusals, one)
    return [refusal.reason for refusal in refusals]


def test_a_refusal_stays_while_its_release_is_tried_again_and_again() -> None:
    refused = entry("update-refused", reason="hash-mismatch")
    back = entry("update-offered", reason="hash-mismatch")
    assert shown(refused, back, entry("update-preflight")) == ["hash-mismatch"]


def test_a_new_offer_ends_what_was_refused_before() -> None:
    assert shown(entry("update-refused", reason="hash-mismatch"), entry("update-offered")) == []


def test_a_commit_ends_every_refusal_of_its_slot() -> None:
    assert shown(entry("update-rejected", reason="trial-quality"), entry("update-committed")) == []
