"""When devices' `last_seen` is written."""

from __future__ import annotations

from edge_fleet.database.batches import LastSeen


def test_a_device_is_due_once_in_ten_seconds() -> None:
    seen = LastSeen()
    assert seen.due(["b", "a", "b"], "2026-11-20T10:00:01.5Z") == ["a", "b"]
    seen.done(["a", "b"], "2026-11-20T10:00:01.5Z")
    assert seen.due(["a", "c"], "2026-11-20T10:00:09.9Z") == ["c"]
    assert seen.due(["a"], "2026-11-20T10:00:10.0Z") == ["a"]


def test_what_was_not_committed_is_due_again() -> None:
    seen = LastSeen()
    seen.due(["a"], "2026-11-20T10:00:01Z")
    assert seen.due(["a"], "2026-11-20T10:00:01Z") == ["a"]
