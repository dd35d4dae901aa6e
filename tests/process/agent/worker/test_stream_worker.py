"""Streams through a real agent: over HTTP with a client of others' making, over MQTT, and across a worker's death."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import psutil
import pytest
from support.brokers.brokers import make_broker
from support.brokers.topic_client import TopicClient
from support.makers.stream_bundles import frames, make_stream_bundle, right_answers
from support.sites.agent_process import AgentProcess, eventually

IN, OUT = "microphone/hall", "answers/hall"
STEPS = frames(1000)
RIGHT = right_answers(STEPS)


@pytest.fixture(name="port")
def _port(tmp_path: Path) -> Iterator[int]:
    with make_broker("embedded", tmp_path) as broker:
        yield broker.port


@pytest.fixture(name="agent")
def _agent(tmp_path: Path, port: int) -> Iterator[AgentProcess]:
    make_stream_bundle(tmp_path / "factory")
    agent = AgentProcess(tmp_path, None, factory=tmp_path / "factory", broker_port=port)
    topics = f'[slots.mqtt]\ninput = "{IN}"\noutput = "{OUT}"\nqueue = 64\n'
    agent.config.write_text(agent.config.read_text().replace('"3.1.1"', '"auto"') + topics)
    with agent:
        eventually("a worker answers", lambda: agent.slot().served_by)
        yield agent


def question(step: int, **parameters: Any) -> bytes:
    tensor = {"name": "x", "datatype": "FP32", "shape": [1, 2], "data": STEPS[step].ravel().tolist()}
    return json.dumps({"inputs": [tensor], "id": str(step), "parameters": parameters}).encode()


def told(client: TopicClient, step: int) -> dict[str, Any]:
    """Return the answer to a step once it has come."""

    def probe() -> dict[str, Any] | None:
        found = (msgspec.json.decode(message.payload) for message in client.on(OUT))
        return next((answer for answer in found if answer.get("id") == str(step)), None)

    return eventually(f"the answer to step {step}", probe)


@pytest.mark.filterwarnings("default")  # gevent and tritonclient warn about themselves
def test_a_thousand_steps_over_http_are_answered_as_by_the_engine_itself(agent: AgentProcess) -> None:
    from tritonclient import http as triton

    client = triton.InferenceServerClient(agent.slot().http)
    tensor = triton.InferInput("x", [1, 2], "FP32")
    for step in range(1000):
        tensor.set_data_from_numpy(STEPS[step])
        answer = client.infer(
            "remembering", [tensor], sequence_id=5, sequence_start=step == 0, sequence_end=step == 999
        )
        np.testing.assert_array_equal(answer.as_numpy("y"), RIGHT[step])
        assert answer.as_numpy("state_out") is None
    tensor.set_data_from_numpy(STEPS[0])
    again = client.infer("remembering", [tensor], sequence_id=5).get_response()
    assert again["parameters"]["sequence_start"]
    assert "started anew" in again["parameters"]["warnings"]
    client.close()


def test_messages_on_a_topic_are_steps_of_its_stream(agent: AgentProcess, port: int) -> None:
    with TopicClient(port, f"{OUT}/#", version5=False) as client:
        eventually("the agent listens", lambda: client.send(IN, question(0)) or client.on(OUT))
        first = msgspec.json.decode(client.on(OUT)[0].payload)
        assert first["parameters"]["sequence_start"]
        assert "warnings" not in first["parameters"]
        client.send(IN, question(0, sequence_id="own", sequence_start=True))
        for step in range(1, 50):
            client.send(IN, question(step, sequence_id="own"))
        for step in range(1, 50):
            answer = told(client, step)
            assert [output["name"] for output in answer["outputs"]] == ["y"]
            np.testing.assert_array_equal(np.float32(answer["outputs"][0]["data"]), RIGHT[step].ravel())


def test_tags_on_a_topic_are_streams_of_their_own(agent: AgentProcess, port: int) -> None:
    with TopicClient(port, f"{OUT}/#", version5=False) as client:
        eventually("the agent listens", lambda: client.send(IN, question(999)) or client.on(OUT))
        for step in range(4):
            for tag in ("left", "right"):
                client.send(IN, question(step, tag=tag))
        eventually("eight answers", lambda: len(client.on(OUT)) >= 9)
        answers = [msgspec.json.decode(message.payload) for message in client.on(OUT)]
        for step in range(4):
            found = [answer for answer in answers if answer["id"] == str(step)]
            assert len(found) == 2
            for answer in found:
                np.testing.assert_array_equal(np.float32(answer["outputs"][0]["data"]), RIGHT[step].ravel())


def test_a_stream_whose_worker_died_starts_anew_and_says_so(agent: AgentProcess, port: int) -> None:
    with TopicClient(port, f"{OUT}/#", version5=False) as client:
        eventually("the agent listens", lambda: client.send(IN, question(999)) or client.on(OUT))
        client.send(IN, question(0, sequence_id=3, sequence_start=True))
        told(client, 0)
        for child in psutil.Process(agent.process.pid).children():
            if "edge_agent.worker" in " ".join(child.cmdline()):
                child.kill()
                child.wait(10)
        eventually("another worker answers", lambda: client.send(IN, question(1, sequence_id=4)) or _has(client, "1"))
        client.send(IN, question(2, sequence_id=3))
        answer = told(client, 2)
        assert "stream 3: started anew" in answer["parameters"]["warnings"]
        np.testing.assert_array_equal(np.float32(answer["outputs"][0]["data"]), right_answers(STEPS[2:3])[0].ravel())
        eventually("it is counted", lambda: agent.slot().counters.get("streams_restarted"))


def _has(client: TopicClient, number: str) -> bool:
    return any(msgspec.json.decode(message.payload).get("id") == number for message in client.on(OUT))
