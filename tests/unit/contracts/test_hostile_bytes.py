"""Bytes from outside: size, nesting, encoding and type are bounded before anything is built from them."""

from __future__ import annotations

import time
from collections.abc import Callable

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace
from support.makers.contract_examples import CHANNEL, JOB, PROFILE

from edge_contracts import limits
from edge_contracts.channel import parse_channel, parse_family
from edge_contracts.codec import check_nesting, encode, plain
from edge_contracts.delta import parse_deltas
from edge_contracts.enrollment import parse_certificate_answer, parse_certificate_request, parse_claim
from edge_contracts.errors import ContractError
from edge_contracts.job import parse_job
from edge_contracts.manifest import parse_manifest
from edge_contracts.pipeline import parse_pipeline
from edge_contracts.profile import Threshold, parse_profile
from edge_contracts.state import parse_presence, parse_reported
from edge_contracts.telemetry import parse_event, parse_window
from edge_contracts.transfer import Request, Response, pack, unpack_request, unpack_response

Parser = Callable[[bytes], object]
JSON_PARSERS: dict[str, tuple[Parser, int]] = {
    "manifest": (parse_manifest, limits.MAX_MANIFEST_BYTES),
    "pipeline": (parse_pipeline, limits.MAX_PIPELINE_BYTES),
    "channel": (parse_channel, limits.MAX_DOCUMENT_BYTES),
    "family": (parse_family, limits.MAX_DOCUMENT_BYTES),
    "job": (parse_job, limits.MAX_DOCUMENT_BYTES),
    "deltas": (parse_deltas, limits.MAX_MANIFEST_BYTES),
    "reported state": (parse_reported, limits.MAX_MESSAGE_BYTES),
    "presence": (parse_presence, limits.MAX_MESSAGE_BYTES),
    "telemetry window": (parse_window, limits.MAX_MESSAGE_BYTES),
    "event": (parse_event, limits.MAX_MESSAGE_BYTES),
    "claim": (parse_claim, limits.MAX_CLAIM_BYTES),
    "certificate request": (parse_certificate_request, limits.MAX_ENROLLMENT_BYTES),
    "certificate answer": (parse_certificate_answer, limits.MAX_ENROLLMENT_BYTES),
}
PARSERS: dict[str, Parser] = {name: parser for name, (parser, _) in JSON_PARSERS.items()} | {
    "request": unpack_request,
    "response": unpack_response,
}


@pytest.mark.parametrize("name", JSON_PARSERS)
def test_one_byte_over_the_limit_is_refused_before_it_is_read(name: str) -> None:
    parse, limit = JSON_PARSERS[name]
    with pytest.raises(ContractError, match=f"^{name}: {limit + 1} bytes, over the limit of {limit}$"):
        parse(b"\xff" * (limit + 1))


