"""Runs a function in a forked child that the kernel stops before every system call that changes a folder.

The kernel does the stopping (seccomp user notification), so the child is the unchanged program, C libraries such as
SQLite included. The parent sees each call before it happens and lets it happen, or ends the child by SIGKILL right
there. What such calls mean for a disk is in `disk_model`. Linux 5.5 or newer on x86-64 or ARM64; see `why_not`.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import platform
import select
import signal
import socket
import struct
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

_X86 = {
    "write": 1, "open": 2, "pwrite64": 18, "writev": 20, "sendfile": 40, "fsync": 74, "fdatasync": 75, "truncate": 76,
    "ftruncate": 77, "rename": 82, "mkdir": 83, "rmdir": 84, "creat": 85, "link": 86, "unlink": 87, "symlink": 88,
    "sync": 162, "openat": 257, "mkdirat": 258, "unlinkat": 263, "renameat": 264, "linkat": 265, "symlinkat": 266,
    "fallocate": 285, "pwritev": 296, "syncfs": 306, "renameat2": 316, "copy_file_range": 326, "pwritev2": 328,
    "openat2": 437,
}  # fmt: skip
_ARM = {
    "mkdirat": 34, "unlinkat": 35, "symlinkat": 36, "linkat": 37, "renameat": 38, "truncate": 45, "ftruncate": 46,
    "fallocate": 47, "openat": 56, "write": 64, "writev": 66, "pwrite64": 68, "pwritev": 70, "sendfile": 71, "sync": 81,
    "fsync": 82, "fdatasync": 83, "syncfs": 267, "renameat2": 276, "copy_file_range": 285, "pwritev2": 287,
    "openat2": 437,
}  # fmt: skip
_MACHINES = {"x86_64": (_X86, 317), "aarch64": (_ARM, 277)}
_NUMBERS, _SECCOMP = _MACHINES.get(platform.machine(), ({}, 0))
_NAMES = {number: name for name, number in _NUMBERS.items()}

_ALLOW, _STOP = 0x7FFF0000, 0x7FC00000
_RECEIVE, _ANSWER, _GO_ON = 0xC0502100, 0xC0182101, 1
_AT_FDCWD, _AT_REMOVEDIR = -100, 0x200
_NOTICE = struct.Struct("=QIIiIQ6Q")


@dataclass(frozen=True, kw_only=True)
class Call:
    """One call that would change something below the watched folder. Paths are relative to it.

    `kind`: open, write, truncate, fsync, rename, unlink, mkdir, rmdir, symlink. `target` is where a rename or a
    symbolic link leads. `offset` is where a write begins, or the size a file is cut to.
    """

    kind: str
    path: str
    target: str = ""
    offset: int = 0
    data: bytes = b""
    flags: int = 0

    def __str__(self) -> str:
        return f"{self.kind} {self.path}" + (f" -> {self.target}" if self.target else "")


class EndedError(Exception):
    """The child ended by itself in another way than by finishing its function."""


def why_not() -> str | None:
    """Return why this machine cannot stop calls, or None if it can."""
    if not _NUMBERS:
        return f"system calls are not stopped on {platform.system()} {platform.machine()}"
    sizes = ctypes.create_string_buffer(6)
    if _libc().syscall(_SECCOMP, 3, 0, sizes) != 0:
        return "the kernel has no seccomp user notification"
    return None if struct.unpack("=3H", sizes.raw)[:2] == (80, 24) else "unknown layout of seccomp notifications"


def run_until(function: Callable[[], None], folder: Path, cut: int | None) -> tuple[list[Call], bool]:
    """Run `function` in a child; end it by SIGKILL before its `cut`-th call (from 0) happens.

    Returns the calls seen, with the one that did not happen last, and whether the child was cut. Raises EndedError if
    the function fails. This process must have one thread when it forks; the function may start more.
    """
    ours, theirs = socket.socketpair()
    pid = os.fork()
    if pid == 0:
        ours.close()
        _be_child(function, theirs)
    theirs.close()
    calls: list[Call] = []
    cut_off = False
    try:
        _, descriptors, _, _ = socket.recv_fds(ours, 1, 1)
        for call, go_on in _stops(descriptors[0], pid, os.path.realpath(folder)):
            calls.append(call)
            cut_off = cut is not None and len(calls) > cut
            if cut_off:
                break
            go_on()
    except BaseException:
        cut_off = True
        raise
    finally:
        if cut_off:
            os.kill(pid, signal.SIGKILL)
        status = os.waitpid(pid, 0)[1]
        os.close(descriptors[0])
        said = b"" if cut_off or status == 0 else ours.recv(1 << 20)
        ours.close()
    if not cut_off and status != 0:
        raise EndedError(said.decode(errors="replace") or f"status {status}")
    return calls, cut_off


def _be_child(function: Callable[[], None], parent: socket.socket) -> None:
    code = 1
    try:
        socket.send_fds(parent, [b"x"], [_install_filter()])
        function()
        code = 0
    except BaseException:
        parent.send(traceback.format_exc().encode()[-60_000:])
    finally:
        os._exit(code)


def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


def _install_filter() -> int:
    """Stop this process at the calls of the table from now on; return the descriptor that tells of the stops.

    Opening to read is let through by a look at the flags, because programs do it all the time.
    """
    reading = {"open": 1, "openat": 2}
    changes = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC
    program = [(0x20, 0, 0, 0)]  # load the number
    for name, number in _NUMBERS.items():
        if name in reading:
            flags = 16 + 8 * reading[name]
            program += [(0x15, 0, 4, number), (0x20, 0, 0, flags), (0x45, 0, 1, changes)]
            program += [(0x06, 0, 0, _STOP), (0x06, 0, 0, _ALLOW)]
        else:
            program += [(0x15, 0, 1, number), (0x06, 0, 0, _STOP)]
    program.append((0x06, 0, 0, _ALLOW))
    code = ctypes.create_string_buffer(b"".join(struct.pack("=HBBI", *line) for line in program))
    header = ctypes.create_string_buffer(struct.pack("@HP", len(program), ctypes.addressof(code)))
    libc = _libc()
    if libc.prctl(38, 1, 0, 0, 0) != 0:  # no new privileges, which a filter of an ordinary user needs
        raise OSError(ctypes.get_errno(), "prctl")
    descriptor: int = libc.syscall(_SECCOMP, 1, 8, header)
    if descriptor < 0:
        raise OSError(ctypes.get_errno(), "seccomp")
    return descriptor


def _stops(listener: int, pid: int, folder: str) -> Iterator[tuple[Call, Callable[[], None]]]:
    """Yield the calls below the folder, each with what lets it happen; let everything else happen."""
    poll = select.poll()
    poll.register(listener, select.POLLIN)
    while True:
        events = poll.poll()
        if not events[0][1] & select.POLLIN:
            return  # the last process under the filter has ended
        notice = bytearray(_NOTICE.size)
        try:
            fcntl.ioctl(listener, _RECEIVE, notice)
        except FileNotFoundError:
            continue  # a signal has ended the call meanwhile
        number, thread, _, call, _, _, *arguments = _NOTICE.unpack(notice)

        def go_on(number: int = number) -> None:
            fcntl.ioctl(listener, _ANSWER, struct.pack("=QqiI", number, 0, 0, _GO_ON))

        found = _Decoder(thread, pid, folder).decode(_NAMES[call], arguments)
        if found is None:
            go_on()
        else:
            yield found, go_on


class _Decoder:
    """Reads what a stopped thread is about to do."""

    def __init__(self, thread: int, pid: int, folder: str) -> None:
        self._proc = f"/proc/{pid}/task/{thread}"
        self._folder = folder

    def decode(self, name: str, a: list[int]) -> Call | None:
        """Return the call, or None if it changes nothing below the folder."""
        if name in ("write", "pwrite64", "writev", "pwritev", "pwritev2", "sendfile", "copy_file_range", "fallocate"):
            return self._write(name, a)
        if name in ("fsync", "fdatasync", "syncfs", "ftruncate"):
            path = self._of_descriptor(a[0])
            kind = "truncate" if name == "ftruncate" else "fsync"
            return None if path is None else Call(kind=kind, path=path, offset=a[1] if kind == "truncate" else 0)
        return self._names(name, a)

    def _names(self, name: str, a: list[int]) -> Call | None:
        if name == "sync":
            return None  # asks for more than any one file: believed to do nothing
        if name in ("symlink", "symlinkat"):
            path = self._path(*((_AT_FDCWD, a[1]) if name == "symlink" else (a[1], a[2])))
            return None if path is None else Call(kind="symlink", path=path, target=self._text(a[0]))
        at, where, rest = (a[0], a[1], a[2:]) if "at" in name.removeprefix("creat") else (_AT_FDCWD, a[0], a[1:])
        if name == "truncate":
            at, where, rest = _AT_FDCWD, a[0], a[1:]
        path = self._path(at, where)
        if name.startswith("rename"):
            target = self._path(*((_AT_FDCWD, a[1]) if name == "rename" else (a[2], a[3])))
            assert (path is None) == (target is None), "renamed across the edge of the watched folder"
            return None if path is None else Call(kind="rename", path=path, target=target or "")
        if path is None:
            return None
        if name in ("open", "openat"):
            return Call(kind="open", path=path, flags=rest[0])
        if name.startswith("unlink"):
            return Call(kind="rmdir" if name == "unlinkat" and rest[0] & _AT_REMOVEDIR else "unlink", path=path)
        if name in ("mkdir", "mkdirat", "rmdir"):
            return Call(kind=name.removesuffix("at"), path=path)
        if name == "truncate":
            return Call(kind="truncate", path=path, offset=rest[0])
        raise NotImplementedError(f"{name} {path}")

    def _write(self, name: str, a: list[int]) -> Call | None:
        path = self._of_descriptor(a[2] if name == "copy_file_range" else a[0])
        if path is None:
            return None
        if name == "write":
            return Call(kind="write", path=path, offset=self._position(a[0]), data=self._memory(a[1], a[2]))
        if name == "pwrite64":
            return Call(kind="write", path=path, offset=a[3], data=self._memory(a[1], a[2]))
        if name == "sendfile":
            start = int.from_bytes(self._memory(a[2], 8), "little") if a[2] else self._position(a[1])
            with Path(f"{self._proc}/fd/{a[1]}").open("rb") as source:
                source.seek(start)
                return Call(kind="write", path=path, offset=self._position(a[0]), data=source.read(a[3]))
        raise NotImplementedError(f"{name} {path}")

    def _position(self, descriptor: int) -> int:
        """Return where the next write of a descriptor goes."""
        info = dict(
            line.split(":\t") for line in Path(f"{self._proc}/fdinfo/{descriptor}").read_text().splitlines()[:2]
        )
        if int(info["flags"], 8) & os.O_APPEND:
            return Path(f"{self._proc}/fd/{descriptor}").stat().st_size
        return int(info["pos"])

    def _of_descriptor(self, descriptor: int) -> str | None:
        return self._below(str(Path(f"{self._proc}/fd/{descriptor}").readlink()))

    def _path(self, at: int, where: int) -> str | None:
        text = self._text(where)
        at = ctypes.c_int(at & 0xFFFFFFFF).value
        base = Path(f"{self._proc}/cwd" if at == _AT_FDCWD else f"{self._proc}/fd/{at}").readlink()
        folder, name = os.path.split((base / text).as_posix().rstrip("/"))
        return self._below(f"{os.path.realpath(folder)}/{name}")

    def _below(self, path: str) -> str | None:
        """Return the path relative to the folder. Files without a name any more are nobody's."""
        if path == self._folder:
            return "."
        inside = path.startswith(f"{self._folder}/") and not path.endswith(" (deleted)")
        return path[len(self._folder) + 1 :] if inside else None

    def _memory(self, address: int, length: int) -> bytes:
        with Path(f"{self._proc}/mem").open("rb", buffering=0) as memory:
            memory.seek(address)
            return memory.read(length)

    def _text(self, address: int) -> str:
        """Return the zero-terminated path at an address, without reading over the edge of its page."""
        text = b""
        while b"\0" not in text:
            text += self._memory(address + len(text), 4096 - (address + len(text)) % 4096)
        return os.fsdecode(text[: text.index(b"\0")])
