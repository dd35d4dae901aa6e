"""`agent doctor` on a real device: what it finds when all is well, and what it names when something is not."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest
from support.sites.fleet_site import Site

from edgewright.demo.stage import command

pytestmark = pytest.mark.timeout(120)


def examine(config: Path) -> tuple[int, dict[str, list[dict[str, str]]]]:
    """Return the exit code and the findings by verdict."""
    words = command("agent", "doctor", "--config", str(config), "--json")
    run = subprocess.run(words, capture_output=True, text=True, timeout=90, check=False)
    document = json.loads(run.stdout)
    found: dict[str, list[dict[str, str]]] = {"ok": [], "warning": [], "failure": [], "skipped": []}
    for finding in document["findings"]:
        found[finding["verdict"]].append(finding)
    assert document["ok"] is not bool(found["failure"])
    assert all(finding["fix"] for finding in found["failure"])
    return run.returncode, found


def checks(findings: list[dict[str, str]]) -> set[str]:
    return {finding["check"] for finding in findings}


def test_a_healthy_device_has_nothing_to_mend(serving: Site) -> None:
    code, found = examine(serving.config)
    assert (code, found["failure"]) == (0, [])
    assert {"broker", "depot", "trust", "agent", "slot main", "audit log", "clock"} <= checks(found["ok"])
    assert any(check.startswith("release 1.0.0") for check in checks(found["ok"]))


def test_a_missing_depot_a_damaged_release_and_a_stopped_agent_are_named(serving: Site) -> None:
    serving.stop("agent")
    serving.stop("depot")
    model = next((serving.state / "releases").glob("*/models/fp32.onnx"))
    model.chmod(0o600)
    model.write_bytes(model.read_bytes()[:-1] + b"!")
    code, found = examine(serving.config)
    assert code == 1
    assert {"depot"} < checks(found["failure"])
    assert any("models/fp32.onnx" in finding["text"] for finding in found["failure"])
    assert "agent" in checks(found["warning"])
    assert "broker" in checks(found["ok"])


def test_a_dead_broker_is_told_from_a_refusing_one(site: Site) -> None:
    site.start_agent()
    site.stop("agent")
    site.broker.stop()
    _, found = examine(site.config)
    broker = next(finding for finding in found["failure"] if finding["check"] == "broker")
    assert "check host, port and firewall" in broker["fix"]


def test_expired_metadata_and_a_clock_before_what_was_signed_are_named(serving: Site) -> None:
    trusted = serving.state / "tuf" / "trusted" / "timestamp.json"
    metadata = json.loads(trusted.read_bytes())
    metadata["signed"]["expires"] = "2026-01-02T00:00:00Z"
    trusted.write_text(json.dumps(metadata))
    floor = serving.state / "tuf" / "floor.json"
    floor.write_text(json.dumps(json.loads(floor.read_bytes()) | {"time": 4e9}))
    code, found = examine(serving.config)
    assert code == 1
    assert any("timestamp metadata expired" in finding["text"] for finding in found["failure"])
    assert any(finding["check"] == "clock" and "timedatectl" in finding["fix"] for finding in found["warning"])


def test_what_a_configuration_names_and_is_not_there_is_named_by_its_field(tmp_path: Path) -> None:
    config = tmp_path / "agent.toml"
    config.write_text(
        f'[device]\nid = "d"\nstate = "{tmp_path}/state"\n[trust]\nroot = "nowhere.json"\n'
        '[[slots]]\nname = "main"\nchannel = "c"\nfactory = "missing"\nhttp = "127.0.0.1:0"\n'
    )
    code, found = examine(config)
    assert code == 1
    assert any("config.trust.root" in finding["text"] for finding in found["failure"])
    assert any("missing" in finding["text"] for finding in found["failure"])
    assert not (tmp_path / "state").exists()
