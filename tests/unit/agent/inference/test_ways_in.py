"""What the how-to pages on data show: their programs run, their configurations load."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from support.parts.ways_in import HOW_TO, ROOT, blocks

from edge_agent.config.agent_toml import load_config
from edge_agent.config.reload_plan import LIVE
from edge_agent.errors import ConfigError

BASE = '[device]\nid = "dev-1"\n[broker]\nhost = "localhost"\n[trust]\nroot = "root.json"\n'
SLOT = '[[slots]]\nname = "wrist"\nchannel = "wrist"\n'


def test_configurations_of_the_pages_load(tmp_path: Path) -> None:
    (data,) = blocks("mqtt-data.md", "toml")
    (home,) = blocks("home-assistant.md", "toml")
    (tmp_path / "agent.toml").write_text(BASE + home + data)
    config = load_config(tmp_path / "agent.toml")
    assert config.data_broker is not None
    assert config.data_broker.host == "192.168.1.10"
    assert config.slots[0].mqtt is not None
    assert config.slots[0].mqtt.error == "answers/dev-0001/wrist/error"


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
    with pytest.raises(ConfigError, match="would be read as requests"):
        load_config(tmp_path / "agent.toml")


def test_topics_need_a_broker(tmp_path: Path) -> None:
    text = '[device]\nid = "d"\n[[slots]]\nname = "m"\nfactory = "f"\n[slots.mqtt]\ninput = "a"\noutput = "b"\n'
    (tmp_path / "agent.toml").write_text(text)
    with pytest.raises(ConfigError, match=r"^config.data.broker"):
        load_config(tmp_path / "agent.toml")


def test_page_on_reload_names_what_may_change() -> None:
    page = (HOW_TO / "reload.md").read_text()
    may_change = set(re.findall(r"[a-z]\w+", LIVE.pattern)) - {"telemetry", "device"}
    assert may_change >= {"tags", "threads", "memory_mb", "drain_s", "batch", "mqtt", "home_assistant", "otlp"}
    for field in may_change:
        assert re.search(rf"\b{field}\b", page), field
