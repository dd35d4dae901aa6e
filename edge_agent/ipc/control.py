"""The local control socket: one JSON line asks, one JSON line answers. What is answered is in
`edge_agent.supervisor.supervisor`.

The socket is in the state folder, and only its owner can reach it. Its path may hold 107 bytes; for a longer one, and
where the state folder takes no new file, it is in a runtime folder, with a name made from the state folder's so that
both sides find it. Beside it may be a second socket that tells the status only, to a group of this machine's users.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import socket
import stat
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Literal

import msgspec

from edge_agent.errors import ConfigError, UnreachableError
from edge_agent.ipc.status import AgentStatus
from edge_agent.ipc.updater import Trouble
from edge_agent.storage.state_dir import StateFolder
from edge_contracts.codec import StrictRecord

MAX_SOCKET_PATH = 107
"""sun_path of sockaddr_un holds 108 bytes, the last one zero."""

MAX_LINE_BYTES = 1024 * 1024


class ControlRequest(StrictRecord, frozen=True, kw_only=True):
    """What is asked of the agent; `folder` is the export to import. `repair` looks at every byte of the installed
    releases and has what is wrong fetched again."""

    ask: Literal["status", "import", "reload", "repair"]
    folder: str = ""


class ControlError(StrictRecord, frozen=True, kw_only=True):
    """Why a reload changed nothing."""

    text: str
    hint: str | None = None


class ControlReply(StrictRecord, frozen=True, kw_only=True):
    """The answer: a status, what went wrong with an import or a repair, what a reload changed or why it was refused."""

    status: AgentStatus
    troubles: tuple[Trouble, ...] = ()
    changed: tuple[str, ...] = ()
    refused: ControlError | None = None


_ROOT = 0
SERVICE_RUNTIME = "/run/edgewright"
"""RuntimeDirectory of the shipped unit."""

Answer = Callable[[ControlRequest], Awaitable[ControlReply]]


def control_paths(state: StateFolder) -> list[Path]:
    """Return where the agent of that state folder may listen, the usual place first."""
    path = state.control.absolute()
    return _short_enough([path, *(folder / f"{_name(state)}.sock" for folder in _runtime_folders())])


def status_paths(state: StateFolder) -> list[Path]:
    """Return where the status may be told to a group."""
    return _short_enough([folder / f"{_name(state)}.status" for folder in _runtime_folders()])


def _short_enough(paths: list[Path]) -> list[Path]:
    """Return those that a socket can be bound to."""
    return [path for path in paths if len(os.fsencode(path)) <= MAX_SOCKET_PATH]


def _name(state: StateFolder) -> str:
    return f"edgewright-{hashlib.sha256(os.fsencode(state.control.absolute())).hexdigest()[:24]}"


def _runtime_folders() -> list[Path]:
    given = os.environ.get("RUNTIME_DIRECTORY", "").split(":")[0]  # systemd's, for the service itself
    usual = (given, SERVICE_RUNTIME, os.environ.get("XDG_RUNTIME_DIR", ""), "/run", _temporary(), "/tmp")  # noqa: S108
    return [Path(folder) for folder in dict.fromkeys(usual) if folder and os.access(folder, os.X_OK)]


def _temporary() -> str:
    return os.environ.get("TMPDIR") or "/tmp"  # noqa: S108 - `_is_ours` looks at the owner; tempfile loads too much


async def serve_control(state: StateFolder, answer: Answer) -> asyncio.Server:
    """Listen for questions of the state folder's owner. Raises OSError."""
    return await _serve(control_paths(state), answer)


async def serve_status(state: StateFolder, answer: Answer, group: str) -> asyncio.Server:
    """Tell the status, and nothing else, to the members of that group. Raises ConfigError for a group that there is not
    or that this process may not give the socket to, OSError where no socket can be made."""
    number = _group_number(group)

    async def status_only(ask: ControlRequest) -> ControlReply:
        if ask.ask != "status":
            raise ValueError(f"{ask.ask} is not answered here")
        return await answer(ask)

    server = await _serve(status_paths(state), status_only)
    path = Path(server.sockets[0].getsockname())
    try:
        os.chown(path, -1, number)
    except PermissionError as error:
        server.close()
        hint = f"add SupplementaryGroups={group} to the unit, as its comment shows"
        raise ConfigError(f"not a member of {group!r}", subject="config.device.status_group", hint=hint) from error
    path.chmod(0o660)
    return server


def _group_number(group: str) -> int:
    import grp

    try:
        return grp.getgrnam(group).gr_gid
    except KeyError as error:
        hint = f"sudo groupadd --system {group}"
        raise ConfigError(f"no group {group!r}", subject="config.device.status_group", hint=hint) from error


async def _serve(paths: list[Path], answer: Answer) -> asyncio.Server:
    async def converse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.closing(writer), contextlib.suppress(OSError, ValueError, msgspec.MsgspecError):
            ask = msgspec.json.decode(await reader.readline(), type=ControlRequest)
            writer.write(msgspec.json.encode(await answer(ask)) + b"\n")
            await writer.drain()

    refused: OSError | None = None
    for path in paths:
        try:
            path.unlink(missing_ok=True)  # left by an agent that was killed; the caller holds the state folder's lock
            server = await asyncio.start_unix_server(converse, path)
            path.chmod(0o600)
        except OSError as error:
            refused = refused or error
        else:
            return server
    assert refused is not None
    raise refused


def ask_agent(state: StateFolder, ask: ControlRequest, *, timeout_s: float) -> ControlReply | None:
    """Ask a running agent; None when no agent runs. Raises UnreachableError when one does not answer in time or may not
    be asked."""
    refused: tuple[OSError, Path] | None = None
    for path in [*control_paths(state), *(status_paths(state) if ask.ask == "status" else ())]:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
            connection.settimeout(timeout_s)
            try:
                if _is_ours(path):
                    connection.connect(str(path))
                    return _converse(connection, ask, path)
            except (FileNotFoundError, NotADirectoryError, ConnectionRefusedError):
                continue
            except OSError as error:
                refused = refused or (error, path)
    if refused is not None:
        cause, where = refused
        text = f"cannot connect to the agent: {cause.strerror}"
        raise UnreachableError(text, subject=str(where), hint=ASK_HINT) from cause
    return None


ASK_HINT = "run it with sudo; the status alone is also told to the group that `status_group` in [device] names"


def _is_ours(path: Path) -> bool:
    """Return whether nobody else can have put this socket here: in a folder that all may write to, its owner counts.
    Raises OSError."""
    if not path.parent.stat().st_mode & stat.S_IWOTH:
        return True
    return path.lstat().st_uid in (_ROOT, os.geteuid())


def _converse(connection: socket.socket, ask: ControlRequest, path: Path) -> ControlReply:
    try:
        connection.sendall(msgspec.json.encode(ask) + b"\n")
        with connection.makefile("rb") as lines:
            line = lines.readline(MAX_LINE_BYTES)
        return msgspec.json.decode(line, type=ControlReply)
    except (OSError, msgspec.MsgspecError) as error:
        raise UnreachableError("no reply from the agent", subject=str(path)) from error
