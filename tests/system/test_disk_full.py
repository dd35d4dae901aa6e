"""A full disk: an update that does not fit is refused before its first byte, one that no longer fits is given up with
the reason, and whatever happens 1.0.0 answers, every record stays readable and the update completes once there is room.

The agent's state lies on a small disk of its own, whose size the test changes while the agent works.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from support.brokers.brokers import make_broker
from support.disks.small_disk import SmallDisk
from support.sites.fleet_site import Site

from edge_agent.host.sensors import architecture
from edge_agent.storage.audit_log import verify_audit
from edge_agent.storage.state_dir import StateFolder
from edge_agent.update.preflight import DISK_RESERVE_MB
from edge_contracts.limits import MIB
from edgewright.demo.stage import wait_for

pytestmark = pytest.mark.timeout(150)

PADDING_MB = 16

UNWATCHED = f"""\
name = "small-disk"
engines = ["onnxruntime"]
[board]
description = "a device whose governor does not watch the disk, so that preflight and the downloads themselves must"
architecture = "{architecture()}"
cores = 1
memory_mb = 512.0
source = "this test"
"""


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[SmallDisk]:
    with SmallDisk(tmp_path / "disk") as disk:
        yield disk


@pytest.fixture
def small(tmp_path: Path, disk: SmallDisk) -> Iterator[Site]:
    """A site whose device serves 1.0.0, its state on the small disk; 1.1.0 is published and not offered yet."""
    with make_broker("embedded", tmp_path) as broker, Site(tmp_path, broker) as site:
        site.state = disk.folder / "state"
        profile = tmp_path / "small-disk.toml"
        profile.write_text(UNWATCHED)
        site.profile = str(profile)
        site.publish("1.0.0")
        site.publish("1.1.0", padding=PADDING_MB * MIB)
        site.depot_options = ("--device-rate", "4")  # MiB/s: slow enough to fill the disk meanwhile
        site.start_depot()
        site.start_agent()
        site.roll_out("1.0.0")
        site.wait_for_state("committed", "1.0.0")
        yield site


def readable(site: Site) -> None:
    """The records on disk parse, the audit log's chain holds, and what they call serving is there, whole."""
    state = StateFolder(site.state)
    record = state.read_record("main")
    assert record.serving is not None
    assert state.read_manifest(record.serving.manifest_sha256)
    verify_audit(state.audit)


def completes(site: Site, disk: SmallDisk) -> None:
    """With room again the update completes, and nothing of the trouble is left in the records."""
    disk.free()
    site.wait_for_state("committed", "1.1.0")
    site.serves("1.1.0")
    state = StateFolder(site.state)
    wait_for("the record is saved", lambda: state.read_record("main").state == "committed")
    readable(site)


def restart_at(site: Site, state: str) -> None:
    """Restart the agent with a breakpoint, offer 1.1.0 and wait until it stands there."""
    site.stop("agent")
    site.start_agent(breakpoint_at=state)
    site.roll_out("1.1.0")
    site.reached()


def test_update_that_does_not_fit_is_refused_before_its_first_byte(small: Site, disk: SmallDisk) -> None:
    fetched = (small.state / "traffic.json").read_bytes()
    disk.leave(DISK_RESERVE_MB + PADDING_MB - 2)
    small.roll_out("1.1.0")
    refusal = small.wait_for_refusal({"disk"})
    assert "disk free" in refusal["text"]
    assert (small.state / "traffic.json").read_bytes() == fetched
    assert not list((small.state / "downloads").iterdir())
    small.serves("1.0.0")
    assert small.slot()["serving"]["version"] == "1.0.0"
    readable(small)
    completes(small, disk)


def test_disk_that_fills_up_during_the_download_ends_it_with_the_reason(small: Site, disk: SmallDisk) -> None:
    restart_at(small, "downloading")
    disk.leave(0)
    small.go_on()
    small.wait_for_refusal({"disk-full"})
    small.serves("1.0.0")
    assert small.slot()["serving"]["version"] == "1.0.0"
    readable(small)
    completes(small, disk)


