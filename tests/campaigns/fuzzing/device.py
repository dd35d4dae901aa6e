"""Surfaces on a device: inference requests, and what lies in the state folder. See `fuzz_surfaces`."""

from __future__ import annotations

import asyncio
import re
import shutil
import struct
from collections.abc import Callable
from pathlib import Path

import msgspec
from campaigns.fuzzing.forms import INFER, JSON, JSON_LINES, NO_HEADER, RAW
from campaigns.fuzzing.surfaces import Run, Surface, audit_lines
from support.makers import bundles

from edge_agent.bundle import open_bundle
from edge_agent.http.app_state import AppState
from edge_agent.http.connection import Connection, ServerState
from edge_agent.http.messages import Timeouts
from edge_agent.http.oip_app import OipApp
from edge_agent.inference.runtime import Runtime
from edge_agent.ipc.in_flight import InFlightCounters
from edge_agent.storage.audit_log import AuditLog
from edge_agent.storage.durable import StateError
from edge_agent.storage.state_dir import StateFolder
from edge_agent.supervisor.update_controller import read_imports
from edge_agent.update.record import CandidateRelease, UpdateRecord
from edge_agent.updater.byte_budget import ByteBudget, bytes_left_today
from edge_agent.updater.chunks import BITMAP
from edge_agent.updater.download import Download
from edge_agent.updater.transports.directory import DirectoryTransport
from edge_contracts.profile import NetworkBudget

# A served model


class Wire(asyncio.Transport):
    """A client's end of a connection, which takes whatever is answered."""

    def __init__(self) -> None:
        super().__init__()
        self.answers = b""
        self._closing = False

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.answers += data

    def can_write_eof(self) -> bool:
        return True

    def write_eof(self) -> None:
        return

    def is_closing(self) -> bool:
        return self._closing

    def close(self) -> None:
        self._closing = True

    abort = close

    def pause_reading(self) -> None:
        return

    resume_reading = pause_reading


async def _converse(shared: ServerState, pieces: list[bytes]) -> bytes:
    """Send bytes over a connection of their own; return what was answered. Nothing of them may be left afterwards."""
    connection, wire = Connection(shared), Wire()
    connection.connection_made(wire)
    for piece in pieces:
        connection.get_buffer(-1)[: len(piece)] = piece
        connection.buffer_updated(len(piece))
        while connection._task is not None:
            await asyncio.sleep(0.001)
    connection.connection_lost(None)
    assert not shared.connections
    assert shared.buffered == 0
    assert shared.flight.in_flight == 0
    assert b"HTTP/1.1 500 " not in wire.answers, "an answer failed"
    return wire.answers


def _pieces(data: bytes) -> list[bytes]:
    return [data[start : start + _PIECE_BYTES] for start in range(0, len(data), _PIECE_BYTES)]


_PIECE_BYTES = 5000
"""Some requests come in several pieces."""


def _client(folder: Path) -> Callable[[list[bytes]], bytes]:
    """Return what sends bytes, piece by piece, to a server of a small model and returns what it answers."""
    bundles.make_bundle(folder / "bundle")
    app = OipApp(AppState(runtime=Runtime.open(folder / "bundle")))
    shared = ServerState(app=app, flight=InFlightCounters.create(), patience=Timeouts())
    loop = asyncio.new_event_loop()
    return lambda pieces: loop.run_until_complete(_converse(shared, pieces))


def _http(folder: Path) -> Run:
    send = _client(folder)
    return lambda data: send(_pieces(data))


def _infer(folder: Path) -> Run:
    send = _client(folder)

    def run(data: bytes) -> None:
        (length,) = struct.unpack_from("<I", data.ljust(4, b"\0"))
        header = b"" if length == NO_HEADER else b"inference-header-content-length: %d\r\n" % length
        head = b"POST /v2/models/linear/infer HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n" % len(data[4:])
        request = head + header + b"\r\n" + data[4:]
        # In one piece, where it fits, the second is known by its head, and its JSON where that has a form.
        first, *second = _answers(send(([request] if len(request) < _WHOLE_BYTES else _pieces(request)) * 2))
        assert first[:3] in (b"200", b"400"), first[:200]
        assert all(one == first or _other_rungs(first, one) for one in second), (first, second)

    return run


_WHOLE_BYTES = 60_000
_NEW_EACH_TIME = re.compile(rb'"timing_us":\d+|content-length: \d+')


def _answers(data: bytes) -> list[bytes]:
    """Return the answers, without what is new in each."""
    return [_NEW_EACH_TIME.sub(b"", one) for one in data.split(b"HTTP/1.1 ")[1:]]


def _other_rungs(*answers: bytes) -> bool:
    """Return whether answers may differ: a rung that failed rests, and is asked or not as time goes by."""
    served_by = {answer.partition(b'"served_by":"')[2].partition(b'"')[0] for answer in answers}
    return len(served_by) > 1 or any(b'"warnings":' in answer for answer in answers)


