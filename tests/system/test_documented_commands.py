"""Every command of README and of the how-to pages runs as it stands there, so that no page tells what is not so."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.brokers.brokers import EmbeddedBroker
from support.sites.documented_pages import Page
from support.sites.install_sites import ROOT

NEEDS: dict[str, set[str]] = {
    "README.md": {"python"},
    "docs/how-to/benchmark.md": {"task"},
    "docs/how-to/broker.md": {"fleet"},
    "docs/how-to/camera.md": set(),
    "docs/how-to/compress-a-model.md": {"task"},
    "docs/how-to/deltas.md": {"fleet", "bundles"},
    "docs/how-to/detectors.md": set(),
    "docs/how-to/drift.md": {"fleet", "services", "agent", "running"},
    "docs/how-to/enroll.md": {"fleet", "authority", "agent"},
    "docs/how-to/first-fleet.md": set(),
    "docs/how-to/first-rollout.md": {"bundles"},
    "docs/how-to/fleet-services.md": set(),
    "docs/how-to/install-device.md": {"fleet", "services", "bundles", "agent"},
    "docs/how-to/key-ceremony.md": {"fleet", "bundles", "ceremony"},
    "docs/how-to/mqtt-data.md": {"fleet", "authority"},
    "docs/how-to/no-labels.md": set(),
    "docs/how-to/pipelines.md": {"fleet"},
    "docs/how-to/plan-a-rollout.md": {"fleet", "releases", "plan"},
    "docs/how-to/prune-a-model.md": {"task"},
    "docs/how-to/reload.md": {"fleet", "agent", "running"},
    "docs/how-to/segmentation.md": set(),
    "docs/how-to/shadow-capture-replay.md": {"fleet", "bundles", "releases"},
    "docs/how-to/simulate-a-fleet.md": set(),
    "docs/how-to/site-cache.md": set(),
    "docs/how-to/small-boards.md": set(),
    "docs/how-to/streams.md": set(),
    "docs/how-to/tables.md": set(),
    "docs/how-to/tasks.md": set(),
    "docs/how-to/text.md": set(),
    "docs/how-to/usb-update.md": {"fleet", "releases", "rollout", "agent", "running"},
}
"""What each page takes for given: see `Page`."""

LEFT_OUT: dict[str, dict[str, str]] = {
    "docs/how-to/benchmark.md": {
        "edgewright bench gate bundle --against": "needs a repository: tests/process/bench/test_gate_command.py",
    },
    "docs/how-to/camera.md": {"gst-launch": "needs a camera", "ffmpeg": "needs a camera"},
    "docs/how-to/compress-a-model.md": {
        "edgewright bundle create detector.onnx": "needs a detector",
        "edgewright bundle create vad.onnx": "needs a model that remembers",
    },
    "docs/how-to/enroll.md": {
        "sudo edgewright agent enroll": "needs a broker with TLS: tests/system/test_tls_identity.py",
        "edgewright fleet identity revoke": "the device was not enrolled",
        "scp": "nothing was revoked",
    },
    "docs/how-to/first-fleet.md": {
        "edgewright fleet rollout finish": "no device has committed it",
        "edgewright fleet rollout start ~/first-fleet --plan second.toml": "the first rollout is not finished",
    },
    "docs/how-to/first-rollout.md": {
        "edgewright fleet rollout abort": "the alternative to finish",
        "edgewright fleet rollout retry": "needs a device that failed",
        "edgewright fleet family": "needs releases 1.0.3 and 1.1.0",
    },
    "docs/how-to/install-device.md": {
        "sudo edgewright agent enroll": "needs a broker with TLS",
        "edgewright agent serve": "would take the place of the agent; README's runs",
    },
    "docs/how-to/key-ceremony.md": {
        "export PYKCS11LIB": "needs a token",
        "edgewright fleet keys create ~/root-key alice --hsm": "needs a token",
    },
    "docs/how-to/pipelines.md": {"edgewright": "needs a detector and a classifier"},
    "docs/how-to/plan-a-rollout.md": {
        "edgewright fleet rollout approve": "needs devices that report",
        "edgewright fleet rollout replay": "needs devices that report",
    },
    "docs/how-to/streams.md": {"curl": "needs a model that remembers"},
    "docs/how-to/shadow-capture-replay.md": {"edgewright agent replay": "needs captures of a device"},
}
"""Beginnings of commands that cannot run here, each with the reason."""


@pytest.mark.timeout(300)
@pytest.mark.parametrize("name", NEEDS)
def test_every_command_of_a_page_runs_as_it_stands_there(name: str, tmp_path: Path) -> None:
    with EmbeddedBroker() as broker:
        Page(name, tmp_path).run(NEEDS[name], broker.port, tuple(LEFT_OUT.get(name, {})))


def test_every_page_with_commands_is_tried(tmp_path: Path) -> None:
    pages = ["README.md", *(f"docs/how-to/{path.name}" for path in (ROOT / "docs" / "how-to").glob("*.md"))]
    assert {name for name in pages if list(Page(name, tmp_path).commands())} == set(NEEDS)


@pytest.mark.parametrize("name", LEFT_OUT)
def test_what_is_left_out_is_still_on_its_page(name: str, tmp_path: Path) -> None:
    commands = list(Page(name, tmp_path).commands())
    for beginning in LEFT_OUT[name]:
        assert any(command.startswith(beginning) for command in commands), f"{name}: {beginning}"
