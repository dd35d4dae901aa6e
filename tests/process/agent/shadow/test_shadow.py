"""A candidate in shadow beside real workers: what it is shown, what it may do, and what follows from its answers."""

from __future__ import annotations

import contextlib
import sqlite3
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import psutil
import pytest
from support.boxes.pretended_board import Board, BoardAgent, profile
from support.makers import bundles
from support.sites.agent_process import AgentProcess, eventually
from support.sites.update_site import UpdateSite

from edge_agent.capture.files import bytes_in, capture_files
from edge_agent.capture.sealing import make_keys
from edge_agent.cli.status import status_text
from edge_agent.ipc.status import SlotStatus
from edge_contracts.channel import Gates
from edge_contracts.telemetry import Event, TelemetryWindow

pytestmark = pytest.mark.timeout(240)  # each starts an agent, two trials, a worker and a shadow

LIMIT_S = 100.0
PREFIX = "edgewright_agent_shadow_"
PATIENT = Gates(soak_s=0.3, shadow_requests=10, max_crashes=100)


class Clients:
    """Two clients that ask all the time; every answer must come, and come from the serving release."""

    def __init__(self, agent: AgentProcess) -> None:
        self._agent = agent
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._ask) for _ in range(2)]
        self.answers: list[str] = []
        self.failures: list[Exception] = []

    def __enter__(self) -> Clients:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _ask(self) -> None:
        while not self._stop.wait(0.02):
            try:
                self.answers.append(self._agent.ask(timeout_s=30.0)["parameters"]["served_by"])
            except Exception as error:
                self.failures.append(error)


@pytest.fixture
def site(tmp_path: Path) -> UpdateSite:
    site = UpdateSite(tmp_path)
    site.release("1.0.0")
    site.start("1.0.0", gates=Gates(soak_s=0.3))
    return site


@pytest.fixture
def shadowed(tmp_path: Path, site: UpdateSite) -> Iterator[Callable[..., AgentProcess]]:
    """Start an agent that serves 1.0.0 and has 1.1.0, made of `model`, in shadow."""
    agents: list[AgentProcess] = []

    def start(model: bytes, gates: Gates = PATIENT, *, shadow: str = "share = 1.0") -> AgentProcess:
        agent = AgentProcess(tmp_path, site)
        agent.config.write_text(f"{agent.config.read_text()}[slots.shadow]\n{shadow}\n")
        agents.append(agent)
        agent.start()
        agent.bring()
        agent.wait_for("committed", "1.0.0")
        site.release("1.1.0", models=[("fp32", model)], min_score=None)
        site.start("1.1.0", mode="shadow", gates=gates)
        agent.bring()
        agent.wait_for("shadow", "1.1.0")
        return agent

    yield start
    for agent in agents:
        agent.stop()


def messages(agent: AgentProcess, kind: str, type_: type[Any]) -> list[Any]:
    with contextlib.closing(sqlite3.connect(agent.state.outbox)) as database:
        rows = database.execute("SELECT body FROM messages WHERE kind = ? ORDER BY row", (kind,)).fetchall()
    return [msgspec.json.decode(row[0], type=type_) for row in rows]


def wait(agent: AgentProcess, holds: Callable[[SlotStatus], bool], what: str) -> SlotStatus:
    def probe() -> SlotStatus | None:
        slot = agent.slot()
        return slot if holds(slot) else None

    try:
        return eventually(what, probe, LIMIT_S)
    except AssertionError as error:
        raise AssertionError(f"{error}; {agent.slot()}\n{agent.log}") from error


def compared(slot: SlotStatus) -> int:
    return 0 if slot.shadow_counts is None else slot.shadow_counts.compared


def deaths(slot: SlotStatus) -> int:
    return 0 if slot.shadow_counts is None else slot.shadow_counts.deaths


