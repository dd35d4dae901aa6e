"""What is going on when the power is cut: a first start, an update, a roll back, an import, a repair, garbage
collection, a burst of telemetry, a rotation of the audit log, and going on after an earlier cut.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import shutil
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from campaigns.power.device import Device, Promises, configuration, settle
from campaigns.power.verdict import Finding, Goal, judge
from support.disks.call_stops import run_until
from support.disks.disk_model import Disk, read_image, torn, write_image
from support.makers import bundles
from support.makers.deltas import ballasted
from support.sites.update_site import UpdateSite

from edge_agent.cli.agent import agent
from edge_agent.storage.audit_log import AuditLog, audit_files, verify_audit
from edge_agent.telemetry.outbox import Outbox
from edge_agent.update.events import GateFailed
from edge_contracts.telemetry import Event

FACTORY, OLD, NEW = "0.9.0", "1.0.0", "1.1.0"
PADDING = 150_000
"""Bytes of the new release beside its models: three chunks of one file."""

BALLAST = 20_000
"""Bytes of weights of both releases' models, enough for a delta: an update applies one and fetches the rest."""


class Scenes:
    """A fleet with two releases, and state folders to begin with."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.site = site = UpdateSite(folder)
        self._factory = bundles.make_bundle(folder / "factory", name="linear", version=FACTORY)
        self.base("empty").mkdir()
        site.release(OLD, models=[("fp32", ballasted(size=BALLAST))])
        site.start(OLD)
        self._make("old", "empty", Device.update)
        site.release(NEW, padding=PADDING, models=[("fp32", ballasted(0.01, size=BALLAST))])
        site.start(NEW)
        self._make("soak", "old", Device.fetch)
        self._make("both", "old", Device.update)
        self._clutter(self.base("both"))
        self._make("damaged", "old", Device.update)
        self._damage(self.base("damaged"))
        self._cut_download()

    def base(self, name: str) -> Path:
        """Return a state folder to begin with: empty, old, soak, both, damaged or cut."""
        return self._folder / f"base-{name}"

    def _make(self, name: str, source: str, act: Callable[[Device], Awaitable[None]]) -> None:
        write_image(read_image(self.base(source)), self.base(name))
        Device(self.base(name), self.site, Promises(self._folder / "unheard")).run(act)

    def _clutter(self, base: Path) -> None:
        """Add a release nobody needs, half a download and what an earlier cut left of a deletion."""
        shutil.copytree(self._factory.folder, base / "releases" / self._factory.manifest_sha256)
        shutil.copytree(next((base / "releases").iterdir()), base / "downloads" / ("cd" * 32))
        shutil.copytree(base / "tuf", base / "releases" / f".gone-{'ef' * 32}")

    def _damage(self, base: Path) -> None:
        """Flip a bit in a file of the new release."""
        (path,) = (base / "releases").glob("*/padding.bin")
        data = bytearray(path.read_bytes())
        data[PADDING // 2] ^= 1
        path.write_bytes(data)

    def _cut_download(self) -> None:
        """Leave the disk of a cut in the middle of a download's writes."""
        work = self._folder / "cut"
        write_image(read_image(self.base("old")), work)
        disk = Disk(work)
        device = Device(work, self.site, Promises(self._folder / "unheard"))
        calls, _ = run_until(lambda: device.run(Device.update), work, None)
        chunks = [n for n, call in enumerate(calls) if call.kind == "write" and call.path.endswith("padding.bin")]
        for call in calls[: chunks[1] + 1]:
            disk.happen(call)
        write_image(disk.after_cut(torn), self.base("cut"))


Judge = Callable[[Path, Scenes, Promises], list[Finding]]


@dataclass(frozen=True, kw_only=True)
class Scenario:
    """`act` is done on a copy of the state folder `base` until the cut; `judge` looks at what is left."""

    name: str
    base: str
    act: Callable[[Path, Scenes, Promises], None]
    judge: Judge


async def update_and_collect(device: Device) -> None:
    await device.update()
    device.collect()


async def repair_and_update(device: Device) -> None:
    await device.repair()
    await device.update()


async def roll_back(device: Device) -> None:
    if device.record.state == "active":
        device.slot.apply(GateFailed(reason="errors"))
    await device.update()  # what was rejected is not fetched again under the same serial
    device.collect()


async def wait(device: Device) -> None:
    await settle()
    device.soak()


async def wait_and_look(device: Device) -> None:
    """Wait for what was staged; then look once, as every device does in time."""
    await wait(device)
    if device.record.candidate is not None and device.record.candidate.version == NEW:
        await device.update()


async def collect(device: Device) -> None:
    device.collect()


def on_device(act: Callable[[Device], Awaitable[None]]) -> Callable[[Path, Scenes, Promises], None]:
    """Return what runs a device for the time of `act`."""
    return lambda root, scenes, promises: Device(root, scenes.site, promises).run(act)


def import_at_start(root: Path, scenes: Scenes, promises: Promises) -> None:
    """Stage an import as `agent import` does when no agent runs, then start the agent."""
    config = configuration(root, scenes.site)
    with contextlib.redirect_stdout(io.StringIO()):
        agent.main(["import", str(scenes.site.repository), "--config", str(config), "--json"], standalone_mode=False)
    promises.note(staged=True)
    on_device(wait)(root, scenes, promises)


