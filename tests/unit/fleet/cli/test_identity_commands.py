"""The operator's commands for identities: files with the right owners, JSON, and errors that say what to do."""

from __future__ import annotations

import json
import ssl
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from cryptography import x509
from support.makers import fleets

from edge_contracts.enrollment import parse_claim
from edge_contracts.errors import ContractError
from edge_fleet.cli.fleet import fleet as fleet_command
from edge_fleet.errors import FleetError, KeyMissingError


def run(*arguments: str | Path) -> Any:
    """Run a command with `--json` and return its one document; errors come out as they are."""
    result = CliRunner().invoke(fleet_command, [*map(str, arguments), "--json"], catch_exceptions=False)
    if result.exception is not None:
        raise result.exception
    return json.loads(result.stdout)


@pytest.fixture(name="home")
def _home(tmp_path: Path) -> Path:
    home = fleets.make_fleet(tmp_path, tenant="acme").path
    run("authority", "init", home)
    return home


def test_a_brokers_files_are_what_the_shipped_configuration_names(home: Path, tmp_path: Path) -> None:
    out = tmp_path / "broker"
    run("authority", "broker", home, "--host", "broker.example.org", "--host", "10.0.0.1", "--out", out)
    names = {"broker.pem", "broker.key", "device-ca.pem", "claim-ca.pem", "revoked.pem"}
    assert {path.name for path in out.iterdir()} == names
    assert (out / "broker.key").stat().st_mode & 0o777 == 0o600
    certificate = x509.load_pem_x509_certificate((out / "broker.pem").read_bytes())
    found = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert found.get_values_for_type(x509.DNSName) == ["broker.example.org"]
    assert [str(address) for address in found.get_values_for_type(x509.IPAddress)] == ["10.0.0.1"]


def test_a_services_files_are_a_pair_that_tls_takes(home: Path, tmp_path: Path) -> None:
    run("authority", "service", home, "depot", "--out", tmp_path / "tls")
    context = ssl.create_default_context(cafile=str(tmp_path / "tls/ca.pem"))
    context.load_cert_chain(tmp_path / "tls/depot.pem", tmp_path / "tls/depot.key")


def test_a_claim_is_a_secret_file_and_is_never_overwritten(home: Path, tmp_path: Path) -> None:
    out = tmp_path / "dev-1.claim"
    words = ("enroll", home, "--device", "dev-1", "--broker", "broker.example.org", "--expires", "2h", "--out", out)
    told = run(*words)
    claim = parse_claim(out.read_bytes())
    assert out.stat().st_mode & 0o777 == 0o600
    assert (claim.claim, claim.device, claim.tenant) == (told["claim"], "dev-1", "acme")
    assert (claim.host, claim.port, claim.expires) == ("broker.example.org", 8884, told["expires"])
    with pytest.raises(FleetError):
        run(*words)


@pytest.mark.parametrize("device", ["a/b", "+", "", "a" * 65])
def test_a_claim_for_what_is_no_name_is_refused(home: Path, tmp_path: Path, device: str) -> None:
    with pytest.raises(ContractError):
        run("enroll", home, "--device", device, "--broker", "b", "--out", tmp_path / "claim")


@pytest.mark.parametrize("expires", ["7", "d", "-1d", "0d", "4000d", "1w"])
def test_a_time_that_is_none_is_a_usage_error(home: Path, tmp_path: Path, expires: str) -> None:
    words = ("enroll", home, "--device", "d", "--broker", "b", "--expires", expires, "--out", tmp_path / "claim")
    assert CliRunner().invoke(fleet_command, list(map(str, words))).exit_code == 2


def test_a_service_is_revoked_like_a_device_and_once(home: Path, tmp_path: Path) -> None:
    run("authority", "service", home, "depot", "--out", tmp_path / "tls")
    (listed,) = run("identity", "list", home)["certificates"]
    revoked = run("identity", "revoke", home, "depot", "--out", tmp_path / "revoked.pem")
    assert revoked["revoked"] == [listed["serial"]]
    assert len(x509.load_pem_x509_crl((tmp_path / "revoked.pem").read_bytes())) == 1
    assert run("identity", "list", home, "--device", "depot")["certificates"][0]["revoked"] is not None
    with pytest.raises(FleetError):
        run("identity", "revoke", home, "depot")


def test_a_key_that_is_kept_elsewhere_is_named_and_the_rest_works(home: Path, tmp_path: Path) -> None:
    (home / "authority/broker-ca.key").rename(tmp_path / "safe.key")
    run("authority", "service", home, "depot", "--out", tmp_path / "tls")
    run("enroll", home, "--device", "dev-1", "--broker", "b", "--out", tmp_path / "claim")
    with pytest.raises(KeyMissingError, match=r"broker-ca\.key"):
        run("authority", "broker", home, "--host", "b", "--out", tmp_path / "broker")


def test_without_an_authority_the_error_says_how_to_make_one(tmp_path: Path) -> None:
    home = fleets.make_fleet(tmp_path).path
    with pytest.raises(FleetError) as caught:
        run("enroll", home, "--device", "dev-1", "--broker", "b", "--out", tmp_path / "claim")
    assert caught.value.hint == f"edgewright fleet authority init {home}"
