"""What the supervisor and a certificate renewal say to each other."""

from __future__ import annotations

from edge_agent.config.agent_toml import BrokerConfig
from edge_contracts.codec import StrictRecord

TIMEOUT_S = 60.0
"""How long one renewal may take, in seconds."""


class RenewalPlan(StrictRecord, frozen=True, kw_only=True):
    """What a renewal is told, as one JSON argument."""

    identity: str
    broker: BrokerConfig
    timeout_s: float = TIMEOUT_S


class RenewalOutcome(StrictRecord, frozen=True, kw_only=True):
    """What came of a renewal, as one JSON line."""

    renewed: bool
    reason: str = ""
    text: str = ""
    hint: str = ""
