"""`edgewright fleet depot` and `edgewright fleet controller`: the two processes a broker connects to the fleet."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from edge_contracts.codec import convert
from edge_contracts.limits import MIB
from edge_contracts.names import Name
from edge_contracts.topics import DEPOT_GROUP, INGEST_GROUP
from edge_fleet.cli.output import FOLDER, db_option, fleet_argument, log, until_signaled
from edge_fleet.controller.service import Post, control, default_client_id
from edge_fleet.depot.rate_limit import Pace
from edge_fleet.depot.service import DepotSite, Service, serve
from edge_fleet.errors import FleetError
from edge_fleet.mqtt import Broker
from edge_fleet.signing.workspace import SETTINGS_NAME, FleetWorkspace

_Command = TypeVar("_Command", bound=Callable[..., Any])
_FILE = click.Path(path_type=Path, dir_okay=False, exists=True)

_BROKER_OPTIONS = (
    click.option("--broker", required=True, metavar="HOST:PORT", help="Address of the broker."),
    click.option("--username", help="User name for the broker."),
    click.option("--password-file", type=_FILE, help="File containing the broker password."),
    click.option("--tls", is_flag=True, help="Use TLS; implied by --ca."),
    click.option("--ca", "ca_file", type=_FILE, help="CA certificates to trust, PEM."),
    click.option("--cert", "certificate_file", type=_FILE, help="This service's certificate, PEM."),
    click.option("--key", "key_file", type=_FILE, help="This service's private key, PEM."),
    click.option(
        "--protocol",
        type=click.Choice(["auto", "5", "3.1.1"]),
        default="auto",
        show_default=True,
        help="MQTT version; auto tries 5, then 3.1.1.",
    ),
)


def broker_options(command: _Command) -> _Command:
    """Add the options that say where the broker is and who we are to it."""
    for option in reversed(_BROKER_OPTIONS):
        command = option(command)
    return command


@click.command()
@click.argument("folder", metavar="DIR_OR_REPOSITORY", type=FOLDER)
@broker_options
@click.option("--tenant", help="The fleet's name in broker topics; default: from fleet.toml.")
@click.option(
    "--group", default=DEPOT_GROUP, show_default=True, help="Name of the group; depots of one group share the requests."
)
@click.option("--device-rate", type=float, default=8.0, show_default=True, help="Maximum MiB/s for one device.")
@click.option("--total-rate", type=float, default=64.0, show_default=True, help="Maximum MiB/s for all devices.")
@click.option("--devices", type=int, default=64, show_default=True, help="Maximum number of devices served at once.")
@click.option("--upstream", metavar="URL", help="Repository to fetch from; DIR becomes a cache of it.")
@click.option("--any-names", is_flag=True, help="With --upstream: accept any TUF role and target names.")
@click.option(
    "--cache-mb",
    type=click.FloatRange(min=0, min_open=True),
    help="With --upstream: maximum size of cached bundle files in MiB.",
)
@click.option(
    "--poll",
    type=float,
    default=60.0,
    show_default=True,
    help="With --upstream: seconds between checks for new metadata.",
)
def depot(
    folder: Path,
    tenant: str | None,
    group: str,
    device_rate: float,
    total_rate: float,
    devices: int,
    upstream: str | None,
    any_names: bool,
    cache_mb: float | None,
    poll: float,
    **broker: Any,
) -> None:
    """Run a depot: serve signed metadata and bundles to devices.

    Several depots share the load. With --upstream the depot is a cache for a site: it fetches each file once from
    another repository (a web server with metadata/, targets/ and blobs/) and keeps serving while the uplink is down.
    Prints `depot ready` once subscribed. Stops on SIGTERM.

    \b
    Examples:
      edgewright fleet depot ~/fleet --broker localhost:1883
      edgewright fleet depot /srv/repository --tenant acme --broker broker:8883 --ca ca.pem --cert me.pem --key me.key
      edgewright fleet depot /srv/cache --tenant acme --broker localhost:1883 --upstream https://updates.example.org/ew
    """
    if not min(device_rate, total_rate, devices, poll) > 0:
        raise FleetError("--device-rate, --total-rate, --devices and --poll must be above zero", subject="depot")
    if upstream is None:
        repository, named = _repository(folder)
        site = None
    else:
        repository, named = _cache(folder), "default"
        limit = None if cache_mb is None else int(cache_mb * MIB)
        site = DepotSite(upstream=upstream, any_names=any_names, poll_s=poll, limit=limit)
    service = Service(
        repository=repository,
        tenant=convert(tenant or named, Name, what="tenant"),
        broker=parse_broker(broker),
        group=group,
        pace=Pace(device_rate=device_rate * MIB, total_rate=total_rate * MIB, devices=devices),
        site=site,
    )
    serve(service, click.echo, log, until_signaled())


@click.command()
@fleet_argument
@broker_options
@click.option(
    "--group",
    default=INGEST_GROUP,
    show_default=True,
    help="Name of the group; controllers of one group share the telemetry.",
)
@click.option("--client-id", help="MQTT client ID, constant over restarts; default: from machine and DIR.")
@db_option
def controller(folder: Path, group: str, client_id: str | None, db: str | None, **broker: Any) -> None:
    """Run the controller: store device reports and re-sign metadata.

    Prints `controller ready` once subscribed. Stops on SIGTERM.

    \b
    Examples:
      edgewright fleet controller ~/fleet --broker localhost:1883
      edgewright fleet controller ~/fleet --broker broker:1883 --db postgresql+psycopg://fleet@db/fleet
    """
    fleet = FleetWorkspace(folder)
    post = Post(
        broker=parse_broker(broker),
        store_url=db or fleet.store_url,
        client_id=client_id or default_client_id(fleet),
        group=group,
    )
    control(fleet, post, click.echo, log, until_signaled())


def _repository(folder: Path) -> tuple[Path, str]:
    if (folder / SETTINGS_NAME).exists():
        fleet = FleetWorkspace(folder)
        return fleet.repository, fleet.tenant
    if (folder / "metadata").is_dir():
        return folder, "default"
    raise FleetError("not a fleet or repository folder", subject=str(folder), hint=f"edgewright fleet init {folder}")


def _cache(folder: Path) -> Path:
    if (folder / SETTINGS_NAME).exists() or (folder.parent / SETTINGS_NAME).exists():
        raise FleetError("is a fleet folder; a cache would overwrite its metadata", subject=str(folder))
    return folder


def parse_broker(asked: dict[str, Any]) -> Broker:
    """Return what `broker_options` gave as settings. Raises FleetError for an address that is none."""
    host, _, port = asked.pop("broker").rpartition(":")
    if not host or not port.isdigit() or not 0 < int(port) < 65536:
        raise FleetError("give HOST:PORT", subject="broker", hint="for example localhost:1883")
    return Broker(host=host.strip("[]"), port=int(port), **asked)
