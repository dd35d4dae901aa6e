"""The doctor tells a repository's timestamp from a login page, a stranger's file and an old copy."""

from __future__ import annotations

import json

import pytest

from edge_agent.cli.doctor.timestamp_check import judge_timestamp

NOW = 1_800_000_000.0
"""2027-01-15."""


def timestamp(kind: str = "timestamp", expires: str = "2027-01-16T00:00:00Z") -> bytes:
    return json.dumps({"signatures": [], "signed": {"_type": kind, "version": 7, "expires": expires}}).encode()


def test_a_timestamp_is_told_with_its_version_and_end() -> None:
    found = judge_timestamp("mirror", "http://mirror", timestamp(), NOW)
    assert found.verdict == "ok"
    assert "version 7" in found.text
    assert "2027-01-16" in found.text


@pytest.mark.parametrize(
    "data",
    [
        b"<html><title>Welcome to Hotel Wi-Fi</title></html>",
        b"",
        b"[]",
        b"[" * 5000,
        b"{}",
        timestamp(kind="snapshot"),
        timestamp(expires="tomorrow"),
        b"\xff\xfe" * 40,
        b" " * 100_000,
    ],
)
def test_what_is_no_timestamp_fails_and_shows_its_beginning(data: bytes) -> None:
    found = judge_timestamp("mirror", "http://mirror", data, NOW)
    assert found.verdict == "failure"
    assert found.fix
    assert len(found.text) < 600
    if data.startswith(b"<html>"):
        assert "<html><title>Welcome" in found.text


def test_a_copy_that_is_not_renewed_is_a_warning() -> None:
    found = judge_timestamp("mirror", "http://mirror", timestamp(expires="2027-01-14T00:00:00Z"), NOW)
    assert found.verdict == "warning"
    assert "expired" in found.text
