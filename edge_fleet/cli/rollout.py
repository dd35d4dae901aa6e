"""`edgewright fleet rollout`: start, watch and steer the rollout of a release on a channel."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from edge_contracts.channel import Channel, Gates
from edge_contracts.codec import convert, plain
from edge_contracts.selection import in_wave
from edge_contracts.selector import described
from edge_fleet.cli.output import db_option, emit, fleet_argument, json_option, show_table, utc_now
from edge_fleet.cli.plans import approve, replay_command, start_by_plan
from edge_fleet.database.telemetry import DeviceRow, TelemetryStore
from edge_fleet.errors import FleetError, RolloutError
from edge_fleet.rollouts import channel_state
from edge_fleet.rollouts.channel_state import Plan, Verb, phase
from edge_fleet.rollouts.rollout import change_rollout, channels, promote, read_channel, start_rollout
from edge_fleet.rollouts.waves import facts_of
from edge_fleet.signing.workspace import FleetWorkspace

_GATES = Gates()
channel_option = click.option("--channel", help="Channel; default: the only one.")


@click.group()
def rollout() -> None:
    """Start, watch, widen, pause, abort or finish a rollout.

    \b
    Examples:
      edgewright fleet rollout start ~/fleet --model har --version 1.1.0 --channel stable --percent 10
      edgewright fleet rollout status ~/fleet
      edgewright fleet rollout advance ~/fleet --percent 50
      edgewright fleet rollout finish ~/fleet
    """


@rollout.command()
@fleet_argument
@click.option("--model", help="Model family to roll out; default: from --plan.")
@click.option("--version", help="Released version to roll out; default: from --plan.")
@click.option("--channel", help="Channel whose devices get the release; default: from --plan.")
@click.option("--name", help="Name of the rollout; default: from serial and version.")
@click.option("--percent", default=100.0, show_default=True, help="Share of matching devices, in percent.")
@click.option(
    "--select",
    "selects",
    multiple=True,
    metavar="CONDITION",
    help="Match devices: FACT=V1,V2 of board, architecture, device or tag.NAME; FACT>=VALUE or FACT<VALUE of "
    "memory_mb, cpus, agent_version or engine.NAME; may be repeated.",
)
@click.option(
    "--retry",
    "retry_rules",
    multiple=True,
    metavar="REASON=TIMES/SECONDS",
    help="Devices that gave the release up for REASON try it again so often, each time after SECONDS (3600); may be "
    "repeated.",
)
@click.option(
    "--mode",
    type=click.Choice(["live", "shadow"]),
    default="live",
    show_default=True,
    help="live: serve the release after its trial; shadow: compare its answers without serving them.",
)
@click.option(
    "--soak", "soak_s", type=float, help=f"Soak time in seconds before a device commits; default: {_GATES.soak_s:g}."
)
@click.option(
    "--max-crashes", type=int, help=f"Number of worker crashes allowed during soak; default: {_GATES.max_crashes}."
)
@click.option(
    "--max-error-share",
    type=float,
    help=f"Share of failed answers allowed during soak (0 to 1); default: {_GATES.max_error_share:g}.",
)
@click.option(
    "--min-requests", type=int, help=f"Minimum number of requests during soak; default: {_GATES.min_requests}."
)
@click.option(
    "--shadow-requests",
    type=int,
    help=f"Number of requests compared before a shadow is judged; default: {_GATES.shadow_requests}.",
)
@click.option(
    "--min-agreement",
    type=float,
    help=f"Minimum agreement with the serving release (0 to 1); default: {_GATES.min_agreement:g}.",
)
@click.option("--window", metavar="HH:MM-HH:MM", help="Maintenance window in UTC, e.g. 01:00-04:00.")
@click.option("--deadline", metavar="TIME", help="Last start on a device, UTC, e.g. 2027-01-31T00:00:00Z.")
@click.option(
    "--plan",
    "plan_file",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="Plan (TOML) that says all of this, and how the rollout goes on.",
)
@click.option(
    "--supersede",
    is_flag=True,
    help="Replace a running rollout; devices outside the new wave return to the stable release.",
)
@click.option("--dry-run", is_flag=True, help="With --plan: show who would be in each wave, and sign nothing.")
@db_option
@json_option
@click.pass_context
def start(
    context: click.Context,
    /,
    folder: Path,
    plan_file: Path | None,
    dry_run: bool,
    db: str | None,
    as_json: bool,
    **asked: Any,
) -> None:
    """Start a rollout: sign a release as the channel's candidate.

    \b
    Examples:
      edgewright fleet rollout start ~/fleet --model har --version 1.1.0 --channel stable --percent 10
      edgewright fleet rollout start ~/fleet --model har --version 1.1.0 --channel stable \\
          --select board=pi-4,pi-5 --select tag.site=north --window 01:00-04:00 --soak 3600
      edgewright fleet rollout start ~/fleet --plan plan.toml --dry-run
    """
    _check_start(context, plan_file, dry_run)
    if plan_file is not None:
        start_by_plan(folder, plan_file, db, as_json, dry_run=dry_run, supersede=asked["supersede"])
        return
    channel = start_rollout(FleetWorkspace(folder), _plan(asked), utc_now(), db=db)
    emit(channel, as_json, _sentence(channel))


@click.command("promote")
@fleet_argument
@click.argument("model")
@click.argument("version")
@click.option("--from", "source", required=True, help="Channel on which VERSION is the stable release.")
@click.option("--to", "target", required=True, help="Channel whose devices get it.")
@click.option("--percent", default=100.0, show_default=True, help="Share of the channel's devices, in percent.")
@db_option
@json_option
def promote_command(
    folder: Path,
    model: str,
    version: str,
    source: str,
    target: str,
    percent: float,
    db: str | None,
    as_json: bool,
) -> None:
    """Promote a release that is stable on one channel to another.

    It starts a rollout of the very same bytes there, under that channel's gates, window and retry rules. It is refused
    if VERSION is not the stable release of the first channel.

    \b
    Examples:
      edgewright fleet promote ~/fleet har 1.2.0 --from dev --to staging
      edgewright fleet promote ~/fleet har 1.2.0 --from staging --to stable --percent 10
    """
    now = utc_now()
    document = promote(FleetWorkspace(folder), (model, version), (source, target), now, percentage=percent, db=db)
    emit(document, as_json, _sentence(document))


@rollout.command()
@fleet_argument
@channel_option
@click.option("--percent", type=float, help="New share of matching devices in percent, above the current one.")
@click.option("--mode", type=click.Choice(["live"]), help="Switch a shadow rollout to live.")
@db_option
@json_option
def advance(
    folder: Path, channel: str | None, percent: float | None, mode: str | None, db: str | None, as_json: bool
) -> None:
    """Widen a rollout, or switch a shadow rollout to live.

    \b
    Examples:
      edgewright fleet rollout advance ~/fleet --percent 50
    """
    change = partial(channel_state.advance, percentage=percent, mode="live" if mode else None)
    _steer(folder, channel, change, db, as_json)


@rollout.command()
@fleet_argument
@channel_option
@click.option(
    "--device",
    "devices",
    multiple=True,
    metavar="NAME",
    help="Device that tries again; can be repeated (default: any).",
)
@click.option(
    "--reason",
    "reasons",
    multiple=True,
    help="Reason of the rejection or rollback, as `rollout status` lists it; can be repeated (default: any).",
)
@db_option
@json_option
def retry(
    folder: Path,
    channel: str | None,
    devices: tuple[str, ...],
    reasons: tuple[str, ...],
    db: str | None,
    as_json: bool,
) -> None:
    """Allow devices to try a failed release again.

    It concerns devices that rejected or rolled back what the channel offers: those named, or those that gave one of the
    reasons. With both options a device has to match both, with neither every such device tries again.

    \b
    Examples:
      edgewright fleet rollout retry ~/fleet --channel stable --device dev-0001
      edgewright fleet rollout retry ~/fleet --channel stable --reason crash-loop --reason hung
    """
    _steer(folder, channel, partial(channel_state.retry, devices=devices, reasons=reasons), db, as_json)


def _verb_command(verb: Verb, change: Callable[[Channel], Channel], text: str) -> None:
    """Add a command that takes nothing but a channel."""

    @rollout.command(verb, help=f"{text}\n\n\b\nExamples:\n  edgewright fleet rollout {verb} ~/fleet --channel stable")
    @fleet_argument
    @channel_option
    @db_option
    @json_option
    def command(folder: Path, channel: str | None, db: str | None, as_json: bool) -> None:
        _steer(folder, channel, change, db, as_json)


_verb_command("pause", channel_state.pause, "Pause a rollout. Devices that run the candidate keep it.")
_verb_command("resume", channel_state.resume, "Resume a paused rollout.")
_verb_command("abort", channel_state.abort, "Abort a rollout. Devices roll back and the candidate is blocked.")
_verb_command("finish", channel_state.finish, "Make the candidate the channel's stable release.")


@rollout.command("status")
@fleet_argument
@channel_option
@db_option
@json_option
def rollout_status(folder: Path, channel: str | None, db: str | None, as_json: bool) -> None:
    """Show a channel's rollout, its devices and its history.

    \b
    Examples:
      edgewright fleet rollout status ~/fleet --channel stable --json
    """
    fleet = FleetWorkspace(folder)
    repository = fleet.read(utc_now())
    document = read_channel(repository, _chosen(channel, channels(repository)))
    if document is None:
        raise RolloutError("no such channel", subject=channel)
    store = TelemetryStore(db or fleet.store_url)
    found = slots_on(document, store.devices())
    states = Counter(str(slot["state"]) for slot in found)
    report = {
        "channel": plain(document),
        "phase": phase(document),
        "states": dict(states),
        "in_wave": sum(slot["in_wave"] for slot in found),
        "devices": found,
        "history": store.rollout_history(document.channel),
    }
    store.close()
    emit(report, True, "") if as_json else _show(document, states, found)


def slots_on(channel: Channel, devices: list[DeviceRow]) -> list[dict[str, Any]]:
    """Return what every device reports of its slots on a channel."""
    return [
        {
            "device": row.device,
            "online": row.online,
            "slot": slot.slot,
            "state": slot.state,
            "reason": slot.reason,
            "serving": None if slot.serving is None else slot.serving.version,
            "candidate": None if slot.candidate is None else slot.candidate.version,
            "rollout": slot.rollout,
            "progress": slot.progress,
            "in_wave": in_wave(channel, facts_of(row.reported)),
        }
        for row in devices
        if row.reported is not None
        for slot in row.reported.slots
        if slot.channel == channel.channel
    ]


def _show(document: Channel, states: Counter[str], found: list[dict[str, Any]]) -> None:
    click.echo(_sentence(document))
    click.echo("devices: " + (", ".join(f"{count} {state}" for state, count in sorted(states.items())) or "none yet"))
    if document.candidate is not None:
        click.echo(f"wave: {sum(slot['in_wave'] for slot in found)} of {len(found)} are in it{_narrow(document)}")
    if found:
        show_table(f"Channel {document.channel}", list(found[0]), [list(slot.values()) for slot in found])


def _narrow(channel: Channel) -> str:
    """Say what makes the wave smaller than the channel."""
    parts = [f"{channel.percentage:g} %"] if channel.percentage < 100.0 else []
    parts += [f"{selector.fact} {described(selector)}" for selector in channel.selectors]
    return f" ({'; '.join(parts)})" if parts else ""


def _check_start(context: click.Context, plan_file: Path | None, dry_run: bool) -> None:
    """Raise FleetError for options that say a thing twice or not at all."""
    given = {name for name in context.params if context.get_parameter_source(name) is ParameterSource.COMMANDLINE}
    if plan_file is not None:
        twice = sorted(given - {"folder", "plan_file", "dry_run", "supersede", "db", "as_json"})
        if twice:
            raise FleetError("the plan says this", subject=f"--{twice[0].replace('_', '-')}", hint="leave it out")
        return
    if dry_run:
        raise FleetError("needs a plan", subject="--dry-run", hint="give --plan FILE")
    for name in ("model", "version", "channel"):
        if name not in given:
            raise FleetError("is missing", subject=f"--{name}", hint="give it, or a plan: --plan FILE")


def _plan(asked: dict[str, Any]) -> Plan:
    gates = {name: asked[name] for name in Gates.__struct_fields__ if asked.get(name) is not None}
    window = None
    if asked["window"] is not None:
        first, _, last = asked["window"].partition("-")
        window = {"start": first, "end": last}
    plan = {
        "channel": asked["channel"],
        "model": asked["model"],
        "version": asked["version"],
        "name": asked["name"],
        "percentage": asked["percent"],
        "selectors": [_selector(text) for text in asked["selects"]],
        "mode": asked["mode"],
        "gates": gates,
        "window": window,
        "deadline": asked["deadline"],
        "retries": [_retry_rule(text) for text in asked["retry_rules"]],
        "supersede": asked["supersede"],
    }
    return convert(plan, Plan, what="rollout")


def _selector(text: str) -> dict[str, Any]:
    found = re.fullmatch(r"([^=<>\s]+)\s*(>=|<|=)\s*(.+)", text.strip())
    if found is None:
        raise FleetError(f"expected FACT=V1,V2, FACT>=VALUE or FACT<VALUE, got {text!r}", subject="--select")
    fact, sign, value = found.groups()
    if sign == "=":
        return {"fact": fact, "values": value.split(",")}
    return {"fact": fact, "at_least" if sign == ">=" else "below": value}


def _retry_rule(text: str) -> dict[str, Any]:
    reason, _, rest = text.partition("=")
    attempts, _, wait_s = rest.partition("/")
    try:
        return {"reason": reason, "attempts": int(attempts)} | ({"wait_s": float(wait_s)} if wait_s else {})
    except ValueError:
        raise FleetError(f"expected REASON=TIMES or REASON=TIMES/SECONDS, got {text!r}", subject="--retry") from None


def _steer(
    folder: Path, channel: str | None, change: Callable[[Channel], Channel], db: str | None, as_json: bool
) -> None:
    fleet, now = FleetWorkspace(folder), utc_now()
    name = _chosen(channel, channels(fleet.read(now)))
    document = change_rollout(fleet, name, change, now, db=db)
    emit(document, as_json, _sentence(document))


def _chosen(channel: str | None, known: list[str]) -> str:
    if channel is not None:
        return channel
    if len(known) != 1:
        raise FleetError(f"give --channel (channels: {', '.join(known) or 'none'})", subject="channel")
    return known[0]


def _sentence(channel: Channel) -> str:
    stable = "no stable release" if channel.stable is None else f"stable {channel.stable.version}"
    if channel.candidate is None:
        return f"Channel {channel.channel} (serial {channel.serial}): {stable}, no rollout."
    wave = f"{channel.percentage:g} %, {channel.mode}{', paused' if channel.paused else ''}"
    return (
        f"Channel {channel.channel} (serial {channel.serial}): {stable}, "
        f"rollout {channel.rollout} of {channel.model} {channel.candidate.version} ({wave})."
    )


rollout.add_command(approve)
rollout.add_command(replay_command)
