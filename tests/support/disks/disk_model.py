"""What is on a disk after the power was cut: a file system that forgets what nobody has synced.

It is fed the calls of `call_stops` in their order. Every name that comes, goes or moves and every write is kept as a
change that is either durable or pending. fsync of a file makes its bytes durable, not its name; fsync of a folder
makes the names in it durable. A cut leaves the durable changes and some of the pending ones: which, says the loss.
Names are changed by a rename in both folders at once or in neither, as on every journaling file system.
"""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path

from support.disks.call_stops import Call

PAGE = 4096
"""Bytes of a write that reach a disk independently of each other."""


@dataclass(kw_only=True)
class Names:
    """Names that come (with a node) or go (None), as (folder, name, node)."""

    steps: tuple[tuple[int, str, int | None], ...]
    number: int
    durable: bool = False


@dataclass(kw_only=True)
class Bytes:
    """Bytes written into a node."""

    node: int
    offset: int
    data: bytes
    number: int
    durable: bool = False


@dataclass(kw_only=True)
class Size:
    """A node cut or stretched to a size."""

    node: int
    size: int
    number: int
    durable: bool = False


Change = Names | Bytes | Size
"""Each has its number in the order of all changes; parts of a change have the number of the whole."""

Loss = Callable[[list[Change]], Iterable[Change]]
"""Given the pending changes in order, returns those that reached the disk, perhaps in part."""

Image = dict[str, bytes | str | None]
"""Relative path -> a file's bytes, a link's target, or None for a folder."""


@dataclass(kw_only=True)
class _Tree:
    """Nodes by number; node 0 is the root. A node is a folder (dict), a file (bytearray) or a link (str)."""

    nodes: dict[int, dict[str, int] | bytearray | str] = field(default_factory=lambda: {0: {}})

    def copy(self) -> _Tree:
        return _Tree(nodes={n: (v if isinstance(v, str) else type(v)(v)) for n, v in self.nodes.items()})

    def apply(self, change: Change) -> None:
        if isinstance(change, Names):
            for folder, name, node in change.steps:
                names = self.nodes[folder]
                assert isinstance(names, dict)
                if node is None:
                    names.pop(name, None)
                else:
                    names[name] = node
            return
        content = self.nodes[change.node]
        assert isinstance(content, bytearray)
        end = change.size if isinstance(change, Size) else change.offset + len(change.data)
        content.extend(bytes(max(0, end - len(content))))
        if isinstance(change, Size):
            del content[end:]
        else:
            content[change.offset : end] = change.data

    def image(self, node: int = 0, path: str = "") -> Image:
        found: Image = {}
        names = self.nodes[node]
        assert isinstance(names, dict)
        for name, below in sorted(names.items()):
            content = self.nodes[below]
            here = path + name
            if isinstance(content, dict):
                found[here] = None
                found |= self.image(below, f"{here}/")
            else:
                found[here] = content if isinstance(content, str) else bytes(content)
        return found


