"""What `test_write_budget.py` and `test_write_budget_processes.py` share."""

from __future__ import annotations

from edge_agent.host.write_budget import DAY_S

NOON = 20_000 * DAY_S + DAY_S / 2
