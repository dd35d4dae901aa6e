"""What `test_stale_input_monitor.py` tests, where it takes a real process or a wait."""

from __future__ import annotations

from pathlib import Path

from support.makers import bundles
from support.sites.agent_process import AgentProcess, eventually


def test_an_agent_tells_that_nobody_asks_over_http(tmp_path: Path) -> None:
    bundles.make_bundle(tmp_path / "factory")
    agent = AgentProcess(tmp_path, None, factory=tmp_path / "factory")
    agent.config.write_text(agent.config.read_text() + "stale_after_s = 3.0\n")
    with agent:
        agent.served_by()
        eventually("the fault", lambda: agent.slot().faults == ("no-input",))
        agent.ask()
        eventually("the end of it", lambda: agent.slot().faults == ())
        assert "no request for" in agent.log
        assert "requests resumed" in agent.log
