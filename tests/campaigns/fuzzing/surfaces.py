"""Where bytes come in from outside: what a surface is, and those of messages and signed documents.

Each surface opens a real parser, with real examples as seeds, and promises: for any bytes it returns or raises one of
its `refusals`, soon and in bounded memory. Surfaces are grouped into targets, each fuzzed by a process of its own
(`fuzz_worker`); an input of a target is one byte that chooses the surface, and the surface's bytes.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import msgspec
from campaigns.fuzzing.forms import JSON, JSON_LINES, MSGPACK, RAW, Form
from support.makers.contract_examples import EXAMPLES, REQUEST

from edge_agent.storage.audit_chain import AuditEntry, ChainHead, follow, line_of, verify
from edge_contracts.channel import parse_channel, parse_family
from edge_contracts.codec import encode
from edge_contracts.delta import parse_deltas
from edge_contracts.enrollment import parse_certificate_answer, parse_claim
from edge_contracts.errors import ContractError
from edge_contracts.job import parse_job
from edge_contracts.manifest import parse_manifest
from edge_contracts.pipeline import parse_pipeline
from edge_contracts.topics import parse_device_topic
from edge_contracts.transfer import parse_hint, unpack_request, unpack_response
from edge_fleet.controller.ingest import parse_arrival
from edge_fleet.depot.depot import Depot
from edge_fleet.depot.rate_limit import Pace

Run = Callable[[bytes], object]


@dataclass(frozen=True, kw_only=True)
class Surface:
    """One parser. `open` is given an empty folder of its own and returns what takes the bytes."""

    name: str
    open: Callable[[Path], Run]
    seeds: Callable[[], list[bytes]]
    refusals: tuple[type[Exception], ...] = (ContractError,)
    form: Form = JSON


def document(name: str, parse: Callable[[bytes], object]) -> Surface:
    """Return the surface of a JSON document; what is accepted must survive being written and read again."""

    def run(data: bytes) -> None:
        value = parse(data)
        again = parse(encode(value))
        assert again == value, "changed by writing and reading it"

    return Surface(name=name, open=lambda _: run, seeds=lambda: [msgspec.json.encode(EXAMPLES[name])])


# Envelopes


def _depot(folder: Path) -> Run:
    (folder / "metadata").mkdir()
    (folder / "metadata" / "timestamp.json").write_bytes(b"{}")
    (folder / "metadata" / "1.root.json").write_bytes(b"{}" * 5000)
    depot = Depot(folder, "default", Pace(device_rate=1e12, device_burst=1e12, total_rate=1e12), 0.0)

    def run(data: bytes) -> None:
        answer = depot.answer("ew/v1/default/d/dev-1/req", data, 0.0)
        if answer is not None:
            address = parse_device_topic(answer.topic)
            assert (address.tenant, address.device, address.topic) == ("default", "dev-1", "rsp"), "answers a stranger"
            unpack_response(answer.payload)

    return run


def _requests() -> list[bytes]:
    asked = [("metadata", "timestamp.json", 0), ("metadata", "1.root.json", 9000), ("blob", "ab" * 32, 65536)]
    made = [msgspec.structs.replace(REQUEST, kind=kind, name=name, offset=offset) for kind, name, offset in asked]
    return [msgspec.msgpack.encode(request) for request in made]


def _ingest(folder: Path) -> Run:
    topics = [f"ew/v1/default/d/dev-1/{topic}" for topic in ("presence", "reported", "tele")]

    def run(data: bytes) -> None:
        for topic in topics:
            try:
                arrival = parse_arrival(topic, data)
            except ContractError:
                continue
            assert arrival.device == "dev-1", "another device's report was taken"

    return run


def _reports() -> list[bytes]:
    return [msgspec.json.encode(EXAMPLES[name]) for name in ("presence", "reported-state", "telemetry-window", "event")]


# Lines


def _audit(data: bytes) -> None:
    verify(data.splitlines(keepends=True))


def audit_lines() -> list[bytes]:
    head, lines = ChainHead(), []
    for number in range(1, 4):
        line = line_of(AuditEntry(serial=number, time=5.0, event="state", detail={"n": number}, previous=head.digest))
        lines.append(line)
        head = follow(head, line)
    return [b"".join(lines), lines[0]]


DOCUMENTS = (
    document("manifest", parse_manifest),
    document("pipeline", parse_pipeline),
    document("channel", parse_channel),
    document("family", parse_family),
    document("job", parse_job),
    document("hint", parse_hint),
    document("deltas", parse_deltas),
    document("claim", parse_claim),
    document("certificate-answer", parse_certificate_answer),
    Surface(name="ingest", open=_ingest, seeds=_reports),
    Surface(name="audit", open=lambda _: _audit, seeds=audit_lines, refusals=(ValueError,), form=JSON_LINES),
)
ENVELOPES = (
    Surface(name="request", open=lambda _: unpack_request, seeds=_requests, form=MSGPACK),
    Surface(
        name="response",
        open=lambda _: unpack_response,
        seeds=lambda: [msgspec.msgpack.encode(EXAMPLES["response"])],
        form=MSGPACK,
    ),
    Surface(name="depot", open=_depot, seeds=_requests, form=MSGPACK),
    Surface(
        name="topic",
        open=lambda _: lambda data: parse_device_topic(data.decode("utf-8", "surrogateescape")),
        seeds=lambda: [b"ew/v1/default/d/dev-1/rsp/a1", b"ew/v1/acme/d/x.y-z_/tele"],
        form=RAW,
    ),
)

TARGETS = {
    "documents": ("campaigns.fuzzing.surfaces", "DOCUMENTS"),
    "envelopes": ("campaigns.fuzzing.surfaces", "ENVELOPES"),
    "settings": ("campaigns.fuzzing.settings", "SETTINGS"),
    "requests": ("campaigns.fuzzing.device", "REQUESTS"),
    "state": ("campaigns.fuzzing.device", "STATE"),
    "exchange": ("campaigns.fuzzing.exchange", "EXCHANGE"),
    "files": ("campaigns.fuzzing.files", "FILES"),
    "repository": ("campaigns.fuzzing.repository", "REPOSITORY"),
}
"""Each target's module, imported only where it is fuzzed, and its surfaces there."""


def surfaces_of(target: str) -> tuple[Surface, ...]:
    """Return the surfaces of a target."""
    module, name = TARGETS[target]
    surfaces: tuple[Surface, ...] = getattr(importlib.import_module(module), name)
    return surfaces
