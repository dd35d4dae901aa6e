"""The audit log: what is written cannot be changed unseen, and a power cut is repaired visibly."""

from __future__ import annotations

import errno
import json
import os
import resource
from pathlib import Path

import pytest

from edge_agent.storage.audit_log import ROTATIONS, AuditLog, audit_files, verify_audit
from edge_agent.storage.durable import StateError


def filled(path: Path, lines: int = 5, **options: int) -> AuditLog:
    log = AuditLog(path, **options)
    for index in range(lines):
        log.append("transition", 1000.0 + index, slot="main", text=f"line {index}")
    return log


def test_chain_verifies_and_ends_in_the_head(tmp_path: Path) -> None:
    log = filled(tmp_path / "audit.jsonl")
    log.close()
    assert verify_audit(tmp_path / "audit.jsonl").digest == log.head


def test_chain_goes_on_after_a_restart(tmp_path: Path) -> None:
    filled(tmp_path / "audit.jsonl").close()
    log = filled(tmp_path / "audit.jsonl")
    log.close()
    found = verify_audit(tmp_path / "audit.jsonl")
    assert (found.digest, found.serial) == (log.head, 10)


def test_changed_line_is_seen(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    filled(path).close()
    path.write_bytes(path.read_bytes().replace(b"line 2", b"line X"))
    with pytest.raises(ValueError, match="line 4: does not follow"):
        verify_audit(path)


def test_dropped_line_is_seen(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    filled(path).close()
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(lines[:2] + lines[3:]))
    with pytest.raises(ValueError, match="does not follow"):
        verify_audit(path)


def test_torn_last_line_is_cut_and_said(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    filled(path).close()
    whole = path.read_bytes()
    path.write_bytes(whole + b'{"serial":6,"ev')
    AuditLog(path).close()
    assert verify_audit(path).serial == 6
    assert b"15 bytes of an incomplete last line" in path.read_bytes()


def test_log_goes_on_provably_after_damage(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    filled(path).close()
    path.write_bytes(path.read_bytes().replace(b"line 1", b"line X"))
    AuditLog(path).close()
    assert b"audit-broken" in path.read_bytes()


def test_rotation_keeps_the_chain_and_the_bound(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    log = filled(path, 300, rotate_bytes=4096)
    assert len(audit_files(path)) == ROTATIONS + 1
    assert verify_audit(path).digest == log.head
    log.close()
    again = AuditLog(path, rotate_bytes=4096)
    again.append("x", 1.0)
    again.close()
    assert verify_audit(path).serial == 301


def test_restart_right_after_a_rotation_keeps_the_chain(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    log = AuditLog(path, rotate_bytes=1)
    log.append("one", 1.0)
    log.close()
    filled(path, 1).close()
    assert verify_audit(path).serial == 2


def test_lines_a_full_disk_refused_are_counted_in_the_next_one(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    log = filled(path)
    unlimited = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (path.stat().st_size + 100, unlimited[1]))  # half a line fits
    try:
        for _ in range(3):
            with pytest.raises(StateError):
                log.append("transition", 2000.0, slot="main", text="refused")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, unlimited)
    log.append("transition", 3000.0, slot="main", text="taken again")
    log.close()
    assert verify_audit(path).digest == log.head
    lines = [json.loads(line) for line in path.read_bytes().splitlines()]
    assert [line["event"] for line in lines[-2:]] == ["audit-gap", "transition"]
    assert lines[-2]["text"].startswith("3 lines")


def test_log_on_a_read_only_disk_is_read_and_names_afterwards_what_it_could_not_take(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "audit.jsonl"
    filled(path).close()
    whole = path.read_bytes()
    path.write_bytes(whole + b'{"torn')

    def refuse(*_: object) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    with monkeypatch.context() as read_only:
        read_only.setattr("edge_agent.storage.audit_log.FileIO", refuse)
        read_only.setattr("edge_agent.storage.audit_log._cut_torn_line", refuse)
        log = AuditLog(path)
        assert log.unwritten == 0
        for _ in range(3):
            with pytest.raises(StateError, match="Read-only"):
                log.append("level", 2000.0)
        assert log.unwritten == 3
    log.append("state-writable", 3000.0)
    log.close()
    lines = [json.loads(line) for line in path.read_bytes().splitlines()]
    assert [line["event"] for line in lines[5:]] == ["audit-repaired", "audit-gap", "state-writable"]
    assert lines[6]["text"].startswith("3 lines")
    assert verify_audit(path).digest == log.head
