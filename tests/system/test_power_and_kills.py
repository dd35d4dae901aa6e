"""SIGKILL of the supervisor, the updater and the worker, and loss of the broker, in every state of an update.

The agent waits at a breakpoint right after the state is durable, so each kill hits exactly the state it is named for.
Whatever is killed, the device keeps answering from 1.0.0 or ends on 1.1.0, and the update completes in the end.
"""

from __future__ import annotations

import pytest
from support.brokers.brokers import EmbeddedBroker
from support.sites.fleet_site import Site

from edgewright.demo.stage import wait_for

pytestmark = pytest.mark.timeout(150)

STATES = ["offered", "preflight", "downloading", "verified", "trial", "shadow", "active", "committed"]
FETCHING = {"offered", "preflight", "downloading"}


def serving_first(site: Site) -> None:
    """Bring 1.0.0 to committed, publish 1.1.0 and stop the agent."""
    site.publish("1.0.0")
    site.publish("1.1.0", padding=500_000)
    site.start_depot()
    site.start_agent()
    site.roll_out("1.0.0")
    site.wait_for_state("committed", "1.0.0")
    site.stop("agent")


def settled(site: Site, *, may_roll_back: bool) -> None:
    """Wait until the update has ended well: 1.1.0 committed, or rolled back where a crash in soak must do that."""
    good = {"committed", "rolled_back"} if may_roll_back else {"committed"}

    def ended() -> dict[str, object] | None:
        slot = site.slot()
        return slot if slot["state"] in good and (slot["candidate"] or {}).get("version") == "1.1.0" else None

    slot = wait_for(f"the update ends {good}", ended, timeout_s=60)
    site.serves("1.1.0" if slot["state"] == "committed" else "1.0.0")


@pytest.mark.parametrize("state", STATES)
def test_supervisor_killed_in_state(site: Site, state: str) -> None:
    serving_first(site)
    site.start_agent(breakpoint_at=state)
    site.roll_out("1.1.0")
    site.reached()
    site.kill("supervisor")
    site.start_agent()
    settled(site, may_roll_back=state == "active")


@pytest.mark.parametrize("state", sorted(FETCHING))
def test_updater_killed_in_state(site: Site, state: str) -> None:
    serving_first(site)
    site.start_agent(breakpoint_at=state)
    site.roll_out("1.1.0")
    site.reached()
    site.kill("updater")
    site.go_on()
    settled(site, may_roll_back=False)


@pytest.mark.parametrize("state", STATES)
def test_worker_killed_in_state(site: Site, state: str) -> None:
    serving_first(site)
    site.start_agent(breakpoint_at=state)
    site.roll_out("1.1.0")
    site.reached()
    assert site.kill("worker")
    site.go_on()
    settled(site, may_roll_back=state == "active")


@pytest.mark.parametrize("state", STATES)
def test_broker_lost_in_state(site: Site, state: str) -> None:
    serving_first(site)
    site.start_agent(breakpoint_at=state)
    site.roll_out("1.1.0")
    site.reached()
    assert isinstance(site.broker, EmbeddedBroker)
    site.broker.kill()
    site.go_on()
    assert site.ask().served_by
    site.broker.start()
    settled(site, may_roll_back=False)
