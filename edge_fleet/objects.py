"""The objects of a repository as others name them: which names exist, where they lie, and reading pieces of them.

Names come from untrusted requests. Each kind has one allow-list pattern, so that no name can leave the repository.
Getting what is not here from somewhere else is `edge_fleet.depot.pull_through`.
"""

from __future__ import annotations

import os
import re
import stat
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path

from edge_contracts.names import NAME_PATTERN, SHA256_PATTERN, VERSION_PATTERN
from edge_contracts.transfer import Kind
from edge_fleet.errors import ObjectMissingError, ObjectNameError

_NAME = NAME_PATTERN.strip("^$")
_SHA256 = SHA256_PATTERN.strip("^$")
_VERSION = VERSION_PATTERN.strip("^$")

Names = Mapping[Kind, re.Pattern[str]]

PATTERNS: Names = {
    "metadata": re.compile(
        rf"timestamp\.json|[1-9][0-9]{{0,8}}\.(root|targets|snapshot|rollouts|releases-{_NAME})\.json"
    ),
    "target": re.compile(
        rf"(channels|jobs)/{_SHA256}\.{_NAME}\.json"
        rf"|models/{_NAME}/{_SHA256}\.family\.json"
        rf"|models/{_NAME}/{_VERSION}/{_SHA256}\.(manifest|deltas)\.json"
    ),
    "blob": re.compile(_SHA256),
}

_SEGMENT = r"[A-Za-z0-9][A-Za-z0-9_.%~+-]{0,199}"

TUF_PATTERNS: Names = {
    "metadata": re.compile(rf"{_SEGMENT}\.json"),
    "target": re.compile(rf"({_SEGMENT}/){{0,8}}{_SEGMENT}"),
    "blob": PATTERNS["blob"],
}
"""Names of any TUF repository, whose roles and target paths are its own affair: plain or percent-encoded segments."""

_HASH_PREFIX = re.compile(r"(?:.*/)?([0-9a-f]{128}|[0-9a-f]{64})\..+")

OPEN_FILES = 64
"""Files kept open between requests: as many as devices are served at once by default."""


def locate(kind: Kind, name: str, names: Names = PATTERNS) -> str:
    """Return where an object lies below the repository. Raises ObjectNameError if no object can have that name."""
    if not names[kind].fullmatch(name):
        raise ObjectNameError(f"not a {kind} name: {name[:80]!r}")
    if kind == "metadata":
        return f"metadata/{name}"
    if kind == "target":
        return f"targets/{name}"
    return f"blobs/{name[:2]}/{name}"


def promised_digest(kind: Kind, name: str) -> str | None:
    """Return the hexadecimal SHA-256 or SHA-512 that an object's name says its content has, None if it says none.

    Such an object never changes under its name (TUF specification, section 6.2: consistent snapshots)."""
    if kind == "blob":
        return name
    found = _HASH_PREFIX.fullmatch(name) if kind == "target" else None
    return None if found is None else found[1]


class ObjectReader:
    """Reads pieces of objects. Those named by their hash never change, so their files stay open a while."""

    def __init__(self, repository: Path, names: Names = PATTERNS) -> None:
        self._repository = repository
        self._names = names
        self._open: OrderedDict[str, tuple[int, int]] = OrderedDict()

    def read(self, kind: Kind, name: str, offset: int, length: int) -> tuple[bytes, int]:
        """Return at most `length` bytes at `offset`, and the object's size.

        Raises ObjectNameError, or ObjectMissingError when there is no such object or it ends before `offset`.
        """
        place = locate(kind, name, self._names)
        if promised_digest(kind, name) is None:
            file, size = self._opened(place)
            try:
                return _piece(file, size, offset, length), size
            finally:
                os.close(file)
        if place not in self._open:
            self._open[place] = self._opened(place)
        self._open.move_to_end(place)
        if len(self._open) > OPEN_FILES:
            os.close(self._open.popitem(last=False)[1][0])
        file, size = self._open[place]
        return _piece(file, size, offset, length), size

    def close(self) -> None:
        """Close what is open."""
        while self._open:
            os.close(self._open.popitem()[1][0])

    def _opened(self, place: str) -> tuple[int, int]:
        try:
            file = os.open(self._repository / place, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
        except OSError as error:
            raise ObjectMissingError("no such object", subject=place) from error
        found = os.fstat(file)
        if not stat.S_ISREG(found.st_mode):
            os.close(file)
            raise ObjectMissingError("not a regular file", subject=place)
        return file, found.st_size


def _piece(file: int, size: int, offset: int, length: int) -> bytes:
    if offset > size or (offset == size and size > 0):
        raise ObjectMissingError(f"{size} bytes long, no data at {offset}")
    try:
        return os.pread(file, length, offset)
    except OSError as error:
        raise ObjectMissingError(f"cannot be read: {error.strerror}") from error
