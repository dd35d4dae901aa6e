"""What `test_doctor_identity.py` and `test_doctor_identity_processes.py` share."""

from __future__ import annotations

from pathlib import Path

from edge_agent.config.agent_toml import AgentConfig, parse_config

DAY = 86_400.0
BEGIN = 25_000 * DAY
NOBODY = {"host": "127.0.0.1", "port": 1}


def device(folder: Path, **parts: object) -> AgentConfig:
    state = folder / "state"
    state.mkdir(exist_ok=True)
    value = {"device": {"id": "dev-1", "state": str(state)}, "slots": [{"name": "main", "factory": str(folder)}]}
    return parse_config(value | parts)
