"""What the doctor says of an enrolled identity and of the data topics' broker. The rest is in tests/system."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.parts.doctor_identity import BEGIN, DAY, NOBODY, device

from edge_agent.cli.doctor.device_checks import examine
from edge_agent.cli.doctor.finding import Finding, Target
from edge_agent.cli.doctor.network_checks import broker_fix
from edge_agent.config.agent_toml import AgentConfig
from edge_agent.identity.files import IdentityFolder, IdentityPaths
from edge_agent.identity.validity import Enrolled

PAPERS = IdentityPaths(certificate=b"certificate", key=b"key", ca=b"ca", issuer=b"issuer")


def enrolled(folder: Path, *, name: str = "dev-1") -> dict[str, object]:
    """Enroll for ninety days; return the broker of whoever is."""
    identity = IdentityFolder(folder / "identity")
    with identity.hold():
        identity.adopt(
            Enrolled(device=name, tenant="default", serial="ab12", begin=BEGIN, end=BEGIN + 90 * DAY), PAPERS
        )
    return NOBODY | {"tls": True, "identity": str(identity.root)}


def found(config: AgentConfig, check: str, now: float = BEGIN) -> list[Finding]:
    return [finding for finding in examine(Target(config=config, now=now)) if finding.check == check]


@pytest.mark.parametrize(
    ("day", "verdict", "says"),
    [(1, "ok", "is valid until"), (61, "ok", "renewal from"), (75, "warning", "overdue"), (90, "failure", "expired")],
)
def test_end_and_renewal_of_the_certificate_are_told(tmp_path: Path, day: int, verdict: str, says: str) -> None:
    config = device(tmp_path, broker=enrolled(tmp_path))
    (finding,) = found(config, "identity", BEGIN + day * DAY)
    assert (finding.verdict, says in finding.text) == (verdict, True)
    assert (finding.fix is None) == (verdict == "ok")


def test_device_that_is_not_enrolled_is_told_how_to_be(tmp_path: Path) -> None:
    nobody = NOBODY | {"tls": True, "identity": str(tmp_path / "identity")}
    (finding,) = found(device(tmp_path, broker=nobody), "identity")
    assert finding.verdict == "failure"
    assert "agent enroll" in (finding.fix or "")


@pytest.mark.parametrize(
    ("reason", "enrolled", "says"),
    [
        ("no connection: TLS: [SSL: CERTIFICATE_VERIFY_FAILED] self-signed certificate", False, "agent enroll"),
        ("no connection: TLS: [SSL: TLSV13_ALERT_CERTIFICATE_REQUIRED]", False, "agent enroll"),
        ("not accepted: not authorized", False, "agent enroll"),
        ("no connection: [Errno 111] Connection refused", False, "firewall"),
        ("no connection: [Errno -2] Name or service not known", False, "cable"),
        ("no answer in 10 s", False, "cable"),
        ("no connection: TLS: [SSL: CERTIFICATE_VERIFY_FAILED] self-signed certificate", True, "ca_file"),
        ("not accepted: not authorized", True, "revoked"),
        ("no connection: [Errno 111] Connection refused", True, "firewall"),
    ],
)
def test_broker_is_mended_by_enrolling_only_where_that_is_what_it_misses(
    reason: str, enrolled: bool, says: str
) -> None:
    assert says in broker_fix(reason, tls=True, enrolled=enrolled)


def test_device_that_is_not_enrolled_and_has_no_network_is_told_of_the_network(tmp_path: Path) -> None:
    nobody = NOBODY | {"tls": True, "identity": str(tmp_path / "identity")}
    (finding,) = found(device(tmp_path, broker=nobody), "broker")
    assert "agent enroll" not in (finding.fix or "")
    assert "port" in (finding.fix or "")


def test_device_that_is_known_by_other_means_needs_no_identity(tmp_path: Path) -> None:
    assert found(device(tmp_path, broker=NOBODY), "identity") == []
    assert found(device(tmp_path, broker=NOBODY | {"tls": True, "username": "u"}), "identity") == []


def test_certificate_of_another_device_is_named(tmp_path: Path) -> None:
    (finding,) = found(device(tmp_path, broker=enrolled(tmp_path, name="dev-2")), "identity")
    assert finding.verdict == "failure"
    assert "dev-2" in finding.text


def test_missing_key_is_named(tmp_path: Path) -> None:
    config = device(tmp_path, broker=enrolled(tmp_path))
    (tmp_path / "identity" / "ab12" / "device.key").unlink()
    (finding,) = found(config, "identity")
    assert finding.verdict == "failure"
    assert "device.key" in finding.text


def test_refusing_broker_of_the_data_topics_is_a_failure_with_a_remedy(tmp_path: Path) -> None:
    (finding,) = found(device(tmp_path, data={"broker": NOBODY}), "data broker")
    assert finding.verdict == "failure"
    assert "check host, port and firewall" in (finding.fix or "")
