"""What Home Assistant sees of a device: discovery, availability and states on a real broker."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.brokers.brokers import Mosquitto
from support.brokers.topic_client import TopicClient
from support.makers import bundles
from support.sites.agent_process import AgentProcess, eventually

from edge_agent.supervisor.mqtt_gateway.home_assistant import _identifier
from edge_agent.supervisor.mqtt_gateway.top_class import top_class
from edge_contracts.manifest import Manifest, parse_manifest

QUESTION = json.dumps(
    {"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 4], "data": [1.0, 0.0, 0.0, 0.0]}]}
).encode()
SLOT = '[slots.mqtt]\ninput = "in"\noutput = "out"\nstale_after_s = 7.0\n'
AVAILABILITY = "edgewright/dev-1/availability"


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[Mosquitto]:
    with Mosquitto(tmp_path) as broker:
        yield broker


@pytest.fixture
def agent(tmp_path: Path, broker: Mosquitto) -> AgentProcess:
    bundles.make_bundle(tmp_path / "factory", version="0.1.0", labels=("left", "middle", "right"))
    agent = AgentProcess(tmp_path, None, factory=tmp_path / "factory", broker_port=broker.port)
    agent.config.write_text(agent.config.read_text() + SLOT + "[home_assistant]\nexpire_s = 30.0\n")
    return agent


def configs(client: TopicClient) -> dict[str, dict[str, Any]]:
    """Return the newest discovery messages by unique id; one that was cleared is not there."""
    newest = {m.topic: m.payload for m in client.heard if m.topic.startswith("homeassistant/sensor/")}
    found = [json.loads(payload) for payload in newest.values() if payload]
    return {config["unique_id"].removeprefix("edgewright_dev-1_"): config for config in found}


def test_device_appears_answers_and_goes(agent: AgentProcess, broker: Mosquitto) -> None:
    with TopicClient(broker.port, "homeassistant/#", "edgewright/#") as home:
        with agent:
            agent.served_by()
            eventually("discovery", lambda: len(configs(home)) == 4)
            assert home.wait(AVAILABILITY).payload == b"online"
            found = configs(home)
            assert found.keys() == {"level", "main_version", "main_class", "main_confidence"}
            assert all(config["availability_topic"] == AVAILABILITY for config in found.values())
            assert [found[name]["expire_after"] for name in ("level", "main_class")] == [30, 7]
            assert json.loads(home.wait(found["level"]["state_topic"]).payload) == {"level": "NORMAL"}
            home.send("in", QUESTION)
            state = json.loads(home.wait(found["main_class"]["state_topic"]).payload)
            assert state["class"] == "left"
            assert 97.0 < state["confidence"] < 98.0  # softmax of 3, -1, -2
            eventually(
                "the version",
                lambda: json.loads(home.on("edgewright/dev-1/main/state")[-1].payload)["version"] == "0.1.0",
            )
        assert home.wait(AVAILABILITY, 2).payload == b"offline"


def test_killed_agent_becomes_unavailable_by_its_last_will(agent: AgentProcess, broker: Mosquitto) -> None:
    with TopicClient(broker.port, "edgewright/#") as home:
        agent.start()
        home.wait(AVAILABILITY)
        agent.kill()
        assert home.wait(AVAILABILITY, 2).payload == b"offline"


def test_birth_of_home_assistant_brings_everything_again_and_off_takes_it_away(
    agent: AgentProcess, broker: Mosquitto
) -> None:
    with TopicClient(broker.port, "homeassistant/#", "edgewright/#") as home, agent:
        home.wait(AVAILABILITY)
        eventually("discovery", lambda: len(configs(home)) == 4)
        home.heard.clear()
        home.send("homeassistant/status", b"offline")
        home.send("homeassistant/status", b"online")
        eventually("discovery again", lambda: len(configs(home)) == 4)
        assert home.wait(AVAILABILITY).payload == b"online"
        agent.config.write_text(agent.config.read_text().split("[home_assistant]")[0])
        agent.process.send_signal(1)  # SIGHUP
        eventually("nothing is left", lambda: not configs(home))
        assert home.wait(AVAILABILITY, 2).payload == b"offline"


def test_names_become_identifiers_and_stay_different() -> None:
    assert _identifier("gate.1") == "gate-2e-1"
    assert len({_identifier(name) for name in ("a.b", "a_b", "a-b")}) == 3


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Manifest:
    folder = tmp_path_factory.mktemp("top") / "b"
    bundles.make_bundle(folder, labels=("left", "middle", "right"))
    return parse_manifest((folder / "manifest.json").read_bytes())


def answer(data: object, **parameters: object) -> dict[str, Any]:
    output = {"name": "y", "datatype": "FP32", "shape": [1, 3], "data": data}
    return {"outputs": [output], "parameters": parameters}


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        (answer([0.0, 2.0, 1.0]), "middle"),
        (answer(b"\0\0\0\0\0\0\0\0\0\0\x80\x3f"), "right"),
        (answer([1e30, 0.0, 0.0]), "left"),
        (answer([0.0, 2.0, 1.0], abstained=True), "abstained"),
        (answer([float("nan"), 0.0, 0.0]), None),
        (answer([None, 0.0, 0.0]), None),
        (answer([]), None),
        ({"outputs": []}, None),
    ],
)
def test_top_class(manifest: Manifest, fields: dict[str, Any], expected: str | None) -> None:
    found = top_class(fields, manifest)
    assert (found and found[0]) == expected
    if found is not None and found[1] is not None:
        assert 0.0 <= found[1] <= 1.0
