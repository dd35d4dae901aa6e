"""A fleet whose every connection is TLS with certificates: the shipped Mosquitto configuration, an authority made now.

with TlsSite(tmp_path) as site: site.enroll(); site.start_agent(); ...   (the verbs of fleet_site.Site besides)
"""

from __future__ import annotations

import contextlib
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from support.brokers.brokers import Mosquitto
from support.brokers.shipped_broker import Ports, shipped_lines
from support.sites.fleet_site import Site

from edge_fleet.database.certificates import CertificateStore
from edge_fleet.database.telemetry import TelemetryStore
from edge_fleet.identity.authority import SERVICES
from edge_fleet.identity.claims import (
    ClaimOrder,
    found_authority,
    make_claim,
    write_broker_files,
    write_claim,
    write_service_files,
)
from edge_fleet.signing.workspace import FleetWorkspace
from edgewright.demo.stage import run, run_json

DEVICE = "site-device"
HOST = "127.0.0.1"


class TlsSite(Site):
    """See the module. `certs` holds the broker's files, `tls` the services'; `lifetime` is a device certificate's."""

    def __init__(self, folder: Path, *, lifetime: str = "90d") -> None:
        self.certs = folder / "certs"
        self.tls = folder / "tls"
        self.lifetime = lifetime
        self.ports = Ports()
        broker = Mosquitto(folder, lines=shipped_lines(self.certs, self.ports), port=self.ports.devices)
        super().__init__(folder, broker)
        self.secured = True
        fleet, now = FleetWorkspace(self.fleet), datetime.now(UTC)
        found_authority(fleet, now)
        write_broker_files(fleet, [HOST], self.certs, now)
        with contextlib.closing(CertificateStore(fleet.store_url)) as store:
            for name in SERVICES:
                write_service_files(fleet, store, name, self.tls, now)

    def service_options(self, name: str) -> tuple[str, ...]:
        """Return how a service of that name connects."""
        files = {"--ca": "ca.pem", "--cert": f"{name}.pem", "--key": f"{name}.key"}
        paths = [word for option, file in files.items() for word in (option, str(self.tls / file))]
        return ("--broker", f"{HOST}:{self.broker.port}", *paths)

    def start_enrollment(self) -> None:
        """Start the enrollment service."""
        words = ("fleet", "enrolment", str(self.fleet), *self.service_options("enrolment"), "--lifetime", self.lifetime)
        self.start("enrolment", *words, ready="enrollment ready")

    def claim(self, name: str, device: str = DEVICE, life: timedelta = timedelta(days=1)) -> Path:
        """Make a claim for the device and return its file."""
        fleet, out = FleetWorkspace(self.fleet), self.folder / f"{name}.claim"
        order = ClaimOrder(device=device, host=HOST, port=self.ports.claims)
        with contextlib.closing(CertificateStore(fleet.store_url)) as store:
            write_claim(make_claim(fleet, store, order, life, datetime.now(UTC)), out)
        return out

    def enroll(self, claim: Path) -> dict[str, Any]:
        """Redeem a claim on the device; return the identity. Raises DemoError with what the command said."""
        self.write_config()
        found: dict[str, Any] = run_json("agent", "enroll", "--claim", str(claim), "--config", str(self.config))
        return found

    def revoke(self, device: str = DEVICE) -> None:
        """Revoke the device and bring the list to the broker, as an operator does."""
        run("fleet", "identity", "revoke", str(self.fleet), device, "--out", str(self.certs / "revoked.pem"))
        assert isinstance(self.broker, Mosquitto)
        self.broker.reload()

    def known_to_the_fleet(self) -> bool:
        """Return whether the controller has stored what the device reports."""
        with contextlib.closing(TelemetryStore(FleetWorkspace(self.fleet).store_url)) as store:
            return any(row.device == DEVICE and row.reported is not None for row in store.devices())

    def serials(self, device: str = DEVICE) -> list[str]:
        """Return the serials of a device's certificates, oldest first."""
        with contextlib.closing(CertificateStore(FleetWorkspace(self.fleet).store_url)) as store:
            return [row.serial for row in store.certificates(device)]
