"""Every level of the governor is reached by a real agent, with what it does there: heat comes and goes, a battery runs
down, the firmware slows the CPU, a process eats the memory, and a slot nobody asks gives its own back. A full disk is
in test_disk_full.

Two slots: "main" follows a channel and has the higher priority, "extra" serves a factory bundle.
"""

from __future__ import annotations

import contextlib
import hashlib
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.boxes.memory_eater import Eater
from support.boxes.pretended_board import Board, BoardAgent, factory_slot, profile
from support.makers import bundles
from support.sites.agent_process import eventually
from support.sites.update_site import UpdateSite
from support.sites.web_site import WebSite, give

from edge_contracts.channel import Gates

pytestmark = pytest.mark.timeout(120)


@pytest.fixture
def board(tmp_path: Path) -> Board:
    board = Board(tmp_path / "board")
    board.heat(50)
    return board


@pytest.fixture
def extra(tmp_path: Path) -> str:
    bundles.make_bundle(tmp_path / "extra", version="0.1.0")
    return factory_slot("extra", tmp_path / "extra")


@contextlib.contextmanager
def following(folder: Path, board: Board, extra: str) -> Iterator[tuple[BoardAgent, UpdateSite, WebSite]]:
    """Run an agent that serves 1.0.0 and looks every half second whether its mirror has something newer."""
    site = UpdateSite(folder)
    site.release("1.0.0")
    site.start("1.0.0", gates=Gates(soak_s=0.3))
    mirror = WebSite(site.repository)
    mirror.start()
    updates = f'[updates]\npoll_s = 0.5\nhttp = "{mirror.url}"\n'
    agent = BoardAgent(folder, site, board=board, slots=f"priority = 5\n{extra}\n{updates}")
    agent.profile(profile(temperature_c=(70, 80, 5)))
    try:
        with agent:
            agent.wait_for("committed", "1.0.0")
            yield agent, site, mirror
    finally:
        mirror.stop()


def turned_away(agent: BoardAgent, slot: str) -> bool:
    """Whether a slot sheds load: 503, and when to come again."""
    reply = agent.answer(slot)
    assert reply.status in (200, 503)
    assert (reply.retry_after == "5") == (reply.status == 503)
    return reply.status == 503


def test_heat_wave_is_answered_by_doing_less_and_ended_with_hysteresis(
    tmp_path: Path, board: Board, extra: str
) -> None:
    with following(tmp_path, board, extra) as (agent, site, mirror):
        agent.answers_from("main", "active:1.0.0/fp32")
        board.heat(71)
        agent.is_at("CONSERVE")
        agent.answers_from("main", "active:1.0.0/small")
        agent.answers_from("extra", "factory:0.1.0/small")
        site.release("1.1.0")
        site.start("1.1.0", gates=Gates(soak_s=0.3))
        looked = len(mirror.asked)
        eventually("the agent has looked for updates", lambda: len(mirror.asked) > looked + 6)

        board.heat(81)
        eventually("extra is turned away", lambda: turned_away(agent, "extra"))
        assert agent.status().level == "CRITICAL"
        eventually("main is turned away as well", lambda: turned_away(agent, "main"))
        board.heat(76)  # below 80, but not by the hysteresis
        agent.stays_at("CRITICAL", 2.5)
        board.heat(74)
        agent.is_at("CONSERVE")
        agent.answers_from("main", "active:1.0.0/small")
        agent.answers_from("extra", "factory:0.1.0/small")
        board.heat(66)
        agent.stays_at("CONSERVE", 2.5)
        assert agent.of("main").candidate is not None
        assert agent.of("main").candidate.version == "1.0.0"  # type: ignore[union-attr] # updates were paused

        board.heat(64)
        agent.is_at("NORMAL")
        agent.answers_from("extra", "factory:0.1.0/fp32")
        agent.wait_for("committed", "1.1.0")
        agent.answers_from("main", "active:1.1.0/fp32")
        told = [(e.detail["level"], e.detail["shed"], e.detail["temperature_c"]) for e in agent.events("level")]
    assert told == [
        ("CONSERVE", 0, 71.0),
        ("CRITICAL", 1, 81.0),  # extra
        ("CRITICAL", 2, 81.0),  # and main
        ("CONSERVE", 0, 74.0),
        ("NORMAL", 0, 64.0),
    ]


