"""Carriers: from a folder, over HTTP and over MQTT, and what they refuse to touch."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from functools import partial
from http.server import BaseHTTPRequestHandler, SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from support.parts.transports import BLOB, DATA

from edge_agent.config.agent_toml import BrokerConfig
from edge_agent.errors import NotFoundError, RetryAfterError, UnreachableError
from edge_agent.updater.transports.directory import DirectoryTransport
from edge_agent.updater.transports.fallback import FallbackTransport
from edge_agent.updater.transports.http import HttpTransport
from edge_agent.updater.transports.mqtt import MqttTransport


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    root = tmp_path / "repository"
    for path, data in {
        "metadata/timestamp.json": b"{}",
        f"blobs/ab/{BLOB}": DATA,
        f"targets/models/har/1.0.0/{BLOB}.manifest.json": b"[]",
    }.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(data)
    return root


class Quiet(SimpleHTTPRequestHandler):
    """Ignores Range, as simple web servers do."""

    def log_message(self, *_: object) -> None:
        return


class Ranged(Quiet):
    """Knows Range, and a path that is busy."""

    def do_GET(self) -> None:
        if self.path.endswith("busy.json"):
            self.send_response(503)
            self.send_header("Retry-After", "7")
            self.end_headers()
            return
        path = Path(self.translate_path(self.path))
        if not path.is_file():
            self.send_error(404)
            return
        first, last = (int(part) for part in self.headers["Range"].removeprefix("bytes=").split("-"))
        data = path.read_bytes()
        body = data[first : last + 1]
        self.send_response(206)
        self.send_header("Content-Range", f"bytes {first}-{first + len(body) - 1}/{len(data)}")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


def serving(handler: type[BaseHTTPRequestHandler], root: Path) -> ThreadingHTTPServer:
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(handler, directory=str(root)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server


@pytest.fixture(params=[Quiet, Ranged])
def http_carrier(request: pytest.FixtureRequest, repository: Path) -> Iterator[HttpTransport]:
    server = serving(request.param, repository)
    yield HttpTransport(f"http://127.0.0.1:{server.server_port}/", timeout_s=5.0)
    server.shutdown()
    server.server_close()


def test_folder_brings_pieces_and_sizes(repository: Path) -> None:
    carrier = DirectoryTransport(repository)
    assert carrier.read("blob", BLOB, 256, 100) == (DATA[256:356], len(DATA))
    assert carrier.read("blob", BLOB, len(DATA), 100) == (b"", len(DATA))
    assert carrier.read("metadata", "timestamp.json", 0, 100) == (b"{}", 2)
    assert carrier.read("target", f"models/har/1.0.0/{BLOB}.manifest.json", 0, 9) == (b"[]", 2)


@pytest.mark.parametrize("name", ["../../etc/passwd", "/etc/passwd", "a/../b.json", "x", "a\0.json", ".json"])
def test_traversal_names_are_refused(repository: Path, name: str) -> None:
    for kind in ("metadata", "target", "blob"):
        with pytest.raises(NotFoundError):
            DirectoryTransport(repository).read(kind, name, 0, 10)  # type: ignore[arg-type]


def test_fifo_on_the_stick_does_not_hang(repository: Path) -> None:
    os.mkfifo(repository / "metadata" / "1.root.json")
    with pytest.raises(UnreachableError, match="not a regular file"):
        DirectoryTransport(repository).read("metadata", "1.root.json", 0, 10)


def test_link_on_the_stick_is_not_followed(repository: Path) -> None:
    (repository / "metadata" / "1.root.json").symlink_to("/etc/passwd")
    with pytest.raises(UnreachableError):
        DirectoryTransport(repository).read("metadata", "1.root.json", 0, 10)


def test_http_brings_pieces_and_sizes(http_carrier: HttpTransport) -> None:
    for offset in (0, 256, len(DATA) - 10):
        assert http_carrier.read("blob", BLOB, offset, 100) == (DATA[offset : offset + 100], len(DATA))


def test_http_says_not_found(http_carrier: HttpTransport) -> None:
    with pytest.raises(NotFoundError):
        http_carrier.read("metadata", "2.root.json", 0, 10)


def test_http_retry_after_is_told(repository: Path) -> None:
    server = serving(Ranged, repository)
    with pytest.raises(RetryAfterError) as raised:
        HttpTransport(f"http://127.0.0.1:{server.server_port}", timeout_s=5.0).read("metadata", "busy.json", 0, 10)
    server.shutdown()
    server.server_close()
    assert raised.value.delay_s == 7.0


def test_dead_web_server_is_unreachable() -> None:
    with pytest.raises(UnreachableError):
        HttpTransport("http://127.0.0.1:1", timeout_s=2.0).read("metadata", "timestamp.json", 0, 10)


def test_fallback_goes_to_the_next_carrier_and_stays_there(repository: Path) -> None:
    asked = []

    class Dead:
        def read(self, kind: object, name: str, offset: int, length: int) -> tuple[bytes, int]:
            asked.append(name)
            raise UnreachableError("dead")

    carrier = FallbackTransport({"dead": Dead(), "stick": DirectoryTransport(repository)})
    for _ in range(3):
        assert carrier.read("metadata", "timestamp.json", 0, 10) == (b"{}", 2)
    assert len(asked) == 1


def test_mqtt_without_a_broker_is_unreachable() -> None:
    carrier = MqttTransport(BrokerConfig(host="127.0.0.1", port=1), "default", "dev-1", timeout_s=0.5)
    with pytest.raises(UnreachableError, match="no connection"):
        carrier.read("metadata", "timestamp.json", 0, 10)
    carrier.close()
