"""Every shipped profile under the shipped unit's limits: level NORMAL, served, and updated by a rollout.

The limits are parsed from the unit. The sensors are given the files that systemd would make, with what the agent really
uses in them; one test runs in a real control group of this machine's, of whichever version it has. The board's
architecture is this machine's, as no other one's agent could run here.
"""

from __future__ import annotations

import contextlib
import os
import re
import threading
import tomllib
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from support.makers import bundles
from support.sites.agent_process import AgentProcess, eventually
from support.sites.update_site import UpdateSite

from edge_agent.host.control_groups import MIB
from edge_agent.host.sensors import architecture
from edge_contracts.channel import Gates

pytestmark = pytest.mark.timeout(180)

CONFIGS = Path(__file__).resolve().parents[2] / "firmware_configs"
PROFILES = sorted(path.stem for path in (CONFIGS / "profiles").glob("*.toml"))
UNITS = {"K": 1 << 10, "M": 1 << 20, "G": 1 << 30}


def unit_limits() -> dict[str, int]:
    """Return MemoryHigh, MemoryMax (bytes) and TasksMax of the shipped unit."""
    text = (CONFIGS / "systemd/edgewright-agent.service").read_text()
    found = re.findall(r"^(MemoryHigh|MemoryMax|TasksMax)=(\d+)([KMG]?)$", text, flags=re.MULTILINE)
    return {name: int(number) * UNITS.get(unit, 1) for name, number, unit in found}


class PretendedGroup:
    """The files of a control group of version 2, with what the agent and its children really hold."""

    def __init__(self, sys: Path, limits: dict[str, int]) -> None:
        self._folder = sys / "fs/cgroup"
        self._folder.mkdir(parents=True)
        for name, value in (("memory.high", "MemoryHigh"), ("memory.max", "MemoryMax"), ("pids.max", "TasksMax")):
            self._write(name, limits[value])
        self._write("memory.current", 0)
        self._write("pids.current", 0)
        self.least_left_mb = float("inf")
        self._limit = min(limits["MemoryHigh"], limits["MemoryMax"])

    @contextlib.contextmanager
    def follow(self, pid: int) -> Iterator[None]:
        over = threading.Event()
        thread = threading.Thread(target=self._measure, args=(psutil.Process(pid), over))
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()

    def _measure(self, agent: psutil.Process, over: threading.Event) -> None:
        while not over.wait(0.1):
            used, tasks = 0, 0
            for process in (agent, *agent.children(recursive=True)):
                with contextlib.suppress(psutil.Error):
                    used += process.memory_full_info().uss
                    tasks += process.num_threads()
            self._write("memory.current", used)
            self._write("pids.current", tasks)
            self.least_left_mb = min(self.least_left_mb, (self._limit - used) / MIB)

    def _write(self, name: str, value: int) -> None:
        fresh = self._folder / f".{name}"
        fresh.write_text(f"{value}\n")
        fresh.replace(self._folder / name)


@contextlib.contextmanager
def real_group(limit_bytes: int) -> Iterator[Path]:
    """Make a memory control group; what is started meanwhile is in it. Skips the test where that is not allowed."""
    lines = [line.split(":", 2) for line in Path("/proc/self/cgroup").read_text().splitlines()]
    first = next((path for _, controllers, path in lines if "memory" in controllers.split(",")), None)
    second = next((path for _, controllers, path in lines if not controllers), "/")
    own = Path(f"/sys/fs/cgroup/memory{first}" if first is not None else f"/sys/fs/cgroup{second}")
    group = own / f"edgewright-test-{os.getpid()}"
    try:
        group.mkdir()
    except OSError as error:
        pytest.skip(f"no control group can be made here: {error}")
    try:
        set_limit(group, limit_bytes)
        (group / "cgroup.procs").write_text(str(os.getpid()))
    except OSError as error:
        group.rmdir()
        pytest.skip(f"no memory limit can be set here: {error}")
    try:
        yield group
    finally:
        (own / "cgroup.procs").write_text(str(os.getpid()))
        eventually("its processes have gone", lambda: not (group / "cgroup.procs").read_text())
        group.rmdir()


def set_limit(group: Path, limit_bytes: int) -> None:
    (group / ("memory.limit_in_bytes" if is_first(group) else "memory.max")).write_text(str(limit_bytes))


def used_bytes(group: Path) -> int:
    """Return what is used, without cache that can be dropped."""
    name, cache = (
        ("memory.usage_in_bytes", "total_inactive_file") if is_first(group) else ("memory.current", "inactive_file")
    )
    facts = dict(line.split() for line in (group / "memory.stat").read_text().splitlines())
    return int((group / name).read_text()) - int(facts[cache])


def is_first(group: Path) -> bool:
    return (group / "memory.limit_in_bytes").exists()