class Disk:
    """The disk below one folder, from what lies there now, all of it durable."""

    def __init__(self, folder: Path) -> None:
        self._empty: dict[int, dict[str, int] | bytearray | str] = {}
        self._now = _Tree()
        self.changes: list[Change] = []
        for path, content in read_image(folder).items():
            self._add(path, {} if content is None else content if isinstance(content, str) else bytearray(content))
        self._start = self._now.copy()
        self._empty.clear()
        self.changes.clear()

    def happen(self, call: Call) -> None:
        """Take a call that happened (or failed as it would have on this disk)."""
        if call.kind == "fsync":
            self._sync(self._find(call.path))
        elif call.kind in ("open", "mkdir", "symlink"):
            self._open_or_add(call)
        elif call.kind in ("write", "truncate"):
            self._write(call)
        else:
            self._remove(call)

    def after_cut(self, loss: Loss) -> Image:
        """Return what is on the disk if the power is cut now."""
        left = [*(change for change in self.changes if change.durable)]
        left += loss([change for change in self.changes if not change.durable])
        tree = self._start.copy()
        tree.nodes |= {node: type(content)(content) for node, content in self._empty.items()}
        for change in sorted(left, key=lambda change: change.number):
            tree.apply(change)
        return tree.image()

    def _open_or_add(self, call: Call) -> None:
        node = self._find(call.path)
        if call.kind == "open" and node is not None:
            if call.flags & os.O_TRUNC and not call.flags & os.O_EXCL:
                self._change(Size(node=node, size=0, number=len(self.changes)))
        elif node is None and (call.kind != "open" or call.flags & os.O_CREAT):
            self._add(call.path, {} if call.kind == "mkdir" else call.target if call.target else bytearray())

    def _write(self, call: Call) -> None:
        node, number = self._find(call.path), len(self.changes)
        if node is not None and call.kind == "write":
            self._change(Bytes(node=node, offset=call.offset, data=call.data, number=number))
        elif node is not None:
            self._change(Size(node=node, size=call.offset, number=number))

    def _remove(self, call: Call) -> None:
        node = self._find(call.path)
        if node is None:
            return
        content = self._now.nodes[node]
        if (call.kind == "rmdir" and content) or (call.kind == "unlink" and isinstance(content, dict)):
            return
        gone = (*self._place(call.path), None)
        came = ((*self._place(call.target), node),) if call.kind == "rename" else ()
        self._change(Names(steps=(gone, *came), number=len(self.changes)))

    def _add(self, path: str, content: dict[str, int] | bytearray | str) -> None:
        folder = self._find(path.rpartition("/")[0] or ".")
        if folder is None:
            return  # no such folder: the call fails
        node = len(self._now.nodes)
        self._now.nodes[node] = content
        self._empty[node] = type(content)(content)
        self._change(Names(steps=((folder, path.rpartition("/")[2], node),), number=len(self.changes)))

    def _change(self, change: Change) -> None:
        self._now.apply(change)
        self.changes.append(change)

    def _sync(self, node: int | None) -> None:
        for change in self.changes:
            if isinstance(change, Names):
                change.durable |= any(folder == node for folder, _, _ in change.steps)
            else:
                change.durable |= change.node == node

    def _place(self, path: str) -> tuple[int, str]:
        folder, _, name = path.rpartition("/")
        node = self._find(folder or ".")
        assert node is not None, path
        return node, name

    def _find(self, path: str) -> int | None:
        node: int | None = 0
        for name in path.split("/") if path != "." else ():
            names = self._now.nodes[node] if node is not None else None
            node = names.get(name) if isinstance(names, dict) else None
        return node


def _part(change: Bytes, start: int, end: int) -> Bytes:
    return replace(change, offset=change.offset + start, data=change.data[start:end])


# What a cut may lose. In each, what was synced stays.


def kept(pending: list[Change]) -> Iterable[Change]:
    """Nothing: the process was killed, the machine lives on."""
    return pending


def lost(pending: list[Change]) -> Iterable[Change]:
    """Everything that was not synced, names and bytes."""
    return []


def bytes_lost(pending: list[Change]) -> Iterable[Change]:
    """Bytes; names have arrived. New files are empty, as after ext4's delayed allocation."""
    return [change for change in pending if isinstance(change, Names)]


def bytes_zero(pending: list[Change]) -> Iterable[Change]:
    """Bytes; names and sizes have arrived, so that files read as zeros, as on XFS."""
    for change in pending:
        if isinstance(change, Bytes):
            yield replace(change, data=bytes(len(change.data)))
        else:
            yield change


def names_lost(pending: list[Change]) -> Iterable[Change]:
    """Names; bytes have arrived."""
    return [change for change in pending if not isinstance(change, Names)]


def torn(pending: list[Change]) -> Iterable[Change]:
    """The second half of the last write."""
    last = next((change for change in reversed(pending) if isinstance(change, Bytes)), None)
    for change in pending:
        yield _part(change, 0, len(change.data) // 2) if change is last and isinstance(change, Bytes) else change


def scattered(seed: str) -> Loss:
    """Return a loss of any pages, and of the youngest names of each folder, drawn by `seed`."""

    def loss(pending: list[Change]) -> Iterable[Change]:
        draw = random.Random(seed)
        closed: set[int] = set()
        for change in pending:
            if isinstance(change, Names):
                folders = {folder for folder, _, _ in change.steps}
                if draw.random() < 0.3:
                    closed |= folders  # nothing younger in these folders has arrived either
                if not folders & closed:
                    yield change
            elif isinstance(change, Size):
                if draw.random() < 0.5:
                    yield change
            else:
                for start in range(0, len(change.data), PAGE):
                    if draw.random() < 0.5:
                        yield _part(change, start, min(start + PAGE, len(change.data)))

    return loss


def read_image(folder: Path) -> Image:
    """Return what lies below a folder; sockets are nothing that a disk keeps."""
    found: Image = {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if path.is_symlink():
            found[name] = str(path.readlink())
        elif not path.is_socket():
            found[name] = None if path.is_dir() else path.read_bytes()
    return found


def write_image(image: Image, folder: Path) -> None:
    """Put an image into a new folder."""
    folder.mkdir(parents=True)
    for name, content in image.items():
        path = folder / name
        if content is None:
            path.mkdir()
        elif isinstance(content, str):
            path.symlink_to(content)
        else:
            path.write_bytes(content)
