"""What the data broker refuses is counted, said and not waited for; what it retained of ours is taken away."""

from __future__ import annotations

import json
import signal
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.brokers.brokers import Mosquitto
from support.brokers.scripted_broker import Published, ScriptedBroker, publish
from support.brokers.topic_client import TopicClient
from support.makers import bundles
from support.sites.agent_process import AgentProcess, eventually

TOPICS = '[slots.mqtt]\ninput = "in"\noutput = "out"\n'
HOME = "[home_assistant]\nexpire_s = 30.0\n"
DATA = "ew-dev-1-data"


def question(rows: int = 1) -> bytes:
    data = [1.0, 0.0, 0.0, 0.0] * rows
    return json.dumps({"inputs": [{"name": "x", "datatype": "FP32", "shape": [rows, 4], "data": data}]}).encode()


def agent_at(folder: Path, port: int, more: str) -> AgentProcess:
    bundles.make_bundle(folder / "factory", version="0.1.0", labels=("left", "middle", "right"))
    agent = AgentProcess(folder, None, factory=folder / "factory", broker_port=port)
    agent.config.write_text(agent.config.read_text().replace('protocol = "3.1.1"', 'protocol = "5"') + more)
    return agent


def on(broker: ScriptedBroker, topic: str) -> list[Published]:
    return [message for message in broker.published if message.topic == topic]


def test_a_refused_input_is_a_trouble_in_the_status_and_an_event(tmp_path: Path) -> None:
    with (
        ScriptedBroker(suback=lambda topic: 0x87 if topic == "in" else 1) as broker,
        agent_at(tmp_path, broker.port, TOPICS) as agent,
    ):
        eventually("trouble", lambda: "subscription in: Not authorized" in agent.status().data_broker_trouble)
        assert agent.status().data_broker_connected
        assert "broker-refused" in agent.state.audit.read_text()


def test_refused_answers_are_unsent_and_hold_up_nobody(tmp_path: Path) -> None:
    with (
        ScriptedBroker(puback=lambda message: 0x87 if message.topic == "out" else 0) as broker,
        agent_at(tmp_path, broker.port, TOPICS) as agent,
    ):
        agent.served_by()
        eventually("connected", lambda: agent.status().data_broker_connected)
        for number in range(1, 31):  # more than may be under way
            broker.send(publish(b"in", question()), DATA)
            eventually("the answer is published", lambda number=number: len(on(broker, "out")) == number)
        eventually("counted", lambda: agent.slot().counters.get("mqtt_unsent") == 30)
        assert agent.slot().counters.get("mqtt_answered", 0) == 0
        assert "answers on out: Not authorized" in agent.status().data_broker_trouble
        broker.puback = lambda _: 0
        broker.send(publish(b"in", question()), DATA)
        eventually("answered", lambda: agent.slot().counters.get("mqtt_answered") == 1)
        assert agent.status().data_broker_trouble == ""


def test_an_answer_over_the_brokers_limit_is_refused_on_the_error_topic(tmp_path: Path) -> None:
    with (
        ScriptedBroker(connack=lambda _: (0, b"\x27" + struct.pack(">I", 3000))) as broker,
        agent_at(tmp_path, broker.port, TOPICS) as agent,
    ):
        agent.served_by()
        eventually("connected", lambda: agent.status().data_broker_connected)
        broker.send(publish(b"in", question(400)), DATA)
        eventually("the error", lambda: on(broker, "out/error"))
        error = json.loads(on(broker, "out/error")[0].payload)["error"]
        assert "send it over HTTP" in error
        broker.send(publish(b"in", question()), DATA)
        eventually("the next is answered", lambda: on(broker, "out"))
        assert len([one for one in broker.connections if one.client_id == DATA]) == 1


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[Mosquitto]:
    with Mosquitto(tmp_path) as broker:
        yield broker


def retained(broker: Mosquitto) -> set[str]:
    """Return the topics on which the broker retains something of the device's for Home Assistant."""
    with TopicClient(broker.port, "homeassistant/#", "edgewright/#") as client:
        client.send("edgewright/end", b"end")
        client.wait("edgewright/end")
        return {message.topic for message in client.heard if message.retain}


def without_home(agent: AgentProcess) -> None:
    agent.config.write_text(agent.config.read_text().split("[home_assistant]")[0])


def test_a_reload_while_the_broker_is_away_takes_everything_away_once_it_is_back(tmp_path: Path) -> None:
    (tmp_path / "kept").mkdir()
    broker = Mosquitto(tmp_path)
    broker._lines += ["persistence true", f"persistence_location {tmp_path}/kept/"]
    broker.start()
    with agent_at(tmp_path, broker.port, HOME) as agent:
        eventually("announced", lambda: len(retained(broker)) == 3)
        broker.stop()
        eventually("away", lambda: not agent.status().data_broker_connected)
        without_home(agent)
        agent.process.send_signal(signal.SIGHUP)
        broker.start()
        eventually("nothing is left", lambda: not retained(broker), 60)
        eventually("the connection has done its work", lambda: agent.status().data_broker is None)
    broker.stop()


def test_a_restart_with_home_assistant_taken_out_takes_everything_away(tmp_path: Path, broker: Mosquitto) -> None:
    agent = agent_at(tmp_path, broker.port, HOME)
    with agent:
        eventually("announced", lambda: len(retained(broker)) == 3)
    without_home(agent)
    assert len(retained(broker)) == 3
    with agent:
        eventually("nothing is left", lambda: not retained(broker))
    assert json.loads(agent.state.kept_topics.read_text()) == {"brokers": {}}


def test_the_last_words_are_there_after_every_stop(tmp_path: Path, broker: Mosquitto) -> None:
    """A socket that is closed before the broker has acknowledged loses what it had not read: it was 11 of 49 runs."""
    agent = agent_at(tmp_path, broker.port, TOPICS + HOME)
    with TopicClient(broker.port, "edgewright/dev-1/availability", "ew/v1/default/d/dev-1/presence") as client:
        for turn in range(1, 6):
            with agent:
                client.wait("edgewright/dev-1/availability", 2 * turn - 1)
            assert client.wait("edgewright/dev-1/availability", 2 * turn).payload == b"offline"
            assert json.loads(client.on("ew/v1/default/d/dev-1/presence")[-1].payload)["online"] is False
    log = (tmp_path / f"mosquitto-{broker.port}.log").read_text()
    assert "out of memory" not in log
    assert "closed its connection" not in log.replace("Client <unknown> closed its connection", "")
