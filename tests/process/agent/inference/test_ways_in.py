"""What the how-to pages on data show: their programs run, their configurations load."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from support.brokers.brokers import Mosquitto
from support.brokers.topic_client import TopicClient
from support.makers import bundles
from support.makers.image_bundles import make_image_bundle
from support.sites.agent_process import AgentProcess

from edge_agent.config.agent_toml import load_config
from edge_agent.config.reload_plan import LIVE
from edge_agent.errors import ConfigError

ROOT = Path(__file__).resolve().parents[4]
HOW_TO = ROOT / "docs" / "how-to"
BASE = '[device]\nid = "dev-1"\n[broker]\nhost = "localhost"\n[trust]\nroot = "root.json"\n'
SLOT = '[[slots]]\nname = "wrist"\nchannel = "wrist"\n'


def blocks(page: str, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", (HOW_TO / page).read_text(), re.DOTALL)


def test_configurations_of_the_pages_load(tmp_path: Path) -> None:
    (data,) = blocks("mqtt-data.md", "toml")
    (home,) = blocks("home-assistant.md", "toml")
    (tmp_path / "agent.toml").write_text(BASE + home + data)
    config = load_config(tmp_path / "agent.toml")
    assert config.data_broker is not None
    assert config.data_broker.host == "192.168.1.10"
    assert config.slots[0].mqtt is not None
    assert config.slots[0].mqtt.error == "answers/wrist/error"


def test_every_commented_field_of_the_example_is_one(tmp_path: Path) -> None:
    text = (ROOT / "firmware_configs" / "agent.toml").read_text()
    wanted = text[text.index("# [data.broker]") : text.index("# One [[slots]]")] + text[text.index("# [slots.mqtt]") :]
    lines = [line.removeprefix("# ") for line in wanted.splitlines() if re.match(r"# (\[|[a-z_]+ = )", line)]
    at = lines.index("[slots.mqtt]")
    (tmp_path / "agent.toml").write_text(BASE + "\n".join([*lines[:at], SLOT, *lines[at:]]))
    config = load_config(tmp_path / "agent.toml")
    assert config.home_assistant is not None
    assert config.slots[0].mqtt is not None
    assert config.slots[0].mqtt.stale_after_s == 10.0


@pytest.mark.parametrize(
    ("mqtt", "field"),
    [
        ('input = "a"\noutput = "a"', "input"),
        ('input = "a/error"\noutput = "a"', "input"),
        ('input = "a/b"\noutput = "a"', "input"),
        ('input = "a/#"\noutput = "b"', "input"),
        ('input = "$SYS/x"\noutput = "b"', "input"),
        ('input = "ew/v1/default/d/dev-1/req"\noutput = "b"', "input"),
        ('input = "a"\noutput = "ew/v1/default/d/dev-1"', "output"),
        ('input = "a"\noutput = ""', "output"),
        ('input = "a"\noutput = "b"\nqueue = 0', "queue"),
        ('input = "a"\noutput = "b"\ndrop = "all"', "drop"),
    ],
)
def test_topics_that_would_go_wrong_are_refused(tmp_path: Path, mqtt: str, field: str) -> None:
    (tmp_path / "agent.toml").write_text(f"{BASE}{SLOT}[slots.mqtt]\n{mqtt}\n")
    with pytest.raises(ConfigError, match=rf"^config.slots\[(0|\.\.\.)\].mqtt.{field}"):
        load_config(tmp_path / "agent.toml")


def test_two_slots_cannot_answer_each_other(tmp_path: Path) -> None:
    first = f'{SLOT}[slots.mqtt]\ninput = "b/error"\noutput = "a"\n'
    second = SLOT.replace("wrist", "other") + 'http = "127.0.0.1:0"\n[slots.mqtt]\ninput = "a/error"\noutput = "b"\n'
    (tmp_path / "agent.toml").write_text(BASE + first + second)
    with pytest.raises(ConfigError, match="would come back as questions"):
        load_config(tmp_path / "agent.toml")


def test_topics_need_a_broker(tmp_path: Path) -> None:
    text = '[device]\nid = "d"\n[[slots]]\nname = "m"\nfactory = "f"\n[slots.mqtt]\ninput = "a"\noutput = "b"\n'
    (tmp_path / "agent.toml").write_text(text)
    with pytest.raises(ConfigError, match=r"^config.data.broker"):
        load_config(tmp_path / "agent.toml")


def test_page_on_reload_names_what_may_change() -> None:
    page = (HOW_TO / "reload.md").read_text()
    for field in ("tags", "threads", "memory_mb", "drain_s", "batch", "mqtt", "home_assistant", "window_s"):
        assert field in LIVE.pattern
        assert field in page


def test_messagepack_example_of_the_page_is_answered(tmp_path: Path) -> None:
    (program,) = blocks("mqtt-data.md", "python")
    bundles.make_bundle(tmp_path / "factory")
    with Mosquitto(tmp_path) as broker, TopicClient(broker.port, "answers/wrist/#") as client:
        agent = AgentProcess(tmp_path, None, factory=tmp_path / "factory", broker_port=broker.port)
        topics = '[slots.mqtt]\ninput = "sensors/wrist"\noutput = "answers/wrist"\n'
        agent.config.write_text(agent.config.read_text() + topics)
        with agent:
            agent.served_by()
            code = program.replace("1883", str(broker.port))
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
