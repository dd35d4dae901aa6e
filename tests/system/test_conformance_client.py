"""The client for tuf-conformance, against a small repository of ours behind a web server; the suite is not needed."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.brokers.brokers import EmbeddedBroker
from support.makers import fleets
from support.sites.web_site import WebSite, failing, giving

CLIENT = Path(__file__).parents[2] / "benchmarks" / "conformance" / "client.py"
TARGET = "models/har/1.0.0/manifest.json"


class Conformance:
    """Calls the client as the suite does."""

    def __init__(self, folder: Path, broker: EmbeddedBroker) -> None:
        self.fleet = fleets.make_released(folder)
        self.metadata, self.targets = folder / "metadata", folder / "targets"
        self.metadata.mkdir()
        self.targets.mkdir()
        self.web = WebSite(self.fleet.repository)
        self.web.start()
        self._environment = {**os.environ, "EDGEWRIGHT_BROKER": f"127.0.0.1:{broker.port}/{broker.protocol}"}

    def call(self, *words: str) -> int:
        command = [sys.executable, str(CLIENT), "--metadata-dir", str(self.metadata), *words]
        return subprocess.run(command, env=self._environment, check=False).returncode

    def init(self) -> int:
        return self.call("init", str(self.fleet.path / "root.json"))

    def refresh(self) -> int:
        return self.call("--metadata-url", f"{self.web.url}/metadata/", "refresh")

    def download(self, *targets: str) -> int:
        names = [word for target in targets for word in ("--target-name", target)]
        places = ("--target-dir", str(self.targets), "--target-base-url", f"{self.web.url}/targets/")
        return self.call("--metadata-url", f"{self.web.url}/metadata/", *names, *places, "download")

    def trusted(self) -> list[str]:
        return sorted(path.name for path in self.metadata.glob("*.json"))

    def downloaded(self) -> list[bytes]:
        return [path.read_bytes() for path in self.targets.iterdir()]


@pytest.fixture(name="suite")
def _suite(tmp_path: Path) -> Iterator[Conformance]:
    with EmbeddedBroker() as broker:
        suite = Conformance(tmp_path, broker)
        yield suite
        suite.web.stop()


def test_init_asks_nothing_and_refresh_stores_plain_names(suite: Conformance) -> None:
    assert suite.init() == 0
    assert (suite.trusted(), suite.web.asked) == (["root.json"], [])
    assert suite.refresh() == 0
    assert [path.rsplit("/", 1)[-1] for path in suite.web.asked][:2] == ["2.root.json", "timestamp.json"]
    assert suite.trusted() == ["root.json", "snapshot.json", "targets.json", "timestamp.json"]
    stored = (suite.metadata / "timestamp.json").read_bytes()
    assert stored == (suite.fleet.repository / "metadata/timestamp.json").read_bytes()


def test_a_target_is_downloaded_once(suite: Conformance) -> None:
    assert suite.init() == 0
    assert suite.download(TARGET) == 0
    assert suite.download(TARGET) == 0
    original = next(suite.fleet.repository.glob("targets/models/har/1.0.0/*.manifest.json"))
    assert suite.downloaded() == [original.read_bytes()]
    assert sum(path.startswith("/targets/") for path in suite.web.asked) == 1


def test_what_is_not_signed_is_not_downloaded(suite: Conformance) -> None:
    assert suite.init() == 0
    manifest = next(suite.fleet.repository.glob("targets/models/har/1.0.0/*.manifest.json"))
    suite.web.answers[f"/targets/models/har/1.0.0/{manifest.name}"] = giving(b"!" * manifest.stat().st_size)
    assert suite.download(TARGET) == 1
    assert suite.download("models/har/9.9.9/manifest.json") == 1
    assert suite.downloaded() == []


def test_a_repository_that_is_away_leaves_what_was_trusted(suite: Conformance) -> None:
    assert suite.init() == 0
    assert suite.refresh() == 0
    trusted = {path.name: path.read_bytes() for path in suite.metadata.glob("*.json")}
    suite.web.answers["/metadata/timestamp.json"] = giving(b"{}")
    assert suite.refresh() == 1
    suite.web.answers["/metadata/timestamp.json"] = failing(404)
    assert suite.refresh() == 1
    assert {path.name: path.read_bytes() for path in suite.metadata.glob("*.json")} == trusted
