"""Every command of `edgewright`, as `tests/system/test_nothing_leaves.py` runs it in a network that is watched.

A line is a command with its exit code. `{here}` is the test's folder with the bundle `bundle` and its model, `{port}`
a port of 127.0.0.1 where nobody answers. The lines of a group run in order, on the files that those before them left.
`tests/unit/packaging/test_watched_commands.py` fails for a command that is in no line.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import click

from edgewright.commands import edgewright


class Line(NamedTuple):
    """A command, how it ends, after how many seconds one that goes on by itself is ended, and whether it connects to
    ports of 127.0.0.1 that the test does not know: of its own processes, or the agent's."""

    words: str
    code: int = 0
    ends_after_s: float | None = None
    talks_here: bool = False


AT_THE_DESK = (
    Line("example agent.toml"),
    Line("bundle create {here}/bundle/models/fp32.onnx --out {here}/made --version 1.1.0"),
    Line("bundle inspect {here}/bundle"),
    Line("bundle verify {here}/bundle"),
    Line("bundle diff {here}/bundle {here}/made"),
    Line("bundle compose {here}/parts/chain-2.0.0.toml --out {here}/composed"),
    Line("bench compare {here}/bundle/models/fp32.onnx {here}/bundle/models/fp32.onnx --seconds 1", 0),
    Line("bench gate {here}/bundle/models/fp32.onnx --budget x86-gateway --seconds 0.2 --junit {here}/gate.xml"),
    Line("bench measure {here}/bundle --seconds 0.2 --history {here}/reports --html {here}/bench.html"),
    Line("bench history {here}/reports"),
    Line("agent capture-key {here}/capture-keys"),
    Line("agent score {here}/bundle {here}/in.jsonl {here}/out.jsonl"),
)
SIGNING = (
    Line("fleet init {here}/fleet --tenant acme --family linear --root-keys 2"),
    Line("fleet family add {here}/fleet other"),
    Line("fleet release {here}/fleet {here}/bundle"),
    Line("fleet rollout start {here}/fleet --model linear --version 1.0.0 --channel stable --percent 10"),
    Line("fleet rollout pause {here}/fleet"),
    Line("fleet rollout resume {here}/fleet"),
    Line("fleet rollout advance {here}/fleet --percent 50"),
    Line("fleet rollout status {here}/fleet --channel stable"),
    Line("fleet rollout retry {here}/fleet --channel stable --device dev-1"),
    Line("fleet rollout finish {here}/fleet"),
    Line("fleet promote {here}/fleet linear 1.0.0 --from stable --to north"),
    Line("fleet rollout abort {here}/fleet --channel north"),
    Line("fleet status {here}/fleet"),
    Line("fleet devices {here}/fleet"),
    Line("fleet events {here}/fleet"),
    Line("fleet exposed {here}/fleet linear"),
    Line("fleet export {here}/fleet {here}/export"),
    Line("fleet family floor {here}/fleet linear 1.0.0"),
    Line("fleet family revoke {here}/fleet linear 1.0.0"),
    Line("fleet gc {here}/fleet"),
    Line("fleet retention {here}/fleet"),
    Line("fleet refresh {here}/fleet"),
)
KEYS = (
    Line("fleet init {here}/keyed --root-keys 2"),
    Line("fleet keys create {here}/keyed alice"),
    Line("fleet keys list {here}/keyed"),
    Line("fleet keys add {here}/keyed root alice --out {here}/change.json"),
    Line("fleet keys show {here}/change.json"),
    Line("fleet keys sign {here}/change.json --keys {here}/keyed --yes"),
    Line("fleet keys apply {here}/keyed {here}/change.json"),
    Line("fleet keys rotate {here}/keyed rollouts"),
    Line("fleet keys threshold {here}/keyed root 2"),
    Line("fleet keys renew {here}/keyed"),
    Line("fleet keys revoke {here}/keyed root alice"),
)
IDENTITIES = (
    Line("fleet init {here}/named"),
    Line("fleet authority init {here}/named"),
    Line("fleet authority broker {here}/named --host 127.0.0.1 --out {here}/broker-files"),
    Line("fleet authority service {here}/named depot --out {here}/depot-files"),
    Line("fleet authority service {here}/named enrollment --out {here}/enrollment-files"),
    Line("fleet authority client {here}/named sensor-1 --out {here}/sensor-files"),
    Line("fleet enroll {here}/named --device dev-1 --broker 127.0.0.1:{port} --out {here}/dev-1.claim"),
    Line("agent enroll --claim {here}/dev-1.claim --config {here}/enrolling.toml --timeout 2", 4),
    Line("fleet identity list {here}/named"),
    Line("fleet identity revoke {here}/named depot"),
    Line("fleet depot {here}/named --broker 127.0.0.1:{port}", 0, 3.0),
    Line("fleet controller {here}/named --broker 127.0.0.1:{port}", 0, 3.0),
    Line("fleet enrollment {here}/named --broker 127.0.0.1:{port}", 0, 3.0),
)
SIMULATED = (
    Line(
        "fleet simulate --devices 5 --plan {here}/plan.toml --scenario {here}/scenario.toml --broker embedded"
        " --folder {here}/simulated --picture {here}/curve.svg --json {here}/simulated.json",
        talks_here=True,
    ),
    Line("fleet why {here}/simulated/fleet sim-00000"),
    Line("fleet rollout approve {here}/simulated/fleet --who anna", 2),
    Line("fleet rollout replay {here}/simulated/fleet --channel main"),
)
BESIDE_AN_AGENT = (
    Line("agent status --config {here}/agent.toml"),
    Line("agent check --config {here}/agent.toml"),
    Line("agent doctor --config {here}/agent.toml", 1, talks_here=True),
    Line("agent repair --config {here}/agent.toml"),
    Line("agent reload --config {here}/agent.toml"),
    Line("agent import {here}/fleet/repository --config {here}/agent.toml"),
)
ELSEWHERE = ("agent run", "agent serve", "agent replay", "compress", "demo")
"""Run by tests of their own in `tests/system/test_nothing_leaves.py`."""
GROUPS = {
    "at the desk": AT_THE_DESK,
    "signing": SIGNING,
    "keys": KEYS,
    "identities": IDENTITIES,
    "simulated": SIMULATED,
    "beside an agent": BESIDE_AN_AGENT,
}


def commands(command: click.Command = edgewright, name: str = "") -> Iterator[str]:
    """Give the name of every command that a user can call, such as "fleet keys add"."""
    if not isinstance(command, click.Group):
        yield name
        return
    context = click.Context(command)
    for part in command.list_commands(context):
        child = command.get_command(context, part)
        assert child is not None, f"{name} {part}"
        if not child.hidden:
            yield from commands(child, f"{name} {part}".strip())


def command_of(line: Line, known: set[str]) -> str:
    """Return the command that a line calls."""
    words = line.words.split()
    found = [" ".join(words[:count]) for count in range(1, 4) if " ".join(words[:count]) in known]
    assert found, f"no such command: {line.words}"
    return found[-1]
