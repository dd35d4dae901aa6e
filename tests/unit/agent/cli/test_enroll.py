"""`edgewright agent enroll` refuses what does not fit before it connects anywhere; claims are read under a limit."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from click.testing import CliRunner
from support.makers import fleets

from edge_agent.cli.agent import agent
from edge_agent.enrollment.client import _heed
from edge_agent.errors import CertificateError, ConfigError, UnreachableError
from edge_agent.identity.files import IdentityFolder
from edge_contracts.errors import ContractError, EdgewrightError
from edge_contracts.limits import MAX_CLAIM_BYTES
from edge_fleet.database.certificates import CertificateStore
from edge_fleet.identity.claims import ClaimOrder, found_authority, make_claim, write_claim

CONFIG = """\
[device]
id = "{device}"
state = "state"
[broker]
host = "127.0.0.1"
{broker}
[[slots]]
name = "main"
factory = "unused"
"""


@pytest.fixture(name="claim")
def _claim(tmp_path: Path) -> Path:
    fleet = fleets.make_fleet(tmp_path)
    found_authority(fleet, fleets.NOW)
    store = CertificateStore(fleet.store_url)
    order = ClaimOrder(device="dev-1", host="127.0.0.1", port=1)
    write_claim(make_claim(fleet, store, order, timedelta(days=1), datetime.now(UTC)), tmp_path / "dev-1.claim")
    store.close()
    return tmp_path / "dev-1.claim"


def enroll(claim: Path, *, device: str = "dev-1", broker: str = "tls = true") -> EdgewrightError:
    config = claim.parent / "agent.toml"
    config.write_text(CONFIG.format(device=device, broker=broker))
    words = ["enroll", "--claim", str(claim), "--config", str(config), "--timeout", "1"]
    error = CliRunner().invoke(agent, words).exception
    assert isinstance(error, EdgewrightError)
    return error


def test_a_claim_for_another_device_is_refused(claim: Path) -> None:
    error = enroll(claim, device="dev-2")
    assert isinstance(error, ConfigError)
    assert error.subject == "config.device.id"


@pytest.mark.parametrize(
    ("broker", "field"),
    [
        ("tls = false", "config.broker.tls"),
        ('tls = true\ncertificate_file = "a"\nkey_file = "b"', "config.broker.certificate_file"),
    ],
)
def test_a_configuration_that_would_not_use_the_identity_is_refused(claim: Path, broker: str, field: str) -> None:
    assert enroll(claim, broker=broker).subject == field


def test_an_oversized_or_senseless_claim_is_refused(claim: Path) -> None:
    claim.write_bytes(b"{" * 10)
    assert isinstance(enroll(claim), ContractError)
    claim.write_bytes(b" " * (MAX_CLAIM_BYTES + 1))
    assert isinstance(enroll(claim), ContractError)
    assert isinstance(enroll(claim.with_name("none")), ConfigError)


def test_without_a_broker_the_key_waits_for_the_next_try(claim: Path) -> None:
    folder = IdentityFolder(claim.parent / "state" / "identity")
    assert isinstance(enroll(claim), UnreachableError)
    key = folder.pending_key()
    assert key is not None
    assert isinstance(enroll(claim), UnreachableError)
    assert folder.pending_key() == key
    assert folder.current() is None


def test_a_claim_that_is_over_is_refused_before_anybody_is_asked(claim: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A clock that is ahead looks the same, so the text says what the clock shows."""
    days_on = time.time() + 2 * 86_400
    monkeypatch.setattr("edge_agent.cli.enroll.time.time", lambda: days_on)
    monkeypatch.setattr("edge_agent.enrollment.client.ask", lambda *_: pytest.fail("somebody was asked"))
    error = enroll(claim)
    assert isinstance(error, CertificateError)
    assert error.refusal == "expired"
    assert "refused: expired; the claim was good until" in str(error)
    assert "fleet enroll" in (error.hint or "")
    assert datetime.fromtimestamp(days_on, UTC).strftime("%Y-%m-%d") in (error.hint or "")
    assert IdentityFolder(claim.parent / "state" / "identity").pending_key() is None


@pytest.mark.parametrize("word", ["expired", "revoked"])
def test_the_alert_of_a_broker_that_takes_no_certificate_of_the_claim_ends_it_at_once(word: str) -> None:
    with pytest.raises(CertificateError, match=f"refused: {word}") as caught:
        _heed(f"connection lost: [SSL: SSLV3_ALERT_CERTIFICATE_{word.upper()}] sslv3 alert certificate {word}")
    assert caught.value.refusal == word
    _heed("no connection: TLS: certificate verify failed: certificate has expired")  # the broker's, by our clock
