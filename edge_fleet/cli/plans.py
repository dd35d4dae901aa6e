"""`edgewright fleet rollout approve` and `replay`, `edgewright fleet why`, and what `rollout start --plan` shows."""

from __future__ import annotations

import contextlib
import getpass
import sys
from pathlib import Path

import click

from edge_contracts.channel import Channel
from edge_contracts.codec import plain
from edge_contracts.turns import DeviceTurn, shard_of, turn_of
from edge_fleet.cli.output import db_option, emit, fleet_argument, json_option, show_table, utc_now
from edge_fleet.database.rollouts import PlannedRollout, RolloutStore
from edge_fleet.database.telemetry import DeviceRow, TelemetryStore
from edge_fleet.errors import FleetError, RolloutError
from edge_fleet.evidence.gates import EvidenceBook, Verdict, gate_rules
from edge_fleet.rollouts.explain import Sentence, explain_device, refusals_of, with_log
from edge_fleet.rollouts.plan import ApprovalStep, read_plan
from edge_fleet.rollouts.plan_state import duration, odds
from edge_fleet.rollouts.planned import Forecast, forecast, replay, start_planned
from edge_fleet.rollouts.rollout import channels, read_channel, read_rosters
from edge_fleet.rollouts.waves import facts_of
from edge_fleet.signing.repository import FleetRepository
from edge_fleet.signing.workspace import FleetWorkspace

DIFFERS = 3
"""Exit code of a replay in which a decision does not come out again."""

MAX_EVENTS = 1000
"""The newest events of a device among which its log is looked for."""


def start_by_plan(folder: Path, file: Path, db: str | None, as_json: bool, *, dry_run: bool, supersede: bool) -> None:
    """Start the rollout of a plan, or show what it would do."""
    fleet, plan, now = FleetWorkspace(folder), read_plan(file), utc_now()
    if dry_run:
        found = forecast(fleet, plan, now, db)
        emit(found, True, "") if as_json else _show_forecast(found)
        return
    channel = start_planned(fleet, plan, now, db=db, supersede=supersede)
    text = (
        f"Rollout {channel.rollout} of {channel.model} {plan.version} has begun on channel {channel.channel}: step 1 "
        f"of {len(plan.steps)}, {channel.percentage:.3g} % {channel.mode}. `edgewright fleet controller` carries it on."
    )
    emit(channel, as_json, text)


@click.command()
@fleet_argument
@click.option("--channel", help="Channel; default: the only one with a planned rollout.")
@click.option("--who", help="Who approves; default: the name you are logged in by.")
@db_option
@json_option
def approve(folder: Path, channel: str | None, who: str | None, db: str | None, as_json: bool) -> None:
    """Approve the step that a planned rollout waits at.

    \b
    Examples:
      edgewright fleet rollout approve ~/fleet
      edgewright fleet rollout approve ~/fleet --channel stable --who anna
    """
    with contextlib.closing(RolloutStore(db or FleetWorkspace(folder).store_url)) as store:
        planned = _one(store, channel, running=True)
        step = planned.plan.steps[planned.step]
        if not isinstance(step, ApprovalStep):
            raise RolloutError(f"step {planned.step + 1} waits for no approval", subject=planned.rollout)
        name = who or getpass.getuser()
        if step.who is not None and step.who != name:
            raise RolloutError(f"{step.who} must approve this step, not {name}", subject=planned.rollout)
        store.approve(planned.rollout, planned.step, name, utc_now().strftime("%Y-%m-%dT%H:%M:%S.%fZ"))
    done = {"rollout": planned.rollout, "step": planned.step + 1, "who": name}
    emit(done, as_json, f"Step {planned.step + 1} of rollout {planned.rollout} is approved by {name}.")


@click.command("replay")
@fleet_argument
@click.option("--channel", help="Channel; default: the only one with a planned rollout.")
@click.option("--rollout", "name", help="Name of the rollout; default: the channel's newest.")
@db_option
@json_option
def replay_command(folder: Path, channel: str | None, name: str | None, db: str | None, as_json: bool) -> None:
    """Redo the decisions of a planned rollout from its evidence.

    Exit code 3 if one of them comes out differently.

    \b
    Examples:
      edgewright fleet rollout replay ~/fleet --channel stable
    """
    with contextlib.closing(RolloutStore(db or FleetWorkspace(folder).store_url)) as store:
        planned = _one(store, channel, name=name)
        found = replay(store, planned)
    differing = sum(not one.same for one in found)
    report = {"rollout": planned.rollout, "decisions": plain(found), "differing": differing}
    if not as_json:
        rows = [[one.made.time[:19], one.made.state.step + 1, one.action, one.same, one.why] for one in found]
        show_table(f"Rollout {planned.rollout}", ("time", "step", "decision", "same", "why"), rows)
    emit(report, as_json, f"{len(found)} decisions, {differing} of them differ.")
    if differing:
        sys.exit(DIFFERS)


@click.command()
@fleet_argument
@click.argument("name")
@db_option
@json_option
def why(folder: Path, name: str, db: str | None, as_json: bool) -> None:
    """Explain where the device or rollout NAME is, and why.

    Each line says what to do next, if anything is to be done. For a release that a device rejected or rolled back, the
    end of its log follows: updater, trial and worker, without inputs and secrets.

    \b
    Examples:
      edgewright fleet why ~/fleet pump-7
      edgewright fleet why ~/fleet r12-1.2.0 --json
    """
    fleet = FleetWorkspace(folder)
    url = db or fleet.store_url
    with contextlib.closing(RolloutStore(url)) as store:
        planned = [one for one in store.planned() if one.rollout == name]
        if planned:
            sentences = explain_rollout(store, planned[-1])
        else:
            sentences = _device_sentences(fleet, url, name)
    text = "\n".join(_line(name, sentence) for sentence in sentences)
    emit({"name": name, "sentences": plain(sentences)}, as_json, text)


