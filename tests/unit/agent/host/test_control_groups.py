"""Limits of this process: wherever they are set, in version 1, version 2 and both, and never the box's figures."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from edge_agent.host.control_groups import MIB, ControlGroups
from edge_agent.host.sensors import Sensors

UNLIMITED_V1 = "9223372036854771712"
SERVICE = "/system.slice/edgewright-agent.service"


class Box:
    """A tree of files in place of /sys and /proc."""

    def __init__(self, folder: Path, *lines: str) -> None:
        self.sys, self.proc = folder / "sys", folder / "proc"
        self.root = self.sys / "fs/cgroup"
        (self.proc / "self").mkdir(parents=True)
        self.root.mkdir(parents=True)
        (self.proc / "self/cgroup").write_text("".join(f"{line}\n" for line in lines))

    def group(self, folder: str, **files: object) -> None:
        path = self.root / folder.strip("/")
        path.mkdir(parents=True, exist_ok=True)
        for name, value in files.items():
            (path / name.replace("__", ".")).write_text(f"{value}\n")

    @property
    def groups(self) -> ControlGroups:
        return ControlGroups(self.sys, self.proc)

    @property
    def left_mb(self) -> float | None:
        memory = self.groups.memory()
        return None if memory is None else memory.left_mb


@pytest.fixture(autouse=True)
def _no_limits_of_the_test_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """What limits this test run itself is no part of the pretended box."""
    real = os.path.isdir
    monkeypatch.setattr(os.path, "isdir", lambda path: not str(path).startswith("/sys/") and real(path))


def mb(count: float) -> int:
    return int(count * MIB)


def test_high_and_max_of_version_2_both_limit_and_idle_cache_counts_as_free(tmp_path: Path) -> None:
    box = Box(tmp_path, f"0::{SERVICE}")
    stat = f"anon 1\ninactive_file {mb(30)}"
    box.group(SERVICE, memory__max=mb(400), memory__high=mb(320), memory__current=mb(310), memory__stat=stat)
    memory = box.groups.memory()
    assert memory is not None
    assert (memory.left_mb, memory.limit_mb, memory.name) == (40.0, 320.0, "memory.high")


def test_the_tightest_limit_around_the_process_counts_not_the_nearest(tmp_path: Path) -> None:
    box = Box(tmp_path, "0::/box.slice/inner.slice/agent.service")
    box.group("box.slice", memory__max=mb(500), memory__current=mb(450))
    box.group("box.slice/inner.slice", memory__max=mb(2000), memory__high="max", memory__current=mb(100))
    box.group("box.slice/inner.slice/agent.service", memory__max=mb(400), memory__current=mb(80))
    assert box.left_mb == 50.0


def test_limit_of_version_1_is_read_beside_the_unified_tree_of_a_hybrid_box(tmp_path: Path) -> None:
    box = Box(tmp_path, "0::/system.slice/a.service", "5:cpu,cpuacct:/", f"4:memory:{SERVICE}", "1:name=systemd:/x")
    box.group("unified/system.slice/a.service", cgroup__procs="")
    stat = f"cache 1\ninactive_file 1\nhierarchical_memory_limit {UNLIMITED_V1}\ntotal_inactive_file {mb(5)}"
    used = mb(116)
    box.group(f"memory{SERVICE}", memory__limit_in_bytes=mb(160), memory__usage_in_bytes=used, memory__stat=stat)
    box.group("memory", memory__limit_in_bytes=UNLIMITED_V1, memory__usage_in_bytes=mb(9000))
    assert box.left_mb == 49.0


def test_limit_set_around_a_group_of_version_1_is_in_its_own_statistics(tmp_path: Path) -> None:
    """In a container the groups around it cannot be seen, but the kernel tells the limit they set."""
    box = Box(tmp_path, "3:memory:/docker/0123")
    stat = f"hierarchical_memory_limit {mb(200)}\ntotal_inactive_file 0"
    box.group("memory", memory__limit_in_bytes=UNLIMITED_V1, memory__usage_in_bytes=mb(150), memory__stat=stat)
    assert box.left_mb == 50.0


def test_container_whose_group_has_the_hosts_path_reads_its_own_root(tmp_path: Path) -> None:
    box = Box(tmp_path, "0::/../../kubepods/pod1")
    box.group("", memory__max=mb(300), memory__current=mb(200))
    assert box.left_mb == 100.0


@pytest.mark.parametrize("limit", ["max", UNLIMITED_V1, ""])
def test_without_a_limit_nothing_is_said(tmp_path: Path, limit: str) -> None:
    box = Box(tmp_path, f"0::{SERVICE}", f"4:memory:{SERVICE}")
    box.group(SERVICE, memory__max=limit, memory__high=limit, memory__current=mb(50))
    box.group(f"memory{SERVICE}", memory__limit_in_bytes=limit, memory__usage_in_bytes=mb(50))
    assert box.left_mb is None
    assert Sensors(tmp_path, box.sys, box.proc).read((), 0.0).memory_limit_left_mb is None


def test_more_used_than_the_limit_allows_leaves_nothing_and_not_less(tmp_path: Path) -> None:
    box = Box(tmp_path, "0::/")
    box.group("", memory__high=mb(320), memory__current=mb(330))
    assert box.left_mb == 0.0


def test_quota_of_either_version_bounds_the_cpus(tmp_path: Path) -> None:
    all_cpus = float(len(os.sched_getaffinity(0)))
    second = Box(tmp_path / "2", f"0::{SERVICE}")
    second.group(SERVICE, cpu__max="max 100000")
    second.group("system.slice", cpu__max="50000 100000")
    assert second.groups.cpus() == 0.5
    first = Box(tmp_path / "1", f"7:cpu,cpuacct:{SERVICE}")
    first.group(f"cpu,cpuacct{SERVICE}", cpu__cfs_quota_us=25_000, cpu__cfs_period_us=100_000)
    first.group("cpu,cpuacct", cpu__cfs_quota_us=-1, cpu__cfs_period_us=100_000)
    assert first.groups.cpus() == 0.25
    assert Box(tmp_path / "0", "0::/").groups.cpus() == all_cpus


def test_cpu_load_is_a_share_of_the_quota(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    box = Box(tmp_path, "0::/")
    box.group("", cpu__max="50000 100000")
    seconds = iter((10.0, 10.25))
    monkeypatch.setattr("edge_agent.host.sensors.cpu_seconds_of", lambda _: next(seconds))
    sensors = Sensors(tmp_path, box.sys, box.proc)
    assert sensors.read([1], 0.0).cpu_percent is None
    assert sensors.read([1], 1.0).cpu_percent == pytest.approx(50.0)


def test_tasks_that_may_still_be_started(tmp_path: Path) -> None:
    box = Box(tmp_path, f"0::{SERVICE}", f"8:pids:{SERVICE}")
    box.group(SERVICE, pids__max=128, pids__current=100)
    box.group(f"pids{SERVICE}", pids__max="max", pids__current=100)
    assert box.groups.tasks_left() == 28
    assert Box(tmp_path / "none", "0::/").groups.tasks_left() is None
