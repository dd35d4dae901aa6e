"""Child processes that a search or a measurement starts: what they do when somebody presses Ctrl-C, and when whoever
started them is gone.

A terminal sends Ctrl-C to its whole process group. Children do not hear it, so that only who started them decides what
becomes of them. In turn, the kernel kills a child whose starter died, however it died.
"""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from typing import Any

PR_SET_PDEATHSIG = 1
"""prctl(2), "Set the parent-death signal of the calling process"."""


Starter = Callable[..., subprocess.Popen[bytes]]
"""`start`, or the method of `Children`."""


def start(words: list[str], **pipes: Any) -> subprocess.Popen[bytes]:
    """Start a Python module (`-m` and its arguments), deaf to Ctrl-C. The last argument it gets is our process id, for
    `die_with`. `pipes` are those of `subprocess.Popen`, and `env`.

    The kernel ends the child when the thread that calls this ends: call it from one that outlives the child.
    """
    # Inherited over fork and exec, so there is no moment in which it would hear; a new process group has such a moment.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        return subprocess.Popen([sys.executable, "-m", *words, str(os.getpid())], **pipes)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def run(
    words: list[str], *, timeout_s: float, starter: Starter = start, env: dict[str, str] | None = None
) -> subprocess.CompletedProcess[bytes]:
    """Start a module, wait for it and return what it said. Raises TimeoutExpired when it was killed for being late."""
    with starter(words, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=env) as child:
        try:
            said, errors = child.communicate(timeout=timeout_s)
        except BaseException:
            child.kill()
            raise
    return subprocess.CompletedProcess(words, child.returncode, said, errors)


def die_with(starter: str) -> None:
    """Have the kernel kill this process when its starter, of this process id, ends; end at once if it has already.

    For the first lines of a child's `main`. Linux only; elsewhere a child runs to its own end.
    """
    if sys.platform != "linux":
        return
    ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0)
    if os.getppid() != int(starter):  # it ended before the kernel knew
        os._exit(1)


class Children:
    """Children that are ended together, from another thread than those that wait for them. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._running: list[subprocess.Popen[bytes]] = []

    def start(self, words: list[str], **pipes: Any) -> subprocess.Popen[bytes]:
        """Like the function `start`."""
        with self._lock:
            self._running = [one for one in self._running if one.returncode is None]
            child = start(words, **pipes)
            self._running.append(child)
        return child

    def kill(self) -> None:
        """Kill all that run now. Whoever waits for one sees it end by a signal."""
        with self._lock:
            for child in self._running:
                child.kill()
