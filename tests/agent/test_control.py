"""The agent's local socket: one line asked, one answered."""

import asyncio
import contextlib
import gc
import socket

from edge_agent.adapters.store import StateFolder
from edge_agent.control import serve_control, socket_path


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
