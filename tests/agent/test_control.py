"""The agent's local socket: one line asked, one answered."""

import asyncio
import contextlib
import gc
import socket

import click.testing
import pytest

from edge_agent.adapters.store import StateFolder
from edge_agent.cli import agent as agent_command
from edge_agent.control import serve_control, socket_path
from edge_agent.errors import ConfigError


def test_an_agent_that_ends_while_it_is_asked_hangs_up(tmp_path):
    state = StateFolder(tmp_path)

    async def forever(_):
        asked.set()
        await asyncio.Event().wait()

    async def agent():
        server = await serve_control(state, forever)
        with contextlib.closing(server):
            line.connect(str(socket_path(state)))
            line.sendall(b'{"ask": "status"}\n')
            await asyncio.wait_for(asked.wait(), 10)

    asked = asyncio.Event()
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as line:
        line.settimeout(10)
        asyncio.run(agent())
        gc.collect()  # a socket that nobody has closed is an error here
        assert line.recv(1) == b""


def status_of(folder):
    words = ["status", "--state", str(folder)]
    return click.testing.CliRunner().invoke(agent_command, words, standalone_mode=False, catch_exceptions=False)


def test_a_state_folder_that_does_not_exist_is_no_stopped_agent(tmp_path):
    with pytest.raises(ConfigError, match="mistyped: no agent keeps its state there"):
        status_of(tmp_path / "mistyped")


def test_an_agent_that_does_not_run_is_told_from_its_records(tmp_path):
    state = StateFolder(tmp_path)
    state.create()
    assert status_of(tmp_path).output.startswith("no agent runs here; this is what its records say\n")
