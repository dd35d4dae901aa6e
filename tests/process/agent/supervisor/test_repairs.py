"""A damaged release is fetched again and serves again, without anybody's hand; imports tell how they end."""

from __future__ import annotations

import contextlib
import json
import re
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import urlopen

import msgspec
import pytest
from support.makers import bundles
from support.sites.agent_process import AgentProcess, eventually
from support.sites.update_site import UpdateSite
from support.sites.web_site import WebSite

from edge_agent.ipc.control import ControlRequest, ask_agent
from edge_contracts.channel import Gates
from edge_contracts.telemetry import Event


@pytest.fixture
def site(tmp_path: Path) -> UpdateSite:
    site = UpdateSite(tmp_path)
    site.release("1.0.0", padding=200_000)
    site.start("1.0.0", gates=Gates(soak_s=0.2))
    return site


@pytest.fixture
def mirror(site: UpdateSite) -> Iterator[WebSite]:
    mirror = WebSite(site.repository)
    mirror.start()
    yield mirror
    mirror.stop()


@pytest.fixture
def agent(tmp_path: Path, site: UpdateSite, mirror: WebSite) -> Iterator[AgentProcess]:
    agent = AgentProcess(tmp_path, site)
    with agent.config.open("a") as config:
        config.write(f'[updates]\nhttp = "{mirror.url}"\npoll_s = 3600.0\n')
    agent.start()
    agent.wait_for("committed", "1.0.0")
    yield agent
    agent.stop()


def events(agent: AgentProcess, name: str) -> list[Event]:
    with contextlib.closing(sqlite3.connect(agent.state.outbox)) as database:
        rows = database.execute("SELECT body FROM messages WHERE kind = 'event' ORDER BY row").fetchall()
    found = [msgspec.json.decode(row[0], type=Event) for row in rows]
    return [event for event in found if event.event == name]


def folder(agent: AgentProcess) -> Path:
    serving = agent.slot().serving
    assert serving is not None
    return agent.state.release(serving.manifest_sha256)


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def healed(agent: AgentProcess) -> bool:
    slot = agent.slot()
    return not slot.faults and slot.served_by == "active:1.0.0/fp32"


def test_variant_with_a_flipped_bit_is_a_fault_until_it_has_been_fetched_again(agent: AgentProcess) -> None:
    agent.stop()
    flip(folder(agent) / "models" / "fp32.onnx")
    agent.start()
    eventually("it is repaired", lambda: events(agent, "release-repaired"))
    eventually("it serves again", lambda: healed(agent))
    assert agent.served_by() == "active:1.0.0/fp32"
    assert len(events(agent, "release-damaged")) == 1
    (repaired,) = events(agent, "release-repaired")
    assert 0 < int(repaired.detail["fetched"]) <= 65536


def test_lost_releases_folder_is_fetched_again(agent: AgentProcess) -> None:
    agent.stop()
    shutil.rmtree(agent.state.releases)
    agent.start()
    eventually("it serves again", lambda: healed(agent))
    assert agent.served_by() == "active:1.0.0/fp32"


def test_damage_is_a_fault_beside_level_normal_while_the_mirror_is_away(agent: AgentProcess, mirror: WebSite) -> None:
    agent.stop()
    mirror.stop()
    for variant in ("fp32", "small"):
        flip(folder(agent) / "models" / f"{variant}.onnx")
    agent.start()
    slot = eventually("the fault shows", lambda: agent.slot() if agent.slot().faults else None)
    assert "damaged" in slot.faults
    assert agent.status().level == "NORMAL"
    slot = eventually("nobody is said to serve", lambda: s if "no-model" in (s := agent.slot()).faults else None)
    assert slot.served_by == "last-resort/abstain"
    assert agent.served_by() == "last-resort/abstain"
    with pytest.raises(HTTPError) as refused:
        urlopen(f"http://{slot.http}/v2/health/ready", timeout=10)
    assert refused.value.code == 503
    refused.value.close()


