"""Requests over MQTT: a real broker, a real agent, and on the other side sensors and attackers."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from support.brokers.brokers import BROKERS, Mosquitto, make_broker
from support.brokers.topic_client import TopicClient
from support.makers import bundles
from support.sites.agent_process import AgentProcess, eventually

from edge_contracts.limits import MAX_DATA_BYTES

IN, OUT = "sensors/wrist", "answers/wrist"
TOPICS = f'[slots.mqtt]\ninput = "{IN}"\noutput = "{OUT}"\nstale_after_s = 2.0\n'


def question(value: float = 1.0, **more: Any) -> bytes:
    data = [value, 0.0, 0.0, 0.0]
    tensor = {"name": "x", "datatype": "FP32", "shape": [1, 4], "data": data}
    return json.dumps({"inputs": [tensor], **more}).encode()


def packed(name: str, shape: list[int], data: bytes, **more: Any) -> bytes:
    tensor = {"name": name, "datatype": "FP32", "shape": shape, "data": data}
    return msgspec.msgpack.encode({"inputs": [tensor], **more})


def with_topics(folder: Path, port: int, topics: str = TOPICS, protocol: str = "auto") -> AgentProcess:
    bundles.make_bundle(folder / "factory", version="0.1.0", labels=("left", "middle", "right"))
    agent = AgentProcess(folder, None, factory=folder / "factory", broker_port=port)
    text = agent.config.read_text().replace('protocol = "3.1.1"', f'protocol = "{protocol}"')
    agent.config.write_text(text + topics)
    return agent


def listening(agent: AgentProcess, client: TopicClient) -> None:
    """Wait until a question is answered, and with it every one that was sent before."""
    agent.served_by()

    def answered() -> bool:
        client.send(IN, question(id="hello"))
        return bool(client.on(OUT))

    eventually("the first answer", answered)
    client.send(IN, question(id="last hello"))
    eventually("the last one", lambda: any(b"last hello" in message.payload for message in client.on(OUT)))
    client.heard.clear()


def counted(agent: AgentProcess, name: str, before: Mapping[str, int]) -> int:
    """Return how much the slot's counter has grown."""
    return agent.slot().counters.get(name, 0) - before.get(name, 0)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("data")


@pytest.fixture(scope="module")
def broker(folder: Path) -> Iterator[Mosquitto]:
    with Mosquitto(folder) as broker:
        yield broker


@pytest.fixture(scope="module")
def shared_agent(folder: Path, broker: Mosquitto) -> Iterator[AgentProcess]:
    with with_topics(folder, broker.port) as agent:
        yield agent


@pytest.fixture
def client(shared_agent: AgentProcess, broker: Mosquitto) -> Iterator[TopicClient]:
    with TopicClient(broker.port, f"{OUT}/#", "ew/v1/#", "elsewhere/#") as client:
        listening(shared_agent, client)
        yield client


def test_json_question_gets_its_answer_with_its_id(client: TopicClient) -> None:
    client.send(IN, question(id="q-1"))
    answer = json.loads(client.wait(OUT).payload)
    assert answer["id"] == "q-1"
    assert np.allclose(answer["outputs"][0]["data"], bundles.WEIGHTS[0])
    assert answer["parameters"]["served_by"].startswith("factory:")


def test_messagepack_question_is_answered_in_messagepack(client: TopicClient) -> None:
    x, _ = bundles.samples(2)
    client.send(IN, packed("x", [2, 4], x.tobytes(), id="m-1"))
    answer = msgspec.msgpack.decode(client.wait(OUT).payload)
    (output,) = answer["outputs"]
    assert answer["id"] == "m-1"
    assert output["shape"] == [2, 3]
    found = np.frombuffer(output["data"], np.float32).reshape(2, 3)
    assert np.allclose(found, x @ bundles.WEIGHTS, atol=1e-5)


def test_answer_goes_to_the_response_topic_with_the_correlation(client: TopicClient) -> None:
    client.send(IN, question(), response_topic=f"{OUT}/alice", correlation=b"\x00\xff42")
    answer = client.wait(f"{OUT}/alice")
    assert answer.properties.CorrelationData == b"\x00\xff42"
    assert not client.on(OUT)


@pytest.mark.parametrize(
    "topic", ["ew/v1/default/d/dev-1/reported", "elsewhere/x", f"{OUT}-not", f"{OUT}/error", f"{OUT}"]
)
def test_device_cannot_be_made_to_publish_elsewhere(client: TopicClient, topic: str) -> None:
    before = len([message for message in client.heard if b"response topic" in message.payload])
    client.send(IN, question(), response_topic=topic, correlation=b"c")
    error = client.wait(f"{OUT}/error")
    assert json.loads(error.payload)["reason"] == "malformed"
    assert "response topic" in json.loads(error.payload)["error"]
    assert error.properties.CorrelationData == b"c"
    assert before == 0
    assert not [message for message in client.heard if message.topic == topic and b'"outputs"' in message.payload]


