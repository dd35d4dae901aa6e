"""The local control socket: one JSON line asks, one JSON line answers. Only the state folder's owner can reach it.

A socket's path may hold 107 bytes; for a longer one the socket gets a short name in the runtime folder, derived from
the state folder so that both sides find it. What is answered is in `edge_agent.supervisor.supervisor`.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import socket
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Literal

import msgspec

from edge_agent.errors import UnreachableError
from edge_agent.ipc.status import AgentStatus
from edge_agent.ipc.updater import Trouble
from edge_agent.storage.state_dir import StateFolder
from edge_contracts.codec import StrictRecord

MAX_SOCKET_PATH = 107
"""sun_path of sockaddr_un holds 108 bytes, the last one zero."""

MAX_LINE_BYTES = 1024 * 1024


class ControlRequest(StrictRecord, frozen=True, kw_only=True):
    """What is asked of the agent; `folder` is the export to import."""

    ask: Literal["status", "import", "reload"]
    folder: str = ""


class ControlError(StrictRecord, frozen=True, kw_only=True):
    """Why a reload changed nothing."""

    text: str
    hint: str | None = None


class ControlReply(StrictRecord, frozen=True, kw_only=True):
    """The answer: a status, what went wrong with an import, what a reload changed or why it was refused."""

    status: AgentStatus
    troubles: tuple[Trouble, ...] = ()
    changed: tuple[str, ...] = ()
    refused: ControlError | None = None


Answer = Callable[[ControlRequest], Awaitable[ControlReply]]


def socket_path(state: StateFolder) -> Path:
    """Return where the agent of that state folder listens."""
    path = state.control.absolute()
    if len(os.fsencode(path)) <= MAX_SOCKET_PATH:
        return path
    import tempfile

    name = hashlib.sha256(os.fsencode(path)).hexdigest()[:24]
    runtime = os.environ.get("XDG_RUNTIME_DIR") or ("/run" if os.access("/run", os.W_OK) else tempfile.gettempdir())
    return Path(runtime) / f"edgewright-{name}.sock"


async def serve_control(state: StateFolder, answer: Answer) -> asyncio.Server:
    """Listen for questions. Raises OSError."""
    path = socket_path(state)
    path.unlink(missing_ok=True)  # left by an agent that was killed; the caller holds the state folder's lock

    async def converse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.closing(writer), contextlib.suppress(OSError, ValueError, msgspec.MsgspecError):
            ask = msgspec.json.decode(await reader.readline(), type=ControlRequest)
            writer.write(msgspec.json.encode(await answer(ask)) + b"\n")
            await writer.drain()

    server = await asyncio.start_unix_server(converse, path)
    path.chmod(0o600)
    return server


def ask_agent(state: StateFolder, ask: ControlRequest, *, timeout_s: float) -> ControlReply | None:
    """ControlRequest a running agent; None when no agent runs. Raises UnreachableError when one does not answer in
    time."""
    path = socket_path(state)
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(timeout_s)
        try:
            connection.connect(str(path))
        except (FileNotFoundError, ConnectionRefusedError):
            return None
        except OSError as error:
            raise UnreachableError(f"cannot connect to the agent: {error.strerror}", subject=str(path)) from error
        try:
            connection.sendall(msgspec.json.encode(ask) + b"\n")
            with connection.makefile("rb") as lines:
                line = lines.readline(MAX_LINE_BYTES)
            return msgspec.json.decode(line, type=ControlReply)
        except (OSError, msgspec.MsgspecError) as error:
            raise UnreachableError("no reply from the agent", subject=str(path)) from error
