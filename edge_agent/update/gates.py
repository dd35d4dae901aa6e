"""Whether a soaking release keeps its rollout's gates. Counting is in `tally`, what follows in `update`."""

from __future__ import annotations

from edge_agent.update.events import Event, GateFailed, Soaked
from edge_agent.update.record import UpdateRecord


def judge(record: UpdateRecord, requests: int, failures: int, served_s: float) -> Event | None:
    """Return what the gates say of a soaking release that has served for `served_s` seconds, answered `requests` and
    failed `failures` of them; None to go on soaking. An error share is believed early from 20 requests on, because a
    lone first failure proves little."""
    if record.state != "active" or record.candidate is None:
        return None
    gates = record.candidate.gates
    over = requests > 0 and failures / requests > gates.max_error_share
    done = served_s >= gates.soak_s and requests >= gates.min_requests
    if over and (done or requests >= max(20, gates.min_requests)):
        return GateFailed(reason="error-share")
    return Soaked() if done else None
