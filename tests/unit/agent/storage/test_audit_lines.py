"""What stands in a line of the audit log, and where the log is cut off, rotated and gone on with."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from edge_agent.storage.audit_chain import MAX_LINE_BYTES
from edge_agent.storage.audit_log import ROTATE_BYTES, ROTATIONS, AuditLog, audit_files, verify_audit
from edge_agent.storage.durable import StateError


def lines_of(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_bytes().splitlines()]


def test_a_line_holds_all_that_was_said_and_the_hash_of_the_one_before(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    log = AuditLog(path)
    log.append("first", 12.5)
    before = log.head
    log.append("second", 13.5, slot="main", text="t", detail={"reason": "hung", "lost": 2})
    log.close()
    first, second = lines_of(path)
    assert (first["serial"], first["event"], first["time"]) == (1, "first", 12.5)
    assert (second["serial"], second["event"], second["time"], second["slot"], second["text"]) == (
        2, "second", 13.5, "main", "t",
    )  # fmt: skip
    assert second["detail"] == {"reason": "hung", "lost": 2}
    assert second["previous"] == before != log.head


def test_a_log_without_a_line_starts_the_chain(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    assert verify_audit(path).serial == 0
    one, other = AuditLog(path), AuditLog(tmp_path / "other.jsonl")
    assert one.head == other.head
    one.close()
    other.close()
    assert audit_files(path) == [path]


@pytest.mark.parametrize(("length", "kept"), [(1999, 1999), (2000, 2000), (2001, 2000), (9000, 2000)])
def test_a_long_text_is_cut(tmp_path: Path, length: int, kept: int) -> None:
    log = AuditLog(tmp_path / "a")
    log.append("e", 1.0, text="x" * length)
    log.close()
    assert len(lines_of(tmp_path / "a")[0]["text"]) == kept


def test_a_line_too_long_keeps_its_event_and_leaves_out_the_rest(tmp_path: Path) -> None:
    log = AuditLog(tmp_path / "a")
    log.append("e", 1.0, slot="main", text="t", detail={"much": "x" * MAX_LINE_BYTES})
    log.append("next", 2.0)
    log.close()
    short, after = lines_of(tmp_path / "a")
    assert (short["event"], short["slot"], short["serial"], short["time"]) == ("e", "main", 1, 1.0)
    assert not short.get("detail")
    assert not short.get("text")
    assert after["serial"] == 2
    assert verify_audit(tmp_path / "a").serial == 2


def test_a_gap_is_named_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "audit.jsonl"
    log = AuditLog(path)
    log.append("before", 1.0)
    with monkeypatch.context() as full:
        full.setattr(os, "fsync", lambda _: (_ for _ in ()).throw(OSError(28, "No space left on device")))
        for _ in range(2):
            with pytest.raises(StateError, match="No space"):
                log.append("lost", 2.0)
        assert log.unwritten == 2
    log.append("after", 3.0)
    log.append("later", 4.0)
    assert log.unwritten == 0
    log.close()
    found = lines_of(path)
    assert [line["event"] for line in found] == ["before", "audit-gap", "after", "later"]
    assert (found[1]["text"], found[1]["time"]) == ("2 lines could not be written", 3.0)
    assert verify_audit(path).serial == 4


def test_a_file_is_full_when_it_is_over_its_size_and_not_at_it(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    log = AuditLog(path)
    log.append("e", 1.0)
    size = path.stat().st_size
    log.close()
    for limit, files in ((size, 1), (size - 1, 2)):
        other = tmp_path / f"{limit}.jsonl"
        log = AuditLog(other, rotate_bytes=limit)
        log.append("e", 1.0)
        log.close()
        assert len(audit_files(other)) == files
    assert (ROTATE_BYTES, ROTATIONS) == (1024 * 1024, 3)


def test_the_oldest_files_go_first_and_are_read_first(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    log = AuditLog(path, rotate_bytes=1)
    for number in range(6):
        log.append(f"e{number}", float(number))
    log.close()
    assert [file.name for file in audit_files(path)] == [
        "audit.jsonl.3", "audit.jsonl.2", "audit.jsonl.1", "audit.jsonl",
    ]  # fmt: skip
    assert [line["event"] for file in audit_files(path) for line in lines_of(file)] == ["e3", "e4", "e5"]


def test_a_torn_line_is_cut_and_a_whole_one_is_not(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    log = AuditLog(path)
    log.append("whole", 1.0)
    log.close()
    whole = path.read_bytes()
    AuditLog(path).close()
    assert path.read_bytes() == whole
    path.write_bytes(whole + b"{")
    AuditLog(path).close()
    assert path.read_bytes().startswith(whole)
    repaired = lines_of(path)[1]
    assert (repaired["event"], repaired["time"], repaired["text"]) == (
        "audit-repaired", 0.0, "1 bytes of an incomplete last line were removed",
    )  # fmt: skip


def test_damage_is_named_with_its_line_and_no_time(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    log = AuditLog(path)
    for number in range(3):
        log.append("e", float(number), text=f"line {number}")
    log.close()
    path.write_bytes(path.read_bytes().replace(b"line 0", b"line X"))
    with pytest.raises(ValueError, match=r"audit\.jsonl: line 2"):
        verify_audit(path)
    AuditLog(path).close()
    broken = lines_of(path)[-1]
    assert (broken["event"], broken["time"], broken["serial"]) == ("audit-broken", 0.0, 4)
    assert "line 2" in broken["text"]


def test_a_log_of_nothing_but_nonsense_is_started_anew(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    path.write_bytes(b"nonsense\n[]\n")
    log = AuditLog(path)
    log.append("e", 1.0)
    log.close()
    last = lines_of_last(path)
    assert (last["event"], last["serial"]) == ("e", 2)


def lines_of_last(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(path.read_bytes().splitlines()[-1])
    return found
