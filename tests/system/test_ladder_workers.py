"""Workers that hang, crash and leak under a real supervisor, and a supervisor that hangs under a service manager."""

from __future__ import annotations

import contextlib
import http.client
import os
import signal
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.boxes.pretended_board import BoardAgent, ask, factory_slot
from support.makers import bundles
from support.sites.agent_process import eventually
from support.sites.update_site import UpdateSite

from edge_agent.supervisor.slots.restart_policy import PATIENCE
from edge_contracts.channel import Gates

pytestmark = pytest.mark.timeout(120)

FOR_EVER = 1e15
"""The looping model counts as far as its largest input says."""

COUNTED_S = 0.2
"""A worker counts an answer as given after it has sent it: one killed in between counts as lost."""

MEGABYTE_OF_FLOATS = 262_144.0


@pytest.fixture
def agent(tmp_path: Path) -> Iterator[BoardAgent]:
    """An agent with a slot that serves 1.0.0 above a factory bundle, one that may hang and one that may grow."""
    bundles.make_bundle(tmp_path / "factory", version="0.1.0")
    bundles.make_bundle(tmp_path / "loops", models=[("fp32", bundles.looping_model())])
    bundles.make_bundle(tmp_path / "grows", models=[("fp32", bundles.exploding_model())])
    site = UpdateSite(tmp_path)
    site.release("1.0.0")
    site.start("1.0.0", gates=Gates(soak_s=0.3))
    slots = factory_slot("loops", tmp_path / "loops")
    slots += factory_slot("grows", tmp_path / "grows", "recycle = { growth_mb = 32.0, window_s = 1.0 }")
    with BoardAgent(tmp_path, site, slots=slots, factory=tmp_path / "factory") as agent:
        agent.bring()
        agent.wait_for("committed", "1.0.0")
        for name in ("loops", "grows"):
            agent.answers_from(name, "factory:1.0.0/fp32")
        yield agent


def hang(address: str) -> None:
    """Ask what never gets an answer."""
    with contextlib.suppress(OSError, http.client.HTTPException):
        ask(address, FOR_EVER, timeout_s=100)


def crash(agent: BoardAgent) -> None:
    """Let the main slot's worker die as an engine's wild pointer makes it die, and wait for another one."""
    agent.served_by()
    time.sleep(COUNTED_S)
    (pid,) = agent.of("main").workers
    os.kill(pid, signal.SIGSEGV)
    eventually("another worker", lambda: agent.of("main").workers not in ((pid,), ()))


def grow_until_recycled(agent: BoardAgent) -> int:
    """Ask for ever more scratch memory, which the engine keeps, until another worker answers; return how many
    answers that took. Every one must come."""
    (pid,) = agent.of("grows").workers
    address = agent.of("grows").http
    assert address is not None
    for count in range(1, 200):
        reply = ask(address, MEGABYTE_OF_FLOATS * 2 * count)
        assert reply.status == 200
        workers = agent.of("grows").workers
        if pid not in workers and workers:
            return count
        time.sleep(0.25)
    raise AssertionError(f"worker {pid} was not recycled; {agent.of('grows')}")


def test_hung_crashed_and_leaking_workers_are_replaced_each_on_its_own(agent: BoardAgent) -> None:
    (hung,) = agent.of("loops").workers
    address = agent.of("loops").http
    assert address is not None
    hanging = threading.Thread(target=hang, args=(address,))
    hanging.start()

    assert grow_until_recycled(agent) > 8
    assert agent.of("grows").counters.get("lost", 0) == 0
    (leak,) = [event for event in agent.events("rung-failed") if event.detail["reason"] == "leak"]
    assert leak.slot == "grows"

    for _ in range(PATIENCE - 1):
        crash(agent)
        agent.answers_from("main", "active:1.0.0/fp32")
    crash(agent)
    agent.answers_from("main", "factory:0.1.0/fp32")  # a release whose workers keep dying rests
    assert [event.slot for event in agent.events("release-quarantined")] == ["main"]

    eventually("the hung worker is replaced", lambda: hung not in agent.of("loops").workers, timeout_s=60)
    agent.answers_from("loops", "factory:1.0.0/fp32")
    hanging.join()
    deaths = {(event.slot, event.detail["reason"], event.detail["lost"]) for event in agent.events("worker-died")}
    assert deaths == {("main", "SIGSEGV", 0), ("loops", "hung", 1)}


def test_hung_supervisor_is_missed_by_the_watchdog_while_its_worker_answers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundles.make_bundle(tmp_path / "b")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "notify"))
        manager.settimeout(5.0)
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        monkeypatch.setenv("WATCHDOG_USEC", "4000000")
        with BoardAgent(tmp_path, None, slots=factory_slot("main", tmp_path / "b")) as agent:
            agent.answers_from("main", "factory:1.0.0/fp32")
            address = agent.of("main").http
            assert address is not None
            assert longest_silence_s(manager, 3.0) < 2.0  # systemd's advice: half of the watchdog's time
            os.kill(agent.process.pid, signal.SIGSTOP)
            assert longest_silence_s(manager, 4.5) > 4.0
            assert ask(address, 1.0).status == 200
            agent.kill()  # as systemd does then
            agent.start()
            assert longest_silence_s(manager, 3.0) < 2.0
            agent.answers_from("main", "factory:1.0.0/fp32")


def longest_silence_s(manager: socket.socket, seconds: float) -> float:
    """Listen for so long; return the longest time without a keep-alive. What had been sent before does not count."""
    manager.setblocking(False)
    with contextlib.suppress(BlockingIOError):
        while True:
            manager.recv(4096)
    last = started = time.monotonic()
    longest = 0.0
    while (left := started + seconds - time.monotonic()) > 0:
        manager.settimeout(left)
        with contextlib.suppress(TimeoutError):
            if b"WATCHDOG=1" in manager.recv(4096):
                longest, last = max(longest, time.monotonic() - last), time.monotonic()
    return max(longest, time.monotonic() - last)
