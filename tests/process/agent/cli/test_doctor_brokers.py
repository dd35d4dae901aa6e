"""The doctor names what a broker refuses this device, by connecting as the agent does and by asking the agent."""

from __future__ import annotations

import struct
import time
from pathlib import Path

from support.brokers.scripted_broker import Published, ScriptedBroker
from support.makers import bundles
from support.sites.agent_process import AgentProcess, eventually

from edge_agent.cli.doctor.finding import Finding, Target
from edge_agent.cli.doctor.network_checks import NETWORK_CHECKS
from edge_agent.config.agent_toml import load_config

TOPICS = '[slots.mqtt]\ninput = "in"\noutput = "out"\n[home_assistant]\n'
TELE = "ew/v1/default/d/dev-1/tele"


def device(folder: Path, port: int) -> AgentProcess:
    bundles.make_bundle(folder / "factory", version="0.1.0")
    agent = AgentProcess(folder, None, factory=folder / "factory", broker_port=port)
    agent.config.write_text(agent.config.read_text().replace('protocol = "3.1.1"', 'protocol = "5"') + TOPICS)
    return agent


def examine(agent: AgentProcess) -> dict[str, Finding]:
    patient = Target(config=load_config(agent.config), now=time.time())
    return {finding.check: finding for check in NETWORK_CHECKS for finding in check(patient)}


def test_refused_subscriptions_are_failures_with_a_remedy(tmp_path: Path) -> None:
    refused = {"ew/v1/default/hint", "in", "homeassistant/status"}
    with ScriptedBroker(suback=lambda topic: 0x87 if topic in refused else 1) as broker:
        found = examine(device(tmp_path, broker.port))
    assert found["broker"].verdict == "ok"
    assert found["broker rights"].verdict == found["data broker rights"].verdict == "failure"
    assert "ew/v1/default/hint: Not authorized (0x87)" in found["broker rights"].text
    assert "homeassistant/status" in (found["data broker rights"].fix or "")


def test_what_the_broker_cannot_do_is_a_warning(tmp_path: Path) -> None:
    with ScriptedBroker(connack=lambda _: (0, b"\x27" + struct.pack(">I", 3000))) as broker:
        found = examine(device(tmp_path, broker.port))
    assert (found["broker limits"].verdict, "3000 bytes" in found["broker limits"].text) == ("warning", True)


def test_what_the_running_agent_is_refused_is_a_failure(tmp_path: Path) -> None:
    def judge(message: Published) -> int:
        return 0x87 if message.topic == TELE or message.topic.startswith("homeassistant") else 0

    with ScriptedBroker(puback=judge) as broker, device(tmp_path, broker.port) as agent:
        agent.served_by()
        eventually("refused", lambda: "Not authorized" in agent.status().data_broker_trouble)
        found = examine(agent)
    assert found["agent's data broker"].verdict == "failure"
    assert "discovery messages: Not authorized (0x87)" in found["agent's data broker"].text
    assert found["slot main input"].verdict == "warning"
