"""`edgewright fleet authority`, `enroll`, `enrollment` and `identity`: who may connect to the fleet's broker.

What is signed for devices to run is not decided here: a certificate gives a voice on the broker and nothing more.
"""

from __future__ import annotations

import re
from datetime import timedelta
from pathlib import Path
from typing import Any

import click

from edge_contracts.codec import convert
from edge_contracts.names import Name
from edge_fleet.cli.output import (
    FOLDER,
    db_option,
    emit,
    fleet_argument,
    json_option,
    log,
    show_table,
    until_signaled,
    utc_now,
)
from edge_fleet.cli.services import broker_options, parse_broker
from edge_fleet.database.certificates import CertificateStore, Issued
from edge_fleet.errors import FleetError
from edge_fleet.identity.authority import CA_NAMES, SERVICES
from edge_fleet.identity.claims import (
    REVOKED_NAME,
    ClaimOrder,
    authority_of,
    found_authority,
    make_claim,
    write_broker_files,
    write_claim,
    write_revocations,
    write_service_files,
)
from edge_fleet.identity.enrollment import utc_text
from edge_fleet.identity.enrollment_service import EnrollmentDesk, serve_enrollment
from edge_fleet.signing.workspace import FleetWorkspace

_FILE = click.Path(path_type=Path, dir_okay=False)
_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
ENROLLMENT_PORT = 8884


def life(text: str) -> timedelta:
    """Return a length of time such as 7d, 12h, 30m or 90s. Raises BadParameter for what is none, or over ten years."""
    found = re.fullmatch(r"([1-9][0-9]{0,8})([smhd])", text)
    if found is None or int(found[1]) * _UNITS[found[2]] > 3650 * 86400:
        raise click.BadParameter("give a time such as 7d, 12h or 30m, at most 3650d")
    return timedelta(seconds=int(found[1]) * _UNITS[found[2]])


@click.group()
def authority() -> None:
    """The fleet's certificate authority: who is who on the broker."""


@authority.command("init")
@fleet_argument
@json_option
def authority_init(folder: Path, as_json: bool) -> None:
    """Make the authority's three keys in DIR/authority.

    \b
    Examples:
      edgewright fleet authority init ~/fleet
    """
    made = found_authority(FleetWorkspace(folder), utc_now())
    keys = {name: str(made.folder / f"{name}.key") for name in CA_NAMES}
    emit(
        {"folder": str(made.folder), "keys": keys},
        as_json,
        f"The authority is ready in {made.folder}.\n"
        "broker-ca.key is needed for a broker's certificate only: make that, then move the key to a safe place.\n"
        "device-ca.key is needed where `edgewright fleet enrollment` runs, claim-ca.key where `fleet enroll` does.",
    )


@authority.command("broker")
@fleet_argument
@click.option(
    "--host", "hosts", multiple=True, required=True, help="DNS name or address of the broker; may be repeated."
)
@click.option("--out", type=FOLDER, required=True, help="Folder for the broker's files.")
@json_option
def authority_broker(folder: Path, hosts: tuple[str, ...], out: Path, as_json: bool) -> None:
    """Make what the broker needs: its certificate and key, whom it lets in, and who is revoked.

    \b
    Examples:
      edgewright fleet authority broker ~/fleet --host broker.example.org --out broker-files
    """
    write_broker_files(FleetWorkspace(folder), hosts, out, utc_now())
    emit(
        {"folder": str(out), "hosts": hosts}, as_json, f"Copy the files in {out} to the broker (docs/how-to/broker.md)."
    )


@authority.command("service")
@fleet_argument
@click.argument("name", type=click.Choice(SERVICES))
@click.option("--out", type=FOLDER, required=True, help="Folder for its certificate, its key and ca.pem.")
@db_option
@json_option
def authority_service(folder: Path, name: str, out: Path, db: str | None, as_json: bool) -> None:
    """Make the certificate of one of the fleet's own services, good for 825 days.

    \b
    Examples:
      edgewright fleet authority service ~/fleet depot --out ~/fleet/tls
    """
    fleet = FleetWorkspace(folder)
    store = CertificateStore(db or fleet.store_url)
    row = write_service_files(fleet, store, name, out, utc_now())
    store.close()
    options = f"--ca {out / 'ca.pem'} --cert {out / f'{name}.pem'} --key {out / f'{name}.key'}"
    emit({"name": name, "folder": str(out), "expires": row.expires}, as_json, f"Start the {name} with {options}")


