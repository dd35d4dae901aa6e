"""Small fleets, bundles and MQTT devices for the tests of the release engineers' side."""

from __future__ import annotations

import hashlib
import itertools
import queue
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from paho.mqtt.client import Client, MQTTMessage
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion
from tuf.api.exceptions import DownloadHTTPError
from tuf.ngclient import FetcherInterface, Updater

from edge_contracts.channel import Channel
from edge_contracts.manifest import (
    FileEntry,
    Input,
    Lineage,
    Manifest,
    Output,
    SampleMapping,
    Variant,
    manifest_bytes,
)
from edge_contracts.topics import device_topic
from edge_contracts.transfer import Request, Response, pack, unpack_response
from edge_fleet.releases.release import release
from edge_fleet.rollouts.channel_state import Plan
from edge_fleet.rollouts.rollout import start_rollout
from edge_fleet.signing.workspace import FleetWorkspace, NewFleet, found

NOW = datetime.now(UTC)
CHUNK = 65536


def file_entry(path: str, data: bytes) -> FileEntry:
    """Return the true entry of a file."""
    pieces = [data[start : start + CHUNK] for start in range(0, len(data), CHUNK)]
    chunks = tuple(hashlib.sha256(piece).hexdigest() for piece in pieces)
    return FileEntry(path=path, size=len(data), sha256=hashlib.sha256(data).hexdigest(), chunks=chunks)


def make_bundle(folder: Path, name: str = "har", version: str = "1.0.0", model: bytes = b"weights" * 30_000) -> Path:
    """Write a bundle whose hashes hold; its model is no model, which this side neither knows nor needs to."""
    files = {"model.onnx": model, "data/probe.npz": b"probe"}
    for path, data in files.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(data)
    manifest = Manifest(
        name=name,
        version=version,
        created="2026-11-22T06:00:00Z",
        inputs=(Input(name="x", dtype="float32", shape=(-1, 3), sample=SampleMapping(dtype="float32")),),
        outputs=(Output(name="y", dtype="float32", shape=(-1, 2)),),
        variants=(Variant(id="fp32", file="model.onnx", format="onnx", size=len(model)),),
        lineage=Lineage(source_sha256=hashlib.sha256(model).hexdigest()),
        files=tuple(file_entry(path, data) for path, data in files.items()),
    )
    (folder / "manifest.json").write_bytes(manifest_bytes(manifest))
    return folder


def make_fleet(folder: Path, **founding: Any) -> FleetWorkspace:
    """Return a new fleet in `folder`/fleet."""
    return found(folder / "fleet", NewFleet(**founding), NOW)


def make_released(folder: Path, version: str = "1.0.0") -> FleetWorkspace:
    """Return a new fleet with one release of family har."""
    fleet = make_fleet(folder)
    release(fleet, make_bundle(folder / "bundle", version=version), NOW)
    return fleet


def start(fleet: FleetWorkspace, version: str = "1.0.0", **plan: Any) -> Channel:
    """Start a rollout of har on channel stable."""
    return start_rollout(fleet, Plan(channel="stable", model="har", version=version, **plan), NOW)


class FolderFetcher(FetcherInterface):
    """Reads a repository folder the way a device reads it over any carrier."""

    def _fetch(self, url: str) -> Iterator[bytes]:
        path = Path(url.removeprefix("folder:"))
        if not path.exists():
            raise DownloadHTTPError("no such object", 404)
        yield path.read_bytes()


