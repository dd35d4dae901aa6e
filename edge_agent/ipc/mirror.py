"""The way of a served request from a worker to the slot's shadow: one anonymous file each, passed over a socket pair.

Never waits and never fails a request: what finds no room is not sent. The pair is made once for a slot, inherited by
each of its workers and each of its shadows, so neither's death closes it for the other. A file's bytes are in memory
only while somebody holds it.
"""

from __future__ import annotations

import array
import contextlib
import os
import select
import socket

from edge_contracts.limits import MAX_SERVED_BYTES

_LEAST_BUFFER = 1
"""Asks the kernel for the smallest send buffer it gives, which holds six of our messages: what waits is bounded."""


def mirror_pair() -> tuple[socket.socket, socket.socket]:
    """Return the workers' end and the shadow's end."""
    workers, shadow = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    workers.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _LEAST_BUFFER)
    return workers, shadow


def send(end: socket.socket, data: bytes) -> bool:
    """Send one record; return whether there was room for it."""
    try:
        fd = os.memfd_create("edgewright-mirror", os.MFD_CLOEXEC)
    except OSError:
        return False
    try:
        if os.write(fd, data) != len(data):
            return False
        rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [fd]))]
        end.sendmsg([b"+"], rights, socket.MSG_DONTWAIT)
        return True
    except OSError:
        return False
    finally:
        os.close(fd)


def receive(end: socket.socket) -> bytes | None:
    """Wait for a record and return it; None for a message that is none."""
    fd = _next(end)
    if fd is None:
        return None
    try:
        data = os.pread(fd, MAX_SERVED_BYTES + 1, 0)
        return data if len(data) <= MAX_SERVED_BYTES else None
    finally:
        os.close(fd)


def empty(end: socket.socket) -> None:
    """Throw away what waits: a new shadow begins with what is asked from now on."""
    with contextlib.suppress(OSError):
        while select.select([end], [], [], 0)[0]:
            fd = _next(end)
            if fd is not None:
                os.close(fd)


def _next(end: socket.socket) -> int | None:
    fds = socket.recv_fds(end, 1, 1)[1]
    return fds[0] if fds else None
