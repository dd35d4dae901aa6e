"""What `test_ways_in.py` tests, where it takes a real process or a wait."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
from support.brokers.brokers import Mosquitto
from support.brokers.topic_client import TopicClient
from support.makers import bundles
from support.makers.image_bundles import make_image_bundle
from support.parts.ways_in import blocks
from support.sites.agent_process import AgentProcess


def test_messagepack_example_of_the_page_is_answered(tmp_path: Path) -> None:
    (program,) = blocks("mqtt-data.md", "python")
    bundles.make_bundle(tmp_path / "factory")
    with Mosquitto(tmp_path) as broker, TopicClient(broker.port, "answers/wrist/#") as client:
        agent = AgentProcess(tmp_path, None, factory=tmp_path / "factory", broker_port=broker.port)
        topics = '[slots.mqtt]\ninput = "sensors/dev-0001/wrist"\noutput = "answers/wrist"\n'
        agent.config.write_text(agent.config.read_text() + topics)
        with agent:
            agent.served_by()
            code = program.replace("broker.example.org", "127.0.0.1").replace("8883", str(broker.port))
            code = code.replace(", tls=tls)", ")")  # this broker has no certificates
            subprocess.run([sys.executable, "-c", code], check=True, timeout=30)
            assert b"outputs" in client.wait("answers/wrist").payload


def test_camera_example_of_the_page_answers_every_frame(tmp_path: Path) -> None:
    (program,) = blocks("camera.md", "python")
    make_image_bundle(tmp_path / "b", (-1, 8, 6, 3))
    run = "import sys; from edge_agent.cli.serve import serve; serve(sys.argv[1:])"
    words = [sys.executable, "-c", run, str(tmp_path / "b"), "--http", "127.0.0.1:0", "--json"]
    server = subprocess.Popen(words, stdout=subprocess.PIPE, text=True)
    try:
        assert server.stdout is not None
        address = json.loads(server.stdout.readline())["url"].removeprefix("http://")
        frames = np.zeros((3, 8, 6, 3), np.uint8)
        for index in range(3):
            frames[index, :, :, index] = 255
        done = subprocess.run(
            [sys.executable, "-c", program, address, "color"], input=frames.tobytes(), capture_output=True, timeout=30
        )
    finally:
        server.terminate()
        server.communicate(timeout=10)
    assert done.stderr == b""
    assert [line.split()[0] for line in done.stdout.decode().splitlines()] == ["0", "1", "2"]