def test_heat_pauses_a_download_and_the_update_goes_on_by_itself(tmp_path: Path, board: Board, extra: str) -> None:
    with following(tmp_path, board, extra) as (agent, site, mirror):
        site.release("1.1.0", padding=1 << 20)
        padding = (tmp_path / "bundle-1.1.0" / "padding.bin").read_bytes()
        sha256 = hashlib.sha256(padding).hexdigest()
        flows = threading.Event()
        mirror.answers[f"/blobs/{sha256[:2]}/{sha256}"] = lambda handler: give(handler, padding * flows.wait(30))
        site.start("1.1.0", gates=Gates(soak_s=0.3))
        agent.wait_for("downloading", "1.1.0")
        board.heat(71)
        eventually("it is paused", lambda: agent.wait_for("offered", "1.1.0").reason == "governor")
        flows.set()
        board.heat(50)
        agent.wait_for("committed", "1.1.0")


def test_battery_and_firmware_are_heard_and_mains_power_ends_it(tmp_path: Path, board: Board, extra: str) -> None:
    agent = BoardAgent(tmp_path, None, board=board, slots=extra)
    agent.profile(profile(dwell_s=0.5, battery_percent=(30, 10, 0)))
    board.battery(80)
    with agent:
        agent.answers_from("extra", "factory:0.1.0/fp32")
        board.battery(29)
        agent.is_at("CONSERVE")
        agent.answers_from("extra", "factory:0.1.0/small")
        board.battery(9)
        eventually("load is shed", lambda: turned_away(agent, "extra"))
        board.battery(9, "Charging")
        agent.is_at("NORMAL")
        agent.answers_from("extra", "factory:0.1.0/fp32")
        board.throttle(0x50005)
        agent.is_at("CONSERVE")
        assert agent.status().level_reasons == ("throttled",)
        board.throttle(0x50000)
        agent.is_at("NORMAL")
        reasons = [event.text.partition(": ")[2] for event in agent.events("level")]
    better = "readings stayed better for the dwell time"
    assert reasons == ["battery_percent=29", "battery_percent=9", better, "throttled", better]


def test_process_that_eats_the_memory_is_noticed_and_its_end_as_well(tmp_path: Path, board: Board, extra: str) -> None:
    agent = BoardAgent(tmp_path, None, board=board, slots=extra)
    agent.profile(profile(dwell_s=0.5, memory_limit_left_mb=(200.0, 20.0, 10.0)))
    with Eater(board.sys) as eater, agent:
        agent.answers_from("extra", "factory:0.1.0/fp32")
        agent.is_at("NORMAL")
        eater.leave(150.0)
        agent.is_at("CONSERVE")
        assert agent.status().level_reasons[0].startswith("memory_limit_left_mb=")
        agent.answers_from("extra", "factory:0.1.0/small")
        eater.leave(260.0)
        agent.is_at("NORMAL")
        agent.answers_from("extra", "factory:0.1.0/fp32")


def test_slot_nobody_asks_gives_up_its_worker_while_memory_is_short_and_answers_who_comes(
    tmp_path: Path, board: Board
) -> None:
    bundles.make_bundle(tmp_path / "bundle", version="0.1.0")
    rare = factory_slot("rare", tmp_path / "bundle", "idle_unload_s = 1.0")
    often = factory_slot("often", tmp_path / "bundle", "priority = 5")
    agent = BoardAgent(tmp_path, None, board=board, slots=rare + often)
    agent.profile(profile(dwell_s=0.5, memory_limit_left_mb=(200.0, 80.0, 10.0)))
    with Eater(board.sys) as eater, agent:
        first = agent.answers_from("rare", "factory:0.1.0/fp32") and agent.of("rare").workers
        agent.answers_from("often", "factory:0.1.0/fp32")
        agent.stays_at("NORMAL", 2.5)
        assert agent.of("rare").workers == first, "there is memory enough"

        eater.leave(150.0)
        eventually("its worker has gone", lambda: agent.of("rare").unloaded and not agent.of("rare").workers)
        (event,) = agent.events("slot-unloaded")
        assert (event.slot, event.detail["level"]) == ("rare", "CONSERVE")
        assert event.detail["memory_limit_left_mb"] < 200.0
        assert event.detail["idle_s"] >= 1.0
        assert agent.of("often").workers

        assert agent.answer("rare").status == 200, "it waited for the worker it started"
        assert agent.of("rare").workers != first
        eventually("it is given up again", lambda: agent.of("rare").unloaded and not agent.of("rare").workers)

        eater.leave(60.0)
        agent.is_at("CRITICAL")
        assert turned_away(agent, "rare")
        assert agent.of("rare").workers == (), "who is turned away starts none"
        eater.leave(260.0)
        agent.is_at("NORMAL")
        agent.answers_from("rare", "factory:0.1.0/fp32")
        assert not agent.of("rare").unloaded
        assert agent.events("worker-died") == []
