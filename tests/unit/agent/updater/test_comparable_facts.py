"""Facts that selectors compare are of this device, and do not change while it runs."""

from __future__ import annotations

from pathlib import Path

from edge_agent.updater.comparable_facts import comparable_facts
from edge_contracts.selector import Selector, check_selectors


def box(folder: Path, meminfo: str, limit: int | None = None) -> tuple[Path, Path]:
    proc, sys = folder / "proc", folder / "sys"
    (proc / "self").mkdir(parents=True)
    (proc / "self" / "cgroup").write_text("0::/agent.service\n")
    (proc / "meminfo").write_text(meminfo)
    group = sys / "fs" / "cgroup" / "agent.service"
    group.mkdir(parents=True)
    if limit is not None:
        (group / "memory.max").write_text(f"{limit}\n")
        (group / "memory.current").write_text("1000\n")
    return sys, proc


MEMINFO = "MemTotal:         948304 kB\nMemFree:          100000 kB\nMemAvailable:     200000 kB\n"


def test_memory_is_what_the_box_has_and_not_what_is_free(tmp_path: Path) -> None:
    assert comparable_facts(*box(tmp_path, MEMINFO))["memory_mb"] == "926"


def test_memory_is_what_the_agents_limits_allow(tmp_path: Path) -> None:
    assert comparable_facts(*box(tmp_path, MEMINFO, limit=400 << 20))["memory_mb"] == "400"


def test_memory_that_cannot_be_had_is_left_out(tmp_path: Path) -> None:
    assert "memory_mb" not in comparable_facts(*box(tmp_path, ""))


def test_every_fact_can_be_asked_for(tmp_path: Path) -> None:
    found = comparable_facts(*box(tmp_path, MEMINFO))
    assert {"memory_mb", "cpus", "agent_version", "engine.onnxruntime"} <= set(found)
    check_selectors([Selector(fact=fact, at_least=value) for fact, value in found.items()], what="facts")
