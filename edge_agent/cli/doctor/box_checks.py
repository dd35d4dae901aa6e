"""Checks of `agent doctor` that look at the box: its disk, its board, its sensors and the limits around the agent."""

from __future__ import annotations

import contextlib
import errno
import time
from collections.abc import Iterable
from pathlib import Path

from edge_agent.cli.doctor.finding import Finding, Target, Verdict, failure, ok
from edge_agent.config.profiles import BOARD_HINT, board_problem, load_profile
from edge_agent.host.control_groups import ControlGroups
from edge_agent.host.governor import GovernorState, govern, known
from edge_agent.host.sensors import Sensors, architecture, disk_free_mb, free_inodes
from edge_agent.storage.durable import StateError, write_durably
from edge_agent.update.preflight import DISK_RESERVE_MB
from edge_contracts.readings import READINGS

INODE_RESERVE = 200
"""Inodes below which a release may not fit, whatever the megabytes: each file and each record takes one."""


def _state_folder(patient: Target) -> Iterable[Finding]:
    root = patient.state.root
    if not root.is_dir():
        yield Finding(check="state folder", verdict="skipped", text=f"{root} does not exist yet; the agent creates it")
        return
    started = time.monotonic()
    try:
        _probe(root / "doctor.tmp")
    except StateError as error:
        cause = error.__cause__
        number = cause.errno if isinstance(cause, OSError) else None
        yield failure("state folder", f"{error}; {_space(root)}", write_fix(number))
        return
    spent_ms = (time.monotonic() - started) * 1000
    free, inodes = disk_free_mb(root) or 0.0, free_inodes(root)
    if free < DISK_RESERVE_MB:
        fix = "free disk space by deleting files that are not the agent's; updates wait until then"
        yield failure("state folder", f"{free:.0f} MB free, {DISK_RESERVE_MB:.0f} MB are required", fix)
    elif inodes is not None and inodes < INODE_RESERVE:
        fix = "delete files, however small: each one takes an inode; `df -i` shows them"
        yield failure("state folder", f"{inodes:.0f} inodes free, whatever the megabytes", fix)
    elif spent_ms > 1000:
        text, fix = f"a durable write took {spent_ms:.0f} ms", "a worn SD card does this; look for I/O errors in dmesg"
        yield Finding(check="state folder", verdict="warning", text=text, fix=fix)
    else:
        yield ok("state folder", f"{root}: writable, {_space(root)}")


def _probe(path: Path) -> None:
    """Write a file and remove it again. Raises StateError."""
    try:
        write_durably(path, b"doctor")
    finally:
        with contextlib.suppress(OSError):
            path.unlink(missing_ok=True)


def _space(root: Path) -> str:
    inodes = free_inodes(root)
    return f"{disk_free_mb(root) or 0.0:.0f} MB" + ("" if inodes is None else f" and {inodes:.0f} inodes") + " free"


def write_fix(number: int | None) -> str:
    """Return what to do about a write that failed with this errno."""
    match number:
        case errno.EROFS:
            return (
                "the file system is read-only: look for I/O errors in dmesg, replace a worn card, or mount it writable"
            )
        case errno.ENOSPC | errno.EDQUOT:
            return "free megabytes (`df`) or inodes (`df -i`): delete what is not the agent's"
        case errno.EACCES | errno.EPERM:
            return "run doctor as root, and give the folder to the user that the agent runs as"
        case errno.EIO:
            return "the disk fails: look for I/O errors in dmesg, and replace it"
    return "see that the path is there and may be read and written"


def _board(patient: Target) -> Iterable[Finding]:
    problem = board_problem(load_profile(patient.config.device.profile), architecture())
    if problem is not None:
        yield failure("board", problem, BOARD_HINT)


def _sensors(patient: Target) -> Iterable[Finding]:
    """Judge the box's readings by the profile's own thresholds."""
    profile = load_profile(patient.config.device.profile)
    state = patient.state.root if patient.state.root.is_dir() else Path("/")
    readings = Sensors(state, Path(patient.config.device.sensors)).read((), 0.0)
    judged = govern(GovernorState(), readings, profile.governor, 0.0)
    had = known(readings)
    if judged.level == "NORMAL":
        silent = [reading.name for reading in READINGS if reading.name not in had and reading.name in _EXPECTED]
        unknown = f"; cannot be read here: {', '.join(silent)}" if silent else ""
        yield ok("sensors", ", ".join(f"{name} {value:g}" for name, value in had.items()) + unknown)
        return
    fix = "fix cooling, power supply, memory or disk, as named; the agent reduces load until then"
    if any(reason.startswith("memory_limit") for reason in judged.reasons):
        fix = "raise MemoryHigh and MemoryMax of the unit, or the container's limit, by what the models need"
    verdict: Verdict = "failure" if judged.level == "CRITICAL" else "warning"
    text = f"level {judged.level}: {', '.join(judged.reasons)}; nothing new is installed until it is NORMAL"
    yield Finding(check="sensors", verdict=verdict, text=text, fix=fix)


_EXPECTED = ("temperature_c", "available_memory_mb")
"""Readings that every board has; the others are there only where there is such a thing or such a limit."""


def _limits(patient: Target) -> Iterable[Finding]:
    """Say which limits are the agent's own: those of this command's group may be others than the service's."""
    groups = ControlGroups(Path(patient.config.device.sensors))
    memory, cpus = groups.memory(), groups.cpus()
    limit = (
        "no memory limit"
        if memory is None
        else f"{memory.left_mb:.0f} of {memory.limit_mb:.0f} MB left ({memory.name})"
    )
    yield ok("limits", f"{limit}, {cpus:g} CPUs; these are this command's, the agent's are in its status and /metrics")
    profile = load_profile(patient.config.device.profile)
    for slot in patient.config.slots:
        threads = slot.threads or profile.model.threads
        if threads > max(1.0, cpus):
            text = f"slot {slot.name} wants {threads} threads, {cpus:g} CPUs may be used"
            fix = f"threads = {max(1, int(cpus))}: threads that wait for a CPU make every answer slower"
            yield Finding(check="limits", verdict="warning", text=text, fix=fix)


BOX_CHECKS = (_state_folder, _board, _sensors, _limits)
CONFIGURATION_CHECKS = (_board, _limits)
"""Those that judge what the configuration asks of this machine."""
