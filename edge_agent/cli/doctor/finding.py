"""What the doctor's checks are given and what they return. The checks are in `doctor` and `doctor_network`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from edge_agent.config.agent_toml import AgentConfig
from edge_agent.storage.state_dir import StateFolder
from edge_contracts.codec import Record

Verdict = Literal["ok", "warning", "failure", "skipped"]


class Finding(Record, frozen=True, kw_only=True):
    """What one check found; `fix` says what to do about it."""

    check: str
    verdict: Verdict
    text: str
    fix: str | None = None


@dataclass(frozen=True, kw_only=True)
class Target:
    """The device as its configuration names it. `now` in seconds since the epoch."""

    config: AgentConfig
    now: float

    @property
    def state(self) -> StateFolder:
        return StateFolder(self.config.state)


def ok(check: str, text: str) -> Finding:
    """Return what there is nothing to do about."""
    return Finding(check=check, verdict="ok", text=text)


def failure(check: str, text: str, fix: str | None) -> Finding:
    """Return what keeps the device from its work."""
    return Finding(check=check, verdict="failure", text=text, fix=fix)