def test_repair_looks_at_files_nobody_has_read(agent: AgentProcess) -> None:
    flip(folder(agent) / "padding.bin")
    done = command(agent, "repair", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["troubles"] == []
    (repaired,) = events(agent, "release-repaired")
    assert int(repaired.detail["fetched"]) <= 65536
    assert agent.served_by() == "active:1.0.0/fp32"


def test_repair_that_nobody_can_help_with_says_so(agent: AgentProcess, mirror: WebSite) -> None:
    mirror.stop()
    flip(folder(agent) / "padding.bin")
    done = command(agent, "repair")
    assert done.returncode == 4
    assert "unreachable" in done.stderr


def test_repair_with_nothing_damaged_needs_nobody(agent: AgentProcess, mirror: WebSite) -> None:
    mirror.stop()
    done = command(agent, "repair")
    assert (done.returncode, done.stderr) == (0, "")


def test_errands_end_at_once_where_no_slot_takes_updates(tmp_path: Path, site: UpdateSite) -> None:
    bundles.make_bundle(tmp_path / "factory")
    with AgentProcess(tmp_path, None, factory=tmp_path / "factory") as agent:
        repaired = command(agent, "repair")
        assert (repaired.returncode, repaired.stderr) == (0, "")
        imported = command(agent, "import", str(site.repository))
        assert imported.returncode == 4
        assert "channel" in imported.stderr


def command(agent: AgentProcess, *words: str) -> subprocess.CompletedProcess[str]:
    line = [sys.executable, "-m", "edgewright.cli", "agent", *words, "--config", str(agent.config)]
    return subprocess.run(line, capture_output=True, text=True, check=False, timeout=60)


def test_import_of_a_folder_that_is_no_repository_fails_with_the_folder_that_was_meant(
    agent: AgentProcess, tmp_path: Path
) -> None:
    empty = tmp_path / "stick"
    empty.mkdir()
    done = command(agent, "import", str(empty))
    assert done.returncode == 4
    assert "metadata/timestamp.json" in done.stderr
    assert "mounted" in done.stderr
    assert agent.site is not None
    done = command(agent, "import", str(agent.site.repository.parent))
    assert done.returncode == 4
    assert f"did you mean {agent.site.repository}?" in done.stderr


def test_import_that_fails_ends_with_an_error_and_a_hint(agent: AgentProcess, tmp_path: Path) -> None:
    assert agent.site is not None
    half = Path(shutil.copytree(agent.site.repository, tmp_path / "half"))
    shutil.rmtree(half / "targets")
    done = command(agent, "import", str(half))
    assert done.returncode == 4
    assert "failed in part" in done.stderr


def test_import_that_had_to_wait_tells_how_it_ended(agent: AgentProcess, site: UpdateSite, tmp_path: Path) -> None:
    site.release("1.1.0")
    site.start("1.1.0", gates=Gates(soak_s=0.2))
    gone = Path(shutil.copytree(site.repository, tmp_path / "gone"))
    agent.stop()
    assert command(agent, "import", str(gone)).returncode == 0
    assert command(agent, "import", str(site.repository)).returncode == 0
    shutil.rmtree(gone)
    agent.start()
    eventually("the first one has failed", lambda: events(agent, "import-failed"))
    eventually("the second one is done", lambda: events(agent, "import-done"))
    agent.wait_for("committed", "1.1.0")
    assert any(str(gone) in refusal.text for refusal in agent.status().refusals)


def test_refusals_have_a_time_and_go_away_after_a_success(agent: AgentProcess, site: UpdateSite) -> None:
    site.release("1.1.0", models=[("fp32", b"this is not a model")])
    site.start("1.1.0", gates=Gates(soak_s=0.2))
    agent.bring()
    agent.wait_for("rejected", "1.1.0")
    assert all(refusal.time > 0 for refusal in agent.status().refusals)
    (line,) = [line for line in command(agent, "status").stdout.splitlines() if line.startswith("refused")]
    assert re.search(r"refused +20\d\d-\d\d-\d\dT\d\d:\d\d:\d\dZ main: trial-", line)
    site.release("1.2.0")
    site.start("1.2.0", gates=Gates(soak_s=0.2))
    agent.bring()
    agent.wait_for("committed", "1.2.0")
    assert agent.status().refusals == ()
    agent.stop()
    agent.start()
    assert agent.status().refusals == ()


def test_control_knows_repairs(agent: AgentProcess) -> None:
    reply = ask_agent(agent.state, ControlRequest(ask="repair"), timeout_s=30.0)
    assert reply is not None
    assert reply.troubles == ()
