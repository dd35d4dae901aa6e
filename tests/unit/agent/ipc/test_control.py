"""The agent's local socket: one line asked, one answered."""

import asyncio
import contextlib
import gc
import grp
import json
import os
import socket
import stat
import tempfile
from pathlib import Path

import click.testing
import pytest

from edge_agent.cli.agent import agent as agent_command
from edge_agent.errors import ConfigError, UnreachableError
from edge_agent.ipc.control import (
    MAX_SOCKET_PATH,
    ControlReply,
    ControlRequest,
    ask_agent,
    control_paths,
    serve_control,
    serve_status,
    status_paths,
)
from edge_agent.ipc.status import AgentStatus
from edge_agent.storage.state_dir import StateFolder


def test_an_agent_that_ends_while_it_is_asked_hangs_up(tmp_path):
    state = StateFolder(tmp_path)

    async def forever(_):
        asked.set()
        await asyncio.Event().wait()

    async def agent():
        server = await serve_control(state, forever)
        with contextlib.closing(server):
            line.connect(str(control_paths(state)[0]))
            line.sendall(b'{"ask": "status"}\n')
            await asyncio.wait_for(asked.wait(), 10)

    asked = asyncio.Event()
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as line:
        line.settimeout(10)
        asyncio.run(agent())
        gc.collect()  # a socket that nobody has closed is an error here
        assert line.recv(1) == b""


def status_of(folder, *more):
    words = ["status", "--state", str(folder), *more]
    return click.testing.CliRunner().invoke(agent_command, words, standalone_mode=False, catch_exceptions=False).stdout


def test_whoever_asks_before_the_first_start_or_mistypes_the_folder_is_told(tmp_path):
    state = tmp_path / "mistyped"
    assert status_of(state) == f"no saved state: {state} does not exist\n"
    assert json.loads(status_of(state, "--json"))["running"] is False, "scripts wait for an agent that starts"


def test_an_agent_that_does_not_run_is_told_from_its_records(tmp_path):
    state = StateFolder(tmp_path)
    state.create()
    assert status_of(tmp_path).startswith("agent not running; showing its last saved state\n")


OWN_GROUP = grp.getgrgid(os.getegid()).gr_name


@pytest.fixture(name="runtime")
def _runtime(monkeypatch):
    """Give a runtime folder of this test's own, with a short name."""
    with tempfile.TemporaryDirectory(prefix="ew-") as folder:
        monkeypatch.setenv("RUNTIME_DIRECTORY", folder)
        yield Path(folder)


async def answer(_):
    return ControlReply(status=AgentStatus(running=True, device="dev-1"))


async def asked(state, request):
    return await asyncio.to_thread(ask_agent, state, request, timeout_s=5.0)


def test_members_of_the_status_group_are_told_the_status_and_do_nothing_else(tmp_path, runtime, monkeypatch):
    state = StateFolder(tmp_path / "state")
    state.root.mkdir()

    async def agent():
        owner, group = await serve_control(state, answer), await serve_status(state, answer, OWN_GROUP)
        with contextlib.closing(owner), contextlib.closing(group):
            path = status_paths(state)[0]
            assert stat.S_IMODE(path.stat().st_mode) == 0o660
            assert path.stat().st_gid == os.getegid()
            assert stat.S_IMODE(state.control.stat().st_mode) == 0o600
            # Whoever is in the group and not the owner: the usual socket is out of reach.
            monkeypatch.setattr("edge_agent.ipc.control.control_paths", lambda _: [])
            assert (await asked(state, ControlRequest(ask="status"))).status.device == "dev-1"
            assert await asked(state, ControlRequest(ask="reload")) is None
            monkeypatch.setattr("edge_agent.ipc.control.control_paths", status_paths)
            with pytest.raises(UnreachableError, match="no reply"):
                await asked(state, ControlRequest(ask="reload"))

    asyncio.run(agent())


def test_whoever_may_not_ask_is_told_who_may(tmp_path, runtime, monkeypatch):
    state = StateFolder(tmp_path)

    def refuse(*_):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("edge_agent.ipc.control.socket.socket.connect", refuse)
    with pytest.raises(UnreachableError, match="Permission denied") as caught:
        ask_agent(state, ControlRequest(ask="status"), timeout_s=1.0)
    assert "sudo" in caught.value.hint
    assert "status_group" in caught.value.hint


def test_a_group_that_there_is_not_is_named_with_the_command_that_makes_it(tmp_path, runtime):
    with pytest.raises(ConfigError, match="no group 'nobody-has-this'") as caught:
        asyncio.run(serve_status(StateFolder(tmp_path), answer, "nobody-has-this"))
    assert "groupadd" in caught.value.hint


def test_where_the_state_folder_takes_no_socket_it_is_in_the_runtime_folder(tmp_path, runtime):
    state = StateFolder(tmp_path / "state")  # is not there: as good as read-only

    async def agent():
        with contextlib.closing(await serve_control(state, answer)):
            assert [path.parent for path in runtime.iterdir()] == [runtime]
            assert (await asked(state, ControlRequest(ask="status"))).status.running

    asyncio.run(agent())


def test_a_socket_that_somebody_else_put_into_a_shared_folder_is_not_asked(tmp_path, runtime, monkeypatch):
    state = StateFolder(tmp_path / "state")
    runtime.chmod(0o1777)

    async def agent():
        with contextlib.closing(await serve_control(state, answer)):
            assert await asked(state, ControlRequest(ask="status")) is not None
            monkeypatch.setattr("edge_agent.ipc.control.os.geteuid", lambda: 12345)
            monkeypatch.setattr("edge_agent.ipc.control._ROOT", 54321)
            assert await asked(state, ControlRequest(ask="status")) is None

    asyncio.run(agent())


def test_no_path_is_longer_than_a_socket_s_may_be(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    deep = tmp_path / ("d" * 90)
    deep.mkdir()
    monkeypatch.setenv("TMPDIR", str(deep))
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(deep))
    for paths in (control_paths(StateFolder(deep / "state")), status_paths(StateFolder(deep / "state"))):
        assert paths
        assert all(len(os.fsencode(path)) <= MAX_SOCKET_PATH for path in paths)
