"""Reads the system-call filter of a systemd unit and applies it to this process, as systemd would, with libseccomp."""

from __future__ import annotations

import ctypes
import errno
import subprocess
import sys
from pathlib import Path

_ALLOW = 0x7FFF0000
_REFUSE = 0x00050000 | errno.EPERM


def allowed_calls(unit: Path) -> set[str]:
    """Return the system calls a unit's `SystemCallFilter` lines leave; `@default` is always among them."""
    allowed = set(_expand("@default"))
    for line in unit.read_text().splitlines():
        name, _, value = line.partition("=")
        if name == "SystemCallFilter":
            calls = {call for word in value.lstrip("~").split() for call in _expand(word)}
            allowed = allowed - calls if value.startswith("~") else allowed | calls
    return allowed


def _expand(word: str) -> list[str]:
    if not word.startswith("@"):
        return [word]
    listing = subprocess.run(
        ["systemd-analyze", "--no-pager", "syscall-filter", word], capture_output=True, text=True, check=True
    ).stdout
    names = [line.strip() for line in listing.splitlines()[1:] if line.strip() and line.strip()[0] != "#"]
    return [call for name in names for call in _expand(name)]


def confine(calls: list[str]) -> None:
    """Refuse every other system call to this process from now on. Raises OSError if the kernel does not take it."""
    library = ctypes.CDLL("libseccomp.so.2", use_errno=True)
    library.seccomp_init.restype = ctypes.c_void_p
    library.seccomp_rule_add_array.argtypes = [
        ctypes.c_void_p,
        ctypes.c_uint32,
        ctypes.c_int,
        ctypes.c_uint,
        ctypes.c_void_p,
    ]
    library.seccomp_load.argtypes = [ctypes.c_void_p]
    rules = library.seccomp_init(_REFUSE)
    for call in calls:
        number = library.seccomp_syscall_resolve_name(call.encode())
        if number >= 0:
            library.seccomp_rule_add_array(rules, _ALLOW, number, 0, None)
    code = library.seccomp_load(rules)
    if code != 0:
        raise OSError(-code, "seccomp_load")


if __name__ == "__main__":
    # python syscall_filters.py CALLS MODEL: confine, then load and run an ONNX model of one float input.
    confine(sys.argv[1].split(","))
    import numpy as np
    import onnxruntime

    session = onnxruntime.InferenceSession(sys.argv[2], providers=["CPUExecutionProvider"])
    (made,) = session.run(None, {"x": np.ones((1, 4), np.float32)})
    mount = ctypes.CDLL(None, use_errno=True).mount
    refused = mount(b"none", b"/nowhere", b"tmpfs", 0, None) != 0 and ctypes.get_errno() == errno.EPERM
    print(float(made.sum()), refused)
