"""A changed agent.toml takes effect in the running agent as a whole, or changes nothing and says why."""

from __future__ import annotations

import json
import signal
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
from click.testing import CliRunner
from support.makers import bundles
from support.sites.agent_process import AgentProcess, eventually

from edge_agent.cli.reload import reload
from edge_agent.config.agent_toml import parse_config
from edge_agent.config.reload_plan import plan_reload
from edge_agent.errors import ConfigError, UnreachableError
from edge_agent.ipc.status import AgentStatus, SlotStatus
from edge_agent.storage.audit_log import verify_audit

MINIMAL = {"device": {"id": "dev-1"}, "slots": [{"name": "main", "factory": "f", "http": "127.0.0.1:0"}]}
BROKER = {"broker": {"host": "localhost"}}
TOPICS = {"input": "a", "output": "b"}


def changed(**tables: object) -> dict[str, object]:
    return MINIMAL | tables


def slot(**fields: object) -> list[dict[str, object]]:
    return [{"name": "main", "factory": "f", "http": "127.0.0.1:0"} | fields]


@pytest.mark.parametrize(
    ("tables", "names"),
    [
        ({}, ()),
        ({"device": {"id": "dev-1", "tags": {"site": "x"}}}, ("device.tags",)),
        ({"telemetry": {"window_s": 5.0}, "updates": {"poll_s": 9.0}}, ("telemetry.window_s", "updates.poll_s")),
        ({"slots": slot(threads=2, drain_s=1.0)}, ("slots[main].drain_s", "slots[main].threads")),
        ({"slots": [*slot(), {"name": "b", "factory": "f", "http": "127.0.0.1:0"}]}, ("slots[b]",)),
        ({"slots": [{"name": "b", "factory": "f", "http": "127.0.0.1:0"}]}, ("slots[b]", "slots[main]")),
        ({"data": {"broker": {"host": "x"}}, "slots": slot(mqtt=TOPICS)}, ("data.broker", "slots[main].mqtt")),
    ],
)
def test_what_takes_effect(tables: dict[str, object], names: tuple[str, ...]) -> None:
    assert plan_reload(parse_config(MINIMAL), parse_config(changed(**tables))).changed == names


@pytest.mark.parametrize(
    ("tables", "names"),
    [
        ({"device": {"id": "dev-2"}}, "device.id"),
        ({"device": {"id": "dev-1", "tenant": "x", "state": "/x"}}, "device.state, device.tenant"),
        (BROKER, "broker"),
        ({"trust": {"root": "x"}}, "trust"),
        ({"telemetry": {"wait_for_collector": False}}, "telemetry.wait_for_collector"),
        ({"slots": slot(http="127.0.0.1:9"), "updates": {"poll_s": 1.0}}, r"slots\[main\].http"),
        ({"slots": slot(factory="g")}, r"slots\[main\].factory"),
    ],
)
def test_what_needs_a_restart_is_named(tables: dict[str, object], names: str) -> None:
    with pytest.raises(ConfigError, match=f"^{names}: cannot be changed while the agent is running"):
        plan_reload(parse_config(MINIMAL), parse_config(changed(**tables)))


@pytest.fixture
def agent(tmp_path: Path) -> Iterator[AgentProcess]:
    bundles.make_bundle(tmp_path / "factory", version="0.1.0")
    with AgentProcess(tmp_path, None, factory=tmp_path / "factory") as agent:
        agent.served_by()
        yield agent


def rewrite(agent: AgentProcess, old: str, new: str) -> None:
    text = agent.config.read_text()
    assert old in text
    agent.config.write_text(text.replace(old, new))


def ask(agent: AgentProcess) -> list[str]:
    done = CliRunner().invoke(reload, ["--config", str(agent.config), "--json"], catch_exceptions=False)
    found: list[str] = json.loads(done.stdout)["changed"]
    return found


def test_limits_take_effect_without_a_failed_request(agent: AgentProcess) -> None:
    workers, stop, failures, asked = agent.slot().workers, threading.Event(), [], []

    def load() -> None:
        while not stop.is_set():
            try:
                agent.ask()
                asked.append(1)
            except OSError as error:
                failures.append(error)

    thread = threading.Thread(target=load)
    thread.start()
    try:
        rewrite(agent, "drain_s = 2.0", "drain_s = 1.0\nthreads = 2")
        assert ask(agent) == ["slots[main].drain_s", "slots[main].threads"]
        eventually("a new worker alone", lambda: len(w := agent.slot().workers) == 1 and w != workers)
    finally:
        stop.set()
        thread.join()
    assert asked
    assert not failures
    assert ask(agent) == []


def test_slot_comes_and_goes_on_sighup(agent: AgentProcess) -> None:
    text = agent.config.read_text()
    second = text[text.index("[[slots]]") :].replace('"main"', '"second"')
    agent.config.write_text(text + second)
    agent.process.send_signal(signal.SIGHUP)

    def slots() -> dict[str, SlotStatus]:
        return {slot.slot: slot for slot in agent.status().slots}

    eventually("the second slot answers", lambda: "second" in slots() and slots()["second"].served_by)
    agent.config.write_text(text)
    host, _, port = slots()["second"].http.rpartition(":")  # type: ignore[union-attr]
    agent.process.send_signal(signal.SIGHUP)
    eventually("it is gone", lambda: slots().keys() == {"main"})

    def closed() -> bool:
        with socket.socket() as probe:
            return probe.connect_ex((host, int(port))) != 0

    eventually("its socket, too", closed)
    assert agent.served_by() == "factory:0.1.0/fp32"


def test_broken_file_and_taken_address_change_nothing(agent: AgentProcess) -> None:
    text = agent.config.read_text()
    before = plain(agent.status())
    with socket.create_server(("127.0.0.1", 0)) as taken:
        second = text[text.index("[[slots]]") :].replace('"main"', '"second"').replace("drain_s = 2.0", "drain_s = 0.1")
        second = second.replace('"127.0.0.1:0"', f'"127.0.0.1:{taken.getsockname()[1]}"')
        tagged = text.replace("[telemetry]", 'tags = { site = "x" }\n[telemetry]')
        agent.config.write_text(tagged + second)
        with pytest.raises(ConfigError, match=r"slots\[second\].http"):
            ask(agent)
    for broken in ("[[[", text.replace("window_s", "windows_s"), text.replace('"dev-1"', '"dev-2"')):
        agent.config.write_text(broken)
        agent.process.send_signal(signal.SIGHUP)
    eventually("refusals", lambda: agent.log.count("config-refused") >= 2)
    assert plain(agent.status()) == before
    agent.config.write_text(text)
    assert ask(agent) == []
    agent.stop()
    assert verify_audit(agent.state.audit).serial > 0


def plain(status: AgentStatus) -> object:
    """What a refused reload must leave as it was."""
    return [msgspec.structs.replace(slot, counters={}) for slot in status.slots]


def test_reload_without_an_agent_says_so(tmp_path: Path) -> None:
    bundles.make_bundle(tmp_path / "factory")
    agent = AgentProcess(tmp_path, None, factory=tmp_path / "factory")
    agent.state.create()
    with pytest.raises(UnreachableError, match="agent not running"):
        ask(agent)