def test_equal_candidate_agrees_and_is_reported_everywhere(shadowed: Callable[..., AgentProcess]) -> None:
    agent = shadowed(bundles.scaled_model(0.5))
    with Clients(agent) as clients:
        slot = wait(agent, lambda slot: compared(slot) >= 15 and slot.shadow is not None, "requests are compared")
    counts, summary = slot.shadow_counts, slot.shadow
    assert counts is not None
    assert summary is not None
    assert counts.agreed == counts.classified == counts.compared
    assert counts.confidence_shift_sum < 0  # half the logits
    assert summary.agreement == 1.0
    assert summary.low is not None
    assert 0 < summary.low < 1
    assert slot.state == "shadow"
    assert set(clients.answers) == {"active:1.0.0/fp32"}
    assert not clients.failures
    agent.stop()
    windows = [window for window in messages(agent, "window", TelemetryWindow) if window.shadow is not None]
    assert sum(window.shadow.compared for window in windows) >= counts.compared
    assert {window.shadow.version for window in windows} == {"1.1.0"}


def test_candidate_that_answers_otherwise_is_rejected_with_the_confused_classes(
    shadowed: Callable[..., AgentProcess],
) -> None:
    agent = shadowed(bundles.wrong_model(), Gates(soak_s=0.3, shadow_requests=10, min_agreement=0.9))
    with Clients(agent) as clients:
        slot = wait(agent, lambda slot: slot.state == "rejected", "the candidate is rejected")
    assert slot.reason == "shadow-disagreement"
    assert set(clients.answers) == {"active:1.0.0/fp32"}
    assert not clients.failures
    agent.stop()
    (told,) = [event for event in messages(agent, "event", Event) if event.event == "shadow-refused"]
    assert "0.0% agree" in told.text


def test_scrape_of_the_slot_shows_what_its_shadow_has_found(shadowed: Callable[..., AgentProcess]) -> None:
    agent = shadowed(bundles.wrong_model(), Gates(soak_s=0.3, min_agreement=0.0))

    def scraped() -> dict[str, float]:
        with urllib.request.urlopen(f"http://{agent.slot().http}/metrics", timeout=10) as answer:
            lines = answer.read().decode().splitlines()
        mine = [line.removeprefix(PREFIX) for line in lines if line.startswith(PREFIX)]
        assert all('{model="linear",slot="main",version="1.0.0"}' in line for line in mine)
        return {line.partition("{")[0]: float(line.rpartition(" ")[2]) for line in mine}

    with Clients(agent):
        wait(agent, lambda slot: compared(slot) >= 10, "requests are compared")
    counts = agent.slot().shadow_counts
    assert counts is not None
    eventually("all of them are shown", lambda: scraped().get("compared", 0.0) >= counts.compared, LIMIT_S)
    found = scraped()
    assert found["disagreed"] == found["compared"]
    assert (found["agreed"], found["failed"], found["deaths"]) == (0, 0, 0)


def test_shadow_that_crashes_costs_no_answer_and_starts_again(shadowed: Callable[..., AgentProcess]) -> None:
    agent = shadowed(bundles.exploding_model())
    with Clients(agent) as clients:
        wait(agent, lambda slot: compared(slot) > 0, "requests are compared")
        before = agent.slot().workers
        eventually("the shadow dies", lambda: agent.ask(1e9) and deaths(agent.slot()) > 0, LIMIT_S)
        again = compared(agent.slot())
        wait(agent, lambda slot: compared(slot) > again, "a new shadow compares")
    assert agent.slot().workers == before
    assert agent.slot().state == "shadow"
    assert not clients.failures
    agent.stop()
    died = [event for event in messages(agent, "event", Event) if event.event == "shadow-died"]
    assert {event.detail["reason"] for event in died} == {"exit-70"}


