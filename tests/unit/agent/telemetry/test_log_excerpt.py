"""What of a process's log may leave the device."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_agent.telemetry.line_redaction import MAX_LINE_CHARS, shareable
from edge_agent.telemetry.log_excerpt import RecentLines
from edge_contracts.limits import MAX_EXCERPT_BYTES, MAX_EXCERPT_LINES


def recent() -> RecentLines:
    return RecentLines(lambda: "06:00:00")


@pytest.mark.parametrize(
    ("line", "secret"),
    [
        ("connects to mqtts://pump:hunter2@broker.example:8883", "hunter2"),
        ("password = 'correct horse'", "correct horse"),
        ('{"api_key": "k-123", "x": 1}', "k-123"),
        ("MQTT_PASSWORD=swordfish1 not accepted", "swordfish1"),
        ("Authorization: Bearer abc.def-ghi", "abc.def-ghi"),
        ("sent Basic dXNlcjpwYXNz to the proxy", "dXNlcjpwYXNz"),
        ("GET https://mirror.example/blobs?signature=abc%2Fdef&x=1 failed", "abc%2Fdef"),
        ("-----BEGIN PRIVATE KEY----- MIGHAgEAMBMGByqGSM49", "MIGHAgEAMBMGByqGSM49"),
        ("MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQgevZzL1gdAFr88hb2", "MIGHAgEAMBMGByqGSM49"),
        ("token eyJhbGciOiJFUzI1NiJ9.eyJzdWIiOiJkZXYifQ.c2ln", "eyJhbGciOiJFUzI1NiJ9"),
        ("the passphrase is opensesame", "opensesame"),
        ("session AbCdEf0123456789AbCdEf0123456789xyz", "AbCdEf0123456789"),
    ],
)
@pytest.mark.parametrize("origin", ["updater", "trial", "worker", None])
def test_secrets_are_hidden(line: str, secret: str, origin: None) -> None:
    assert secret not in shareable(line, origin)


@pytest.mark.parametrize(
    "line",
    [
        "fp32: quality: score 0.41 of at least 0.90",
        "disk: needs 34 MB, 12 MB are free",
        f"models/har/1.2.0/manifest.json: {'ab' * 32} is not its digest",
        "/opt/Edgewright2/lib/python3.12/site-packages/edge_agent/trial/variant.py is missing",
        "onnxruntime.capi.onnxruntime_pybind11_state.Fail: [ONNXRuntimeError] : 1 : FAIL : no kernel for MyOp(1)",
    ],
)
@pytest.mark.parametrize("origin", ["updater", "trial", None])
def test_what_says_why_stays_as_it_is(line: str, origin: None) -> None:
    assert shareable(line, origin) == line


@pytest.mark.parametrize(
    ("line", "value"),
    [
        ("ValueError: could not convert string to float: 'Jane Doe'", "Jane"),
        ("KeyError: 4711", "4711"),
        ("input x: [[0.12 3.4 5.6 7.8]]", "3.4"),
        ("Jane Doe, room 12", "Jane"),
        ("2026-12-01 06:00:00.1 [E:onnxruntime:, sequential_executor.cc:572 ExecuteKernel] Non-zero status code "
         "returned while running Gather node. Name:'emb' Status Message: idx=12345 must be within [-100,99]", "12345"),
        ("worker main: cannot read 'Jane Doe' as 98.6; exiting", "98.6"),
        ("  what():  no value \"Jane Doe\"", "Jane"),
    ],
)  # fmt: skip
def test_a_worker_tells_nothing_of_what_it_was_asked(line: str, value: str) -> None:
    assert value not in shareable(line, "worker")


def test_a_workers_traceback_says_where_and_what_kind() -> None:
    lines = [
        "Traceback (most recent call last):",
        '  File "/opt/edge_agent/http/oip_app.py", line 120, in infer',
        "    return float(text)",
        "           ^^^^^^^^^^^",
        "ValueError: could not convert string to float: 'Jane Doe'",
    ]
    told = [shareable(line, "worker") for line in lines]
    assert told[:2] == lines[:2]
    assert told[-1] == "ValueError"


def test_a_workers_engine_says_which_node_failed_and_how() -> None:
    line = (
        "2026-12-01 06:00:00.1 [E:onnxruntime:, bfc_arena.cc:376 Alloc] Failed to allocate memory for requested buffer"
    )
    assert "Failed to allocate memory for requested buffer" in shareable(line, "worker")


def test_the_last_lines_stay_and_carry_their_process() -> None:
    log = recent()
    for number in range(80):
        log.add("trial", f"line {number}")
    log.note("trial", "crash: killed by SIGSEGV")
    lines = log.excerpt().splitlines()
    assert len(lines) == MAX_EXCERPT_LINES
    assert lines[-2:] == ["06:00:00 trial: line 79", "06:00:00 trial> crash: killed by SIGSEGV"]


def test_another_release_begins_a_new_log() -> None:
    log = recent()
    log.add("updater", "of the old one")
    log.forget()
    assert log.excerpt() == ""


@settings(max_examples=30)  # long texts take long to draw
@given(st.lists(st.text(max_size=3000), max_size=70), st.sampled_from(["updater", "trial", "worker"]))
def test_whatever_a_process_writes_the_excerpt_is_bounded(lines: list[str], origin: str) -> None:
    log = recent()
    for line in lines:
        log.add(origin, line)  # type: ignore[arg-type]
    found = log.excerpt()
    assert len(found.encode("utf-8", "replace")) <= MAX_EXCERPT_BYTES
    assert all(len(line) <= MAX_LINE_CHARS + 30 for line in found.split("\n"))
    assert not any(ord(letter) < 32 for letter in found.replace("\n", ""))


def test_the_longest_lines_end_within_the_bound_with_the_newest() -> None:
    log = recent()
    for number in range(50):
        log.add("trial", f"{number:02d} " + "ä" * 2000)
    found = log.excerpt()
    assert found.splitlines()[-1].startswith("06:00:00 trial: 49 ")
    assert MAX_EXCERPT_BYTES - 1000 < len(found.encode()) <= MAX_EXCERPT_BYTES
