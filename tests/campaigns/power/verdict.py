"""What must be so on a disk after a power cut, and after the device has started again and gone on.

Each check appends findings: `brick` (does not start, does not answer, does not get where it was going), `mixture` (a
release that is not the signers' bytes), `broken-promise` (something said to be durable is gone), `audit`, `leak`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

import msgspec
from campaigns.power.device import SLOT, Device, Promises
from support.sites.update_site import UpdateSite

from edge_agent.bundle import open_bundle
from edge_agent.cli.status import stored_status
from edge_agent.storage.audit_log import audit_files, verify_audit
from edge_agent.storage.state_dir import StateFolder
from edge_agent.update.record import UpdateRecord
from edge_contracts.errors import EdgewrightError

AT_REST = {"releases", "downloads", "slots", "tuf", "cache", "lock", "traffic.json", "audit.jsonl", "outbox.db"}
AT_REST |= {"control.sock", "writes.json"}
"""All that lies in the state folder of a device that has been stopped in order."""


@dataclass(frozen=True, kw_only=True)
class Finding:
    """Something that must not be so."""

    kind: str
    text: str


@dataclass(frozen=True, kw_only=True)
class Goal:
    """Where the device has to end: the state and the version served. `serves` are the versions that may be served
    after the restart; the first of them is what a cut in a soak may roll back to. `retry` is done after the restart.
    `damaged` names a manifest whose release was damaged before, and may be so until the retry."""

    state: str
    version: str
    serves: tuple[str | None, ...]
    retry: Callable[[Device], Awaitable[None]]
    damaged: str | None = None


def judge(root: Path, site: UpdateSite, promises: Promises, goal: Goal) -> list[Finding]:
    """Hold the disk at `root` against the promises, start the device on it, go on, and look again. Whatever the device
    raises meanwhile is raised."""
    state = StateFolder(root)
    stored_status(state)
    cut = state.read_record(SLOT)
    findings = _promises(state, cut, promises) + _releases(root, goal.damaged)
    return findings + _go_on(root, site, promises, goal, cut) + _at_rest(root)


def _promises(state: StateFolder, record: UpdateRecord, promises: Promises) -> list[Finding]:
    findings = []
    written, writing = promises.of("written"), promises.of("writing")
    allowed = [msgspec.convert(found, UpdateRecord) for found in [*written[-1:], *writing[-1:]]]
    if written and record not in allowed:
        findings.append(Finding(kind="broken-promise", text=f"record {record.state}, written {written[-1]['state']}"))
    lines = {line for path in audit_files(state.audit) for line in path.read_bytes().splitlines(keepends=True)}
    gone = set(promises.of("audit")) - {hashlib.sha256(line).hexdigest() for line in lines}
    if gone:
        findings.append(Finding(kind="broken-promise", text=f"{len(gone)} audit lines are gone"))
    return findings


def _releases(root: Path, damaged: str | None) -> list[Finding]:
    """Whatever has a release's name is that release, whole, but for the one that was damaged before."""
    findings = []
    for folder in (root / "releases").iterdir() if (root / "releases").is_dir() else ():
        if not folder.name.startswith(".") and folder.name != damaged:
            findings += _whole(folder, folder.name)
    return findings


def _whole(folder: Path, manifest_sha256: str) -> list[Finding]:
    try:
        found = open_bundle(folder).manifest_sha256
    except EdgewrightError as error:
        return [Finding(kind="mixture", text=f"{folder.name[:12]}: {error}")]
    return [] if found == manifest_sha256 else [Finding(kind="mixture", text=f"{folder.name[:12]} is {found[:12]}")]


def _go_on(root: Path, site: UpdateSite, promises: Promises, goal: Goal, cut: UpdateRecord) -> list[Finding]:
    """Start, check what is served, retry, and check where that has led. Then start and stop once more."""
    findings: list[Finding] = []
    started = "agent-started" in promises.of("event") and "agent-stopped" not in promises.of("event")

    async def act(device: Device) -> None:
        findings.extend(_served(device, goal, goal.damaged))
        if started and device.supervisor._clean:
            findings.append(Finding(kind="broken-promise", text="the cut is taken for a clean stop"))
        await goal.retry(device)
        device.collect()
        findings.extend(_arrived(device, goal, cut))

    async def rest(device: Device) -> None:
        findings.extend(_served(device, goal))
        if not device.supervisor._clean:
            findings.append(Finding(kind="brick", text="a clean stop is taken for a cut"))

    quiet = Promises(root.with_name("unheard"))
    Device(root, site, quiet).run(act)
    Device(root, site, quiet).run(rest)
    return findings


def _served(device: Device, goal: Goal, damaged: str | None = None) -> list[Finding]:
    ladder = device.serving.ladder
    if not ladder or ladder[0].version not in goal.serves:
        return [Finding(kind="brick", text=f"serves {[rung.version for rung in ladder]}")]
    whole = [rung for rung in ladder if rung.manifest_sha256 != damaged]
    return [finding for rung in whole for finding in _whole(Path(rung.folder), rung.manifest_sha256)]


def _arrived(device: Device, goal: Goal, cut: UpdateRecord) -> list[Finding]:
    record = device.record
    version = None if record.serving is None else record.serving.version
    if (record.state, version) == (goal.state, goal.version):
        return []
    soaked = cut.state == "active" and not cut.committed
    if soaked and record.state == "rolled_back" and version in (None, goal.serves[0]):
        return []
    return [Finding(kind="brick", text=f"ends {record.state} ({record.reason}) on {version}")]


def _at_rest(root: Path) -> list[Finding]:
    """Nothing is left over, and the audit log holds over all its files."""
    findings = []
    keeps = StateFolder(root).read_record(SLOT).manifests
    expected = {"releases": keeps, "downloads": set(), "slots": {f"{SLOT}.json"}, "tuf": {"trusted", "floor.json"}}
    left = {path.name for path in root.iterdir()} - AT_REST
    for folder, names in expected.items():
        left |= {f"{folder}/{path.name}" for path in (root / folder).iterdir() if path.name not in names}
    left |= {path.relative_to(root).as_posix() for path in root.rglob(".*")}
    if left:
        findings.append(Finding(kind="leak", text=", ".join(sorted(left))))
    try:
        verify_audit(root / "audit.jsonl")
    except ValueError as error:
        findings.append(Finding(kind="audit", text=str(error)))
    return findings
