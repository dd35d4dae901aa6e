"""`edgewright fleet devices`, `events` and `status`: what the store and the repository know, for people and scripts."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Any

import click

from edge_contracts.codec import plain
from edge_fleet.cli.output import db_option, emit, fleet_argument, json_option, show_table, utc_now
from edge_fleet.database.retention import RetentionStore, Swept
from edge_fleet.database.telemetry import DeviceRow, TelemetryStore
from edge_fleet.releases.release import versions
from edge_fleet.rollouts.rollout import channels
from edge_fleet.signing.workspace import FleetWorkspace

MAX_GAPS_SHOWN = 20
"""Runs of missing numbers (first, last) listed for one device; the count is of all numbers."""


@click.command()
@fleet_argument
@db_option
@json_option
def devices(folder: Path, db: str | None, as_json: bool) -> None:
    """Show every device: state, slots, last contact, telemetry gaps.

    \b
    Examples:
      edgewright fleet devices ~/fleet
      edgewright fleet devices ~/fleet --json
    """
    store = TelemetryStore(db or FleetWorkspace(folder).store_url)
    found = [device_view(store, row) for row in store.devices()]
    store.close()
    if as_json:
        emit({"devices": found}, True, "")
        return
    columns = ("device", "online", "level", "slot", "model", "state", "served by", "seen", "gaps")
    show_table("Devices", columns, [line for view in found for line in _lines(view)])


def device_view(store: TelemetryStore, row: DeviceRow) -> dict[str, Any]:
    """Return what is known of a device as plain values."""
    boot = row.boot_id or row.presence_boot
    gaps = store.gaps(row.device, boot) if boot else []
    return {
        "device": row.device,
        "online": row.online,
        "last_seen": row.last_seen,
        "boot_id": boot,
        "level": None if row.reported is None else row.reported.level,
        "slots": [] if row.reported is None else plain(row.reported.slots),
        "reported": None if row.reported is None else plain(row.reported),
        "gaps": [[run.start, run.stop - 1] for run in gaps[:MAX_GAPS_SHOWN]],
        "gap_count": sum(len(run) for run in gaps),
    }


@click.command()
@fleet_argument
@click.option("--device", help="Device to show; default: all.")
@click.option(
    "--limit", type=click.IntRange(1, 100_000), default=100, show_default=True, help="Maximum number of events."
)
@db_option
@json_option
def events(folder: Path, device: str | None, limit: int, db: str | None, as_json: bool) -> None:
    """Show the newest device events: transitions, refusals, crashes.

    \b
    Examples:
      edgewright fleet events ~/fleet --device pump-7
    """
    store = TelemetryStore(db or FleetWorkspace(folder).store_url)
    found = store.messages("event", device, limit)
    store.close()
    if as_json:
        emit({"events": found}, True, "")
        return
    columns = ("time", "device", "severity", "event", "slot", "text")
    show_table("Events", columns, [[event.get(column) for column in columns] for event in found])


@click.command()
@fleet_argument
@json_option
def status(folder: Path, as_json: bool) -> None:
    """Show signed roles, model families, releases and channels.

    \b
    Examples:
      edgewright fleet status ~/fleet
    """
    report = fleet_view(FleetWorkspace(folder), utc_now())
    if as_json:
        emit(report, True, "")
        return
    columns = ("role", "version", "expires", "days left", "keys here", "threshold")
    show_table(f"Fleet {report['tenant']}", columns, [_role_line(role) for role in report["roles"]])
    for family, released in report["families"].items():
        click.echo(f"{family}: {', '.join(released) or 'nothing released'}")
    click.echo(f"channels: {', '.join(report['channels']) or 'none'}")


def fleet_view(fleet: FleetWorkspace, now: datetime) -> dict[str, Any]:
    """Return the state of a fleet's repository as plain values."""
    repository = fleet.read(now)
    roles = []
    for role in repository.roles():
        signed = repository.open(role).signed
        keys, threshold = repository.keys_at_hand(role)
        known = signed.version > 0
        roles.append(
            {
                "role": role,
                "version": signed.version,
                "expires": signed.expires.strftime("%Y-%m-%dT%H:%M:%SZ") if known else None,
                "days_left": round((signed.expires - now).total_seconds() / 86400, 2) if known else None,
                "keys": keys,
                "threshold": threshold,
            }
        )
    return {
        "tenant": fleet.tenant,
        "roles": roles,
        "families": {family: versions(repository, family) for family in repository.families()},
        "channels": channels(repository),
    }


def _role_line(role: dict[str, Any]) -> list[object]:
    keys = ", ".join(role["keys"]) or "none"
    return [role["role"], role["version"], role["expires"], role["days_left"], keys, role["threshold"]]


def _lines(view: dict[str, Any]) -> list[list[object]]:
    head = [view["device"], view["online"], view["level"]]
    tail = [view["last_seen"][:19], view["gap_count"] or None]
    if not view["slots"]:
        return [[*head, *[None] * 4, *tail]]
    return [
        [
            *head,
            slot["slot"],
            slot["model"],
            _state(slot),
            slot["served_by"],
            *tail,
        ]
        for slot in view["slots"]
    ]


def _state(slot: dict[str, Any]) -> str:
    reason = f": {slot['reason']}" if slot["reason"] else ""
    saved = f" (deltas saved {slot['saved'] / 1e6:.2f} MB)" if slot["saved"] else ""
    return f"{slot['state']}{reason}{saved}{_shadow(slot.get('shadow'))}"


def _shadow(shadow: dict[str, Any] | None) -> str:
    """Return how a candidate in shadow compares, in a few words."""
    if shadow is None:
        return ""
    asked = shadow["compared"] + shadow["failed"]
    if shadow["agreement"] is None:
        return f" (shadow: {shadow['compared']} of {asked} answered)"
    return f" (shadow: {shadow['agreement']:.1%} of {shadow['compared']} agree)"


@click.command()
@fleet_argument
@db_option
@json_option
def retention(folder: Path, db: str | None, as_json: bool) -> None:
    """Remove telemetry that is older than the fleet keeps it.

    Windows are added up to five minutes after 7 days, and to days after 90; `[retention]` in fleet.toml has other
    numbers (raw_days, detailed_days). Controllers do the same all the time.

    \b
    Examples:
      edgewright fleet retention ~/fleet
      edgewright fleet retention ~/fleet --json
    """
    fleet = FleetWorkspace(folder)
    store = RetentionStore(db or fleet.store_url)
    try:
        done = Swept()
        while (step := store.sweep(fleet.settings.retention, utc_now())).any:
            done = done.and_then(step)
            click.echo(f"{done.windows} windows, {done.detailed} rows of five minutes, {done.removed} others", err=True)
        rows = store.counts()
    finally:
        store.close()
    text = f"added up {done.windows} windows and {done.detailed} rows of five minutes; removed {done.removed} others"
    emit({"swept": done, "rows": rows}, as_json, text)
