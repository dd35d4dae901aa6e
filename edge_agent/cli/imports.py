"""`edgewright agent import` and `edgewright agent repair`: errands of the running agent, and what came of them.

The agent's own process does the work, under its own user and its own view of the file system; what a person sees and
what the agent sees may differ, and the hints here say where.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import click
import msgspec

from edge_agent.config.agent_toml import load_config
from edge_agent.errors import NotFoundError, RefusedError, UnreachableError
from edge_agent.ipc.control import ControlReply, ControlRequest, ask_agent
from edge_agent.ipc.updater import Trouble
from edge_agent.storage.durable import write_durably
from edge_agent.storage.state_dir import StateFolder
from edge_agent.supervisor.staged_imports import read_imports
from edge_contracts.errors import TransportError

TIMESTAMP = "metadata/timestamp.json"
"""What every exported repository holds."""

VIEW_HINT = (
    "the agent's service has its own /tmp, no access to home folders, and a user of its own: mount the medium below "
    "/media or /mnt, readable for all users (for example: mount -o ro,umask=022 /dev/sda1 /media/usb)"
)

_config = click.option(
    "--config", type=click.Path(path_type=Path), required=True, help="The agent's configuration, agent.toml."
)
_json = click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")


@click.command(name="import")
@click.argument("folder", type=click.Path(exists=True, file_okay=False, path_type=Path))
@_config
@click.option("--timeout", default=600.0, show_default=True, help="Seconds to wait until the files are copied.")
@_json
def import_(folder: Path, config: Path, timeout: float, as_json: bool) -> None:
    """Import updates from an exported repository, such as a USB stick.

    Imported updates pass the same steps as downloaded ones: verification, trial, soak. Exits with 4 if anything could
    not be imported, with 5 if a signature or hash is wrong. Without a running agent the import is queued for its next
    start, which reports the outcome (`edgewright agent status`); the folder must be readable then.

    \b
    Example:
      edgewright agent import /media/usb/export --config agent.toml
    """
    state, path = StateFolder(load_config(config).state), folder.resolve()
    _check_folder(path)
    reply = ask_agent(state, ControlRequest(ask="import", folder=str(path)), timeout_s=timeout)
    if reply is None:
        _stage(state, str(path), as_json)
    else:
        _report(reply, {"staged": False, "folder": str(path)}, str(path), as_json)


@click.command()
@_config
@click.option("--timeout", default=600.0, show_default=True, help="Seconds to wait until damaged files are fetched.")
@_json
def repair(config: Path, timeout: float, as_json: bool) -> None:
    """Check the installed releases and fetch damaged files again.

    Every byte is compared with the signed manifests. The agent repairs by itself what it finds damaged while serving;
    this command checks at once, including files that nothing has read yet. Exits with 4 if something could not be
    repaired.

    \b
    Example:
      edgewright agent repair --config agent.toml
    """
    state = StateFolder(load_config(config).state)
    reply = ask_agent(state, ControlRequest(ask="repair"), timeout_s=timeout)
    if reply is None:
        hint = "start it with `systemctl start edgewright-agent`; it repairs damaged releases by itself"
        raise UnreachableError("agent not running", subject=str(state.root), hint=hint)
    _report(reply, {}, "repair", as_json)


def _check_folder(path: Path) -> None:
    """Refuse a folder that is no repository, before anybody is asked. Raises NotFoundError, UnreachableError."""
    try:
        found = (path / TIMESTAMP).is_file()
        below = sorted(str(inner.parent.parent) for inner in path.glob(f"*/{TIMESTAMP}"))
    except OSError as error:
        raise UnreachableError(f"cannot be read: {error.strerror}", subject=str(path), hint=VIEW_HINT) from error
    if found:
        return
    hint = (
        f"did you mean {below[0]}?"
        if below
        else "is the medium mounted? `edgewright fleet export` creates such a folder"
    )
    raise NotFoundError(f"not an exported repository: {TIMESTAMP} is missing", subject=str(path), hint=hint)


def _stage(state: StateFolder, path: str, as_json: bool) -> None:
    state.create()
    waiting = [*(old for old in read_imports(state.imports) if old != path), path]
    write_durably(state.imports, json.dumps(waiting).encode())
    text = f"agent not running; {path} is queued and will be imported at its next start (see `edgewright agent status`)"
    click.echo(json.dumps({"staged": True, "folder": path}) if as_json else text)


def _report(reply: ControlReply, head: dict[str, object], subject: str, as_json: bool) -> None:
    """Print what came of it. Raises RefusedError or TransportError where something went wrong."""
    slots = [msgspec.to_builtins(slot) for slot in reply.status.slots]
    troubles = [msgspec.to_builtins(trouble) for trouble in reply.troubles]
    if as_json:
        click.echo(json.dumps(head | {"slots": slots, "troubles": troubles}))
    for slot in reply.status.slots if not as_json else ():
        click.echo(f"{slot.slot}: {slot.state} {slot.reason or ''}".rstrip())
    for trouble in reply.troubles if not as_json else ():
        click.echo(f"{trouble.slot or '*'}: {trouble.reason}: {trouble.text}", err=True)
    _raise(reply.troubles, subject)


def _raise(troubles: Sequence[Trouble], subject: str) -> None:
    for trouble in troubles:
        if trouble.fault == "trust":
            raise RefusedError(f"{trouble.reason}: {trouble.text}", subject=subject)
    if troubles:
        unseen = any(trouble.reason in ("not-found", "unreachable") for trouble in troubles)
        where = sorted({trouble.slot or "all slots" for trouble in troubles})
        text = f"failed in part: {', '.join(where)}"
        raise TransportError(text, subject=subject, hint=VIEW_HINT if unseen and subject.startswith("/") else None)