def explain_rollout(store: RolloutStore, planned: PlannedRollout) -> list[Sentence]:
    """Return where a planned rollout is: its last decision, each gate with its evidence, and what failed."""
    made = store.decisions(planned.rollout)
    step = planned.plan.steps[planned.step]
    kind = type(step).__name__.lower()
    head = f"is {planned.status}, at step {planned.step + 1} of {len(planned.plan.steps)} ({kind})"
    found = [Sentence(text=f"{head}: {made[-1].why}" if made else f"{head}: no controller has looked at it yet")]
    book = EvidenceBook(gate_rules(planned.plan.gates), planned.plan.alpha, planned.plan.first_devices)
    evidence = [observation for _, observation in store.evidence(planned.rollout)]
    for observation in evidence:
        book.add(observation)
    verdict = book.verdict()
    found += [Sentence(text=f"gate {name}: {gate_text(name, verdict)}") for name in sorted(verdict.gates)]
    failed = [one for one in evidence if one.gate == "failures" and one.value]
    found += [
        Sentence(text=f"{one.device} failed: {one.text}", next=f"edgewright fleet why DIR {one.device}")
        for one in failed[:5]
    ]
    if len(failed) > 5:
        found.append(Sentence(text=f"and {len(failed) - 5} more"))
    return found


def gate_text(name: str, verdict: Verdict) -> str:
    """Return a gate's standing in a few words: what is seen, what is allowed, how sure it is."""
    result = verdict.gates[name]
    if result.mean is None:
        return f"nothing observed yet, allowed {_unit(name, result.allowed)}"
    state = "violated" if result.violated else f"evidence {odds(result.log_e)} against it"
    return f"{_unit(name, result.mean)} over {result.count} devices, allowed {_unit(name, result.allowed)}; {state}"


def _unit(name: str, value: float) -> str:
    return f"{2**value:.3g} times" if name == "latency" else f"{value:.2%}"


def _device_sentences(fleet: FleetWorkspace, url: str, name: str) -> list[Sentence]:
    now = utc_now()
    repository = fleet.read(now)
    found = {channel: read_channel(repository, channel) for channel in channels(repository)}
    documents = {channel: document for channel, document in found.items() if document is not None}
    with contextlib.closing(TelemetryStore(url)) as store:
        rows = store.devices()
        events = store.messages("event", name, MAX_EVENTS)
    row = next((one for one in rows if one.device == name), None)
    sentences = explain_device(name, row, documents, rows, now, _turns(repository, documents, row), refusals_of(events))
    return with_log(sentences, None if row is None else row.reported, events)


def _turns(repository: FleetRepository, documents: dict[str, Channel], row: DeviceRow | None) -> dict[str, DeviceTurn]:
    """Return a device's turn on each channel on which devices take turns."""
    found = {}
    for name, document in documents.items():
        rule, report = document.availability, None if row is None else row.reported
        group = None if rule is None or report is None else facts_of(report).value(rule.group)
        if rule is None or report is None or group is None:
            continue
        roster = read_rosters(repository, document).get(shard_of(group, rule.shards))
        turn = None if roster is None else turn_of(rule, roster, group, report.device)
        if turn is not None:
            found[name] = turn
    return found


def _line(name: str, sentence: Sentence) -> str:
    where = name if sentence.slot is None else f"{name}, slot {sentence.slot}"
    lines = [f"{where}: {sentence.text}"]
    if sentence.next is not None:
        lines.append(f"    next: {sentence.next}")
    if sentence.log is not None:
        lines += ["    log of the device:", *(f"      {line}" for line in sentence.log.splitlines())]
    return "\n".join(lines)


def _one(store: RolloutStore, channel: str | None, *, running: bool = False, name: str | None = None) -> PlannedRollout:
    """Return the newest planned rollout that is meant. Raises FleetError if there is none, or several channels."""
    known = store.planned(channel, ("running",) if running else ())
    if name is not None:
        known = [one for one in known if one.rollout == name]
    if not known:
        raise FleetError("no such planned rollout", subject=name or channel or "rollout")
    if len({one.channel for one in known}) > 1:
        raise FleetError(f"say which one ({', '.join(sorted({one.channel for one in known}))})", subject="channel")
    return known[-1]


def _show_forecast(found: Forecast) -> None:
    rows = []
    for one in found.waves:
        reaches, boards, sites = f"{one.percent:.3g} %", _counts(one.boards), _counts(one.sites)
        download = f"{one.bytes / 1e6:.2f}"
        rows.append([one.step, one.kind, reaches, one.devices, one.new, one.online, download, boards, sites])
    columns = ("step", "kind", "reaches", "devices", "new", "online", "MB", "boards of the new", "sites of the new")
    show_table(f"Rollout {found.rollout}, if it began now", columns, rows)
    whole, total = found.bundle_bytes / 1e6, sum(one.bytes for one in found.waves) / 1e6
    click.echo(
        f"{found.matching} devices match. A device that has nothing of it downloads {whole:.2f} MB; with what these "
        f"report to have, they download {total:.2f} MB in all. It takes at least {duration(found.seconds_at_least)}. "
        "Nothing was signed."
    )


def _counts(numbers: dict[str, int]) -> str:
    return ", ".join(f"{count} {name}" for name, count in numbers.items()) or "-"
