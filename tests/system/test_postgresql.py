"""The fleet's database on a real PostgreSQL server: several workers, redeliveries, and a rollout's evidence."""

from __future__ import annotations

import contextlib
import itertools
import os
import threading
from collections.abc import Iterator

import pytest

from benchmarks.common.private_postgres import PrivatePostgres, private_postgres
from edge_contracts.state import Installed, Presence, ReportedState, SlotState
from edge_contracts.telemetry import TelemetryWindow, Tombstone
from edge_fleet.database.rollouts import Participant, RolloutStore
from edge_fleet.database.telemetry import TelemetryStore
from edge_fleet.evidence.gates import Observation
from edge_fleet.rollouts.plan import RolloutPlan, WaveStep
from edge_fleet.rollouts.plan_state import StepDecision, StepState

pytestmark = pytest.mark.timeout(120)
NOW = "2026-11-20T10:00:00.000000Z"
_names = (f"fleet{number}" for number in itertools.count())


@pytest.fixture(scope="module", name="server")
def _server() -> Iterator[PrivatePostgres]:
    with private_postgres() as server:
        if server is None and os.environ.get("CI"):
            pytest.fail("PostgreSQL is not installed in CI")
        if server is None:
            pytest.skip("PostgreSQL is not installed")
        yield server


@pytest.fixture(name="url")
def _url(server: PrivatePostgres) -> str:
    return server.database(next(_names))


def _window(device: str, sequence: int) -> TelemetryWindow:
    return TelemetryWindow(
        device=device, boot_id="b", sequence=sequence, start=NOW, end=NOW, slot="main", counters={"requests": 1}
    )


def test_two_workers_store_what_both_are_given_once(url: str) -> None:
    TelemetryStore(url).close()
    batches = [
        [_window(f"d{number % 7}", number // 7) for number in range(start, start + 50)] for start in range(0, 700, 50)
    ]
    failures: list[BaseException] = []

    def work(mine: list[list[TelemetryWindow]]) -> None:
        try:
            with contextlib.closing(TelemetryStore(url)) as store:
                for batch in mine:
                    store.ingest(batch, NOW)
        except BaseException as error:
            failures.append(error)

    workers = [threading.Thread(target=work, args=(order,)) for order in (batches, batches[::-1])]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert not failures
    with contextlib.closing(TelemetryStore(url)) as store:
        assert store.count_messages("window") == 700
        assert [store.gaps(f"d{number}", "b") for number in range(7)] == [[]] * 7
        assert [row.device for row in store.devices()] == [f"d{number}" for number in range(7)]


def test_gaps_tombstones_presence_and_reports_are_kept(url: str) -> None:
    with contextlib.closing(TelemetryStore(url)) as store:
        tomb = Tombstone(device="d", boot_id="b", sequence=5, time=NOW, first=1, count=2)
        report = ReportedState(
            device="d", boot_id="b", sequence=0, time=NOW, agent_version="1", board="pi-4", architecture="aarch64",
            tags={"site": "a\\b{}\",'"}, slots=(SlotState(slot="main", channel="c", state="committed"),),
        )  # fmt: skip
        for _ in range(2):
            store.ingest([_window("d", 0), tomb, Presence(device="d", boot_id="b", online=True), report], NOW)
        assert store.gaps("d", "b") == [range(3, 5)]
        (row,) = store.devices()
        assert (row.online, row.reported) == (True, report)
    with contextlib.closing(RolloutStore(url)) as rollouts:
        (change,) = rollouts.roster("c", 10**9)
        assert (change.state, change.online, change.tags) == ("committed", True, report.tags)


def test_one_controller_holds_the_lease_and_evidence_keeps_its_order(url: str) -> None:
    plan = RolloutPlan(channel="c", model="m", version="1.0.0", steps=(WaveStep(percent=100.0),))
    stable = Installed(version="1.0.0", manifest_sha256="a" * 64)
    with contextlib.closing(RolloutStore(url)) as one, contextlib.closing(RolloutStore(url)) as other:
        assert one.lease("rollouts", "one", 100.0, 15.0)
        assert not other.lease("rollouts", "other", 110.0, 15.0)
        assert other.lease("rollouts", "other", 116.0, 15.0)
        one.begin("r", stable.manifest_sha256, plan, 100.0, NOW)
        seen = [Participant(device=f"d{number}", state="committed", outcome="passed") for number in range(3)]
        evidence = [Observation(gate="failures", device=each.device, value=0.0) for each in seen]
        for store in (one, other):
            store.follow("r", 1, seen, evidence, NOW)
        assert [each.device for _, each in one.evidence("r")] == ["d0", "d1", "d2"]
        assert one.participants("r") == seen
        made = StepDecision(action="finish", why="all")
        one.decide("r", made, StepState(step=0, elapsed_s=1.5), 3, {"failures": -0.125}, NOW)
        (stored,) = other.decisions("r")
        assert (stored.action, stored.log_e, stored.state.elapsed_s) == ("finish", {"failures": -0.125}, 1.5)
