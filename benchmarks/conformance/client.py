"""The client that theupdateframework/tuf-conformance runs: its command line, our updater, a real broker.

    client.py --metadata-dir D init ROOT
    client.py --metadata-dir D --metadata-url U refresh
    client.py --metadata-dir D --metadata-url U --target-name T... --target-base-url B --target-dir X download

Each call is a device of its own tenant: `edge_agent.updater.trusted_repository` over `MqttTransport` to a broker,
behind which a depot with an empty cache pulls from the given URL. The broker is the one that EDGEWRIGHT_BROKER names
(host:port/protocol, as `run.py` does), else an embedded one for this call. How to run the suite:
benchmarks/conformance.md.
"""

from __future__ import annotations

import argparse
import contextlib
import logging
import math
import os
import secrets
import shutil
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

from edge_agent.config.agent_toml import BrokerConfig
from edge_agent.storage.durable import write_durably
from edge_agent.updater.transports.mqtt import MqttTransport
from edge_agent.updater.trusted_repository import TrustedRepository
from edge_contracts.codec import convert
from edge_contracts.errors import EdgewrightError, OperatorError
from edge_contracts.limits import MAX_MANIFEST_BYTES
from edge_fleet.depot.service import DepotSite, Service, serve
from edge_fleet.mqtt import Broker
from edgewright.demo.broker import EmbeddedBroker

BROKER = "EDGEWRIGHT_BROKER"
ANSWER_S = 20.0
READY_S = 20.0

_log = logging.getLogger("conformance")


def init(metadata: Path, root: Path) -> None:
    """Make `root` the trust anchor. Nothing is asked."""
    state = _state(metadata)
    state.mkdir(parents=True)
    shutil.copyfile(root, state / "anchor.json")
    shutil.copyfile(root, metadata / "root.json")


def update(metadata: Path, carrier: MqttTransport, targets: list[str], folder: Path | None) -> None:
    """Refresh, then put `targets` into `folder`. Raises an EdgewrightError at the first refusal."""
    state = _state(metadata)
    try:
        repository = TrustedRepository(state, (state / "anchor.json").read_bytes(), carrier, time.time())
        _log.info("refreshed: %s", repository.refresh())
        for target in targets:
            assert folder is not None
            place = folder / quote(target, safe="")
            known = place.read_bytes() if place.exists() else None
            data = repository.fetch(target, MAX_MANIFEST_BYTES, known)
            if data != known:
                write_durably(place, data)
        repository.close()
    finally:
        _show(state / "trusted", metadata)


def upstream(metadata_url: str, target_base_url: str | None) -> str:
    """Return the repository that both URLs are parts of. Raises OperatorError if they are not."""
    base, _, last = metadata_url.rstrip("/").rpartition("/")
    if last != "metadata" or target_base_url not in (None, f"{base}/targets", f"{base}/targets/"):
        raise OperatorError("metadata/ and targets/ must lie side by side", subject=metadata_url)
    return base


@contextlib.contextmanager
def connected(url: str) -> Iterator[MqttTransport]:
    """Yield a device's carrier to a depot that pulls from `url`."""
    tenant = f"t{secrets.token_hex(6)}"
    with contextlib.ExitStack() as stack:
        settings = _broker(stack)
        cache = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="conformance-")))
        service = Service(
            repository=cache,
            tenant=tenant,
            broker=Broker(host=settings.host, port=settings.port, protocol=settings.protocol),
            site=DepotSite(upstream=url, any_names=True, poll_s=math.inf),
        )
        ready, stop = threading.Event(), threading.Event()
        depot = threading.Thread(target=serve, args=(service, lambda _: ready.set(), _log.info, stop.is_set))
        depot.start()
        stack.callback(depot.join)
        stack.callback(stop.set)
        if not ready.wait(READY_S):
            raise OperatorError("the depot did not get ready", subject=f"{settings.host}:{settings.port}")
        carrier = MqttTransport(settings, tenant, "conformance", timeout_s=ANSWER_S, patience_s=ANSWER_S)
        stack.callback(carrier.close)
        yield carrier


def main(words: list[str]) -> int:
    """Run one command; return 0 if it succeeded fully, else 1."""
    asked = _parser().parse_args(words)
    logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(name)s: %(message)s")
    try:
        if asked.command == "init":
            init(asked.metadata_dir, asked.trusted_root)
        else:
            targets = asked.target_name if asked.command == "download" else []
            with connected(upstream(asked.metadata_url, asked.target_base_url)) as carrier:
                update(asked.metadata_dir, carrier, targets, asked.target_dir)
    except EdgewrightError as error:
        _log.error("%s: %s", error.reason, error)
        return 1
    return 0


def _broker(stack: contextlib.ExitStack) -> BrokerConfig:
    named = os.environ.get(BROKER)
    if named is None:
        broker = stack.enter_context(EmbeddedBroker())
        named = f"127.0.0.1:{broker.port}/{broker.protocol}"
    address, _, protocol = named.partition("/")
    host, _, port = address.rpartition(":")
    return convert({"host": host, "port": int(port), "protocol": protocol}, BrokerConfig, what=BROKER)


def _state(metadata: Path) -> Path:
    """The device's own folder: a subfolder, since the suite counts the .json files beside it."""
    return metadata / "device"


def _show(trusted: Path, metadata: Path) -> None:
    """Copy what the device trusts to where the suite looks, under its names without versions."""
    roots = sorted((trusted / "root_history").glob("*.root.json"), key=lambda path: int(path.name.split(".")[0]))
    if roots:
        shutil.copyfile(roots[-1], metadata / "root.json")
    for path in trusted.glob("*.json"):
        shutil.copyfile(path, metadata / path.name)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description="Our updater over MQTT, for tuf-conformance.")
    parser.add_argument("--metadata-dir", type=Path, required=True)
    parser.add_argument("--metadata-url")
    parser.add_argument("--target-name", action="append", default=[])
    parser.add_argument("--target-dir", type=Path)
    parser.add_argument("--target-base-url")
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("init").add_argument("trusted_root", type=Path)
    commands.add_parser("refresh")
    commands.add_parser("download")
    return parser


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
