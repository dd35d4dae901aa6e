"""An address that is taken stops its own slot, for as long as it is taken."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.makers import bundles
from support.sites.agent_process import AgentProcess, eventually

from edge_agent.ipc.status import SlotStatus


@pytest.fixture
def taken() -> Iterator[socket.socket]:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        yield other


def of(agent: AgentProcess, name: str) -> SlotStatus:
    return next(slot for slot in agent.status().slots if slot.slot == name)


def test_one_busy_port_stops_one_slot_until_it_is_free(tmp_path: Path, taken: socket.socket) -> None:
    bundles.make_bundle(tmp_path / "factory")
    port = taken.getsockname()[1]
    agent = AgentProcess(tmp_path, None, factory=tmp_path / "factory")
    text = agent.config.read_text()
    slot = text[text.index("[[slots]]") :].replace('name = "main"', 'name = "door"')
    slot = slot.replace('http = "127.0.0.1:0"', f'http = "127.0.0.1:{port}"').replace("drain_s = 2.0", "drain_s = 0.5")
    agent.config.write_text(f"{text}\n{slot}")

    with agent:
        assert agent.served_by() == "factory:1.0.0/fp32"
        door = eventually("the fault", lambda: d if "no-address" in (d := of(agent, "door")).faults else None)
        assert door.http == f"127.0.0.1:{port}"
        assert not door.workers
        assert f"cannot listen on 127.0.0.1:{port}: Address already in use" in agent.log
        assert agent.served_by() == "factory:1.0.0/fp32"
        taken.close()
        eventually("it serves", lambda: of(agent, "door").served_by)
        assert of(agent, "door").faults == ()
        assert "address-available" in agent.log