def test_candidate_that_may_not_crash_is_rejected_before_it_serves(shadowed: Callable[..., AgentProcess]) -> None:
    agent = shadowed(bundles.exploding_model(), Gates(soak_s=0.3))
    eventually("rejected", lambda: agent.ask(1e9) and agent.slot().state == "rejected", LIMIT_S)
    assert agent.slot().reason == "shadow-crash"


def test_shadow_that_hangs_is_killed_and_costs_no_answer(shadowed: Callable[..., AgentProcess]) -> None:
    agent = shadowed(bundles.looping_model(), shadow="share = 1.0\ndeadline_s = 2.0")
    with Clients(agent) as clients:
        wait(agent, lambda slot: compared(slot) > 0, "requests are compared")
        eventually("the shadow is killed", lambda: agent.ask(1e15) and deaths(agent.slot()) > 0, LIMIT_S)
    assert not clients.failures
    agent.stop()
    died = [event for event in messages(agent, "event", Event) if event.event == "shadow-died"]
    assert {event.detail["reason"] for event in died} == {"hung"}


def test_heat_ends_shadow_and_captures_and_both_come_back(tmp_path: Path, site: UpdateSite) -> None:
    board = Board(tmp_path / "board")
    board.heat(50)
    _, public = make_keys(tmp_path / "keys", None)
    lines = f'[slots.shadow]\nshare = 1.0\n[slots.capture]\nkey = "{public}"\nshare = 1.0\n'
    agent = BoardAgent(tmp_path, site, board=board, slots=lines)
    agent.profile(profile(temperature_c=(70, 80, 5)))
    with agent:
        agent.bring()
        agent.wait_for("committed", "1.0.0")
        site.release("1.1.0")
        site.start("1.1.0", mode="shadow", gates=PATIENT)
        agent.bring()
        agent.wait_for("shadow", "1.1.0")
        eventually("a request is compared", lambda: agent.ask() and compared(agent.slot()) > 0, LIMIT_S)
        board.heat(71)
        eventually("nothing runs beside", lambda: not shadows(agent) and not captures(agent.slot()), LIMIT_S)
        eventually("nothing is written for a while", lambda: not written_by_asking(agent), LIMIT_S)
        board.heat(50)
        before = compared(agent.slot())
        eventually("it goes on", lambda: agent.ask() and compared(agent.slot()) > before, LIMIT_S)
        assert captures(agent.slot())
        assert deaths(agent.slot()) == 0
        said = status_text(agent.status())
        assert "compared, 100.0% agree" in said
        assert f"MB in {agent.state.root}/captures/main" in said


def written_by_asking(agent: AgentProcess) -> int:
    """Return how many bytes of captures twenty requests have made."""
    folder = agent.state.root / "captures" / "main"
    before = bytes_in(capture_files(folder))
    for _ in range(20):
        agent.ask()
        time.sleep(0.05)
    return bytes_in(capture_files(folder)) - before


def captures(slot: SlotStatus) -> bool:
    return slot.captured is not None and slot.captured.allowed


def test_no_shadow_runs_where_the_slot_shows_it_nothing(shadowed: Callable[..., AgentProcess]) -> None:
    agent = shadowed(bundles.linear_model(), shadow="share = 0.0")
    for _ in range(20):
        agent.ask()
    assert agent.slot().shadow_counts is None
    assert not shadows(agent)


def test_shadow_ends_with_the_agent_that_was_killed(shadowed: Callable[..., AgentProcess]) -> None:
    agent = shadowed(bundles.linear_model())
    found = eventually("a shadow runs", lambda: shadows(agent), LIMIT_S)
    agent.kill()
    eventually("it ends", lambda: not any(psutil.pid_exists(process.pid) for process in found), LIMIT_S)


def shadows(agent: AgentProcess) -> list[psutil.Process]:
    found = []
    for child in psutil.Process(agent.process.pid).children():
        with contextlib.suppress(psutil.NoSuchProcess):  # it ends just now
            if "edge_agent.shadow" in child.cmdline():
                found.append(child)
    return found
