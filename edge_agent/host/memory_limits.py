"""Memory of this process: how much it uses, a cap on it, and who goes first when the box runs out.

Capping is what turns an exploding model into a failed allocation of its own process instead of a dead box.
"""

from __future__ import annotations

import contextlib
import resource
from pathlib import Path

from edge_contracts.limits import MIB

HEADROOM_MB = 48.0
"""What serving may need beside the model: request bodies, answers, the interpreter's own growth."""

LEAN_ENVIRONMENT = {
    "OPENBLAS_NUM_THREADS": "1",
    "OMP_NUM_THREADS": "1",
    "MALLOC_ARENA_MAX": "2",
    "MALLOC_MMAP_THRESHOLD_": str(MIB),
    "MALLOC_TRIM_THRESHOLD_": str(MIB),
}
"""For every child that loads NumPy or an engine: no idle BLAS threads, no allocator arena per thread, and the memory of
large tensors goes back when they are freed, and that of loading a model. Left to itself the allocator keeps it once
it has met a few of them."""

_STATUS = Path("/proc/self/status")
_OOM_SCORE = Path("/proc/self/oom_score_adj")


def read_status_mb(field: str) -> float:
    """Return a field of /proc/self/status (VmRSS, VmHWM, VmData) in megabytes of 2^20 bytes."""
    for line in _STATUS.read_text(encoding="ascii").splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1]) / 1024
    raise KeyError(field)


def limit_growth(megabytes: float) -> None:
    """Let private writable memory grow by at most `megabytes` from what it is now (RLIMIT_DATA, soft limit).

    RLIMIT_DATA and not RLIMIT_AS: libraries and reserved but unused address space cost nothing and must not count.
    Since Linux 4.7 it covers anonymous mappings, so an allocation over it fails in the engine's allocator.
    """
    wanted = int((read_status_mb("VmData") + megabytes) * MIB)
    _, hard = resource.getrlimit(resource.RLIMIT_DATA)
    if hard != resource.RLIM_INFINITY:
        wanted = min(wanted, hard)
    resource.setrlimit(resource.RLIMIT_DATA, (wanted, hard))


def offer_to_oom_killer(score: int) -> None:
    """Ask the kernel to end this process before its parent when memory runs out; without effect where not allowed."""
    with contextlib.suppress(OSError):
        _OOM_SCORE.write_text(str(score), encoding="ascii")