def device_download(
    fleet: FleetWorkspace, folder: Path, *targets: str, repository: Path | None = None
) -> list[bytes | None]:
    """Return the targets a device with the fleet's initial root gets from the repository, verified by python-tuf."""
    for name in ("tuf", "got"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    base = f"folder:{repository or fleet.repository}"
    updater = Updater(
        str(folder / "tuf"),
        f"{base}/metadata",
        str(folder / "got"),
        f"{base}/targets",
        fetcher=FolderFetcher(),
        bootstrap=(fleet.path / "root.json").read_bytes(),
    )
    updater.refresh()
    infos = [updater.get_targetinfo(target) for target in targets]
    return [None if info is None else Path(updater.download_target(info)).read_bytes() for info in infos]


class FleetProcess:
    """A running `edgewright fleet` service whose standard output is read line by line."""

    def __init__(self, arguments: list[str]) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "edgewright.cli", "fleet", *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.log: list[str] = []
        self._said: queue.Queue[str] = queue.Queue()
        self._readers = [
            threading.Thread(target=self._read, args=(self.process.stdout, self._said.put)),
            threading.Thread(target=self._read, args=(self.process.stderr, self.log.append)),
        ]
        for reader in self._readers:
            reader.start()

    @staticmethod
    def _read(stream: Any, put: Callable[[str], None]) -> None:
        with stream:
            for line in stream:
                put(line.rstrip("\n"))

    def wait_for(self, line: str, timeout_s: float = 15.0) -> None:
        """Wait until the service says a line."""
        try:
            assert self._said.get(timeout=timeout_s) == line
        except queue.Empty:
            raise AssertionError(f"never said {line!r}; log: {self.log}") from None

    def terminate(self) -> int:
        """Send SIGTERM and return the exit code."""
        self.process.terminate()
        return self._ended()

    def kill(self) -> int:
        """Send SIGKILL and return the exit code."""
        self.process.kill()
        return self._ended()

    def _ended(self) -> int:
        code = self.process.wait(10)
        for reader in self._readers:
            reader.join(10)
        return code


@contextmanager
def fleet_process(*arguments: str) -> Iterator[FleetProcess]:
    """Run a service for the time of a block."""
    running = FleetProcess(list(arguments))
    try:
        yield running
    finally:
        if running.process.poll() is None:
            running.terminate()


class MqttDevice:
    """A device as the fleet sees it: asks a depot, publishes what devices publish. Always MQTT 3.1.1."""

    def __init__(self, port: int, device: str = "dev-1", tenant: str = "default") -> None:
        self.device, self.tenant = device, tenant
        self.reply = device_topic(tenant, device, "rsp", "n1")
        self.arrived: queue.Queue[MQTTMessage] = queue.Queue()
        self._ids = itertools.count()
        self._subscribed = threading.Event()
        self._client = Client(CallbackAPIVersion.VERSION2, protocol=MQTTProtocolVersion.MQTTv311)
        self._client.on_connect = lambda client, *_: client.subscribe(self.reply)
        self._client.on_subscribe = lambda *_: self._subscribed.set()
        self._client.on_message = lambda _client, _data, message: self.arrived.put(message)
        self._client.connect("127.0.0.1", port)
        self._client.loop_start()
        assert self._subscribed.wait(10)

    def __enter__(self) -> MqttDevice:
        return self

    def __exit__(self, *_: object) -> None:
        self._client.disconnect()
        self._client.loop_stop()

    def subscribe(self, topic: str) -> None:
        """Listen to one more topic."""
        self._subscribed.clear()
        self._client.subscribe(topic)
        assert self._subscribed.wait(10)

    def publish(self, topic: str, payload: bytes, *, retain: bool = False) -> None:
        """Publish at QoS 1 and wait for the broker's acknowledgement."""
        self._client.publish(topic, payload, qos=1, retain=retain).wait_for_publish(10)

    def ask(self, kind: Any, name: str, timeout_s: float = 5.0, **request: Any) -> Response | None:
        """Ask a depot and return its answer, or None if there is none in time."""
        asked = Request(id=next(self._ids), kind=kind, name=name, **({"reply": self.reply} | request))
        self._client.publish(device_topic(self.tenant, self.device, "req"), pack(asked))
        deadline = time.monotonic() + timeout_s
        while (left := deadline - time.monotonic()) > 0:
            try:
                answer = unpack_response(self.arrived.get(timeout=left).payload)
            except queue.Empty:
                return None
            if answer.id == asked.id:
                return answer
        return None


def eventually(check: Callable[[], bool], timeout_s: float = 15.0) -> None:
    """Wait until something is so."""
    deadline = time.monotonic() + timeout_s
    while not check():
        assert time.monotonic() < deadline, "did not become so in time"
        time.sleep(0.05)
