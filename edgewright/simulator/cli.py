"""`edgewright fleet simulate`."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import click

from edge_contracts.codec import plain
from edge_io.durable_files import write_file

if TYPE_CHECKING:
    from edgewright.simulator.outcome import Outcome

_FILE = click.Path(path_type=Path, dir_okay=False)
_FOLDER = click.Path(path_type=Path, file_okay=False)


@click.command()
@click.option(
    "--devices", type=click.IntRange(1, 1_000_000), default=1000, show_default=True, help="Number of devices."
)
@click.option("--plan", "plan_file", type=_FILE, required=True, help="The rollout's plan, TOML.")
@click.option("--scenario", "scenario_file", type=_FILE, help="What the fleet meets with, TOML; default: nothing bad.")
@click.option(
    "--broker",
    default="mosquitto",
    show_default=True,
    metavar="KIND_OR_ADDRESS",
    help="Broker to start: mosquitto, or embedded for some hundred devices; or HOST:PORT of one that runs.",
)
@click.option(
    "--processes", type=click.IntRange(1, 256), default=2, show_default=True, help="Number of processes of devices."
)
@click.option("--depots", type=click.IntRange(1, 64), default=1, show_default=True, help="Number of depots.")
@click.option(
    "--depot-devices",
    type=click.IntRange(1, 100_000),
    default=64,
    show_default=True,
    help="Maximum number of devices a depot serves at once.",
)
@click.option("--controllers", type=click.IntRange(1, 64), default=1, show_default=True, help="Number of controllers.")
@click.option("--db", metavar="URL", help="URL of an empty database; default: the file fleet.db of the fleet.")
@click.option(
    "--folder",
    type=click.Path(path_type=Path, file_okay=False),
    help="Folder for fleet and logs; default: a temporary one.",
)
@click.option("--picture", type=_FILE, help="File for the completion curve, an SVG; default: none.")
@click.option("--json", "json_file", metavar="FILE", type=_FILE, help="File for the numbers, in JSON; default: none.")
def simulate(
    devices: int,
    plan_file: Path,
    scenario_file: Path | None,
    broker: str,
    processes: int,
    depots: int,
    depot_devices: int,
    controllers: int,
    db: str | None,
    folder: Path | None,
    picture: Path | None,
    json_file: Path | None,
) -> None:
    """Simulate a rollout over thousands of devices.

    Broker, depot and controller are real processes; each device is a real MQTT connection that selects itself,
    downloads, tries and soaks by the agent's own rules. Nothing is done faster than in life: give the plan short
    soaks. Writes into a temporary fleet; your own fleet is not touched.

    \b
    Examples:
      edgewright fleet simulate --devices 200 --plan plan.toml --broker embedded
      edgewright fleet simulate --devices 10000 --plan plan.toml --scenario scenario.toml --json out.json
      edgewright fleet simulate --plan plan.toml --scenario bad.toml --picture curve.svg

    \b
    scenario.toml, all keys optional (shares are of the devices):
      failing = 0.3          share of devices on which the release fails
      failing_by = "trial"   or "errors" or "crash"
      loss = 0.01            share of requests to a depot, and of answers, that are lost
      latency_ms = 80        added each way
      offline = 0.1          share of devices that lose their connection for up to offline_s
      power_cuts = 0.05      share of devices that lose power in the middle of the update
      seed = 1
      slow, slow_factor, drifting, clock_off, clock_off_s, offline_s, sites, boards, release_bytes,
      window_s, requests_per_s, trial_s, poll_s, connects_per_s, limit_s
    """
    from edge_fleet.rollouts.plan import read_plan
    from edgewright.simulator.descriptors import make_room
    from edgewright.simulator.rehearsal import Rehearsal, rehearse
    from edgewright.simulator.scenario import FleetScenario, read_scenario

    plan = read_plan(plan_file)
    scenario = FleetScenario() if scenario_file is None else read_scenario(scenario_file)
    make_room(devices)
    asked = Rehearsal(
        devices=devices,
        plan=plan,
        scenario=scenario,
        broker=broker,
        processes=processes,
        depots=depots,
        controllers=controllers,
        depot_devices=depot_devices,
        db=db,
    )
    if folder is None:
        with tempfile.TemporaryDirectory(prefix="ew-simulation-") as temporary:
            outcome = rehearse(asked, Path(temporary), _say)
    else:
        folder.mkdir(parents=True, exist_ok=True)
        outcome = rehearse(asked, folder, _say)
    _write(outcome, json_file, picture)
    click.echo(_summary(outcome))


def _say(line: str) -> None:
    click.echo(line, err=True)


def _write(outcome: Outcome, json_file: Path | None, picture: Path | None) -> None:
    import json

    from edgewright.simulator.picture import completion

    if json_file is not None:
        write_file(json_file, (json.dumps(plain(outcome), indent=1) + os.linesep).encode())
    if picture is not None:
        write_file(picture, completion(outcome).encode())


def _summary(found: Outcome) -> str:
    """Return the outcome in some lines."""
    cpu = found.cpu_s
    broker = "not ours" if cpu.broker is None else f"{cpu.broker:.1f} s"
    end = f"stopped: {found.why}" if found.halted else f"last word: {found.why}"
    quarters = []
    for share in (0.25, 0.5, 0.75, 1.0):
        wanted = max(1, round(share * found.devices))
        at = next((point.seconds for point in found.curve if point.committed >= wanted), None)
        quarters.append(f"{share:.0%} {'never' if at is None else f'{at:.0f} s'}")
    limit = "no limit in the plan" if found.at_most is None else f"at most {found.at_most} allowed"
    return "\n".join(
        [
            f"{found.committed} of {found.devices} devices committed, {found.failed} failed, {found.reverted} reverted",
            end,
            f"committed: {', '.join(quarters)}; the last change after {found.seconds:.0f} s",
            f"{found.waves} waves, {found.signed_documents} signed documents",
            f"{found.bytes_per_device / 1e6:.3f} MB and {found.messages_per_device:.0f} messages a device",
            f"CPU: broker {broker}, depot {cpu.depot:.1f} s, controller {cpu.controller:.1f} s, "
            f"devices {cpu.devices:.1f} s",
            f"availability violations: {found.availability_violations} "
            f"(most of a group at once: {found.most_at_once}, {limit})",
        ]
    )