@pytest.mark.parametrize(
    ("payload", "reason"),
    [
        (b"", "malformed"),
        (b"\x00" * 100, "malformed"),
        (b"\xdf\xff\xff\xff\xff", "malformed"),
        (b"{" * 5000, "tensor"),
        (b"{}", "tensor"),
        (question(id="huge").replace(b"[1, 4]", b"[1, 4000000000]"), "tensor"),
        (question(float("nan")), "tensor"),
        (
            msgspec.msgpack.encode({"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 4], "data": b"123"}]}),
            "tensor",
        ),
        (b"{" + b" " * MAX_DATA_BYTES + b"}", "malformed"),
    ],
)
def test_hostile_payload_is_a_typed_error(client: TopicClient, payload: bytes, reason: str) -> None:
    client.send(IN, payload)
    error = json.loads(client.wait(f"{OUT}/error").payload)
    assert (error["slot"], error["reason"]) == ("main", reason)
    client.send(IN, question(id="after"))
    assert json.loads(client.wait(OUT).payload)["id"] == "after"


@pytest.mark.parametrize("pack", [False, True], ids=["json", "messagepack"])
def test_tag_of_a_question_reaches_the_slot(client: TopicClient, pack: bool) -> None:
    def tagged(tag: str) -> bytes:
        more = {"parameters": {"tag": tag}, "id": tag}
        return packed("x", [1, 4], bytes(16), **more) if pack else question(**more)

    client.send(IN, tagged("line-2"))
    answer = client.wait(OUT).payload
    assert (msgspec.msgpack.decode(answer) if pack else json.loads(answer))["id"] == "line-2"
    client.send(IN, tagged("line 2"))
    error = json.loads(client.wait(f"{OUT}/error").payload)
    assert (error["id"], error["reason"]) == ("line 2", "tensor")
    assert "request.parameters.tag" in error["error"]


def test_error_names_the_id_of_its_question(client: TopicClient) -> None:
    client.send(IN, question(id="bad").replace(b'"x"', b'"z"'))
    assert json.loads(client.wait(f"{OUT}/error").payload)["id"] == "bad"


def test_message_beyond_what_is_read_costs_nothing(client: TopicClient) -> None:
    client.send(IN, b" " * (3 * MAX_DATA_BYTES))
    client.send(IN, question(id="after"))
    assert json.loads(client.wait(OUT).payload)["id"] == "after"


def test_worker_killed_under_way_is_an_answer_or_an_error_never_silence(
    client: TopicClient, shared_agent: AgentProcess
) -> None:
    for number in range(16):  # as many as may wait: more would be dropped, as declared, where the machine is slow
        client.send(IN, question(id=f"k-{number}"))
        if number == 5:
            os.kill(shared_agent.slot().workers[0], signal.SIGKILL)
    eventually("16 of 16", lambda: len(client.on(OUT)) + len(client.on(f"{OUT}/error")) >= 16)


def test_silence_is_a_fault_that_input_ends(client: TopicClient, shared_agent: AgentProcess) -> None:
    eventually("the fault", lambda: shared_agent.slot().faults == ("no-input",))

    def reported() -> list[str]:
        messages = client.on("ew/v1/default/d/dev-1/reported")
        return json.loads(messages[-1].payload)["slots"][0].get("faults", []) if messages else []

    eventually("the report of it", lambda: reported() == ["no-input"])
    client.send(IN, question())
    eventually("the end of it", lambda: shared_agent.slot().faults == ())
    assert "input-stale" in shared_agent.log
    assert "input-fresh" in shared_agent.log


@pytest.mark.parametrize("kind", BROKERS)
def test_retained_message_of_before_is_no_input(tmp_path: Path, kind: str) -> None:
    broker = make_broker(kind, tmp_path)
    broker.start()
    try:
        with TopicClient(broker.port, f"{OUT}/#", version5=False) as client:
            client.send(IN, question(id="old"), retain=True)
            with with_topics(tmp_path, broker.port, protocol="3.1.1") as agent:
                agent.served_by()
                listening(agent, client)
                client.send(IN, question(id="new"))
                assert json.loads(client.wait(OUT).payload)["id"] == "new"
                assert agent.slot().counters["mqtt_received"] == agent.slot().counters["mqtt_answered"]
    finally:
        broker.stop()


@pytest.mark.parametrize(("drop", "kept"), [("oldest", "last"), ("newest", "first")])
def test_full_queue_drops_what_was_declared_and_counts_it(tmp_path: Path, drop: str, kept: str) -> None:
    with Mosquitto(tmp_path) as broker:
        topics = TOPICS + f'queue = 2\ndrop = "{drop}"\ntimeout_s = 30.0\n'
        with with_topics(tmp_path, broker.port, topics) as agent, TopicClient(broker.port, f"{OUT}/#") as client:
            listening(agent, client)
            worker = agent.slot().workers[0]
            before = agent.slot().counters
            os.kill(worker, signal.SIGSTOP)
            try:
                client.send(IN, question(id="0"))
                eventually("the first is asked", lambda: counted(agent, "mqtt_received", before) == 1)
                for number in range(1, 10):
                    client.send(IN, question(id=f"{number}"))
                eventually("drops", lambda: counted(agent, "mqtt_dropped", before) == 7)
            finally:
                os.kill(worker, signal.SIGCONT)
            client.wait(OUT, 3)
            ids = [json.loads(message.payload)["id"] for message in client.on(OUT)]
            assert ids == {"last": ["0", "8", "9"], "first": ["0", "1", "2"]}[kept]


def test_data_go_over_a_local_broker_while_the_agent_has_no_other_and_the_broker_may_come_back(tmp_path: Path) -> None:
    with Mosquitto(tmp_path) as broker:
        bundles.make_bundle(tmp_path / "factory", version="0.1.0")
        agent = AgentProcess(tmp_path, None, factory=tmp_path / "factory")
        data = f'[data.broker]\nhost = "127.0.0.1"\nport = {broker.port}\n'
        agent.config.write_text(agent.config.read_text() + TOPICS + data)
        with agent:
            assert agent.status().broker is None
            for _ in range(2):
                with TopicClient(broker.port, f"{OUT}/#") as client:
                    listening(agent, client)
                broker.kill()
                broker.start()
