"""Renewing the device's certificate: a short-lived process, because the keys' library costs 11 MB.

    python -m edge_agent.enrollment <RenewalPlan JSON>

It says one JSON line, what came of it, and may be killed at any moment. When it runs is in
`edge_agent.supervisor.identity_monitor`, what it does in `edge_agent.enrollment.client`.
"""

from __future__ import annotations

import os
import sys
import threading
from pathlib import Path

import msgspec

from edge_agent.enrollment.client import renew
from edge_agent.identity.files import IdentityFolder
from edge_agent.ipc.renewal import RenewalOutcome, RenewalPlan
from edge_contracts.errors import EdgewrightError


def _end_with_parent() -> None:
    """End this process when its standard input closes, which happens when the supervisor is gone."""
    os.read(0, 1)
    os._exit(0)


def main(arguments: list[str]) -> int:
    """Run the plan given as the only argument."""
    threading.Thread(target=_end_with_parent, daemon=True).start()
    plan = msgspec.json.decode(arguments[0].encode(), type=RenewalPlan)
    try:
        renew(IdentityFolder(Path(plan.identity)), plan.broker, plan.timeout_s)
        outcome = RenewalOutcome(renewed=True)
    except EdgewrightError as error:
        outcome = RenewalOutcome(renewed=False, reason=error.reason, text=str(error), hint=error.hint or "")
    except OSError as error:
        outcome = RenewalOutcome(renewed=False, reason="device", text=str(error))
    sys.stdout.buffer.write(msgspec.json.encode(outcome) + b"\n")
    sys.stdout.buffer.flush()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
