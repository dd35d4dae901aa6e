"""A device's life with certificates, every process real, on the shipped Mosquitto configuration: enroll, update, renew,
be revoked, expire. What a device serves hangs on none of it."""

from __future__ import annotations

import ssl
import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from support.brokers.broker_identities import Identity
from support.makers import bundles
from support.sites.identity_site import TlsSite

from edge_agent.config.agent_toml import load_config
from edge_agent.enrollment.client import redeem_claim
from edge_agent.errors import CertificateError
from edge_agent.identity.files import IdentityFolder
from edge_contracts.enrollment import parse_claim
from edgewright.demo.stage import DemoError, wait_for

pytestmark = pytest.mark.timeout(180)  # many processes, and certificates that have to grow old


@pytest.fixture
def site(tmp_path: Path) -> Iterator[TlsSite]:
    site = TlsSite(tmp_path)
    with site.broker, site:
        yield site


def identity_files(site: TlsSite) -> tuple[Path, Path]:
    folder = IdentityFolder(site.state / "identity")
    enrolled = folder.current()
    assert enrolled is not None
    files = folder.files(enrolled)
    return files.certificate, files.key


def connects(site: TlsSite, pair: tuple[Path, Path]) -> bool:
    try:
        Identity(site.ports.devices, site.tls / "ca.pem", pair).close()
    except (ssl.SSLError, ConnectionError):
        return False
    return True


def test_device_enrolls_updates_over_tls_and_is_revoked_and_still_answers(site: TlsSite) -> None:
    site.publish("1.0.0")
    site.start_enrollment()
    site.start_depot()
    site.start_controller()
    site.enroll(site.claim("first"))
    site.start_agent()
    site.roll_out("1.0.0")
    site.wait_for_state("committed", "1.0.0")
    site.publish("2.0.0")
    site.roll_out("2.0.0")
    site.wait_for_state("committed", "2.0.0")
    site.serves("2.0.0")
    wait_for("the controller knows the device", site.known_to_the_fleet)
    stolen = identity_files(site)
    site.revoke()
    wait_for("the broker refuses the certificate", lambda: not connects(site, stolen))
    site.broker.kill()
    site.broker.start()
    status = wait_for("the agent says why", lambda: (s := site.status())["broker_trouble"].find("revoked") > 0 and s)
    assert not status["broker_connected"]
    assert ":2.0.0/" in site.ask().served_by


def test_short_lived_certificate_is_renewed_with_a_new_key_and_the_link_goes_on(site: TlsSite) -> None:
    site.lifetime = "20s"
    site.publish("1.0.0")
    site.start_enrollment()
    site.start_depot()
    site.enroll(site.claim("first"))
    first = identity_files(site)[1].read_bytes()
    site.start_agent()
    wait_for("a renewal", lambda: len(site.serials()) >= 2, timeout_s=60)
    wait_for("another key", lambda: identity_files(site)[1].read_bytes() != first)
    wait_for("connected", lambda: site.status()["broker_connected"])
    site.roll_out("1.0.0")
    site.wait_for_state("committed", "1.0.0")


def test_expired_device_answers_says_what_to_do_and_comes_back_with_a_new_claim(site: TlsSite) -> None:
    site.lifetime = "6s"
    bundles.make_bundle(site.folder / "factory", name="linear", version="0.9.0")
    site.factory = site.folder / "factory"
    site.start_agent()
    assert "not enrolled" in site.status()["identity"]["advice"]
    site.start_enrollment()
    site.enroll(site.claim("first"))
    wait_for("connected", lambda: site.status()["broker_connected"])
    site.stop("enrolment")
    site.lifetime = "90d"
    wait_for("expired", lambda: site.status()["identity"]["standing"] == "expired")
    site.broker.kill()
    site.broker.start()
    status = wait_for("offline", lambda: not (s := site.status())["broker_connected"] and s["broker_trouble"] and s)
    assert "fleet enroll" in status["identity"]["advice"]
    assert site.ask().served_by == "factory:0.9.0/fp32"
    site.start_enrollment()
    site.enroll(site.claim("second"))
    wait_for("connected again", lambda: site.status()["broker_connected"])
    wait_for("nothing left to advise", lambda: site.status()["identity"]["advice"] == "")


def test_used_claim_copied_to_another_box_is_refused_with_the_reason(site: TlsSite) -> None:
    site.start_enrollment()
    claim = site.claim("first")
    enrolled = site.enroll(claim)
    assert site.enroll(claim)["serial"] == enrolled["serial"], "the same box may ask again"
    site.state = site.folder / "thief"
    with pytest.raises(DemoError, match="refused: used"):
        site.enroll(claim)
    assert IdentityFolder(site.state / "identity").current() is None
    assert site.serials() == [enrolled["serial"]]


def test_revoked_device_that_redeems_its_claim_again_is_told_so(site: TlsSite) -> None:
    site.start_enrollment()
    claim = site.claim("first")
    enrolled = site.enroll(claim)
    site.stop("enrolment")
    assert "no reply" in site.enroll(claim)["unchecked"], "what could not be asked is said"
    site.start_enrollment()
    assert site.enroll(claim) == enrolled
    site.revoke()
    with pytest.raises(DemoError, match="refused: revoked"):
        site.enroll(claim)
    assert site.enroll(site.claim("second"))["serial"] != enrolled["serial"], "a new claim takes it back"


def test_broker_that_finds_the_claim_expired_ends_the_wait_at_once(site: TlsSite) -> None:
    """By the device's own clock, which starts in 1970 on a box without a battery, the claim is good."""
    site.start_enrollment()
    claim = parse_claim(site.claim("short", life=timedelta(seconds=1)).read_bytes())
    time.sleep(2.0)
    site.write_config()
    broker = load_config(site.config).broker
    assert broker is not None
    started = time.monotonic()
    with pytest.raises(CertificateError, match="refused: expired"):
        redeem_claim(claim, IdentityFolder(site.state / "identity"), broker, 60.0, now=0.0)
    assert time.monotonic() - started < 30.0