def judged_by(
    retry: Callable[[Device], Awaitable[None]], state: str = "committed", version: str = NEW, first: str = OLD
) -> Judge:
    """Return a judge of a device that has to end in `state` on `version`, and serves `first` or the new release."""
    goal = Goal(state=state, version=version, serves=(first, NEW), retry=retry)
    return lambda root, scenes, promises: judge(root, scenes.site, promises, goal)


def judge_import(root: Path, scenes: Scenes, promises: Promises) -> list[Finding]:
    """An import that was staged happens at the next start without being asked for again."""
    retry = wait_and_look if promises.of("staged") else Device.bring
    return judged_by(retry)(root, scenes, promises)


def judge_repair(root: Path, scenes: Scenes, promises: Promises) -> list[Finding]:
    """A release that was damaged before is damaged, gone or whole; looked at again, it is whole."""
    (padded,) = scenes.base("damaged").glob("releases/*/padding.bin")
    goal = Goal(state="committed", version=NEW, serves=(OLD, NEW), retry=repair_and_update, damaged=padded.parent.name)
    return judge(root, scenes.site, promises, goal)


# The spool alone, with a limit small enough that messages give way.

SPOOL = 6000


def burst(root: Path, _: Scenes, promises: Promises) -> None:
    """Spool a burst, in batches, while the first messages are acknowledged."""
    outbox = Outbox(root / "outbox.db", device="dev-1", boot_id="b1", limit_bytes=SPOOL)
    for batch in range(8):
        for number in range(4):
            text = f"burst {batch}.{number} " + "x" * 90
            outbox.put(partial(event, "b1", text))
        if batch == 2:
            for row, body in outbox.pending(0, 3):
                promises.note(acknowledged=json.loads(body)["sequence"])
                outbox.acknowledge(row)
        outbox.commit("2026-11-01T00:00:00Z")
        promises.note(spooled=outbox._sequence)
    outbox.close()


def event(boot_id: str, text: str, sequence: int) -> Event:
    time = "2026-11-01T00:00:00Z"
    return Event(
        device="dev-1", boot_id=boot_id, sequence=sequence, time=time, event="test", severity="info", text=text
    )


def judge_burst(root: Path, _: Scenes, promises: Promises) -> list[Finding]:
    """Every committed number is there, or acknowledged, or said to be dropped; and the spool takes more."""
    outbox = Outbox(root / "outbox.db", device="dev-1", boot_id="b2", limit_bytes=SPOOL)
    accounted = set(promises.of("acknowledged"))
    for _row, body in outbox.pending(0, 1000):
        message = json.loads(body)
        accounted |= set(range(message.get("first", message["sequence"]), message["sequence"] + 1))
    outbox.put(partial(event, "b2", "after"))
    outbox.commit("2026-11-01T00:00:01Z")
    outbox.close()
    gone = set(range((promises.of("spooled") or [0])[-1])) - accounted
    left = {path.name for path in root.iterdir()} - {"outbox.db"}
    findings = [Finding(kind="broken-promise", text=f"messages {sorted(gone)} are gone")] if gone else []
    return findings + ([Finding(kind="leak", text=", ".join(sorted(left)))] if left else [])


# The audit log alone, with files small enough to rotate often.

ROTATE = 1500


def account(root: Path, _: Scenes, promises: Promises) -> None:
    """Append until the oldest file has been rotated away."""
    log = AuditLog(root / "audit.jsonl", rotate_bytes=ROTATE)
    for number in range(40):
        log.append("test", float(number), text="x" * 60)
        promises.note(audit=log.head)
    log.close()


def judge_account(root: Path, _: Scenes, promises: Promises) -> list[Finding]:
    """The newest promised lines are there, the chain holds over all files, and it can be gone on with."""
    path = root / "audit.jsonl"
    lines = [line for file in audit_files(path) for line in file.read_bytes().splitlines(keepends=True)]
    there = {hashlib.sha256(line).hexdigest() for line in lines}
    gone = [head for head in promises.of("audit")[-8:] if head not in there]
    findings = [Finding(kind="broken-promise", text=f"{len(gone)} of the newest lines are gone")] if gone else []
    log = AuditLog(path, rotate_bytes=ROTATE)
    log.append("after", 100.0)
    log.close()
    try:
        verify_audit(path)
    except ValueError as error:
        findings.append(Finding(kind="audit", text=str(error)))
    return findings


SCENARIOS = (
    Scenario(
        name="first", base="empty", act=on_device(update_and_collect), judge=judged_by(Device.update, first=FACTORY)
    ),
    Scenario(name="update", base="old", act=on_device(update_and_collect), judge=judged_by(Device.update)),
    Scenario(name="roll-back", base="soak", act=on_device(roll_back), judge=judged_by(roll_back, "rolled_back", OLD)),
    Scenario(name="import", base="old", act=import_at_start, judge=judge_import),
    Scenario(name="garbage", base="both", act=on_device(collect), judge=judged_by(Device.update)),
    Scenario(name="repair", base="damaged", act=on_device(Device.repair), judge=judge_repair),
    Scenario(name="again", base="cut", act=on_device(update_and_collect), judge=judged_by(Device.bring)),
    Scenario(name="outbox", base="empty", act=burst, judge=judge_burst),
    Scenario(name="audit", base="empty", act=account, judge=judge_account),
)