def profile_for_this_machine(name: str, folder: Path) -> Path:
    text = (CONFIGS / f"profiles/{name}.toml").read_text()
    text = re.sub(r'^architecture = ".*"$', f'architecture = "{architecture()}"', text, flags=re.MULTILINE)
    if name == "armv7-generic":  # the small model is ONNX, whose engine has no 32-bit Arm wheel
        text = re.sub(r"^engines = .*$", 'engines = ["onnxruntime"]', text, flags=re.MULTILINE)
    path = folder / "profile.toml"
    path.write_text(text)
    tomllib.loads(text)
    return path


@pytest.mark.parametrize("name", PROFILES)
def test_shipped_profile_under_the_shipped_units_limits_is_normal_served_and_updated(name: str, tmp_path: Path) -> None:
    site = UpdateSite(tmp_path)
    bundles.make_bundle(tmp_path / "factory", version="0.9.0")
    site.release("1.0.0")
    site.start("1.0.0", gates=Gates(soak_s=1.0))
    group = PretendedGroup(tmp_path / "sys", unit_limits())
    agent = AgentProcess(tmp_path, site, factory=tmp_path / "factory")
    lines = f'profile = "{profile_for_this_machine(name, tmp_path)}"\nsensors = "{tmp_path / "sys"}"\n'
    agent.config.write_text(agent.config.read_text().replace("[telemetry]", f"{lines}[telemetry]", 1))
    with agent, group.follow(agent.process.pid):
        assert agent.served_by() == "factory:0.9.0/fp32"
        assert (agent.status().level, agent.status().level_reasons) == ("NORMAL", ())
        agent.bring()
        agent.wait_for("committed", "1.0.0")
        eventually("the release answers", lambda: agent.served_by() == "active:1.0.0/fp32")
        status = agent.status()
        assert (status.level, status.updates_wait) == ("NORMAL", "")
        assert not [refusal for refusal in status.refusals if refusal.reason == "governor"]
    assert group.least_left_mb > 64.0, "an update may not itself bring the device to CONSERVE"


def test_limit_of_a_real_control_group_is_the_agents_own(tmp_path: Path) -> None:
    """Whatever version this machine has: within the unit's limit an update goes through; 45 MB left are too few."""
    limits = unit_limits()
    site = UpdateSite(tmp_path)
    bundles.make_bundle(tmp_path / "factory", version="0.9.0")
    site.release("1.0.0")
    site.start("1.0.0", gates=Gates(soak_s=0.5))
    agent = AgentProcess(tmp_path, site, factory=tmp_path / "factory")
    lines = f'profile = "{profile_for_this_machine("x86-gateway", tmp_path)}"\n'
    agent.config.write_text(agent.config.read_text().replace("[telemetry]", f"{lines}[telemetry]", 1))
    with real_group(limits["MemoryHigh"]) as group, agent:
        agent.served_by()
        agent.bring()
        agent.wait_for("committed", "1.0.0")
        assert agent.status().level == "NORMAL"
        set_limit(group, used_bytes(group) + 45 * MIB)
        eventually("it is noticed", lambda: agent.status().level == "CONSERVE")
        assert agent.status().level_reasons[0].startswith("memory_limit_left_mb=")
        assert agent.served_by().startswith("active:1.0.0/")


def test_update_that_waits_for_level_normal_says_so_with_the_reading_and_goes_on_by_itself(tmp_path: Path) -> None:
    """docker run -m 150m: what is left is too little for an updater and a trial, and nobody has to guess that."""
    site = UpdateSite(tmp_path)
    bundles.make_bundle(tmp_path / "factory", version="0.9.0")
    site.release("1.0.0")
    site.start("1.0.0", gates=Gates(soak_s=1.0))
    folder = tmp_path / "sys/fs/cgroup"
    folder.mkdir(parents=True)
    (folder / "memory.max").write_text(f"{150 * MIB}\n")
    (folder / "memory.current").write_text(f"{100 * MIB}\n")
    agent = AgentProcess(tmp_path, site, factory=tmp_path / "factory")
    profile = profile_for_this_machine("pi-4", tmp_path)
    profile.write_text(re.sub(r"^dwell_s = .*$", "dwell_s = 1.0", profile.read_text(), flags=re.MULTILINE))
    lines = f'profile = "{profile}"\nsensors = "{tmp_path / "sys"}"\n'
    agent.config.write_text(agent.config.read_text().replace("[telemetry]", f"{lines}[telemetry]", 1))
    with agent:
        eventually("it is careful", lambda: agent.status().level == "CONSERVE")
        agent.bring()
        (refusal,) = eventually("it is said", lambda: agent.status().refusals)
        assert (refusal.event, refusal.reason) == ("update-held", "governor")
        assert "1.0.0 waits until the device is at level NORMAL" in refusal.text
        assert "memory_limit_left_mb=50" in refusal.text
        assert "memory_limit_left_mb=50" in agent.status().updates_wait
        assert agent.served_by().startswith("factory:0.9.0/"), "requests are answered meanwhile"
        (folder / "memory.max").write_text(f"{400 * MIB}\n")
        eventually("it may", lambda: agent.status().level == "NORMAL")
        agent.wait_for("committed", "1.0.0")  # nobody has asked again
        assert agent.status().updates_wait == ""
