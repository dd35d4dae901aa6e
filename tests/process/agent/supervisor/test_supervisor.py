"""The agent as a process: serving, updating, surviving. Fed from a folder; brokers are in tests/system."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path

import msgspec
import psutil
import pytest
from support.makers import bundles
from support.sites.agent_process import AgentProcess, eventually
from support.sites.update_site import MODEL, UpdateSite

from edge_agent.ipc.control import MAX_SOCKET_PATH, control_paths
from edge_agent.storage.audit_log import verify_audit
from edge_agent.storage.state_dir import StateFolder, kernel_boot_id
from edge_agent.update.record import MAX_UNCLEAN_STARTS
from edge_contracts.channel import Gates
from edge_contracts.telemetry import Event

QUICK = Gates(soak_s=0.3)
LONG = Gates(soak_s=300.0)


def events(agent: AgentProcess) -> list[Event]:
    with contextlib.closing(sqlite3.connect(agent.state.outbox)) as database:
        rows = database.execute("SELECT body FROM messages WHERE kind = 'event' ORDER BY row").fetchall()
    return [msgspec.json.decode(row[0], type=Event) for row in rows]


@pytest.fixture
def site(tmp_path: Path) -> UpdateSite:
    site = UpdateSite(tmp_path)
    site.release("1.0.0")
    site.start("1.0.0", gates=QUICK)
    return site


@pytest.fixture
def agent(tmp_path: Path, site: UpdateSite) -> AgentProcess:
    return AgentProcess(tmp_path, site)


def committed(agent: AgentProcess) -> AgentProcess:
    agent.start()
    agent.bring()
    agent.wait_for("committed", "1.0.0")
    return agent


def test_factory_bundle_serves_without_broker_or_fleet(tmp_path: Path) -> None:
    bundles.make_bundle(tmp_path / "factory", version="0.1.0")
    with AgentProcess(tmp_path, None, factory=tmp_path / "factory") as agent:
        assert agent.served_by() == "factory:0.1.0/fp32"
        status = agent.status()
        assert status.memory_mb is not None
        assert status.memory_mb <= 40.0


def test_supervisor_loads_no_numpy_engine_or_tuf(agent: AgentProcess) -> None:
    with agent:
        maps = Path(f"/proc/{agent.process.pid}/maps").read_text()
        for name in ("numpy", "onnxruntime", "cryptography"):
            assert f"/{name}/" not in maps


def test_imported_release_is_tried_soaked_and_committed(agent: AgentProcess) -> None:
    committed(agent)
    assert agent.served_by() == "active:1.0.0/fp32"
    agent.stop()
    told = [event.event for event in events(agent)]
    states = ["offered", "preflight", "downloading", "verified", "trial", "shadow", "active", "committed"]
    assert [name for name in told if name in {f"update-{state}" for state in states}] == [
        f"update-{state}" for state in states
    ]
    assert verify_audit(agent.state.audit).serial >= len(states)


def test_bad_release_is_refused_after_trial_and_the_old_one_serves(agent: AgentProcess, site: UpdateSite) -> None:
    committed(agent)
    site.release("1.1.0", models=[("fp32", bundles.wrong_model())])
    site.start("1.1.0", gates=QUICK)
    agent.bring()
    slot = agent.wait_for("rejected", "1.1.0")
    assert slot.reason in ("trial-quality", "trial-golden")
    assert agent.served_by() == "active:1.0.0/fp32"
    assert agent.status().refusals[-1].reason == slot.reason
    agent.stop()


def test_release_that_explodes_in_soak_is_rolled_back_and_its_lost_requests_counted(
    agent: AgentProcess, site: UpdateSite
) -> None:
    committed(agent)
    site.release("1.1.0", models=[("fp32", bundles.exploding_model())])
    site.start("1.1.0", gates=LONG)
    agent.bring()
    agent.wait_for("active", "1.1.0")
    eventually("the new worker serves", lambda: ":1.1.0/" in agent.served_by())
    with pytest.raises(OSError, match=r"[Rr]eset|closed|Remote end"):
        agent.ask(1e10)
    assert agent.wait_for("rolled_back", "1.1.0").reason == "engine-memory"
    assert agent.served_by() == "active:1.0.0/fp32"
    assert agent.slot().counters["lost"] == 1
    agent.stop()
    (death,) = [event for event in events(agent) if event.event == "worker-died"]
    assert death.detail["lost"] == 1


def ask_rows(agent: AgentProcess, rows: int) -> int:
    """Return the status of a request of so many rows. Raises OSError where no answer comes."""
    tensor = {"name": "x", "datatype": "FP32", "shape": [rows, 4], "parameters": {"binary_data_size": 16 * rows}}
    head = json.dumps({"inputs": [tensor], "parameters": {"binary_data_output": True}}).encode()
    client = http.client.HTTPConnection(agent.slot().http, timeout=20)
    headers = {"Inference-Header-Content-Length": str(len(head))}
    with contextlib.closing(client):
        client.request("POST", f"/v2/models/{MODEL}/infer", head + bytes(16 * rows), headers)
        return client.getresponse().status


def serve_pairs(agent: AgentProcess, site: UpdateSite) -> None:
    site.release("1.1.0", models=[("fp32", bundles.pairs_model())])
    site.start("1.1.0", gates=LONG)
    agent.bring()
    agent.wait_for("active", "1.1.0")
    eventually("the new worker serves", lambda: ":1.1.0/" in agent.served_by())


def test_batch_larger_than_any_before_costs_a_worker_and_not_the_release(agent: AgentProcess, site: UpdateSite) -> None:
    committed(agent)
    serve_pairs(agent, site)
    with pytest.raises((OSError, http.client.HTTPException)):
        ask_rows(agent, 60_000)  # 14 GB
    eventually("another worker serves", lambda: ":1.1.0/" in agent.served_by())
    assert agent.slot().state == "active"
    assert [ask_rows(agent, 60_000) for _ in range(3)] == [413] * 3
    assert ask_rows(agent, 10) == 200
    agent.stop()
    (death,) = [event for event in events(agent) if event.event == "worker-died"]
    assert death.detail["request_bytes"] == 60_000 * 16
    assert "larger than any before" in death.text


def test_batch_that_the_old_release_has_answered_counts_against_the_new_one(
    agent: AgentProcess, site: UpdateSite
) -> None:
    committed(agent)
    assert ask_rows(agent, 60_000) == 200
    serve_pairs(agent, site)
    with pytest.raises((OSError, http.client.HTTPException)):
        ask_rows(agent, 60_000)
    assert agent.wait_for("rolled_back", "1.1.0").reason == "engine-memory"
    agent.stop()


def test_killed_worker_is_replaced(agent: AgentProcess) -> None:
    committed(agent)
    (pid,) = agent.slot().workers
    os.kill(pid, signal.SIGKILL)
    assert agent.served_by() == "active:1.0.0/fp32"
    assert agent.slot().workers != (pid,)
    assert agent.slot().state == "committed"
    agent.stop()


def test_hung_worker_is_killed_and_replaced(agent: AgentProcess) -> None:
    committed(agent)
    (pid,) = agent.slot().workers
    os.kill(pid, signal.SIGSTOP)
    eventually("a new worker", lambda: agent.slot().workers not in ((pid,), ()))
    assert agent.served_by() == "active:1.0.0/fp32"
    agent.stop()
    assert any(event.detail.get("reason") == "hung" for event in events(agent))


def test_supervisor_killed_once_in_soak_goes_on_soaking_and_killed_again_and_again_goes_back(
    agent: AgentProcess, site: UpdateSite
) -> None:
    committed(agent)
    site.release("1.1.0")
    site.start("1.1.0", gates=LONG)
    agent.bring()
    agent.wait_for("active", "1.1.0")
    for _ in range(MAX_UNCLEAN_STARTS):
        agent.kill()
        agent.start()
        assert agent.served_by() == "active:1.1.0/fp32"
        assert agent.slot().state == "active"
    agent.kill()
    agent.start()
    assert agent.wait_for("rolled_back", "1.1.0").reason == "crash-loop"
    assert agent.served_by() == "active:1.0.0/fp32"
    agent.stop()


def test_power_cut_in_soak_is_told_and_counts_against_nobody(agent: AgentProcess, site: UpdateSite) -> None:
    committed(agent)
    site.release("1.1.0")
    site.start("1.1.0", gates=LONG)
    agent.bring()
    agent.wait_for("active", "1.1.0")
    agent.kill()
    assert agent.state.running.read_text() == kernel_boot_id() != ""
    agent.state.running.write_text("another boot")  # as power cuts leave it
    agent.start()
    assert agent.slot().state == "active"
    record = agent.state.read_record("main")
    assert (record.starts, record.reboots) == (0, 1)
    agent.stop()
    (start,) = [event for event in events(agent) if event.event == "unclean-start"]
    assert start.text == "the device was restarted during the soak, which begins anew"


def test_clean_restart_in_soak_goes_on_soaking(agent: AgentProcess, site: UpdateSite) -> None:
    committed(agent)
    site.release("1.1.0")
    site.start("1.1.0", gates=LONG)
    agent.bring()
    agent.wait_for("active", "1.1.0")
    agent.stop()
    agent.start()
    assert agent.slot().state == "active"
    assert agent.served_by() == "active:1.1.0/fp32"
    agent.stop()


def test_supervisor_killed_takes_its_workers_with_it(agent: AgentProcess) -> None:
    committed(agent)
    (pid,) = agent.slot().workers
    agent.kill()
    eventually("the orphan ends", lambda: not psutil.pid_exists(pid))


def test_second_agent_on_the_same_state_is_refused(agent: AgentProcess) -> None:
    with agent:
        words = [sys.executable, "-m", "edgewright.cli", "agent", "run", "--config", str(agent.config)]
        done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "another agent is running" in done.stderr


def test_shadow_candidate_waits_until_its_rollout_turns_live(agent: AgentProcess, site: UpdateSite) -> None:
    committed(agent)
    site.release("1.1.0")
    site.start("1.1.0", mode="shadow", gates=QUICK)
    agent.bring()
    agent.wait_for("shadow", "1.1.0")
    assert agent.served_by() == "active:1.0.0/fp32"
    agent.stop()


def test_long_state_path_gets_a_short_socket(tmp_path: Path) -> None:
    state = StateFolder(tmp_path / ("d" * 120))
    assert all(len(os.fsencode(path)) <= MAX_SOCKET_PATH for path in control_paths(state))
    assert control_paths(state) == control_paths(StateFolder(tmp_path / ("d" * 120)))


def test_slot_with_nothing_installed_answers_503_with_retry_after(tmp_path: Path, site: UpdateSite) -> None:
    with AgentProcess(tmp_path, site) as agent:
        for size in (10, 500_000):
            connection = http.client.HTTPConnection(agent.slot().http, timeout=10)
            connection.request("POST", f"/v2/models/{MODEL}/infer", b"x" * size)
            answer = connection.getresponse()
            assert (answer.status, answer.headers["retry-after"]) == (503, "10")
            assert "error" in json.loads(answer.read())
            connection.close()
        agent.bring()
        agent.wait_for("committed", "1.0.0")
        assert agent.served_by() == "active:1.0.0/fp32"
