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
    write_client_files,
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
        raise click.BadParameter("give a duration such as 7d, 12h or 30m, at most 3650d")
    return timedelta(seconds=int(found[1]) * _UNITS[found[2]])


@click.group(short_help="Manage the fleet's certificate authority.")
def authority() -> None:
    """Manage the certificate authority for broker, services and devices.

    \b
    Examples:
      edgewright fleet authority init ~/fleet
      edgewright fleet authority broker ~/fleet --host broker.example.org --out broker-files
      edgewright fleet authority service ~/fleet depot --out ~/fleet/tls
    """


@authority.command("init")
@fleet_argument
@json_option
def authority_init(folder: Path, as_json: bool) -> None:
    """Create the authority's three keys in DIR/authority.

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
        "broker-ca.key signs broker certificates only: create those, then move the key to offline storage.\n"
        "`edgewright fleet enrollment` needs device-ca.key; `edgewright fleet enroll` needs claim-ca.key.",
    )


@authority.command("broker")
@fleet_argument
@click.option(
    "--host", "hosts", multiple=True, required=True, help="DNS name or IP address of the broker; may be repeated."
)
@click.option("--out", type=FOLDER, required=True, help="Folder to write the broker's files to.")
@json_option
def authority_broker(folder: Path, hosts: tuple[str, ...], out: Path, as_json: bool) -> None:
    """Create the broker's certificate, key, CA and revocation files.

    \b
    Examples:
      edgewright fleet authority broker ~/fleet --host broker.example.org --out broker-files
    """
    write_broker_files(FleetWorkspace(folder), hosts, out, utc_now())
    emit(
        {"folder": str(out), "hosts": hosts}, as_json, f"Copy the files in {out} to the broker (docs/how-to/broker.md)."
    )


class _ServiceName(click.Choice[str]):
    """The services as they are written here; the other spelling is what the broker's files call the third one."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        return super().convert("enrollment" if value == "enrolment" else value, param, ctx)


@authority.command("service")
@fleet_argument
@click.argument("name", type=_ServiceName([name.replace("enrolment", "enrollment") for name in SERVICES]))
@click.option("--out", type=FOLDER, required=True, help="Folder to write the certificate, the key and ca.pem to.")
@db_option
@json_option
def authority_service(folder: Path, name: str, out: Path, db: str | None, as_json: bool) -> None:
    """Create the certificate of a fleet service.

    It is valid for 825 days.

    \b
    Examples:
      edgewright fleet authority service ~/fleet depot --out ~/fleet/tls
    """
    fleet, common_name = FleetWorkspace(folder), name.replace("enrollment", "enrolment")
    store = CertificateStore(db or fleet.store_url)
    row = write_service_files(fleet, store, common_name, out, utc_now(), file_name=name)
    store.close()
    text = f"Start the {name} with {_options(out, name)}"
    emit({"name": common_name, "folder": str(out), "expires": row.expires}, as_json, text)


@authority.command("client")
@fleet_argument
@click.argument("name")
@click.option("--out", type=FOLDER, required=True, help="Folder to write the certificate, the key and ca.pem to.")
@db_option
@json_option
def authority_client(folder: Path, name: str, out: Path, db: str | None, as_json: bool) -> None:
    """Create the certificate of another client of the broker.

    For sensors, dashboards and everything else that is neither a device nor a service. It is valid for 825 days, and
    NAME is the user name in the broker's ACL.

    \b
    Examples:
      edgewright fleet authority client ~/fleet sensor-1 --out sensor-files
    """
    fleet = FleetWorkspace(folder)
    store = CertificateStore(db or fleet.store_url)
    row = write_client_files(fleet, store, convert(name, Name, what="name"), out, utc_now())
    store.close()
    text = f"Give it to the client as {_options(out, name)}; what `user {name}` may do stands in the broker's ACL"
    emit({"name": name, "folder": str(out), "expires": row.expires}, as_json, text)


def _options(out: Path, name: str) -> str:
    return f"--ca {out / 'ca.pem'} --cert {out / f'{name}.pem'} --key {out / f'{name}.key'}"


@click.command()
@fleet_argument
@click.option("--device", required=True, help="Device name, as `id` of [device] in agent.toml.")
@click.option(
    "--broker",
    required=True,
    metavar="HOST[:PORT]",
    help="Address of the broker's enrollment listener; default port: 8884.",
)
@click.option(
    "--expires",
    type=life,
    metavar="TIME",
    default="7d",
    show_default=True,
    help="Validity of the claim, e.g. 12h or 7d.",
)
@click.option("--out", type=_FILE, required=True, help="Claim file to write; secret, never overwritten.")
@db_option
@json_option
def enroll(
    folder: Path, device: str, broker: str, expires: timedelta, out: Path, db: str | None, as_json: bool
) -> None:
    """Create a claim: a file that enrolls one device once.

    Copy it to the device over a channel you trust and run `edgewright agent enroll` there.

    \b
    Examples:
      edgewright fleet enroll ~/fleet --device dev-0001 --broker broker.example.org --out dev-0001.claim
    """
    fleet = FleetWorkspace(folder)
    host, _, port = broker.rpartition(":") if re.search(r":[0-9]+$", broker) else (broker, "", str(ENROLLMENT_PORT))
    asked = {"device": convert(device, Name, what="device"), "host": host.strip("[]"), "port": int(port)}
    if out.exists():
        raise FleetError("file exists; a claim is never overwritten", subject=str(out), hint="choose another --out")
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
    help="Validity of device certificates, e.g. 30d.",
)
@db_option
def enrollment(folder: Path, lifetime: timedelta, db: str | None, **broker: Any) -> None:
    """Run the service that issues device certificates.

    A device gets its first certificate for a claim and renewals for the certificate before. Prints `enrollment ready`
    once subscribed. Stops on SIGTERM.

    \b
    Examples:
      edgewright fleet enrollment ~/fleet --broker broker:8883 --ca ca.pem --cert enrollment.pem --key enrollment.key
    """
    fleet = FleetWorkspace(folder)
    desk = EnrollmentDesk(broker=parse_broker(broker), store_url=db or fleet.store_url, life=lifetime)
    serve_enrollment(fleet, desk, click.echo, log, until_signaled())


@click.group()
def identity() -> None:
    """List and revoke issued certificates.

    \b
    Examples:
      edgewright fleet identity list ~/fleet
      edgewright fleet identity revoke ~/fleet dev-0001
    """


@identity.command("list")
@fleet_argument
@click.option("--device", help="Device to show; default: all.")
@db_option
@json_option
def identity_list(folder: Path, device: str | None, db: str | None, as_json: bool) -> None:
    """List issued certificates, oldest first.

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
@click.option(
    "--out", type=_FILE, help=f"Second copy of the revocation list; DIR/authority/{REVOKED_NAME} is always written."
)
@db_option
@json_option
def identity_revoke(folder: Path, device: str, out: Path | None, db: str | None, as_json: bool) -> None:
    """Revoke all certificates and claims of DEVICE.

    DEVICE is a device or a service. Writes the broker's revocation list. The device keeps serving: what it runs does
    not depend on its certificate.

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
        raise FleetError("has no certificate to revoke; its claims are void now", subject=device)
    emit(
        {"device": device, "revoked": [row.serial for row in gone], "list": str(path)},
        as_json,
        f"{device}: {len(gone)} certificates revoked. Copy {path} to the broker and send it SIGHUP;\n"
        "restart the broker to end an open connection (docs/how-to/enroll.md).",
    )


def _view(row: Issued) -> dict[str, Any]:
    return {name: getattr(row, name) for name in row.__struct_fields__ if name != "certificate"}