@pytest.mark.parametrize("name", JSON_PARSERS)
@pytest.mark.parametrize("brick", [b"[", b'{"a":'])
def test_a_nesting_bomb_is_refused_quickly(name: str, brick: bytes) -> None:
    parse, limit = JSON_PARSERS[name]
    start = time.monotonic()
    with pytest.raises(ContractError, match="nested deeper than 32"):
        parse(brick * (limit // len(brick)))
    assert time.monotonic() - start < 2.0


@pytest.mark.parametrize("name", PARSERS)
@given(data=st.binary(max_size=300))
def test_random_bytes_raise_nothing_but_a_contract_error(name: str, data: bytes) -> None:
    with pytest.raises(ContractError):
        PARSERS[name](data)


@pytest.mark.parametrize("name", PARSERS)
@pytest.mark.parametrize(
    "data",
    [b"", b"null", b"[]", b"{}", b"\xef\xbb\xbf{}", b'{"a":1}x', b'"\xff"', b"{'a':1}", b"NaN", b"1e999", b"{" * 40],
)
def test_almost_json_is_a_contract_error(name: str, data: bytes) -> None:
    with pytest.raises(ContractError):
        PARSERS[name](data)


@given(st.recursive(st.text(alphabet='[]{}"\\a'), lambda inner: st.lists(inner, max_size=2), max_leaves=20))
def test_brackets_inside_strings_are_not_nesting(value: object) -> None:
    check_nesting(msgspec.json.encode(["[" * 50 + '"' + "{" * 50, value]), what="x")


@given(depth=st.integers(min_value=1, max_value=80), padding=st.integers(min_value=0, max_value=40))
def test_exactly_the_allowed_depth_passes(depth: int, padding: int) -> None:
    data = b"[" + b"[]," * padding + b"[" * depth + b"]" * depth + b"]"
    if depth + 1 <= limits.MAX_NESTING:
        check_nesting(data, what="x")
    else:
        with pytest.raises(ContractError):
            check_nesting(data, what="x")


def test_a_candidate_without_a_rollout_is_refused() -> None:
    with pytest.raises(ContractError, match=r"channel\.rollout"):
        parse_channel(encode(replace(CHANNEL, rollout=None)))


@pytest.mark.parametrize("parse", [parse_channel, parse_job])
def test_a_deadline_that_is_no_day_is_refused(parse: Parser) -> None:
    document = CHANNEL if parse is parse_channel else JOB
    with pytest.raises(ContractError, match="deadline"):
        parse(encode(replace(document, deadline="2026-02-30T00:00:00Z")))


@pytest.mark.parametrize("name", ["channel", "family", "job", "deltas"])
def test_a_document_of_a_future_schema_is_refused(name: str) -> None:
    document = {
        "channel": {"channel": "c", "model": "m", "serial": 1},
        "family": {"model": "m", "serial": 1},
        "job": {"job": "j", "kind": "replay", "model": "m"},
        "deltas": {"model": "m", "version": "1.0.0", "manifest_sha256": "ab" * 32},
    }[name]
    JSON_PARSERS[name][0](encode(document))
    with pytest.raises(ContractError, match=rf"{name}\.schema"):
        JSON_PARSERS[name][0](encode(document | {"schema": 2}))


def test_an_envelope_over_the_packet_limit_is_neither_sent_nor_read() -> None:
    body = bytes(limits.MAX_ENVELOPE_BYTES)
    with pytest.raises(ContractError, match="envelope"):
        pack(Response(id=1, status="ok", body=body))
    with pytest.raises(ContractError, match="response"):
        unpack_response(body + b"\x00")
    with pytest.raises(ContractError, match="request"):
        unpack_request(body + b"\x00")


def test_the_largest_chunk_fits_the_largest_envelope() -> None:
    data = pack(Response(id=2**63, status="ok", offset=2**40, total=2**40, body=bytes(limits.MAX_CHUNK_BYTES)))
    assert len(data) <= limits.MAX_ENVELOPE_BYTES


@pytest.mark.parametrize("length", [0, -1, limits.MAX_CHUNK_BYTES + 1, 2**40])
def test_a_request_for_more_than_a_chunk_is_refused(length: int) -> None:
    data = msgspec.msgpack.encode(Request(id=1, reply="r", kind="blob", name="n", length=length))
    with pytest.raises(ContractError, match="request"):
        unpack_request(data)


@pytest.mark.parametrize(
    ("section", "field", "value", "subject"),
    [
        ("board", "cores", 0, "profile.board.cores"),
        ("board", "architecture", "mips", "profile.board.architecture"),
        ("model", "memory_mb", -1.0, "profile.model.memory_mb"),
        ("model", "memory_mb", float("nan"), "profile.model.memory_mb"),
        ("network", "chunk_kib", 121, "profile.network.chunk_kib"),
        ("storage", "spool_mb", "large", "profile.storage.spool_mb"),
    ],
)
def test_a_wrong_figure_in_a_profile_is_named(section: str, field: str, value: object, subject: str) -> None:
    profile = plain(PROFILE)
    profile[section][field] = value
    with pytest.raises(ContractError) as caught:
        parse_profile(profile)
    assert caught.value.subject == subject


def test_a_misspelt_field_in_a_profile_is_an_error() -> None:
    with pytest.raises(ContractError, match="memroy_mb"):
        parse_profile(plain(PROFILE) | {"memroy_mb": 5})


@pytest.mark.parametrize(
    ("reading", "threshold"),
    [
        ("temperature_c", Threshold(conserve=80.0, critical=75.0)),
        ("available_memory_mb", Threshold(conserve=50.0, critical=100.0)),
        ("disk_free_mb", Threshold(conserve=50.0, critical=50.0)),
        ("battery_percent", Threshold(conserve=20.0, critical=float("nan"))),
    ],
)
def test_thresholds_in_the_wrong_order_are_refused(reading: str, threshold: Threshold) -> None:
    profile = plain(PROFILE)
    profile["governor"][reading] = plain(threshold)
    with pytest.raises(ContractError, match=rf"profile\.governor\.{reading}"):
        parse_profile(profile)