def _infer_seeds() -> list[bytes]:
    x, _ = bundles.samples(2)
    text = {"name": "x", "shape": [2, 4], "datatype": "FP32", "data": x.tolist()}
    binary = text | {"parameters": {"binary_data_size": 32}}
    del binary["data"]
    wanted = [{"name": "y", "parameters": {"binary_data": True}}]
    return [
        INFER.make({"json": {"id": "1", "inputs": [text]}, "blob": b""}),
        INFER.make({"json": {"inputs": [text | {"data": x.ravel().tolist()}]}, "blob": b""}),
        INFER.make({"json": {"inputs": [binary], "outputs": wanted}, "blob": x.tobytes()}),
        INFER.make({"json": {"inputs": [text], "parameters": {"tag": "line-2"}}, "blob": b""}),
    ]


_HTTP = [
    b"GET /v2 HTTP/1.1\r\n\r\nHEAD /v2/health/ready HTTP/1.1\r\nConnection: close\r\n\r\n",
    b"GET /v2/models/linear/versions/1.0.0/ready HTTP/1.0\r\n\r\n",
    b"GET /metrics?x HTTP/1.1\r\nHost: %61\r\n\r\n",
    b"POST /v2/models/linear/infer HTTP/1.1\r\nContent-Length: 2\r\nInference-Header-Content-Length: 2\r\n\r\n{}",
    b"POST /v2/models/linear/infer HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\nA: b\r\n\r\n",
    b"POST /v2/models/linear/infer HTTP/1.1\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n{}GET / HTTP/1.1",
    b"GET /v2 HTTP/1.1\r\nUpgrade: h2c\r\nConnection: upgrade\r\nContent-Encoding: gzip\r\n\r\n",
]
"""What a client may send over one connection."""

# The state folder


def _record(folder: Path) -> Run:
    state = StateFolder(folder)
    state.create()

    def run(data: bytes) -> None:
        (state.slots / "main.json").write_bytes(data)
        state.read_record("main")

    return run


def _small_records(folder: Path) -> Run:
    """Records of which a damaged one counts as none."""
    state = StateFolder(folder)
    state.create()

    def run(data: bytes) -> None:
        state.traffic.write_bytes(data)
        assert bytes_left_today(state.traffic, NetworkBudget()) >= 0
        state.imports.write_bytes(data)
        read_imports(state.imports)

    return run


def _audit_log(folder: Path) -> Run:
    path = folder / "audit.jsonl"

    def run(data: bytes) -> None:
        path.write_bytes(data)
        log = AuditLog(path)
        log.append("after", 1.0)
        log.close()

    return run


def _bitmap(folder: Path) -> Run:
    """Whatever a bitmap says, the download ends with the very files that the manifest pins."""
    bundle = bundles.make_bundle(folder / "bundle", padding=200_000)
    for entry in bundle.manifest.files:
        blob = folder / "blobs" / entry.sha256[:2] / entry.sha256
        blob.parent.mkdir(parents=True, exist_ok=True)
        blob.write_bytes((bundle.folder / entry.path).read_bytes())
    manifest = (bundle.folder / "manifest.json").read_bytes()

    def run(data: bytes) -> None:
        state = StateFolder(folder / "device")
        state.create()
        download = Download(
            state=state,
            manifest_bytes=manifest,
            carrier=DirectoryTransport(folder),
            network=NetworkBudget(window=1),
            traffic=ByteBudget(limit=2**30),
            told=lambda _done, _total: None,
        )
        download.folder.mkdir(parents=True)
        (download.folder / BITMAP).write_bytes(data)
        assert download.fetched_bytes() <= download.manifest.total_bytes
        download.run()
        open_bundle(state.release(download.sha256))
        shutil.rmtree(state.root)

    return run


def _record_seeds() -> list[bytes]:
    release = {"version": "1.0.0", "manifest_sha256": "ab" * 32}
    wish = CandidateRelease(model="m", channel="c", serial=3, rollout="r", **release)  # type: ignore[arg-type]
    record = UpdateRecord(slot="main", state="downloading", deadline=9.0, candidate=wish, rejected=("cd" * 32,))
    return [msgspec.json.encode(UpdateRecord(slot="main")), msgspec.json.encode(record)]


REQUESTS = (
    Surface(name="infer", open=_infer, seeds=_infer_seeds, refusals=(), form=INFER),
    Surface(name="http", open=_http, seeds=lambda: _HTTP, refusals=(), form=RAW),
)
STATE = (
    Surface(name="record", open=_record, seeds=_record_seeds, refusals=(StateError,), form=JSON),
    Surface(
        name="small-records",
        open=_small_records,
        seeds=lambda: [b'{"day":"2026-11-22","used":5}', b'["/media/stick"]'],
        refusals=(),
        form=JSON,
    ),
    Surface(name="audit-log", open=_audit_log, seeds=audit_lines, refusals=(), form=JSON_LINES),
    Surface(name="bitmap", open=_bitmap, seeds=lambda: [b"\1\0" * 4, b"\1" * 8], refusals=(), form=RAW),
)