@click.command()
@fleet_argument
@click.option("--device", required=True, help="The device's name, its `device.id`.")
@click.option("--broker", required=True, metavar="HOST[:PORT]", help="The broker's enrollment listener; port 8884.")
@click.option(
    "--expires", type=life, metavar="TIME", default="7d", show_default=True, help="How long the claim can be used."
)
@click.option("--out", type=_FILE, required=True, help="The claim file, a secret; it is never overwritten.")
@db_option
@json_option
def enroll(
    folder: Path, device: str, broker: str, expires: timedelta, out: Path, db: str | None, as_json: bool
) -> None:
    """Make a claim: a file with which one device gets its certificate, once.

    Bring it to the device by a way you trust and run `edgewright agent enroll` there.

    \b
    Examples:
      edgewright fleet enroll ~/fleet --device dev-0001 --broker broker.example.org --out dev-0001.claim
    """
    fleet = FleetWorkspace(folder)
    host, _, port = broker.rpartition(":") if re.search(r":[0-9]+$", broker) else (broker, "", str(ENROLLMENT_PORT))
    asked = {"device": convert(device, Name, what="device"), "host": host.strip("[]"), "port": int(port)}
    if out.exists():
        raise FleetError("exists already", subject=str(out))
    store = CertificateStore(db or fleet.store_url)
    claim = make_claim(fleet, store, convert(asked, ClaimOrder, what="enroll"), expires, utc_now())
    store.close()
    write_claim(claim, out)
    emit(
        {"claim": claim.claim, "device": device, "expires": claim.expires, "file": str(out)},
        as_json,
        f"{out} lets {device} enroll once, until {claim.expires}. On the device:\n"
        f"edgewright agent enroll --claim {out.name} --config /etc/edgewright/agent.toml",
    )


@click.command()
@fleet_argument
@broker_options
@click.option(
    "--lifetime",
    type=life,
    metavar="TIME",
    default="90d",
    show_default=True,
    help="How long a device's certificate is good.",
)
@db_option
def enrollment(folder: Path, lifetime: timedelta, db: str | None, **broker: Any) -> None:
    """Give devices their certificates: the first for a claim, the next ones for the certificate before.

    Prints `enrollment ready` once it is subscribed. Ends cleanly on SIGTERM.

    \b
    Examples:
      edgewright fleet enrollment ~/fleet --broker broker:8883 --ca ca.pem --cert enrollment.pem --key enrollment.key
    """
    fleet = FleetWorkspace(folder)
    desk = EnrollmentDesk(broker=parse_broker(broker), store_url=db or fleet.store_url, life=lifetime)
    serve_enrollment(fleet, desk, click.echo, log, until_signaled())


@click.group()
def identity() -> None:
    """The certificates that were issued."""


@identity.command("list")
@fleet_argument
@click.option("--device", help="Only this device's.")
@db_option
@json_option
def identity_list(folder: Path, device: str | None, db: str | None, as_json: bool) -> None:
    """Show issued certificates, oldest first.

    \b
    Examples:
      edgewright fleet identity list ~/fleet --device dev-0001
    """
    store = CertificateStore(db or FleetWorkspace(folder).store_url)
    found = store.certificates(device)
    store.close()
    if as_json:
        emit({"certificates": [_view(row) for row in found]}, True, "")
        return
    rows = [(row.device, row.serial[:16], row.issued, row.expires, row.revoked) for row in found]
    show_table("Certificates", ("name", "serial", "issued", "expires", "revoked"), rows)


@identity.command("revoke")
@fleet_argument
@click.argument("device")
@click.option("--out", type=_FILE, help=f"Write the broker's list here, too; DIR/authority/{REVOKED_NAME} is always.")
@db_option
@json_option
def identity_revoke(folder: Path, device: str, out: Path | None, db: str | None, as_json: bool) -> None:
    """Revoke every certificate and claim of DEVICE (or of a service) and write the broker's list anew.

    The device goes on serving: what it runs does not hang on its certificate.

    \b
    Examples:
      edgewright fleet identity revoke ~/fleet dev-0001
    """
    fleet, now = FleetWorkspace(folder), utc_now()
    authority_of(fleet).check_key("device-ca")
    store = CertificateStore(db or fleet.store_url)
    gone = store.revoke(device, utc_text(now))
    path = write_revocations(fleet, store, now)
    store.close()
    if out is not None:
        out.write_bytes(path.read_bytes())
    if not gone:
        raise FleetError("has no certificate that could be revoked; its claims are void", subject=device)
    emit(
        {"device": device, "revoked": [row.serial for row in gone], "list": str(path)},
        as_json,
        f"{device}: {len(gone)} certificates revoked. Copy {path} to the broker and send it SIGHUP;\n"
        "restart it to end a connection that stands (docs/how-to/enroll.md).",
    )


def _view(row: Issued) -> dict[str, Any]:
    return {name: getattr(row, name) for name in row.__struct_fields__ if name != "certificate"}
