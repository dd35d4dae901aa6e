"""The agent's local socket: one line asked, one answered."""

import asyncio
import contextlib
import gc
import json
import socket

import click.testing

from edge_agent.cli.agent import agent as agent_command
from edge_agent.ipc.control import serve_control, socket_path
from edge_agent.storage.state_dir import StateFolder


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
