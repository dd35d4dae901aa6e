"""Which changes make the data connection anew, and which leave it alone."""

from __future__ import annotations

from typing import Any

import pytest

from edge_agent.config.agent_toml import AgentConfig, parse_config
from edge_agent.config.reload_plan import plan_reload

TOPICS = {"input": "in/1", "output": "out/1"}
BROKER = {"broker": {"host": "b"}}
PLAIN = {"name": "main", "factory": "f", "http": "127.0.0.1:0"}
FED = PLAIN | {"mqtt": TOPICS}
OTHER = {"name": "two", "factory": "f", "http": "127.0.0.1:0"}
OTHER_FED = OTHER | {"mqtt": {"input": "in/2", "output": "out/2"}}


def config(*slots: dict[str, Any], **more: Any) -> AgentConfig:
    return parse_config({"device": {"id": "dev-1"}, "slots": list(slots), "home_assistant": {}} | BROKER | more)


def without_home(*slots: dict[str, Any], **more: Any) -> AgentConfig:
    return parse_config({"device": {"id": "dev-1"}, "slots": list(slots)} | BROKER | more)


@pytest.mark.parametrize(
    ("old", "new", "anew"),
    [
        (without_home(FED), without_home(FED), False),
        (without_home(FED), without_home(FED, OTHER), False),
        (without_home(FED, OTHER), without_home(FED), False),
        (without_home(FED), without_home(FED | {"threads": 2}), False),
        (without_home(FED), without_home(FED, telemetry={"window_s": 5.0}), False),
        (without_home(FED), without_home(FED, OTHER_FED), True),
        (without_home(FED, OTHER_FED), without_home(FED), True),
        (without_home(FED), without_home(PLAIN), True),
        (without_home(FED), without_home(FED | {"mqtt": TOPICS | {"output": "out/9"}}), True),
        (without_home(FED), without_home(FED, data={"broker": {"host": "c"}}), True),
        (without_home(FED), config(FED), True),
        (config(FED), without_home(FED), True),
        (config(FED), config(FED), False),
        (config(FED), config(FED | {"threads": 2}), False),
        (config(FED), config(FED, OTHER), True),
        (config(FED, OTHER), config(FED), True),
    ],
)
def test_the_data_connection_is_made_anew_for_what_goes_over_it(old: AgentConfig, new: AgentConfig, anew: bool) -> None:
    assert plan_reload(old, new).data_changed == anew