def test_disk_that_is_full_when_the_candidate_goes_live_costs_no_answer(small: Site, disk: SmallDisk) -> None:
    restart_at(small, "shadow")
    disk.leave(0)
    small.go_on()
    small.serves("1.1.0")
    assert StateFolder(small.state).read_record("main").state == "shadow"  # as it was last saved
    completes(small, disk)


def test_power_cut_on_a_full_disk_in_soak_begins_the_soak_anew(small: Site, disk: SmallDisk) -> None:
    restart_at(small, "active")
    disk.leave(0)
    small.go_on()
    wait_for("the soak is over", lambda: small.slot()["state"] == "committed")
    small.kill("supervisor")  # before the commit could be saved
    small.start_agent()
    small.wait_for_state("committed", "1.1.0")
    small.serves("1.1.0")
    readable(small)
    disk.free()
    small.publish("1.2.0")
    small.roll_out("1.2.0")
    small.wait_for_state("committed", "1.2.0")


@pytest.mark.parametrize("cached", [True, False])
def test_agent_that_starts_on_a_full_disk_serves(small: Site, disk: SmallDisk, cached: bool) -> None:
    small.broker.kill()
    small.stop("agent")
    if not cached:
        for path in (small.state / "cache").iterdir():
            path.unlink()
    disk.leave(0)
    small.start_agent()
    small.serves("1.0.0")
    readable(small)
    small.broker.start()
    small.roll_out("1.1.0")
    completes(small, disk)


def test_what_a_full_disk_kept_from_the_audit_log_and_the_spool_is_named_afterwards(
    small: Site, disk: SmallDisk
) -> None:
    small.broker.kill()
    disk.leave(0)
    audit, size = small.state / "audit.jsonl", -1
    while audit.stat().st_size != size:  # the file's last page may have room for some events yet
        size = audit.stat().st_size
        worker = small.slot()["workers"][0]
        os.kill(worker, signal.SIGKILL)
        wait_for("the worker is gone", lambda pid=worker: not psutil.pid_exists(pid))
        small.serves("1.0.0")
    disk.free()
    os.kill(small.slot()["workers"][0], signal.SIGKILL)
    wait_for("the gap is named", lambda: b"audit-gap" in audit.read_bytes())
    verify_audit(audit)
    boot = small.status()["boot_id"]
    small.stop("agent")
    numbers = accounted(small.state / "outbox.db", boot)
    assert numbers == set(range(max(numbers) + 1))


def accounted(outbox: Path, boot: str) -> set[int]:
    """Return the sequence numbers of a boot that lie in the spool or are named in a tombstone; no controller has
    taken any."""
    with contextlib.closing(sqlite3.connect(outbox)) as database:
        rows = database.execute("SELECT body FROM messages WHERE boot_id = ?", (boot,)).fetchall()
    messages = [json.loads(body) for (body,) in rows]
    runs = [(m["first"], m["count"]) if m["kind"] == "dropped" else (m["sequence"], 1) for m in messages]
    return {number for first, count in runs for number in range(first, first + count)}


def test_governor_holds_updates_back_on_a_nearly_full_disk_and_turns_no_request_away(
    small: Site, disk: SmallDisk
) -> None:
    small.stop("agent")
    small.profile = "x86-gateway"  # its governor is CRITICAL below 512 MB
    small.start_agent()
    wait_for("the governor has noticed", lambda: small.status()["level"] == "CRITICAL")
    small.roll_out("1.1.0")
    newest = small.newest_timestamp()
    wait_for("the device knows of it", lambda: small.status()["trusted"].get("timestamp") == newest)
    for _ in range(20):
        assert ":1.0.0/" in small.ask().served_by
    assert small.slot()["candidate"]["version"] == "1.0.0"
    assert any(reason.startswith("disk_free_mb") for reason in small.status()["level_reasons"])
